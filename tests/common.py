"""Small functions that many tests need: random arrays, a norm, relevance of an output, kinds."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxlrp as lrp
from tests import numpy_jaxpr


def draw(*shape: int, seed: int = 0, scale: float = 1.0) -> jax.Array:
    """Normal numbers, of each shape others."""
    return jnp.asarray(scale * np.random.default_rng([seed, *shape]).normal(size=shape))


def weights_for(seed: int, *shape: int) -> jax.Array:
    """Normal numbers; a product with them keeps its size."""
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape) / shape[0] ** 0.5)


def layer_norm(x: Any, axis: int = -1, epsilon: float = 1e-5) -> Any:
    """Without a scale and a shift."""
    centred = x - x.mean(axis, keepdims=True)
    return centred / jnp.sqrt((centred**2).mean(axis, keepdims=True) + epsilon)


@contextlib.contextmanager
def checking_leaks() -> Iterator[None]:
    """`jax.checking_leaks`, at a cost that does not grow with the tests that ran before.

    JAX collects all garbage after every trace that something holds. Tracers made in here are
    new, so the collector may leave alone what was there before.
    """
    gc.collect()
    gc.freeze()
    try:
        with jax.checking_leaks():
            yield
    finally:
        gc.unfreeze()


def pull_back(fn: Any, rules: Any, x: Any, relevance: Any, **options: Any) -> jax.Array:
    """The relevance of x if `relevance` is that of fn(x), in float64; traced, and run in NumPy."""

    def received(x: jax.Array, relevance: jax.Array) -> jax.Array:
        return lrp.relevance_vjp(fn, rules, x, **options)[1](relevance)[0]

    return numpy_jaxpr.run(received, np.asarray(x, float), np.asarray(relevance, float))


def kinds(fn: Any, *args: Any, rules: Any = None, **options: Any) -> list[str]:
    """The kinds of the layers, without structural ones."""
    plan = lrp.plan(fn, rules or lrp.Epsilon(), **options)(*args)
    return [layer.kind for layer in plan.layers if layer.kind != "structural"]
