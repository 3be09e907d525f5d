"""Time that planning takes, beside `jax.make_jaxpr` of the same function.

    python benchmarks/planning.py
    python benchmarks/planning.py --sizes 100 200 400

Processor time, median of several runs in turn, operation counts doubled from row to row. A plan
traces the function too, so its time includes the other column.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import ratio

import jaxlrp as lrp

X, W = jnp.ones((2, 8)), jnp.ones((8, 8))
RULES = lrp.composites.epsilon_plus()


def branches(n: int) -> Callable[[Any], Any]:
    """The sum of n ReLU layers of one input."""
    return lambda x: sum(jax.nn.relu(x @ W * (i + 1)) for i in range(n))


def shifts(n: int) -> Callable[[Any], Any]:
    def fn(x: Any) -> Any:
        y = x
        for _ in range(n):
            y = y + x * 0.01
        return y

    return fn


def activations(n: int) -> Callable[[Any], Any]:
    def fn(x: Any) -> Any:
        for _ in range(n):
            x = jnp.tanh(x)
        return x

    return fn


def blocks(n: int) -> Callable[[Any], Any]:
    """Residual blocks with a norm, two dense layers and a GELU."""

    def fn(x: Any) -> Any:
        for _ in range(n):
            h = (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-6)
            x = x + jax.nn.gelu(h @ W) @ W
        return x

    return fn


def processor_time(function: Callable[[], Any]) -> float:
    start = time.process_time()
    function()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[50, 100, 200, 400, 800])
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    print(ratio.machine())
    print(f"processor time in s, median of {args.rounds}\n")
    print("| function | n | equations | make_jaxpr | plan | layers | growth |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for make in (branches, shifts, activations, blocks):
        before = None
        for n in args.sizes:
            traced, planned = [], []
            for _ in range(args.rounds):
                # A function of its own each time: JAX remembers what it has traced.
                fn, other = make(n), make(n)
                traced.append(processor_time(lambda fn=fn: jax.make_jaxpr(fn)(X)))
                planned.append(processor_time(lambda fn=other: lrp.plan(fn, RULES)(X)))
            plan, count = lrp.plan(make(n), RULES)(X), len(jax.make_jaxpr(make(n))(X).eqns)
            own = statistics.median(planned)
            growth = "" if before is None else f"{own / before:.1f}"
            times = f"{statistics.median(traced):.3f} | {own:.3f}"
            row = f"{make.__name__} | {n} | {count} | {times} | {len(plan.layers)} | {growth}"
            print(f"| {row} |", flush=True)
            before = own


if __name__ == "__main__":
    main()
