"""Norms whose centring comes after the scale: x * s + (b - mean * s) is one norm."""

import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxlrp as lrp
from tests.compare import assert_close
from tests.numpy_jaxpr import in_numpy

RNG = np.random.default_rng(5)
X = RNG.normal(size=(2, 6)) + 0.5
G, B = RNG.uniform(0.5, 2.0, 6), RNG.normal(size=6)
W = RNG.normal(size=(6, 3))


def scale(x):
    """The mean over an example, and the reciprocal of its deviation."""
    mean = x.mean(-1, keepdims=True)
    return mean, lax.rsqrt(jnp.square(x - mean).mean(-1, keepdims=True) + 1e-5)


def shift_of_the_mean(x):
    mean, s = scale(x)
    return x * (s * G) + (B - mean * (s * G))


def mean_in_between(x):
    mean, s = scale(x)
    return x * (s * G) - mean * (s * G) + B


def scaled_behind(x):
    mean, s = scale(x)
    return (x * s + -mean * s) * G + B


def relevance_by_hand(x, target, bias):
    """Epsilon(0) in the dense layer, then the norm with its divisor held: y = C x + b."""
    s = 1 / np.sqrt(np.var(x) + 1e-5)
    c = (np.eye(6) - 1 / 6) * (s * G)
    y = x @ c + B
    z = y if bias == "absorb" else x @ c
    return x * (c @ (y * W[:, target] / z))


@pytest.mark.parametrize("bias", ["absorb", "ignore"])
@pytest.mark.parametrize("norm", [shift_of_the_mean, mean_in_between, scaled_behind])
def test_the_centring_comes_last(norm, bias):
    def fn(x):
        return norm(x) @ W

    rules = lrp.composites.lrp_zero() | {lrp.kind("norm"): lrp.Detach(bias=bias)}
    (found,) = lrp.plan(fn, rules)(X).select("norm")
    assert found.group.particulars.tail is None
    actual = in_numpy(lrp.explain(fn, rules))(X, target=1)
    assert_close(actual, np.stack([relevance_by_hand(x, 1, bias) for x in X]), tolerance=1e-12)


@pytest.mark.parametrize("norm", [shift_of_the_mean, mean_in_between, scaled_behind])
def test_the_shift_is_the_bias_of_the_norm(norm):
    """What the ledger lists as lost to the bias is what is not left for the input."""
    found = lrp.ledger(lambda x: norm(x) @ W, lrp.composites.lrp_zero())(X, target=1)
    (row,) = (entry for entry in found.layers if entry.kind == "norm")
    assert abs(row.bias) > 1e-3
    assert_close(row.bias, row.relevance_out - row.relevance_in, tolerance=1e-12)
