"""A stopped term stays with the term whose value it replaces or restores, in any order of a sum."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxlrp as lrp
from tests.common import draw
from tests.compare import assert_close
from tests.numpy_jaxpr import in_numpy

W, V, X = draw(4, 4), draw(4, 3), draw(5, 4)
stop = lax.stop_gradient


def plain_lse(z, axis=-1, keepdims=False):
    return jnp.log(jnp.exp(z).sum(axis, keepdims=keepdims))


def shifted_lse(z, axis=-1, keepdims=False):
    m = stop(z.max(axis, keepdims=True))
    s = jnp.log(jnp.exp(z - m).sum(axis, keepdims=True)) + m
    return s if keepdims else s.squeeze(axis)


def of_jax(z, axis=-1, keepdims=False):
    return jax.nn.logsumexp(z, axis, keepdims=keepdims)


# With `lse` a logsumexp in any spelling.
SUMS = {
    "and a value": lambda lse, x: lse(x @ W) + x[:, 0],
    "a value and it": lambda lse, x: x[:, 0] + lse(x @ W),
    "a cross entropy": lambda lse, x: lse(x @ W) - (x @ W)[:, 1],
    "a log-probability": lambda lse, x: (x @ W)[:, 1] - lse(x @ W),
    "two of them": lambda lse, x: (x[:, 0] + lse(x @ W)) + lse(x @ V),
    "a step of a chain": lambda lse, x: lse((x @ W)[:, :, None] + x[:, None], axis=1) + x @ W.T,
    "along with a bias": lambda lse, x: (lse(x @ W, keepdims=True) + x) + W[0],
    "in a loop": lambda lse, x: lax.scan(lambda c, t: (lse(c[:, None] + W) + t, None), x[0], x[1:])[
        0
    ],
}
RULES = {
    "zero": lrp.Epsilon(0.0),
    "epsilon": lrp.Epsilon(0.1),
    "zplus": lrp.ZPlus(),
    "attention": lrp.composites.attn_lrp(),
}


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("name", SUMS)
def test_the_maximum_of_a_logsumexp_is_its_own(name, rules):
    found = [
        in_numpy(lrp.explain(lambda x, lse=lse: SUMS[name](lse, x), RULES[rules]))(X)
        for lse in (plain_lse, shifted_lse, of_jax)
    ]
    for other in found[1:]:
        assert_close(other, found[0], 1e-9)


ROUNDS = [
    lambda h: jnp.round(h),
    lambda h: h + stop(jnp.round(h) - h),
    lambda h: stop(jnp.round(h)) + (h - stop(h)),
    lambda h: stop(jnp.round(h) - h) + h,
    lambda h: h - stop(h - jnp.round(h)),
]
AROUND = {
    "and a value": lambda q, x: q(2 * jnp.sinh(x @ W)) + x,
    "minus it": lambda q, x: x - q(2 * jnp.sinh(x @ W)),
    "of a layer": lambda q, x: q(x @ W) + jnp.tanh(x @ W.T),
    "of the input": lambda q, x: (q(2 * x) + jnp.tanh(x @ W)) + x @ W.T,
    "two rounds": lambda q, x: q(2 * x) + (q(3 * jnp.sin(x)) + x),
}


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("name", AROUND)
def test_a_straight_through_round_is_the_round(name, rules):
    found = [
        in_numpy(lrp.explain(lambda x, q=q: AROUND[name](q, x) @ V, RULES[rules]))(X)
        for q in ROUNDS
    ]
    for other in found[1:]:
        assert_close(other, found[0], 1e-9)


def test_by_hand():
    zero = lrp.Epsilon(0.0)
    z = jnp.array([3.0, 3.0, 2.0])
    found = in_numpy(lrp.explain(lambda z: jax.nn.logsumexp(z[:2]) + z[2], zero))(z)
    np.testing.assert_allclose(found, [1.5, 1.5, 2.0], rtol=1e-12)
    z = jnp.array([0.6, 2.0])
    for q in ROUNDS:
        found = in_numpy(lrp.explain(lambda z, q=q: q(z[:1]) + z[1:], zero))(z)
        np.testing.assert_allclose(found, [1.0, 2.0], rtol=1e-12)


def test_another_stopped_term_belongs_to_the_whole_sum():
    def fn(x):
        return x[:1] + (x[1:] + stop(jnp.exp(x[1:])))

    x = jnp.array([1.0, 3.0])
    found = in_numpy(lrp.explain(fn, lrp.Epsilon(0.0)))(x)
    np.testing.assert_allclose(found, fn(x) * np.array([0.25, 0.75]), rtol=1e-12)


WHOLE = {
    "twice": [
        lambda u, v, m: (u + v) + m + m,
        lambda u, v, m: (u + v) + 2 * m,
        lambda u, v, m: (u + m) + (v + m),
    ],
    "what modulates a term too": [
        lambda u, v, m: (u * m + v) + m,
        lambda u, v, m: (u * m + m) + v,
    ],
    "the maximum once more": [
        lambda u, v, m: (plain_lse(3 * u, keepdims=True) + v) + stop((3 * u).max(-1)[:, None]),
        lambda u, v, m: (shifted_lse(3 * u, keepdims=True) + v) + stop((3 * u).max(-1)[:, None]),
        lambda u, v, m: (stop((3 * u).max(-1)[:, None]) + v) + of_jax(3 * u, keepdims=True),
    ],
    "beside a straight-through round": [
        lambda u, v, m: (jnp.round(3 * u) + v) + stop(jnp.exp(3 * u)),
        lambda u, v, m: ((3 * u + stop(jnp.round(3 * u) - 3 * u)) + v) + stop(jnp.exp(3 * u)),
        lambda u, v, m: ((3 * u + stop(jnp.exp(3 * u))) + v) + stop(jnp.round(3 * u) - 3 * u),
    ],
}


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("name", WHOLE)
def test_what_neither_restores_nor_replaces_belongs_to_the_whole_sum(name, rules):
    def network(x, f):
        return f(jnp.tanh(x @ W), jnp.sinh(x @ W.T), stop(jnp.cos(x @ W))) @ V

    found = [
        in_numpy(lrp.explain(lambda x, f=f: network(x, f), RULES[rules]))(X) for f in WHOLE[name]
    ]
    for other in found[1:]:
        assert_close(other, found[0], 1e-9)


def test_a_stopped_term_that_modulates_by_hand():
    def fn(x):
        m = stop(jnp.exp(x[:1]))
        return (x[:1] * m + x[1:]) + m

    x = jnp.array([1.0, 2.0])
    shares = np.array([np.e, 2.0])
    found = in_numpy(lrp.explain(fn, lrp.Epsilon(0.0)))(x)
    np.testing.assert_allclose(found, fn(x) * shares / shares.sum(), rtol=1e-12)
