"""What tests run in NumPy has the numbers that JAX computes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxlrp as lrp
from tests.common import draw
from tests.compare import assert_leaves_close
from tests.numpy_jaxpr import in_numpy

CONVOLUTIONS = {
    "strides and padding": {"window_strides": (2, 1), "padding": ((1, 2), (0, 3))},
    "negative padding": {"window_strides": (1, 1), "padding": ((-1, 2), (0, -1))},
    "holes in the kernel": {"window_strides": (1, 2), "padding": "SAME", "rhs_dilation": (2, 1)},
    "transposed": {"window_strides": (1, 1), "padding": ((2, 2), (1, 2)), "lhs_dilation": (2, 3)},
    "no window fits": {"window_strides": (1, 1), "padding": ((-4, 0), (0, 0))},
    "channels first": {"window_strides": (1, 1), "padding": "SAME", "layout": "NCHW"},
    "groups": {"window_strides": (1, 1), "padding": "VALID", "feature_group_count": 2},
    "groups of examples": {"window_strides": (1, 1), "padding": "VALID", "batch_group_count": 2},
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions(name):
    options = dict(CONVOLUTIONS[name])
    layout = options.pop("layout", "NHWC")
    shape = (2, 4, 6, 5) if layout == "NCHW" else (2, 6, 5, 4)
    kernel = draw(3, 2, 4 // options.get("feature_group_count", 1), 6)

    def fn(x):
        return lax.conv_general_dilated(
            x, kernel, dimension_numbers=(layout, "HWIO", layout), **options
        )

    found, expected = in_numpy(fn)(draw(*shape)), fn(draw(*shape))
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "config", [((1, 2, 0), (0, 0, 2)), ((-1, 1, 0), (2, -3, 1)), ((-2, 0, 1), (0, -2, 0))]
)
def test_padding(config):
    def fn(x):
        return lax.pad(x, 7.0, config)

    np.testing.assert_array_equal(in_numpy(fn)(draw(3, 4)), fn(draw(3, 4)))


def test_a_function_is_traced_once_for_arguments_of_a_type():
    traced = []

    @in_numpy
    def fn(x, *, by):
        traced.append(x.shape)
        return {"a": x * by, "b": jnp.sin(x).sum()}

    for shape in ((3,), (3,), (2, 3)):
        x = draw(*shape)
        assert_leaves_close(fn(x, by=2.0), {"a": 2 * x, "b": jnp.sin(x).sum()})
    assert traced == [(3,), (2, 3)]


RULES = {
    "epsilon": lrp.Epsilon(0.1),
    "zplus": lrp.ZPlus(bias="distribute"),
    "gamma": lrp.Gamma(0.3),
    "alpha_beta": lrp.AlphaBeta(bias="ignore"),
    "flat": lrp.Flat(),
    "wsquare": lrp.WSquare(),
    "zbox": lrp.ZBox(-9.0, 9.0),
}


@pytest.mark.parametrize("rule", RULES)
def test_explanations(rule):
    """Every rule on convolutions, pooling and dense layers, as XLA compiles it."""
    kernel, w, v = draw(3, 3, 2, 3), draw(12, 5), draw(5, 3)

    def fn(x):
        numbers = ("NHWC", "HWIO", "NHWC")
        h = lax.conv_general_dilated(x, kernel, (2, 2), "SAME", dimension_numbers=numbers)
        h = jax.nn.relu(h + 0.1 * v[:, 0].sum()).reshape(len(x), -1)
        h = jnp.tanh(h @ w)
        return lax.scan(lambda c, _: (jnp.tanh(c) + h, None), h, None, length=2)[0] @ v

    explain = lrp.value_and_relevance(fn, {"conv": RULES[rule], "dense": RULES[rule]})
    x, target = draw(2, 4, 4, 2), np.array([0, 2])
    expected = jax.jit(explain)(x, target=target)
    assert_leaves_close(in_numpy(explain)(x, target=target), expected, 1e-12)
