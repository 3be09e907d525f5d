"""Cases that an attack on the canonical graph found: each a mechanism that claimed too much."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxlrp as lrp
from tests.compare import assert_close
from tests.numpy_jaxpr import in_numpy

RNG = np.random.default_rng(5)
X, W, V = (RNG.normal(size=s) for s in ((4, 6), (6, 6), (6, 3)))
B, G = RNG.normal(size=6), 0.5 + RNG.random(6)
RULES = {"zero": lrp.Epsilon(0.0), "plus": lrp.ZPlus(), "alpha_beta": lrp.AlphaBeta(2.0, 1.0)}


def normal(x):
    return (x - B) / G


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    "move",
    [
        lambda y, places: y[places],
        lambda y, _: y.at[jnp.array([0, 9, 2])].get(mode="fill", fill_value=7.0),
        lambda y, _: jnp.tile(y, (2, 1)),
        lambda y, _: jnp.ones((8, 6)).at[jnp.array([1, 3, 4, 5])].set(y),
        lambda y, _: lax.dynamic_update_slice(jnp.ones((6, 6)), y, (1, 0)),
    ],
    ids=["gather", "filled gather", "tile", "scatter", "update"],
)
def test_moves_that_cannot_be_numbered(move, rule):
    places = jnp.array([0, 0, 2])  # an argument: the program does not say them
    R = in_numpy(lrp.explain(lambda x, p: jax.nn.relu(move(normal(x), p) @ V), RULES[rule]))(
        X, places
    )
    # What comes before them is a layer of its own.
    last = lrp.explain(lambda h, p: jax.nn.relu(move(h, p) @ V), RULES[rule])
    hidden = last(normal(X), places)
    assert_close(R, lrp.relevance_vjp(normal, RULES[rule], X)[1](hidden)[0])


def test_a_stopped_case_stays_stopped():
    even = jnp.arange(6) % 2 == 0
    hidden = lambda x: jax.nn.relu(x @ W)  # noqa: E731
    stop = lax.stop_gradient
    for fn in (
        lambda x: jnp.where(even, x, stop(x)) @ V,
        lambda x: jnp.where(even, stop(hidden(x)), hidden(x)) @ V,
        lambda x: jnp.where(hidden(x).sum() > 0, stop(hidden(x)), hidden(x)) @ V,
        lambda x: jnp.where(hidden(x) > 1, stop(hidden(x)), hidden(x)) @ V,
    ):
        expected = X * jax.grad(lambda x, fn=fn: fn(x).sum())(X)
        assert_close(in_numpy(lrp.explain(fn, lrp.Epsilon(0.0)))(X) + 1.0, expected + 1.0)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    "spelling",
    [
        lambda h, b: -(-h - b),
        lambda h, b: (-1.0) * (-h - b),
        lambda h, b: -(-b - h),
        lambda h, b: -1.0 * (-(h + b)),
        lambda h, b: 0.0 - (-h - b),
    ],
    ids=["twice", "scaled", "backwards", "outside", "from zero"],
)
def test_signs_that_cancel(spelling, rule):
    one, other = (
        in_numpy(lrp.explain(lambda x, s=s: jax.nn.relu(s(x @ W, B)) @ V, RULES[rule]))(X)
        for s in (spelling, lambda h, b: h + b)
    )
    assert_close(one, other)


def test_a_gate_of_a_statistic_is_no_norm():
    def gated(sigmoid):
        return lambda x: x * sigmoid(G * x.mean(0, keepdims=True) + B)

    one, other = (
        in_numpy(lrp.explain(gated(s), lrp.Epsilon(0.0)))(X)
        for s in (jax.nn.sigmoid, lambda u: 1 / (1 + jnp.exp(-u)))
    )
    assert_close(one, other)


def test_a_square_is_one_value_in_every_spelling():
    def undone(square):
        def fn(x):
            size = jnp.sqrt((x * x).sum(-1, keepdims=True))
            return ((x / size) @ W) * jnp.sqrt(square(x).sum(-1, keepdims=True))

        return fn

    expected = in_numpy(lrp.explain(lambda x: x @ W, lrp.Epsilon(0.0)))(X)
    for square in (lambda x: x * x, lambda x: x**2, jnp.square):
        assert_close(in_numpy(lrp.explain(undone(square), lrp.Epsilon(0.0)))(X), expected)
