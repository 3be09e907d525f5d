"""Look-alikes of softmax and norms, softmax over a mapped axis or at the end, linear attention."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxlrp as lrp
from tests import attention_networks, attention_reference
from tests.attention_networks import (
    CAUSAL,
    HEADS,
    RULES,
    SEED,
    WIDTH,
    assert_same,
    attention,
    explained,
    kinds_of,
    parameters,
    sample,
    weights,
)
from tests.compare import assert_close
from tests.numpy_jaxpr import in_numpy

# --- what is no softmax, and no norm

SQUARE = weights(WIDTH, 5)
NO_SOFTMAX = {
    "the sum of another axis": lambda e, u: e / e.sum(-1)[:, None, :],
    "the sum of a part": lambda e, u: e / e[..., :3].sum(-1, keepdims=True),
    "the sum of a part, in steps": lambda e, u: e / e.sum(-1)[:, :2].sum(-1)[:, None, None],
    "the sum of another row": lambda e, u: e / e.sum(-1, keepdims=True)[:, ::-1],
    "the sum of the first row": lambda e, u: e / e.sum(-1, keepdims=True)[:, :1],
    "another exponential": lambda e, u: e / jnp.exp(2 * u).sum(-1, keepdims=True),
    "another exponential of a ReLU": lambda e, u: (
        lambda r: jnp.exp(r) / jnp.exp(2 * r).sum(-1, keepdims=True)
    )(jax.nn.relu(u)),
    "something active added": lambda e, u: (
        e / (e.sum(-1, keepdims=True) + u.sum(-1, keepdims=True))
    ),
    "the largest": lambda e, u: e / e.max(-1, keepdims=True),
    "the root of squares": lambda e, u: e / jnp.linalg.norm(e, axis=-1, keepdims=True),
    "the sum, squared": lambda e, u: e / e.sum(-1, keepdims=True) ** 2,
    "its square above": lambda e, u: e * e / e.sum(-1, keepdims=True),
    "one less above": lambda e, u: (e - 1) / e.sum(-1, keepdims=True),
    "shares of sigmoids": lambda e, u: (lambda s: s / s.sum(-1, keepdims=True))(jax.nn.sigmoid(u)),
    "shares of ReLUs": lambda e, u: (lambda s: s / (s.sum(-1, keepdims=True) + 1e-6))(
        jax.nn.relu(u)
    ),
}


@pytest.mark.parametrize("name", NO_SOFTMAX)
def test_what_is_no_softmax(name):
    def fn(x):
        u = x @ SQUARE
        return NO_SOFTMAX[name](jnp.exp(u), u)

    assert "softmax" not in kinds_of(fn)


NO_NORM = {
    "the statistic of another axis": lambda y: y / jnp.sqrt((y * y).mean(-1))[:, None, :],
    "the statistic of another row": lambda y: y / jnp.sqrt((y * y).mean(-1))[:, ::-1, None],
    "the statistic of another layer": lambda y: (
        y / jnp.sqrt(((sample() * y[:1, :1, :1]) ** 2).mean(-1, keepdims=True))
    ),
    "the sizes of rows and of columns": lambda y: (
        y / (jnp.abs(y).sum(-1, keepdims=True) * jnp.abs(y).sum(-2, keepdims=True))
    ),
    "weights before the sum": lambda y: y / jnp.sqrt((SQUARE[0] * y * y).sum(-1, keepdims=True)),
    "a power that multiplies": lambda y: y * (y * y).mean(-1, keepdims=True) ** 1.5,
    "a factor that multiplies": lambda y: y * jnp.sqrt((y * y).mean(-1, keepdims=True)),
    "squares beside their sum": lambda y: (
        jnp.broadcast_to(y[..., None], (*y.shape, 2))
        / jnp.sqrt((y * y).sum(-1, keepdims=True) + y * y)[..., None]
    ),
    "a sigmoid of the mean": lambda y: y * jax.nn.sigmoid(y.mean(-1, keepdims=True)),
}


@pytest.mark.parametrize("name", NO_NORM)
def test_what_is_no_norm(name):
    assert "norm" not in kinds_of(lambda x: NO_NORM[name](x @ SQUARE))
    assert "norm" not in kinds_of(lambda x: NO_NORM[name](x[..., :5]))


def test_a_statistic_that_is_computed_before_a_gate_is_part_of_the_norm():
    """The norm is the division alone, and its statistic no layer."""

    def fn(x):
        h = x @ SQUARE
        divisor = jnp.sqrt((h * h).mean(-1, keepdims=True))
        return h * (x @ weights(WIDTH, 5, seed=1)) / divisor

    assert kinds_of(fn) == ["dense", "dense", "product", "norm"]


def test_the_size_of_a_norm_beside_it_is_a_factor():
    """What a norm divides by is held where it multiplies what the norm made, and nowhere else."""

    def fn(x):
        size = jnp.sqrt((x * x).mean(-1, keepdims=True))
        return (x / size) @ SQUARE + jnp.tanh(x) @ SQUARE * size

    found = kinds_of(fn)
    assert (found.count("norm"), found.count("product")) == (1, 1)


def test_a_shift_by_the_maximum_of_another_layer_is_a_sum():
    w, v = weights(WIDTH, 5, seed=1), weights(5, 3)

    def shifted(x):
        return x @ SQUARE - (x @ w).max(-1, keepdims=True)

    def by_hand(x):
        e = jnp.exp(shifted(x))
        return e / e.sum(-1, keepdims=True) @ v

    found, wanted = (
        in_numpy(lrp.explain(fn, RULES["attn"]))(sample())
        for fn in (by_hand, lambda x: jax.nn.softmax(shifted(x)) @ v)
    )
    assert_close(found, wanted)


@pytest.mark.parametrize(
    "made",
    [
        jax.nn.log_softmax,
        lambda u: jnp.tanh(1.0 - 4.0 * jnp.exp(u) / jnp.exp(u).sum(-1, keepdims=True)),
    ],
    ids=["logarithms", "four times a share"],
)
def test_what_is_made_of_shares_may_be_negative(made):
    v, passes = weights(5, 3), dict.fromkeys(("softmax", "affine", "activation"), lrp.Pass())
    u = weights(4, 5, seed=2)
    rules = {"dense": lrp.ZPlus(), **passes}
    wanted = in_numpy(lrp.explain(lambda h: h @ v, lrp.ZPlus()))(made(u))
    assert_close(in_numpy(lrp.explain(lambda u: made(u) @ v, rules))(u), wanted)


def test_a_softmax_over_a_mapped_axis():
    w, v = weights(WIDTH, 5), weights(5, WIDTH, seed=1)

    def mapped(u):
        def row(u):
            e = jnp.exp(u - lax.pmax(lax.stop_gradient(u), "keys"))
            return e / lax.psum(e, "keys")

        return jax.vmap(row, in_axes=2, out_axes=2, axis_name="keys")(u)

    spellings = {
        "axis": lambda x: jax.nn.softmax(x @ w) @ v,
        "mapped": lambda x: mapped(x @ w) @ v,
    }
    assert kinds_of(spellings["mapped"]) == ["dense", "softmax", "dense"]
    assert_same(explained(spellings, RULES["attn"]))


@pytest.mark.parametrize("shut", ["nothing", "a part of a row", "a row"])
@pytest.mark.parametrize("rules", ["attn", "cp"])
def test_a_softmax_over_two_axes_whose_sum_is_taken_in_steps(rules, shut):
    w, v, x = weights(WIDTH, 5), weights(5, 2), weights(4, 3, WIDTH, seed=1)
    mask = np.ones((4, 3, 5), bool)
    mask[{"nothing": [], "a part of a row": (0, 2), "a row": 1}[shut]] = False

    def network(softmax):
        return lambda x: (softmax(jnp.where(mask, x @ w, -jnp.inf)) @ v)[jnp.array([0, 2, 3])]

    def in_steps(u):
        e = jnp.exp(u - u.max((-1, -2), keepdims=True))
        return e / e.sum(-1).sum(-1)[:, None, None]

    whole, steps = (
        in_numpy(lrp.explain(network(f), RULES[rules]))(x)
        for f in (lambda u: jax.nn.softmax(u, (-2, -1)), in_steps)
    )
    assert_close(steps, whole)


def test_a_mask_that_is_added_is_no_bias_of_the_layer_before():
    k, v, mask = weights(WIDTH, 5), weights(5, 2), np.arange(5) != 3
    x = weights(4, WIDTH, seed=1)

    def added(x):
        return jax.nn.softmax(x @ k + jnp.where(mask, 0.0, -jnp.inf)) @ v

    def chosen(x):
        return jax.nn.softmax(jnp.where(mask, x @ k, -jnp.inf)) @ v

    found, wanted = (in_numpy(lrp.explain(fn, lrp.Gamma()))(x) for fn in (added, chosen))
    assert_close(found, wanted)


@pytest.mark.parametrize("numbers", [np, jnp], ids=["numpy", "jax"])
def test_a_softmax_over_segments(numbers):
    """Of its own segment; over the sum of another one an exponential is none."""
    x, w, v, owner = (
        weights(5, WIDTH),
        weights(WIDTH, 1)[:, 0],
        weights(5, 2),
        numbers.arange(5) // 2,
    )

    def over(read):
        def fn(x):
            e = jnp.exp(x @ w)
            return (e / jax.ops.segment_sum(e, owner, 3)[read]) @ v

        return fn

    def apart(x):
        return jnp.concatenate([jax.nn.softmax(u) for u in jnp.split(x @ w, [2, 4])]) @ v

    found, wanted = (in_numpy(lrp.explain(fn, RULES["attn"]))(x) for fn in (over(owner), apart))
    assert_close(found, wanted)
    plan = lrp.plan(over(owner[::-1]), RULES["attn"])(x)
    assert plan.count("softmax") == 0


# --- linear attention


def phi(u):
    return jax.nn.elu(u) + 1


def linear_attention(q, k, v):
    a, b = phi(q), phi(k)
    state = jnp.einsum("bshm,bshd->bhmd", b, v)
    total = jnp.einsum("bthm,bhm->bth", a, b.sum(1))
    return jnp.einsum("bthm,bhmd->bthd", a, state) / total[..., None]


def linear_attention_by_matmul(q, k, v):
    a, b, v = (u.transpose(0, 2, 1, 3) for u in (phi(q), phi(k), v))
    out = (a @ (b.swapaxes(-1, -2) @ v)) / (a @ b.sum(2)[..., None])
    return out.transpose(0, 2, 1, 3)


def causal_linear_attention(q, k, v):
    a, b = phi(q), phi(k)
    state = jnp.cumsum(jnp.einsum("bshm,bshd->bshmd", b, v), 1)
    total = jnp.einsum("bthm,bthm->bth", a, jnp.cumsum(b, 1))
    return jnp.einsum("bthm,bthmd->bthd", a, state) / total[..., None]


def masked_linear_attention(q, k, v):
    w = jnp.einsum("bthm,bshm->bhts", phi(q), phi(k)) * CAUSAL
    total = w.sum(-1).transpose(0, 2, 1)[..., None]
    return jnp.einsum("bhts,bshd->bthd", w, v) / total


@pytest.mark.parametrize("rule", RULES)
def test_linear_attention(rule):
    p = parameters()
    cores = {"einsum": linear_attention, "matmul": linear_attention_by_matmul}
    found = explained(
        {name: functools.partial(attention, core, p) for name, core in cores.items()}, RULES[rule]
    )
    rows = [
        attention_reference.linear_relevance(p, HEADS, x, s, rule)
        for x, s in zip(sample(), SEED, strict=True)
    ]
    for relevance, value in found.values():
        assert_close(value, np.stack([row[1] for row in rows]), what="the value")
        assert_close(relevance, np.stack([row[0] for row in rows]))


@pytest.mark.parametrize("rule", RULES)
def test_linear_attention_conserves(rule):
    p = parameters(bias=False)
    cores = (linear_attention, causal_linear_attention, masked_linear_attention)
    fns = {core.__name__: functools.partial(attention, core, p) for core in cores}
    for fn in fns.values():
        assert "softmax" not in kinds_of(fn) and "norm" not in kinds_of(fn)
    for relevance, value in explained(fns, RULES[rule]).values():
        np.testing.assert_allclose(relevance.sum(), np.sum(SEED * value), rtol=1e-10)


def test_the_scores_of_a_softmax_that_mixes_values():
    # One query, two keys, by hand: w = (0.75, 0.25), v = (2, 4), o = 2.5, the scores log 3 and 0.
    # Half of o goes to the pairs' weights: 0.75 and 0.5; Taylor: u_i (R_i - w_i sum R).
    u, v = jnp.array([np.log(3.0), 0.0]), jnp.array([2.0, 4.0])

    def fn(u, v):
        return jax.nn.softmax(u) @ v

    at_u, at_v = in_numpy(lrp.explain(fn, RULES["attn"], argnums=(0, 1)))(u, v)
    np.testing.assert_allclose(at_u, [np.log(3.0) * (0.75 - 0.75 * 1.25), 0.0], rtol=1e-12)
    np.testing.assert_allclose(at_v, [0.75, 0.5], rtol=1e-12)
    at_u, at_v = in_numpy(lrp.explain(fn, RULES["cp"], argnums=(0, 1)))(u, v)
    np.testing.assert_array_equal(at_u, [0, 0])
    np.testing.assert_allclose(at_v, [1.5, 1.0], rtol=1e-12)


def test_softmax_at_the_output_of_attention_logits():
    p = parameters()
    head = weights(WIDTH, 4)
    net = functools.partial(attention, attention_networks.PLAIN["einsum"], p)

    def logits(x):
        return net(x)[:, -1] @ head

    by_hand = {
        "log_softmax": lambda x: jax.nn.log_softmax(logits(x)),
        "minus logsumexp": lambda x: (lambda u: u - jax.nn.logsumexp(u, -1, keepdims=True))(
            logits(x)
        ),
    }
    for fn in by_hand.values():
        plan = lrp.plan(fn, RULES["attn"])(sample())
        assert plan.count("softmax") == 2
    found = explained(by_hand, RULES["attn"], seed=np.eye(4)[[1, 2]])
    assert_same(found)
