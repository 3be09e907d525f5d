"""Equations in an unusual form, rewritten in the usual one."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxlrp import compat


def spelled_out(eqn: Any) -> tuple[Any, Sequence[Any]] | None:
    """The plainer jaxpr (and constants) that an equation stands for, or None.

    A `dot_general` that contracts no axes multiplies element by element; an einsum writes a scale
    of the heads, or a rotation, in this way. It becomes broadcasts and a `mul`. A collective over
    an axis that `vmap` has mapped becomes a reduction of the array itself. A stack becomes a
    concatenation of parts, an unstack a split into parts, and a depthwise convolution of another
    explanation (`run/depthwise.py`) the convolution that it was. A barrier of several values
    becomes one of each, so that what moves a value has one operand.
    """
    if eqn.primitive.name == "optimization_barrier" and len(eqn.outvars) > 1:
        return _traced(lambda *xs: [lax.optimization_barrier(x) for x in xs], eqn)
    plainer = _PLAINER.get(eqn.primitive.name)
    if plainer is not None:
        return _traced(functools.partial(plainer, **eqn.params), eqn)
    reduction = _REDUCTIONS.get(eqn.primitive.name)
    if reduction is not None:
        axes = eqn.params.get("axes", ())
        positional = bool(axes) and all(isinstance(axis, int) for axis in axes)
        if not positional or eqn.params.get("axis_index_groups") is not None:
            return None
        return _traced(lambda *xs: [reduction(x, axes) for x in xs], eqn)
    if eqn.primitive.name != "dot_general" or eqn.params["dimension_numbers"][0][0]:
        return None
    batch = eqn.params["dimension_numbers"][1]
    out = eqn.outvars[0].aval
    n_free = [len(v.aval.shape) - len(b) for v, b in zip(eqn.invars, batch, strict=True)]

    def side(x: Any, number: int) -> Any:
        free = [i for i in range(x.ndim) if i not in batch[number]]
        start = len(batch[number]) + (n_free[0] if number else 0)
        dims = (*range(len(batch[number])), *range(start, start + len(free)))
        x = lax.transpose(x, (*batch[number], *free))
        x = x if x.shape == out.shape else lax.broadcast_in_dim(x, out.shape, dims)
        return lax.convert_element_type(x, out.dtype)

    def product(a: Any, b: Any) -> Any:
        return lax.mul(side(a, 0), side(b, 1))

    return _traced(product, eqn)


def _stack(*xs: Any, axis: int) -> Any:
    return lax.concatenate([lax.expand_dims(x, (axis,)) for x in xs], axis)


def _unstack(x: Any, *, axis: int) -> Any:
    return [lax.squeeze(part, (axis,)) for part in lax.split(x, (1,) * x.shape[axis], axis)]


_PLAINER = {
    "stack": _stack,
    "unstack": _unstack,
    "depthwise_convolution": compat.CONVOLUTION.bind,  # of another explanation
}
_REDUCTIONS = {"psum": jnp.sum, "pmax": jnp.max, "pmin": jnp.min}


def _traced(function: Callable[..., Any], eqn: Any) -> tuple[Any, Sequence[Any]]:
    shapes = (jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in eqn.invars)
    closed = jax.make_jaxpr(function)(*shapes)
    return closed.jaxpr, closed.consts
