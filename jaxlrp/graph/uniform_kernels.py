"""A contraction or convolution with one written number everywhere is a sum times that number."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxlrp.graph.build import equations
from jaxlrp.graph.groups import Workbench
from jaxlrp.graph.ir import Eqn, Value
from jaxlrp.graph.linear import core_operand
from jaxlrp.graph.reordered_value import Ordered


def as_sum(bench: Workbench, core: Eqn, made: Ordered, done: set[Eqn]) -> Value | None:
    """The value of such a product as a sum; None for any other product."""
    operand = core_operand(bench, core)
    if operand is None or core.inputs[operand].dtype != core.out.dtype:
        return None
    kernel = core.inputs[1 - operand]
    number = bench.intervals.constant(kernel)
    if number is None or bench.statics.parameters(kernel):
        return None
    make = _contracted if core.name == "dot_general" else _windows
    function = make(core, operand, lambda x: x if number == 1.0 else x * number)
    if function is None:
        return None
    made.eqns += equations(function, [core.inputs[operand]], core, core.call)
    return made.eqns[-1].out


Function = Callable[[Any], Any]


def _contracted(core: Eqn, operand: int, scaled: Function) -> Function:
    """The sum over contracted axes, repeated along the free axes of the kernel."""
    contracted, batch = core.params["dimension_numbers"]
    n_batch = len(batch[operand])
    n_free = [v.ndim - len(c) - n_batch for v, c in zip(core.inputs, contracted, strict=True)]
    first = n_batch + (n_free[0] if operand == 1 else 0)
    axes = (*range(n_batch), *range(first, first + n_free[operand]))

    def total(x: Any) -> Any:
        free = [i for i in range(x.ndim) if i not in (*contracted[operand], *batch[operand])]
        order = (*batch[operand], *free, *contracted[operand])
        if order != tuple(range(x.ndim)):
            x = lax.transpose(x, order)
        kept = x.shape[: len(axes)]
        single = math.prod(kept) == x.size  # a view
        x = x.reshape(kept) if single else jnp.sum(x, tuple(range(len(axes), x.ndim)))
        x = scaled(x)
        return x if x.shape == core.out.shape else lax.broadcast_in_dim(x, core.out.shape, axes)

    return total


def _windows(core: Eqn, operand: int, scaled: Function) -> Function | None:
    """The sum over windows, if each output channel has input channels of its own."""
    params = core.params
    if core.name != "conv_general_dilated" or operand != 0 or params["batch_group_count"] != 1:
        return None
    lhs, rhs, out = params["dimension_numbers"]
    groups = params["feature_group_count"]
    if core.out.shape[out[1]] != groups or any(n != 1 for n in params["lhs_dilation"]):
        return None
    channels = core.inputs[0].shape[lhs[1]] // groups
    sizes = [core.inputs[1].shape[i] for i in rhs[2:]]

    def in_place(spatial: Any, feature: Any, rest: Any) -> tuple[Any, ...]:
        found = [rest] * len(lhs)
        found[lhs[1]] = feature
        for axis, n in zip(lhs[2:], spatial, strict=True):
            found[axis] = n
        return tuple(found)

    def total(x: Any) -> Any:
        x = lax.reduce_window(
            x,
            np.zeros((), x.dtype)[()],
            lax.add,
            in_place(sizes, channels, 1),
            in_place(params["window_strides"], channels, 1),
            in_place(params["padding"], (0, 0), (0, 0)),
            window_dilation=in_place(params["rhs_dilation"], 1, 1),
        )
        x = scaled(x)
        order = tuple(lhs[out.index(axis)] for axis in range(len(out)))
        return x if order == tuple(range(x.ndim)) else lax.transpose(x, order)

    return total
