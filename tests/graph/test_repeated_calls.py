"""A function that is called several times: planned once, traced once, and explained as inlined."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import jaxlrp as lrp
from jaxlrp import composites
from jaxlrp.graph import linear
from tests.common import weights_for
from tests.compare import assert_leaves_close, rows
from tests.numpy_jaxpr import in_numpy


def attention(x, w):
    """A block of a transformer on (batch, tokens, 6)."""
    mean = x.mean(-1, keepdims=True)
    h = (x - mean) * jax.lax.rsqrt(((x - mean) ** 2).mean(-1, keepdims=True) + 1e-3)
    q, k, v = (h @ part for part in w["qkv"])
    a = jax.nn.softmax(q @ k.swapaxes(-1, -2))
    x = x + (a @ v) @ w["out"]
    return x + jax.nn.gelu(x @ w["up"] + 0.1) @ w["down"]


def perceptron(x, w):
    """Two dense layers; the border of the call is a ReLU."""
    h = jax.nn.relu(x @ w["up"] + 0.3 * w["up"][0])
    return jax.nn.relu(h @ w["down"] - 0.1 * w["down"][0])


def residual(x, w):
    """BatchNorm, as its scales are at inference, in both branches; a ReLU behind the sum."""
    h = jax.nn.relu((x @ w["up"]) * w["scale"] + 0.1)
    return jax.nn.relu(x + (h @ w["down"]) * w["scale"][:6] - 0.05)


def cell(x, w):
    """An LSTM's cell, unrolled."""
    h, c = x
    z = h @ w["up"][:3] + 0.2
    i, f, o = (jax.nn.sigmoid(z[..., n : n + 3]) for n in (0, 3, 6))
    c = f * c + i * jnp.tanh(z[..., 9:12])
    return o * jnp.tanh(c), c


def two_in_one(x, w):
    """The same with h and c side by side: slices and a concatenation at the border."""
    return jnp.concatenate(cell(jnp.split(x, 2, axis=-1), w), axis=-1)


def linear_only(x, w):
    """Ends in a product to which its caller adds a bias, and begins with a view."""
    y = x.reshape(*x.shape[:-1], 2, 3).swapaxes(-1, -2).swapaxes(-1, -2).reshape(x.shape)
    y = y @ w["out"]
    y = y @ w["qkv"][0]
    y = y @ w["qkv"][1]
    return (y @ w["qkv"][2]) @ w["out"] * 1.5


def half_a_gelu(x, w):
    """Ends in the middle of an activation, behind something else that is long enough."""
    h = x @ w["out"] + 0.1
    h = jnp.tanh(h) @ w["qkv"][0]
    h = jnp.tanh(h) @ w["qkv"][1]
    return h + 0.044715 * h**3


def half_a_softmax(x, w):
    """Begins in the middle of a softmax."""
    h = x / x.sum(-1, keepdims=True) @ w["out"] + 0.1
    h = jnp.tanh(h) @ w["qkv"][0]
    return jnp.tanh(h) @ w["qkv"][1]


def weights(seed: int) -> dict[str, Any]:
    return {
        "qkv": tuple(weights_for(seed + n, 6, 6) for n in range(3)),
        "out": weights_for(seed + 3, 6, 6),
        "up": weights_for(seed + 4, 6, 12),
        "down": weights_for(seed + 5, 12, 6),
        "scale": jnp.abs(weights_for(seed + 6, 12)) + 0.5,
    }


def between_nothing(x):
    return x


def between_bias(x):
    return jnp.maximum(x + 0.2, 0.0)


def between_gelu(x):
    return 0.5 * x * (1 + jnp.tanh(x))


BLOCKS = {
    "attention": (attention, between_nothing),
    "perceptron": (perceptron, between_nothing),
    "residual": (residual, between_nothing),
    "cell": (cell, between_nothing),
    "two_in_one": (two_in_one, between_nothing),
    "linear_only": (linear_only, between_bias),
    "half_a_gelu": (half_a_gelu, between_gelu),
    "half_a_softmax": (half_a_softmax, jnp.exp),
}
SHARED = ("attention", "perceptron", "residual", "cell")
RULES = {
    "lrp_zero": composites.lrp_zero(),
    "attn_lrp": composites.attn_lrp(),
    "epsilon_plus_flat": composites.epsilon_plus_flat(),
    "epsilon_alpha2_beta1": composites.epsilon_alpha2_beta1(),
    "lstm_lrp_all": composites.lstm_lrp_all(),
}


def network(block: Callable[..., Any], between: Callable[[Any], Any], calls: int = 3):
    """Calls of one block with weights of their own, and a dense layer at the end."""
    params = [weights(10 * n) for n in range(calls)]
    head = weights_for(99, 6, 4)

    def fn(x):
        x = tuple(jnp.split(x, 2, axis=-1)) if block.__name__ == "cell" else x
        for w in params:
            x = between(block(x, w))
        x = jnp.concatenate(x, axis=-1) if isinstance(x, tuple) else x
        return x.mean(1) @ head

    return fn


def pair(name: str, calls: int = 3):
    """The network with its block under jit, and as it stands."""
    block, between = BLOCKS[name]
    return network(jax.jit(block), between, calls), network(block, between, calls)


def inputs() -> jax.Array:
    return weights_for(7, 2, 3, 6) * 2


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("name", BLOCKS)
def test_calls_are_planned_and_explained_as_if_written_out(name, rules):
    called, plain = pair(name)
    x = inputs()
    assert rows(lrp.plan(called, RULES[rules])(x)) == rows(lrp.plan(plain, RULES[rules])(x))
    if rules in ("epsilon_plus_flat", "lstm_lrp_all"):
        return  # nothing in how such a plan is run differs from the others
    one, other = (in_numpy(lrp.explain(fn, RULES[rules])) for fn in (called, plain))
    assert_leaves_close(one(x, target=1), other(x, target=1))


@pytest.mark.parametrize("name", BLOCKS)
def test_eager_calls(name):
    called, plain = pair(name)
    one, other = (lrp.explain(fn, composites.attn_lrp()) for fn in (called, plain))
    assert_leaves_close(one(inputs(), target=1), jax.jit(other)(inputs(), target=1))


def test_what_is_asked_of_layers_in_calls():
    called, plain = pair("attention")
    x = inputs()
    rules = composites.cp_lrp()

    def asked(fn):
        explain = lrp.explain(fn, rules, layers=["softmax", lrp.last("norm"), "matmul"])
        mask = jnp.arange(6) < 4

        def both(x):
            return explain(x, target=2, condition={lrp.first("add"): mask})

        return both

    assert_leaves_close(jax.jit(asked(called))(x), asked(plain)(x))
    one, other = (lrp.ledger(fn, rules)(x, target=2) for fn in (called, plain))
    assert [e.name for e in one.layers] == [e.name for e in other.layers]
    for account in ("relevance_out", "relevance_in", "bias", "stabiliser"):
        assert_leaves_close(
            *(jnp.array([getattr(e, account) for e in kept.layers]) for kept in (one, other))
        )


def test_transformed_calls():
    x = inputs()
    rules = composites.epsilon_plus()
    block, between = BLOCKS["residual"]
    expected = lrp.explain(network(block, between), rules)(x, target=0)
    spellings = {
        "checkpoint of jit": jax.checkpoint(jax.jit(block)),
        "jit of checkpoint": jax.jit(jax.checkpoint(block)),
        "jit in jit": jax.jit(lambda x, w: jax.jit(block)(x, w)),
        "checkpoint": jax.checkpoint(block),
    }
    for spelling in spellings.values():
        explain = lrp.explain(network(spelling, between), rules)
        assert_leaves_close(explain(x, target=0), expected)
        assert_leaves_close(jax.jit(lambda x, f=explain: f(x, target=0))(x), expected)
    explain = lrp.explain(network(jax.jit(block), between), rules)
    one_by_one = jax.vmap(lambda row: explain(row[None], target=0)[0])
    assert_leaves_close(jax.jit(one_by_one)(x), expected)
    assert_leaves_close(one_by_one(x), expected)


def test_calls_inside_a_scan():
    x = inputs()
    params = jax.tree.map(lambda *a: jnp.stack(a), *(weights(10 * n) for n in range(3)))

    def stack(block):
        def fn(x):
            def twice(x, w):
                return block(block(x, w), w), None

            return jax.lax.scan(twice, x, params)[0].mean(1)

        return fn

    rules = composites.attn_lrp()
    expected = lrp.explain(stack(attention), rules)(x, target=0)
    explain = lrp.explain(stack(jax.jit(attention)), rules)
    assert_leaves_close(explain(x, target=0), expected)
    assert_leaves_close(jax.jit(lambda x: explain(x, target=0))(x), expected)


def test_derivatives_of_relevance_through_calls():
    called, plain = pair("attention", 3)
    x = inputs()
    rules = composites.attn_lrp()

    def energy(fn):
        return lambda x: jnp.sum(lrp.explain(fn, rules)(x, target=1) ** 2)

    assert_leaves_close(jax.jit(jax.grad(energy(called)))(x), jax.grad(energy(plain))(x))


@pytest.mark.parametrize("name", SHARED)
def test_one_function_is_planned_once(name, monkeypatch):
    """However often it is called, its equations are looked at once.

    Or twice or three times, where the first input is known to be less (that it is not negative), or
    what reads the last output might belong to a layer inside.
    """
    looked_at: list[Any] = []
    find = linear.core_operand

    def spy(bench, eqn):
        looked_at.append(eqn)
        return find(bench, eqn)

    monkeypatch.setattr(linear, "core_operand", spy)
    counts, found = [], []
    for calls in (6, 48):
        looked_at.clear()
        plan = lrp.plan(pair(name, calls)[0], composites.attn_lrp())(inputs())
        counts.append(len(looked_at))
        found.append(sum(layer.group.like is None for layer in plan.layers))
        assert (plan.count("dense") - 1) % calls == 0
    assert counts[0] == counts[1]
    assert found[0] == found[1]


@dataclasses.dataclass(frozen=True)
class Counted(lrp.Epsilon):
    """Epsilon, noting every time it is asked."""

    asked = []

    def propagate(self, view):
        self.asked.append(view)
        return super().propagate(view)


@pytest.mark.parametrize(("of", "calls", "asked"), [(0, 2, 6), (0, 48, 6), (1, 2, 12)])
def test_one_function_is_traced_once(of, calls, asked):
    """However often it is called; written out (the last case) each of its layers is traced."""
    fn = pair("attention", calls)[of]
    rules = composites.attn_lrp() | {"dense": Counted(1e-6)}
    Counted.asked.clear()
    jax.jit(lambda x: lrp.explain(fn, rules)(x, target=0)).lower(inputs())
    assert len(Counted.asked) == asked + 1


def test_a_rule_with_a_traced_parameter():
    """What is not known yet belongs to the trace that is going on, and to no shared function."""
    called, plain = pair("perceptron")

    def total(fn):
        return lambda epsilon: lrp.explain(fn, lrp.Epsilon(epsilon))(inputs(), target=0).sum()

    expected = jax.jit(jax.grad(total(plain)))(0.1)
    assert abs(expected) > 1e-6
    assert_leaves_close(jax.jit(jax.grad(total(called)))(0.1), expected)
    epsilons = jnp.array([0.1, 0.2])
    assert_leaves_close(
        jax.jit(jax.vmap(total(called)))(epsilons), jax.jit(jax.vmap(total(plain)))(epsilons)
    )


@pytest.mark.parametrize("masked", [(False, True), (True, False)])
def test_masks_outside_of_calls(masked):
    """Where -inf may come from stands outside of the softmax, and differs from call to call."""
    shut = jnp.array([[1, 0, 0], [1, 1, 0], [0, 0, 0]], bool)

    def attend(scores, v, w):
        e = jnp.exp(scores - scores.max(-1, keepdims=True))
        return jnp.tanh((e / e.sum(-1, keepdims=True)) @ (v @ w) @ w) @ w

    def network(block):
        w = weights(3)["qkv"]

        def fn(x):
            for mask in masked:
                scores = (x @ w[0]) @ (x @ w[1]).T
                scores = jnp.where(shut, scores, -jnp.inf) if mask else scores
                x = jnp.tanh(block(scores, x, w[2])[:2].sum(0) + x @ w[1])
            return x.mean(0)

        return fn

    one, other = (lrp.explain(network(f), composites.attn_lrp()) for f in (jax.jit(attend), attend))
    x = inputs()[0]
    assert bool(jnp.all(jnp.isfinite(other(x, target=0))))
    assert_leaves_close(jax.jit(lambda x: one(x, target=0))(x), other(x, target=0))


def test_a_stopped_factor_outside_of_calls():
    """A product with what depends on the input, but carries no relevance, is linear, too."""

    def network(block):
        w = weights(5)

        def fn(x):
            for _ in range(2):
                v = block(x, w)
                shares = jax.nn.softmax((x @ w["out"]) @ x.T)
                x = jnp.tanh(jax.lax.stop_gradient(shares) @ v)
            return x.mean(0)

        return fn

    def block(x, w):
        return 2.0 * (jnp.tanh(jnp.tanh(jnp.tanh(x @ w["out"]) @ w["out"]) @ w["out"]) @ w["out"])

    called, plain = network(jax.jit(block)), network(block)
    rules, x = composites.lrp_zero(), inputs()[0]
    assert rows(lrp.plan(called, rules)(x)) == rows(lrp.plan(plain, rules)(x))
    assert_leaves_close(
        lrp.explain(called, rules)(x, target=1), lrp.explain(plain, rules)(x, target=1)
    )


@pytest.mark.parametrize("rule", [lrp.Flat(), lrp.Epsilon(0.5)], ids=str)
def test_a_call_with_a_rule_of_its_own_is_traced_by_itself(rule):
    called, plain = pair("attention")
    x = inputs()
    rules = lrp.RuleMap({"dense": lrp.Epsilon(0.1)})
    without = jax.jit(lrp.explain(plain, rules))(x, target=0)
    # Neither the first call nor the last, which other things may tell apart.
    chosen = {lambda layer: layer.name == "dense_7": rule}
    expected = jax.jit(lrp.explain(plain, rules | chosen))(x, target=0)
    assert jnp.max(jnp.abs(expected - without)) > 1e-3 * jnp.max(jnp.abs(without))
    assert_leaves_close(jax.jit(lrp.explain(called, rules | chosen))(x, target=0), expected)
