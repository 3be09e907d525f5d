"""Parts of an input: segments, and inputs in which some segments are replaced."""

from __future__ import annotations

from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from jaxlrp.errors import InputError
from jaxlrp.methods.task import Task, filled, wide


def one_array(task: Task, name: str) -> Any:
    """The explained array, for a method that needs exactly one."""
    leaves = jax.tree.leaves(task.x)
    if len(leaves) != 1:
        raise InputError(
            f"{name} needs one explained array, and {len(leaves)} were given; choose one with "
            "argnums."
        )
    return leaves[0]


def rebuilt(task: Task, x: Any) -> Any:
    """An array in the place of the one explained array."""
    return jax.tree.unflatten(jax.tree.structure(task.x), [x])


def checked_segments(segments: Any, count: int | None, x: Any) -> tuple[Any, int]:
    """Segment numbers that broadcast to x, and the number of segments."""
    concrete = not isinstance(segments, jax.core.Tracer)
    segments = np.asarray(segments) if concrete else segments
    if not jnp.issubdtype(segments.dtype, jnp.integer):
        raise InputError(f"segments of dtype {segments.dtype} were given; expected integers.")
    try:
        fits = np.broadcast_shapes(segments.shape, x.shape) == x.shape
    except ValueError:
        fits = False
    if not fits:
        raise InputError(
            f"segments of shape {segments.shape} were given for an input of shape {x.shape}; they "
            "must broadcast to it (for a picture HWC give them as HW1)."
        )
    if concrete:
        low, high = int(segments.min()), int(segments.max())
        if low < 0 or (count is not None and high >= count):
            most = "" if count is None else f" and less than n_segments={count}"
            raise InputError(f"segments go from {low} to {high}; expected 0 or more{most}.")
        return jnp.asarray(segments), high + 1 if count is None else count
    if count is None:
        raise InputError("segments are traced: say how many there are with n_segments=.")
    return segments, count


def baseline_of(task: Task, baseline: Any) -> Any:
    return jax.tree.leaves(filled("baseline", baseline, task.x))[0]


def spread(coefficients: Any, segments: Any, x: Any, examples: int) -> Any:
    """One number per segment (and example) on every element of the segment.

    coefficients are (segments, *examples); the result has x's shape.
    """
    at = jnp.broadcast_to(segments, x.shape)
    if examples == 0:
        return wide(coefficients)[at]
    head = x.shape[:examples]
    table = jnp.moveaxis(wide(coefficients), 0, -1).reshape(-1, coefficients.shape[0])
    flat = at.reshape(table.shape[0], -1)
    return jnp.take_along_axis(table, flat, axis=1).reshape(*head, *x.shape[examples:])
