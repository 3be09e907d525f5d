"""What an explanation costs outside `jit`, beside eager `jax.value_and_grad`, and to trace.

    python benchmarks/eager.py                     # all of it, an hour on two cores
    python benchmarks/eager.py --networks mlp --runs 9 --starts 0 --depths

A first call compiles each sort of operation; it is measured in a process of its own, from nothing.
Later calls take turns in one process. The floor of a rule is how many more contractions and
convolutions it has than the gradient. The second table counts the equations of a traced explanation
and of a traced gradient, calls inlined, and measures trace and lowering, all rules in turn: the
first trace plans the network, another one ("again") uses the plan that was kept. Ratios are of
processor time, which other work on the machine disturbs least; the wall time is beside it.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import ratio
from jax import lax

import jaxlrp as lrp
from jaxlrp.run import reuse

RULES = {
    "lrp_zero": lrp.composites.lrp_zero,
    "epsilon_plus": lrp.composites.epsilon_plus,
    "attn_lrp": lrp.composites.attn_lrp,
}
MOST_EAGER = 1.5, 1.3  # of a first call under lrp_zero, and of later ones
MOST_TRACED = {"lrp_zero": 1.5, "epsilon_plus": 2.0}
_PRODUCTS = frozenset({"dot_general", "conv_general_dilated"})


class Keys:
    """Random arrays, one after another."""

    def __init__(self) -> None:
        self._key = jax.random.key(0)

    def __call__(self, *shape: int, scale: float = 1.0) -> jax.Array:
        self._key, key = jax.random.split(self._key)
        return scale * jax.random.normal(key, shape)


def mlp() -> tuple[Callable, Any, jax.Array]:
    """Sixty dense layers with ReLUs."""
    keys = Keys()
    params = [(keys(64, 64, scale=0.18), jnp.zeros(64)) for _ in range(60)]

    def fn(params, x):
        for w, b in params:
            x = jax.nn.relu(x @ w + b)
        return x

    return fn, params, keys(8, 64)


def resnet() -> tuple[Callable, Any, jax.Array]:
    """Six residual blocks with batch norms, for small pictures."""
    keys = Keys()

    def norm(c):
        return jnp.ones(c), jnp.zeros(c), jnp.zeros(c), jnp.ones(c)

    blocks, c = [], 16
    for out in (16, 16, 32, 32, 64, 64):
        shortcut = keys(1, 1, c, out, scale=0.1) if c != out else None
        first, second = keys(3, 3, c, out, scale=0.1), keys(3, 3, out, out, scale=0.1)
        blocks.append((first, norm(out), second, norm(out), shortcut))
        c = out
    params = keys(3, 3, 3, 16, scale=0.1), norm(16), blocks, keys(64, 10), jnp.zeros(10)

    def conv(x, w, step=1):
        numbers = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(x, w, (step, step), "SAME", dimension_numbers=numbers)

    def normed(x, p):
        scale, shift, mean, var = p
        return (x - mean) * lax.rsqrt(var + 1e-5) * scale + shift

    def fn(params, x):
        stem, stem_norm, blocks, head, shift = params
        x = jax.nn.relu(normed(conv(x, stem), stem_norm))
        for w, p, v, q, shortcut in blocks:
            h = jax.nn.relu(normed(conv(x, w, 1 if shortcut is None else 2), p))
            h = normed(conv(h, v), q)
            x = jax.nn.relu(h + (x if shortcut is None else conv(x, shortcut, 2)))
        return x.mean((1, 2)) @ head + shift

    return fn, params, keys(2, 32, 32, 3)


def transformer() -> tuple[Callable, Any, jax.Array]:
    """Twelve blocks of width 64 with four heads, on sixteen tokens."""
    keys, d = Keys(), 64
    params = [
        {name: keys(d, d, scale=d**-0.5) for name in "qkvo"}
        | {"up": keys(d, 4 * d, scale=d**-0.5), "down": keys(4 * d, d, scale=0.5 * d**-0.5)}
        | {"a": jnp.zeros(4 * d), "b": jnp.zeros(d), "s": jnp.ones(d), "t": jnp.ones(d)}
        for _ in range(12)
    ]

    def norm(x, scale):
        x = x - x.mean(-1, keepdims=True)
        return x / jnp.sqrt((x * x).mean(-1, keepdims=True) + 1e-6) * scale

    def fn(params, x):
        n, t, _ = x.shape
        for p in params:
            h = norm(x, p["s"])
            q, k, v = ((h @ p[name]).reshape(n, t, 4, -1) for name in "qkv")
            a = jax.nn.softmax(jnp.einsum("bthd,bshd->bhts", q, k) / 4.0)
            x = x + jnp.einsum("bhts,bshd->bthd", a, v).reshape(n, t, d) @ p["o"]
            x = x + jax.nn.gelu(norm(x, p["t"]) @ p["up"] + p["a"]) @ p["down"] + p["b"]
        return x.mean(1)

    return fn, params, keys(2, 16, d)


NETWORKS = {"mlp": mlp, "resnet": resnet, "transformer": transformer}


def chain(n: int, bias: bool = False) -> tuple[Callable, Any, jax.Array]:
    """Dense layers with tanh, one after another."""
    params = [(jnp.eye(4), jnp.ones(4)) for _ in range(n)]

    def fn(params, x):
        for w, b in params:
            x = jnp.tanh(x @ w + b) if bias else jnp.tanh(x @ w)
        return x

    return fn, params, jnp.ones((2, 4))


def relus(n: int) -> tuple[Callable, Any, jax.Array]:
    """Dense layers with biases and ReLUs, one after another."""
    _, params, x = chain(n)

    def relu(params, x):
        for w, b in params:
            x = jax.nn.relu(x @ w + b)
        return x

    return relu, params, x


def residual(n: int) -> tuple[Callable, Any, jax.Array]:
    """Residual blocks of two dense layers."""
    _, params, x = chain(n)

    def blocks(params, x):
        for w, b in params:
            x = x + jax.nn.relu(x @ w + b) @ w
        return x

    return blocks, params, x


CHAINS = {"tanh": chain, "relu": relus, "residual": residual}


def call_of(network: tuple[Callable, Any, jax.Array], rule: str) -> tuple[Callable, tuple]:
    """The function that is measured, and its arguments."""
    fn, params, x = network
    if rule == "gradient":

        def logit(params, x):
            return fn(params, x)[:, 0].sum()

        return jax.value_and_grad(logit, argnums=1), (params, x)
    relevance = lrp.value_and_relevance(fn, RULES[rule](), argnums=1)
    return lambda params, x: relevance(params, x, target=0), (params, x)


def times_of(function: Callable[[], Any]) -> tuple[float, float]:
    """The processor time and the wall time of a call."""
    gc.collect()
    start = time.process_time(), time.perf_counter()
    jax.block_until_ready(function())
    return time.process_time() - start[0], time.perf_counter() - start[1]


def first_call(name: str, rule: str) -> tuple[float, float]:
    """The times of a first call in a process of its own."""
    command = [sys.executable, __file__, "--one", name, rule]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    cpu, wall = map(float, printed.split())
    return cpu, wall


def medians(times: Sequence[tuple[float, ...]]) -> list[float]:
    return [statistics.median(each) for each in zip(*times, strict=True)]


def shown(own: Sequence[float], base: Sequence[float], most: float | None, scale: int = 1) -> str:
    """Processor time, how many times the gradient's, whether that is too many, and wall time."""
    by, digits = own[0] / base[0], 0 if scale > 1 else 2
    missed = " **missed**" if most is not None and round(by, 2) > most else ""
    return f"{scale * own[0]:.{digits}f} ({by:.2f}{missed}), {scale * own[1]:.{digits}f}"


def products(call: Callable, args: tuple) -> int:
    """How many contractions and convolutions a function has."""
    jaxpr = jax.make_jaxpr(call)(*args).jaxpr
    return sum(e.primitive.name in _PRODUCTS for e in flat(jaxpr))


def eager(names: list[str], runs: int, starts: int) -> None:
    print(f"eager calls: median of {runs} later ones, of {starts} first ones; times the gradient's")
    rows = []
    for name in names:
        network = NETWORKS[name]()
        calls = {rule: call_of(network, rule) for rule in ("gradient", *RULES)}
        found: dict[str, list[tuple[float, float]]] = {rule: [] for rule in calls}
        firsts: dict[str, list[tuple[float, float]]] = {rule: [] for rule in calls}
        for _ in range(starts):
            for rule in calls:
                firsts[rule].append(first_call(name, rule))
        for step in range(-1, runs):
            for rule, (call, args) in calls.items():
                taken = times_of(lambda call=call, args=args: call(*args))
                if step >= 0:
                    found[rule].append(taken)
        number = {rule: products(call, args) for rule, (call, args) in calls.items()}
        for rule in calls:
            floor = number[rule] / number["gradient"]
            first_most, most = MOST_EAGER if rule == "lrp_zero" else (1.3 * floor, 1.3 * floor)
            first, least = medians(firsts[rule]), medians(firsts["gradient"])
            later = shown(medians(found[rule]), medians(found["gradient"]), most, 1000)
            rows.append(
                (
                    *(name, rule, f"{number[rule]} ({floor:.2f})"),
                    shown(first, least, first_most) if starts else "-",
                    later,
                )
            )
    ratio.show(
        rows, ("network", "rules", "products", "first, s CPU, s wall", "later, ms CPU, ms wall")
    )


def flat(jaxpr: Any) -> Iterator[Any]:
    """The equations, those of calls in place of the calls."""
    for eqn in jaxpr.eqns:
        inner = eqn.params.get("jaxpr", eqn.params.get("call_jaxpr"))
        if inner is None:
            yield eqn
        else:
            yield from flat(getattr(inner, "jaxpr", inner))


def traced(name: str, n: int, rule: str) -> tuple[int, list[tuple[float, float]]]:
    """The number of equations, and the times of the first trace, of another one and of lowering."""
    reuse._plans.clear()
    times, made = [], None
    for _ in range(1 if rule == "gradient" else 2):  # planned, and with the plan that was kept
        call, args = call_of(CHAINS[name](n), rule)
        jitted, kept = jax.jit(call), []
        times.append(times_of(lambda: kept.append(jitted.trace(*args))))  # noqa: B023
        made = kept[0]
    assert made is not None
    lowering = times_of(lambda: made.lower() and None)
    return sum(1 for _ in flat(made.jaxpr.jaxpr)), [times[0], times[-1], lowering]


def traces(depths: list[int], rounds: int) -> None:
    print(f"tracing: median of {rounds}; times the gradient's")
    rows = []
    for name, n in ((name, n) for name in CHAINS for n in depths):
        found: dict[str, list[Any]] = {rule: [] for rule in ("gradient", *MOST_TRACED)}
        for rule in found:  # what JAX keeps of its own functions is made in any process once
            traced(name, 10, rule)
        for _ in range(rounds):
            for rule, times in found.items():
                times.append(traced(name, n, rule))
        size = {rule: given[0][0] for rule, given in found.items()}
        for rule, given in found.items():
            most, by = MOST_TRACED.get(rule), size[rule] / size["gradient"]
            missed = " **missed**" if most is not None and round(by, 2) > most else ""
            columns = [
                shown(
                    medians([times[i] for _, times in given]),
                    medians([times[i] for _, times in found["gradient"]]),
                    most,
                )
                for i in range(3)
            ]
            rows.append((name, str(n), rule, f"{size[rule]} ({by:.2f}{missed})", *columns))
    heads = (f"{what}, s CPU, s wall" for what in ("trace", "again", "lowering"))
    ratio.show(rows, ("chain", "layers", "rules", "equations", *heads))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="*", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--runs", type=int, default=9, help="later calls (default 9)")
    parser.add_argument("--starts", type=int, default=9, help="first calls (default 9)")
    parser.add_argument("--depths", type=int, nargs="*", default=[500, 1000, 2000])
    parser.add_argument("--traces", type=int, default=3, help="traces of each (default 3)")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        call, args = call_of(NETWORKS[options.one[0]](), options.one[1])
        jax.block_until_ready(args)
        print(*times_of(lambda: call(*args)))
        return
    print(ratio.machine())
    if options.networks:
        eager(options.networks, options.runs, options.starts)
    if options.depths:
        traces(options.depths, options.traces)


if __name__ == "__main__":
    main()
