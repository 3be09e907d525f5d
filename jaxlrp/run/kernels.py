"""Kernels of contractions and convolutions: scales folded in, and kernels of ones."""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp

from jaxlrp import compat
from jaxlrp.graph.ir import Eqn
from jaxlrp.graph.primitives import carrying
from jaxlrp.run import depthwise, evaluate


def thin(scale: Any, features: frozenset[int]) -> Any:
    """Keep one element along the axes along which a scale does not vary."""
    index = tuple(slice(None) if i in features else slice(0, 1) for i in range(scale.ndim))
    return scale[index]


def _place(scale: Any, source: list[int], target: list[int], ndim: int) -> Any:
    """Move axes `source` of a thin array to axes `target` of one with `ndim` axes."""
    if scale.ndim == 0:
        return scale
    kept = jnp.transpose(scale, [*source, *(i for i in range(scale.ndim) if i not in source)])
    kept = kept.reshape(kept.shape[: len(source)])
    order = sorted(range(len(target)), key=lambda i: target[i])
    shape = [1] * ndim
    for i in order:
        shape[target[i]] = kept.shape[i]
    return jnp.transpose(kept, order).reshape(shape)


def scale_dot_kernel(core: Eqn, operand: int, kernel: Any, before: Any, after: Any) -> Any:
    contract, batch = core.params["dimension_numbers"]
    mine = 1 - operand
    if before is not None:
        source = [*contract[operand], *batch[operand]]
        target = [*contract[mine], *batch[mine]]
        kernel = kernel * _place(jnp.asarray(before), source, target, kernel.ndim)
    if after is not None:
        n_batch = len(batch[0])
        free = [i for i in range(kernel.ndim) if i not in contract[mine] and i not in batch[mine]]
        start = n_batch
        if mine == 1:
            start += core.inputs[0].ndim - len(contract[0]) - n_batch
        source = [*range(n_batch), *range(start, start + len(free))]
        kernel = kernel * _place(jnp.asarray(after), source, [*batch[mine], *free], kernel.ndim)
    return kernel


def scale_conv_kernel(core: Eqn, kernel: Any, before: Any, after: Any) -> Any:
    numbers = core.params["dimension_numbers"]
    out_axis, in_axis = numbers.rhs_spec[0], numbers.rhs_spec[1]
    if before is not None:
        scale = jnp.asarray(before)
        if scale.size > 1:
            groups = core.params["feature_group_count"]
            per_group = scale.reshape(groups, -1)
            scale = jnp.repeat(per_group, kernel.shape[out_axis] // groups, axis=0)
            shape = [1] * kernel.ndim
            shape[out_axis], shape[in_axis] = scale.shape
            scale = scale if out_axis < in_axis else scale.T
            scale = scale.reshape(shape)
        kernel = kernel * (scale if scale.ndim == kernel.ndim else scale.reshape(()))
    if after is not None:
        shape = [1] * kernel.ndim
        scale = jnp.asarray(after)
        shape[out_axis] = scale.size
        kernel = kernel * scale.reshape(shape)
    return kernel


def window_count(core: Eqn, x: Any) -> Any:
    """A convolution with a kernel of ones, computed on one channel per feature group."""
    numbers = core.params["dimension_numbers"]
    groups = core.params["feature_group_count"]
    kernel_shape = core.inputs[1].shape
    channel = numbers.lhs_spec[1]
    shape = list(x.shape)
    shape[channel : channel + 1] = [groups, shape[channel] // groups]
    summed = x.reshape(shape).sum(channel + 1)
    ones_shape = [1] * len(kernel_shape)
    ones_shape[numbers.rhs_spec[0]] = groups
    for axis in numbers.rhs_spec[2:]:
        ones_shape[axis] = kernel_shape[axis]
    (out,) = depthwise.bind(
        core.prim,
        evaluate.widened_params(core.params, x.dtype),
        (summed, compat.typed_like(jnp.ones(ones_shape, x.dtype), summed)),
    )
    return jnp.repeat(out, kernel_shape[numbers.rhs_spec[0]] // groups, axis=numbers.out_spec[1])


def contraction_count(core: Eqn, operand: int, x: Any) -> Any:
    """A contraction with a kernel of ones: a sum over contracted axes, repeated along new ones."""
    contract, batch = core.params["dimension_numbers"]
    mine = 1 - operand
    order = [*batch[operand]]
    order += [i for i in range(x.ndim) if i not in contract[operand] and i not in batch[operand]]
    summed = jnp.transpose(x, [*order, *contract[operand]])
    summed = summed.reshape(
        *(x.shape[i] for i in order), math.prod(x.shape[i] for i in contract[operand])
    )
    summed = summed.sum(-1)
    kernel_shape = core.inputs[mine].shape
    new = [
        kernel_shape[i]
        for i in range(len(kernel_shape))
        if i not in contract[mine] and i not in batch[mine]
    ]
    n_batch = len(batch[0])
    position = n_batch if operand == 1 else summed.ndim
    shape = (*summed.shape[:position], *([1] * len(new)), *summed.shape[position:])
    return jnp.broadcast_to(summed.reshape(shape), core.out.shape)


def weight_position(core: Eqn, operand: int) -> int:
    """Position of the kernel among the operands of a core; the other operands hold indices."""
    return next(i for i in carrying(core) if i != operand)
