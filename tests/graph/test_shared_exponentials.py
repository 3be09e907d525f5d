"""Softmaxes over different axes that share one exponential, as in dual-softmax matching."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxlrp as lrp
from tests.compare import assert_close
from tests.numpy_jaxpr import in_numpy

RNG = np.random.default_rng(8)
X, W = RNG.normal(size=(3, 4)), RNG.normal(size=(4, 4))


def plainly(u):
    return jax.nn.softmax(u, -1), jax.nn.softmax(u, 0)


def shared(u):
    e = jnp.exp(u)
    return e / e.sum(-1, keepdims=True), e / e.sum(0, keepdims=True)


def with_a_shift(u):
    e = jnp.exp(u - u.max())
    return e / (e.sum(-1, keepdims=True) + 1e-300), e / e.sum(0, keepdims=True)


def with_a_stopped_shift(u):
    e = jnp.exp(u - lax.stop_gradient(jnp.maximum(u.max(0, keepdims=True).max(), -1e9)))
    return e / (e @ jnp.ones((4, 1))), e / e.sum(0, keepdims=True)


def by_reciprocals(u):
    e = jnp.exp(u)
    return e * (1 / e.sum(-1, keepdims=True)), e.sum(0, keepdims=True) ** -1 * e


def with_moves(u):
    e = jnp.exp(u)
    across = e.T
    return e / e.sum(-1, keepdims=True), (across / across.sum(-1)[:, None]).T


def with_moved_terms(u):
    e = jnp.exp(u)
    return (e[None] / e.sum(-1)[None, :, None])[0], e / e.T.sum(-1)


SPELLINGS = [
    shared,
    with_a_shift,
    with_a_stopped_shift,
    by_reciprocals,
    with_moves,
    with_moved_terms,
]
RULES = {
    "default": {},
    "attn_lrp": lrp.composites.attn_lrp(),
    "cp_lrp": lrp.composites.cp_lrp(),
    "gradient": {"softmax": lrp.Gradient()},
}


def network(softmaxes):
    def fn(x):
        u = x @ W
        return jnp.concatenate([s @ (x @ W.T).sum(0)[:, None] for s in softmaxes(u)], -1)

    return fn


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("softmaxes", SPELLINGS, ids=lambda f: f.__name__)
def test_softmaxes_that_share_an_exponential(softmaxes, rules):
    assert_close(network(softmaxes)(X), network(plainly)(X), 1e-12)
    expected = in_numpy(lrp.explain(network(plainly), RULES[rules]))(X)
    assert_close(in_numpy(lrp.explain(network(softmaxes), RULES[rules]))(X), expected, 1e-10)
    kinds = [y.kind for y in lrp.plan(network(softmaxes), RULES[rules])(X).layers]
    assert kinds.count("softmax") == 2 and "norm" not in kinds


def test_an_exponential_that_is_an_output_too():
    def with_it(softmaxes):
        return lambda x: jnp.concatenate([*softmaxes(x @ W), jnp.exp(x @ W)])

    expected = in_numpy(lrp.explain(with_it(plainly), {}))(X)
    assert_close(in_numpy(lrp.explain(with_it(shared), {}))(X), expected, 1e-10)
