"""Attention at the edges: shut rows, one token, padding, kernels that hide what they compute."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.extend.core import Primitive

import jaxlrp as lrp
from tests import attention_reference
from tests.attention_families import FAMILIES
from tests.attention_networks import (
    LOW,
    PLAIN,
    RULES,
    SEED,
    TIME,
    attention,
    explained,
    masked,
    normalised,
    parameters,
    sample,
    weighted,
    weights,
)
from tests.compare import assert_close
from tests.numpy_jaxpr import in_numpy

# --- rows that a mask shuts completely

SHUT = 2
OPEN = np.tril(np.ones((TIME, TIME), bool))
OPEN[SHUT] = False
OTHERS = np.array([0, 1, 3, 4])


def shares(e, total):
    return e / jnp.where(total == 0, 1.0, total)


def guarded(u):
    """An empty row has shares of 0."""
    u = jnp.where(OPEN, u, -jnp.inf)
    top = u.max(-1, keepdims=True)
    e = jnp.exp(u - jnp.where(jnp.isfinite(top), top, 0.0))
    return shares(e, e.sum(-1, keepdims=True))


NO_WEIGHTS = {  # the shut row is 0
    "softmax's where": normalised(lambda u: jax.nn.softmax(u, where=OPEN)),
    "zeroed weights": normalised(
        lambda u: jnp.where(OPEN, jax.nn.softmax(jnp.where(OPEN, u, -jnp.inf)), 0.0)
    ),
    "no NaN": normalised(lambda u: jnp.nan_to_num(jax.nn.softmax(jnp.where(OPEN, u, -jnp.inf)))),
    "guarded": normalised(guarded),
}
EQUAL_WEIGHTS = {  # the shut row is a mean over all keys
    "where, lowest": masked(lambda u: jnp.where(OPEN, u, LOW)),
    "added, lowest": masked(lambda u: u + np.where(OPEN, 0.0, LOW)),
}


def turned(u):
    return u.swapaxes(-1, -2)


def divided(move, back, added=False):
    """A softmax whose exponentials and sums are moved before the division, and then moved back."""

    def f(u):
        u = u + np.where(OPEN, 0.0, -np.inf) if added else jnp.where(OPEN, u, -jnp.inf)
        e = jnp.exp(u - u.max(-1, keepdims=True))
        total = jnp.broadcast_to(e.sum(-1, keepdims=True), e.shape)
        return back(move(e) / move(total)).reshape(u.shape)

    return f


def rows(u):
    return u.reshape(-1, TIME)


NOT_A_NUMBER = {  # the shut row is NaN
    "turned, where": normalised(divided(turned, turned)),
    "turned, added": normalised(divided(turned, turned, added=True)),
    "rows": normalised(divided(rows, rows)),
    "flipped": normalised(divided(lambda u: u[..., ::-1], lambda a: a[..., ::-1])),
    "where, -inf": masked(lambda u: jnp.where(OPEN, u, -jnp.inf)),
    "added, -inf": masked(lambda u: u + np.where(OPEN, 0.0, -np.inf)),
    "over columns": normalised(
        lambda u: turned(jax.nn.softmax(turned(jnp.where(OPEN, u, -jnp.inf)), axis=-2))
    ),
    "by logarithms": normalised(
        lambda u: jnp.exp(jax.nn.log_softmax(jnp.where(OPEN, u, -jnp.inf)))
    ),
}


@pytest.mark.parametrize("rule", RULES)
def test_a_shut_row_has_no_relevance(rule):
    p = parameters(bias=False)
    fns = {name: functools.partial(attention, core, p) for name, core in NO_WEIGHTS.items()}
    spec = attention_reference.Attention(allowed=OPEN)
    rows = zip(sample(), SEED, strict=True)
    expected = np.stack([attention_reference.relevance(p, spec, x, s, rule) for x, s in rows])
    for name, (relevance, value) in explained(fns, RULES[rule]).items():
        assert not np.any(value[:, SHUT]), name
        assert_close(relevance, expected, what=name)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", [*NOT_A_NUMBER, *EQUAL_WEIGHTS])
def test_a_shut_row_that_nobody_reads(name, rule):
    """Its value may be NaN; relevance of the other rows is that of a network without it."""
    p = parameters()
    core = {**NOT_A_NUMBER, **EQUAL_WEIGHTS}[name]
    attend = functools.partial(attention, core, p)
    fns = {
        "sliced away": lambda x: attend(x)[:, OTHERS],
        "replaced": lambda x: jnp.where((np.arange(TIME) != SHUT)[:, None], attend(x), 0.0)[
            :, OTHERS
        ],
    }
    spec = attention_reference.Attention(allowed=OPEN)
    seed = SEED.copy()
    seed[:, SHUT] = 0
    rows = zip(sample(), seed, strict=True)
    expected = np.stack([attention_reference.relevance(p, spec, x, s, rule) for x, s in rows])
    for way, (relevance, value) in explained(fns, RULES[rule], seed=SEED[:, OTHERS]).items():
        assert np.isfinite(value).all(), way
        assert_close(relevance, expected, what=way)


@pytest.mark.parametrize("name", [*NO_WEIGHTS, *EQUAL_WEIGHTS])
def test_a_shut_row_leaves_the_ledger_finite(name):
    core = {**NO_WEIGHTS, **EQUAL_WEIGHTS}[name]
    fn = functools.partial(attention, core, parameters())
    ledger = lrp.ledger(fn, RULES["attn"])(sample(), target=SEED)
    for entry in ledger.layers:
        numbers = (entry.relevance_in, entry.relevance_out, entry.bias, entry.rule_loss)
        assert np.isfinite(numbers).all(), entry.name


# --- one token, and padding


@pytest.mark.parametrize("rule", RULES)
def test_a_sequence_of_one_token(rule):
    # Its only weight is 1, whatever the scores: under attn the half that goes there is lost.
    p, x, seed = parameters(), sample()[:, :1], SEED[:, :1]
    fns = {name: functools.partial(attention, core, p) for name, core in PLAIN.items()}
    pairs = zip(x, seed, strict=True)
    spec = FAMILIES["plain"][0]
    expected = np.stack([attention_reference.relevance(p, spec, a, s, rule) for a, s in pairs])
    for name, (relevance, _) in explained(fns, RULES[rule], x, seed).items():
        tolerance = 1e-6 if "dot_product_attention" in name else 1e-9
        assert_close(relevance, expected, tolerance, name)


def test_one_token_by_hand():
    # o = 1 * v = 3: half to v; the softmax of one score has no slope.
    fn = lambda u, v: jax.nn.softmax(u) @ v  # noqa: E731
    u, v = jnp.array([0.7]), jnp.array([3.0])
    at_u, at_v = lrp.explain(fn, RULES["attn"], argnums=(0, 1))(u, v)
    np.testing.assert_allclose((at_u[0], at_v[0]), (0.0, 1.5), atol=1e-15)


PADDING = np.arange(TIME) >= 3
PADDED = {
    "where, -inf": masked(lambda u: jnp.where(PADDING, -jnp.inf, u)),
    "where, lowest": masked(lambda u: jnp.where(PADDING, LOW, u)),
    "added": masked(lambda u: u + np.where(PADDING, -1e30, 0.0)),
    "softmax's where": normalised(lambda u: jax.nn.softmax(u, where=~PADDING)),
    "key lengths": lambda q, k, v: jax.nn.dot_product_attention(
        q, k, v, key_value_seq_lengths=np.array([3, 3], np.int32)
    ),
}


@pytest.mark.parametrize("rule", RULES)
def test_padding_tokens_get_exactly_nothing(rule):
    p = parameters()

    def pooled(core, x):
        return jnp.where(PADDING[:, None], 0.0, attention(core, p, x)).sum(1) / 3

    def first(core, x):
        return attention(core, p, x)[:, 0]

    fns = {
        f"{name}, {head.__name__}": functools.partial(head, core)
        for name, core in PADDED.items()
        for head in (pooled, first)
    }
    for name, (relevance, _) in explained(fns, RULES[rule], seed=SEED[:, 0]).items():
        assert not np.any(relevance[:, PADDING]), name
        assert np.any(relevance[:, ~PADDING]), name


@pytest.mark.parametrize("rule", RULES)
def test_padding_changes_nothing_for_the_rest(rule):
    p, x, seed = parameters(), sample(), SEED[:, 0]
    short = {"short": lambda x: attention(PLAIN["einsum"], p, x)[:, 0]}
    padded = {"padded": lambda x: attention(PADDED["where, -inf"], p, x)[:, 0]}
    expected = explained(short, RULES[rule], x[:, :3], seed)["short"][0]
    assert_close(explained(padded, RULES[rule], x, seed)["padded"][0][:, :3], expected)


# --- kernels that hide what they compute


def kernel(name):
    """A primitive that only says what shape comes out."""
    primitive = Primitive(name)
    primitive.def_abstract_eval(lambda q, *_, **__: q)
    return primitive


# What JAX's cuDNN attention leaves in the traced function; without a GPU JAX refuses to trace it.
CUDNN = kernel("dot_product_attention_fwd_wrapper")
SAME = jax.ShapeDtypeStruct((2, TIME, 2, 4), np.float64)
KERNELS = {
    "dot_product_attention_fwd_wrapper": lambda q, k, v: CUDNN.bind(q, k, v, scale=0.5),
    "pure_callback": lambda q, k, v: jax.pure_callback(lambda *a: a[0], SAME, q, k, v),
    "ffi_call": lambda q, k, v: jax.ffi.ffi_call("flash_attention", SAME)(q, k, v),
}


@jax.custom_vjp
def with_derivative(q, k, v):
    return KERNELS["ffi_call"](q, k, v)


with_derivative.defvjp(lambda q, k, v: (q, None), lambda _, c: (c, c, c))


@pytest.mark.parametrize("name", KERNELS)
def test_an_opaque_kernel_is_an_error_that_names_the_switch(name):
    fn = functools.partial(attention, KERNELS[name], parameters())
    with pytest.raises(lrp.UnsupportedPrimitiveError, match=rf'{name}.*implementation="xla"'):
        lrp.plan(fn, RULES["attn"])(sample())


def test_an_opaque_kernel_behind_a_derivative_of_its_own():
    fn = functools.partial(attention, with_derivative, parameters())
    with pytest.raises(lrp.UnsupportedPrimitiveError, match=r"ffi_call"):
        lrp.plan(fn, RULES["attn"])(sample())


def test_an_opaque_kernel_off_the_path_of_relevance():
    def fn(x):
        return x @ weights(6, 3) + lax.stop_gradient(CUDNN.bind(x, scale=1.0)).sum()

    plan = lrp.plan(fn, RULES["attn"])(sample())
    assert (plan.count("dense"), plan.count("softmax")) == (1, 0)


def test_the_implementation_that_the_error_names():
    core = functools.partial(jax.nn.dot_product_attention, implementation="xla")
    plan = lrp.plan(functools.partial(attention, core, parameters()), RULES["attn"])(sample())
    assert (plan.count("softmax"), plan.count("matmul")) == (1, 2)


# --- arguments


def test_an_axis_must_be_known_while_tracing():
    def fn(x, axis):
        return jax.nn.softmax(x @ weights(6, 3), axis=axis)

    assert lrp.explain(fn, RULES["attn"])(sample(), -1).shape == (2, TIME, 6)
    with pytest.raises(jax.errors.ConcretizationTypeError, match="axis"):
        lrp.plan(fn, RULES["attn"])(sample(), jnp.array(-1))


def test_tokens_are_explained_through_their_embedding():
    table, core = weights(9, 6), PLAIN["einsum"]

    def fn(tokens):
        return attention(core, parameters(), table[tokens])

    tokens = jnp.arange(2 * TIME).reshape(2, TIME) % 9
    with pytest.raises(lrp.InputError, match=r'dtype int.*wrt="embed"'):
        lrp.explain(fn, RULES["attn"])(tokens)
    with pytest.raises(lrp.InputError, match=r'wrt="embed"'):
        lrp.explain(lambda d: fn(d["tokens"]), RULES["attn"])({"tokens": tokens})


def test_a_head_mask_is_not_a_token_mask():
    # A condition must broadcast to the layer's output; heads come before queries here.
    fn = functools.partial(
        attention,
        lambda q, k, v: weighted(jax.nn.softmax(jnp.einsum("bthd,bshd->bhts", q, k)), v),
        parameters(),
    )
    keep = jnp.array([1.0, 0.0])[:, None, None]
    half = in_numpy(lrp.explain(fn, RULES["attn"]))
    found = half(sample(), target=SEED, condition={"softmax": keep})
    assert np.isfinite(found).all()
    with pytest.raises(lrp.InputError, match="broadcast to the layer's output"):
        lrp.explain(fn, RULES["attn"])(sample(), condition={"softmax": jnp.ones(3)})
