"""Recurrent networks of each framework, with random weights, and what they are by hand.

A builder returns a `Recurrent`: a function of the input that gives what each sequence ends with,
and for each direction the cell of `recurrent_reference` with the same weights.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests import recurrent_reference as by_hand

FEATURES, HIDDEN, STEPS = 4, 3, 3
LENGTHS = np.array([STEPS, 2])
BIAS = 0.6  # the size of biases; 0 for none
DOUBLE = {"dtype": jnp.float64, "param_dtype": jnp.float64}
SEQUENCES = jnp.asarray(np.random.default_rng(1).normal(size=(2, STEPS, FEATURES)))
PICTURES = jnp.asarray(np.random.default_rng(1).normal(size=(2, STEPS, 4, 4, 2)))


@dataclasses.dataclass(frozen=True)
class Recurrent:
    fn: Callable[[jax.Array], jax.Array]
    directions: list[tuple[Callable, dict[str, tuple]]]
    """The cell by hand and its weights: forward, and backward if there is one."""
    counts: dict[str, int]
    """Layers of each kind, as the framework writes the cell."""
    x: jax.Array = dataclasses.field(default_factory=lambda: SEQUENCES)


BUILDERS: dict[str, Callable[[], Recurrent]] = {}


def recurrent(build: Callable[[], Recurrent]) -> Callable[[], Recurrent]:
    BUILDERS[build.__name__] = build
    return build


def randomise(tree: Any) -> Any:
    """Every floating leaf drawn anew, in float64; equal trees give equal numbers."""
    rng = np.random.default_rng(0)

    def leaf(a):
        if not jnp.issubdtype(a.dtype, jnp.floating):
            return a
        return jnp.asarray((BIAS if len(a.shape) == 1 else 0.6) * rng.normal(size=a.shape))

    return jax.tree.map(leaf, tree)


def ends(y: jax.Array, directions: int = 1) -> jax.Array:
    """What the sequences end with, at their lengths; backward they end at the first step."""
    forward = y[np.arange(2), LENGTHS - 1]
    if directions == 1:
        return forward
    return jnp.concatenate([forward[..., :HIDDEN], y[:, 0, ..., HIDDEN:]], -1)


def fused(gates: str, w: jax.Array, u: jax.Array, b: Any) -> dict[str, tuple]:
    """Weights of all gates side by side, split."""
    parts = [jnp.split(a, len(gates), -1) for a in (w, u, jnp.broadcast_to(b, w.shape[-1:]))]
    return dict(zip(gates, zip(*parts, strict=True), strict=True))


def with_inner(p: dict[str, tuple], inner: Any) -> dict[str, tuple]:
    """The candidate of a GRU has a second bias, inside the reset gate."""
    return {**p, "n": (*p["n"], inner)}


# --- Flax Linen -----------------------------------------------------------------------------------


def linen(cell: nn.RNNCellBase, x: jax.Array = SEQUENCES) -> tuple[Callable, dict]:
    rnn = nn.RNN(cell)
    variables = randomise(jax.eval_shape(lambda: rnn.init(jax.random.key(0), x)))
    cell = variables["params"]["cell"]
    return lambda x: ends(rnn.apply(variables, x, seq_lengths=LENGTHS)), cell


def linen_gates(p: dict, gates: str) -> dict[str, tuple]:
    """The bias is where Flax put it, at the input or at the state."""

    def bias(g):
        return p["h" + g].get("bias", p["i" + g].get("bias"))

    return {g: (p["i" + g]["kernel"], p["h" + g]["kernel"], bias(g)) for g in gates}


def linen_gru_weights(p: dict, gates: str) -> dict[str, tuple]:
    found = linen_gates(p, gates)
    found["n"] = (*found["n"][:2], p["in"]["bias"])
    return with_inner(found, p["hn"]["bias"])


@recurrent
def linen_lstm():
    fn, p = linen(nn.LSTMCell(HIDDEN, **DOUBLE))
    counts = {"dense": 8, "product": 3, "add": 5, "activation": 5}
    return Recurrent(fn, [(by_hand.lstm, linen_gates(p, "ifgo"))], counts)


@recurrent
def linen_optimized_lstm():
    fn, p = linen(nn.OptimizedLSTMCell(HIDDEN, **DOUBLE))
    counts = {"dense": 2, "product": 3, "add": 5, "activation": 5}
    return Recurrent(fn, [(by_hand.lstm, linen_gates(p, "ifgo"))], counts)


@recurrent
def linen_gru():
    fn, p = linen(nn.GRUCell(HIDDEN, **DOUBLE))
    counts = {"dense": 6, "product": 3, "add": 4, "activation": 4}
    return Recurrent(fn, [(by_hand.gru, linen_gru_weights(p, "rzn"))], counts)


@recurrent
def linen_mgu():
    fn, p = linen(nn.MGUCell(HIDDEN, **DOUBLE))
    counts = {"dense": 4, "product": 3, "add": 3, "activation": 3}
    return Recurrent(fn, [(by_hand.mgu, linen_gru_weights(p, "fn"))], counts)


@recurrent
def linen_conv_lstm():
    fn, p = linen(nn.ConvLSTMCell(HIDDEN, (3, 3), **DOUBLE), PICTURES)
    bias = p["ih"]["bias"] + p["hh"]["bias"]
    weights = forget_more(fused("igfo", p["ih"]["kernel"], p["hh"]["kernel"], bias))
    counts = {"conv": 2, "product": 3, "add": 2, "activation": 5}
    return Recurrent(fn, [(by_hand.conv_lstm, weights)], counts, PICTURES)


def forget_more(p: dict[str, tuple]) -> dict[str, tuple]:
    """Some cells add 1 to what the forget gate gets."""
    return {**p, "f": (*p["f"][:2], p["f"][2] + 1.0)}


@recurrent
def linen_bidirectional():
    both = nn.Bidirectional(
        nn.RNN(nn.LSTMCell(HIDDEN, **DOUBLE)), nn.RNN(nn.GRUCell(HIDDEN, **DOUBLE))
    )
    shapes = jax.eval_shape(lambda: both.init(jax.random.key(0), SEQUENCES))
    variables = randomise(shapes)

    def fn(x):
        return ends(both.apply(variables, x, seq_lengths=LENGTHS), 2)

    one, other = (variables["params"][f"{side}_rnn"]["cell"] for side in ("forward", "backward"))
    directions = [
        (by_hand.lstm, linen_gates(one, "ifgo")),
        (by_hand.gru, linen_gru_weights(other, "rzn")),
    ]
    counts = {"dense": 14, "product": 6, "add": 9, "activation": 9}
    return Recurrent(fn, directions, counts)


# --- Flax NNX -------------------------------------------------------------------------------------


def nnx_module(module: nnx.Module, directions: int = 1) -> tuple[Callable, dict]:
    """An NNX RNN counts the random keys that it draws, so each trace takes a copy."""
    graph, state = nnx.split(module)
    state = randomise(state)

    def fn(x):
        y = nnx.merge(graph, state, copy=True)(x, seq_lengths=LENGTHS)
        return ends(y, directions)

    return fn, nnx.to_pure_dict(state)


def nnx_lstm_weights(p: dict) -> dict[str, tuple]:
    names = {"i": "ii", "f": "if_", "g": "ig", "o": "io"}
    state = {g: p["h" + g] for g in "ifgo"}
    return {g: (p[names[g]]["kernel"], state[g]["kernel"], state[g]["bias"]) for g in "ifgo"}


def nnx_gru_weights(p: dict) -> dict[str, tuple]:
    weights = fused("rzn", p["dense_i"]["kernel"], p["dense_h"]["kernel"], p["dense_i"]["bias"])
    return with_inner(weights, 0.0)


def nnx_cell(cell: Any) -> Any:
    return cell(FEATURES, HIDDEN, rngs=nnx.Rngs(0), **DOUBLE)


@recurrent
def nnx_lstm():
    fn, p = nnx_module(nnx.RNN(nnx_cell(nnx.LSTMCell)))
    counts = {"dense": 8, "product": 3, "add": 5, "activation": 5}
    return Recurrent(fn, [(by_hand.lstm, nnx_lstm_weights(p["cell"]))], counts)


@recurrent
def nnx_optimized_lstm():
    fn, p = nnx_module(nnx.RNN(nnx_cell(nnx.OptimizedLSTMCell)))
    p = p["cell"]
    weights = fused("ifgo", p["dense_i"]["kernel"], p["dense_h"]["kernel"], p["dense_h"]["bias"])
    counts = {"dense": 2, "product": 3, "add": 2, "activation": 5}
    return Recurrent(fn, [(by_hand.lstm, weights)], counts)


@recurrent
def nnx_gru():
    fn, p = nnx_module(nnx.RNN(nnx_cell(nnx.GRUCell)))
    counts = {"dense": 2, "product": 3, "add": 4, "activation": 4}
    return Recurrent(fn, [(by_hand.gru, nnx_gru_weights(p["cell"]))], counts)


@recurrent
def nnx_bidirectional():
    both = nnx.Bidirectional(nnx.RNN(nnx_cell(nnx.LSTMCell)), nnx.RNN(nnx_cell(nnx.GRUCell)))
    fn, p = nnx_module(both, 2)
    directions = [
        (by_hand.lstm, nnx_lstm_weights(p["forward_rnn"]["cell"])),
        (by_hand.gru, nnx_gru_weights(p["backward_rnn"]["cell"])),
    ]
    counts = {"dense": 10, "product": 6, "add": 9, "activation": 9}
    return Recurrent(fn, directions, counts)


# --- Haiku ----------------------------------------------------------------------------------------


def haiku(core: Callable, x: jax.Array = SEQUENCES, unroll: Any = None) -> tuple[Callable, dict]:
    def forward(x):
        cell = core()
        run = unroll or hk.dynamic_unroll
        return run(cell, x, cell.initial_state(len(x)), time_major=False)[0]

    transformed = hk.without_apply_rng(hk.transform(forward))
    p = randomise(jax.eval_shape(lambda: transformed.init(jax.random.key(0), x)))
    return lambda x: ends(transformed.apply(p, x)), p


def haiku_lstm_network(unroll: Any = None) -> Recurrent:
    fn, p = haiku(lambda: hk.LSTM(HIDDEN), unroll=unroll)
    (p,) = (v for v in p.values() if "w" in v)
    weights = forget_more(fused("igfo", p["w"][:FEATURES], p["w"][FEATURES:], p["b"]))
    counts = {"dense": 1, "product": 3, "add": 1, "activation": 5}
    return Recurrent(fn, [(by_hand.lstm, weights)], counts)


def haiku_gru_network(unroll: Any = None) -> Recurrent:
    fn, p = haiku(lambda: hk.GRU(HIDDEN), unroll=unroll)
    (p,) = p.values()
    weights = fused("zrn", p["w_i"], p["w_h"], p["b"])
    counts = {"dense": 3, "product": 3, "add": 3, "activation": 3}
    return Recurrent(fn, [(by_hand.haiku_gru, weights)], counts)


@recurrent
def haiku_lstm():
    return haiku_lstm_network()


@recurrent
def haiku_gru():
    return haiku_gru_network()


@recurrent
def haiku_conv_lstm():
    fn, p = haiku(lambda: hk.Conv2DLSTM((4, 4), HIDDEN, 3), PICTURES)
    one, other = (next(v for k, v in p.items() if part in k) for part in ("input_to", "hidden_to"))
    weights = forget_more(fused("igfo", one["w"], other["w"], one["b"] + other["b"]))
    counts = {"conv": 2, "product": 3, "add": 2, "activation": 5}
    return Recurrent(fn, [(by_hand.conv_lstm, weights)], counts, PICTURES)


# --- Keras ----------------------------------------------------------------------------------------


def keras(build: Callable, x: jax.Array = SEQUENCES, directions: int = 1) -> tuple[Callable, list]:
    """Keras computes tanh in float32 under any policy; the rest is float64."""
    os.environ["KERAS_BACKEND"] = "jax"
    keras = pytest.importorskip("keras", reason="Keras is one of four frameworks tried here")
    layer = build(keras.layers, dtype="float64", return_sequences=True, **START)
    layer.build(x.shape)
    weights = randomise([v.value for v in layer.trainable_variables])
    fixed = [v.value for v in layer.non_trainable_variables]
    shown = jnp.asarray(np.arange(STEPS) < LENGTHS[:, None])
    mask = {"mask": shown} if x.ndim == 3 else {}  # its convolutional cell takes none

    def fn(x):
        y, _ = layer.stateless_call(weights, fixed, x, training=False, **mask)
        return ends(y, directions)

    return fn, weights


# Keras's own take long, and are not used.
START = {"kernel_initializer": "zeros", "recurrent_initializer": "zeros"}  # orthogonal takes long


@recurrent
def keras_lstm():
    fn, (w, u, b) = keras(lambda layers, **kw: layers.LSTM(HIDDEN, **kw))
    counts = {"dense": 2, "product": 3, "add": 2, "activation": 5}
    return Recurrent(fn, [(by_hand.lstm, fused("ifgo", w, u, b))], counts)


@recurrent
def keras_gru():
    fn, (w, u, b) = keras(lambda layers, **kw: layers.GRU(HIDDEN, **kw))
    weights = fused("zrn", w, u, b[0] + b[1])
    new, inner = (jnp.split(a, 3)[2] for a in b)
    weights["n"] = (*weights["n"][:2], new)
    counts = {"dense": 2, "product": 3, "add": 4, "activation": 4}
    return Recurrent(fn, [(by_hand.gru, with_inner(weights, inner))], counts)


@recurrent
def keras_gru_reset_first():
    fn, (w, u, b) = keras(lambda layers, **kw: layers.GRU(HIDDEN, reset_after=False, **kw))
    counts = {"dense": 3, "product": 3, "add": 4, "activation": 4}
    return Recurrent(fn, [(by_hand.gru_reset_first, fused("zrn", w, u, b))], counts)


@recurrent
def keras_bidirectional():
    fn, (w, u, b, *other) = keras(
        lambda layers, **kw: layers.Bidirectional(layers.LSTM(HIDDEN, **kw)), directions=2
    )
    directions = [(by_hand.lstm, fused("ifgo", *p)) for p in ((w, u, b), other)]
    counts = {"dense": 4, "product": 6, "add": 4, "activation": 10}
    return Recurrent(fn, directions, counts)


@recurrent
def keras_conv_lstm():
    fn, (w, u, b) = keras(
        lambda layers, **kw: layers.ConvLSTM2D(HIDDEN, 3, padding="same", **kw), PICTURES
    )
    counts = {"conv": 8, "product": 3, "add": 5, "activation": 5}
    return Recurrent(fn, [(by_hand.conv_lstm, fused("ifgo", w, u, b))], counts, PICTURES)
