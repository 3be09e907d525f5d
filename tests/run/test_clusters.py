"""Elementwise equations of rules run together outside `jit`; the network's own run one by one."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp as lrp
from jaxlrp.run import clusters, replay, reuse
from tests.compare import assert_leaves_close

RNG = np.random.default_rng(0)
W, V = RNG.normal(size=(2, 4, 4))
B = RNG.normal(size=4)
X = RNG.normal(size=(3, 4))


def network(x):
    h = jax.nn.relu((x @ W + B) * jax.lax.rsqrt(jnp.square(B) + 1e-3))
    h = h + jnp.tanh(h @ V)
    return jax.nn.softmax(h @ W) @ V, h


def low(x):
    h = jax.nn.gelu(x.astype(jnp.bfloat16) @ jnp.asarray(W, jnp.bfloat16))
    return (h * jnp.asarray(B, jnp.bfloat16)).astype(jnp.float32)


RULES = {name: getattr(lrp.composites, name)() for name in ("epsilon_plus", "attn_lrp", "lrp_zero")}


def one_by_one(graph, own):
    return [clusters._piece(graph, [eqn]) for eqn in graph.eqns]


def kept():
    """What was kept of the only plan."""
    ((_, planned),) = reuse._plans.values()
    (equations,) = planned.programs.values()
    return equations


@pytest.mark.parametrize("rules", RULES.values(), ids=RULES)
@pytest.mark.parametrize("fn", [network, low], ids=lambda f: f.__name__)
def test_what_comes_out_is_the_same(fn, rules, monkeypatch):
    reuse._plans.clear()
    both = lrp.value_and_relevance(fn, rules)
    value, found = both(X)
    assert sum(len(piece.eqns) > 1 for piece in kept()._pieces) > 0
    reuse._plans.clear()
    monkeypatch.setattr(replay, "pieces", one_by_one)
    again, alone = both(X)
    jax.tree.map(np.testing.assert_array_equal, value, again)
    assert_leaves_close(found, alone)


def test_equations_of_the_value_run_one_by_one():
    reuse._plans.clear()
    lrp.explain(network, RULES["epsilon_plus"], has_aux=True)(X)
    forward = len(jax.make_jaxpr(network)(X).eqns)
    equations = kept()
    own = set(equations._graph.outputs[:2])
    for piece in reversed(equations._pieces):
        if not own.isdisjoint(piece.outputs):
            assert len(piece.eqns) == 1
            own.update(piece.inputs)
            forward -= 1
    assert forward <= 0


def test_equal_pieces_are_one_program():
    def deep(x):
        for _ in range(6):
            x = jnp.tanh(x @ W)
        return x

    reuse._plans.clear()
    lrp.explain(deep, lrp.Epsilon(1e-3))(X)
    programs = [piece.function for piece in kept()._pieces if piece.function is not None]
    assert len(programs) >= 5
    assert len(set(programs)) <= 3
    reuse._plans.clear()


def test_what_is_not_elementwise_or_is_narrow_stands_apart():
    reuse._plans.clear()
    lrp.explain(low, RULES["epsilon_plus"])(X)
    for piece in kept()._pieces:
        if len(piece.eqns) > 1:
            names = {eqn.name for eqn in piece.eqns}
            assert names.isdisjoint({"dot_general", "reduce_sum", "convert_element_type"})
            assert not any(v.dtype == jnp.bfloat16 for eqn in piece.eqns for v in eqn.inputs)
