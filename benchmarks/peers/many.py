"""Many explanations of one network by jaxlrp and by Zennit: targets of one image, and a stream.

    python benchmarks/peers/many.py                                        # an hour
    python benchmarks/peers/many.py --networks resnet50 --targets 10 --pairs 3
    python benchmarks/peers/many.py --targets --stream 20 --composites epsilon_plus

**Targets.** jaxlrp explains K targets in one program, a loop over batches of targets
(`docs/many.md`). Zennit has two ways: one forward pass that is retained and a backward pass for
each target, and batches of copies of the image. Both are timed; the ratio is of the faster one.

**Stream.** Batches of images, one after another, each with its own target. The first column of
seconds has the trace and the compilation in it, the second has not.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import jax
import jax.numpy as jnp
import numpy as np
import ratio
import torch
import turns
from compare import COMPOSITES, Sides
from torch_networks import MODELS
from zennit.canonizers import SequentialMergeBatchNorm

import jaxlrp as lrp

TARGETS_HEADER = (
    "network",
    "targets",
    "rules",
    "distance",
    "Zennit's faster way",
    "Zennit / jaxlrp",
    "interval",
    "jaxlrp, s",
    "Zennit, s",
    "Zennit's other way, s",
    "jaxlrp / its one target",
)
STREAM_HEADER = (
    "network",
    "images",
    "batch",
    "rules",
    "distance",
    "jaxlrp with compilation, s",
    "jaxlrp, s",
    "Zennit, s",
    "Zennit / jaxlrp with compilation",
    "Zennit / jaxlrp",
    "interval by batch",
)


def many_jax(sides: Sides, rules: Any, batch: int) -> Callable[..., Any]:
    explain = lrp.explain(sides.fn, rules, argnums=1)

    def step(params: Any, x: jax.Array, targets: jax.Array) -> jax.Array:
        def one(target: jax.Array) -> jax.Array:
            return explain(params, x, target=target[None])[0]

        if len(targets) <= batch:  # XLA's convolutions are slow in a loop on CPU
            return jax.vmap(one)(targets)
        return jax.lax.map(one, targets, batch_size=batch)

    return step


def retained(sides: Sides, make: Callable[..., Any], targets: int) -> Callable[[], torch.Tensor]:
    """Zennit's hooks during one forward pass, and a backward pass for each target."""

    def run() -> torch.Tensor:
        x = sides.pixels.clone().requires_grad_()
        with make([SequentialMergeBatchNorm()]).context(sides.module) as module:
            out = module(x)
            seeds = torch.diag_embed(out.detach()[0])[:, None]
            found = [
                torch.autograd.grad(out, x, seeds[number], retain_graph=True)[0]
                for number in range(targets)
            ]
        return torch.cat(found)

    return run


def copies(
    sides: Sides, make: Callable[..., Any], targets: int, most: int = 10
) -> Callable[[], torch.Tensor]:
    """Zennit on batches of at most `most` copies of the image, each with its own target."""

    def some(numbers: torch.Tensor) -> torch.Tensor:
        x = sides.pixels.expand(len(numbers), *sides.pixels.shape[1:]).clone().requires_grad_()
        with make([SequentialMergeBatchNorm()]).context(sides.module) as module:
            out = module(x)
            seed = out.detach() * torch.nn.functional.one_hot(numbers, 1000)
            return torch.autograd.grad(out, x, seed)[0]

    return lambda: torch.cat([some(numbers) for numbers in torch.arange(targets).split(most)])


def apart(mine: Any, theirs: torch.Tensor) -> float:
    return turns.distance(mine, theirs.detach().numpy().transpose(0, 2, 3, 1))


def targets_row(name: str, rule: str, targets: int, options: argparse.Namespace) -> tuple[str, ...]:
    sides = Sides(name, 1)
    ours, make = COMPOSITES[rule]
    step = many_jax(sides, ours(), min(options.together, targets))
    compiled = ratio.make(step, (sides.params, sides.x, jnp.arange(targets))).compiled

    def mine() -> Any:
        return jax.block_until_ready(compiled(sides.params, sides.x, jnp.arange(targets)))

    single, _ = sides.jax(ratio.explanation(sides.fn, ours()))
    ways = {
        "retained": retained(sides, make, targets),
        "copies": copies(sides, make, targets),
    }
    gaps = [apart(mine(), way()) for way in ways.values()]
    ours_s, single_s, *seconds = turns.timed([mine, single, *ways.values()], options.pairs)
    faster, slower = sorted(zip(seconds, ways), key=lambda both: turns.middle(both[0]))
    return (
        name,
        str(targets),
        rule,
        f"{max(gaps):.0e}",
        faster[1],
        *turns.of_pairs(ours_s, faster[0]),
        f"{turns.middle(slower[0]):.3f}",
        f"{turns.middle(turns.quotients(ours_s, single_s)):.2f}",
    )


def stream_row(name: str, rule: str, options: argparse.Namespace) -> tuple[str, ...]:
    batch = options.batch
    sides = Sides(name, batch)
    ours, make = COMPOSITES[rule]
    zennit = sides.zennit(make)
    zennit()  # the first call of PyTorch allocates; jaxlrp's has no such favour
    rng = np.random.default_rng(0)
    start = time.perf_counter()
    compiled = ratio.make(
        ratio.explanation(sides.fn, ours()), (sides.params, sides.x, sides.target)
    ).compiled
    build = time.perf_counter() - start
    mine_s, theirs_s, gap = [], [], 0.0
    for number in range(-(-options.stream // batch)):
        x = np.clip(rng.standard_normal(sides.x.shape, np.float32), -3.0, 3.0)
        target = (np.arange(batch) + number * batch) % 1000
        sides.pixels = torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))
        sides.chosen = torch.nn.functional.one_hot(torch.from_numpy(target), 1000)
        start = time.perf_counter()
        mine = np.asarray(compiled(sides.params, x, target.astype(np.int32))[1])
        middle = time.perf_counter()
        theirs = zennit()
        theirs_s.append(time.perf_counter() - middle)
        mine_s.append(middle - start)
        gap = max(gap, apart(mine, theirs))
    low, high, sure = turns.interval(turns.quotients(theirs_s, mine_s))
    return (
        name,
        str(batch * len(mine_s)),
        str(batch),
        rule,
        f"{gap:.0e}",
        f"{build + sum(mine_s):.2f}",
        f"{sum(mine_s):.2f}",
        f"{sum(theirs_s):.2f}",
        f"{sum(theirs_s) / (build + sum(mine_s)):.2f}",
        f"{sum(theirs_s) / sum(mine_s):.2f}",
        f"{low:.2f} to {high:.2f} ({100 * sure:.0f} %)",
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--composites", nargs="+", choices=COMPOSITES, default=list(COMPOSITES))
    parser.add_argument("--targets", nargs="*", type=int, default=[10, 100])
    parser.add_argument("--together", type=int, default=10, help="targets at once (default 10)")
    parser.add_argument("--pairs", type=int, default=9, help="timed pairs (default 9)")
    parser.add_argument("--stream", type=int, default=0, metavar="N", help="images (default none)")
    parser.add_argument("--batch", type=int, default=8, help="of the stream (default 8)")
    options = parser.parse_args()

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    print(f"{ratio.machine()}; torch {torch.__version__}, {torch.get_num_threads()} threads")
    for name in options.networks:
        for rule in options.composites:
            for targets in options.targets:
                print(flush=True)
                ratio.show([targets_row(name, rule, targets, options)], TARGETS_HEADER)
            if options.stream:
                print(flush=True)
                ratio.show([stream_row(name, rule, options)], STREAM_HEADER)


if __name__ == "__main__":
    main()
