"""Words that people use for layers, and the names in a plan, for the messages of errors."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import NamedTuple

from jaxlrp.graph.kinds import KINDS


class _Meaning(NamedTuple):
    kinds: tuple[str, ...]
    remark: str = ""


_MEANINGS: dict[str, _Meaning] = {}


def _rows(words: str, kinds: str, remark: str = "") -> None:
    for word in words.split():
        _MEANINGS[word] = _Meaning(tuple(kinds.split()), remark)


_rows("linear fc fullyconnected densegeneral einsum projection proj mlp feedforward ffn", "dense")
_rows("convolution convolutional deconv deconvolution", "conv")
_rows("convtranspose transposedconv depthwise depthwiseconv separableconv", "conv")
_rows("embedding embeddings token tokens lookup", "embed")
_rows("relu leakyrelu prelu elu selu celu gelu silu swish glu mish act nonlinearity", "activation")
_rows("tanh sigmoid hardtanh hardsigmoid hardswish softplus softsign", "activation")
_rows("layernorm layernormalization ln rmsnorm groupnorm instancenorm", "norm")
_rows("normalization normalisation normalize normalise l2norm", "norm")
_rows(
    "batchnorm batchnormalization bn",
    "norm affine",
    "In evaluation a batch norm is a scale and a shift: it is part of the linear layer beside it, "
    "which its name also selects, and 'affine' if there is none. With the statistics of the "
    "batch it is 'norm'.",
)
_rows(
    "attention attn selfattention crossattention mha multiheadattention sdpa",
    "softmax matmul",
    "Attention consists of several layers: its weights are a 'softmax', queries times keys and "
    "weights times values are 'matmul', and projections are 'dense'.",
)
_rows(
    "lstm gru rnn cell recurrent bilstm",
    "dense add product activation",
    "A recurrent cell consists of several layers: its gates are 'dense', 'add' and 'activation', "
    "and act in a 'product'. To select all layers of a named cell, write inside('**/name').",
)
_rows("mamba ssm s4 gate gating multiply mul multiplication", "product")
_rows("bmm matmult batchmatmul dotproduct", "matmul dense")
_rows(
    "logsoftmax logsumexp logits probabilities",
    "softmax",
    "The last linear layer is last('dense', 'conv').",
)
_rows("maxpool maxpooling globalmaxpool", "max_pool")
_rows("avgpool averagepool avgpooling meanpool globalavgpool globalaveragepool gap", "avg_pool")
_rows("pool pooling", "max_pool avg_pool")
_rows("residual skip shortcut addition plus", "add")
_rows("sum mean average", "reduce avg_pool")
_rows("scale shift bias rescale", "affine", "Beside a linear layer it is part of that layer.")
_rows("flatten reshape transpose concat concatenate pad slice crop split", "structural")
_rows("dropout", "structural", "In evaluation a dropout computes nothing, and is not a layer.")
_rows("input stem firstlayer", "", "The first layers by dataflow are first('dense', 'conv').")
_rows("output head classifier lastlayer", "", "The last linear layer is last('dense', 'conv').")


def meaning_of(word: str, present: Collection[str]) -> str:
    """The names in a plan of the layers that a word or the end of a glob means; "" if unknown.

    `present` are the kinds of the layers of the plan.
    """
    last = word.rsplit("/", maxsplit=1)[-1]
    plain = re.sub(r"[^a-z0-9]", "", last.lower())
    found = _MEANINGS.get(plain) or _MEANINGS.get(re.sub(r"(\d+d?)+$", "", plain))
    if found is None:
        kind = next((k for k in KINDS if k.replace("_", "") == re.sub(r"\d+d?$", "", plain)), None)
        found = _Meaning((kind,)) if kind is not None and kind != word else None
    if found is None:
        return ""
    parts = [_kinds(last, found.kinds, present)] if found.kinds else []
    return " " + " ".join([*parts, *([found.remark] if found.remark else [])])


def _kinds(word: str, kinds: Sequence[str], present: Collection[str]) -> str:
    named = " or ".join(map(repr, kinds))
    here = [k for k in kinds if k in present]
    if not here:
        return f"Layers of the sort {word!r} have the kind {named}; there are none here."
    return f"Layers of the sort {word!r} have the kind {named}."
