"""Numbers that are written beside weights, inputs and outputs: where they cancel, there is none."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxlrp as lrp
from jaxlrp.planning.layers import group_of
from tests.numpy_jaxpr import in_numpy

DRAW = np.random.default_rng(0)
X = DRAW.normal(size=(2, 4))
P = {"w": DRAW.normal(size=(4, 4)), "v": DRAW.normal(size=(4, 3))}


def relu(x):
    return -jnp.minimum(-x, 0.0)


def halves(y):
    return jnp.concatenate([y[:, :2], y[:, 2:]], -1)


# The first of each is the plain spelling.
ALIKE = {
    "a product": [
        lambda u, p: u @ p["w"],
        lambda u, p: -(u @ -p["w"]),
        lambda u, p: -((-u) @ p["w"]),
        lambda u, p: (-u) @ -p["w"],
        lambda u, p: (2 * u) @ (p["w"] / 2),
        lambda u, p: (u @ (0.5 * p["w"])) * 2,
        lambda u, p: (2.0 * ((u @ (0.5 * p["w"])) * 2)) / 2.0,
        lambda u, p: ((u @ (0.5 * p["w"])) / 2.0) * 2 * 2,
        lambda u, p: ((u @ (0.25 * p["w"])) * 2) * 2 * 2 / 2,
        lambda u, p: jnp.concatenate(
            [(2 * (v * 2)) / 2 for v in jnp.split(u @ (0.5 * p["w"]), 2, -1)], -1
        ),
        lambda u, p: (u @ (-0.5 * p["w"])) * -2,
        lambda u, p: (u @ (p["w"] * 4)) / 4,
        lambda u, p: -(u @ (-p["w"].T).T),
        lambda u, p: 0 - u @ (0 - p["w"]),
        lambda u, p: -jnp.einsum("bi,io->bo", -u, p["w"]),
        lambda u, p: -(((-p["w"]).T * u[:, None, :]).sum(-1)),
        lambda u, p: jnp.concatenate([-(u @ -p["w"][:, :2]), -(u @ -p["w"][:, 2:])], -1),
        lambda u, p: jnp.negative(-jnp.negative(u @ -p["w"])),
        lambda u, p: -(u @ -p["w"])[:, ::-1][:, ::-1],
        lambda u, p: lax.map(lambda v: -(v @ -p["w"]), u),
        lambda u, p: (lambda w: lax.map(lambda v: -(v @ w), u))(-p["w"]),
        lambda u, p: (lambda w: lax.map(lambda v: 2 * (v @ w), u))(p["w"] / 2),
        lambda u, p: lax.scan(lambda n, v: (n, (v @ n) * -4), p["w"] / -4, u)[1],
        lambda u, p: (lambda w: lax.cond(p["w"][0, 0] < 9, lambda v: -(v @ w), jnp.tanh, u))(
            -p["w"]
        ),
    ],
    "a product and a learned scale": [
        lambda u, p: u @ p["w"] * p["v"][:, 0],
        lambda u, p: 2.0 * (u @ p["w"]) * p["v"][:, 0] / 2.0,
        lambda u, p: (-4.0 * (u @ p["w"]) * p["v"][:, 0]) / -4.0,
        lambda u, p: 2.0 * ((u @ (0.5 * p["w"])) * 2.0 * p["v"][:, 0]) / 2.0,
        lambda u, p: 2.0 * ((u @ (0.5 * p["w"])) * p["v"][:, 0]),
    ],
    "numbers within that cancel, before one of a function": [
        lambda u, p: jnp.tanh(2 * (u @ p["w"])),
        lambda u, p: jnp.tanh(2 * ((2 * u) @ (0.5 * p["w"]))),
        lambda u, p: jnp.tanh(2 * ((u / 4) @ (4 * p["w"]))),
        lambda u, p: jnp.tanh(2 * ((-2 * u) @ (-0.5 * p["w"]))),
        lambda u, p: 2 * jax.nn.sigmoid(4 * ((4 * u) @ (0.25 * p["w"]))) - 1,
    ],
    "a factor of another value": [
        lambda u, p: jnp.tanh(u) * (u @ p["w"]),
        lambda u, p: jnp.tanh(u) * -((-u) @ p["w"]),
        lambda u, p: jnp.tanh(u) * -(((-u)[:, :, None] * p["w"]).sum(1)),
        lambda u, p: -((u[:, None] * -p["w"].T).sum(-1)) * jnp.tanh(u),
        lambda u, p: jnp.tanh(u) * -jax.vmap(lambda w: (-u * w).sum(-1))(p["w"].T).T,
    ],
    "behind a relu": [
        lambda u, p: jax.nn.relu(u) @ p["w"],
        lambda u, p: relu(u) @ p["w"],
        lambda u, p: -((-jax.nn.relu(u)) @ p["w"]),
        lambda u, p: -(jax.nn.relu(u) @ -p["w"]),
        lambda u, p: (2 * jax.nn.relu(u)) @ (p["w"] / 2),
        lambda u, p: -((-2 * jax.nn.relu(u)) @ (p["w"] / 2)),
    ],
    "behind a sum of branches": [
        lambda u, p: (u + jax.nn.relu(u)) @ p["w"],
        lambda u, p: -((-(u + jax.nn.relu(u))) @ p["w"]),
        lambda u, p: (2 * (u + jax.nn.relu(u))) @ (0.5 * p["w"]),
        lambda u, p: (-(u + relu(u))) @ -p["w"],
    ],
    "behind a tanh": [
        lambda u, p: (2 * jnp.tanh(u / 2)) @ p["w"],
        lambda u, p: lax.optimization_barrier(2 * jnp.tanh(u / 2)) @ p["w"],
        lambda u, p: jnp.tanh(u / 2) @ (2 * p["w"]),
        lambda u, p: lax.optimization_barrier(jnp.tanh(u / 2) * 2) @ (p["w"] * 1.0),
    ],
    "a mean before": [
        lambda u, p: (u[:, None] * jnp.ones((2, 3, 1))).mean(1) @ p["w"],
        lambda u, p: ((u[:, None] * jnp.ones((2, 3, 1))).mean(1) @ (0.5 * p["w"])) * 2,
        lambda u, p: ((u[:, None] * jnp.ones((2, 3, 1))).sum(1) / 3 @ (4 * p["w"])) / 4,
        lambda u, p: ((u[:, None] * jnp.ones((2, 3, 1))).sum(1) / 3 @ (-p["w"])) * -1,
        lambda u, p: (3 * ((u[:, None] * jnp.ones((2, 3, 1))).mean(1) @ p["w"])) / 3,
        lambda u, p: (3 * ((u[:, None] * jnp.ones((2, 3, 1))).mean(1) @ p["w"])).T.T / 3,
    ],
    "a number within": [
        lambda u, p: (0.5 * u) @ p["w"],
        lambda u, p: (2 * ((0.5 * u) @ p["w"])) / 2,
        lambda u, p: (2 * ((0.5 * u) @ p["w"]))[:, ::-1][:, ::-1] / 2,
        lambda u, p: (u @ (0.5 * p["w"])) / 0.5 * 0.5,
        lambda u, p: jnp.concatenate(
            [v / 2 for v in jnp.split(2 * (u @ (0.5 * p["w"])), [1], -1)], -1
        ),
    ],
    "a number within, and a bias after it": [
        lambda u, p: (0.5 * u) @ p["w"] + p["w"][0],
        lambda u, p: (2 * ((0.5 * u) @ p["w"] + p["w"][0])) / 2,
        lambda u, p: (2 * ((0.5 * u) @ p["w"]) + 2 * p["w"][0]) / 2,
    ],
    "before a sigmoid": [
        lambda u, p: jax.nn.sigmoid(jax.nn.relu(u) @ p["w"]),
        lambda u, p: 1 / (1 + jnp.exp(-(relu(u) @ p["w"]))),
        lambda u, p: jax.nn.sigmoid(-(jax.nn.relu(u) @ -p["w"])),
        lambda u, p: 1 / (1 + jnp.exp(-jnp.negative(relu(u) @ -p["w"]))),
        lambda u, p: 0.5 * (jnp.tanh(0.5 * (relu(u) @ p["w"])) + 1),
        lambda u, p: 0.5 * (jnp.tanh(0.5 * ((relu(u) @ (0.5 * p["w"])) * 2)) + 1),
    ],
    "a sign within parts that are joined again": [
        lambda u, p: jax.nn.relu(-2 * (u @ p["w"] + p["w"][0] - 1)),
        lambda u, p: jax.nn.relu(-2 * (p["w"][0] - halves(-(u @ p["w"])) - 1)),
        lambda u, p: jax.nn.relu(-2 * (p["w"][0] + halves(u @ p["w"]) - 1)),
    ],
    "before a hard sigmoid": [
        lambda u, p: jnp.clip(0.2 * (u @ p["w"]) + 0.5, 0, 1),
        lambda u, p: jnp.clip(0.2 * ((u @ (0.2 * p["w"])) * 5) + 0.5, 0, 1),
    ],
    "before a gelu": [
        lambda u, p: jax.nn.gelu(u @ p["w"], approximate=False),
        lambda u, p: jax.nn.gelu(-(u @ -p["w"]), approximate=False),
        lambda u, p: jax.nn.gelu(-((-u) @ p["w"]), approximate=False),
        lambda u, p: jax.nn.gelu((u @ (0.5 * p["w"])) * 2, approximate=False),
    ],
    "signs of two layers": [
        lambda u, p: (u @ p["w"] + p["w"][0]) @ p["w"],
        lambda u, p: (-(u @ -p["w"]) + p["w"][0]) @ p["w"],
        lambda u, p: -(-(u @ p["w"] + p["w"][0]) @ p["w"]),
        lambda u, p: -(-(-(u @ -p["w"]) + p["w"][0]) @ p["w"]),
        lambda u, p: -(-(-((-u) @ p["w"]) + p["w"][0]) @ p["w"]),
    ],
    "a relu before it and a gelu after it": [
        lambda u, p: jax.nn.gelu(jax.nn.relu(u) @ p["w"], approximate=False),
        lambda u, p: jax.nn.gelu((relu(u) @ (0.5 * p["w"])) * 2, approximate=False),
    ],
    "an activation's last numbers and a bias": [
        lambda u, p: (jax.nn.sigmoid(u) + p["w"][0]) @ p["w"],
        lambda u, p: (0.5 * (jnp.tanh(0.5 * u) + 1) + p["w"][0]) @ p["w"],
        lambda u, p: (1 / (1 + jnp.exp(-u)) + p["w"][0]) @ p["w"],
    ],
}
RULES = {
    "zplus": lrp.ZPlus(),
    "epsilon": lrp.Epsilon(0.1),
    "gamma": lrp.Gamma(0.25, bias="distribute"),
    "excitation": lrp.composites.excitation_backprop(),
    "guided": lrp.composites.guided_backprop(),
    "alpha beta": lrp.AlphaBeta(2.0, 1.0),
}


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("name", ALIKE)
@pytest.mark.parametrize("inside", [False, True])
def test_numbers_that_cancel_are_not_there(name, rules, inside):
    def relevance(fn):
        def network(x, p):
            return fn(jnp.tanh(x @ p["w"]), p) @ p["v"] if inside else fn(x, p)

        return in_numpy(lrp.explain(network, RULES[rules]))(X, P)

    plain, *others = ALIKE[name]
    expected = relevance(plain)
    for number, other in enumerate(others, 1):
        np.testing.assert_allclose(
            relevance(other), expected, rtol=1e-8, atol=1e-10, err_msg=f"spelling {number}"
        )


@pytest.mark.parametrize(
    "fn",
    [
        lambda z: jnp.concatenate([-z[:, :2], -z[:, 2:]], -1),
        lambda z: jax.nn.softplus(-z),
        lambda z: 1 / (1 + jnp.exp(-z)),
    ],
)
def test_a_sign_that_cancels_nothing_is_left_to_its_reader(fn):
    def network(x, p):
        return fn(x @ p["w"])

    shares = np.maximum(X[:, :, None] * P["w"], 0)
    expected = (shares / shares.sum(1, keepdims=True) * fn(X @ P["w"])[:, None]).sum(-1)
    actual = in_numpy(lrp.explain(network, lrp.ZPlus()))(X, P)
    np.testing.assert_allclose(actual, expected, rtol=1e-4)


MEANS = {
    "mean": [
        lambda x: x.mean(-1, keepdims=True),
        lambda x: x @ jnp.full((4, 1), 0.25),
        lambda x: (0.25 * x) @ jnp.ones((4, 1)),
        lambda x: (x @ jnp.ones((4, 1))) / 4,
        lambda x: jnp.einsum("bi,i->b", x, jnp.full(4, 0.25))[:, None],
        lambda x: jnp.einsum("i,bi->b", jnp.full(4, 0.25), x)[:, None],
        lambda x: (2 * x.mean(-1, keepdims=True)) / 2,
        lambda x: ((2 * x).sum(-1, keepdims=True) / 4) / 2,
    ],
    "spread": [
        lambda x: jnp.broadcast_to(x.mean(-1, keepdims=True), x.shape),
        lambda x: x @ jnp.full((4, 4), 0.25),
        lambda x: (jnp.full((4, 4), 0.25) @ x.T).T,
    ],
    "softmax": [
        lambda x: jax.nn.softmax(x),
        lambda x: jnp.exp(x) / (jnp.exp(x) @ jnp.ones((4, 1))),
        lambda x: jnp.exp(x) / (jnp.exp(x) @ jnp.ones((4, 4))),
        lambda x: jnp.exp(x - jnp.log(jnp.exp(x) @ jnp.ones((4, 1)))),
    ],
    "rms norm": [
        lambda x: x * lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-3),
        lambda x: x / jnp.sqrt((x * x) @ jnp.full((4, 1), 0.25) + 1e-3),
        lambda x: x * lax.rsqrt((x * x) @ jnp.full((4, 4), 0.25) + 1e-3),
    ],
    "layer norm": [
        lambda x: (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-3),
        lambda x: (
            (x - x @ jnp.full((4, 1), 0.25))
            / jnp.sqrt((x - x @ jnp.full((4, 1), 0.25)) ** 2 @ jnp.full((4, 1), 0.25) + 1e-3)
        ),
    ],
}


@pytest.mark.parametrize("rules", [{"avg_pool": lrp.Epsilon(0.1)}, lrp.composites.cp_lrp()])
@pytest.mark.parametrize("name", MEANS)
def test_a_product_with_one_number_everywhere_is_a_sum(name, rules):
    def relevance(fn):
        def network(x, p):
            y = fn(x @ p["w"])
            return y @ p["v"][: y.shape[-1]]

        return in_numpy(lrp.explain(network, rules))(X, P)

    plain, *others = MEANS[name]
    expected = relevance(plain)
    for number, other in enumerate(others, 1):
        np.testing.assert_allclose(
            relevance(other), expected, rtol=1e-8, atol=1e-10, err_msg=f"spelling {number}"
        )


@pytest.mark.parametrize("rule", [lrp.Epsilon(0.05, relative=True), lrp.Epsilon(0.1)], ids=str)
def test_numbers_behind_a_layer_that_cancel_each_other(rule):
    """They are no part of it, and neither is the slice before them."""
    kernel, x = DRAW.normal(size=(2, 2, 3, 4)), DRAW.normal(size=(2, 5, 6, 3))

    def conv(x):
        return lax.conv_general_dilated(
            x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )[:, 1:]

    expected = in_numpy(lrp.explain(conv, rule))(x)
    for fn in (lambda x: (2.0 * conv(x)) / 2.0, lambda x: (conv(x) / 4.0) * 4.0):
        np.testing.assert_allclose(
            in_numpy(lrp.explain(fn, rule))(x), expected, rtol=1e-9, atol=1e-11
        )


def test_a_further_scale_is_not_the_means():
    """By hand, with a stabiliser in the mean alone: a number behind it is its reader's."""
    x = np.array([1.0, 2.0, 3.0, 6.0])
    rules = {"avg_pool": lrp.Epsilon(0.1)}
    for fn in (lambda x: x.sum() / 4 / 3, lambda x: x.mean() / 3, lambda x: (x.sum() * 0.25) / 3):
        found = in_numpy(lrp.explain(fn, rules))(x)
        np.testing.assert_allclose(found, (x / 4) * (1 / (3 + 0.1)) * (3 / 3), rtol=1e-6)


@pytest.mark.parametrize("padding", ["VALID", "SAME", ((1, 0), (0, 2))])
@pytest.mark.parametrize("layout", [("NHWC", "HWIO", "NHWC"), ("NCHW", "HWIO", "NHWC")])
@pytest.mark.parametrize("dilation", [1, 2])
def test_a_convolution_with_one_number_everywhere_pools(padding, layout, dilation):
    x = DRAW.normal(size=(2, 5, 6, 3))
    x = x if layout[0] == "NHWC" else np.transpose(x, (0, 3, 1, 2))

    def conv(x):
        return lax.conv_general_dilated(
            x,
            jnp.full((2, 3, 1, 3), 1 / 6, x.dtype),
            (2, 1),
            padding,
            rhs_dilation=(dilation, dilation),
            dimension_numbers=layout,
            feature_group_count=3,
        )

    def pool(x):
        x = x if layout[0] == "NHWC" else x.transpose(0, 2, 3, 1)
        pads = padding if isinstance(padding, str) else ((0, 0), *padding, (0, 0))
        window, strides = (1, 2, 3, 1), (1, 2, 1, 1)
        wide = (1, dilation, dilation, 1)
        return lax.reduce_window(x, 0.0, lax.add, window, strides, pads, None, wide) / 6

    np.testing.assert_allclose(conv(x), pool(x), atol=1e-12)
    rules = {"avg_pool": lrp.Epsilon(0.1)}
    one, other = in_numpy(lrp.explain(conv, rules))(x), in_numpy(lrp.explain(pool, rules))(x)
    np.testing.assert_allclose(one, other, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(
    "kernel",
    [
        lambda: jnp.array([[0.25, 0.25], [0.25, 0.5]])[:, :, None, None] * jnp.ones((1, 1, 1, 3)),
        lambda: jnp.full((2, 2, 1, 6), 0.25),  # two outputs for each channel
    ],
)
def test_other_fixed_convolutions_are_no_pools(kernel):
    def fn(x):
        return lax.conv_general_dilated(
            x,
            kernel().astype(x.dtype),
            (1, 1),
            "VALID",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=3,
        )

    x = DRAW.normal(size=(2, 4, 4, 3))
    kinds = [y.kind for y in lrp.plan(fn, {})(x).layers]
    assert "avg_pool" not in kinds


B, S = DRAW.normal(size=4), DRAW.normal(size=4)
AFFINE = [
    lambda x, b, s: (x + b) * s,
    lambda x, b, s: jnp.concatenate([x[:, :1] + b[:1], x[:, 1:] + b[1:]], -1) * s,
    lambda x, b, s: jnp.concatenate([(x[:, :1] + b[:1]) * s[:1], (x[:, 1:] + b[1:]) * s[1:]], -1),
    lambda x, b, s: ((x + b)[:, ::-1] * s[::-1])[:, ::-1],
    lambda x, b, s: ((x[:, ::-1] + b[::-1]) * s[::-1])[:, ::-1],
    lambda x, b, s: (
        jnp.concatenate([y + c for y, c in zip(jnp.split(x, 2, -1), jnp.split(b, 2))], -1) * s
    ),
]


@pytest.mark.parametrize("rule", [lrp.WSquare(), lrp.ZPlus(), lrp.Flat(), lrp.Epsilon(0.1)])
def test_scales_and_shifts_alone_are_a_region_too(rule):
    expected = in_numpy(lrp.explain(AFFINE[0], rule))(X, B, S)
    for number, other in enumerate(AFFINE[1:], 1):
        actual = in_numpy(lrp.explain(other, rule))(X, B, S)
        np.testing.assert_allclose(actual, expected, rtol=1e-8, err_msg=f"spelling {number}")


RELUS = {
    "the negative of a minimum": (lambda x: -jnp.minimum(-x, 0.0), True),
    "half of a sum": (lambda x: (x + jnp.abs(x)) / 2, True),
    "by the test": (lambda x: x * (x > 0), True),
    "by the sign": (lambda x: x * (1 + jnp.sign(x)) / 2, True),
    "twice a half": (lambda x: jnp.maximum(0.5 * x, 0.0) * 2, True),
    "capped": (lambda x: jnp.minimum(jnp.maximum(x, 0.0), 6.0), False),
    "beyond one": (lambda x: jnp.where(x > 1.0, x, 0.0), False),
    "squared": (lambda x: x * jax.nn.relu(x), False),
    "leaky": (lambda x: jnp.where(x > 0, x, 0.01 * x), False),
    "the size": (lambda x: x * jnp.sign(x), False),
}


@pytest.mark.parametrize("name", RELUS)
def test_a_relu_is_known_by_its_one_corner(name):
    fn, is_relu = RELUS[name]
    plan = lrp.plan(lambda x: fn(x @ P["w"]) @ P["v"], {})(X)
    groups = [group_of(y) for y in plan.layers if y.kind == "activation"]
    assert [g.particulars.is_relu for g in groups] == [is_relu] * len(groups)
    if is_relu:
        assert [g.particulars.hard_relu for g in groups] == [True]


def exp_gate(z):
    return jnp.exp(z) / (jnp.exp(z) + 1)  # that it lies in [0, 1] is not proven


TRUE = np.array(True)
GATED = {
    "as it is": lambda x, z: x * exp_gate(z),
    "moved": lambda x, z: x * exp_gate(z[::-1])[::-1],
    "made in a branch": lambda x, z: x * lax.cond(TRUE, exp_gate, exp_gate, z),
    "used in a branch": lambda x, z: lax.cond(TRUE, lambda x, g: x * g, jnp.add, x, exp_gate(z)),
    "made in a loop": lambda x, z: x * lax.map(exp_gate, z),
    "used in a loop": lambda x, z: lax.map(lambda a: a[0] * a[1], (x, exp_gate(z))),
}


@pytest.mark.parametrize("name", GATED)
def test_an_activations_output_is_a_gate_wherever_it_was_made(name):
    def relevance(fn):
        return in_numpy(
            lrp.explain(lambda x, p: fn(x @ p["w"], x @ p["v"][:, :1] * jnp.ones(4)), CP)
        )(X, P)

    np.testing.assert_allclose(relevance(GATED[name]), relevance(GATED["as it is"]), rtol=1e-8)


CP = lrp.composites.cp_lrp()
SMALL = {
    "a mean of one": [
        lambda x, p: (x @ p["v"][:, :1]).mean(-1),
        lambda x, p: (x @ p["v"][:, :1]).sum(-1),
        lambda x, p: (x @ p["v"][:, :1])[:, 0],
        lambda x, p: (x @ p["v"][:, :1]) @ jnp.ones(1),
        lambda x, p: (x @ p["v"][:, :1])[:, 0] * 1.0,
    ],
    "a bias among terms": [
        lambda x, p: jnp.sin(x) + (x @ p["w"] + p["w"][0]),
        lambda x, p: jnp.sin(x) + ((x[..., None] * p["w"]).sum(-2) + p["w"][0]),
        lambda x, p: (jnp.sin(x) + p["w"][0]) + (p["w"].T * x[..., None, :]).sum(-1),
    ],
    "a product that is summed": [
        lambda x, p: ((x @ p["w"]) * jax.nn.silu(x @ p["w"][::-1])).mean(-1),
        lambda x, p: ((x @ p["w"]) * jax.nn.silu(x @ p["w"][::-1])).reshape(2, 2, 2).mean((1, 2)),
        lambda x, p: jnp.einsum("bi,bi->b", x @ p["w"], jax.nn.silu(x @ p["w"][::-1])) / 4,
    ],
    "a gate of all that is summed": [
        lambda x, p: ((x @ p["w"]).reshape(2, 2, 2) * jax.nn.sigmoid(x[:, None, :2])).mean(1),
        lambda x, p: (
            ((x @ p["w"]).reshape(2, 2, 1, 2) * jax.nn.sigmoid(x[:, None, None, :2]))
            .reshape(2, 2, 2)
            .mean(1)
        ),
    ],
}


@pytest.mark.parametrize("rules", ["epsilon_plus", "cp_lrp", "deep_taylor"])
@pytest.mark.parametrize("name", SMALL)
def test_sums_that_are_written_otherwise(name, rules):
    plain, *others = SMALL[name]
    expected = in_numpy(lrp.explain(plain, getattr(lrp.composites, rules)()))(X, P)
    for number, other in enumerate(others, 1):
        np.testing.assert_allclose(plain(X, P), other(X, P), atol=1e-12)
        actual = in_numpy(lrp.explain(other, getattr(lrp.composites, rules)()))(X, P)
        np.testing.assert_allclose(
            actual, expected, rtol=1e-8, atol=1e-10, err_msg=f"spelling {number}"
        )


DIVIDED = [
    lambda u, p: u @ p["w"],
    lambda u, p: (u @ (p["w"] / 2)) * 2,
    lambda u, p: (u @ (p["w"] / -4)) * -4,
    lambda u, p: (u @ (p["w"] / (0.5 * p["v"][0, 0]) * p["v"][0, 0])) / 2,
]
BELOW_ZERO = [
    lambda u, p: (u @ p["w"]) * jnp.maximum(-p["v"][:, 0], 1.0),
    lambda u, p: -((u @ p["w"]) * jnp.minimum(p["v"][:, 0], -1.0)),
    lambda u, p: -(u @ p["w"]) * jnp.minimum(p["v"][:, 0], -1.0),
]


@pytest.mark.parametrize("rule", [lrp.Epsilon(0.1), lrp.ZPlus()])
@pytest.mark.parametrize("spellings", [DIVIDED, BELOW_ZERO])
def test_a_divisor_beside_the_weights_and_a_factor_below_zero(spellings, rule):
    def relevance(fn):
        return in_numpy(lrp.explain(lambda x, p: fn(jnp.tanh(x @ p["w"]), p) @ p["v"], rule))(X, P)

    plain, *others = spellings
    for number, other in enumerate(others, 1):
        np.testing.assert_allclose(
            relevance(other), relevance(plain), rtol=1e-8, err_msg=f"spelling {number}"
        )


def test_weights_that_are_divided_by_a_written_zero():
    plan = lrp.plan(lambda x, p: (x @ (p["w"] / 0.0)) * 2, lrp.Epsilon(0.1))(X, P)
    assert plan.count("dense") == 1
