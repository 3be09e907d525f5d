"""Weights of a softmax lie in [0, 1] only if each is a term of the sum that divides it, or less."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp as lrp
from tests.compare import assert_close
from tests.numpy_jaxpr import in_numpy

DRAW = np.random.default_rng(3)
ROWS, WIDTH, KEYS = 6, 5, 7
X, W, V = (
    DRAW.normal(size=(ROWS, WIDTH)),
    DRAW.normal(size=(WIDTH, KEYS)),
    DRAW.normal(size=(KEYS, 3)),
)
OPEN, TILT = np.arange(KEYS) > 3, np.linspace(0.0, 1.0, KEYS)
OF = np.array([0, 0, 1, 2, 2, 1], np.int32)


def total(e):
    return e.sum(-1, keepdims=True)


def within(ids, low, high):
    """Indices whose range is known."""
    return jnp.clip(ids, low, high)


def by_segment(e, ids=OF, low=0, high=2, count=3, read=lambda ids: ids, **how):
    ids = within(ids, low, high)
    return jax.ops.segment_sum(e, ids, count).at[read(ids)].get(**how)


def clamped_below(e):
    """Sums that are read at -1, which the gather takes for 0."""
    ids = within(OF - 1, -1, 2)
    numbers = jax.lax.GatherDimensionNumbers((1,), (0,), (0,))
    sums = jax.ops.segment_sum(e, ids, 3)
    return jax.lax.gather(sums, ids[:, None], numbers, (1, KEYS), mode="clip")


def read_along(u):
    """The same indices in each row, where those of the rows were added to."""
    e, ids = jnp.exp(u[:, :ROWS]), within(OF, 0, 2)
    sums = jnp.zeros(3).at[jnp.broadcast_to(ids[:, None], e.shape)].add(e)
    return (e / sums[jnp.broadcast_to(ids[None], e.shape)])[:, 2:3]


def read_across(u):
    """The indices of the columns, where those of the rows were added to."""
    e, ids = jnp.exp(u[:, :ROWS]), jnp.broadcast_to(within(OF, 0, 2)[:, None], (ROWS, ROWS))
    return (e / jnp.zeros(3).at[ids].add(e)[ids.T])[:, 2:3]


def first_column(e):
    numbers = jax.lax.GatherDimensionNumbers((1,), (0,), (0,))
    return jax.lax.gather(jax.ops.segment_sum(e, OF, 3), OF[:, None], numbers, (1, 1))


def rounded(e, dtype):
    return e.astype(dtype).astype(e.dtype)


def other_axis(u):
    """Of the total of each row's segment, read by column."""
    e = jnp.exp(u[:, :ROWS])
    return (e / jax.ops.segment_sum(e, OF, ROWS)[:, OF])[:, :1]


def lse(u):
    return jax.nn.logsumexp(u, -1, keepdims=True)


SHARES = {
    "jax.nn": lambda u, e: jax.nn.softmax(u),
    "plain": lambda u, e: e / total(e),
    "times a reciprocal": lambda u, e: e * (1 / total(e)),
    "a mask on the terms": lambda u, e: (lambda t: t / total(t))(jnp.where(OPEN, e, 0.0)),
    "weights on the terms": lambda u, e: (lambda t: t / total(t))(TILT * e),
    "a mask above": lambda u, e: jnp.where(OPEN, e, 0.0) / total(e),
    "one more term": lambda u, e: e / (total(e) + 1.0),
    "no less than": lambda u, e: e / jnp.maximum(total(e), 1e-6),
    "a guard against 0": lambda u, e: e / jnp.where(total(e) == 0, 1.0, total(e)),
    "a guard that asks for more": lambda u, e: e / jnp.where(total(e) > 0, total(e), 1.0),
    "in steps": lambda u, e: (
        (lambda t: t / t.sum(-1).sum(-1)[:, None, None])(jnp.exp(u.reshape(2, 3, KEYS)))
    ).reshape(ROWS, KEYS),
    "segments": lambda u, e: e / by_segment(e),
    "segments, filled": lambda u, e: e / by_segment(e, mode="fill", fill_value=1.0),
    "segments, filled in with NaN": lambda u, e: (
        lambda ids: e / jax.ops.segment_sum(e, ids, 3).at[ids].get(mode="fill")
    )(jnp.maximum(OF, 0)),
    "segments in columns": lambda u, e: (lambda ids: e / jnp.zeros((3, KEYS)).at[ids].add(e)[ids])(
        within(OF, 0, 2)
    ),
    "low precision": lambda u, e: jax.nn.softmax(u.astype(jnp.bfloat16)).astype(u.dtype),
    "of a logarithm": lambda u, e: jnp.exp(jax.nn.log_softmax(u)),
    "of a logarithm by hand": lambda u, e: jnp.exp(u - lse(u)),
    "of a logarithm, in a wider type": lambda u, e: (
        lambda v: jnp.exp(v.astype(u.dtype) - lse(v).astype(u.dtype))
    )(u.astype(jnp.float32)),
}
NO_SHARES = {
    "a part of the sum": lambda u, e: e / (0.1 * total(e)),
    "the reciprocal of a part": lambda u, e: e * (10.0 / total(e)),
    "weights above": lambda u, e: (9.0 * TILT * e) / total(e),
    "another value where a mask is shut": lambda u, e: jnp.where(OPEN, e, 1e4) / total(e),
    "terms that are squared": lambda u, e: e * e / total(e),
    "terms that are squared, and a reciprocal": lambda u, e: (e * e) * (1 / total(e)),
    "beside it in a barrier": lambda u, e: (lambda e, c: c / total(e))(
        *jax.lax.optimization_barrier((e, jnp.full(e.shape, 1e4)))
    ),
    "weights of the reciprocal": lambda u, e: e * (9.0 * TILT * (1 / total(e))),
    "a mask on the sum alone": lambda u, e: e / total(jnp.where(OPEN, e, 0.0)),
    "weights on the sum alone": lambda u, e: e / total(0.1 * TILT * e),
    "the sum or a number": lambda u, e: e / jnp.where(np.arange(ROWS)[:, None] > 1, total(e), 0.1),
    "a guard that asks otherwise": lambda u, e: e / jnp.where(total(e) > 9.0, total(e), 0.1),
    "the sum of another row": lambda u, e: e / total(e)[::-1],
    "other columns of a segment": lambda u, e: e / by_segment(e)[:, ::-1],
    "the last segment, clamped": lambda u, e: e / by_segment(e, OF + 1, 0, 3, mode="clip"),
    "the last segment, by default": lambda u, e: e / by_segment(e, OF + 1, 0, 3),
    "the last segment, from behind": lambda u, e: e / by_segment(e, OF - 1, -1, 2),
    "the last segment, from behind and filled": lambda u, e: (
        e / by_segment(e, OF - 1, -1, 2, mode="fill", fill_value=1.0)
    ),
    "the last segment, filled in with a number": lambda u, e: (
        e / by_segment(e, OF + 1, 0, 3, mode="fill", fill_value=1e-3)
    ),
    "the first segment, from behind and clamped": lambda u, e: e / clamped_below(e),
    "segments of indices that are not known": lambda u, e: (
        e / jax.ops.segment_sum(e, OF + 1, 3)[OF + 1]
    ),
    "a segment beside": lambda u, e: (
        e / by_segment(e, high=1, read=lambda ids: jnp.where(np.arange(ROWS) < 3, ids + 1, ids))
    ),
    "segments in another order": lambda u, e: (
        e / by_segment(e, read=lambda ids: ids.reshape(2, 3).T.reshape(ROWS))
    ),
    "segments of a narrower count": lambda u, e: (
        e / by_segment(e, OF + 255, 0, 299, 300, lambda ids: ids.astype(np.uint8).astype(np.int32))
    ),
    "segments along": lambda u, e: read_along(u) * np.ones((1, KEYS)),
    "segments across": lambda u, e: read_across(u) * np.ones((1, KEYS)),
    "other rows of a segment": lambda u, e: e[::-1] / by_segment(e),
    "the first column of a segment": lambda u, e: e / by_segment(e)[:, :1],
    "the first column, in one gather": lambda u, e: e / first_column(e),
    "another axis of the segments": lambda u, e: other_axis(u) * np.ones((1, KEYS)),
    "a part of a segment, in steps": lambda u, e: e / by_segment(total(e[:, :2])),
    "the exponential of a logsumexp": lambda u, e: jnp.exp(lse(u)) * np.ones(KEYS),
    "a logarithm with a mask": lambda u, e: jnp.exp(u - lse(jnp.where(OPEN, u, -jnp.inf))),
    "a logarithm with a mask after exp": lambda u, e: jnp.exp(
        u - jnp.log(total(jnp.where(OPEN, jnp.exp(u), 0.0)))
    ),
    "a natural logarithm, and powers of 2": lambda u, e: jnp.exp2(u - jnp.log(total(jnp.exp2(u)))),
    "a sum that was rounded": lambda u, e: (lambda t: t / rounded(total(t), jnp.int32))(
        jnp.exp(u - 4)
    ),
    "terms that were rounded": lambda u, e: e / total(rounded(e / 8, jnp.int32)),
    "terms of low precision": lambda u, e: (lambda t: t / total(rounded(t, jnp.float8_e5m2)))(
        jnp.exp(2 * u)
    ),
    "a logarithm that was rounded": lambda u, e: jnp.exp(u - rounded(lse(u), jnp.float8_e4m3fn)),
    "a logarithm of few digits": lambda u, e: jnp.exp(u - jax.lax.reduce_precision(lse(u), 5, 2)),
    "a logarithm as an integer": lambda u, e: jnp.exp(u - rounded(lse(u), jnp.int32)),
    "a difference that was rounded": lambda u, e: (
        jnp.exp(rounded(u - lse(u) + 0.0, jnp.int32)) * np.array([1.0] * (KEYS - 1) + [1.5])
    ),
    "a logarithm of low precision": lambda u, e: (
        lambda u: jnp.exp(u - (jnp.log(total(jnp.exp(u - u.max()))) + u.max()))
    )(u.astype(jnp.bfloat16) + np.arange(0, 60, 10)[:, None]).astype(u.dtype),
    "a logarithm of another row": lambda u, e: jnp.exp(u - lse(u)[::-1]),
    "a logarithm of some rows": lambda u, e: jnp.exp(
        u - jnp.where(np.arange(ROWS)[:, None] > 1, lse(u), 0.0)
    ),
    "a logarithm of a part": lambda u, e: jnp.exp(u - lse(u[:, 3:])),
}


def planned(weights):
    def fn(x):
        return weights(x @ W, jnp.exp(x @ W)) * (jnp.tanh(x) @ W)

    plan = lrp.plan(fn, lrp.composites.attn_lrp())(X)
    return [layer.why for layer in plan.layers if layer.kind == "product"]


@pytest.mark.parametrize("name", SHARES)
def test_shares(name):
    u = jnp.asarray(X @ W)
    assert (SHARES[name](u, jnp.exp(u)) <= 1 + 1e-6).all()
    (why,) = planned(SHARES[name])
    assert "lies in [0, 1]" in why


@pytest.mark.parametrize("name", NO_SHARES)
def test_what_is_no_share(name):
    u = jnp.asarray(X @ W)
    assert (NO_SHARES[name](u, jnp.exp(u)) > 1.001).any()
    assert not any("lies in [0, 1]" in why for why in planned(NO_SHARES[name]))


@pytest.mark.parametrize("name", ["jax.nn", "a part of the sum", "a mask on the sum alone"])
def test_products_after_one_minus_a_share(name):
    """tanh(1 - p) has the sign that it has, whatever a proof about p says."""
    weights = (SHARES | NO_SHARES)[name]

    def after(p):
        return jnp.tanh(1.0 - p) @ V

    def whole(u):
        return after(weights(u, jnp.exp(u)))

    rules = {"dense": lrp.ZPlus(), "softmax": lrp.Pass()}
    u = jnp.asarray(X @ W)
    expected = in_numpy(lrp.explain(after, lrp.ZPlus()))(weights(u, jnp.exp(u))).sum(-1)
    assert_close(in_numpy(lrp.explain(whole, rules))(u).sum(-1), expected)


def halves(u):
    """The largest of the first keys and the largest of the others, each at its keys."""
    return jnp.concatenate(
        [jnp.broadcast_to(p.max(-1, keepdims=True), p.shape) for p in (u[:, :3], u[:, 3:])], -1
    )


SHIFTS = {
    "a learned shift of each key": [
        lambda u, b: jax.nn.softmax(u - b),
        lambda u, b: (lambda e: e / total(e))(jnp.exp(u - b)),
        lambda u, b: (lambda e: e / total(e))(jnp.exp(u + (-b))),
    ],
    "the largest of each key": [
        lambda u, b: jax.nn.softmax(u - jax.lax.stop_gradient(u.max(0))),
        lambda u, b: (lambda e: e / total(e))(jnp.exp(u - jax.lax.stop_gradient(u.max(0)))),
    ],
    "the largest of each key, of a view": [
        lambda u, b: jax.nn.softmax(u.T - jax.lax.stop_gradient(u.max(0))[:, None], 0).T,
        lambda u, b: (
            (lambda e: e / e.sum(0))(jnp.exp(u.T - jax.lax.stop_gradient(u.max(0))[:, None])).T
        ),
    ],
    "the largest of each half": [
        lambda u, b: jax.nn.softmax(u - jax.lax.stop_gradient(halves(u))),
        lambda u, b: (lambda e: e / total(e))(jnp.exp(u - jax.lax.stop_gradient(halves(u)))),
    ],
    "the largest, tilted": [
        lambda u, b: jax.nn.softmax(u - jax.lax.stop_gradient(u.max(-1, keepdims=True)) * TILT),
        lambda u, b: (lambda e: e / total(e))(
            jnp.exp(u - jax.lax.stop_gradient(u.max(-1, keepdims=True)) * TILT)
        ),
    ],
    "the largest of all": [
        lambda u, b: jax.nn.softmax(u),
        lambda u, b: (lambda e: e / total(e))(jnp.exp(u - u.max())),
    ],
}


@pytest.mark.parametrize("rule", [lrp.ZPlus(), lrp.AlphaBeta(2.0, 1.0), lrp.Epsilon(0.01)], ids=str)
@pytest.mark.parametrize("name", SHIFTS)
def test_a_shift_that_varies_within_a_row_is_none_of_the_softmax(name, rule):
    b = DRAW.normal(size=KEYS)
    plain, *others = (
        in_numpy(lrp.explain(lambda x, b, f=f: f(x @ W, b) @ V, rule))(X, b) for f in SHIFTS[name]
    )
    for other in others:
        assert_close(other, plain)


@pytest.mark.parametrize(
    "name",
    [
        "the exponential of a logsumexp",
        "a logarithm of another row",
        "a logarithm of some rows",
        "a logarithm of a part",
    ],
)
def test_what_is_no_log_softmax(name):
    """The logsumexp is a layer, and the exponential after it another one."""
    plan = lrp.plan(lambda x: NO_SHARES[name](x @ W, jnp.exp(x @ W)), {})(X)
    kinds = [layer.kind for layer in plan.layers]
    assert kinds.index("softmax") < kinds.index("activation")


def test_a_logsumexp_of_weights_is_masked_as_its_logits_are():
    def explain(weights):
        def network(x):
            u = x @ W
            return (weights(u) * jnp.tanh(u)) @ V

        return in_numpy(lrp.explain(network, lrp.composites.attn_lrp()))(X)

    def weighted(u):
        sums = jax.nn.logsumexp(u, -1, keepdims=True, b=jnp.asarray(OPEN).astype(u.dtype))
        return jnp.where(OPEN, jnp.exp(u - sums), 0.0)

    expected = explain(lambda u: jax.nn.softmax(jnp.where(OPEN, u, -jnp.inf)))
    assert_close(explain(weighted), expected)


READS = {
    "by default": lambda s, ids: s[ids],
    "clamped": lambda s, ids: s.at[ids].get(mode="clip"),
    "filled": lambda s, ids: s.at[ids].get(mode="fill", fill_value=1.0),
    "taken": lambda s, ids: jnp.take(s, ids, axis=0, mode="clip"),
}


@pytest.mark.parametrize("read", READS)
def test_however_sums_over_segments_are_read_they_make_a_softmax(read):
    def weights(u, read):
        e = jnp.exp(u - read(jax.ops.segment_max(u, OF, 3), OF))
        return e / read(jax.ops.segment_sum(e, OF, 3), OF)

    def explain(read):
        def network(x):
            return (weights(x @ W, read) * (jnp.tanh(x) @ W)) @ V

        return in_numpy(lrp.explain(network, lrp.composites.attn_lrp()))(X)

    assert_close(explain(READS[read]), explain(READS["by default"]))


def test_a_barrier_of_several_values_is_one_of_each():
    def explain(divide, barrier):
        def network(x):
            e = jnp.exp(x @ W)
            return (e / divide(*barrier((total(e), x[:, :1])))) @ V

        return in_numpy(lrp.explain(network, lrp.Epsilon(0.01)))(X)

    for divide in (lambda sums, other: sums, lambda sums, other: other):
        found = explain(divide, jax.lax.optimization_barrier)
        assert_close(found, explain(divide, lambda pair: pair))
