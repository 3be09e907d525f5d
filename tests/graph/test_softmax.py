"""Softmaxes whose exponential is written twice, of which one is computed again backwards.

Nothing is merged across the border of a rematerialised call, so the two stay two equations.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp as lrp
from tests.compare import assert_close
from tests.numpy_jaxpr import in_numpy

RNG = np.random.default_rng(8)
X, W = RNG.normal(size=(2, 6)), RNG.normal(size=(6, 3))


def largest(u):
    return u.max(-1, keepdims=True)


# name: what is taken from the exponent above the line, and below
SHIFTS = {
    "none": (jnp.zeros_like, jnp.zeros_like),
    "a number": (lambda u: 1.0, lambda u: 1.0),
    "the maximum": (largest, largest),
}


def network(above, below):
    exponential = jax.checkpoint(lambda u: jnp.exp(u - above(u)))

    def fn(x):
        return exponential(x) / jnp.exp(x - below(x)).sum(-1, keepdims=True) @ W

    return fn


@pytest.mark.parametrize("shift", SHIFTS)
def test_two_equal_exponentials(shift):
    fn = network(*SHIFTS[shift])
    assert [y.kind for y in lrp.plan(fn, {})(X).layers] == ["softmax", "dense"]
    once = in_numpy(lrp.explain(lambda x: jax.nn.softmax(x) @ W, {}))(X, target=1)
    assert_close(in_numpy(lrp.explain(fn, {}))(X, target=1), once, tolerance=1e-10)


@pytest.mark.parametrize(
    ("above", "below"),
    [(lambda u: 1.0, lambda u: 2.0), (lambda u: u / 2.0, lambda u: u / 4.0)],
    ids=["numbers", "exponents"],
)
def test_two_different_exponentials(above, below):
    """A weight that is not the share of a sum is no softmax."""
    kinds = [y.kind for y in lrp.plan(network(above, below), {})(X).layers]
    assert "softmax" not in kinds and "product" in kinds
