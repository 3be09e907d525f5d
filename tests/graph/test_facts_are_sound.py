"""Every fact that the graph claims about a value, checked on numbers.

A claim that fails is a fault even where no relevance changes. This is the only file of the
machine that looks inside `jaxlrp.graph`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxlrp.graph import build
from jaxlrp.graph.activity import Activity
from jaxlrp.graph.groups import Facts
from jaxlrp.graph.ir import Eqn, Graph, Literal, Value
from tests import numpy_jaxpr, rewrites
from tests import random_programs as draws

Seen = dict[Value, list[np.ndarray]]

# Functions of an array of shape (3, 4) of any sign, whose bounds are easily claimed wrongly.
FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "top_k": lambda x: lax.top_k(x, 2),
    "top_k's indices": lambda x: lax.top_k(-jnp.abs(x), 2)[1] + 0.0,
    "argsort": lambda x: jnp.argsort(x) * 1.0,
    "argmax": lambda x: jnp.argmax(x, -1) * 1.0,
    "to int": lambda x: x.astype(jnp.int32),
    "to int and up": lambda x: (x.astype(jnp.int32) >= 0) * x,
    "to bool": lambda x: x.astype(bool) * 2.0,
    "to uint8": lambda x: jnp.abs(x).astype(jnp.uint8) * 1.0,
    "shifted to int": lambda x: (jax.nn.sigmoid(x) + 0.5).astype(jnp.int32),
    "large to bool": lambda x: (x * x + 2).astype(bool) * 1.0,
    "negative to unsigned": lambda x: (-(x * x) - 1).astype(jnp.uint8),
    "large to int8": lambda x: (x * x * 100).astype(jnp.int8),
    "top_k's indices of large": lambda x: lax.top_k(x * x + 5, 2)[1],
    "where a sum is": lambda x: jnp.where(x.sum(0)[:, None] > 0, x.sum(0)[None, :], 0.0),
    "where the vector is": lambda x: (lambda v: jnp.where(v[:, None] > 0, v[None, :], 0.0))(
        x.sum(0)
    ),
    "sigmoid to int": lambda x: jax.nn.sigmoid(x).astype(jnp.int32),
    "tanh to int8": lambda x: (100 * jnp.tanh(x)).astype(jnp.int8) * 1.0,
    "fill": lambda x: x[0].at[jnp.array([1, 9])].get(mode="fill", fill_value=-1.0),
    "fill of squares": lambda x: (x * x).at[jnp.array([1, 9])].get(mode="fill", fill_value=-1.0),
    "take out of bounds": lambda x: jnp.take(x * x, jnp.array([0, 7]), 0, mode="fill"),
    "clip": lambda x: jnp.clip(x, -1.0, 2.0),
    "clip the wrong way": lambda x: jnp.clip(x, 2.0, -1.0),
    "clamp": lambda x: lax.clamp(jnp.array(0.0), x, jnp.abs(x[0, 0])),
    "round": lambda x: jnp.round(jax.nn.sigmoid(x) * 3),
    "floor": lambda x: jnp.floor(jax.nn.relu(x)),
    "remainder": lambda x: jnp.fmod(x, 3.0),
    "modulo": lambda x: x % 3.0,
    "modulo of a negative": lambda x: x % -3.0,
    "integer modulo": lambda x: (x.astype(jnp.int32) % 3) * 1.0,
    "integer division": lambda x: (x.astype(jnp.int32) // 3) * 1.0,
    "negative power": lambda x: (jnp.abs(x) + 0.1) ** -2,
    "odd power": lambda x: x**3,
    "even power": lambda x: x**4,
    "power of a base": lambda x: jnp.abs(x) ** x,
    "power to a number": lambda x: jnp.abs(x) ** 1.5,
    "power to an odd number": lambda x: lax.pow(x, jnp.full(x.shape, 3.0)),
    "two to the power": lambda x: 2.0**x,
    "cumulative sum": lambda x: jnp.cumsum(x * x, -1),
    "cumulative product": lambda x: jnp.cumprod(jax.nn.sigmoid(x), -1),
    "cumulative maximum": lambda x: lax.cummax(jnp.tanh(x), 1),
    "product": lambda x: jnp.prod(jax.nn.sigmoid(x), -1),
    "product of signs": lambda x: jnp.prod(jnp.tanh(x), -1),
    "sum": lambda x: jax.nn.sigmoid(x).sum(-1),
    "mean": lambda x: jax.nn.sigmoid(x).mean(-1),
    "maximum": lambda x: jnp.tanh(x).max(-1),
    "norm": lambda x: x / jnp.linalg.norm(x, axis=-1, keepdims=True),
    "softmax": lambda x: jax.nn.softmax(x),
    "log-softmax": lambda x: jax.nn.log_softmax(x),
    "variance": lambda x: x.var(-1),
    "where positive": lambda x: jnp.where(x > 0, x, 0.0),
    "where another is positive": lambda x: jnp.where(x[:1] > 0, x, 0.0),
    "where its transpose is": lambda x: jnp.where(x[:, :3].T > 0, x[:, :3], 0.0),
    "where a row is": lambda x: jnp.where(x[0, :, None] > 0, x[0, None, :], 0.0),
    "where at least": lambda x: jnp.where(x >= 1, x, 1.0),
    "where it is not": lambda x: jnp.where(~(x > 0), -x, 0.0),
    "where NaN": lambda x: jnp.where(x != x, -1.0, x * x),
    "choose of three": lambda x: lax.select_n((x > 0).astype(jnp.int32) + (x > 1), x, x * x, x**3),
    "sine": lambda x: jnp.sin(x) + 1,
    "cosine of a literal": lambda x: jnp.cos(jnp.array(0.0)) * x,
    "arc tangent": lambda x: jnp.arctan2(x, jnp.abs(x)),
    "sign": lambda x: jnp.sign(jax.nn.relu(x)),
    "exp - 1": lambda x: jnp.expm1(jax.nn.relu(x)),
    "logarithm": lambda x: jnp.log(jax.nn.sigmoid(x)),
    "log1p": lambda x: jnp.log1p(jax.nn.relu(x)),
    "reciprocal": lambda x: 1 / (1 + x * x),
    "reciprocal of any sign": lambda x: 1 / x,
    "root of the reciprocal": lambda x: lax.rsqrt(x * x + 1),
    "square of a difference": lambda x: (x - x.mean()) * (x - x.mean()),
    "times itself moved": lambda x: x * x[::-1],
    "times itself reshaped": lambda x: x * x.reshape(4, 3).T,
    "difference of itself": lambda x: x - x[:, ::-1],
    "scan of a sum": lambda x: lax.scan(lambda c, v: (c + v * v, c), jnp.zeros(4), x),
    "scan that falls": lambda x: lax.scan(lambda c, v: (c - v * v, c), jnp.ones(4), x),
    "scan of a product": lambda x: lax.scan(
        lambda c, v: (c * jax.nn.sigmoid(v), c), jnp.ones(4), x
    ),
    "scan that swaps": lambda x: lax.scan(
        lambda c, v: ((c[1], -c[0]), c[0]), (jnp.ones(4), jnp.ones(4)), x
    ),
    "scan of a matrix": lambda x: lax.scan(
        lambda c, v: ((c[0] * v * c[1], c[1] * jnp.array([1.0, 5.0, 2.0, 3.0])), c[0]),
        (jnp.ones(4), jnp.ones(4)),
        x,
    ),
    "cond": lambda x: lax.cond(x[0, 0] > 0, jax.nn.relu, lambda v: -v, x),
    "cond between numbers": lambda x: (
        x * sum(lax.cond(v > 0, lambda: 1.0, lambda: 2.0) for v in x[0])
    ),
    "one-hot": lambda x: jax.nn.one_hot(jnp.argmax(x, -1), 5),
    "iota": lambda x: x * jnp.arange(4),
    "iota less two": lambda x: x + (jnp.arange(4) - 2.0),
    "scatter": lambda x: jnp.ones((3, 4)).at[:, 1].set(x[:, 0]),
    "scatter a sum": lambda x: jnp.zeros((3, 4)).at[0].add(jax.nn.relu(x[1])),
    "scatter the least": lambda x: jnp.ones((3, 4)).at[0].min(x[1]),
    "dynamic update": lambda x: lax.dynamic_update_slice(jax.nn.relu(x), x[:1, :1], (0, 0)),
    "pad by minus one": lambda x: jnp.pad(jax.nn.relu(x), 1, constant_values=-1.0),
    "window of sums": lambda x: lax.reduce_window(
        jax.nn.relu(x), -1.0, lax.add, (2, 2), (1, 1), "SAME"
    ),
    "segments": lambda x: jax.ops.segment_max(x, jnp.array([0, 0, 2]), 4),
    "sums of segments": lambda x: jax.ops.segment_sum(x * x, jnp.array([0, 0, 2]), 4),
    "bits": lambda x: ((x.astype(jnp.int32) & 7) ^ 12) * 1.0,
    "shift": lambda x: (x.astype(jnp.int32) << 2) * 1.0,
    "not": lambda x: ~x.astype(jnp.int32),
    "population": lambda x: lax.population_count(x.astype(jnp.int32)),
    "float16": lambda x: jax.nn.sigmoid(x).astype(jnp.float16) * 3,
    "erfc": lambda x: lax.erfc(x),
    "cube root": lambda x: jnp.cbrt(x),
    "sorted": lambda x: jnp.sort(jnp.tanh(x), -1),
    "sorted with keys": lambda x: lax.sort_key_val(x, jnp.abs(x)),
    "absolute spectrum": lambda x: jnp.abs(jnp.fft.rfft(x)),
    "logcumsumexp": lambda x: lax.cumlogsumexp(x, 1),
    "next after": lambda x: jnp.nextafter(jax.nn.relu(x), -1.0),
    "truncated": lambda x: jnp.trunc(x),
    "max of sums": lambda x: jnp.maximum(x.sum(), 0.0) - 0.5,
}


# Claims that are false today.
class Watch:
    """Runs a graph and keeps what every value was."""

    def __init__(self) -> None:
        self.seen: Seen = {}

    def note(self, value: Value, array: Any) -> None:
        self.seen.setdefault(value, []).append(np.asarray(array))

    def run(self, graph: Graph, args: Sequence[Any], consts: dict[Value, Any]) -> list[Any]:
        env = {**consts, **dict(zip(graph.inputs, args, strict=True))}

        def read(value: Value) -> Any:
            if isinstance(value, Literal):
                return np.asarray(value.val, value.dtype)
            return env[value]

        for value, array in env.items():
            self.note(value, array)
        for eqn in graph.eqns:
            outs = self.outputs(eqn, [read(v) for v in eqn.inputs], consts)
            for value, out in zip(eqn.outputs, outs, strict=True):
                env[value] = out
                self.note(value, out)
        return [read(v) for v in graph.outputs]

    def outputs(self, eqn: Eqn, args: list[Any], consts: dict[Value, Any]) -> list[Any]:
        if eqn.name == "scan":
            return self.scan(eqn, args, consts)
        if eqn.name == "cond":
            return self.run(eqn.bodies[int(args[0])], args[1:], consts)
        outs = numpy_jaxpr.equation(eqn.prim, eqn.params, args, [v.aval for v in eqn.outputs])
        return [np.asarray(o) for o in outs]

    def scan(self, eqn: Eqn, args: list[Any], consts: dict[Value, Any]) -> list[Any]:
        body = eqn.bodies[0]
        return numpy_jaxpr.scan(
            eqn.params,
            lambda step: self.run(body, step, consts),
            [v.aval for v in body.inputs],
            [(v.aval, out.aval) for v, out in zip(body.outputs, eqn.outputs, strict=True)],
            args,
        )


def _graphs(graph: Graph):
    yield graph
    for eqn in graph.eqns:
        for body in eqn.bodies:
            yield from _graphs(body)


class Claims:
    """The claims about one function, and whether they held."""

    def __init__(self, fn: Callable[..., Any], args: Sequence[Any]):
        def flat(*leaves):
            return jax.tree.leaves(fn(*jax.tree.unflatten(jax.tree.structure(args), leaves)))

        self.leaves = [np.asarray(a) for a in jax.tree.leaves(args)]
        self.graph = build.build(jax.make_jaxpr(flat)(*self.leaves), [()] * len(self.leaves))
        activity = Activity(self.graph, self.graph.inputs[:1], self.graph.outputs)
        self.facts = Facts(self.graph, activity)
        self.faults: list[str] = []

    def watch(self, leaves: Sequence[np.ndarray]) -> Seen:
        watch = Watch()
        with np.errstate(all="ignore"):
            watch.run(self.graph, leaves, dict(self.graph.consts))
        return watch.seen

    def check(self, rng: np.random.Generator) -> list[str]:
        runs = [
            self.watch([self.another(a, rng, size) for a in self.leaves]) for size in (1, 4, 60)
        ]
        for seen in (self.watch(self.leaves), *runs):
            for value, arrays in seen.items():
                for array in arrays:
                    self.check_bounds(value, array)
                    self.check_axes(value, array)
        base = self.watch(self.leaves)
        for position, root in enumerate(self.graph.inputs):
            moved = list(self.leaves)
            moved[position] = self.another(moved[position], rng, 1)
            self.check_origin(root, position == 0, base, self.watch(moved))
        return self.faults

    def another(self, a: np.ndarray, rng: np.random.Generator, size: float) -> np.ndarray:
        if a.dtype == bool:
            return rng.random(a.shape) < 0.5
        moved = size * rng.normal(size=a.shape)
        return np.where(rng.random(a.shape) < 0.1, 0.0, moved).astype(a.dtype)

    def fault(self, value: Value, text: str) -> None:
        made = value.producer.name if value.producer is not None else "an input"
        self.faults.append(f"{made} {value.aval}: {text}")

    def check_bounds(self, value: Value, array: np.ndarray) -> None:
        low, high = self.facts.intervals[value]
        if np.iscomplexobj(array):
            if low == -np.inf and high == np.inf:
                return
            if np.any(array.imag):
                self.fault(value, f"bounds {low}, {high} of a complex value")
            array = array.real
        numbers = array.astype(float)
        numbers = numbers[~np.isnan(numbers)]
        slack = 1e-6 * max([1.0, *(abs(v) for v in (low, high) if np.isfinite(v))])
        if numbers.size and (numbers.min() < low - slack or numbers.max() > high + slack):
            found = f"{numbers.min():.4g} to {numbers.max():.4g}"
            self.fault(value, f"claimed {low:.4g} to {high:.4g}, found {found}")

    def check_axes(self, value: Value, array: np.ndarray) -> None:
        for axis in set(range(array.ndim)) - set(self.facts.statics.varying_axes(value)):
            first = np.take(array, [0], axis) if array.size else array
            if not np.array_equal(array, np.broadcast_to(first, array.shape), equal_nan=True):
                self.fault(value, f"said to be constant along axis {axis}")

    def check_origin(self, root: Value, is_x: bool, before: Seen, after: Seen) -> None:
        for value, arrays in before.items():
            others = after.get(value, [])
            same = len(arrays) == len(others) and all(
                np.array_equal(a, b, equal_nan=True) for a, b in zip(arrays, others)
            )
            if same or len(arrays) != len(others):  # a branch that was not taken
                continue
            if root not in self.facts.statics.parameters(value):
                self.fault(value, "depends on an argument that is not among its parameters")
            if is_x and value not in self.facts.activity.depends:
                self.fault(value, "depends on the explained input, and is said not to")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_claims_about_functions(name):
    x = np.round(2 * np.random.default_rng(3).normal(size=(3, 4)), 2)
    faults = Claims(FUNCTIONS[name], (x,)).check(np.random.default_rng(4))
    assert not faults, "\n".join(dict.fromkeys(faults))


def claims_of(seed: int) -> list[str]:
    """Faults of a random program in a random spelling."""
    rng = random.Random(seed)
    one = draws.program(seed)
    for name in rng.choices(rewrites.NAMES, k=12):
        one = rewrites.apply(one, name, rng.randrange(2**31)) or one
    return Claims(one.build(), (one.x, one.passed)).check(np.random.default_rng(seed))


@pytest.mark.parametrize("start", range(0, 40, 10))
def test_claims_about_random_programs(start):
    for seed in range(start, start + 10):
        faults = claims_of(seed)
        assert not faults, f"{seed}: " + "\n".join(dict.fromkeys(faults))
