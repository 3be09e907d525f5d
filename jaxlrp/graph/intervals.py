"""Bounds that hold for every element of a value, whatever the inputs are.

They prove non-negativity (one product fewer in most rules), find gates in [0, 1], show that
f(0) = 0, and that an activation is 0 for every x <= 0. NaN, and the results of a division by zero,
are not considered. The arithmetic is in `ranges.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from jaxlrp.graph import ranges
from jaxlrp.graph.dataflow import Flow, solve
from jaxlrp.graph.families import row
from jaxlrp.graph.ir import Eqn, Graph, Literal, Value
from jaxlrp.graph.ranges import EVERYTHING, POSITIVE, UNIT, Interval

__all__ = ["EVERYTHING", "POSITIVE", "UNIT", "Interval", "Intervals"]


class _Fact(NamedTuple):
    """Bounds, and the number to which every element is equal up to rounding, if there is one."""

    bounds: Interval
    number: float | None


def _whole(value: Value) -> _Fact:
    dtype = getattr(value.aval, "dtype", None)
    return _Fact(EVERYTHING if dtype is None else ranges.whole(dtype), None)


_TURNS = 3  # after so many, a bound of a carry that still moves is given up


class _Bounds(Flow[_Fact]):
    """Bounds of values; with `exact` of a function of real numbers, without rounding."""

    def __init__(
        self,
        proven: Mapping[Value, Interval] | None = None,
        beyond: Mapping[Value, _Fact] | None = None,
        exact: bool = False,
    ):
        self._proven = {} if proven is None else proven
        self._beyond = {} if beyond is None else beyond
        self._exact = exact

    def start(self, value: Value) -> _Fact:
        if isinstance(value, Literal):
            low, high = ranges.of_number(value.val, value.dtype)
            return _Fact((low, high), low if low == high else None)
        fact = self._beyond.get(value, _whole(value))
        if self._exact and fact.number is not None:
            return _Fact((fact.number, fact.number), fact.number)
        return fact

    def transfer(self, eqn: Eqn, look: Callable[[Value], _Fact]) -> Sequence[_Fact]:
        meaning = row(eqn.name)
        if meaning.bounds is None:
            found = [_whole(v) for v in eqn.outputs]
        else:
            ulps = 0.0 if self._exact else meaning.ulps
            made = meaning.bounds(eqn, lambda v: look(v).bounds)
            numbers = self._numbers(eqn, look)
            found = [
                _Fact(ranges.settled(bounds, v.dtype, ulps), number)
                for v, bounds, number in zip(
                    eqn.outputs, _one_each(eqn, made), numbers, strict=True
                )
            ]
        if not self._proven.keys().isdisjoint(eqn.outputs):
            found = [
                _Fact(ranges.meet(f.bounds, self._proven.get(v, f.bounds)) or f.bounds, f.number)
                for v, f in zip(eqn.outputs, found, strict=True)
            ]
        return found

    def _numbers(self, eqn: Eqn, look: Callable[[Value], _Fact]) -> list[float | None]:
        """The numbers that fill the outputs, if numbers fill the operands."""
        bounds = row(eqn.name).bounds
        facts = [look(v) for v in eqn.inputs]
        if bounds is None or not facts or any(f.number is None for f in facts):
            return [None] * len(eqn.outputs)

        def number(value: Value) -> Interval:
            fact = look(value)
            return fact.bounds if fact.number is None else (fact.number, fact.number)

        numbers: list[float | None] = []
        for value, (low, high) in zip(
            eqn.outputs, _one_each(eqn, bounds(eqn, number)), strict=True
        ):
            end = ranges.of_number(low, value.dtype) if low == high else EVERYTHING
            numbers.append(end[0] if end[0] == end[1] else None)
        return numbers

    def join(self, a: _Fact, b: _Fact) -> _Fact:
        number = a.number if a.number == b.number else None
        return _Fact(ranges.hull([a.bounds, b.bounds]), number)

    def widen(self, old: _Fact, new: _Fact, turn: int) -> _Fact:
        if turn < _TURNS:
            return new
        # 0 and 1 are the bounds that matter: they are tried before giving up.
        last = turn >= 2 * _TURNS
        low, high = new.bounds
        if low != old.bounds[0]:
            low = 0.0 if low >= 0.0 and not last else EVERYTHING[0]
        if high != old.bounds[1]:
            high = 1.0 if high <= 1.0 and not last else EVERYTHING[1]
        return _Fact((low, high), new.number)


def _one_each(eqn: Eqn, bounds: Interval | list[Interval]) -> list[Interval]:
    return bounds if isinstance(bounds, list) else [bounds] * len(eqn.outputs)


class Intervals:
    """Bounds of all values of a graph."""

    def __init__(self, graph: Graph):
        self._graph = graph
        self._known: dict[Value, _Fact] = {}
        self._proven: dict[Value, Interval] = {}
        self._flow = _Bounds(self._proven)
        solve(graph.eqns, self._flow, self._known)

    def prove(self, bounds: Mapping[Value, Interval]) -> None:
        """Add bounds that are known from elsewhere, and the bounds that follow from them."""
        self._proven.update(bounds)
        changed: set[Value] = set()
        for eqn in self._graph.eqns:
            proven = not self._proven.keys().isdisjoint(eqn.outputs)
            if eqn.bodies or proven or not changed.isdisjoint(eqn.inputs):
                before = [self[v] for v in eqn.outputs]
                solve((eqn,), self._flow, self._known)
                pairs = zip(eqn.outputs, before, strict=True)
                changed.update(v for v, old in pairs if self[v] != old)

    def _fact(self, value: Value) -> _Fact:
        return self._known[value] if value in self._known else self._flow.start(value)

    def __getitem__(self, value: Value) -> Interval:
        return self._fact(value).bounds

    def nonnegative(self, value: Value) -> bool:
        return self[value][0] >= 0.0

    def constant(self, value: Value) -> float | None:
        """The number that fills a value (up to rounding, if it was computed), if there is one."""
        (low, high), number = self._fact(value)
        return low if low == high else number

    def image(
        self, eqns: Iterable[Eqn], source: Value, bounds: Interval, output: Value
    ) -> Interval:
        """Bounds of `output` as a function of `source`, when that lies in `bounds`.

        Other values are as in the graph. The bounds are those of the mathematical function, without
        rounding.
        """
        flow = _Bounds(beyond=self._known, exact=True)
        number = bounds[0] if bounds[0] == bounds[1] else None
        local = {source: _Fact(bounds, number)}
        solve(eqns, flow, local)
        return (local[output] if output in local else flow.start(output)).bounds
