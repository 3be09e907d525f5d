"""Contributions are sums of products: right in float32, and as many products as promised."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.interpreters.partial_eval import dce_jaxpr

import jaxlrp as lrp
from tests import reference
from tests.compare import assert_close, relative_l2

BIASES = ("absorb", "ignore", "distribute")


def products(fn, rules, x):
    """Contractions and convolutions in value and relevance; what nobody reads does not count."""
    jaxpr = jax.make_jaxpr(lrp.value_and_relevance(fn, rules))(x).jaxpr
    return _count(dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))[0])


def _count(jaxpr):
    total = 0
    for eqn in jaxpr.eqns:
        total += eqn.primitive.name in ("dot_general", "conv_general_dilated")
        for value in eqn.params.values():
            inner = getattr(value, "jaxpr", value)
            total += _count(inner) if hasattr(inner, "eqns") else 0
    return total


KERNEL = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
WINDOW = np.random.default_rng(1).normal(size=(3, 2, 2)).astype(np.float32)
SHIFT = np.array([0.5, -1.0, 0.25], np.float32)


def dense(x):
    return x @ KERNEL + SHIFT


def conv(x):
    return lax.conv_general_dilated(
        x, WINDOW, (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC")
    )


def batch_norm(x):
    return (dense(x) - 0.1) * np.array([2.0, -1.0, 0.5], np.float32)


def behind_a_view(x):
    """Scales that do not fold: each product behind them is needed for both of their signs."""
    return dense(x).reshape(-1) * np.arange(-2.0, 4.0, dtype=np.float32) + 1.0


def scaled_input(x):
    """Scales before the core go into its input, whatever moves lie between."""
    return (x.reshape(-1) * np.linspace(-1, 1, 8, dtype=np.float32)).reshape(2, 4) @ KERNEL + SHIFT


# layer: rule: products for any input, and for one that is known to be non-negative
FLOORS = {
    "epsilon": (lrp.Epsilon(), 2, 2),
    "epsilon, no bias": (lrp.Epsilon(bias="ignore"), 3, 3),
    "zplus": (lrp.ZPlus(), 5, 3),
    "alpha_beta": (lrp.AlphaBeta(), 9, 5),
    "alpha_beta, beta 0": (lrp.AlphaBeta(1.0, 0.0), 5, 3),
    "zbox": (lrp.ZBox(-9.0, 9.0), 5, 5),
    "gamma": (lrp.Gamma(), 4, 4),
    "gamma, no bias": (lrp.Gamma(bias="ignore"), 5, 5),
}


@pytest.mark.parametrize("rule", FLOORS)
@pytest.mark.parametrize("layer", [dense, conv, batch_norm])
def test_products(layer, rule):
    rule, signed, positive = FLOORS[rule]
    shape = (2, 5, 2) if layer is conv else (2, 4)
    has_bias = layer is not conv or getattr(rule, "bias", "") != "ignore"
    signed, positive = signed - (not has_bias), positive - (not has_bias)
    x = jnp.ones(shape, jnp.float32)
    assert products(layer, rule, x) == signed
    assert products(lambda x: layer(jax.nn.relu(x)), rule, x) == positive


def test_gamma_under_a_relu_is_one_product_more_than_the_gradient():
    x = jnp.ones((2, 4), jnp.float32)
    rules = {lrp.first("dense"): lrp.Gamma(), lrp.last("dense"): lrp.Epsilon(0.0)}

    def net(x):
        return jax.nn.relu(dense(jax.nn.relu(x))) @ np.ones((3, 1), np.float32)

    assert products(net, rules, x) == 3 + 2


@pytest.mark.parametrize(
    ("rule", "behind", "before"),
    [
        (lrp.ZPlus(), 9, 5),
        (lrp.AlphaBeta(), 9, 9),
        (lrp.ZBox(-9.0, 9.0), 9, 5),
        (lrp.Gamma(), 4, 4),
    ],
    ids=str,
)
def test_products_where_scales_do_not_fold(rule, behind, before):
    x = jnp.ones((2, 4), jnp.float32)
    assert products(behind_a_view, rule, x) == behind
    assert products(scaled_input, rule, x) == before


def test_small_beside_large():
    x = jnp.ones(3, jnp.float32)
    column = jnp.array([[1000.0], [5.0], [-1e-3]], jnp.float32)
    relevance = lrp.explain(lambda x: jnp.abs(x) @ column, lrp.AlphaBeta(2, 1))(x)
    np.testing.assert_allclose(relevance, [2000.0, 10.0, -1004.0], rtol=1e-5)
    plain = lrp.AlphaBeta(2, 1, epsilon=0.0)
    relevance = lrp.explain(lambda x: jnp.abs(x) @ column, plain)(x)
    np.testing.assert_allclose(relevance, [2000.0, 10.0, -1005.0], rtol=1e-5)
    signed = lrp.explain(lambda x: x @ column, plain)(x * jnp.array([1, -1, 1], jnp.float32))
    np.testing.assert_allclose(signed[0], 2 * 995.0, rtol=1e-5)
    np.testing.assert_allclose(signed[1:], [-995 * 5 / 5.001, -995 * 1e-3 / 5.001], rtol=1e-5)


def test_outputs_without_a_contribution_of_one_sign():
    """Such an output has p = 0 exactly: relevance of noise would be of any size."""
    x = jnp.array([1.0, 1e4, 3e-3], jnp.float32)
    column = jnp.array([[-1.0], [-0.1], [-7.0]], jnp.float32)
    for rule in (lrp.ZPlus(epsilon=0.0), lrp.ZPlus()):
        assert not np.any(lrp.explain(lambda x: x @ column, rule)(x))


def test_the_low_bound():
    """At the low bound all is (x - h)W-: nothing cancels."""
    rng = np.random.default_rng(5)
    weights, shift = rng.normal(size=(300, 2)), rng.normal(size=2)
    low, high = -1000.0, 1.0
    x, relevance = np.full((1, 300), low), rng.normal(size=(1, 2))
    x[0, 0] += 1e-3
    layer = reference.dense_layer(weights, shift)
    expected = reference.apply_rule(
        functools.partial(reference.zbox_rule, low=low, high=high),
        layer,
        x.astype(np.float32),
        relevance,
    )
    narrow = [a.astype(np.float32) for a in (weights, shift, x, relevance)]
    _, back = lrp.relevance_vjp(lambda x: x @ narrow[0] + narrow[1], lrp.ZBox(low, high), narrow[2])
    assert_close(back(jnp.asarray(narrow[3]))[0], expected, tolerance=1e-5)


RULES = {
    "epsilon": (lrp.Epsilon, reference.epsilon_rule),
    "zplus": (lrp.ZPlus, reference.zplus_rule),
    "alpha_beta": (lrp.AlphaBeta, reference.alpha_beta_rule),
    "gamma": (lrp.Gamma, reference.gamma_rule),
    "gamma 100": (
        functools.partial(lrp.Gamma, 100.0),
        functools.partial(reference.gamma_rule, gamma=100.0),
    ),
    "zbox": (
        functools.partial(lrp.ZBox, -1e4, 1e4),
        functools.partial(reference.zbox_rule, low=-1e4, high=1e4),
    ),
    "wsquare": (lrp.WSquare, reference.wsquare_rule),
    "flat": (lrp.Flat, reference.flat_rule),
}


@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("size", [0.0, 1.0, 1e4], ids="bias {:g}".format)
def test_single_precision(rule, bias, size):
    """Weights over six decades, inputs of both signs and of one, biases none, like, and large."""
    ours, theirs = RULES[rule]
    rng = np.random.default_rng(17)

    def single(a):
        return np.asarray(a, np.float32)

    weights = single(rng.normal(size=(40, 16)) * 10.0 ** rng.uniform(-4, 2, size=(40, 1)))
    weights[:, :2] = -abs(weights[:, :2])  # outputs with contributions of one sign
    weights[:, 2:4] = abs(weights[:, 2:4])
    shift = single(size * rng.normal(size=16))
    x, relevance = single(rng.normal(size=(3, 40))), single(rng.normal(size=(3, 16)))
    layer = reference.dense_layer(weights, shift)

    for given, known in ((x, lambda x: x), (abs(x), jax.nn.relu)):

        def fn(x, known=known):
            return known(x) @ weights + shift

        _, back = lrp.relevance_vjp(fn, ours(bias=bias), jnp.asarray(given))
        actual = back(jnp.asarray(relevance))[0]
        expected = reference.apply_rule(theirs, layer, given, relevance, bias=bias)
        condition = _condition(rule, layer, given, bias)
        assert_close(actual, expected, tolerance=1e-4 * condition, what=f"{rule}, {bias}")


def _condition(rule, layer, x, bias):
    """By how much the true denominators cancel; they do in Epsilon and Gamma alone."""
    if rule not in ("epsilon", "gamma", "gamma 100"):
        return 1.0
    gamma = {"epsilon": 0.0, "gamma": 0.25, "gamma 100": 100.0}[rule]
    worst = 1.0
    for row in np.asarray(x, np.float64):
        z = row[:, None] * layer.matrix
        extra = 0.0 if bias == "ignore" else layer.bias
        terms = np.vstack([z, np.broadcast_to(extra, z.shape[1])])
        up = layer(row) >= 0
        favoured = np.where(up, np.maximum(terms, 0), np.minimum(terms, 0))
        terms = terms + gamma * favoured
        worst = max(worst, float(np.max(np.abs(terms).sum(0) / np.abs(terms.sum(0)))))
    return worst


NETWORK = {
    "epsilon": lrp.Epsilon(),
    "zplus": lrp.ZPlus(),
    "alpha_beta": lrp.AlphaBeta(),
    "gamma": lrp.Gamma(),
    "gamma 100": lrp.Gamma(100.0),
    "zbox": lrp.ZBox(-3.0, 3.0),
    "wsquare": lrp.WSquare(),
    "flat": lrp.Flat(),
}


@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.parametrize("rule", NETWORK)
def test_a_tanh_network_in_single_precision(rule, bias):
    rules = dataclasses.replace(NETWORK[rule], bias=bias)
    rng = np.random.default_rng(3)
    first = rng.normal(size=(4, 1024)).astype(np.float32)
    shift = (0.1 * rng.normal(size=1024)).astype(np.float32)
    second = (rng.normal(size=(1024, 4)) / 32).astype(np.float32)
    x = rng.normal(size=(5, 4)).astype(np.float32)

    def relevance(dtype):
        a, b, c, given = (v.astype(dtype) for v in (first, shift, second, x))
        return lrp.explain(lambda x: jnp.tanh(x @ a + b) @ c, rules)(given, target=1)

    assert relative_l2(relevance(np.float32), relevance(np.float64)) < 1e-3


SUMS = {
    "two values": lambda a, b: a + b,
    "a difference": lambda a, b: a - b,
    "a difference by broadcasting": lambda a, b: a - b[:1],
}


@pytest.mark.parametrize("rule", ["epsilon", "zplus", "alpha_beta", "gamma", "wsquare", "flat"])
@pytest.mark.parametrize("name", SUMS)
def test_sums_of_several_values(name, rule):
    rng = np.random.default_rng(8)
    a, b, relevance = rng.normal(size=(3, 6))
    fn = SUMS[name]
    layer = reference.layer_of_affine(lambda x: fn(x[:6], x[6:]), (12,))
    ours, theirs = RULES[rule]
    rules = {"add": ours()} | ({"structural": lrp.Follow()} if "broad" in name else {})
    _, back = lrp.relevance_vjp(fn, rules, jnp.asarray(a), jnp.asarray(b))
    actual = np.concatenate(back(jnp.asarray(relevance)))
    assert_close(actual, theirs(layer, np.concatenate([a, b]), relevance), tolerance=1e-12)


POOLS = {
    "mean": (lambda x: x.mean(1), "avg_pool"),
    "sum": (lambda x: x.sum(1), "reduce"),
    "negative mean": (lambda x: x.sum(0) / -2.0, "avg_pool"),
    "running sum": (lambda x: jnp.cumsum(x, 1), "structural"),
    "window": (
        lambda x: lax.reduce_window(x, 0.0, lax.add, (1, 2), (1, 1), "SAME") / 2.0,
        "avg_pool",
    ),
}


@pytest.mark.parametrize("rule", ["epsilon", "zplus", "alpha_beta", "gamma", "wsquare", "flat"])
@pytest.mark.parametrize("name", POOLS)
def test_sums_of_one_value(name, rule):
    fn, kind = POOLS[name]
    rng = np.random.default_rng(8)
    x = rng.normal(size=(3, 4))
    relevance = rng.normal(size=fn(x).shape)
    layer = reference.layer_of_affine(fn, x.shape)
    ours, theirs = RULES[rule]
    _, back = lrp.relevance_vjp(fn, {kind: ours()}, jnp.asarray(x))
    actual = back(jnp.asarray(relevance))[0].reshape(-1)
    assert_close(actual, theirs(layer, x.reshape(-1), relevance.reshape(-1)), tolerance=1e-12)


@pytest.mark.parametrize("centred", [True, False])
def test_a_norm_without_its_shift(centred):
    """xW is not y - b: beside a large shift that would be rounding."""
    rng = np.random.default_rng(2)
    scale, x = rng.normal(size=(2, 8)).astype(np.float32)
    shift = np.float32(1e6) * rng.normal(size=8).astype(np.float32)
    relevance = rng.normal(size=8).astype(np.float32)

    def fn(x, dtype):
        h = x - x.mean() if centred else x
        return h / jnp.sqrt((h * h).mean() + 1e-5) * scale.astype(dtype) + shift.astype(dtype)

    def back(dtype):
        rules = {"norm": lrp.Detach(bias="ignore")}
        given = jnp.asarray(x.astype(dtype))
        _, pull = lrp.relevance_vjp(lambda x: fn(x, dtype), rules, given)
        return pull(jnp.asarray(relevance.astype(dtype)))[0]

    assert_close(back(np.float32), back(np.float64), tolerance=1e-4)
    np.testing.assert_allclose(back(np.float64).sum(), relevance.sum(), rtol=1e-5)
