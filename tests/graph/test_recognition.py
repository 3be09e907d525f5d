"""Layers are found by what they compute, whatever their spelling."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxlrp as lrp
from tests.common import kinds, layer_norm
from tests.numpy_jaxpr import in_numpy

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def the_same_numbers_whatever_ran_before():
    global RNG
    RNG = np.random.default_rng(0)


def array(*shape):
    return jnp.asarray(RNG.normal(size=shape))


ACTIVATIONS = {
    "relu": jax.nn.relu,
    "relu by max": lambda x: jnp.maximum(0.0, x),
    "relu by where": lambda x: jnp.where(x > 0, x, 0.0),
    "relu by where, turned": lambda x: jnp.where(x <= 0, 0.0, x),
    "relu by clip": lambda x: jnp.clip(x, 0.0),
    "relu by abs": lambda x: (x + jnp.abs(x)) / 2,
    "relu by product": lambda x: x * (x > 0),
    "relu6": jax.nn.relu6,
    "leaky": jax.nn.leaky_relu,
    "leaky by max": lambda x: jnp.maximum(x, 0.1 * x),
    "elu": jax.nn.elu,
    "celu": jax.nn.celu,
    "selu": jax.nn.selu,
    "gelu tanh": jax.nn.gelu,
    "gelu erf": lambda x: jax.nn.gelu(x, approximate=False),
    "gelu, half last": lambda x: 0.5 * (x * (1 + lax.erf(x / np.sqrt(2)))),
    "quick gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "silu": jax.nn.silu,
    "hard swish": jax.nn.hard_swish,
    "mish": jax.nn.mish,
    "tanh": jnp.tanh,
    "hard tanh": jax.nn.hard_tanh,
    "soft sign": jax.nn.soft_sign,
    "square": jnp.square,
    "x * x": lambda x: x * x,
    "cube": lambda x: x**3,
    "shifted softplus": lambda x: jax.nn.softplus(x) - np.log(2.0),
    "squareplus of |x|": lambda x: jnp.sqrt(x * x + 1) - 1,
    "sine": jnp.sin,
    "a threshold": lambda x: jnp.where(x > 0.5, x, 0.0),
    "a threshold below": lambda x: jnp.where(x > -0.5, x, 0.0),
    "relu, squared": lambda x: jnp.square(jax.nn.relu(x)),
}
NOT_ZERO_AT_ZERO = {
    "sigmoid": jax.nn.sigmoid,
    "softplus": jax.nn.softplus,
    "exp": jnp.exp,
    "hard sigmoid": jax.nn.hard_sigmoid,
    "keras hard sigmoid": lambda x: jnp.clip(0.2 * x + 0.5, 0, 1),
    "squareplus": jax.nn.squareplus,
    "log sigmoid": jax.nn.log_sigmoid,
    "cosine": jnp.cos,
}


@pytest.mark.parametrize("name", [*ACTIVATIONS, *NOT_ZERO_AT_ZERO])
def test_any_spelling_of_an_activation_is_one_layer_that_relevance_passes(name):
    f = {**ACTIVATIONS, **NOT_ZERO_AT_ZERO}[name]
    w, b, v, x = array(5, 7), array(7), array(7, 3), array(4, 5)

    def fn(x):
        return f(x @ w + b) @ v

    plan = lrp.plan(fn, lrp.Epsilon(0.0))(x)
    shown = [layer for layer in plan.layers if layer.kind != "structural"]
    assert [layer.kind for layer in shown] == ["dense", "activation", "dense"]
    assert shown[1].zero_at_zero == (name in ACTIVATIONS)
    # Relevance passes: the dense layers are all that counts. By hand, in float64.
    relevance = in_numpy(lrp.explain(fn, lrp.Epsilon(0.0)))(x, target=1)
    z = x @ w + b
    hidden = f(z) * v[:, 1] / (f(z) @ v)[:, 1:2] * fn(x)[:, 1:2]
    expected = x * ((hidden / z) @ w.T)
    np.testing.assert_allclose(relevance, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "proven"),
    [
        ("relu", True),
        ("relu by max", True),
        ("relu by where", True),
        ("relu by where, turned", True),
        ("relu by clip", True),
        ("relu6", True),
        ("leaky", False),
        ("gelu tanh", False),
        ("square", False),
        ("relu, squared", True),
        ("a threshold", True),
        ("a threshold below", False),
    ],
)
def test_hard_relus_are_proven(name, proven):
    plan = lrp.plan(lambda x: ACTIVATIONS[name](x @ array(3, 3)), lrp.Epsilon())(array(2, 3))
    group = plan.select("activation")[0].group
    assert group.particulars.hard_relu == proven
    others = ("relu6", "relu, squared", "a threshold")
    assert group.particulars.is_relu == (proven and name not in others)


def test_a_number_times_a_relu_has_its_slopes():
    def group(f):
        return lrp.plan(lambda x: f(x @ array(3, 3)), {})(array(2, 3)).select("activation")[0].group

    for f, slopes in (
        (lambda h: 2 * (h * (h > 0)), (0.0, 2.0)),
        (lambda h: -jnp.maximum(-h / 4, 0.0), (0.25, 0.0)),
        (lambda h: jax.nn.leaky_relu(h, 0.1), None),
    ):
        found = group(f)
        assert found.particulars.relu_slopes == slopes
        assert not found.particulars.is_relu


def test_a_relu_whose_numbers_are_wider_than_its_input_is_a_relu():
    def fn(h):
        return jnp.where(h > 0, np.float64(1), np.float64(0)).astype(h.dtype) * h

    (layer,) = lrp.plan(fn, {})(jnp.ones(3, jnp.float32)).layers
    assert layer.group.particulars.is_relu


def test_a_part_of_a_sum_of_positive_numbers_is_a_gate():
    def fn(h, u):
        return jnp.exp(u) / (jnp.exp(u) + 1) * h

    def other(h, u):
        return jnp.exp(u) / (jnp.exp(u) + jnp.tanh(u)) * h

    for f, by in ((fn, "bounds"), (other, "activation")):
        (product,) = lrp.plan(f, {}, argnums=(0, 1))(array(3), array(3)).select("product")
        assert product.group.particulars.gate_by == by


def test_a_relu_behind_a_learned_scale_is_a_relu():
    """The scale is a layer of its own; the comparison is part of the activation all the same."""
    scale = jnp.abs(array(5)) + 0.5

    def fn(x):
        h = jnp.tanh(x) * scale
        return jnp.where(h > 0, h, 0.0) + h.sum()

    plan = lrp.plan(fn, lrp.Epsilon())(array(4, 5))
    found = [y.group.particulars.is_relu for y in plan.select("activation")]
    assert found == [False, True]


def test_a_learned_slope_is_part_of_its_activation():
    w, slope, x = array(5, 7), array(7), array(4, 5)

    def prelu(x):
        z = x @ w
        return jnp.where(z > 0, z, slope * z)

    assert kinds(prelu, x) == ["dense", "activation"]


def test_an_activation_hands_on_what_comes_to_it_at_zero():
    v = array(5)
    relevance = in_numpy(lrp.explain(lambda x: jax.nn.sigmoid(x) @ v, lrp.Epsilon(0.0)))(
        jnp.zeros(5)
    )
    np.testing.assert_allclose(relevance, v / 2, rtol=1e-12)


SIGNAL = lrp.RuleMap({"product": lrp.SignalTakesAll(), "dense": lrp.Epsilon(0.0)})


def test_a_factor_that_may_exceed_one_is_no_gate():
    """The sum of squares is no less than 0, and the graph shows no more: each gets a half."""
    w, x = array(5, 4), array(2, 5)

    def fn(x):
        return (x @ w) * jnp.square(x).sum(-1, keepdims=True)

    half = in_numpy(lrp.explain(fn, SIGNAL | {"product": lrp.Uniform()}))(x)
    np.testing.assert_allclose(in_numpy(lrp.explain(fn, SIGNAL))(x), half, rtol=1e-12)


def test_of_two_gates_neither_is_the_signal():
    def fn(x):
        return jax.nn.sigmoid(x[:, :2]) * jax.nn.sigmoid(x[:, 2:4])

    x = array(3, 4)
    half = jnp.concatenate([fn(x), fn(x)], -1) / 2
    np.testing.assert_allclose(in_numpy(lrp.explain(fn, SIGNAL))(x), half, rtol=1e-12)


def test_a_divisor_is_the_gate():
    w, v, x = array(4, 3), array(4, 3), array(3, 4)

    def fn(x):
        return (x @ w) / (x @ v)

    expected = x * ((fn(x) / (x @ w)) @ w.T)
    np.testing.assert_allclose(in_numpy(lrp.explain(fn, SIGNAL))(x), expected, rtol=1e-9)


@pytest.mark.parametrize(
    "spelt",
    [
        lambda a: a.T.T,
        lambda a: a.reshape(12).reshape(3, 4),
        lambda a: a[:, jnp.arange(3, -1, -1)][:, ::-1],
        lambda a: jnp.tile(a, (2, 1))[:3],
        lambda a: a.astype("float32"),
        lambda a: jax.lax.reduce_precision(a, 8, 20),
        lambda a: a.astype("bfloat16").T.astype("float32").T,
    ],
)
@pytest.mark.parametrize("gate", [jax.nn.silu, lambda h: 1 / h], ids=["silu", "divisor"])
def test_a_gate_stays_one_where_it_is_moved_or_rounded(gate, spelt):
    """As is a signal that was rounded: the cast makes it no activation's output."""
    w, x = array(4, 4), array(3, 4)

    def fn(x):
        return spelt(x) * spelt(gate(x @ w))

    relevance = in_numpy(lrp.explain(fn, SIGNAL))(x)
    np.testing.assert_allclose(relevance, fn(x).astype("float64"), rtol=1e-6)  # casts round


def test_a_learned_shift_beside_an_activation_is_a_layer():
    b, x = array(5), array(4, 5)

    def between(x):
        return jnp.square(jnp.tanh(x) + b)

    assert kinds(between, x) == ["activation", "affine", "activation"]
    h = jnp.tanh(x)
    np.testing.assert_allclose(
        in_numpy(lrp.explain(between, lrp.Epsilon(0.0)))(x), h * (h + b), rtol=1e-9
    )

    def gated(x):
        return x * jax.nn.sigmoid(x + b)

    assert kinds(gated, x) == ["affine", "activation", "product"]
    half = gated(x) / 2
    expected = half + half * x / (x + b)
    np.testing.assert_allclose(
        in_numpy(lrp.explain(gated, lrp.Epsilon(0.0)))(x), expected, rtol=1e-9
    )


def test_a_learned_scale_before_an_activation_is_a_layer():
    scale, x = array(5), array(4, 5)

    def fn(x):
        return jax.nn.gelu(x * scale)

    assert kinds(fn, x) == ["affine", "activation"]
    expected = jnp.where(x * scale > 0, fn(x), 0.0)
    relevance = in_numpy(lrp.explain(fn, lrp.RuleMap({"affine": lrp.ZPlus(epsilon=0.0)})))(x)
    np.testing.assert_allclose(relevance, expected, rtol=1e-9)


def test_a_learned_numerator_is_part_of_its_activation():
    w, top, x = array(5, 7), array(7), array(4, 5)

    def fn(x):
        return top / (1 + jnp.square(x @ w))

    assert kinds(fn, x) == ["dense", "activation"]
    expected = x * ((fn(x) / (x @ w)) @ w.T)
    np.testing.assert_allclose(in_numpy(lrp.explain(fn, lrp.Epsilon(0.0)))(x), expected, rtol=1e-9)


def fast_layer_norm(x):
    mean = x.mean(-1, keepdims=True)
    var = jnp.maximum((x * x).mean(-1, keepdims=True) - mean * mean, 0.0)
    return (x - mean) * lax.rsqrt(var + 1e-5)


def group_norm(x):
    grouped = x.reshape(x.shape[0], 4, -1)
    return layer_norm(grouped).reshape(x.shape)


NORMS = {
    "layer norm": layer_norm,
    "layer norm, one pass": fast_layer_norm,
    "layer norm by jnp.var": lambda x: (
        (x - x.mean(-1, keepdims=True)) / jnp.sqrt(jnp.var(x, -1, keepdims=True) + 1e-6)
    ),
    "RMS norm": lambda x: x * lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-6),
    "RMS norm, scale first": lambda x: (
        x * (jnp.arange(1.0, 9) * lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-6))
    ),
    "RMS norm by pow": lambda x: x * ((x * x).mean(-1, keepdims=True) + 1e-6) ** -0.5,
    "L2 norm": lambda x: x / jnp.linalg.norm(x, axis=-1, keepdims=True),
    "L2 norm, guarded": lambda x: x / jnp.maximum(jnp.sqrt((x * x).sum(-1, keepdims=True)), 1e-12),
    "L2 norm by einsum": lambda x: x / jnp.sqrt(jnp.einsum("bi,bi->b", x, x))[:, None],
    "group norm": group_norm,
    "batch norm of the batch": lambda x: layer_norm(x, 0),
}


@pytest.mark.filterwarnings("ignore::jaxlrp.TrainingModeWarning")
@pytest.mark.parametrize("name", NORMS)
def test_norms_detach_the_factor_that_divides(name):
    norm, w, scale, shift, v = NORMS[name], array(5, 8), array(8), array(8), array(8, 3)
    x = array(4, 5)

    def fn(x):
        return (norm(x @ w) * scale + shift) @ v

    plan = lrp.plan(fn, lrp.Epsilon(0.0))(x)
    shown = [layer for layer in plan.layers if layer.kind != "structural"]
    assert [layer.kind for layer in shown] == ["dense", "norm", "dense"]
    # By hand: the norm is linear with its factor held; find that factor from two linear probes.
    h = x @ w
    relevance = in_numpy(lrp.explain(fn, lrp.Epsilon(0.0)))(x, target=2)
    centred = "layer" in name or "group" in name or "batch" in name
    size = {"group norm": 2, "batch norm of the batch": 4}.get(name, 8)
    axes = 0 if "batch" in name else -1
    blocks = h.reshape(4, 4, 2) if name == "group norm" else h
    mean = blocks.mean(axes, keepdims=True) if centred else 0.0
    factor = norm(h).reshape(blocks.shape) / (blocks - mean)
    back = (scale * v[:, 2] * jnp.ones_like(h)).reshape(blocks.shape) * factor
    if centred:
        back = back - back.sum(axes, keepdims=True) / size
    expected = x * (back.reshape(h.shape) @ w.T)
    np.testing.assert_allclose(relevance, expected, rtol=1e-8, atol=1e-12)


def test_a_gate_that_crosses_weights_is_no_norm():
    """Squeeze and excite: a product whose factor is a reduction, but with weights between."""
    w1, w2, x = array(6, 2), array(2, 6), array(2, 4, 4, 6)

    def fn(x):
        gate = jax.nn.sigmoid(jax.nn.relu(x.mean((1, 2)) @ w1) @ w2)
        return (x * gate[:, None, None]).mean((1, 2))

    plan = lrp.plan(fn, lrp.Epsilon())(x)
    assert plan.count("norm") == 0
    (product,) = plan.select("product")
    assert "[0, 1]" in product.why


def test_the_size_of_a_layers_output_is_no_norm_of_its_input():
    """The statistic is a norm's, but of x W, and it divides x."""
    w, x = array(6, 6), array(2, 6)

    def fn(x):
        return x * lax.rsqrt(((x @ w) ** 2).mean(-1, keepdims=True) + 0.1)

    plan = lrp.plan(fn, lrp.Epsilon())(x)
    assert plan.count("norm") == 0
    assert plan.count("dense") == 1


SOFTMAXES = {
    "jax.nn": jax.nn.softmax,
    "by hand": lambda x: jnp.exp(x) / jnp.exp(x).sum(-1, keepdims=True),
    "one exp": lambda x: (lambda e: e / e.sum(-1, keepdims=True))(jnp.exp(x)),
    "live shift": lambda x: (lambda e: e / e.sum(-1, keepdims=True))(
        jnp.exp(x - x.max(-1, keepdims=True))
    ),
    "reciprocal": lambda x: (lambda e: e * (1 / e.sum(-1, keepdims=True)))(jnp.exp(x)),
    "off by one": lambda x: (lambda e: e / (1 + e.sum(-1, keepdims=True)))(jnp.exp(x)),
    "masked": lambda x: jax.nn.softmax(jnp.where(jnp.arange(7) < 5, x, -jnp.inf)),
    "over the first axis": lambda x: jax.nn.softmax(x, axis=0),
    "under vmap": jax.vmap(jax.nn.softmax),
    "with where=": lambda x: jax.nn.softmax(x, where=jnp.arange(7) < 5),
}


@pytest.mark.parametrize("name", SOFTMAXES)
def test_softmax_is_one_layer(name):
    softmax, w, v, x = SOFTMAXES[name], array(5, 7), array(7, 3), array(4, 5)

    def fn(x):
        return softmax(x @ w) @ v

    expected_kinds = ["dense", "softmax", "dense"]
    if name == "by hand":  # the same exponential twice: one value after jit, two here
        expected_kinds = kinds(fn, x)
        assert expected_kinds.count("softmax") <= 1
    assert kinds(fn, x) == expected_kinds


@pytest.mark.parametrize("function", [jax.nn.log_softmax, jax.nn.logsumexp, jax.nn.softmax])
def test_softmaxes_at_the_output(function):
    w, x = array(5, 7), array(4, 5)
    plan = lrp.plan(lambda x: function(x @ w, -1), lrp.Epsilon(0.0))(x)
    shown = [layer for layer in plan.layers if layer.kind != "structural"]
    assert [layer.kind for layer in shown] == ["dense", "softmax"]
    assert "explain the logits" in shown[1].why
    # Its rule is the Taylor expansion: gradient x input through the softmax.
    relevance = in_numpy(lrp.explain(lambda x: function(x @ w, -1), lrp.Epsilon(0.0)))(x)
    gradient = jax.grad(lambda x: function(x @ w, -1).sum())(x)
    np.testing.assert_allclose(relevance, x * gradient, rtol=1e-9, atol=1e-12)


LINEARS = {
    "weights on the left": (lambda x: (array(3, 5) @ x.T).T + array(3), ["dense"]),
    "einsum over two axes": (
        lambda x: jnp.einsum("bij,ijo->bo", x.reshape(4, 5, 1), array(5, 1, 3)) + array(3),
        ["dense"],
    ),
    "LoRA": (lambda x: x @ (array(5, 3) + array(5, 1) @ array(1, 3)), ["dense"]),
    "dequantised": (
        lambda x: x @ (jnp.asarray(RNG.integers(-5, 5, (5, 3)), jnp.int8) * array(3)),
        ["dense"],
    ),
    "spectral norm": (lambda x: x @ (lambda w: w / jnp.linalg.norm(w))(array(5, 3)), ["dense"]),
    "norm folded, bias between": (
        lambda x: (x @ array(5, 3) + array(3) - array(3)) / jnp.sqrt(array(3) ** 2 + 1) * array(3),
        ["dense"],
    ),
    "norm before": (lambda x: ((x - array(5)) * array(5) + array(5)) @ array(5, 3), ["dense"]),
    "a standalone norm": (lambda x: jax.nn.relu(jax.nn.relu(x) * array(5) + array(5)),
                          ["activation", "affine", "activation"]),
    "weight standardisation": (
        lambda x: x @ (lambda w: (w - w.mean(0)) / w.std(0))(array(5, 3)),
        ["dense"],
    ),
    "random weights, drawn inside": (
        lambda x: x @ jax.random.normal(jax.random.key(0), (5, 3)),
        ["dense"],
    ),
    "layer scale": (lambda x: x + (x @ array(5, 5) + array(5)) * array(5), ["dense", "add"]),
    "mean": (lambda x: x.mean(-1), ["avg_pool"]),
    "mean by a product": (lambda x: x.sum(-1) * 0.2, ["avg_pool"]),
    "sum": (lambda x: x.sum(-1), ["reduce"]),
    "maximum": (lambda x: x.max(-1), ["max_pool"]),
    "maximum of slices": (lambda x: jnp.maximum(x[:, :2], x[:, 2:4]), ["max_pool"]),
    "two active factors": (lambda x: (x @ array(5, 3)) @ (x @ array(5, 3)).T,
                           ["dense", "dense", "matmul"]),
}  # fmt: skip


@pytest.mark.parametrize("name", LINEARS)
def test_linear_layers(name):
    fn, expected = LINEARS[name]
    assert kinds(fn, array(4, 5)) == expected


def test_a_scale_that_an_activation_reads_too_is_a_layer_for_it():
    scale, w, v, x = array(5), array(5, 3), array(5, 2), array(4, 5)

    def fn(x):
        h = x * scale
        return jnp.concatenate([h @ w, jax.nn.relu(h) @ v], -1)

    assert kinds(fn, x) == ["affine", "dense", "activation", "dense"]
    relevance = in_numpy(lrp.explain(fn, lrp.Epsilon(0.0)))(x)
    np.testing.assert_allclose(relevance, x * jax.grad(lambda x: fn(x).sum())(x), rtol=1e-9)


def test_elements_in_an_order_of_their_own_end_a_layer():
    """What moves them depends on the input, so it is no part of the weights."""
    w, scale, x = array(5, 4), array(4), array(5)

    def fn(x):
        return (x @ w)[jnp.argsort(x[:4])] * scale

    assert kinds(fn, x) == ["dense", "affine"]
    order = jnp.argsort(x[:4])
    affine = in_numpy(lrp.explain(lambda h: h * scale, lrp.ZPlus()))((x @ w)[order])
    _, back = lrp.relevance_vjp(lambda x: x @ w, lrp.ZPlus(), x)
    (dense,) = back(jnp.zeros(4).at[order].set(affine))
    np.testing.assert_allclose(in_numpy(lrp.explain(fn, lrp.ZPlus()))(x), dense, rtol=1e-9)


def joined_and_scaled(x, w, v, scale):
    """Behind the scale stands a value that the dense layer does not make, too."""
    return jnp.concatenate([x @ w, jax.nn.relu(x[:, :3])], -1) * scale


def cut_and_half_scaled(x, w, v, scale):
    """The scale of a part belongs to the layer, and what follows does not."""
    a, b = jnp.split(x @ w, [3], -1)
    return jnp.concatenate([jax.nn.relu(a * scale[:3]) @ v, b], -1)


def updated_and_scaled(x, w, v, scale):
    """Another value is put into what the dense layer makes."""
    inside = jax.nn.relu(x[:, :2])
    return lax.dynamic_update_slice(x @ w, inside, (0, 1)) * scale[:4]


def replaced_and_scaled(x, w, v, scale):
    return (x @ w).at[:, :2].set(jax.nn.relu(x[:, :2])) * scale[:4]


@pytest.mark.parametrize(
    ("fn", "expected"),
    [
        (updated_and_scaled, ["activation", "dense", "affine"]),
        (replaced_and_scaled, ["dense", "activation", "affine"]),
        (joined_and_scaled, ["dense", "activation", "affine"]),
        (cut_and_half_scaled, ["dense", "activation", "dense"]),
    ],
)
def test_a_linear_layer_has_one_input_and_one_output(fn, expected):
    x, arrays = array(4, 5), (array(5, 4), array(3, 2), array(7))
    assert kinds(lambda x: fn(x, *arrays), x) == expected
    relevance = in_numpy(lrp.explain(lambda x: fn(x, *arrays), lrp.Epsilon(0.0)))(x)
    gradient = jax.grad(lambda x: fn(x, *arrays).sum())(x)
    np.testing.assert_allclose(relevance, x * gradient, rtol=1e-9)


def twice(x):
    return jnp.concatenate([x, x], -1)


@pytest.mark.parametrize(
    ("before", "axis", "n"),
    [(lambda x: x, 0, 5), (twice, 1, 10)],
    ids=["over another axis", "of an element twice"],
)
def test_a_scale_and_a_sum_that_are_no_dense_layer(before, axis, n):
    w, x = array(n), array(4, 5)

    def fn(x):
        return (before(x) * w).sum(axis)

    assert kinds(fn, x) == ["affine", "reduce"]
    # Under z+ nothing comes to a contribution below 0, whatever it is added to.
    rules = lrp.RuleMap({"affine": lrp.ZPlus(epsilon=0.0)})
    parts = jnp.maximum(before(x) * w, 0.0).reshape(4, -1, 5).sum(1)
    np.testing.assert_allclose(in_numpy(lrp.explain(fn, rules))(x), parts, rtol=1e-9)


def test_a_resize_has_no_weights_of_its_own():
    x, kernel = array(1, 4, 4, 2), array(1, 1, 2, 3)

    def fn(x):
        big = jax.image.resize(x, (1, 8, 8, 2), "bilinear")
        return lax.conv_general_dilated(
            big, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    assert kinds(fn, x) == ["conv"]
    relevance = in_numpy(lrp.explain(fn, lrp.composites.epsilon_plus()))(x)
    assert jnp.isfinite(relevance).all()


def test_parameters_among_the_explained_are_a_matmul():
    x, w = array(4, 5), array(5, 3)
    plan = lrp.plan(lambda x, w: x @ w, lrp.Epsilon(), argnums=(0, 1))(x, w)
    (layer,) = plan.select("matmul")
    assert "both operands depend" in layer.why
    rx, rw = in_numpy(lrp.explain(lambda x, w: x @ w, lrp.Epsilon(), argnums=(0, 1)))(x, w)
    np.testing.assert_allclose(rx.sum() + rw.sum(), (x @ w).sum(), rtol=1e-9)


def test_a_hard_sigmoids_shift_is_no_bias():
    w, x = array(5, 3), array(4, 5)
    plan = lrp.plan(lambda x: jax.nn.hard_sigmoid(x @ w), lrp.Epsilon())(x)
    dense, gate = (layer for layer in plan.layers if layer.kind != "structural")
    assert (dense.kind, gate.kind) == ("dense", "activation")
    assert dense.folded == 1
