"""Bounds for primitives that move, add, multiply or pick many elements; see `ranges.py`."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np

from jaxlrp.graph.ir import Eqn
from jaxlrp.graph.ranges import (
    EVERYTHING,
    POSITIVE,
    SIGNED_UNIT,
    UNIT,
    Interval,
    Look,
    Transfer,
    float_info,
    hull,
    of_number,
    plus,
    product,
    whole,
)

# -- moves ---------------------------------------------------------------------------------------


def kept(eqn: Eqn, look: Look) -> Interval:
    """The outputs hold elements of the operands, and nothing else."""
    return hull(look(v) for v in eqn.inputs)


def one_by_one(eqn: Eqn, look: Look) -> list[Interval]:
    """Each output holds elements of the operand at its position."""
    return [look(v) for v in eqn.inputs[: len(eqn.outputs)]]


def first(eqn: Eqn, look: Look) -> Interval:
    return look(eqn.inputs[0])


def with_updates(position: int) -> Transfer:
    return lambda eqn, look: hull([look(eqn.inputs[0]), look(eqn.inputs[position])])


def gathered(eqn: Eqn, look: Look) -> Interval:
    """Elements out of bounds are the fill value, which is NaN for floats by default."""
    operand, indices = eqn.inputs
    bounds, out = look(operand), eqn.out.dtype
    if "FILL" not in str(eqn.params["mode"]) or _is_within(eqn, look(indices)):
        return bounds
    fill = eqn.params["fill_value"]
    if fill is None:
        return bounds if float_info(out) is not None else whole(out)
    return bounds if fill != fill else hull([bounds, of_number(fill, out)])


def _is_within(eqn: Eqn, index: Interval) -> bool:
    shape, sizes = eqn.inputs[0].shape, eqn.params["slice_sizes"]
    indexed = eqn.params["dimension_numbers"].start_index_map
    return index[0] >= 0 and all(index[1] <= shape[d] - sizes[d] for d in indexed)


def counted(eqn: Eqn, look: Look) -> Interval:
    return 0.0, float(max(eqn.params["shape"][eqn.params["dimension"]] - 1, 0))


def position_in(axes: str) -> Transfer:
    def bounds(eqn: Eqn, look: Look) -> Interval:
        found = eqn.params[axes]
        sizes = [eqn.inputs[0].shape[a] for a in (found if isinstance(found, tuple) else (found,))]
        return 0.0, float(max(math.prod(sizes) - 1, 0))

    return bounds


def best_of(axis: str) -> Transfer:
    """The values and their places."""

    def bounds(eqn: Eqn, look: Look) -> list[Interval]:
        last = eqn.inputs[0].shape[eqn.params[axis]] - 1
        return [look(eqn.inputs[0]), (0.0, float(last))]

    return bounds


# -- sums and products of many -------------------------------------------------------------------


def sums(count: Callable[[Eqn], float | None], positions: tuple[int, ...] = (0,)) -> Transfer:
    """A sum of at most `count` products of elements of the operands at `positions`.

    Terms of one sign have a sum of that sign. For integers the size matters too: sums wrap around.
    """

    def bounds(eqn: Eqn, look: Look) -> Interval:
        term = functools.reduce(product, (look(eqn.inputs[i]) for i in positions))
        if float_info(eqn.out.dtype) is None:
            n = count(eqn)
            if n is None:
                return whole(eqn.out.dtype)
            return hull([(0.0, 0.0), term, product(term, (n, n))])
        return of_sign(term)

    return bounds


def of_sign(term: Interval) -> Interval:
    return (0.0 if term[0] >= 0 else -math.inf), (0.0 if term[1] <= 0 else math.inf)


def keeps_sign(eqn: Eqn, look: Look) -> Interval:
    """Non-negative floats give non-negative floats."""
    if float_info(eqn.out.dtype) is None:
        return whole(eqn.out.dtype)
    return POSITIVE if all(look(v)[0] >= 0 for v in eqn.inputs) else EVERYTHING


def scattered_sum(eqn: Eqn, look: Look) -> Interval:
    operand, update = look(eqn.inputs[0]), look(eqn.inputs[2])
    if float_info(eqn.out.dtype) is None:
        most = (0.0, float(eqn.inputs[2].size))
        return plus(operand, product(update, most))
    return hull([operand, plus(of_sign(operand), of_sign(update))])


def products(positions: tuple[int, ...] = (0,)) -> Transfer:
    """Products of any number of elements of the operands at `positions`."""

    def bounds(eqn: Eqn, look: Look) -> Interval:
        factor = hull(look(eqn.inputs[i]) for i in positions)
        if factor[0] >= 0 and factor[1] <= 1:
            return UNIT
        if factor[0] >= -1 and factor[1] <= 1:
            return SIGNED_UNIT
        if float_info(eqn.out.dtype) is None:
            return whole(eqn.out.dtype)
        return POSITIVE if factor[0] >= 0 else EVERYTHING

    return bounds


def over_axes(eqn: Eqn) -> float:
    return float(math.prod(eqn.inputs[0].shape[a] for a in eqn.params["axes"]))


def along_axis(eqn: Eqn) -> float:
    return float(eqn.inputs[0].shape[eqn.params["axis"]])


def in_window(eqn: Eqn) -> float:
    return float(math.prod(eqn.params["window_dimensions"]))


def contracted(eqn: Eqn) -> float:
    (lhs, _), _ = eqn.params["dimension_numbers"]
    return float(math.prod(eqn.inputs[0].shape[a] for a in lhs))


def of_kernel(eqn: Eqn) -> float:
    return float(eqn.inputs[1].size)


def unknown_count(eqn: Eqn) -> None:
    return None


# -- windows -------------------------------------------------------------------------------------


def window_winner(empty: float) -> Transfer:
    """The winner of each window; for a window of padding alone, the start value of a maximum."""

    def bounds(eqn: Eqn, look: Look) -> Interval:
        found = look(eqn.inputs[0])
        return hull([found, (empty, empty)]) if _has_empty_window(eqn) else found

    return bounds


def _has_empty_window(eqn: Eqn) -> bool:
    params = eqn.params
    per_axis = (
        eqn.inputs[0].shape,
        eqn.out.shape,
        params["window_dimensions"],
        params["window_strides"],
        params["padding"],
        params["base_dilation"],
        params["window_dilation"],
    )
    for n, n_out, window, stride, (before, _), base, dilation in zip(*per_axis, strict=True):
        starts = np.arange(n_out)[:, None] * stride - before
        places = starts + np.arange(window)[None, :] * dilation
        real = (places >= 0) & (places <= (n - 1) * base) & (places % base == 0)
        if not real.any(1).all():
            return True
    return False


def reduced_winner(empty: float) -> Transfer:
    def bounds(eqn: Eqn, look: Look) -> Interval:
        return look(eqn.inputs[0]) if eqn.inputs[0].size else (empty, empty)

    return bounds
