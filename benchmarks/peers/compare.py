"""Explanations by jaxlrp and by Zennit, beside each other: the same network, weights and batch.

    python benchmarks/peers/compare.py                                   # tens of minutes
    python benchmarks/peers/compare.py --networks resnet50 --batch 1 --pairs 3
    python benchmarks/peers/compare.py --double --batch 1       # relevance in float64, no times
    python benchmarks/peers/compare.py --memory --batch 1       # peaks, no times

Relevance is compared first: a speed for another answer counts for nothing. Then both sides take
turns in this process, on the same number of threads, and a ratio is formed of each pair. The table
has the median of the ratios, and an interval in which the median of all pairs lies.
"""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import jax
import jax.numpy as jnp
import networks
import numpy as np
import ratio
import torch
import turns
from torch_networks import MODELS, build
from zennit import composites
from zennit.attribution import Gradient
from zennit.canonizers import SequentialMergeBatchNorm

import jaxlrp as lrp

COMPOSITES: dict[str, tuple[Callable[[], Any], Callable[[list[Any]], Any]]] = {
    "epsilon_plus": (
        lrp.composites.epsilon_plus,
        lambda c: composites.EpsilonPlus(canonizers=c),
    ),
    "epsilon_plus_flat": (
        lrp.composites.epsilon_plus_flat,
        lambda c: composites.EpsilonPlusFlat(canonizers=c),
    ),
    "epsilon_gamma_box": (
        lambda: lrp.composites.epsilon_gamma_box(low=-3.0, high=3.0),
        lambda c: composites.EpsilonGammaBox(low=-3.0, high=3.0, canonizers=c),
    ),
    "epsilon_alpha2_beta1": (
        lrp.composites.epsilon_alpha2_beta1,
        lambda c: composites.EpsilonAlpha2Beta1(canonizers=c),
    ),
}
HEADER = (
    "network",
    "batch",
    "rules",
    "distance",
    "Zennit / jaxlrp",
    "interval",
    "jaxlrp, s",
    "Zennit, s",
    "jaxlrp / own gradient",
    "Zennit / own gradient",
    "build of jaxlrp, s",
)

MEMORY_HEADER = (
    "network",
    "batch",
    "rules",
    "jaxlrp, MB",
    "Zennit, MB",
    "own gradient, MB",
    "PyTorch's gradient, MB",
)


class Sides:
    """One network in both frameworks; functions without arguments that run to the end."""

    def __init__(self, name: str, batch: int, double: bool = False):
        self.fn, params, x = networks.build(name, batch)
        dtype = jnp.float64 if double else jnp.float32
        self.params, self.x = jax.tree.map(lambda leaf: leaf.astype(dtype), (params, x))
        self.target = jnp.arange(batch) % 1000
        self.module = build(name, self.params)
        pixels = np.array(self.x).transpose(0, 3, 1, 2)
        self.pixels = torch.from_numpy(np.ascontiguousarray(pixels))
        if double:
            self.module.double()
        self.chosen = torch.nn.functional.one_hot(torch.arange(batch) % 1000, 1000)

    def jax(self, step: Callable[..., Any]) -> tuple[Callable[[], Any], float]:
        args = (self.params, self.x, self.target)
        made = ratio.make(step, args)
        return lambda: jax.block_until_ready(made.compiled(*args)), made.build

    def gradient(self) -> Any:
        x = self.pixels.clone().requires_grad_()
        (found,) = torch.autograd.grad((self.module(x) * self.chosen).sum(), x)
        return found

    def zennit(self, make: Callable[[list[Any]], Any]) -> Callable[[], Any]:
        def run() -> Any:
            composite = make([SequentialMergeBatchNorm()])
            with Gradient(model=self.module, composite=composite) as attributor:
                return attributor(self.pixels, lambda out: out * self.chosen)[1]

        return run


def apart(mine: Any, theirs: Any) -> str:
    return f"{turns.distance(mine, theirs.detach().numpy().transpose(0, 2, 3, 1)):.0e}"


def distances(name: str, batch: int, rules: list[str]) -> list[tuple[str, ...]]:
    """How far relevance differs in float64."""
    sides = Sides(name, batch, double=True)
    found = []
    for rule in rules:
        ours, make = COMPOSITES[rule]
        step = jax.jit(ratio.explanation(sides.fn, ours()))
        (_, mine), theirs = step(sides.params, sides.x, sides.target), sides.zennit(make)()
        found.append((name, str(batch), rule, apart(mine, theirs)))
    return found


def memory(name: str, batch: int, rules: list[str]) -> list[tuple[str, ...]]:
    """The most memory that each side takes."""
    sides = Sides(name, batch)
    gradient, _ = sides.jax(ratio.gradient(sides.fn))
    gradients = turns.peaks([gradient, sides.gradient])
    found = []
    for rule in rules:
        ours, make = COMPOSITES[rule]
        mine, _ = sides.jax(ratio.explanation(sides.fn, ours()))
        found.append((name, str(batch), rule, *turns.peaks([mine, sides.zennit(make)]), *gradients))
    return found


def rows(name: str, batch: int, rules: list[str], pairs: int) -> list[tuple[str, ...]]:
    sides = Sides(name, batch)
    gradient, _ = sides.jax(ratio.gradient(lambda params, x: sides.fn(params, x)))
    found = []
    gap = apart(gradient()[1], sides.gradient())
    for rule in ["gradient", *rules]:
        if rule == "gradient":
            mine, build_s, theirs = gradient, 0.0, sides.gradient
        else:
            ours, make = COMPOSITES[rule]
            mine, build_s = sides.jax(ratio.explanation(sides.fn, ours()))
            theirs = sides.zennit(make)
            gap = apart(mine()[1], theirs())
        taken = turns.times([mine, theirs, gradient, sides.gradient], pairs)
        found.append((name, str(batch), rule, gap, *taken, f"{build_s:.1f}"))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--composites", nargs="+", choices=COMPOSITES, default=list(COMPOSITES))
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--pairs", type=int, default=9, help="timed pairs (default 9)")
    parser.add_argument("--shared", action="store_true", help="say that other work ran beside it")
    parser.add_argument("--double", action="store_true", help="compare in float64, time nothing")
    parser.add_argument("--memory", action="store_true", help="print peaks, time nothing")
    options = parser.parse_args()

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    print(
        ratio.machine(), f"torch {torch.__version__}, {torch.get_num_threads()} threads", sep="; "
    )
    if options.shared:
        print("Other work ran on the same cores: read the seconds as an order of magnitude.")
    for name in options.networks:
        for batch in options.batch:
            print(flush=True)
            if options.double:
                with jax.enable_x64(True):
                    ratio.show(distances(name, batch, options.composites), HEADER[:4])
            elif options.memory:
                ratio.show(memory(name, batch, options.composites), MEMORY_HEADER)
            else:
                ratio.show(rows(name, batch, options.composites, options.pairs), HEADER)


if __name__ == "__main__":
    main()
