"""What an explanation costs outside `jit`, beside eager `jax.value_and_grad`, and to trace.

    python benchmarks/eager.py                     # all of it, some minutes
    python benchmarks/eager.py --networks mlp --runs 9 --starts 0 --depths 0

An eager call runs operation by operation. The first call compiles each sort of operation; it is
measured in a process of its own, from nothing. Later calls take turns in one process. The second
table counts the equations of a traced explanation and of a traced gradient, calls inlined, and
measures trace and lowering: the first trace plans the network, another one ("again") uses the plan
that was kept. Everything is processor time, which other work on the machine disturbs least.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
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


def processor_time(function: Callable[[], Any]) -> float:
    start = time.process_time()
    jax.block_until_ready(function())
    return time.process_time() - start


def first_call(name: str, rule: str) -> float:
    """The time of a first call in a process of its own."""
    command = [sys.executable, __file__, "--one", name, rule]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def eager(names: list[str], runs: int, starts: int) -> None:
    print(f"eager calls: median of {runs} later ones, of {starts} first ones; times the gradient's")
    rows = []
    for name in names:
        network = NETWORKS[name]()
        calls = {rule: call_of(network, rule) for rule in ("gradient", *RULES)}
        found: dict[str, list[float]] = {rule: [] for rule in calls}
        firsts: dict[str, list[float]] = {rule: [] for rule in calls}
        for _ in range(starts):
            for rule in calls:
                firsts[rule].append(first_call(name, rule))
        for step in range(-1, runs):
            for rule, (call, args) in calls.items():
                taken = processor_time(lambda call=call, args=args: call(*args))
                if step >= 0:
                    found[rule].append(taken)
        for rule in calls:
            later, first = statistics.median(found[rule]), "-"
            if starts:
                mine, base = (statistics.median(firsts[r]) for r in (rule, "gradient"))
                first = f"{mine:.2f} ({mine / base:.2f})"
            base = statistics.median(found["gradient"])
            rows.append((name, rule, first, f"{1000 * later:.0f} ({later / base:.2f})"))
    ratio.show(rows, ("network", "rules", "first, s", "later, ms"))


def length(jaxpr: Any) -> int:
    """The number of equations, those of calls in place of the calls."""
    inner = [e.params[k] for e in jaxpr.eqns for k in ("jaxpr", "call_jaxpr") if k in e.params]
    calls = sum("jaxpr" in e.params or "call_jaxpr" in e.params for e in jaxpr.eqns)
    return len(jaxpr.eqns) - calls + sum(length(getattr(j, "jaxpr", j)) for j in inner)


def traces(depths: list[int], runs: int) -> None:
    print(f"tracing: processor time, median of {runs}; times the gradient's")
    rows = []
    for name, n in ((name, n) for name in CHAINS for n in depths):
        sizes, found = {}, {}
        for _ in range(runs):
            for rule in ("gradient", *list(RULES)[:2]):
                taken = []
                reuse._plans.clear()
                for _ in range(2):  # planned, and with the plan that was kept
                    call, args = call_of(CHAINS[name](n), rule)
                    start = time.process_time()
                    traced = jax.jit(call).trace(*args)
                    taken.append(time.process_time() - start)
                start = time.process_time()
                traced.lower()
                found.setdefault(rule, []).append((*taken, time.process_time() - start))
                sizes[rule] = length(traced.jaxpr.jaxpr)
        for rule in found:
            own, base = (
                [statistics.median(p[i] for p in found[r]) for i in range(3)]
                for r in (rule, "gradient")
            )
            rows.append(
                (
                    *(name, str(n), rule),
                    f"{sizes[rule]} ({sizes[rule] / sizes['gradient']:.2f})",
                    *(f"{a:.2f} ({a / b:.2f})" for a, b in zip(own, base)),
                )
            )
    ratio.show(
        rows, ("chain", "layers", "rules", "equations", "trace, s", "again, s", "lowering, s")
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="*", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--runs", type=int, default=9, help="later calls (default 9)")
    parser.add_argument("--starts", type=int, default=3, help="first calls (default 3)")
    parser.add_argument("--depths", type=int, nargs="*", default=[500, 1000, 2000])
    parser.add_argument("--traces", type=int, default=1, help="traces of each (default 1)")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        call, args = call_of(NETWORKS[options.one[0]](), options.one[1])
        jax.block_until_ready(args)
        print(processor_time(lambda: call(*args)))
        return
    print(ratio.machine())
    if options.networks:
        eager(options.networks, options.runs, options.starts)
    if options.depths:
        traces(options.depths, options.traces)


if __name__ == "__main__":
    main()
