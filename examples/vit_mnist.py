"""A vision transformer beside a convolutional network: what do both see in a digit?

Trains LeNet's shape and a small vision transformer on the same real MNIST digits, and explains test
digits for their true class: the convolutional network by a composite for pictures, the transformer
by AttnLRP, and by a mixture that keeps its attention weights constant and favours positive
contributions in its linear layers. It prints what each method accounts for, and what becomes of the
predictions when the most relevant pixels are blackened.

    python examples/vit_mnist.py --out out/vit_mnist.png
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
from mnist import CLASSES, LeNet, load_digits, pick_digits, relevance, train_network, where_it_went

import jaxlrp as lrp
from jaxlrp import composites, heatmap, methods

CNN, VIT = "CNN", "ViT"
METHODS = {
    f"{CNN}: LRP-ε, γ and box": (CNN, composites.epsilon_gamma_box(low=0.0, high=1.0)),
    f"{VIT}: AttnLRP": (VIT, composites.attn_lrp()),
    f"{VIT}: CP-LRP and γ": (
        VIT,
        composites.cp_lrp() | {"dense": lrp.Gamma(0.25), "conv": lrp.Gamma(0.25)},
    ),
}
# Not drawn, but measured.
OTHERS = {
    f"{VIT}: CP-LRP": (VIT, composites.cp_lrp()),
    f"{VIT}: LibraGrad": (VIT, composites.libra_grad()),
    f"{VIT}: GIM": (VIT, composites.gim()),
}


class Block(nn.Module):
    """Attention, then two dense layers, each after a LayerNorm and beside a skip connection."""

    heads: int

    @nn.compact
    def __call__(self, h):
        width = h.shape[-1]
        h = h + nn.MultiHeadDotProductAttention(self.heads, name="attention")(nn.LayerNorm()(h))
        inner = nn.gelu(nn.Dense(2 * width, name="inner")(nn.LayerNorm()(h)))
        return h + nn.Dense(width, name="outer")(inner)


class ViT(nn.Module):
    """Patches to vectors, learned positions, blocks, mean over patches; returns logits."""

    patch: int = 7
    width: int = 64
    heads: int = 4
    depth: int = 3

    @nn.compact
    def __call__(self, x):
        size = (self.patch, self.patch)
        h = nn.Conv(self.width, size, strides=size, padding="VALID", name="patches")(x)
        h = h.reshape(h.shape[0], -1, self.width)
        h = h + self.param("positions", nn.initializers.normal(0.02), (1, *h.shape[1:]))
        for i in range(self.depth):
            h = Block(self.heads, name=f"block_{i}")(h)
        return nn.Dense(CLASSES, name="head")(nn.LayerNorm(name="norm")(h).mean(axis=1))


def blacken(images: np.ndarray, scores: np.ndarray, count: int) -> np.ndarray:
    """Images (n, 28, 28, 1) with the `count` pixels of highest score on the stroke set to 0."""
    flat = images.reshape(len(images), -1).copy()
    scores = np.where(flat > 0, scores.reshape(flat.shape), -np.inf)
    chosen = np.argsort(-scores, axis=-1)[:, :count]
    np.put_along_axis(flat, chosen, 0.0, axis=-1)
    return flat.reshape(images.shape)


def lead(logits: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The logit of the true class minus the highest other one."""
    rows = np.arange(len(truth))
    others = logits.copy()
    others[rows, truth] = -np.inf
    return logits[rows, truth] - others.max(-1)


def print_blackening(
    predict: dict[str, Callable], maps: dict, x: np.ndarray, truth: np.ndarray, count: int, rng
) -> None:
    """Lead and share of right answers once the most relevant pixels are gone."""
    print(
        f"After blackening {count} pixels of the stroke in each of {len(x)} digits: the lead of\n"
        "the true class (its logit minus the highest other one), and the share of right answers"
    )
    for network in (CNN, VIT):
        rows = {"none": None, "random": rng.random(x.shape)}
        rows |= {
            name.removeprefix(f"{network}: "): R
            for name, R in maps.items()
            if name.startswith(f"{network}: ")
        }
        for name, scores in rows.items():
            changed = x if scores is None else blacken(x, scores, count)
            leads = lead(predict[network](changed), truth)
            print(f"  {network}  {name:<24} {leads.mean():>7.2f} {(leads > 0).mean():>7.1%}")
    print()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("out/vit_mnist.png"))
    parser.add_argument("--epochs", type=int, default=40, help="of the transformer")
    parser.add_argument("--blacken", type=int, default=20, help="how many pixels to blacken")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    rng = np.random.default_rng(args.seed)
    train, (images, labels) = load_digits(rng)
    networks, predict = {}, {}
    for name, network, epochs, rate in (
        (CNN, LeNet(), 12, 3e-3),
        (VIT, ViT(), args.epochs, 1e-3),
    ):
        start = time.perf_counter()
        fn, params = train_network(network, *train, rng, epochs, rate)
        networks[name] = (fn, params)
        run = jax.jit(fn)
        predict[name] = lambda x, run=run, params=params: np.asarray(run(params, x))
        accuracy = np.mean(predict[name](images).argmax(-1) == labels)
        seconds = time.perf_counter() - start
        count = sum(leaf.size for leaf in jax.tree.leaves(params))
        print(f"{name}: {count:,} weights, {seconds:.0f} s, {accuracy:.1%} of {len(labels)} right.")
    print()

    # Digits that both get right; those of the picture first, then more for the numbers.
    right = [predict[name](images).argmax(-1) == labels for name in networks]
    both = np.flatnonzero(np.logical_and(*right))
    chosen = both[pick_digits(predict[VIT](images[both]), labels[both])]
    chosen = np.concatenate([chosen, rng.permutation(np.setdiff1d(both, chosen))])[:200]
    x, truth = images[chosen], labels[chosen]

    maps = {}
    print(f"Share of the true class's logit that reaches the pixels ({len(x)} digits), and shares")
    print("that biases, stabilisers (epsilon) and rules took on the way:")
    print(f"  {'':<24} {'pixels':>8} {'biases':>8} {'epsilon':>8} {'rule':>8}")
    for name, (network, rules) in (METHODS | OTHERS).items():
        fn, params = networks[network]
        maps[name] = np.asarray(jax.jit(relevance(fn, rules))(params, x, truth))
        ledger = lrp.ledger(fn, rules, argnums=1)(params, x, target=truth)
        shares = where_it_went(ledger).values()
        print(f"  {name:<24}" + "".join(f" {round(share, 3) + 0:>8.1%}" for share in shares))
    print()
    fn, params = networks[VIT]
    gradients = methods.gradient_x_input(fn, argnums=1)
    maps[f"{VIT}: gradient x input"] = np.asarray(jax.jit(gradients)(params, x, target=truth))
    print_blackening(predict, maps, x, truth, args.blacken, rng)

    figure = heatmap.grid(
        np.stack([maps[name][:CLASSES] for name in METHODS]),
        row_labels=[name.replace(": ", "\n") for name in METHODS],
        column_labels=[f"{c}" for c in truth[:CLASSES]],
        images=x[:CLASSES],
        photographs=False,
        title="The same digits, seen by a convolutional network and by a transformer",
    )
    args.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.out, dpi=150)
    print(f"The picture is in {args.out}.")


if __name__ == "__main__":
    main()
