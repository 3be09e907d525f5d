"""A user's own rule: a frozen dataclass with one method."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

import jaxlrp as lrp

RNG = np.random.default_rng(2)
W, V = jnp.asarray(RNG.normal(size=(4, 5))), jnp.asarray(RNG.normal(size=(5, 3)))
X = jnp.asarray(RNG.normal(size=(2, 4)))


@dataclasses.dataclass(frozen=True)
class SquaredContributions(lrp.LinearRule):
    """R_i = sum_j x_i^2 w_ij^2 / sum_i x_i^2 w_ij^2 R_j."""

    carries = "relevance"

    def propagate(self, layer):
        squares = layer.squares()
        z = squares(layer.x**2)
        return layer.x**2 * squares.T(layer.over(z, epsilon=self.epsilon))


@dataclasses.dataclass(frozen=True)
class SameAsEpsilon(lrp.LinearRule):
    def propagate(self, layer):
        return layer.map(signed=1).T(layer.over(layer.z, epsilon=self.epsilon))


@dataclasses.dataclass(frozen=True)
class Halve(lrp.Rule):
    """An activation that lets half of the relevance through."""

    carries = "relevance"

    def propagate(self, layer):
        return layer.relevance / 2


def net(x):
    return jax.nn.relu(x @ W) @ V


def test_against_a_loop():
    relevance = lrp.explain(net, {lrp.first("dense"): SquaredContributions()})(X, target=1)
    hidden = lrp.explain(net, lrp.Epsilon(), layers=[lrp.first("dense")])(X, target=1)[1]["dense_0"]
    expected = np.zeros(X.shape)
    for n in range(2):
        for j in range(5):
            parts = np.asarray(X[n] ** 2 * W[:, j] ** 2)
            expected[n] += parts / (parts.sum() + 1e-6) * hidden[n, j]
    np.testing.assert_allclose(relevance, expected, rtol=1e-9)


def test_the_shipped_rule_written_again():
    np.testing.assert_array_equal(
        lrp.explain(net, SameAsEpsilon())(X), lrp.explain(net, lrp.Epsilon())(X)
    )


def test_a_rule_for_activations():
    whole = lrp.explain(net, lrp.Epsilon())(X, target=0)
    rules = {"dense": lrp.Epsilon(), "activation": Halve()}
    np.testing.assert_allclose(lrp.explain(net, rules)(X, target=0), whole / 2, rtol=1e-12)


def test_it_jits_and_appears_in_the_plan():
    rules = {"dense": SquaredContributions(epsilon=0.25)}
    np.testing.assert_allclose(
        jax.jit(lrp.explain(net, rules))(X), lrp.explain(net, rules)(X), rtol=1e-12
    )
    assert "SquaredContributions(epsilon=0.25)" in str(lrp.plan(net, rules)(X))


def test_relevance_at_a_shut_relu_is_shared_by_the_true_pre_activation():
    """Flat above sends relevance to units that are off; below them z is negative, not 0."""
    rules = {lrp.first("dense"): lrp.Epsilon(), lrp.last("dense"): lrp.Flat()}
    relevance = lrp.explain(net, rules)(X, target=0)
    hidden = np.full((2, 5), 1 / (5 + 1e-6)) * np.asarray(net(X))[:, :1]
    z = np.asarray(X @ W)
    assert (z < 0).any()
    expected = np.asarray(X) * ((hidden / (z + 1e-6 * np.sign(z))) @ np.asarray(W).T)
    np.testing.assert_allclose(relevance, expected, rtol=1e-9)
