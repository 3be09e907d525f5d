"""Rows of a softmax that a mask of -inf shuts: they attend to nothing and get no relevance.

The softmax of such a row is 0/0. Its weights are taken as 0, so that no NaN reaches the rows beside
it on the way back. An element at -inf, whose weight is 0, gets 0 whatever arrives.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp


def without_weights(weights: Any, logits: Any) -> Any:
    """0 where a weight is NaN because its logit (and its whole row) is -inf."""
    return jnp.where(jnp.isnan(weights) & (logits == -jnp.inf), 0.0, weights)


@jax.custom_vjp
def without_arrivals(logits: Any) -> Any:
    """The logits; no relevance passes back to those that are -inf."""
    return logits


without_arrivals.defvjp(
    lambda logits: (logits, logits),
    lambda logits, arrived: (jnp.where(logits == -jnp.inf, 0.0, arrived),),
)
