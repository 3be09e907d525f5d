"""Rows of a softmax that a mask of -inf shuts: they attend to nothing and get no relevance.

The softmax of such a row is 0/0. Its weights are taken as 0, so that no NaN reaches the rows beside
it on the way back. Where the axes of a row are known the rule asks each row once: a question to
each element would keep all logits for the backward pass and split the loops that XLA fuses.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxlrp.graph.particulars import Softmax


def without_weights(weights: Any, logits: Any, softmax: Softmax) -> Any:
    """0 in the rows whose logits are all -inf."""
    if softmax.rows:
        return jnp.where(_are_shut(logits, softmax.rows), 0.0, weights)
    return jnp.where(jnp.isnan(weights) & (logits == -jnp.inf), 0.0, weights)


def without_arrivals(logits: Any, softmax: Softmax) -> Any:
    """The logits; no relevance passes back to a row that is shut.

    The row then has finite weights, which `without_weights` replaces. An element at -inf in an open
    row gets 0 by the derivative. Where the rows are unknown nothing passes back to -inf.
    """
    if softmax.rows:
        return jnp.where(_are_shut(logits, softmax.rows), 0.0, logits)
    return _without_arrivals(logits)


def without_relevance(back: Any, logits: Any, softmax: Softmax) -> Any:
    """What a rule passes back to logits: 0 where `without_arrivals` lets nothing through."""
    shut = _are_shut(logits, softmax.rows) if softmax.rows else logits == -jnp.inf
    return jnp.where(shut, 0.0, back)


def _are_shut(logits: Any, rows: tuple[int, ...]) -> Any:
    return jnp.max(logits, rows, keepdims=True, initial=-jnp.inf) == -jnp.inf


@jax.custom_vjp
def _without_arrivals(logits: Any) -> Any:
    return logits


_without_arrivals.defvjp(
    lambda logits: (logits, logits),
    lambda logits, arrived: (jnp.where(logits == -jnp.inf, 0.0, arrived),),
)
