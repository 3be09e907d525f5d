"""Where relevance starts: targets as weights on the outputs."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlrp import compat
from jaxlrp.errors import TargetError
from jaxlrp.types import Target


def output_weights(target: Target, out_shapes: list[Any], out_tree: Any) -> list[Any]:
    """One weight per output element: the seed is weight * output, so a density is the weight.

    None: every output counts with its own value. Integers of shape `out.shape[:-1]`, or one
    integer, pick the class on the last axis. Floats of the output's shape are weights.
    """
    if target is None:
        return [jnp.ones(s.shape, _wide(s.dtype)) for s in out_shapes]
    leaves, tree = jax.tree.flatten(target)
    if tree == out_tree and all(_is_float(t) for t in leaves):
        for t, s in zip(leaves, out_shapes, strict=True):
            if jnp.shape(t) != tuple(s.shape):
                raise TargetError(
                    f"target weights of shape {jnp.shape(t)} were given for an output of shape "
                    f"{tuple(s.shape)}; weights need the output's own shape."
                )
        return [jnp.asarray(t, _wide(s.dtype)) for t, s in zip(leaves, out_shapes, strict=True)]
    if len(leaves) != 1 or len(out_shapes) != 1:
        raise TargetError(
            f"target has the structure {tree}, the output {out_tree}; with several outputs give "
            "weights (floats) of the same structure and shapes, or None."
        )
    return [_one_hot(leaves[0], out_shapes[0])]


def _wide(dtype: Any) -> Any:
    return jnp.promote_types(dtype, jnp.float32)


def _is_float(t: Any) -> bool:
    return bool(jnp.issubdtype(jnp.result_type(t), jnp.floating))


def _one_hot(target: Any, out: Any) -> Any:
    dtype = getattr(target, "dtype", None)
    if isinstance(target, bool) or dtype == jnp.bool_:
        raise TargetError("target is boolean; give class indices (integers) or weights (floats).")
    if not jnp.issubdtype(jnp.result_type(target), jnp.integer):
        raise TargetError(
            f"target of type {type(target).__name__} and dtype {jnp.result_type(target)} was "
            "given; expected integers (classes), floats of the output's shape (weights), or None."
        )
    shape = tuple(out.shape)
    if not shape:
        raise TargetError(
            "target picks a class on the output's last axis, but the output is a scalar; leave "
            "target=None."
        )
    if jnp.shape(target) not in ((), shape[:-1]):
        raise TargetError(
            f"target of shape {jnp.shape(target)} was given for an output of shape {shape}; "
            f"expected one integer, or integers of shape {shape[:-1]}."
        )
    classes = shape[-1]
    if compat.is_concrete(target):
        values = np.asarray(target)
        if values.size and (values.min() < 0 or values.max() >= classes):
            raise TargetError(
                f"target {values.min() if values.min() < 0 else values.max()} is out of range: the "
                f"output has {classes} classes, 0 to {classes - 1}."
            )
    index = jnp.broadcast_to(jnp.asarray(target), shape[:-1])
    hot = jax.nn.one_hot(index, classes, dtype=_wide(out.dtype))
    inside = (index >= 0) & (index < classes)
    # A traced class cannot raise: relevance NaN says that it was out of range.
    return jnp.where(inside[..., None], hot, jnp.nan)
