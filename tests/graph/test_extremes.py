"""Statistics that are made of largest and smallest values: a minimum is a maximum with signs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxlrp as lrp
from tests.compare import assert_close
from tests.numpy_jaxpr import in_numpy

RNG = np.random.default_rng(3)
X, W, V = RNG.normal(size=(3, 4)), RNG.normal(size=(4, 4)), RNG.normal(size=(4, 4))
RULES = [lrp.Epsilon(0.0), lrp.ZPlus(), lrp.AlphaBeta(2.0, 1.0), lrp.Gamma(0.3)]


def largest(x):
    return x.max(-1, keepdims=True)


def smallest(x):
    return x.min(-1, keepdims=True)


DIVISORS = {
    "largest size": lambda x: largest(abs(x)),
    "largest size by the smallest": lambda x: -smallest(-abs(x)),
    "two ends": lambda x: jnp.maximum(largest(x), -smallest(x)),
    "two ends' sizes": lambda x: jnp.maximum(abs(largest(x)), abs(smallest(x))),
    "range": lambda x: largest(x) - smallest(x),
    "range of the negative": lambda x: largest(x) + largest(-x),
    "ptp": lambda x: jnp.ptp(x, axis=-1, keepdims=True),
    "half range": lambda x: 0.5 * (largest(x) - smallest(x)) + 1e-3,
}
divisors = pytest.mark.parametrize("divisor", DIVISORS.values(), ids=DIVISORS.keys())


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
@divisors
def test_a_divisor_that_is_undone(divisor, rule):
    def hidden(x):
        return jnp.tanh(x @ V)

    def fn(x):
        h = hidden(x)
        s = divisor(h)
        return ((h / s) @ W) * s

    expected = in_numpy(lrp.explain(lambda x: hidden(x) @ W, rule))(X, target=1)
    assert_close(in_numpy(lrp.explain(fn, rule))(X, target=1), expected)


@divisors
def test_a_divisor_is_held(divisor):
    def fn(x):
        return (x / divisor(x)) @ W

    def held(x):
        return (x / lax.stop_gradient(divisor(x))) @ W

    expected = X * jax.vmap(jax.grad(lambda x: held(x)[2]))(X)
    assert_close(in_numpy(lrp.explain(fn, RULES[0]))(X, target=2), expected)
    assert [y.kind for y in lrp.plan(fn, RULES[0])(X).select("norm")] == ["norm"]


def test_between_the_smallest_and_the_largest():
    """The smallest is passed as by a maximum pool; the range is held, however it is written."""

    def scaled(x):
        low = smallest(x)
        return ((x - low) / (largest(x) - low)) @ W

    def by_reciprocal(x):
        low = smallest(x)
        return ((x - low) * (1 / (largest(x) - low))) @ W

    def held(x):
        low = smallest(x)
        return ((x - low) / lax.stop_gradient(largest(x) - low)) @ W

    expected = X * jax.vmap(jax.grad(lambda x: held(x)[0]))(X)
    for fn in (scaled, by_reciprocal, held):
        assert_close(in_numpy(lrp.explain(fn, RULES[0]))(X, target=0), expected)
