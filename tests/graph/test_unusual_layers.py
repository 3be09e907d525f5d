"""Explained kernels, grouped batches, complex weights: right numbers, or an error of ours."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxlrp as lrp
from tests import reference
from tests.compare import assert_close
from tests.numpy_jaxpr import in_numpy

RNG = np.random.default_rng(9)
RULES = {
    "epsilon": (lrp.Epsilon, reference.epsilon_rule),
    "zplus": (lrp.ZPlus, reference.zplus_rule),
    "alpha_beta": (lrp.AlphaBeta, reference.alpha_beta_rule),
    "gamma": (lrp.Gamma, reference.gamma_rule),
    "zbox": (
        functools.partial(lrp.ZBox, -3.0, 2.0),
        functools.partial(reference.zbox_rule, low=-3.0, high=2.0),
    ),
    "wsquare": (lrp.WSquare, reference.wsquare_rule),
    "flat": (lrp.Flat, reference.flat_rule),
}
NHWC = ("NHWC", "HWIO", "NHWC")
PICTURES = RNG.normal(size=(4, 5, 4, 2))
KERNELS = RNG.normal(size=(3, 2, 2, 6))
SHIFT = RNG.normal(size=6)


def conv(x, kernel, **options):
    options = {"window_strides": (1, 1), "padding": "SAME"} | options
    return lax.conv_general_dilated(x, kernel, dimension_numbers=NHWC, **options)


# name: (function, explained array); all of it is one sample
LAYERS = {
    "kernel of a conv": (lambda k: conv(PICTURES[:2], k) + SHIFT, KERNELS),
    "kernel of a strided conv with groups": (
        lambda k: conv(PICTURES[:1], k, feature_group_count=2, window_strides=(2, 1)) * SHIFT,
        KERNELS[:, :, :1],
    ),
    "matrix on the right": (lambda w: PICTURES[0, 0] @ w + SHIFT[:3], RNG.normal(size=(2, 3))),
    "matrix in an einsum": (
        lambda w: jnp.einsum("nhwc,hcd->nwd", PICTURES, w),
        RNG.normal(size=(5, 2, 2)),
    ),
    "grouped batch": (lambda x: conv(x, KERNELS, batch_group_count=2) + SHIFT, PICTURES),
    "grouped batch, scaled": (
        lambda x: conv(x * SHIFT[:2], KERNELS, batch_group_count=2) * SHIFT - SHIFT,
        PICTURES,
    ),
    "kernel under a grouped batch": (
        lambda k: conv(PICTURES, k, batch_group_count=2) * SHIFT,
        KERNELS,
    ),
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", LAYERS)
def test_against_the_reference(name, rule):
    fn, x = LAYERS[name]
    layer = reference.layer_of_affine(fn, x.shape)
    matrix = np.where(abs(layer.matrix) < 1e-13, 0.0, layer.matrix)
    layer = reference.dense_layer(matrix, layer.bias, matrix != 0)
    ours, theirs = RULES[rule]
    relevance = RNG.normal(size=fn(x).shape)
    for bias in ("absorb", "ignore", "distribute"):
        _, back = lrp.relevance_vjp(fn, ours(bias=bias), jnp.asarray(x))
        actual = back(jnp.asarray(relevance))[0]
        expected = reference.apply_rule(theirs, layer, x[None], relevance[None], bias=bias)[0]
        assert_close(actual, expected, tolerance=1e-9, what=f"{name}, {rule}, {bias}")


def fourier(x):
    kernel = RNG_KERNEL
    return jnp.fft.irfft(jnp.fft.rfft(x) @ kernel, n=6)


RNG_KERNEL = RNG.normal(size=(4, 4)) + 1j * RNG.normal(size=(4, 4))


@pytest.mark.parametrize("rules", [{}, lrp.RuleMap({})], ids=["{}", "RuleMap"])
def test_complex_weights_by_default(rules):
    x = RNG.normal(size=(2, 6))
    found = in_numpy(lrp.explain(fourier, rules))(x)
    np.testing.assert_allclose(found, x * jax.grad(lambda x: fourier(x).sum())(x), rtol=1e-9)
    (layer,) = lrp.plan(fourier, rules)(x).select("dense")
    assert str(layer.rule) == "Epsilon(epsilon=0)"
    assert "complex" in layer.why
    jitted = jax.jit(lrp.explain(lambda x: jax.nn.relu(fourier(x) @ np.ones((6, 2))), rules))
    assert np.isfinite(jitted(x)).all()


def test_complex_weights_under_a_rule_that_was_given():
    with pytest.raises(lrp.RuleError, match=r"complex"):
        lrp.plan(fourier, {"dense": lrp.Epsilon()})(np.ones((2, 6)))
