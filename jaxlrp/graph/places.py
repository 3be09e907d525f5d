"""Moves that cancel: values that are flipped twice, or cut up and put together again.

The elements of a few values are numbered and the numbers moved, if the positions are known from the
program (parameters, and positions and masks that are written in it). If the numbers of a result are
those of a value from which it was made, it is that value, to the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from typing import Any

import numpy as np

from jaxlrp.graph import moving
from jaxlrp.graph.ir import Eqn, Literal, Value

_ZERO, _STATIC = 0, -1  # in the place of a number: a written zero, another static element
# Beyond so many elements, or values, nothing is compared, so that planning stays quick.
MOST_ELEMENTS = 4_000_000
_MOST_VALUES = 40
_BRING_ZEROS = frozenset("select_n pad concatenate scatter dynamic_update_slice".split())


class Places:
    """The origin of elements, in one program. `varying` are the values that are not static."""

    def __init__(self, consts: Iterable[tuple[Value, Any]], varying: Collection[Value]):
        self._consts = {v: array for v, array in consts if array is not None}
        self._varying = varying

    def same(self, eqn: Eqn) -> Value | None:
        """The earlier value that the output of an equation is, if it is one."""
        if len(eqn.outputs) != 1 or not self._may_undo(eqn):
            return None
        steps = self._steps(eqn)
        out = eqn.out
        alike = [v for v in steps if v is not out and _is_like(v, out)]
        if not alike or sum(v.size for v in steps) > MOST_ELEMENTS:
            return None
        found = _Numbers(self, set(steps))
        own = found.of(out)
        if own.size and own.min() <= 0:
            return None
        return next((v for v in alike if np.array_equal(found.of(v), own)), None)

    def _may_undo(self, eqn: Eqn) -> bool:
        """Whether an equation may be the last of such moves; most equations are skipped."""
        if eqn.name not in moving.JOINS:
            return eqn.name in moving.NAMES
        makers = [v.producer for v in eqn.inputs]
        return any(m is not None and m.name in _BRING_ZEROS for m in makers)

    def _steps(self, eqn: Eqn) -> list[Value]:
        """The values that moves make on the way to an output, and those from which they begin."""
        found: dict[Value, None] = {eqn.out: None}
        stack = [eqn]
        while stack:
            for value in stack.pop().inputs:
                if value in found or value not in self._varying:
                    continue
                found[value] = None
                maker = value.producer
                if maker is None or len(found) >= _MOST_VALUES:
                    continue
                if maker.name in moving.NAMES or maker.name in moving.JOINS:
                    stack.append(maker)
        return list(found)

    def known(self, value: Value) -> np.ndarray | None:
        """The truth values or positions of a static value, if they are written in the program."""
        if value in self._varying or value.size > MOST_ELEMENTS:
            return None
        if not (value.dtype == bool or np.issubdtype(value.dtype, np.integer)):
            return None
        if isinstance(value, Literal):
            return np.asarray(value.val, value.dtype)
        if value in self._consts:
            return np.asarray(self._consts[value])
        if value.outer is not None and value.shape == value.outer.shape:
            return self.known(value.outer)  # a constant of a body
        eqn = value.producer
        if eqn is None or eqn.bodies or len(eqn.outputs) != 1:
            return None
        found = [self.known(v) for v in eqn.inputs]
        operands = [x for x in found if x is not None]
        if len(operands) < len(found):
            return None
        result = moving.computed(eqn, operands)
        return None if result is None else np.asarray(result, value.dtype)

    def is_varying(self, value: Value) -> bool:
        return value in self._varying


class _Numbers:
    """The numbers of the elements of some values."""

    def __init__(self, places: Places, inside: set[Value]):
        self._places = places
        self._inside = inside
        self._found: dict[Value, np.ndarray] = {}
        self._next = 1

    def of(self, value: Value) -> np.ndarray:
        if value not in self._found:
            moved = self._moved(value)
            self._found[value] = self._fresh(value) if moved is None else moved
        return self._found[value]

    def _fresh(self, value: Value) -> np.ndarray:
        if not self._places.is_varying(value):
            return np.full(value.shape, _ZERO if is_written_zero(value) else _STATIC)
        first, self._next = self._next, self._next + value.size
        return np.arange(first, self._next).reshape(value.shape)

    def _moved(self, value: Value) -> np.ndarray | None:
        eqn = value.producer
        if eqn is None or value not in self._inside or eqn.name not in moving.NAMES | moving.JOINS:
            return None
        if not any(v in self._inside for v in eqn.inputs):
            return None  # the search stopped here
        chooses, given = moving.choosing(eqn), []
        for i, v in enumerate(eqn.inputs):
            array = self._places.known(v) if i in chooses else self.of(v)
            if array is None:
                return None
            given.append(array)
        outs = moving.moved(eqn, given)
        return None if outs is None else outs[value.index]


def is_written_zero(value: Value) -> bool:
    """Whether a value is zero throughout, by the numbers written in the program."""
    while (eqn := value.producer) is not None:
        if eqn.name not in ("broadcast_in_dim", "convert_element_type", "copy", "reshape"):
            return False
        value = eqn.inputs[0]
    return isinstance(value, Literal) and bool(value.val == 0)


def _is_like(value: Value, out: Value) -> bool:
    alike = value.shape == out.shape and value.dtype == out.dtype
    return alike and not isinstance(value, Literal) and math.prod(out.shape) > 0
