"""How the cost of an explanation grows with depth, width, batch and targets, beside its gradient's.

    python benchmarks/growth.py                                   # tens of minutes
    python benchmarks/growth.py --along depth --sizes 3 6 12 --runs 3
    python benchmarks/growth.py --along targets --rules cp_lrp

Transformer blocks of `loops.py`, unrolled. One of the four sizes changes and the others stay at
`BASE`. Below each table are exponents: the slope of a straight line through the logarithms of
seconds against the logarithm of the size, 1 where the cost is proportional to it. For several
targets both sides map over them in one program.
"""

import argparse
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import loops
import numpy as np
import ratio

BASE = {"depth": 12, "width": 128, "batch": 4, "targets": 1}
SIZES = {
    "depth": (12, 24, 48, 96),
    "width": (64, 128, 256, 512),
    "batch": (1, 4, 16, 64),
    "targets": (1, 2, 4, 8, 16),
}
TOKENS = 64
HEADER = (
    "size",
    "rules",
    "run, s",
    "run / gradient's",
    "build, s",
    "build / gradient's",
    "memory, MB",
)


def network(depth: int, width: int) -> tuple[Callable[..., jax.Array], Any]:
    params = loops.stack_params(depth, width, heads=4)
    stacked = params["blocks"]
    params["blocks"] = [{name: leaf[i] for name, leaf in stacked.items()} for i in range(depth)]

    def fn(params: Any, x: jax.Array) -> jax.Array:
        for p in params["blocks"]:
            x = loops.block(p, x)
        return loops.read_out(params, x)

    return fn, params


def over_targets(step: Callable[..., Any]) -> Callable[..., Any]:
    """`step` for each row of targets; what does not depend on the target is computed once."""

    def mapped(params: Any, x: jax.Array, targets: jax.Array) -> Any:
        return jax.vmap(lambda target: step(params, x, target))(targets)

    return mapped


def measured(along: str, size: int, rule: str, options: argparse.Namespace) -> list[ratio.Measured]:
    """The gradient and the explanation at one size, built and then run in turn."""
    sizes = {**BASE, along: size}
    fn, params = network(sizes["depth"], sizes["width"])
    x = loops.Draw().normal(sizes["batch"], TOKENS, sizes["width"])
    targets = (jnp.arange(sizes["targets"])[:, None] + jnp.arange(sizes["batch"])) % loops.CLASSES
    args = (params, x, targets)
    sides = ratio.steps_of(fn, [rule])
    found = []
    for step in (sides["gradient"], sides[rule]):
        builds = [ratio.make(over_targets(step()), args) for _ in range(options.builds)]
        made = builds[-1]
        made.trace_s = [second for one in builds for second in one.trace_s]
        made.compile_s = [second for one in builds for second in one.compile_s]
        found.append(made)
    ratio.take_turns(found, options.runs)
    return found


def exponent(sizes: Sequence[int], values: Sequence[float]) -> float:
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def table(along: str, sizes: Sequence[int], rule: str, options: argparse.Namespace) -> None:
    rows, seconds = [], {"run": ([], []), "build": ([], [])}
    for size in sizes:
        both = measured(along, size, rule, options)
        base = both[0]
        for made, name, number in zip(both, ("gradient", rule), range(2)):
            seconds["run"][number].append(made.run)
            seconds["build"][number].append(made.build)
            rows.append(
                (
                    str(size),
                    name,
                    f"{made.run:.4f}",
                    f"{made.times(base):.2f}",
                    f"{made.build:.2f}",
                    f"{made.build / base.build:.2f}",
                    f"{made.memory / 1e6:.0f}",
                )
            )
    print(flush=True)
    ratio.show(rows, (along, *HEADER[1:]))
    for what, (gradients, explanations) in seconds.items():
        if len(sizes) > 1:
            ours, base = exponent(sizes, explanations), exponent(sizes, gradients)
            print(f"{what} ~ {along}^{ours:.2f}, the gradient's ~ {along}^{base:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--along", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--sizes", nargs="+", type=int, help="instead of those of the table")
    parser.add_argument("--rules", choices=ratio.RULES, default="attn_lrp")
    parser.add_argument("--runs", type=int, default=7, help="timed runs of each (default 7)")
    parser.add_argument("--builds", type=int, default=1, help="traces and compilations (default 1)")
    options = parser.parse_args()
    print(ratio.machine())
    # The first compilation of a process pays for the compiler.
    jax.jit(jnp.sin).lower(jnp.zeros(2)).compile()
    for along in options.along:
        table(along, options.sizes or SIZES[along], options.rules, options)


if __name__ == "__main__":
    main()
