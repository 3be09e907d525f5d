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
from tests.numpy_jaxpr import in_numpy

RNG = np.random.default_rng(7)
X = RNG.normal(size=(2, 4))
A, B, C, D = (RNG.normal(size=(4, 3)) for _ in range(4))
S = RNG.normal(size=3)
V = RNG.normal(size=(3, 2))
W = RNG.normal(size=(3, 3))
TIGHT = 1e-9


def relevance(fn, rules, x=X):
    return in_numpy(lrp.explain(fn, rules))(jnp.asarray(x))


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
    signal = in_numpy(lrp.explain(fn, {"product": lrp.SignalTakesAll()}))(x)
    assert_close(signal, jnp.array([-2.5, -2.5, 0.0, -2.5]))


def test_a_factor_that_stands_twice_counts_once():
    fn = lambda x: x[0] * (x[0] * x[1])  # noqa: E731
    assert_close(relevance(fn, {}, jnp.array([2.0, 3.0])), jnp.array([6.0, 6.0]))


def test_proportional_shares_among_three():
    x = jnp.array([2.0, 3.0, 5.0])
    fn = lambda x: x[0] * (x[1] * x[2])  # noqa: E731
    found = in_numpy(lrp.explain(fn, {"product": lrp.Proportional(epsilon=0.0)}))(x)
    assert_close(found, jnp.array([6.0, 9.0, 15.0]))
    over = lambda x: x[0] / (x[1] / x[2])  # noqa: E731
    found = in_numpy(lrp.explain(over, {"product": lrp.Proportional(epsilon=0.0)}))(x)
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


def test_signs_within_a_product_come_after_it():
    """A sign between a gate or an activation and the product belongs to neither."""
    spellings = [
        lambda u, g: u * g,
        lambda u, g: (-u) * (-g),
        lambda u, g: -(u * (-g)),
        lambda u, g: -((-u) * g),
        lambda u, g: -(-u * g),
    ]
    gates = [jax.nn.sigmoid, lambda z: 0.5 * (jnp.tanh(0.5 * z) + 1), jnp.exp]
    for rules in ({}, composites.mamba_lrp(), composites.excitation_backprop()):
        for gate in gates:
            last = spellings if gate is not jnp.exp else spellings[:-1]
            fns = [lambda x, f=f, gate=gate: f(jax.nn.gelu(x @ A), gate(x @ B)) @ V for f in last]
            the_same(fns, rules)

    def scaled(x, a):
        return (x @ a) * jnp.tanh(x @ B) @ V

    def turned(x, a):  # the first sign is that of the weights
        return -(x @ -a) * jnp.tanh(x @ B) @ V

    rules = composites.excitation_backprop()
    assert_close(*(in_numpy(lrp.explain(f, rules))(X, A) for f in (scaled, turned)), TIGHT)


SIGNS_OF_SUMS = [
    (lambda a, c, s, z: (a + c) * s, lambda a, c, s, z: -(-a - c) * s),
    (lambda a, c, s, z: (a + c) * s, lambda a, c, s, z: -((-a - c) * s)),
    (lambda a, c, s, z: (z + S) * s, lambda a, c, s, z: -(-z - S) * s),
    (lambda a, c, s, z: (z + S) * s, lambda a, c, s, z: -((-z - S) * s)),
    (lambda a, c, s, z: (z + S + a) * s, lambda a, c, s, z: s * -(-S - z - a)),
    (lambda a, c, s, z: (z + S + a) * s, lambda a, c, s, z: -(s * (-S - z - a))),
    (lambda a, c, s, z: jax.nn.relu(z) * s, lambda a, c, s, z: -(jnp.minimum(-z, 0) * s)),
    (lambda a, c, s, z: (a - c) * s, lambda a, c, s, z: s * (a + (-c))),
]


@pytest.mark.parametrize("pair", range(len(SIGNS_OF_SUMS)))
@pytest.mark.parametrize(
    "rules",
    [
        {},
        lrp.ZPlus(),
        composites.excitation_backprop(),
        {lrp.kind("add"): lrp.ZPlus(), lrp.kind("dense"): lrp.AlphaBeta(2.0, 1.0)},
    ],
    ids=["default", "plus", "excitation", "signs"],
)
def test_signs_within_a_factor_cancel_those_around_it(pair, rules):
    def network(f):
        return lambda x: f(jnp.tanh(x @ A), jax.nn.gelu(x @ B), jax.nn.sigmoid(x @ C), x @ D) @ V

    the_same([network(f) for f in SIGNS_OF_SUMS[pair]], rules)


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
        lambda x: ((x @ A) * jax.nn.sigmoid(x.sum(-1, keepdims=True))).mean(-1),  # a gate
    ):
        assert lrp.plan(fn, {})(X).count("matmul") == 0


# -- sums ----------------------------------------------------------------------------------------


def of_terms(fn):
    """A sum of three values of either sign, read by a ReLU and a dense layer."""
    return lambda x: jax.nn.relu(fn(jnp.tanh(x @ A), jax.nn.silu(x @ B), jnp.sinh(x @ C))) @ V


SUMS = [
    lambda a, b, c: (a + b) + c,
    lambda a, b, c: a + (b + c),
    lambda a, b, c: a - (-b - c),
    lambda a, b, c: sum([a, b, c]),
    lambda a, b, c: jnp.stack([a, b, c]).sum(0),
    lambda a, b, c: a + jnp.stack([b, c], 1).sum(1),
    lambda a, b, c: jnp.concatenate([a[None], b[None], c[None]]).sum(0),
    lambda a, b, c: jax.named_scope("part")(lambda a, b: a + b)(c, a) + b,
    lambda a, b, c: -(-a - (b + c)),
]
ADDS = {
    "zplus": lrp.ZPlus(),
    "epsilon": lrp.Epsilon(0.1),
    "alpha_beta": lrp.AlphaBeta(2.0, 1.0),
    "gamma": lrp.Gamma(0.25),
    "flat": lrp.Flat(),
    "wsquare": lrp.WSquare(),
    "distribute": lrp.Epsilon(0.1, bias="distribute"),
    "ignore": lrp.ZPlus(bias="ignore"),
}


@pytest.mark.parametrize("rule", ADDS)
def test_sums_are_flat(rule):
    fns = [of_terms(fn) for fn in SUMS]
    the_same(fns, {"add": ADDS[rule]})
    assert all(lrp.plan(fn, {})(X).count("add") == 1 for fn in fns)


def test_a_stack_of_what_loops_return_is_a_sum():
    """A loop returns its rows with the axis that the stack would give to them."""
    one_row = lambda f, v: lax.map(f, v[None])[0]  # noqa: E731
    fns = [
        lambda x: jnp.tanh(x @ A) + jax.nn.silu(x @ B),
        lambda x: jnp.stack([one_row(jnp.tanh, x @ A), jax.nn.silu(x @ B)]).sum(0),
        lambda x: jnp.stack([one_row(jnp.tanh, x @ A), one_row(jax.nn.silu, x @ B)]).sum(0),
    ]
    the_same(fns, {"add": lrp.Epsilon(0.1)})


def test_a_layer_that_is_written_as_a_sum_is_no_statistic():
    """The bias of x + f(x) @ w belongs to the layer, also where x itself is a term."""

    def turned(x, w):
        return (w.T * x[..., None, :]).sum(-1)

    rng = np.random.default_rng(5)
    u, v, b = (
        rng.normal(size=(X.shape[-1], 3)),
        rng.normal(size=(3, X.shape[-1])),
        rng.normal(size=X.shape[-1]),
    )
    fns = [
        lambda x: x + jnp.tanh(x @ u) @ v + b,
        lambda x: x + turned(jnp.tanh(turned(x, u)), v) + b,
    ]
    for rules in ({"dense": lrp.ZPlus()}, lrp.composites.deep_taylor()):
        the_same(fns, rules)


def test_three_terms_by_hand():
    fn = lambda x: (x[0] + x[1]) - (x[2] - x[3])  # noqa: E731
    x = jnp.array([2.0, -3.0, -4.0, 1.0])  # 2, -3, 4, 1: the sum is 4
    assert_close(relevance(fn, {"add": lrp.ZPlus(epsilon=0.0)}, x), jnp.array([8, 0, 16, 4]) / 7)
    assert_close(relevance(fn, {"add": lrp.Flat(epsilon=0.0)}, x), jnp.full(4, 1.0))
    assert_close(relevance(fn, {"add": lrp.Epsilon(1.0)}, x), jnp.array([2, -3, 4, 1]) * 0.8)


LINEAR = {
    **ADDS,
    "gamma ignore": lrp.Gamma(0.25, bias="ignore"),
    "alpha_beta distribute": lrp.AlphaBeta(2.0, 1.0, bias="distribute"),
}


@pytest.mark.parametrize("rule", LINEAR)
def test_the_first_linear_layer_takes_the_bias(rule):
    hidden, skip = lambda x: jax.nn.relu(x @ A) @ W, lambda x: jnp.tanh(x @ B)
    fns = [
        lambda x: skip(x) + (hidden(x) + S),
        lambda x: (skip(x) + hidden(x)) + S,
        lambda x: (skip(x) + S) + hidden(x),
        lambda x: S - (-skip(x) - hidden(x)),
        lambda x: sum([S, skip(x), hidden(x)]),
        lambda x: (skip(x) + 0.3 * S) + (hidden(x) + 0.7 * S),
    ]
    for tail in (lambda h: h, lambda h: jax.nn.relu(h) @ V, lambda h: h @ V):
        tailed = [lambda x, f=f, tail=tail: tail(f(x)) for f in fns]
        the_same(tailed, LINEAR[rule])
        assert all(lrp.plan(fn, LINEAR[rule])(X).count("affine") == 0 for fn in tailed)


MOVED = {
    "as it is": lambda h: h @ W,
    "in another order": lambda h: (h @ W[:, ::-1])[:, ::-1],
    "rolled": lambda h: jnp.roll(h @ jnp.roll(W, 1, -1), -1, -1),
    "gathered": lambda h: (h @ W[:, [2, 0, 1]])[:, np.array([1, 2, 0])],
    "transposed": lambda h: (W.T @ h.T).T,
    "in parts": lambda h: jnp.concatenate([h @ W[:, :1], h @ W[:, 1:]], -1),
    "parts, turned": lambda h: jnp.roll(jnp.concatenate([h @ W[:, 1:], h @ W[:, :1]], -1), 1, -1),
    "padded and cropped": lambda h: jnp.pad(h @ W, [(0, 0), (1, 1)])[:, 1:-1],
}


@pytest.mark.parametrize("rule", LINEAR)
def test_the_linear_layer_takes_the_bias_past_moves(rule):
    skip = lambda x: jnp.tanh(x @ B)  # noqa: E731
    for tail in (lambda h: h, lambda h: jax.nn.relu(h) @ V):
        fns = [
            lambda x, move=move, order=order, tail=tail: tail(
                order(skip(x), move(jax.nn.relu(x @ A)))
            )
            for move in MOVED.values()
            for order in (lambda a, b: a + (b + S), lambda a, b: (S + a) + b)
        ]
        the_same(fns, LINEAR[rule])


@pytest.mark.parametrize("rule", LINEAR)
def test_a_bias_stays_with_its_layer_where_signs_cancel(rule):
    fns = [
        lambda x: jnp.tanh(x @ A) @ W + (jnp.sinh(x @ B) @ W + S),
        lambda x: jnp.tanh(x @ A) @ W - (-(jnp.sinh(x @ B) @ W + S)),
        lambda x: jnp.tanh(x @ A) @ W - (-(jnp.sinh(x @ B) @ W) - S),
        lambda x: jnp.tanh(x @ A) @ W - (-S - jnp.sinh(x @ B) @ W),
    ]
    the_same(fns, LINEAR[rule])
    the_same([lambda x, f=f: jax.nn.relu(f(x)) @ V for f in fns], LINEAR[rule])


@pytest.mark.parametrize("rule", LINEAR)
def test_one_bias_beside_two_layers_with_other_signs(rule):
    one, other = (lambda x: jnp.sinh(x @ B) @ W), (lambda x: jnp.cosh(x @ C) @ W)
    fns = [
        lambda x: jnp.tanh(x @ A) + (one(x) + S) + (S - other(x)),
        lambda x: jnp.tanh(x @ A) - (-one(x) - S) - (other(x) - S),
    ]
    the_same(fns, LINEAR[rule])
    fns = [
        lambda x: jnp.tanh(x @ A) + (one(x) + S) + (other(x) + S),
        lambda x: jnp.tanh(x @ A) - (-one(x) - S) - (-other(x) - S),
    ]
    the_same(fns, LINEAR[rule])
    fns = [
        lambda x: jnp.tanh(x @ A) + (one(x) + S) + (other(x) - S),
        lambda x: jnp.tanh(x @ A) - (-one(x) - S) - (S - other(x)),
    ]
    the_same(fns, LINEAR[rule])


@pytest.mark.parametrize("rule", LINEAR)
def test_of_two_linear_layers_the_first_takes_it(rule):
    fns = [
        lambda x: (jnp.tanh(x @ A) @ W + jnp.sinh(x @ B) @ W) + S,
        lambda x: (jnp.tanh(x @ A) @ W + S) + jnp.sinh(x @ B) @ W,
        lambda x: S - (-(jnp.tanh(x @ A) @ W) - jnp.sinh(x @ B) @ W),
    ]
    the_same([lambda x, f=f: jax.nn.relu(f(x)) @ V for f in fns], LINEAR[rule])


@pytest.mark.parametrize("rule", LINEAR)
def test_a_bias_in_a_sum_without_linear_layers_stands_behind_it(rule):
    fns = [
        lambda x: (jnp.tanh(x @ A) + jnp.sinh(x @ B)) + S,
        lambda x: (jnp.tanh(x @ A) + S) + jnp.sinh(x @ B),
        lambda x: jnp.tanh(x @ A) + (S + jnp.sinh(x @ B)),
        lambda x: S - (-jnp.tanh(x @ A) - jnp.sinh(x @ B)),
    ]
    for tail in (lambda h: h @ V, lambda h: jax.nn.relu(h) @ V):
        the_same([lambda x, f=f, tail=tail: tail(f(x)) for f in fns], LINEAR[rule])


@pytest.mark.parametrize("rule", LINEAR)
def test_a_norm_behind_a_sum_is_one_in_every_spelling(rule):
    k = 1.5 * S / 0.7
    fns = [
        lambda h: (h - C[0]) * k + S,
        lambda h: h * k + (S - C[0] * k),
        lambda h: k * (h - C[0]) - (-S),
    ]
    total = lambda x: jnp.tanh(x @ A) + jax.nn.relu(x @ B) @ W  # noqa: E731
    the_same([lambda x, f=f: jax.nn.relu(f(total(x))) @ V for f in fns], LINEAR[rule])


@pytest.mark.parametrize("rule", ADDS)
def test_a_stopped_term_takes_nothing_wherever_it_stands(rule):
    stop = lambda x: lax.stop_gradient(jnp.cos(x @ C))  # noqa: E731
    u, v = lambda x: jnp.tanh(x @ A), lambda x: jnp.sinh(x @ B)
    fns = [
        lambda x: (u(x) + v(x)) + stop(x),
        lambda x: u(x) + (v(x) + stop(x)),
        lambda x: (u(x) - stop(x) * -1) + v(x),
    ]
    the_same([lambda x, f=f: jax.nn.relu(f(x)) @ V for f in fns], {"add": ADDS[rule]})


def test_a_stopped_term_by_hand():
    fn = lambda x: x[0] + (x[1] + lax.stop_gradient(x[0] * x[1]))  # noqa: E731
    assert_close(relevance(fn, {}, jnp.array([2.0, 3.0])), jnp.array([11 * 0.4, 11 * 0.6]))


# -- factors of one value ------------------------------------------------------------------------

SWIGLU = [
    lambda a, c: (a * jax.nn.sigmoid(a)) * c,
    lambda a, c: a * (c * jax.nn.sigmoid(a)),
    lambda a, c: (a * c) * jax.nn.sigmoid(a),
    lambda a, c: (c * a) * jax.nn.sigmoid(a),
    lambda a, c: -(a * (-c)) / (1 + jnp.exp(-a)),
    lambda a, c: a / ((1 + jnp.exp(-a)) / c),
    lambda a, c: jax.nn.silu(a) * c,
]
MEETS = {**GATES, "gradient": {"activation": lrp.Gradient()}}


@pytest.mark.parametrize("rules", MEETS)
def test_factors_of_one_value_meet_first(rules):
    fns = [lambda x, f=f: f(x @ A, x @ B) @ V for f in SWIGLU]
    the_same(fns, MEETS[rules])
    for fn in fns:
        plan = lrp.plan(fn, MEETS[rules])(X)
        assert (plan.count("activation"), plan.count("product")) == (1, 1), str(plan)


def test_half_to_the_activation():
    x = jnp.array([2.0, 3.0])
    for fn in SWIGLU:
        found = relevance(lambda x, fn=fn: fn(x[0], x[1]), {}, x)
        assert_close(found, jnp.full(2, 3.0 / (1 + np.exp(-2.0))))


@pytest.mark.parametrize(
    "norm",
    [
        lambda h: jax.nn.softmax((h + S) + lax.stop_gradient(jnp.cos(h))),
        lambda h: jnp.exp(h - jax.nn.logsumexp(h, -1, keepdims=True)) @ W,
        lambda h: (h - h.mean(-1, keepdims=True)) * (lax.rsqrt(h.var(-1, keepdims=True)) * S),
        lambda h: h * lax.rsqrt((h * h).mean(-1, keepdims=True)) * jax.nn.sigmoid(h),
    ],
)
def test_norms_and_softmaxes_stay_whole(norm):
    plan = lrp.plan(lambda x: norm(jnp.sinh(x @ A)), {})(X)
    assert plan.count("softmax") + plan.count("norm") == 1, str(plan)


def test_the_shift_of_a_softmax_is_no_term():
    sums = [
        lambda x: jnp.tanh(x @ A) + (jax.nn.relu(x @ B) @ W + S),
        lambda x: (jnp.tanh(x @ A) + jax.nn.relu(x @ B) @ W) + S,
    ]
    fns = [lambda x, f=f: jax.nn.softmax(f(x)) @ V for f in sums]
    the_same(fns, lrp.ZPlus())
    for fn in fns:
        assert lrp.plan(fn, {})(X).count("activation") == 2


def test_borders_of_what_is_recomputed_do_not_matter():
    def summed(wrap):
        total = lambda x: jnp.tanh(x @ A) + jax.nn.relu(x @ B) @ W  # noqa: E731
        return lambda x: jax.nn.relu(wrap(lambda h: h + S)(total(x))) @ V

    def gated(wrap):
        part = wrap(lambda a, c: c * jax.nn.sigmoid(a))
        return lambda x: (lambda a: (a * part(a, x @ B)) @ V)(x @ A)

    for make in (summed, gated):
        the_same([make(lambda f: f), make(jax.checkpoint), make(jax.jit)], lrp.ZPlus())


def test_powers_are_an_activation():
    fns = [lambda a, b: (a * a) * b, lambda a, b: a * (a * b), lambda a, b: a * b * a]
    fns += [lambda a, b: a**2 * b]
    the_same([lambda x, f=f: f(x @ A, x @ B) for f in fns], composites.lstm_lrp_all())


ORDERED = {
    "swiglu": lambda x: (x @ A * (x @ B * jax.nn.sigmoid(x @ A))) @ V,
    "shared": lambda x: (lambda a, c: (a * (c * jax.nn.sigmoid(a))) @ V)(x @ A, x @ B),
    "bias": lambda x: jax.nn.relu((jnp.tanh(x @ B) + jax.nn.relu(x @ A) @ W) + S) @ V,
    "stopped": lambda x: (x @ A + ((x @ B) + lax.stop_gradient(x @ C))) @ V,
    "inner": lambda x: ((jnp.tanh(x @ A) + S) + jnp.sinh(x @ B)) @ V,
}


@pytest.mark.parametrize("name", ORDERED)
def test_values_are_the_networks_to_the_last_bit(name):
    fn = ORDERED[name]
    for dtype in (jnp.float64, jnp.float32):
        x = jnp.asarray(X, dtype)
        both = lrp.value_and_relevance(fn, composites.epsilon_plus())
        np.testing.assert_array_equal(both(x)[0], fn(x))


@pytest.mark.parametrize("name", ORDERED)
def test_under_every_transformation(name):
    fn, rules = ORDERED[name], composites.epsilon_plus(epsilon=0.1)
    explain = lrp.explain(fn, rules)
    expected = explain(X)
    assert_close(jax.jit(explain)(X), expected)
    each = lambda x: jax.vmap(lambda row: fn(row[None])[0])(x)  # noqa: E731
    assert_close(in_numpy(lrp.explain(each, rules))(X), expected)
    assert_close(jax.vmap(lambda row: explain(row[None])[0])(X), expected)
    turn = lambda x: lax.scan(lambda c, row: (c, fn(row[None])[0]), 0.0, x)[1]  # noqa: E731
    assert_close(in_numpy(lrp.explain(turn, rules))(X), expected)
    branch = lambda x: lax.cond(True, fn, lambda x: x[:, :2], x)  # noqa: E731
    assert_close(in_numpy(lrp.explain(branch, rules))(X), expected)
    again = lambda x: jax.checkpoint(fn)(x)  # noqa: E731
    assert_close(in_numpy(lrp.explain(again, rules))(X), expected)


@pytest.mark.parametrize("name", ORDERED)
def test_the_ledger_adds_up(name):
    book = lrp.ledger(ORDERED[name], composites.epsilon_plus(epsilon=0.1))(X)
    size = sum(abs(entry.relevance_out) for entry in book.layers)
    assert (
        abs(book.relevance_out - book.relevance_in - sum(e.loss for e in book.layers))
        < 1e-12 * size
    )
    assert sum(abs(e.rule_loss) for e in book.layers) < 1e-12 * size


@pytest.mark.parametrize("name", [n for n in ORDERED if n != "stopped"])
def test_relevance_can_be_differentiated(name):
    """A loss on relevance sees the order of the network through its value alone."""
    fn, rules = ORDERED[name], composites.lrp_zero()
    loss = lambda x: (lrp.explain(fn, rules)(x) ** 2).sum()  # noqa: E731
    value, gradient = in_numpy(loss), in_numpy(jax.grad(loss))
    step = 1e-6 * RNG.normal(size=X.shape)
    slope = (value(X + step) - value(X - step)) / 2
    np.testing.assert_allclose((gradient(X) * step).sum(), slope, rtol=1e-4)


def test_repeated_calls_are_ordered_alike():
    def block(x, w):
        h = jnp.tanh(x @ w)
        h = jnp.tanh(h @ w + S[0])
        h = jnp.tanh(h @ w)
        a, c = h @ w, jnp.sinh(h @ w)
        return (jnp.cos(x) + (a * (c * jax.nn.sigmoid(a))) @ w) + w[0]

    w = jnp.asarray(RNG.normal(size=(4, 4)) / 2)
    called, rules = jax.jit(block), composites.epsilon_plus(epsilon=0.1)
    one, other = (lambda x, f=f: f(f(f(x, w), w), w) for f in (called, block))
    assert_close(relevance(one, rules), relevance(other, rules))


def test_ordinary_networks_get_no_equation_more():
    from jaxlrp.graph import trace
    from jaxlrp.graph.reorder import reordered

    def fn(x):
        h = jax.nn.silu(x @ A) * (x @ B)
        h = h + (jax.nn.gelu(h) @ W + S)
        h = (h - h.mean(-1, keepdims=True)) * lax.rsqrt(h.var(-1, keepdims=True) + 1e-6) * S + S
        return jax.nn.softmax(h / 2 + S)

    graph, *_ = trace.trace(fn, [jnp.asarray(X)], [()])
    assert reordered(graph, graph.inputs, graph.outputs)[0] is graph
