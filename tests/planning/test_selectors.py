"""Rule maps and selectors: which entry a layer gets."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxlrp as lrp

RNG = np.random.default_rng(1)
A, B, C = (jnp.asarray(RNG.normal(size=(4, 4))) for _ in range(3))
X = jnp.asarray(RNG.normal(size=(2, 4)))


def net(x):
    with jax.named_scope("body"):
        with jax.named_scope("block_0"):
            x = jax.nn.relu(x @ A)
        with jax.named_scope("block_1"):
            x = x + jax.nn.relu(x @ B)
    with jax.named_scope("head"):
        return x @ C


def rules_of(rules, fn=net):
    plan = lrp.plan(fn, rules)(X)
    return {layer.name: str(layer.rule) for layer in plan.layers}


def test_the_last_match_wins():
    rules = {"dense": lrp.ZPlus(), "body/**": lrp.Gamma(), "body/block_0": lrp.Flat()}
    found = rules_of(rules)
    assert (found["body/block_0"], found["body/block_1"], found["head"]) == (
        "Flat()",
        "Gamma()",
        "ZPlus()",
    )


def test_a_region_gives_a_rule_to_the_layers_that_it_fits():
    found = rules_of({"body/**": lrp.Gamma()})
    assert found["body/block_1"] == "Gamma()"
    assert found["body/block_1/relu"] == "Pass()"
    assert rules_of({lrp.inside("body"): lrp.Gamma()}) == found
    with pytest.raises(lrp.RuleError, match=r"fits none of the layers.*activation, add, dense"):
        rules_of({"body/**": lrp.Detach()})
    with pytest.raises(lrp.RuleError, match="activation layer"):  # named outright: a mistake
        rules_of({"body/block_1/relu": lrp.Gamma()})


def test_a_preset_with_overrides():
    rules = lrp.composites.epsilon_plus_flat() | {"**/head": lrp.Epsilon(0.1)}
    found = rules_of(rules)
    assert found["head"] == "Epsilon(epsilon=0.1)"
    assert found["body/block_0"] == "Flat()"
    plan = lrp.plan(net, rules)(X)
    assert plan.select("head")[0].why == "rule map: '**/head'"


def test_an_overriding_key_moves_to_the_end():
    rules = lrp.RuleMap({"head": lrp.Flat(), "dense": lrp.ZPlus()}) | {"head": lrp.Gamma()}
    assert rules_of(rules)["head"] == "Gamma()"
    turned = {"head": lrp.Flat()} | lrp.RuleMap({"dense": lrp.ZPlus()})
    assert isinstance(turned, lrp.RuleMap)
    assert rules_of(turned)["head"] == "ZPlus()"


def test_a_bare_rule_is_for_linear_layers():
    found = rules_of(lrp.Gamma())
    assert found["head"] == found["body/block_0"] == "Gamma()"
    assert found["body/block_1/relu"] == "Pass()"
    assert found["body/block_1/add"] == "Epsilon(epsilon=0)"  # the addition keeps its default


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("*", {"head"}),
        ("body/*", {"body/block_0", "body/block_1"}),
        ("**/block_1", {"body/block_1"}),
        ("**/head", {"head"}),
        ("**", {"head", "body/block_0", "body/block_1"}),
        ("body/block_?", {"body/block_0", "body/block_1"}),
        (lax.dot_general_p, {"head", "body/block_0", "body/block_1"}),
        ("dot_general", {"head", "body/block_0", "body/block_1"}),
        (lambda layer: layer.name == "head", {"head"}),
        (lrp.inside("body"), {"body/block_0", "body/block_1"}),
        (lrp.inside("**/block_0"), {"body/block_0"}),
        (lrp.first("dense"), {"body/block_0"}),
        (lrp.last("dense"), {"head"}),
        (lrp.all_of("dense", lrp.inside("body")), {"body/block_0", "body/block_1"}),
        (lrp.kind("dense"), {"head", "body/block_0", "body/block_1"}),
    ],
    ids=itertools.count(),  # the same in every worker, unlike the order of a set
)
def test_selectors(selector, expected):
    plan = lrp.plan(net, lrp.Epsilon())(X)
    assert {layer.name for layer in plan.select(selector) if layer.kind == "dense"} == expected


def test_first_may_be_several_and_follows_the_dataflow():
    def declared_first(x):  # the head is used last, though its weights come first
        with jax.named_scope("left"):
            a = x @ A
        with jax.named_scope("right"):
            b = x @ B
        hidden = jax.nn.relu(a + b)
        with jax.named_scope("head"):
            return hidden @ C

    plan = lrp.plan(declared_first, lrp.Epsilon())(X)
    assert {layer.name for layer in plan.select(lrp.first("dense"))} == {"left", "right"}
    assert {layer.name for layer in plan.select(lrp.last("dense"))} == {"head"}


def test_kinds_and_first_may_match_nothing():
    assert rules_of({"conv": lrp.ZPlus(), lrp.first("conv"): lrp.Flat()})["head"] == "Epsilon()"


def test_unknown_kinds_and_empty_selectors():
    with pytest.raises(lrp.SelectorError, match="unknown kind"):
        lrp.kind("convolution")
    with pytest.raises(lrp.SelectorError, match="at least one"):
        lrp.first()
    with pytest.raises(lrp.SelectorError, match="matches no layer"):
        rules_of({lrp.inside("tail"): lrp.Epsilon()})


def test_what_two_modules_compute_alike_stays_apart():
    def fn(x):
        with jax.named_scope("one"):
            p = jax.nn.relu(x)
        with jax.named_scope("other"):
            q = jax.nn.relu(x)
        return p @ A + q @ B

    rules = lrp.RuleMap({"dense": lrp.Epsilon(0.0), "one": lrp.Stop()})
    np.testing.assert_allclose(lrp.explain(fn, rules)(X), jax.nn.relu(X) * B.sum(1), rtol=1e-12)


@pytest.mark.parametrize("first", ["inner", "outer"])
def test_layers_without_weights_in_two_scopes_stay_apart(first):
    def pool(x):
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (2,), (2,), "VALID")

    def fn(x):
        outer = pool(x) if first == "outer" else None
        with jax.named_scope("a"):
            inner = pool(x) * jnp.array([1.0, 2.0])
        outer = pool(x) if outer is None else outer
        return (inner + outer * jnp.array([3.0, 1.0])).sum(keepdims=True)

    x = jnp.array([1.0, 2.0, 3.0, 1.0])
    rules = {"affine": lrp.Epsilon(0.0), "add": lrp.Epsilon(0.0), "reduce": lrp.Epsilon(0.0)}
    stopped = rules | {lrp.all_of(lrp.inside("a"), lrp.kind("max_pool")): lrp.Stop()}
    assert lrp.explain(fn, stopped)(x).tolist() == [0.0, 6.0, 3.0, 0.0]
    masked = lrp.explain(fn, rules)(x, condition={"a/max_pool": 0.0})
    assert masked.tolist() == [0.0, 6.0, 3.0, 0.0]
    _, at = lrp.explain(fn, rules, layers="a/max_pool")(x)
    assert at["a/max_pool"].tolist() == [2.0, 6.0]


@pytest.mark.parametrize("also", [False, True], ids=["a summand", "an output too"])
def test_a_summand_whose_bias_is_added_by_parts(also):
    def net(biased):
        def fn(x):
            z = biased(jnp.tanh(x @ A) @ B)
            return (x + z, z) if also else x + z

        return fn

    b = A[0]
    whole = net(lambda z: z + b)
    parts = net(lambda z: jnp.concatenate([z[:, :2] + b[:2], z[:, 2:] + b[2:]], -1))
    moved = net(lambda z: (z + b)[:, ::-1][:, ::-1])
    rules = lrp.composites.lstm_lrp_all()
    for fn in (whole, parts, moved):
        last = [layer for layer in lrp.plan(fn, rules)(X).layers if layer.kind == "dense"][-1]
        assert ("a summand" in last.why) is not also
    target = (X * 0 + 1.0, A[:2] * 0 + 1.0) if also else None
    r, *others = (lrp.explain(fn, rules)(X, target=target) for fn in (whole, parts, moved))
    for other in others:
        np.testing.assert_allclose(other, r, rtol=1e-12)


def test_rule_maps_are_mappings_and_print():
    rules = lrp.composites.epsilon_gamma_box(-1.0, 1.0)
    text = str(rules)
    assert text.startswith("RuleMap epsilon_gamma_box")
    assert text.splitlines()[-1].split("->")[1].strip() == "ZBox(low=-1)"  # 1 is the default
    assert len(rules) == len(list(rules)) == text.count("->")
    assert "with overrides" in str(rules | {"dense": lrp.Epsilon(0.5)})


@pytest.mark.parametrize(
    "composite",
    [
        lrp.composites.lrp_zero(),
        lrp.composites.epsilon_plus(),
        lrp.composites.epsilon_plus_flat(),
        lrp.composites.epsilon_alpha2_beta1(),
        lrp.composites.epsilon_alpha2_beta1_flat(),
        lrp.composites.epsilon_gamma_box(-3.0, 3.0),
        lrp.composites.excitation_backprop(),
        lrp.composites.guided_backprop(),
        lrp.composites.deconvnet(),
        lrp.composites.beta_smooth(),
        lrp.composites.deep_taylor(),
        lrp.composites.deep_taylor_bounded(-3.0, 3.0),
        lrp.composites.attn_lrp(),
        lrp.composites.cp_lrp(),
    ],
    ids=lambda c: c.name,
)
def test_every_composite_runs_and_is_finite(composite):
    relevance = lrp.explain(net, composite)(X, target=0)
    assert relevance.shape == X.shape
    assert jnp.isfinite(relevance).all()
