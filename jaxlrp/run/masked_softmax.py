"""Rows of a softmax that a mask of -inf shuts: they attend to nothing and get no relevance.

The softmax of such a row is 0/0. Its weights are taken as 0, so that no NaN reaches the rows beside
it on the way back. Where the axes of a row are known the rule asks each row once: a question to
each element would keep all logits for the backward pass and split the loops that XLA fuses. Where
they are unknown (segments, weights that are transposed before the division) the softmax of the mask
alone is 0/0 at the same weights.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxlrp.graph.groups import Group
from jaxlrp.graph.particulars import Softmax
from jaxlrp.run import evaluate
from jaxlrp.run.evaluate import Env


def without_weights(group: Group, inputs: tuple[Any, ...], env: Env) -> tuple[Any, ...]:
    """The outputs of a softmax, with 0 in the rows whose logits are all -inf."""
    softmax = group.particulars_as(Softmax)
    outputs = tuple(env[y] for y in group.outputs)
    if softmax.logits is None:
        return outputs
    if softmax.rows:
        shut = _are_shut(env[softmax.logits], softmax.rows)
        return tuple(jnp.where(shut, 0.0, y) for y in outputs)
    of_mask = dict(env)
    for value, x in zip(group.inputs, inputs, strict=True):
        of_mask[value] = jnp.where(x == -jnp.inf, x, jnp.zeros_like(x))
    evaluate.run(group.eqns, of_mask)
    # A comparison within the layer may differ for the mask alone: what is a number stays.
    pairs = ((env[y], of_mask[y]) for y in group.outputs)
    return tuple(jnp.where(jnp.isnan(y) & jnp.isnan(of), 0.0, y) for y, of in pairs)


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
