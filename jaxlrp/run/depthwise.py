"""Depthwise convolutions of an explanation, on a CPU, as sums of shifted products.

A depthwise convolution gives each channel a small kernel of its own. XLA's compiler for CPU runs
it, and above all its transpose, in plain loops, tens of times slower than one scaled copy of the
input for each place of the kernel, all of which it fuses into one loop. An explanation computes
them that way, in the network's forward pass and in the products of rules: the sum is the same, in
the same precision. On several devices it does not: how the convolution is laid out over them is the
compiler's to say. Nor does it outside `jit`: each shifted copy would be compiled by itself, and
values are the function's own to the last bit.
"""

from __future__ import annotations

import contextvars
import functools
import itertools
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxlrp import compat
from jaxlrp.compat_bilinear import bilinear
from jaxlrp.run.held import held

_MOST_PLACES = 25  # of a kernel: with more, the loops take too long to compile
_as_written = contextvars.ContextVar("as_written", default=False)


def as_written(is_so: bool = True) -> AbstractContextManager[None]:
    """Leave convolutions as they are: outside `jit`, and in a program that is bound later."""
    return held(_as_written, is_so)


def bind(prim: Any, params: dict[str, Any], operands: Sequence[Any]) -> list[Any]:
    """The results of an equation of an explanation."""
    if _as_written.get() or not compat.is_staging():
        return compat.bind(prim, params, operands)
    return _bind(prim, params, operands)


def _bind(prim: Any, params: dict[str, Any], operands: Sequence[Any]) -> list[Any]:
    is_one = prim.name == "conv_general_dilated" and _is_shifted(params, *operands)
    return compat.bind(_SHIFTED if is_one else prim, params, operands)


def _is_shifted(params: dict[str, Any], x: Any, kernel: Any) -> bool:
    numbers, groups = params["dimension_numbers"], params["feature_group_count"]
    if jax.default_backend() != "cpu" or jax.device_count() != 1:
        return False
    if any(map(compat.varying_axes, (x, kernel))):
        return False
    if groups == 1 or params["batch_group_count"] != 1:
        return False
    if x.shape[numbers.lhs_spec[1]] != groups:
        return False
    given = {x.dtype, kernel.dtype, jnp.dtype(params["preferred_element_type"] or x.dtype)}
    if len(given) != 1 or x.dtype not in (jnp.float32, jnp.float64):
        return False
    few = 0 < math.prod(_places(params, kernel)) <= _MOST_PLACES
    return few and 0 not in _spaces(params, x, kernel)


def _places(params: dict[str, Any], kernel: Any) -> list[int]:
    return [kernel.shape[axis] for axis in params["dimension_numbers"].rhs_spec[2:]]


def _spaces(params: dict[str, Any], x: Any, kernel: Any) -> list[int]:
    """The sizes of the output along the axes of space."""
    axes, found = params["dimension_numbers"].lhs_spec[2:], []
    for n, axis in enumerate(axes):
        apart = params["lhs_dilation"][n]
        size = max(0, (x.shape[axis] - 1) * apart + 1) + sum(params["padding"][n])
        window = (_places(params, kernel)[n] - 1) * params["rhs_dilation"][n] + 1
        found.append(max(0, (size - window) // params["window_strides"][n] + 1))
    return found


def _shifted(x: Any, kernel: Any, **params: Any) -> Any:
    """The sum over the places of the kernel: its number there times the input, shifted."""
    numbers, groups = params["dimension_numbers"], params["feature_group_count"]
    places, sizes = _places(params, kernel), _spaces(params, x, kernel)
    x = _padded(params, x)
    # The axes of the output's layout: examples, features and space of the input go there.
    order = dict(zip(numbers.out_spec, numbers.lhs_spec, strict=True))
    x = lax.transpose(x, [order[axis] for axis in range(x.ndim)])
    features, space = numbers.out_spec[1], numbers.out_spec[2:]
    outputs = kernel.shape[numbers.rhs_spec[0]]
    x = jnp.repeat(x, outputs // groups, axis=features) if outputs != groups else x
    order = (*numbers.rhs_spec[2:], numbers.rhs_spec[0], numbers.rhs_spec[1])
    kernel = lax.reshape(lax.transpose(kernel, order), (*places, outputs))

    shape, steps = list(x.shape), [1] * x.ndim
    for axis, size, stride in zip(space, sizes, params["window_strides"]):
        shape[axis], steps[axis] = size, stride
    total = None
    for place in itertools.product(*map(range, places)):
        start = [0] * x.ndim
        for axis, i, apart in zip(space, place, params["rhs_dilation"]):
            start[axis] = i * apart
        stop = [s + (n - 1) * t + 1 for s, n, t in zip(start, shape, steps)]
        scale = lax.broadcast_in_dim(kernel[place], shape, [features])
        term = lax.slice(x, start, stop, steps) * scale
        total = term if total is None else total + term
    return total


def _padded(params: dict[str, Any], x: Any) -> Any:
    edges = [(0, 0, 0)] * x.ndim
    space = params["dimension_numbers"].lhs_spec[2:]
    for axis, (low, high), apart in zip(space, params["padding"], params["lhs_dilation"]):
        edges[axis] = (low, high, apart - 1)
    return lax.pad(x, jnp.zeros((), x.dtype), edges)


def _input_back(arrived: Any, x: Any, kernel: Any, **params: Any) -> Any:
    outputs = kernel.shape[params["dimension_numbers"].rhs_spec[0]]
    if outputs != params["feature_group_count"]:  # several channels of the result arrive at each
        return _transposed(lambda x: _shifted(x, kernel, **params), x, arrived)

    # The transpose of a sum of slices would pad each term to the size of the input. That of the
    # convolution is itself such a sum.
    def back(arrived: Any, kernel: Any) -> Any:
        return _transposed(lambda x: compat.CONVOLUTION.bind(x, kernel, **params), x, arrived)

    return _by_equations(back, arrived, kernel)


def _kernel_back(arrived: Any, x: Any, kernel: Any, **params: Any) -> Any:
    return _transposed(lambda kernel: compat.CONVOLUTION.bind(x, kernel, **params), kernel, arrived)


def _transposed(function: Any, operand: Any, arrived: Any) -> Any:
    like = jax.ShapeDtypeStruct(operand.aval.shape, operand.aval.dtype)
    return jax.linear_transpose(function, like)(arrived)[0]


def _mapped(operands: Sequence[Any], axes: Sequence[int | None], **params: Any) -> Any:
    return _by_equations(
        jax.vmap(functools.partial(compat.CONVOLUTION.bind, **params), axes), *operands
    )


def _by_equations(function: Any, *args: Any) -> Any:
    """The one result of a function, by its equations as they are bound here."""
    closed = jax.make_jaxpr(function)(*args)
    known = dict(zip(closed.jaxpr.invars, args, strict=True))
    known |= dict(zip(closed.jaxpr.constvars, closed.consts, strict=True))

    def value(var: Any) -> Any:
        return var.val if isinstance(var, compat.Literal) else known[var]

    for eqn in closed.jaxpr.eqns:
        results = _bind(eqn.primitive, eqn.params, [value(var) for var in eqn.invars])
        known |= dict(zip(eqn.outvars, results, strict=True))
    return value(closed.jaxpr.outvars[0])


_SHIFTED = bilinear(
    compat.CONVOLUTION, "depthwise_convolution", _shifted, (_input_back, _kernel_back), _mapped
)
