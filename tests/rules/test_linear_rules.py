"""Every linear rule on every form of linear layer, against tests/reference.py."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxlrp as lrp
from jaxlrp.rules.arithmetic import stabilised_share
from tests import reference
from tests.common import pull_back
from tests.compare import assert_close

RNG = np.random.default_rng(7)
BIASES = ("absorb", "ignore", "distribute")

# The library's rule and the reference's, from the same options.
RULES = {
    "epsilon": (
        lambda **o: lrp.Epsilon(0.1, **o),
        functools.partial(reference.epsilon_rule, epsilon=0.1),
    ),
    "zplus": (lrp.ZPlus, reference.zplus_rule),
    "gamma": (lambda **o: lrp.Gamma(0.3, **o), functools.partial(reference.gamma_rule, gamma=0.3)),
    "alpha_beta": (
        lambda **o: lrp.AlphaBeta(1.7, 0.7, **o),
        functools.partial(reference.alpha_beta_rule, alpha=1.7, beta=0.7),
    ),
    "zbox": (
        lambda **o: lrp.ZBox(-3.0, 2.0, **o),
        functools.partial(reference.zbox_rule, low=-3.0, high=2.0),
    ),
    "wsquare": (lrp.WSquare, reference.wsquare_rule),
    "flat": (lrp.Flat, reference.flat_rule),
}


def conv(layout="NHWC", **options):
    """A function of (x, kernel) for one sample."""
    options = {"window_strides": (1, 1), "padding": "VALID"} | options
    dimensions = (layout, "HWIO", layout)

    def apply(x, kernel):
        return lax.conv_general_dilated(x[None], kernel, dimension_numbers=dimensions, **options)[0]

    return apply


def conv_transpose(x, kernel):
    return lax.conv_transpose(
        x[None], kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )[0]


def conv_1d(x, kernel):
    dimensions = ("NWC", "WIO", "NWC")
    return lax.conv_general_dilated(x[None], kernel, (2,), ((2, 0),), dimension_numbers=dimensions)[
        0
    ]


# name: (function of one sample and the kernel, shape of the sample, of the kernel, of the bias)
LAYERS = {
    "dense": (jnp.dot, (5,), (5, 4), (4,)),
    "dense on the last axis": (jnp.dot, (2, 3), (3, 4), (4,)),
    "einsum over two axes": (
        lambda x, k: jnp.einsum("hwc,hcd->wd", x, k),
        (2, 3, 2),
        (2, 2, 3),
        (3,),
    ),
    "one matrix per head": (lambda x, k: jnp.einsum("hc,hcd->hd", x, k), (2, 3), (2, 3, 2), (2,)),
    "matrix on the left": (lambda x, k: k @ x, (3, 2), (4, 3), (2,)),
    "conv": (conv(), (4, 5, 2), (3, 2, 2, 3), (3,)),
    "conv, stride 2, SAME": (
        conv(window_strides=(2, 2), padding="SAME"),
        (5, 4, 2),
        (3, 3, 2, 2),
        (2,),
    ),
    "conv, dilated, uneven padding": (
        conv(rhs_dilation=(2, 1), padding=((1, 2), (0, 1))),
        (4, 4, 2),
        (2, 2, 2, 2),
        (2,),
    ),
    "conv, groups": (conv(feature_group_count=2, padding="SAME"), (3, 3, 4), (3, 3, 2, 4), (4,)),
    "conv, depthwise": (conv(feature_group_count=3), (4, 3, 3), (2, 2, 1, 6), (6,)),
    "conv, NCHW": (conv("NCHW", padding="SAME"), (2, 4, 3), (3, 3, 2, 2), (2, 1, 1)),
    "conv, transposed": (conv_transpose, (3, 2, 2), (3, 3, 2, 2), (2,)),
    "conv, one axis, causal": (conv_1d, (5, 2), (3, 2, 2), (2,)),
    "affine": (jnp.multiply, (4,), (4,), (4,)),
}


@functools.cache
def make(name):
    """The function of a batch, its DenseLayer, an input and a relevance; signed, with zeros."""
    apply, in_shape, kernel_shape, bias_shape = LAYERS[name]
    rng = np.random.default_rng(sum(map(ord, name)))
    kernel, bias = rng.normal(size=kernel_shape), rng.normal(size=bias_shape)
    x = rng.normal(size=(2, *in_shape))
    x[0].flat[0] = 0.0
    kernel.flat[-1] = 0.0 if name != "affine" else kernel.flat[-1]
    layer = reference.layer_of(apply, kernel, in_shape, bias)
    out = jax.eval_shape(apply, x[0], kernel)

    def fn(x):
        return jax.vmap(lambda row: apply(row, kernel))(x) + bias

    return fn, layer, x, rng.normal(size=(2, *out.shape))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", LAYERS)
def test_one_layer(name, rule):
    fn, layer, x, relevance = make(name)
    ours, theirs = RULES[rule]
    for bias in BIASES:
        actual = pull_back(fn, ours(bias=bias), x, relevance)
        expected = reference.apply_rule(theirs, layer, x, relevance, bias=bias)
        assert_close(actual, expected, what=f"{name}, {rule}, {bias}")


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", ["dense", "conv, stride 2, SAME", "affine"])
def test_an_input_known_to_be_non_negative(name, rule):
    # What is known about signs may save products and must not change a number.
    fn, layer, x, relevance = make(name)
    ours, theirs = RULES[rule]
    for bias in BIASES:
        actual = pull_back(lambda x: fn(jax.nn.relu(x)), ours(bias=bias), x, relevance)
        expected = reference.apply_rule(theirs, layer, np.maximum(x, 0), relevance, bias=bias)
        assert_close(actual, expected, what=f"{name}, {rule}, {bias}")


def test_pass():
    x, relevance = RNG.normal(size=(2, 4)), RNG.normal(size=(2, 4))
    matrix, bias = RNG.normal(size=(4, 4)), RNG.normal(size=4)
    actual = pull_back(lambda x: x @ matrix + bias, lrp.Pass(), x, relevance)
    np.testing.assert_array_equal(actual, relevance)


def test_relative_epsilon():
    matrix, bias = RNG.normal(size=(4, 3)), RNG.normal(size=3)
    x, relevance = RNG.normal(size=4), RNG.normal(size=3)
    layer = reference.dense_layer(matrix, bias)
    expected = reference.epsilon_rule(layer, x, relevance, epsilon=0.5, relative=True)
    rule = lrp.Epsilon(0.5, relative=True)
    assert_close(pull_back(lambda x: x @ matrix + bias, rule, x, relevance), expected)
    # It has no unit: a network in other units gets the same relevance.
    scaled = pull_back(lambda x: 1e3 * (x @ matrix + bias), rule, x, relevance)
    assert_close(scaled, expected)


def test_box_bounds_may_be_arrays():
    fn, layer, x, relevance = make("conv, stride 2, SAME")
    low, high = x.min(0) - RNG.uniform(size=x.shape[1:]), x.max(0) + RNG.uniform(size=x.shape[1:])
    actual = pull_back(fn, lrp.ZBox(low, high), x, relevance)
    rule = functools.partial(reference.zbox_rule, low=low.reshape(-1), high=high.reshape(-1))
    assert_close(actual, reference.apply_rule(rule, layer, x, relevance))


@pytest.mark.parametrize("rule", ["zplus", "alpha_beta", "gamma"])
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("where", ["before", "behind"])
def test_scales_along_an_axis_that_the_kernel_lacks(where, side, rule):
    rng = np.random.default_rng(8)
    shape = (3, 4) if side == "right" else (4, 3)
    kernel, scale = rng.normal(size=(4, 5)), rng.normal(size=(3, 1))

    def fn(x):
        if where == "before":
            return (x * scale) @ kernel if side == "right" else kernel.T @ (x * scale.T)
        return (x @ kernel) * scale if side == "right" else (kernel.T @ x) * scale.T

    layer = reference.layer_of_affine(fn, shape)
    matrix = np.where(abs(layer.matrix) < 1e-13, 0.0, layer.matrix)
    layer = reference.dense_layer(matrix, 0.0 * layer.bias, matrix != 0)
    x = rng.normal(size=shape)
    relevance = rng.normal(size=fn(x).shape)
    ours, theirs = RULES[rule]
    actual = pull_back(fn, ours(), x, relevance)
    assert_close(actual, reference.apply_rule(theirs, layer, x[None], relevance[None])[0])


@pytest.mark.parametrize("rule", ["epsilon", "zbox", "flat"])
def test_padding_before_a_convolution(rule):
    """Written apart, it brings zeros that are nobody's input all the same."""
    _, _, x, relevance = make("conv, stride 2, SAME")
    apply, in_shape, kernel_shape, _ = LAYERS["conv, stride 2, SAME"]
    kernel = RNG.normal(size=kernel_shape)
    layer = reference.layer_of(apply, kernel, in_shape, np.zeros(2))
    valid = conv(window_strides=(2, 2))

    def fn(x):
        padded = jnp.pad(x @ np.eye(2), ((0, 0), (1, 1), (0, 1), (0, 0)))
        return jax.vmap(lambda row: valid(row, kernel))(padded)

    ours, theirs = RULES[rule]
    for bias in ("absorb", "distribute"):
        actual = pull_back(fn, {"conv": ours(bias=bias), "dense": lrp.Pass()}, x, relevance)
        expected = reference.apply_rule(theirs, layer, x, relevance, bias=bias)
        assert_close(actual, expected, what=f"{rule}, {bias}")


@pytest.mark.parametrize("rule", RULES)
def test_batch_norm_after_a_convolution(rule):
    # The slope may be negative, so positive weights of the convolution are negative ones of the
    # layer.
    apply, in_shape, kernel_shape, _ = LAYERS["conv, stride 2, SAME"]
    kernel, x = RNG.normal(size=kernel_shape), RNG.normal(size=(2, *in_shape))
    mean, scale, shift = RNG.normal(size=2), np.array([-1.5, 0.5]), RNG.normal(size=2)

    def fn(x):
        return (jax.vmap(lambda row: apply(row, kernel))(x) - mean) * scale + shift

    relevance = RNG.normal(size=jax.eval_shape(fn, x).shape)
    layer = reference.layer_of(apply, kernel * scale, in_shape, shift - mean * scale)
    ours, theirs = RULES[rule]
    for bias in BIASES:
        actual = pull_back(fn, ours(bias=bias), x, relevance)
        expected = reference.apply_rule(theirs, layer, x, relevance, bias=bias)
        assert_close(actual, expected, what=f"{rule}, {bias}")


ACTIVATIONS = {
    "relu": jax.nn.relu,
    "relu as where": lambda x: jnp.where(x > 0, x, 0.0),
    "leaky_relu": jax.nn.leaky_relu,
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
    "silu": jax.nn.silu,
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "softplus": jax.nn.softplus,
    "hard_tanh": jax.nn.hard_tanh,
    "relu6": jax.nn.relu6,
    "elu": jax.nn.elu,
    "square": jnp.square,
}


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(
    ("lower", "upper"),
    [
        ("gamma", "epsilon"),
        ("gamma", "gamma"),
        ("gamma", "flat"),
        ("zplus", "alpha_beta"),
        ("alpha_beta", "wsquare"),
        ("epsilon", "epsilon"),
        ("flat", "zplus"),
    ],
)
def test_two_layers(lower, upper, activation):
    """An activation hands on what it receives, so the references chain; `lower` is first."""
    act = ACTIVATIONS[activation]
    rng = np.random.default_rng(3)
    first = reference.dense_layer(rng.normal(size=(4, 6)), rng.normal(size=6))
    second = reference.dense_layer(rng.normal(size=(6, 3)), rng.normal(size=3))
    x, relevance = rng.normal(size=(3, 4)), rng.normal(size=(3, 3))

    def fn(x):
        with jax.named_scope("first"):
            h = x @ first.matrix + first.bias
        with jax.named_scope("act"):
            h = act(h)
        with jax.named_scope("second"):
            return h @ second.matrix + second.bias

    rules = {"first": RULES[lower][0](), "second": RULES[upper][0]()}
    actual = pull_back(fn, rules, x, relevance)
    hidden = np.asarray(act(x @ first.matrix + first.bias))
    middle = reference.apply_rule(RULES[upper][1], second, hidden, relevance)
    expected = reference.apply_rule(RULES[lower][1], first, x, middle)
    assert_close(actual, expected)


@pytest.mark.parametrize("rule", RULES)
def test_a_residual_branch(rule):
    # A skip keeps both halves of Gamma alive under a ReLU, since the sum's relevance can reach a
    # negative output.
    rng = np.random.default_rng(5)
    layer = reference.dense_layer(rng.normal(size=(4, 4)), rng.normal(size=4))
    x, relevance = rng.normal(size=(3, 4)), rng.normal(size=(3, 4))

    def fn(x):
        with jax.named_scope("branch"):
            y = x @ layer.matrix + layer.bias
        with jax.named_scope("sum"):
            return jax.nn.relu(x + y)

    ours, theirs = RULES[rule]
    actual = pull_back(fn, {"branch": ours(), "add": lrp.Epsilon(1e-6)}, x, relevance)
    y = x @ layer.matrix + layer.bias
    share = relevance / (x + y + 1e-6 * np.where(x + y >= 0, 1, -1))
    expected = x * share + reference.apply_rule(theirs, layer, x, y * share)
    assert_close(actual, expected)


def test_a_stabiliser_of_zero_is_positive():
    actual = pull_back(
        lambda x: x @ np.array([[1.0], [-1.0]]), lrp.Epsilon(0.5), np.ones(2), 3 * np.ones(1)
    )
    np.testing.assert_allclose(actual, [6.0, -6.0], rtol=1e-12)


@pytest.mark.parametrize("also", ["a layer", "the output"])
def test_outputs_that_are_read_by_a_relu_and_beside_it(also):
    # Relevance comes to an output below 0, past the ReLU.
    rng = np.random.default_rng(6)
    matrix, up, down, x = (rng.normal(size=s) for s in ((4, 5), (5, 3), (5, 3), (2, 4)))
    if also == "the output":
        up = down = np.eye(5)

    def fn(x):
        with jax.named_scope("first"):
            z = x @ matrix
        h = jax.nn.relu(z)
        return (h, z) if also == "the output" else (h @ up + z @ down)

    rules = {"dense": lrp.Epsilon(0.0), "first": lrp.Gamma(0.3)}
    z = x @ matrix
    middle = np.maximum(z, 0) * up.sum(1) + z * down.sum(1)
    layer = reference.dense_layer(matrix, np.zeros(5))
    expected = reference.apply_rule(RULES["gamma"][1], layer, x, middle)
    assert_close(lrp.explain(fn, rules)(x), expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_share_of_a_stabilised_denominator(dtype):
    z = np.array([0.0, -0.0, 1e-9, -3.0, 2e30, np.inf, -np.inf], dtype)
    share = np.asarray(stabilised_share(jnp.asarray(z), 0.5))
    np.testing.assert_allclose(share[:5], z[:5] / (z[:5] + np.where(z[:5] >= 0, 0.5, -0.5)))
    np.testing.assert_array_equal(share[-2:], 1.0)
    slope = jax.grad(lambda z: stabilised_share(z, 0.5))(jnp.asarray(dtype(0.0)))
    assert np.isfinite(slope)
