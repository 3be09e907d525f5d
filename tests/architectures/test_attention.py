"""Attention in every spelling has the relevance of the loops in tests/attention_reference.py."""

from __future__ import annotations

import functools
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp as lrp
from tests import attention_networks, attention_reference
from tests.attention_families import FAMILIES
from tests.attention_networks import RULES, SEED, attention, parameters, sample
from tests.compare import assert_close
from tests.numpy_jaxpr import in_numpy

CASES = [(family, name) for family, entry in FAMILIES.items() for name in entry[-1]]
# One spelling of each sort, for the tests that compare two ways of calling.
SOME = [
    ("plain", "vmap over queries"),
    ("plain", "sums of products"),
    ("causal", "where, -inf"),
    ("grouped", "einsum"),
    ("RoPE, neighbours", "complex"),
    ("talking heads", "einsum"),
]
# Layers that a spelling has beyond those of its family.
OTHER = {
    "loop over heads": {"matmul": 2, "softmax": 1},
    "by matrices": {"dense": 2},
    # Masked or shifted scores are cast to float32: a rounding, and so an activation.
    ("relative", "dot_product_attention"): {"activation": 1},
    "is_causal": {"activation": 1},
    "mask of dot_product_attention": {"activation": 1},
}


def network(family, name, bias=True):
    _, groups, heads, _, spellings = FAMILIES[family]
    p = parameters(heads=heads, groups=groups, bias=bias)
    return functools.partial(attention, spellings[name], p)


@functools.cache
def reference(family, rule):
    spec, groups, heads, _, _ = FAMILIES[family]
    p = parameters(heads=heads, groups=groups)
    pairs = list(zip(sample(), SEED, strict=True))
    values = np.stack([attention_reference.forward(p, spec, x).out for x, _ in pairs])
    found = [attention_reference.relevance(p, spec, x, s, rule) for x, s in pairs]
    return values, np.stack(found)


def tolerance(name):
    # dot_product_attention forms its softmax in float32, whatever the input.
    return 1e-6 if "dot_product_attention" in name or name == "is_causal" else 1e-9


@functools.cache
def explained(family):
    """Every spelling: value and relevance under both rules, and under cp without biases."""

    def every(x):
        found = {}
        for name in FAMILIES[family][-1]:
            fn, bare = network(family, name), network(family, name, bias=False)
            rules = {rule: lrp.explain(fn, RULES[rule])(x, target=SEED) for rule in RULES}
            conserved = lrp.value_and_relevance(bare, RULES["cp"])(x, target=SEED)
            found[name] = fn(x), rules, conserved
        return found

    return in_numpy(every)(sample())


@pytest.mark.parametrize(("family", "name"), CASES)
def test_the_reference(family, name):
    value, found, _ = explained(family)[name]
    for rule in RULES:
        expected_value, expected = reference(family, rule)
        assert_close(value, expected_value, tolerance(name), "the value")
        assert_close(found[rule], expected, tolerance(name), rule)


@pytest.mark.parametrize(("family", "name"), CASES)
def test_cp_conserves_without_biases(family, name):
    _, _, (value, relevance) = explained(family)[name]
    seeded = np.sum(SEED * value, (1, 2))
    scale = np.abs(relevance).sum((1, 2)) + np.abs(seeded)
    assert np.all(np.abs(np.sum(relevance, (1, 2)) - seeded) <= 1e-10 * scale)


@pytest.mark.parametrize(("family", "name"), CASES)
def test_the_layers(family, name):
    plan = lrp.plan(network(family, name), RULES["attn"])(sample())
    expected = Counter({"dense": 4, "matmul": 2, "softmax": 1})
    expected.update(FAMILIES[family][3])
    expected.update(OTHER.get(name, OTHER.get((family, name), {})))
    counted = ("dense", "matmul", "product", "softmax", "norm", "activation")
    assert {k: plan.count(k) for k in counted} == {k: expected[k] for k in counted}


@pytest.mark.parametrize(("family", "name"), SOME)
def test_a_batch_is_its_sequences(family, name):
    fn, x = network(family, name), sample()
    one = lrp.explain(lambda row: fn(row[None])[0], RULES["attn"])
    rows = in_numpy(jax.vmap(lambda row, seed: one(row, target=seed)))(x, SEED)
    assert_close(rows, reference(family, "attn")[1])
    inside = jax.vmap(lambda row: fn(row[None])[0])
    explain = in_numpy(lrp.explain(inside, RULES["attn"]))
    assert_close(explain(x, target=SEED), rows)


@pytest.mark.parametrize(("family", "name"), SOME[2:3])
def test_eager_is_jit(family, name):
    fn, x = network(family, name), sample()
    eager = lrp.explain(fn, RULES["attn"])(x, target=SEED)  # each operation compiled by itself
    assert_close(eager, reference(family, "attn")[1])
    inside = lrp.explain(jax.jit(fn), RULES["attn"])
    assert_close(in_numpy(inside)(x, target=SEED), eager)


def test_the_heads_of_a_group_share_its_keys():
    # By hand: with one key and value head, all that V receives is the sum over the query heads.
    p = parameters(heads=4, groups=1, bias=False)
    fn = functools.partial(attention, attention_networks.by_groups, p)
    explain = in_numpy(lrp.explain(fn, RULES["cp"], layers=["dense"]))
    relevance, layers = explain(sample(), target=SEED)
    at_values = [r for r in layers.values() if r.shape == (2, 5, 4)]
    received = [float(np.sum(r)) for r in at_values if np.any(r)]
    np.testing.assert_allclose(received, [np.sum(relevance)], rtol=1e-9)


# --- what attention is fed with


def cross(p, queries, memory):
    return attention(attention_networks.PLAIN["einsum"], p, queries, memory)


@pytest.mark.parametrize("rule", RULES)
def test_cross_attention_with_both_sequences_explained(rule):
    p = parameters(memory_width=4)
    x, memory = sample(), np.random.default_rng(9).normal(size=(2, 7, 4))
    explain = in_numpy(lrp.explain(functools.partial(cross, p), RULES[rule], argnums=(0, 1)))
    found = explain(x, memory, target=SEED)
    spec = FAMILIES["plain"][0]
    rows = [
        attention_reference.relevance(p, spec, a, s, rule, m)
        for a, s, m in zip(x, SEED, memory, strict=True)
    ]
    for index, relevance in enumerate(found):
        assert_close(relevance, np.stack([row[index] for row in rows]))
    as_tree = lrp.explain(lambda d: cross(p, d["x"], d["memory"]), RULES[rule])
    by_name = in_numpy(as_tree)({"x": x, "memory": memory}, target=SEED)
    assert_close(by_name["memory"], found[1])


def test_cross_attention_to_static_memory_has_dense_layers():
    p = parameters(memory_width=4)
    x, memory = sample(), np.random.default_rng(9).normal(size=(2, 7, 4))
    plan = lrp.plan(functools.partial(cross, p), RULES["attn"])(x, memory)
    assert (plan.count("dense"), plan.count("matmul"), plan.count("softmax")) == (4, 0, 1)
    # Values that are not explained take their whole share with them.
    only = in_numpy(lrp.explain(functools.partial(cross, p), RULES["attn"]))
    both = in_numpy(lrp.explain(functools.partial(cross, p), RULES["attn"], argnums=(0, 1)))
    expected = 4 * both(x, memory, target=SEED)[0]  # twice a half less
    assert_close(only(x, memory, target=SEED), expected)


def step(p, token, keys, values, mask=None):
    """One new token attends to cached keys and values."""
    split = attention_networks.split
    q = split(token @ p["q"] + p["bq"])
    u = attention_networks.scores(q, keys)
    w = jax.nn.softmax(u if mask is None else jnp.where(mask, u, -jnp.inf))
    out = attention_networks.weighted(w, values)
    return out.reshape(*out.shape[:2], -1) @ p["o"] + p["bo"]


@pytest.mark.parametrize("rule", RULES)
def test_cached_keys(rule):
    """A cache of fixed length, written in place, is a list that grows."""
    p, x = parameters(), sample()
    past = 3

    def project(name, a):
        return attention_networks.split(a @ p[name] + p[f"b{name}"])

    def in_place(token, keys, values):
        start = (0, past, 0, 0)
        keys = jax.lax.dynamic_update_slice(keys, project("k", token), start)
        values = jax.lax.dynamic_update_slice(values, project("v", token), start)
        return step(p, token, keys, values, jnp.arange(keys.shape[1]) <= past)

    def growing(token, keys, values):
        keys = jnp.concatenate([keys, project("k", token)], 1)
        return step(p, token, keys, jnp.concatenate([values, project("v", token)], 1))

    token, seed = x[:, past : past + 1], SEED[:, :1]
    keys, values = project("k", x[:, :past]), project("v", x[:, :past])
    room = [(0, 0), (0, 4), (0, 0), (0, 0)]
    fixed = jnp.pad(keys, room), jnp.pad(values, room)
    explain = in_numpy(lrp.explain(in_place, RULES[rule], argnums=(0, 1, 2)))
    at_token, at_keys, at_values = explain(token, *fixed, target=seed)
    other = in_numpy(lrp.explain(growing, RULES[rule], argnums=(0, 1, 2)))
    expected = other(token, keys, values, target=seed)
    assert_close(at_token, expected[0])
    assert_close(at_keys[:, :past], expected[1])
    assert_close(at_values[:, :past], expected[2])
    assert not np.any(at_keys[:, past:]) and not np.any(at_values[:, past:])
    # With the cache static, the token has the same relevance.
    assert_close(in_numpy(lrp.explain(in_place, RULES[rule]))(token, *fixed, target=seed), at_token)
