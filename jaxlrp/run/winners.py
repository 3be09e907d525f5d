"""Routing to the winner of a maximum or minimum; ties go to the first in row-major order."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxlrp.graph.ir import Eqn, Literal
from jaxlrp.graph.primitives import SCATTER_WINNERS
from jaxlrp.run.evaluate import Env, read


def route(
    eqn: Eqn, inputs: tuple[Any, ...], outside: Env, output: Any, arrived: Any
) -> tuple[Any, ...]:
    """The quantity that arrived at `output`, sent to the active inputs that won."""
    name = eqn.name
    if name in SCATTER_WINNERS:
        return _of_scatter(eqn, inputs, outside, output, arrived)
    if name in ("max", "min"):
        return _of_two(eqn, inputs, output, arrived)
    if name in ("reduce_max", "reduce_min"):
        return (_of_axes(eqn.params["axes"], inputs[0], output, arrived),)
    if name in ("cummax", "cummin"):
        return (_running(eqn, inputs[0], arrived),)
    raise AssertionError(f"{name} has no winner")


def _of_scatter(
    eqn: Eqn, inputs: tuple[Any, ...], outside: Env, output: Any, arrived: Any
) -> tuple[Any, ...]:
    """In a tie the array into which was scattered wins, then the first of the updates."""
    active = [
        v for v in dict.fromkeys(eqn.inputs) if v not in outside and not isinstance(v, Literal)
    ]
    values = {**outside, **dict(zip(active, inputs, strict=True))}
    operand, indices, updates = (jnp.asarray(read(values, v)) for v in eqn.inputs)
    config = {k: eqn.params[k] for k in ("dimension_numbers", "indices_are_sorted", "mode")}

    def spread(u: Any) -> Any:
        zeros = jnp.zeros(operand.shape, u.dtype)
        return jax.lax.scatter_add(zeros, indices, u, **config)

    def gathered(y: Any) -> Any:
        like = jax.ShapeDtypeStruct(updates.shape, y.dtype)
        return jax.linear_transpose(spread, like)(y)[0]

    kept = operand == output
    order = jnp.arange(updates.size, dtype=arrived.dtype).reshape(updates.shape)
    tied = (updates == gathered(output)) & (gathered(kept.astype(arrived.dtype)) == 0)
    last = jnp.full(operand.shape, updates.size, arrived.dtype)
    candidates = jnp.where(tied, order, updates.size)
    first = jax.lax.scatter_min(last, indices, candidates, **config)
    share = jnp.where(tied & (order == gathered(first)), gathered(arrived), 0.0)
    shares = {eqn.inputs[0]: jnp.where(kept, arrived, 0.0), eqn.inputs[2]: share}
    return tuple(shares[v] for v in active)


def _of_two(eqn: Eqn, inputs: tuple[Any, ...], output: Any, arrived: Any) -> tuple[Any, ...]:
    if len(inputs) == 1:  # max(x, x)
        return (arrived,)
    first = jnp.broadcast_to(inputs[0], output.shape) == output
    shares = (jnp.where(first, arrived, 0.0), jnp.where(first, 0.0, arrived))
    return tuple(_unbroadcast(r, x.shape) for r, x in zip(shares, inputs, strict=True))


def _unbroadcast(r: Any, shape: tuple[int, ...]) -> Any:
    axes = tuple(i for i, (a, b) in enumerate(zip(r.shape, shape, strict=True)) if a != b)
    return r.sum(axes, keepdims=True) if axes else r


def _of_axes(axes: tuple[int, ...], x: Any, output: Any, arrived: Any) -> Any:
    kept = [i for i in range(x.ndim) if i not in axes]
    order = [*kept, *sorted(axes)]
    flat = jnp.transpose(x, order).reshape(*(x.shape[i] for i in kept), -1)
    won = flat == output[..., None]
    first = won & (jnp.cumsum(won, axis=-1) == 1)
    back = jnp.where(first, arrived[..., None], 0.0)
    back = back.reshape([x.shape[i] for i in order])
    return jnp.transpose(back, [order.index(i) for i in range(x.ndim)])


def _running(eqn: Eqn, x: Any, arrived: Any) -> Any:
    axis, reverse = eqn.params["axis"], eqn.params["reverse"]
    index = jax.lax.broadcasted_iota(jnp.int32, x.shape, axis)
    better = jnp.greater if eqn.name == "cummax" else jnp.less

    def later(a: Any, b: Any) -> Any:
        (va, ia), (vb, ib) = a, b
        take = better(vb, va)
        return jnp.where(take, vb, va), jnp.where(take, ib, ia)

    _, winner = jax.lax.associative_scan(later, (x, index), reverse=reverse, axis=axis)
    moved_winner = jnp.moveaxis(winner, axis, -1)
    moved = jnp.moveaxis(arrived, axis, -1)
    hot = jax.nn.one_hot(moved_winner, x.shape[axis], dtype=moved.dtype)
    return jnp.moveaxis(jnp.einsum("...i,...ij->...j", moved, hot), -1, axis)
