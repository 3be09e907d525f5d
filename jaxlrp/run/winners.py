"""Routing to the winner of a maximum or minimum; ties go to the first in row-major order."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxlrp.graph.ir import Eqn


def route(eqn: Eqn, inputs: tuple[Any, ...], output: Any, arrived: Any) -> tuple[Any, ...]:
    """What arrived at `output`, sent to the inputs that won."""
    name = eqn.name
    if name in ("max", "min"):
        return _of_two(eqn, inputs, output, arrived)
    if name in ("reduce_max", "reduce_min"):
        return (_of_axes(eqn.params["axes"], inputs[0], output, arrived),)
    if name in ("cummax", "cummin"):
        return (_running(eqn, inputs[0], arrived),)
    raise AssertionError(f"{name} has no winner")


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
