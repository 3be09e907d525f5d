"""LRP through recurrent cells by hand: plain functions whose gradient is modified.

Each step of a cell is written with the functions of a `Hand`, which compute the usual value and
whose derivative is the rule's; relevance is then the input times the gradient. Nothing here comes
from jaxlrp. A cell's parameters are a dictionary {gate: (input weights, state weights, bias)}.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jax import lax

constant = lax.stop_gradient


@dataclasses.dataclass(frozen=True)
class Hand:
    """The rules of LRP-all, or of a variant: half, prop, abs."""

    variant: str = "all"
    epsilon: float = 0.0

    def total(self, z):
        """Something that is added up: Epsilon, all of what was added in the denominator."""
        if self.epsilon == 0.0:
            return z
        kept = constant(z / (z + self.epsilon * jnp.where(z >= 0, 1.0, -1.0)))
        return kept * z + constant((1.0 - kept) * z)

    def gated(self, gate, signal):
        """A product of two values."""
        value = constant(gate * signal)
        match self.variant:
            case "all":
                return constant(gate) * signal
            case "half":
                return (constant(gate) * signal + gate * constant(signal)) / 2
            case "prop":
                return (gate + signal) * constant(value / (gate + signal))
            case "abs":
                whole = jnp.abs(gate) + jnp.abs(signal)
                return whole * constant(value / whole)

    def through(self, f, z):
        """An activation passes relevance as it is: its slope is the secant."""
        return z * constant(f(z) / z)

    def gate(self, z):
        return self.through(jax.nn.sigmoid, self.total(z))


def rest(z):
    """What a gate leaves: the written 1 takes nothing, as in sigmoid(-u)."""
    return 1.0 - z


def matrix(x, w):
    return x @ w


def convolution(x, w):
    numbers = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=numbers)


def lstm(hand, p, state, x, linear=matrix):
    h, c = state
    z = {name: linear(x, w) + linear(h, u) + b for name, (w, u, b) in p.items()}
    i, f, o = (hand.gate(z[name]) for name in "ifo")
    new = hand.through(jnp.tanh, hand.total(z["g"]))
    c = hand.total(hand.gated(f, c) + hand.gated(i, new))
    return hand.gated(o, hand.through(jnp.tanh, c)), c


def conv_lstm(hand, p, state, x):
    return lstm(hand, p, state, x, convolution)


def gru(hand, p, state, x):
    """The reset gate comes after the product with the state's weights; `n` has two biases."""
    (h,) = state
    r, z = (hand.gate(x @ w + h @ u + b) for w, u, b in (p["r"], p["z"]))
    w, u, b, inner = p["n"]
    n = hand.total(x @ w + b + hand.gated(r, hand.total(h @ u + inner)))
    new = hand.gated(hand.through(rest, z), hand.through(jnp.tanh, n))
    return (hand.total(new + hand.gated(z, h)),)


def gru_reset_first(hand, p, state, x):
    (h,) = state
    r, z = (hand.gate(x @ w + h @ u + b) for w, u, b in (p["r"], p["z"]))
    w, u, b = p["n"]
    n = hand.total(x @ w + hand.gated(r, h) @ u + b)
    new = hand.gated(hand.through(rest, z), hand.through(jnp.tanh, n))
    return (hand.total(new + hand.gated(z, h)),)


def haiku_gru(hand, p, state, x):
    """Haiku's update gate opens for the new value, where the others' keep the old one."""
    (h,) = state
    r, z = (hand.gate(x @ w + h @ u + b) for w, u, b in (p["r"], p["z"]))
    w, u, b = p["n"]
    n = hand.total(x @ w + hand.gated(r, h) @ u + b)
    kept = hand.gated(hand.through(rest, z), h)
    return (hand.total(kept + hand.gated(z, hand.through(jnp.tanh, n))),)


def mgu(hand, p, state, x):
    """One gate does both."""
    return gru(hand, {"r": p["f"], "z": p["f"], "n": p["n"]}, state, x)


def last(hand, cell, p, x, lengths, reverse=False):
    """The state's first part after sequences x (batch, steps, ...) of different lengths."""
    size = next(iter(p.values()))[1].shape[-2]
    blank = jnp.zeros((*x[:, 0].shape[:-1], size))
    state = (blank,) * (2 if cell in (lstm, conv_lstm) else 1)
    rows, found = jnp.arange(len(x)), []
    for t in range(x.shape[1]):
        at = lengths - 1 - t if reverse else t  # behind its end, what a sequence gives is not read
        state = cell(hand, p, state, x[rows, at])
        found.append(state[0])
    return jnp.stack(found)[lengths - 1, rows]
