"""Layers that are alike are traced once under `jit`, and give what each would give by itself."""

from __future__ import annotations

import dataclasses
import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp as lrp
from jaxlrp.run import interpreter
from jaxlrp.run.alike import alike
from tests.compare import assert_leaves_close
from tests.graph.test_repeated_random import PIECES, RULES, chain
from tests.numpy_jaxpr import in_numpy

RNG = np.random.default_rng(0)
W, V = RNG.normal(size=(2, 4, 4))
X = RNG.normal(size=(3, 4))
E0 = lrp.composites.lrp_zero()


def classes(fn, rules=E0, x=X):
    """The layers that are alike, by the numbers of their equations in the plan."""
    plan = lrp.plan(fn, rules)(x)
    found: dict[object, list[str]] = {}
    for layer, key in alike(plan).items():
        found.setdefault(key, []).append(layer.name)
    return sorted(found.values())


def deep(n):
    def fn(x):
        for _ in range(n):
            x = jnp.tanh(x @ W)
        return x

    return fn


def test_a_rule_is_traced_once_for_all_layers(monkeypatch):
    calls, propagate = [], lrp.Pass.propagate

    def counted(self, layer):
        calls.append(layer)
        return propagate(self, layer)

    monkeypatch.setattr(lrp.Pass, "propagate", counted)
    explain = jax.jit(lrp.explain(deep(12), E0))
    R = explain(X)
    assert len(calls) == 1
    calls.clear()
    numbers = [len(jax.make_jaxpr(lrp.explain(deep(n), E0))(X).jaxpr.eqns) for n in (4, 8, 12)]
    assert numbers[2] - numbers[1] == numbers[1] - numbers[0]  # what they share is written out
    assert_leaves_close(R, lrp.explain(deep(12), E0)(X))


@dataclasses.dataclass(frozen=True)
class Own(lrp.Rule):
    """A rule of a user's own, which may look at anything."""

    def propagate(self, layer):
        return layer.vjp(layer.over(layer.z))


def full(number):
    return jnp.full((3, 4), number)


TANHS = [["activation_0", "activation_1"]]
APART = {
    "another number": lambda x: jnp.tanh(0.5 * jnp.tanh(0.25 * x)),
    "another axis": lambda x: jnp.cumsum(jnp.cumsum(x, 0), 1),
    "another shape": lambda x: jnp.tanh(jnp.tanh(x) @ W[:, :2]),
    "the same operand twice": lambda x: jnp.tanh(x) @ jnp.tanh(x).T @ (x @ W),
    "a number from outside": lambda x: jnp.tanh(full(2.0) * (jnp.tanh(full(-2.0) * x) @ W)),
    "another function": lambda x: jnp.sin(jnp.tanh(x)),
    "a sign that is known": lambda x: (jnp.abs(x) @ W) @ W,
}


@pytest.mark.parametrize("fn", APART.values(), ids=APART)
def test_what_differs_in_one_thing_is_not_alike(fn):
    found = [names for names in classes(fn) if len(names) > 1]
    assert found == [], found


def test_layers_under_different_rules_are_not_alike():
    assert len(classes(deep(2))) == 2
    rules = E0 | {"activation_0": lrp.Taylor()}
    assert classes(deep(2), rules) == [["dense_0", "dense_1"]]
    assert classes(deep(2), E0 | {"dense": Own()}) == TANHS
    # Equal rules are one object in a map; two of them may hold arrays, and are not compared.
    apart = {"dense_0": lrp.ZPlus(), "dense_1": lrp.ZPlus()}
    assert classes(deep(2), apart) == TANHS


def test_a_rule_with_a_traced_parameter_is_not_shared():
    def explained(epsilon):
        return lrp.explain(deep(3), {"dense": lrp.Epsilon(epsilon)})(X)

    assert_leaves_close(jax.jit(explained)(0.1), explained(0.1))
    assert_leaves_close(jax.jit(jax.vmap(explained))(jnp.array([0.1, 0.2]))[1], explained(0.2))


@pytest.mark.parametrize("seed", range(24))
def test_shared_functions_give_what_each_layer_gives(seed, monkeypatch):
    rng = random.Random(seed)
    kinds = rng.sample(list(PIECES), 4)
    fn = chain([PIECES[rng.choice(kinds)] for _ in range(8)])
    both = lrp.value_and_relevance(fn, RULES[seed % len(RULES)], layers="*_0")
    shared = jax.make_jaxpr(both)(X)
    found = in_numpy(both)(X)
    monkeypatch.setattr(interpreter, "alike", lambda plan: {})
    alone = jax.make_jaxpr(both)(X)
    assert_same_equations(shared, alone)
    assert_leaves_close(finite(found), finite(in_numpy(both)(X)))


def assert_same_equations(one, other):
    def words(closed):
        return sorted(eqn.primitive.name for eqn in closed.jaxpr.eqns)

    assert words(one) == words(other)


def finite(tree):
    return jax.tree.map(lambda a: jnp.where(jnp.isfinite(a), a, 0.0), tree)


def test_derivatives_of_relevance(monkeypatch):
    def loss(x, w):
        def fn(x):
            for _ in range(3):
                x = jax.nn.relu(x @ w) + jnp.tanh(x @ w)
            return x

        return jnp.square(lrp.explain(fn, lrp.composites.epsilon_plus())(x)).sum()

    def both(x, w):
        return jax.grad(loss, argnums=(0, 1))(x, w), jax.jvp(loss, (x, w), (x, w))

    found = jax.jit(both)(X, W)
    monkeypatch.setattr(interpreter, "alike", lambda plan: {})
    assert_leaves_close(found, jax.jit(both)(X, W))


def test_low_precision_and_integers(monkeypatch):
    def low(x):
        x = x.astype(jnp.bfloat16)
        for _ in range(3):
            x = jax.nn.gelu(x @ jnp.asarray(W, jnp.bfloat16))
        return x.astype(jnp.float32)

    def whole(x):
        for _ in range(2):
            x = jnp.round(8 * x).astype(jnp.int32).astype(jnp.float32) / 8 @ jnp.asarray(W)
        return x

    for fn in (low, whole):
        explain = lrp.explain(fn, lrp.composites.epsilon_plus())
        with monkeypatch.context() as patch:
            found = jax.jit(explain)(X)
            patch.setattr(interpreter, "alike", lambda plan: {})
            assert_leaves_close(found, jax.jit(lambda x, e=explain: e(x))(X))


def test_a_rule_whose_parameter_is_traced():
    def size(epsilon, x):
        rule = lrp.Epsilon(epsilon)
        return jnp.sum(lrp.explain(deep(3), {"dense": rule})(x) ** 2)

    for transform in (jax.grad, jax.jacfwd, lambda f: jax.vmap(f, (0, None))):
        e = jnp.array([0.3, 0.5]) if transform not in (jax.grad, jax.jacfwd) else 0.3
        eager, staged = transform(size)(e, X), jax.jit(transform(size))(e, X)
        np.testing.assert_allclose(staged, eager, rtol=1e-9)
