"""Sums and products are flat lists, a multiply-and-sum is a contraction."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxlrp as lrp
from jaxlrp import composites
from tests.compare import assert_close

RNG = np.random.default_rng(7)
X = RNG.normal(size=(2, 4))
A, B, C, D = (RNG.normal(size=(4, 3)) for _ in range(4))
S = RNG.normal(size=3)
V = RNG.normal(size=(3, 2))
TIGHT = 1e-9


def relevance(fn, rules, x=X):
    return lrp.explain(fn, rules)(jnp.asarray(x))


def the_same(fns, rules, x=X):
    first, *others = (relevance(fn, rules, x) for fn in fns)
    assert bool(jnp.isfinite(first).all()) and float(jnp.abs(first).max()) > 0
    for other in others:
        assert_close(other, first, TIGHT)


# -- products ------------------------------------------------------------------------------------


def of_three(fn):
    """A product of three values, of which the second is positive."""
    return lambda x: fn(jnp.sinh(x @ A), jnp.exp(x @ B) + 0.3, x @ C) @ V


PRODUCTS = {
    "a b c": [
        lambda a, b, c: (a * b) * c,
        lambda a, b, c: a * (b * c),
        lambda a, b, c: (c * a) * b,
        lambda a, b, c: (a * jnp.array(b, copy=True)) * c,
        lambda a, b, c: lax.mul(b, lax.mul(a, c)),
    ],
    "a c / b": [
        lambda a, b, c: (a * c) / b,
        lambda a, b, c: a / (b / c),
        lambda a, b, c: c * (a / b),
        lambda a, b, c: a * (1 / b) * c,
    ],
    "a / b / c": [
        lambda a, b, c: (a / b) / (c**2 + 1),
        lambda a, b, c: a / (b * (c**2 + 1)),
        lambda a, b, c: (a / (c**2 + 1)) / b,
    ],
    "s a b c": [
        lambda a, b, c: ((a * b) * S) * c,
        lambda a, b, c: (a * S) * (b * c),
        lambda a, b, c: (a * 2) * (b * c) * (S / 2),
        lambda a, b, c: S * (a * b * c),
        lambda a, b, c: -(a * -S) * (b * c),
    ],
}
GATES = {"uniform": {}, "attn": composites.attn_lrp(), "cp": composites.cp_lrp()}
GATES["all"] = composites.lstm_lrp_all(1e-3)
GATES["proportional"] = {"product": lrp.Proportional()}
GATES["absolute"] = {"product": lrp.Proportional(absolute=True)}


@pytest.mark.parametrize("rules", GATES)
@pytest.mark.parametrize("name", PRODUCTS)
def test_products_are_flat(name, rules):
    if name.startswith("s") and rules in ("proportional", "absolute"):
        pytest.skip("a share in proportion to values depends on which factor is scaled")
    the_same([of_three(fn) for fn in PRODUCTS[name]], GATES[rules])


def test_each_of_three_factors_gets_a_third():
    fn = lambda x: (x[0] * x[1]) / (x[2] / x[3])  # noqa: E731
    x = jnp.array([2.0, 3.0, 4.0, -5.0])
    assert_close(relevance(fn, {}, x), jnp.full(4, -7.5 / 4))
    signal = lrp.explain(fn, {"product": lrp.SignalTakesAll()})(x)
    assert_close(signal, jnp.array([-2.5, -2.5, 0.0, -2.5]))


def test_a_factor_that_stands_twice_counts_once():
    fn = lambda x: x[0] * (x[0] * x[1])  # noqa: E731
    assert_close(relevance(fn, {}, jnp.array([2.0, 3.0])), jnp.array([6.0, 6.0]))


def test_proportional_shares_among_three():
    x = jnp.array([2.0, 3.0, 5.0])
    fn = lambda x: x[0] * (x[1] * x[2])  # noqa: E731
    found = lrp.explain(fn, {"product": lrp.Proportional(epsilon=0.0)})(x)
    assert_close(found, jnp.array([6.0, 9.0, 15.0]))
    over = lambda x: x[0] / (x[1] / x[2])  # noqa: E731
    found = lrp.explain(over, {"product": lrp.Proportional(epsilon=0.0)})(x)
    assert_close(found, 10 / 3 * jnp.array([2.0, 1 / 3, 5.0]) / (2 + 1 / 3 + 5))


def test_gates_are_found_one_test_after_the_other():
    def gated(x):
        gate = jax.nn.sigmoid(x @ A)
        hidden = jnp.tanh(x @ B)
        return gate * (hidden * (x @ C))

    (layer,) = lrp.plan(gated, composites.cp_lrp())(X).select("product")
    assert layer.gates == (0, 1)
    assert "2 of 3 factors are gates" in layer.why
    only = lambda x: jax.nn.sigmoid(x @ A) * jnp.tanh(x @ B) * jnp.tanh(x @ C)  # noqa: E731
    (layer,) = lrp.plan(only, composites.cp_lrp())(X).select("product")
    assert layer.gates == (0,)  # of the two that are left both are activations


def test_a_signal_that_is_not_there():
    fn = lambda x: (x @ A) * (x @ B)  # noqa: E731
    with pytest.raises(lrp.RuleError, match="2 factors"):
        relevance(fn, {"product": lrp.SignalTakesAll(signal=2)})


def test_a_value_with_two_readers_ends_a_product():
    def fn(x):
        inner = (x @ A) * (x @ B)
        return inner * (x @ C) + inner

    assert lrp.plan(fn, {})(X).count("product") == 2


# -- contractions --------------------------------------------------------------------------------

SCORES = [
    lambda q, k: q @ k.T,
    lambda q, k: (q[:, None] * k[None]).sum(-1),
    lambda q, k: (k[None] * q[:, None]).sum(-1),
    lambda q, k: jnp.einsum("id,jd->ij", q, k),
    lambda q, k: ((0.5 * q)[:, None] * (k * -2)[None]).sum(-1) * -1,
    lambda q, k: (q.T[:, :, None] * k.T[:, None]).sum(0),
    lambda q, k: jax.vmap(lambda one: jnp.sum(one * k, -1))(q),
    lambda q, k: jnp.mean(q[:, None] * k[None], -1) * 3,
]


def attention(scores):
    def fn(x):
        weights = jax.nn.softmax(scores(x @ A, x @ B) / 3**0.5)
        return (weights @ (x @ C)) @ V

    return fn


@pytest.mark.parametrize("rules", ["uniform", "attn", "cp", "all"])
def test_multiply_and_sum_is_a_contraction(rules):
    fns = [attention(scores) for scores in SCORES]
    the_same(fns, GATES[rules])
    assert all(lrp.plan(fn, GATES[rules])(X).count("matmul") == 2 for fn in fns)


@pytest.mark.parametrize("rules", ["uniform", "attn", "cp"])
def test_weights_times_values_in_any_spelling(rules):
    mixes = [
        lambda w, v: w @ v,
        lambda w, v: (w[:, :, None] * v[None]).sum(1),
        lambda w, v: jnp.sum(v.T[None] * w[:, None], -1),
    ]
    fns = [lambda x, m=m: m(jax.nn.softmax(x @ A @ A.T @ x.T), x @ C) for m in mixes]
    the_same(fns, GATES[rules])


def test_a_scalar_product():
    fns = [lambda x: jnp.vdot(x @ A, x @ B), lambda x: jnp.sum((x @ A) * (x @ B))]
    the_same(fns, composites.attn_lrp())


def test_squares_activations_and_three_factors_are_no_contraction():
    square = lambda h: h * h  # noqa: E731
    for fn in (
        lambda x: square(x @ A).sum(-1),
        lambda x: (x * jax.nn.sigmoid(x)).sum(-1),
        lambda x: ((x @ A) * (x @ B) * (x @ C)).sum(-1),
        lambda x: x / jnp.sqrt((x * x).sum(-1, keepdims=True)),
    ):
        assert lrp.plan(fn, {})(X).count("matmul") == 0
