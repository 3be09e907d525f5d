"""A note of the plan where relevance passes a masked layer by, and what to mask as well."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxlrp as lrp
from tests.numpy_jaxpr import in_numpy

RNG = np.random.default_rng(0)
A, B, C, D, E = RNG.normal(size=(5, 4, 4)) / 2
X = RNG.normal(size=(3, 4))
MIXED = lrp.composites.attn_lrp()
HELD = lrp.composites.cp_lrp()


def noted(fn, condition, rules=MIXED, x=X):
    """The note of the kind, if there is one."""
    notes = lrp.plan(fn, rules)(x, condition=condition).notes
    found = [note for note in notes if note.kind == "open path"]
    assert len(found) < 2
    return found[0] if found else None


def chain(x):
    return jnp.tanh(jnp.tanh(x @ A) @ B) @ C


def block(x):
    h = jnp.tanh(x @ A)
    return (h + jnp.tanh(h @ B) @ C) @ D


def projected(x):
    h = jnp.tanh(x @ A)
    return (h @ E + jnp.tanh(h @ B) @ C) @ D


def blocks(x):
    for w, v in ((A, B), (C, D), (E, A)):
        x = x + jnp.tanh(x @ w) @ v
    return x


def dense_skips(x):
    for w in (A, B, C):
        x = jnp.concatenate([x, jnp.tanh(x[:, -4:] @ w)], -1)
    return x @ jnp.ones((16, 2))


def attention(x):
    q, k, v = x @ A, x @ B, x @ C
    return jax.nn.softmax(q @ k.T) @ v @ D


def looped(x):
    def step(h, w):
        return h + jnp.tanh(h @ w) @ D, None

    return lax.scan(step, x, jnp.stack([A, B, C]))[0]


def looped_chain(x):
    return lax.scan(lambda h, w: (jnp.tanh(h @ w), None), x, jnp.stack([A, B, C]))[0]


def branch(x):
    h = lax.cond(x.sum() > -100, lambda h: h @ B, lambda h: h, x @ A)
    return jnp.tanh(h) @ C


def both_branches(x):
    h = lax.cond(x.sum() > 0, lambda h: h @ B, lambda h: h @ D, x @ A)
    return jnp.tanh(h) @ C


def heads(x):
    h = jnp.tanh(x @ A)
    return h @ B, h @ C


def itself(x):
    return x @ A, x


FUNCTIONS = [
    chain,
    block,
    projected,
    blocks,
    dense_skips,
    attention,
    looped,
    looped_chain,
    branch,
    both_branches,
    heads,
]


@pytest.mark.parametrize("fn", [chain, looped_chain])
def test_a_chain_has_no_other_path(fn):
    plan = lrp.plan(fn, MIXED)(X)
    for layer in plan.layers:
        if layer.primitive != "scan":
            assert noted(fn, {layer.name: 0.5}) is None, layer.name


def test_an_identity_skip_is_closed_by_the_sum():
    note = noted(block, {"dense_2": np.array([0.0, 1.0, 0.0, 0.0])})
    assert note.layers == ("add_0",)
    assert note.text == (
        "Relevance reaches an explained value past 'dense_2', masked by condition=: 'add_0' also "
        "reads 'activation_0'. To stop it, mask 'add_0' too."
    )
    assert noted(block, {"add": 0.5}) is None
    assert noted(block, {"dense_0": 0.5}) is None


def test_a_layer_beside_is_masked_itself():
    note = noted(projected, {"dense_3": 0.0})
    assert note.layers == ("dense_1",)
    assert "'add_0' also reads 'dense_1'. To stop it, mask 'dense_1' too." in note.text
    assert noted(projected, {"dense_3": 0.0, "dense_1": 0.0}) is None


def test_the_input_itself_goes_round():
    note = noted(blocks, {"dense_1": 0.0})
    assert note.layers == ("add_0",)
    assert "'add_0' also reads an explained value" in note.text
    # The blocks after it have no other way to the input.
    assert noted(blocks, {"dense": 0.0}).layers == ("add_0",)
    assert noted(blocks, {"dense_5": 0.0}).layers == ("add_2",)


def test_what_is_concatenated():
    note = noted(dense_skips, {"dense_1": 0.0})
    plan = lrp.plan(dense_skips, MIXED)(X)
    named = {layer.name: layer.primitive for layer in plan.layers}
    assert [named[name] for name in note.layers] == ["concatenate"]


def test_the_two_paths_of_attention():
    assert noted(attention, {"dense_2": 0.0}).layers == ("softmax_0",)
    assert set(noted(attention, {"dense_0": 0.0}).layers) == {"dense_1", "dense_2"}
    # With the weights of attention as constants, values are the only path.
    assert noted(attention, {"dense_2": 0.0}, HELD) is None
    note = noted(attention, {"dense_0": 0.0}, HELD)  # queries get nothing
    assert "'dense_3' is an output that sends no relevance there" in note.text


def test_a_gate_that_gets_nothing_is_no_path():
    def gated(x):
        return jax.nn.sigmoid(x @ A) * (x @ B)

    assert noted(gated, {"dense_1": 0.0}).layers == ("activation_0",)
    assert noted(gated, {"dense_1": 0.0}, {"product": lrp.SignalTakesAll()}) is None
    assert noted(gated, {"dense_0": 0.0}, {"product": lrp.SignalTakesAll(signal=0)}) is None


@pytest.mark.parametrize(
    "product",
    [lambda x, h: (x @ B) @ (h.T @ h), lambda x, h: (x @ B).sum(-1) + jnp.einsum("bi,bi->b", h, h)],
    ids=["of a moved value", "of one input"],
)
def test_a_product_with_itself_takes_all(product):
    def fn(x):
        return product(x, x @ A)

    rules = {"matmul": lrp.SignalTakesAll(signal=1)}
    assert noted(fn, {"dense_1": 0.0}, rules) is not None
    assert jnp.any(lrp.explain(fn, rules)(X, condition={"dense_1": 0.0}) != 0)


def test_loops_and_branches():
    note = noted(looped, {"dense_1": 0.0})
    assert note.layers == ("add_0",)
    assert noted(branch, {"dense_1": 0.0}).layers == ("activation_0",)
    assert noted(both_branches, {"dense_1": 0.0}).layers == ("dense_2",)
    assert noted(both_branches, {"dense_1": 0.0, "dense_2": 0.0}) is None


def test_outputs_that_do_not_come_from_the_masked_layer():
    note = noted(heads, {"dense_1": 0.0})
    assert note.layers == ("dense_2",)
    assert "'dense_2' is an output that sends no relevance there" in note.text
    note = noted(itself, {"dense_0": 0.0})
    assert note.layers == ()
    assert note.text.endswith("an explained value is an output itself, which no mask closes.")


@pytest.mark.parametrize("rules", [MIXED, HELD], ids=["attn_lrp", "cp_lrp"])
@pytest.mark.parametrize("fn", FUNCTIONS, ids=lambda fn: fn.__name__)
def test_the_note_says_what_arrives(fn, rules):
    """Every pair of layers masked with zeros: relevance arrives just where the plan says so."""
    plan = lrp.plan(fn, rules)(X)
    names = [y.name for y in plan.layers if y.primitive not in ("scan", "cond")]
    explain = in_numpy(lrp.explain(fn, rules))
    for pair in itertools.combinations_with_replacement(names, 2):
        condition = dict.fromkeys(pair, 0.0)
        note = noted(fn, condition, rules)
        R = explain(X, condition=condition)
        taken = bool(np.any(R != 0))
        if fn in (branch, both_branches):  # the branch that is not taken may be open
            assert note is not None or not taken, pair
        else:
            assert (note is not None) == taken, (pair, note)
        if note is not None:
            more = condition | dict.fromkeys(note.layers, 0.0)
            assert noted(fn, more, rules) is None, (pair, note)


def test_a_kept_plan_has_no_note_of_another_call():
    condition = {"dense_2": 0.5}
    assert noted(block, condition) is not None
    assert lrp.plan(block, MIXED)(X).notes == ()
    assert "note: Relevance reaches" in str(lrp.plan(block, MIXED)(X, condition=condition))
