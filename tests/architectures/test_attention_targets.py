"""Transformers: contrastive and many targets, pytrees, layers by name, rematerialised blocks."""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.extend.core import jaxprs_in_params

import jaxlrp as lrp
from tests.attention_networks import (
    CAUSALS,
    HEADS,
    RULES,
    SIZE,
    TIME,
    WIDTH,
    attention,
    parameters,
    sample,
    split,
    weighted,
    weights,
)
from tests.compare import assert_close
from tests.numpy_jaxpr import in_numpy
from tests.reference import dense_layer, epsilon_rule

CLASSES = 9
HEAD = weights(WIDTH, CLASSES, seed=20)
BLOCKS = [
    dict(
        parameters(i, bias=False),
        gate=weights(WIDTH, 8, seed=i),
        up=weights(WIDTH, 8, seed=i + 10),
        down=weights(8, WIDTH, seed=i + 20),
    )
    for i in range(2)
]


def norm(x):
    return x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-6)


def block(p, x):
    with jax.named_scope("attention"):
        x = x + attention(CAUSALS["where, lowest"], p, norm(x))
    with jax.named_scope("mlp"):
        h = norm(x)
        with jax.named_scope("neurons"):
            h = jax.nn.silu(h @ p["gate"]) * (h @ p["up"])
        h = h @ p["down"]
    with jax.named_scope("stream"):
        return x + h


def decoder(x, remat=None):
    """Logits (B, T, C) of two causal blocks."""
    for i, p in enumerate(BLOCKS):
        run = block if remat is None else jax.checkpoint(block, policy=remat)
        with jax.named_scope(f"block_{i}"):
            x = run(p, x)
    with jax.named_scope("head"):
        return norm(x) @ HEAD


def last(x):
    return decoder(x)[:, -1]


@pytest.mark.parametrize("rule", RULES)
def test_a_contrast_is_a_difference_of_targets(rule):
    explain = in_numpy(lrp.explain(last, RULES[rule]))
    contrast = np.zeros((2, CLASSES))
    contrast[:, 3], contrast[:, 5] = 1, -1
    found = explain(sample(), target=contrast)
    assert_close(found, explain(sample(), target=3) - explain(sample(), target=5))
    as_output = in_numpy(lrp.explain(lambda x: last(x) @ contrast[0], RULES[rule]))
    assert_close(as_output(sample()), found)


def test_several_tokens_as_weights():
    explain = in_numpy(lrp.explain(decoder, RULES["attn"]))
    tokens = np.array([[1, 2, 3, 4, 5], [0, 0, 7, 7, 8]])
    weight = np.eye(CLASSES)[tokens]
    weight[:, :2] = 0  # a prompt of two tokens
    found = explain(sample(), target=weight)
    # Integers pick a logit at every position; the prompt's are taken off again.
    prompt = np.zeros_like(weight)
    prompt[:, :2] = np.eye(CLASSES)[tokens[:, :2]]
    assert_close(explain(sample(), target=tokens) - explain(sample(), target=prompt), found)
    # Causal: what a target at position 2 explains lies at 0, 1, 2.
    only = np.zeros_like(weight)
    only[:, 2, 4] = 1
    relevance = explain(sample(), target=only)
    assert not np.any(relevance[:, 3:])
    assert np.all(np.any(relevance[:, :3], -1))


def products(jaxpr):
    """Output shapes of all products in a jaxpr, inner ones too."""
    found = []
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "dot_general":
            found.append(eqn.outvars[0].aval.shape)
        for inner in jaxprs_in_params(eqn.params):
            found += products(inner)
    return found


@pytest.mark.parametrize("rule", RULES)
def test_many_targets_share_one_forward_pass(rule):
    x, many = sample(), 7  # 7: no other axis is as long

    def one(target):
        return lrp.explain(last, RULES[rule])(x, target=target)

    targets = jnp.arange(many)
    forward = products(jax.make_jaxpr(last)(x).jaxpr)
    single = products(jax.make_jaxpr(one)(0).jaxpr)
    batched = products(jax.make_jaxpr(jax.vmap(one))(targets).jaxpr)
    assert len(batched) == len(single) > len(forward) > 0
    shared = [shape for shape in batched if many not in shape]
    # Every product of the forward pass is there once, for all targets together.
    assert all(shared.count(shape) >= forward.count(shape) for shape in forward)
    found = in_numpy(jax.vmap(one))(targets)
    for target in (0, 6):
        assert_close(found[target], in_numpy(one)(target))
    # One-hot weights are the same targets.
    by_weight = jax.vmap(
        lambda w: lrp.explain(last, RULES[rule])(x, target=jnp.broadcast_to(w, (2, CLASSES)))
    )
    assert_close(in_numpy(by_weight)(jnp.eye(CLASSES)[:many]), found)


def test_pytrees_in_and_out():
    side = weights(2, 3, seed=30)
    mix = weights(3, 4, seed=31)

    def fn(inputs):
        logits = decoder(inputs["tokens"])
        return {"last": logits[:, -1], "rest": (logits[:, 0], inputs["side"] @ mix)}

    inputs = {"tokens": jnp.asarray(sample()), "side": side}
    explain = in_numpy(lrp.explain(fn, RULES["cp"]))
    everything = explain(inputs)
    assert jax.tree.structure(everything) == jax.tree.structure(inputs)
    ones, none = np.ones((2, CLASSES)), np.zeros((2, CLASSES))
    found = explain(inputs, target={"last": ones, "rest": (none, np.zeros((2, 4)))})
    assert not np.any(found["side"])
    assert_close(found["tokens"], in_numpy(lrp.explain(last, RULES["cp"]))(sample()))
    other = explain(inputs, target={"last": none, "rest": (ones, np.ones((2, 4)))})
    assert_close(other["tokens"] + found["tokens"], everything["tokens"])
    np.testing.assert_allclose(other["side"].sum(1), (side @ mix).sum(1), rtol=1e-9)


# --- relevance inside: heads, neurons, the residual stream


def test_the_residual_stream_and_the_neurons():
    names = ["block_0/stream", "block_1/stream"]
    explain = in_numpy(lrp.explain(last, RULES["cp"], layers=[*names, "product"]))
    relevance, layers = explain(sample(), target=4)
    seeded = np.asarray(last(sample()))[:, 4]
    for name in names:
        assert layers[name].shape == (2, TIME, WIDTH)
        np.testing.assert_allclose(layers[name].sum((1, 2)), seeded, rtol=1e-9)
    np.testing.assert_allclose(relevance.sum((1, 2)), seeded, rtol=1e-9)
    # Relevance of the stream is what the rest of the network explains, taken by itself.
    cut = in_numpy(lrp.explain(lambda h: norm(block(BLOCKS[1], h))[:, -1] @ HEAD, RULES["cp"]))
    inside = block(BLOCKS[0], jnp.asarray(sample()))
    assert_close(layers["block_0/stream"], cut(inside, target=4))
    neurons = {name: r for name, r in layers.items() if "neurons" in name}
    assert sorted(name.split("/")[0] for name in neurons) == ["block_0", "block_1"]
    assert all(r.shape == (2, TIME, 8) for r in neurons.values())
    assert not np.any(neurons[max(neurons)][:, :-1])  # the last block's, at the last token alone


def heads_before_they_merge(x, p=BLOCKS[0]):
    q, k, v = (split(x @ p[name]) for name in "qkv")
    w = jax.nn.softmax(jnp.einsum("bthd,bshd->bhts", q, k))
    with jax.named_scope("heads"):
        out = weighted(w, v)
    return out.reshape(*x.shape[:2], -1) @ p["o"]


def test_relevance_of_heads_before_they_merge():
    x, p = jnp.asarray(sample()), BLOCKS[0]
    explain = in_numpy(
        lrp.value_and_relevance(heads_before_they_merge, RULES["attn"], layers=["heads"])
    )
    value, (_, layers) = explain(x)
    (found,) = layers.values()
    # By hand: Epsilon(0) through the output projection, summed over the size of a head.
    q, k, v = (np.asarray(split(x @ p[name])) for name in "qkv")
    scores = np.einsum("bthd,bshd->bhts", q, k)
    w = np.exp(scores - scores.max(-1, keepdims=True))
    w /= w.sum(-1, keepdims=True)
    heads = np.einsum("bhts,bshd->bthd", w, v).reshape(-1, HEADS * SIZE)
    layer = dense_layer(p["o"])
    rows = zip(heads, np.asarray(value).reshape(-1, WIDTH), strict=True)
    back = np.stack([epsilon_rule(layer, a, r, epsilon=0.0) for a, r in rows])
    expected = back.reshape(2, TIME, HEADS, SIZE).sum((0, 1, 3))
    axis = found.shape.index(HEADS, 1)
    others = tuple(i for i in range(found.ndim) if i != axis)
    np.testing.assert_allclose(np.sum(found, others), expected, rtol=1e-9)


class Block(nn.Module):
    @nn.compact
    def __call__(self, x):
        attend = nn.MultiHeadDotProductAttention(
            HEADS, qkv_features=8, param_dtype=jnp.float64, name="attention"
        )
        x = x + attend(nn.LayerNorm(param_dtype=jnp.float64, name="norm")(x))
        h = nn.Dense(12, param_dtype=jnp.float64, name="up")(x)
        return x + nn.Dense(WIDTH, param_dtype=jnp.float64, name="down")(nn.gelu(h))


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x):
        for i in range(2):
            x = Block(name=f"block_{i}")(x)
        return nn.Dense(CLASSES, param_dtype=jnp.float64, name="head")(x[:, -1])


class NNXBlock(nnx.Module):
    def __init__(self, rngs):
        kwargs = {"param_dtype": jnp.float64, "rngs": rngs}
        self.norm = nnx.LayerNorm(WIDTH, **kwargs)
        self.attention = nnx.MultiHeadAttention(HEADS, WIDTH, 8, decode=False, **kwargs)
        self.up, self.down = nnx.Linear(WIDTH, 12, **kwargs), nnx.Linear(12, WIDTH, **kwargs)

    def __call__(self, x):
        x = x + self.attention(self.norm(x))
        return x + self.down(nnx.gelu(self.up(x)))


class NNX(nnx.Module):
    def __init__(self, rngs):
        self.block_0, self.block_1 = NNXBlock(rngs), NNXBlock(rngs)
        self.head = nnx.Linear(WIDTH, CLASSES, param_dtype=jnp.float64, rngs=rngs)

    def __call__(self, x):
        return self.head(self.block_1(self.block_0(x))[:, -1])


def linen():
    model = Linen()
    return functools.partial(model.apply, jax.jit(model.init)(jax.random.key(0), sample()))


MODELS = {"Linen": linen, "NNX": lambda: NNX(nnx.Rngs(0))}


@pytest.mark.parametrize("framework", MODELS)
def test_names_inside_the_attention_of_a_framework(framework):
    fn, x = MODELS[framework](), jnp.asarray(sample())
    plan = lrp.plan(fn, RULES["attn"])(x)
    counts = {"dense": 13, "matmul": 4, "softmax": 2, "norm": 2, "add": 4, "activation": 2}
    assert {kind: plan.count(kind) for kind in counts} == counts
    for name in ("query", "key", "value", "out"):
        layers = plan.select(f"**/block_*/attention/{name}")
        assert [layer.kind for layer in layers] == ["dense", "dense"], name
    assert [layer.kind for layer in plan.select("**/block_1/norm")] == ["norm"]
    # A rule by name, and relevance at named layers.
    rules = RULES["attn"] | {"**/block_0/attention/value": lrp.ZPlus()}
    (ruled,) = lrp.plan(fn, rules)(x).select("**/block_0/attention/value")
    assert str(ruled.rule) == "ZPlus()"
    wanted = ["**/block_0/attention/value", "**/block_1/up", "**/head"]
    explain = in_numpy(lrp.explain(fn, RULES["attn"], layers=wanted))
    _, layers = explain(x, target=1)
    shapes = sorted(r.shape for r in layers.values())
    assert shapes == sorted([(2, TIME, HEADS, SIZE), (2, TIME, 12), (2, CLASSES)])


# --- rematerialised blocks

POLICIES = {
    "nothing saved": jax.checkpoint_policies.nothing_saveable,
    "products saved": jax.checkpoint_policies.dots_saveable,
}


@pytest.mark.parametrize(
    ("policy", "rule"),
    [("nothing saved", "attn"), ("nothing saved", "cp"), ("products saved", "attn")],
)
def test_rematerialised_blocks_have_the_same_relevance(policy, rule):
    fn = functools.partial(decoder, remat=POLICIES[policy])
    wanted = ["block_0/stream", "softmax"]
    plain = in_numpy(lrp.explain(decoder, RULES[rule], layers=wanted))(sample())
    found = in_numpy(lrp.explain(fn, RULES[rule], layers=wanted))(sample())
    assert_close(found[0], plain[0], 1e-12)
    assert found[1].keys() == plain[1].keys()
    for name, relevance in plain[1].items():
        assert_close(found[1][name], relevance, 1e-12, name)
    if policy == "nothing saved":  # it is recomputed: more products than without
        count = len(products(jax.make_jaxpr(lrp.explain(fn, RULES[rule]))(sample()).jaxpr))
        without = jax.make_jaxpr(lrp.explain(decoder, RULES[rule]))(sample())
        assert count > len(products(without.jaxpr))
