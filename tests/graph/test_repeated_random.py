"""Random functions called several times between random neighbours: planned as if written out."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import jaxlrp as lrp
from jaxlrp import composites
from jaxlrp.graph import build
from tests.common import layer_norm, weights_for
from tests.compare import assert_leaves_close, rows
from tests.numpy_jaxpr import in_numpy

W, V, G, B = (
    weights_for(1, 4, 4),
    weights_for(2, 4, 4),
    jnp.abs(weights_for(3, 4)) + 0.5,
    weights_for(4, 4),
)
MASK = jnp.array([True, True, True, False])
RULES = [
    composites.lrp_zero(),
    composites.attn_lrp(),
    composites.cp_lrp(),
    composites.epsilon_plus_flat(),
    composites.epsilon_alpha2_beta1(),
    composites.lstm_lrp_all(),
]


def softmax(x):
    e = jnp.exp(x - jax.lax.stop_gradient(x.max(-1, keepdims=True)))
    return e / e.sum(-1, keepdims=True)


# Whole layers and parts of layers: a cut between two parts is a border that a layer crosses.
PIECES: dict[str, Callable[[Any], Any]] = {
    "dense": lambda x: x @ W,
    "another dense": lambda x: x @ V,
    "bias": lambda x: x + B,
    "scale": lambda x: x * G,
    "number": lambda x: 0.5 * x,
    "shift": lambda x: x + 0.3,
    "negative": lambda x: -x,
    "relu": jax.nn.relu,
    "relu by where": lambda x: jnp.where(x > 0, x, 0.0),
    "gelu": lambda x: 0.5 * x * (1 + jax.lax.erf(x / 2**0.5)),
    "tanh": jnp.tanh,
    "cubic": lambda x: x + 0.04 * x**3,
    "square": lambda x: x * x,
    "absolute": jnp.abs,
    "softmax": softmax,
    "exponential": jnp.exp,
    "share": lambda x: x / jnp.square(x).sum(-1, keepdims=True),  # a plain sum is 0 after a norm
    "masked": lambda x: jnp.where(MASK, x, -jnp.inf),
    "norm": layer_norm,
    "centred": lambda x: x - x.mean(-1, keepdims=True),
    "over its size": lambda x: x / (jnp.abs(x).sum(-1, keepdims=True) + 1.0),
    "residual": lambda x: x + jnp.tanh(x @ W) @ V,
    "gated": lambda x: x * jax.nn.sigmoid(x @ W),
    "attention": lambda x: softmax(x @ x.T) @ x,
    "turned": lambda x: x.reshape(2, 6).reshape(3, 4),
    "stopped": lambda x: x + jax.lax.stop_gradient(x.sum()),
}


def some(rng: random.Random, least: int, most: int) -> list[Callable[[Any], Any]]:
    return [PIECES[rng.choice(list(PIECES))] for _ in range(rng.randint(least, most))]


def chain(pieces: list[Callable[[Any], Any]]) -> Callable[[Any], Any]:
    def fn(x):
        for piece in pieces:
            x = piece(x)
        return x

    return fn


def program(seed: int) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """A function with a block that is called two or three times under jit, and written out."""
    rng = random.Random(seed)
    block = chain([*some(rng, 1, 3), *some(rng, 1, 3)])
    between = [chain(some(rng, 0, 2)) for _ in range(rng.randint(2, 3))]
    parallel = rng.random() < 0.5
    wrap = rng.choice([jax.jit, jax.checkpoint])

    def written(block):
        def fn(x):
            if parallel:
                return sum(piece(block(start(x))) for start, piece in zip(between, between[::-1]))
            for piece in between:
                x = block(piece(x))
            return jnp.tanh(x @ V) + x

        return fn

    # What is computed twice is one value, but not across what is recomputed: then plans may differ.
    return written(wrap(block)), written(block), wrap is jax.checkpoint and parallel


@pytest.mark.parametrize("start", range(0, 240, 60))
def test_random_calls_are_planned_as_if_written_out(start, monkeypatch):
    monkeypatch.setattr(build, "_SHORT", 1)
    x = weights_for(9, 3, 4)
    shared = 0
    for seed in range(start, start + 60):
        called, plain, apart = program(seed)
        if apart:
            continue
        rules = RULES[seed % len(RULES)]
        plan = lrp.plan(called, rules)(x)
        shared += bool(plan.found.calls)
        assert rows(plan) == rows(lrp.plan(plain, rules)(x)), seed
    assert shared > 0


@pytest.mark.parametrize("seed", range(0, 240, 40))
def test_random_calls_are_explained_as_if_written_out(seed, monkeypatch):
    monkeypatch.setattr(build, "_SHORT", 1)
    x = weights_for(9, 3, 4)
    one, other = (lrp.explain(fn, RULES[seed % len(RULES)]) for fn in program(seed)[:2])
    found, expected = (in_numpy(lambda x, f=f: f(x, target=1))(x) for f in (one, other))
    finite = jnp.isfinite(expected)
    assert bool(jnp.all(finite == jnp.isfinite(found)))
    assert_leaves_close(jnp.where(finite, found, 0.0), jnp.where(finite, expected, 0.0))
