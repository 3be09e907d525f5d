"""Gradient-like rules act on a ReLU with a number before or after it, as on the ReLU alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp as lrp
from tests.common import draw

W, V, X, C = draw(4, 5), draw(5, 3), draw(6, 4), draw(5)
relu = jax.nn.relu

# Pairs: the number in the activation, and the same in the layers around it.
PAIRS = {
    "before": (lambda x: relu((x @ W + jnp.sin(x @ W)) / 2) @ V, None),
    "a sign before": (lambda x: relu(-(x @ W - C)) @ V, lambda x: relu(C - x @ W) @ V),
    "after": (lambda x: (3 * relu(x @ W)) @ V, lambda x: relu(x @ W) @ (3 * V)),
    "a sign after": (lambda x: (-relu(x @ W)) @ V, lambda x: relu(x @ W) @ -V),
    "both signs": (lambda x: (-relu(-(x @ W))) @ V, lambda x: relu(x @ -W) @ -V),
    "a minimum": (lambda x: jnp.minimum(x @ W, 0.0) @ V, lambda x: relu(x @ -W) @ -V),
}
RULES = {
    "guided": lrp.composites.guided_backprop(),
    "deconvnet": lrp.composites.deconvnet(),
    "beta": lrp.composites.beta_smooth(),
}


def by_hand(name, x):
    """The rules written out for relu(u / 2) @ V with u = h + sin(h) and h = x @ W."""
    h = x @ W
    u = (h + jnp.sin(h)) / 2
    arrived = jnp.broadcast_to(V.sum(1), u.shape)
    passed = {
        "guided": jnp.where(u > 0, jnp.maximum(arrived, 0), 0),
        "deconvnet": jnp.maximum(arrived, 0),
        # The number belongs to the activation: the smooth ReLU is one of 2 u.
        "beta": jax.nn.sigmoid(10.0 * 2 * u) * arrived,
    }[name]
    return (passed / 2 * (1 + jnp.cos(h))) @ W.T


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", PAIRS)
def test_numbers_beside_a_relu(name, rule):
    one, other = PAIRS[name]
    found = lrp.explain(one, RULES[rule])(X)
    expected = by_hand(rule, X) if other is None else lrp.explain(other, RULES[rule])(X)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
    assert np.abs(np.asarray(found) - jax.grad(lambda x: one(x).sum())(X)).max() > 1e-3


def test_what_is_not_a_relu_takes_its_derivative():
    for f in (jnp.tanh, jnp.abs, lambda h: jax.nn.leaky_relu(h, 0.1), jax.nn.relu6):

        def network(x, f=f):
            return f(x @ W) @ V

        found = lrp.explain(network, RULES["guided"])(X)
        expected = jax.grad(lambda x: network(x).sum())(X)
        np.testing.assert_allclose(found, expected, rtol=1e-9)
