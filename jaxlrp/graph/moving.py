"""Moves of arrays of numbers: the NumPy function for each equation that only moves elements."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxlrp.graph.families import row
from jaxlrp.graph.ir import Eqn

# Moves whose positions follow from parameters, and from static positions or masks.
NAMES = frozenset(
    """reshape squeeze expand_dims transpose broadcast_in_dim rev slice split pad concatenate
    select_n gather scatter dynamic_slice dynamic_update_slice copy""".split()
)
# Moves whose positions follow from parameters alone.
BY_PARAMETERS = frozenset(
    "reshape squeeze expand_dims transpose broadcast_in_dim rev slice split pad".split()
)
# A sum of parts that are 0 where the others are not.
JOINS = frozenset({"add", "add_any"})


def choosing(eqn: Eqn) -> list[int]:
    """Positions of the operands that select elements, or say where they go."""
    chooses = row(eqn.name).chooses
    return [i for i in range(len(eqn.inputs)) if i in chooses]


def moved(eqn: Eqn, given: Sequence[np.ndarray]) -> list[np.ndarray] | None:
    """The outputs of a move for arrays in place of its operands; None if they are unknown."""
    x, params, name = given[0], eqn.params, eqn.name
    if name in JOINS:
        a, b = given
        apart = a.shape == b.shape and not np.any((a != 0) & (b != 0))
        return [a + b] if apart else None
    if name == "copy":
        return [x]
    if name == "concatenate":
        return [np.concatenate(given, params["dimension"])]
    if name == "broadcast_in_dim":
        spread = [1] * len(params["shape"])
        for axis, dim in enumerate(params["broadcast_dimensions"]):
            spread[dim] = x.shape[axis]
        return [np.broadcast_to(x.reshape(spread), params["shape"])]
    if name in ("reshape", "squeeze", "expand_dims"):
        if name == "reshape" and params["dimensions"] is not None:
            x = np.transpose(x, params["dimensions"])
        return [x.reshape(eqn.out.shape)]
    if name == "transpose":
        return [np.transpose(x, params["permutation"])]
    if name == "rev":
        return [np.flip(x, params["dimensions"])]
    if name == "slice":
        strides = params["strides"] or (1,) * x.ndim
        limits = zip(params["start_indices"], params["limit_indices"], strides, strict=True)
        return [x[tuple(slice(*limit) for limit in limits)]]
    if name == "split":
        ends = np.cumsum(params["sizes"])[:-1]
        return list(np.split(x, ends, params["axis"]))
    if name == "pad":
        return [padded(x, params["padding_config"], given[1] if len(given) > 1 else 0)]
    if name == "select_n":
        if len(given) > 3 or x.shape not in ((), given[1].shape):
            return None
        cases = given[1:]
        return [np.where(x == 0, cases[0], cases[-1])]
    if name in ("dynamic_slice", "dynamic_update_slice"):
        return _window(x, given, params)
    return _at_places(eqn, given)


def padded(x: np.ndarray, config: Sequence[tuple[int, int, int]], fill: Any = 0) -> np.ndarray:
    for axis, (low, high, inner) in enumerate(config):
        shape = list(x.shape)
        shape[axis] = max(0, (x.shape[axis] - 1) * (inner + 1) + 1)
        wide = np.full(shape, fill, x.dtype)
        wide[(slice(None),) * axis + (slice(None, None, inner + 1),)] = x
        cut = (slice(None),) * axis
        wide = wide[(*cut, slice(max(0, -low), wide.shape[axis] - max(0, -high)))]
        width = [(0, 0)] * x.ndim
        width[axis] = (max(0, low), max(0, high))
        x = np.pad(wide, width, constant_values=fill)
    return x


def _window(x: np.ndarray, given: Sequence[np.ndarray], params: Any) -> list[np.ndarray]:
    """A part at a position, taken or replaced; JAX shifts a part that would be out of bounds."""
    takes = "slice_sizes" in params
    sizes = params["slice_sizes"] if takes else given[1].shape
    starts = given[1:] if takes else given[2:]
    inside = tuple(
        slice(start, start + size)
        for size, whole, at in zip(sizes, x.shape, starts, strict=True)
        for start in [min(max(int(at), 0), whole - size)]
    )
    if takes:
        return [x[inside]]
    whole = x.copy()
    whole[inside] = given[1]
    return [whole]


def _at_places(eqn: Eqn, given: Sequence[np.ndarray]) -> list[np.ndarray] | None:
    """A gather, or a scatter that replaces; None if a position is out of bounds."""
    x, places, d = given[0], given[1], eqn.params["dimension_numbers"]
    sizes = eqn.params["slice_sizes"] if eqn.name == "gather" else None
    if sizes is not None:
        window, dropped, mapped = d.offset_dims, d.collapsed_slice_dims, d.start_index_map
        shape = eqn.out.shape
    else:
        window, dropped = d.update_window_dims, d.inserted_window_dims
        mapped, shape = d.scatter_dims_to_operand_dims, given[2].shape
    batching = tuple(getattr(d, "operand_batching_dims", ()))
    batch = [i for i in range(len(shape)) if i not in window]
    kept = [i for i in range(x.ndim) if i not in dropped and i not in batching]

    def along(out_axes: Sequence[int], array: np.ndarray) -> np.ndarray:
        spread = [1] * len(shape)
        for axis, n in zip(out_axes, array.shape, strict=True):
            spread[axis] = n
        return array.reshape(spread)

    index = []
    for axis in range(x.ndim):
        at: Any = np.zeros([1] * len(shape), int)
        if axis in mapped:
            at = at + along(batch, places[..., tuple(mapped).index(axis)])
        if axis in batching:
            indices = tuple(getattr(d, "start_indices_batching_dims", ())) or tuple(
                getattr(d, "scatter_indices_batching_dims", ())
            )
            where = batch[indices[batching.index(axis)]]
            at = at + along([where], np.arange(shape[where]))
        if axis in kept:
            where = window[kept.index(axis)]
            if sizes is not None and sizes[axis] != shape[where]:
                return None
            at = at + along([where], np.arange(shape[where]))
        if at.size and (at.min() < 0 or at.max() >= x.shape[axis]):
            return None
        index.append(at)
    if sizes is not None:
        return [x[tuple(index)] if index else x]
    flat = np.ravel_multi_index(np.broadcast_arrays(*index), x.shape) if index else np.zeros(())
    if len(np.unique(flat)) < flat.size:
        return None  # the order of two writes is not specified
    whole = x.copy()
    whole[tuple(index)] = given[2]
    return [whole]


_COMPUTED: dict[str, Callable[..., Any]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "neg": np.negative,
    "max": np.maximum,
    "min": np.minimum,
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
    "and": operator.and_,
    "or": operator.or_,
    "not": np.invert,
    "convert_element_type": lambda x: x,
}


def computed(eqn: Eqn, operands: Sequence[Any]) -> np.ndarray | None:
    """The output of an equation on positions and truth values; None if it is unknown."""
    if eqn.name == "iota":
        shape, dim = eqn.params["shape"], eqn.params["dimension"]
        spread = [n if i == dim else 1 for i, n in enumerate(shape)]
        return np.broadcast_to(np.arange(shape[dim]).reshape(spread), shape)
    if eqn.name in _COMPUTED:
        return _COMPUTED[eqn.name](*operands)
    if eqn.name in NAMES:
        outs = moved(eqn, operands)
        return None if outs is None else outs[0]
    return None
