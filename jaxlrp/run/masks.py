"""`condition=`: masks on the relevance at layers' outputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxlrp.errors import InputError
from jaxlrp.planning.layers import Layer
from jaxlrp.planning.open_paths import open_paths
from jaxlrp.planning.plans import Plan, noted

# The type of a mapping's keys is invariant: dict[str, Array] is not a Mapping[Selector, Array].
Condition: TypeAlias = Mapping[Any, ArrayLike]


def masks_of(plan: Plan, condition: Condition | None) -> dict[Layer, Any]:
    """The masks of `condition=` for the selected layers; several masks of one layer multiply."""
    if condition is not None and not isinstance(condition, Mapping):
        raise InputError(
            f"condition is of type {type(condition).__name__}; expected a mapping from selectors "
            "to masks: condition={'conv': mask}."
        )
    masks: dict[Layer, Any] = {}
    for selector, mask in (condition or {}).items():
        for layer in plan.select(selector):
            whole = (*layer.iterations, *layer.shape)
            if not any(_broadcasts(jnp.shape(mask), shape) for shape in (layer.shape, whole)):
                raise InputError(
                    f"condition: the mask for {layer.name!r} has shape {jnp.shape(mask)}; it must "
                    f"broadcast to the layer's output, {whole}."
                )
            mask = jnp.asarray(mask)
            if mask.ndim > len(layer.shape):
                mask = jnp.broadcast_to(mask, whole)  # without an axis for a loop: each iteration
            masks[layer] = mask * masks[layer] if layer in masks else mask
    return masks


def masked_plan(plan: Plan, condition: Condition | None) -> Plan:
    """The plan with a note if relevance has a path past the masked layers."""
    return noted(plan, tuple(open_paths(plan, masks_of(plan, condition))))


def _broadcasts(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    try:
        return jnp.broadcast_shapes(shape, to) == to
    except ValueError:
        return False
