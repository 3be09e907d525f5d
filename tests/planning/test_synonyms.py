"""Words for layers that a plan calls otherwise: the error says how."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp as lrp
from jaxlrp.graph.kinds import KINDS
from jaxlrp.planning import synonyms

W = np.random.default_rng(0).normal(size=(4, 4))
X = jnp.ones((2, 4))


def net(x):
    with jax.named_scope("block"):
        h = jax.nn.relu(x @ W)
        h = (h - h.mean(-1, keepdims=True)) / jnp.sqrt(h.var(-1, keepdims=True) + 1e-5)
    return jax.nn.softmax(h @ h.T) @ h


@pytest.mark.parametrize(
    ("word", "kinds"),
    [
        ("linear", "'dense'"),
        ("Linear_0", "'dense'"),
        ("Dense_1", "'dense'"),
        ("**/fc1", "'dense'"),
        ("relu", "'activation'"),
        ("**/GELU", "'activation'"),
        ("leaky_relu", "'activation'"),
        ("attention", "'softmax' or 'matmul'"),
        ("MultiHeadAttention_0", "'softmax' or 'matmul'"),
        ("layernorm", "'norm'"),
        ("LayerNorm_0", "'norm'"),
        ("layer_norm", "'norm'"),
        ("bn", "'norm' or 'affine'"),
        ("lstm", "'dense' or 'add' or 'product' or 'activation'"),
        ("residual", "'add'; there are none here"),
        ("MaxPool", "'max_pool'; there are none here"),
        ("conv2d", "'conv'; there are none here"),
        ("embedding", "'embed'; there are none here"),
    ],
)
def test_a_word_with_another_kind(word, kinds):
    for call in (
        lambda: lrp.plan(net, {word: lrp.Epsilon()})(X),
        lambda: lrp.explain(net, lrp.Epsilon(), layers=word)(X),
        lambda: lrp.explain(net, lrp.Epsilon())(X, condition={word: 1.0}),
    ):
        with pytest.raises(lrp.SelectorError, match="matches no layer") as found:
            call()
        said = f"of the sort {word.rsplit('/')[-1]!r} have the kind {kinds}"
        assert said in str(found.value)
    with pytest.raises(lrp.SelectorError, match="the kinds are dense") as found:
        lrp.kind(word)
    assert "have the kind" in str(found.value)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("bn", "it is part of the linear layer beside it"),
        ("attention", "queries times keys and weights times values are 'matmul'"),
        ("gru", r"inside\('\*\*/name'\)"),
        ("dropout", "computes nothing"),
        ("classifier", r"last\('dense', 'conv'\)"),
        ("input", r"first\('dense', 'conv'\)"),
    ],
)
def test_a_word_with_a_remark(word, said):
    with pytest.raises(lrp.SelectorError, match=said):
        lrp.plan(net, {word: lrp.Epsilon()})(X)


@pytest.mark.parametrize(
    ("word", "near"),
    [
        ("blok", "'block'"),
        ("dens", "'dense'"),
        ("softmaks", "'softmax'"),
        ("xyz", "names here"),
    ],
)
def test_misspellings_are_answered_as_before(word, near):
    with pytest.raises(lrp.SelectorError, match=near) as found:
        lrp.plan(net, {word: lrp.Epsilon()})(X)
    assert "of the sort" not in str(found.value)


def test_a_name_of_the_users_own_comes_first():
    def fn(x):
        with jax.named_scope("linear"):
            return x @ W

    (layer,) = lrp.plan(fn, {"linear": lrp.Gamma()})(X).layers
    assert layer.why == "rule map: 'linear'"


def test_the_table_has_no_kind_and_names_kinds_alone():
    for word, (kinds, _) in synonyms._MEANINGS.items():
        assert word not in KINDS
        assert set(kinds) <= set(KINDS)
