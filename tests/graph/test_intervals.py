"""Bounds by hand: what joins, what grows in a loop, what is proven later, what a function maps."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxlrp.graph import ranges
from tests.facts_check import claims

X = np.array([-1.0, 0.5, 3.0])
INF = math.inf


def by_name(graph, name):
    """The only equation of a name, at the top of a graph."""
    (eqn,) = [e for e in graph.eqns if e.name == name]
    return eqn


def test_arithmetic():
    assert ranges.plus((-1, 2), (10, 20)) == (9, 22)
    assert ranges.negative((-1, 2)) == (-2, 1)
    assert ranges.product((-1, 2), (-3, 5)) == (-6, 10)
    assert ranges.product((0, 0), (-INF, INF)) == (0, 0)  # 0 of infinitely much is 0
    assert ranges.hull([(-1, 0), (3, 4)]) == (-1, 4)
    assert ranges.meet((-1, 3), (2, 9)) == (2, 3)
    assert ranges.meet((-1, 1), (2, 9)) is None


@pytest.mark.parametrize(
    ("bounds", "dtype", "ulps", "expected"),
    [
        ((0.0, 200.0), np.int8, 0.0, (-128, 127)),  # wraps around
        ((0.0, 100.0), np.int8, 0.0, (0, 100)),
        ((1.0, 1e5), np.float16, 0.0, (1, INF)),  # above the largest
        ((1e-8, 1.0), np.float16, 0.0, (0, 1)),  # below the smallest
        ((0.0, 1.0), np.float32, 1.0, (0, 1)),  # numbers of the type stay what they are
        ((math.nan, 1.0), np.float64, 0.0, (-INF, INF)),
    ],
)
def test_what_a_type_can_hold(bounds, dtype, ulps, expected):
    assert ranges.settled(bounds, np.dtype(dtype), ulps) == expected


def test_a_number_between_those_of_a_type_is_rounded_outwards():
    low, high = ranges.settled((0.3, 0.7), np.dtype(np.float32), 1.0)
    eps = float(np.finfo(np.float32).eps)
    assert 0.3 - 2 * eps < low < 0.3 and 0.7 < high < 0.7 + 2 * eps


def test_a_constant_is_one_number_in_every_element():
    def fn(x):
        written = jnp.full(3, 2.0)
        return written, jnp.exp(written), jnp.where(x > 0, written, 3.0), x, 0.0 * x

    graph, _, bounds, _ = claims(fn, X)
    two, power, either, given, zeros = (bounds.constant(v) for v in graph.outputs)
    assert (two, either, given, zeros) == (2.0, None, None, 0.0)
    assert power == pytest.approx(math.exp(2.0), rel=1e-15)
    assert bounds[graph.outputs[2]] == (2, 3)


def test_branches_join():
    def fn(x):
        return lax.cond(x[0] > 0, lambda: jax.nn.sigmoid(x), lambda: jnp.tanh(x) * 3.0)

    graph, _, bounds, _ = claims(fn, X)
    assert bounds[graph.outputs[0]] == (-3, 3)
    assert not bounds.nonnegative(graph.outputs[0])


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (lambda c, x: c * jax.nn.sigmoid(x), (0, 1)),  # a gate of a share is a share
        (lambda c, x: c + jax.nn.relu(x), (1, INF)),
        (lambda c, x: c - jax.nn.relu(x), (-INF, 1)),
        (lambda c, x: c + x, (-INF, INF)),
        (lambda c, x: jnp.minimum(c, 0.25), (0.25, 0.25)),
        # A bound that moves at every turn is given up: 0 is tried, then nothing. One step is made
        # at least, whose bounds are those of the result.
        (lambda c, x: c * 0.9, (0, 0.9)),
        (lambda c, x: c * 0.9 - 0.5, (-INF, 0.9 - 0.5)),
    ],
    ids=["gate", "grows", "falls", "moves", "clipped", "fades", "sinks"],
)
def test_the_carry_of_a_loop(step, expected):
    def fn(x):
        return lax.scan(lambda c, a: (step(c, a), None), jnp.ones(()), x)[0]

    graph, _, bounds, _ = claims(fn, X)
    assert bounds[graph.outputs[0]] == expected


def test_what_is_proven_goes_on_to_what_follows():
    graph, _, bounds, _ = claims(lambda x: (x * x - 3.0) * 2.0, X)
    difference = by_name(graph, "sub").out
    assert bounds[graph.outputs[0]] == (-6, INF)
    bounds.prove({difference: (0.0, 5.0)})
    assert bounds[difference] == (0, 5)
    assert bounds[graph.outputs[0]] == (0, 10)
    assert bounds.nonnegative(graph.outputs[0])


def test_the_image_of_a_function():
    graph, _, bounds, _ = claims(lambda x: jax.nn.relu(x * 2.0 - 1.0), X)
    (source,), (output,) = graph.inputs, graph.outputs
    assert bounds.image(graph.eqns, source, (-INF, 0.5), output) == (0, 0)
    assert bounds.image(graph.eqns, source, (0.0, 2.0), output) == (0, 3)
    assert bounds[output] == (0, INF)  # which is left as it was
