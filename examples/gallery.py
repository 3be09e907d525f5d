"""A gallery of photographs, composites of LRP and companion methods, with measurements.

Explains the two highest classes of SqueezeNet 1.1 for six photographs. Draws the highest class, and
prints a table in Markdown with three numbers for each method:

- the share of positive relevance inside outlines of the objects (examples/outlines.json), the mean
  over the photographs, for the highest class and for the second;
- the gap: the relative error of the sum of relevance, the median over photographs and classes;
- processor time, in gradients of the same network.

    python examples/gallery.py --out out/pictures
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from dark_figures import GROUND
from imagenet_networks import centre_crop, squeezenet
from matplotlib.figure import Figure
from outlines import outlines, positive_share
from pictures import METHODS as COMPOSITES
from pictures import class_names, photographs, top_two

import jaxlrp as lrp
from jaxlrp import heatmap, methods

SIZE = 227
MEAN = np.array([123.68, 116.779, 103.939], np.float32)  # what the network subtracts
LAST = lrp.last("concatenate")  # the two branches of the last module


class Method(NamedTuple):
    """An explanation `(pixels, target[, key])` and the baseline of the sum that it promises.

    The baseline is None where no sum is promised, and "logit" where the logit itself is.
    """

    explain: Callable
    sums_to: object = None
    draws: bool = False


def all_methods(logits: Callable) -> dict[str, Method]:
    large = {"size": (SIZE, SIZE)}
    gradient = methods.gradient(logits)
    found = {n: Method(lrp.explain(logits, rules), "logit") for n, rules in COMPOSITES.items()}
    return found | {
        "gradient ×\ninput": Method(methods.gradient_x_input(logits), "logit"),
        "integrated\ngradients": Method(
            methods.integrated_gradients(logits, baseline=MEAN, steps=64, batch=64), MEAN
        ),
        "DeepLIFT": Method(methods.deep_lift(logits, baseline=MEAN), MEAN),
        "SmoothGrad": Method(
            methods.smooth_grad(gradient, samples=32, batch=32, examples=1), draws=True
        ),
        "guided\nbackprop": Method(methods.guided_backprop(logits)),
        "Grad-CAM": Method(methods.grad_cam(logits, LAST, **large)),
        "guided\nGrad-CAM": Method(methods.guided_grad_cam(logits, LAST)),
        "occlusion": Method(
            methods.occlusion(
                logits, window=(32, 32, 3), stride=(16, 16, 3), baseline=MEAN, examples=1, batch=25
            )
        ),
    }


def processor_time(call: Callable, *args, **options) -> float:
    start = time.process_time()
    jax.block_until_ready(call(*args, **options))
    return time.process_time() - start


def explained(logits: Callable, pixels: np.ndarray, classes: np.ndarray):
    """By method: maps (2, pictures, H, W), the gaps, and the time in gradients."""
    unit = jax.jit(methods.gradient(logits))
    at = jax.jit(logits)
    found = {}
    for name, method in all_methods(logits).items():
        call = jax.jit(method.explain)
        key = {"key": jax.random.key(0)} if method.draws else {}
        maps = np.zeros((*classes.shape, SIZE, SIZE))
        gaps = []
        for rank, n in np.ndindex(*classes.shape):
            x, target = pixels[n : n + 1], jnp.asarray(classes[rank, n : n + 1])
            R = np.asarray(call(x, target=target, **key), np.float64)
            maps[rank, n] = (R.sum(-1) if R.ndim == 4 else R)[0]
            if method.sums_to is not None:
                chosen = int(target[0])
                total = float(at(x)[0, chosen])
                if not isinstance(method.sums_to, str):
                    total -= float(at(np.broadcast_to(method.sums_to, x.shape))[0, chosen])
                gaps.append(abs(R.sum() - total) / abs(total))
        x, target = pixels[:1], jnp.asarray(classes[0, :1])
        unit(x, target=target)
        ratios = []
        for _ in range(3):  # beside gradients of the same moment
            one = np.median([processor_time(unit, x, target=target) for _ in range(3)])
            ratios.append(processor_time(call, x, target=target, **key) / one)
        found[name] = maps, float(np.median(gaps)) if gaps else None, float(np.median(ratios))
        print(f"  {name.replace(chr(10), ' ')}: done", flush=True)
    return found


def print_table(found, photos: list[str], drawn) -> None:
    area = np.mean([inside.mean() for _, inside in drawn.values()])
    print(f"\nThe outlines have {area:.0%} of the area.\n")
    print("| method | inside, highest class | inside, second | gap | gradients |")
    print("| --- | --- | --- | --- | --- |")
    for name, (maps, gap, cost) in found.items():
        shares = [
            positive_share(maps[:, n], drawn[photo][1])
            for n, photo in enumerate(photos)
            if photo in drawn
        ]
        first, second = np.nanmean(shares, axis=0)
        missed = "" if gap is None else f"{gap:.1%}"
        name = name.replace("\n", " ")
        print(f"| {name} | {first:.0%} | {second:.0%} | {missed} | {cost:.1f} |")


def draw(found, pixels, labels: list[str], path: Path, dark: bool = False) -> None:
    """One row for each photograph: itself, then the highest class by every method."""
    ground, ink = (GROUND, "0.9") if dark else ("white", "0")
    rows, columns = len(pixels), len(found) + 1
    cell, gap, left, top = 1.0, 0.05, 1.05, 0.5
    width, height = left + columns * (cell + gap) + 0.05, top + rows * (cell + gap) + 0.05
    figure = Figure(figsize=(width, height), facecolor=ground)

    def place(row, column, picture):
        x, y = left + column * (cell + gap), top + row * (cell + gap)
        axes = figure.add_axes((x / width, 1 - (y + cell) / height, cell / width, cell / height))
        axes.imshow(picture, interpolation="antialiased")
        axes.set_axis_off()

    def write(x, y, text, **style):
        figure.text(x / width, 1 - y / height, text, va="center", color=ink, **style)

    for column, name in enumerate(["photograph", *found]):
        middle = left + column * (cell + gap) + cell / 2
        write(middle, top / 2, name, size=9, ha="center")
    for row, label in enumerate(labels):
        write(left - 0.1, top + row * (cell + gap) + cell / 2, label, size=9, ha="right")
        place(row, 0, pixels[row] / 255)
        for column, (maps, *_) in enumerate(found.values(), start=1):
            place(row, column, heatmap.overlay(maps[0, row], pixels[row], "HW", fade=0.6))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, pil_kwargs={"quality": 85})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("out/pictures"), help="folder to write to")
    args = parser.parse_args()
    network, variables = squeezenet()

    def logits(pixels):
        return network.apply(variables, pixels)

    photos = photographs()
    pixels = np.stack([centre_crop(image, SIZE) for image in photos.values()])
    scores = np.asarray(jax.jit(logits)(pixels))
    classes, shares = top_two(scores), np.asarray(jax.nn.softmax(scores))
    names = class_names()
    labels = [f"{names[c]}\n{shares[n, c]:.0%}" for n, c in enumerate(classes[0])]
    found = explained(logits, pixels, classes)
    print_table(found, list(photos), outlines(list(photos), SIZE))
    for name, dark in {"gallery": False, "gallery_dark": True}.items():
        draw(found, pixels, labels, args.out / f"{name}.jpg", dark)
    print(
        f"\nThe gallery is {args.out / 'gallery.jpg'}; gallery_dark.jpg is for pages in the dark."
    )


if __name__ == "__main__":
    main()
