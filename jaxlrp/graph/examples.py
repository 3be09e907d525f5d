"""The examples of a batch in each value: rows that depend each on one explained row."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from jaxlrp.graph.dataflow import Flow, solve
from jaxlrp.graph.families import row
from jaxlrp.graph.ir import Eqn, Graph, Value
from jaxlrp.graph.layout import elementwise
from jaxlrp.graph.primitives import DEVICE_SUMS, REDUCTIONS


class Along(NamedTuple):
    """An axis along which the examples follow one another, with `each` elements of each."""

    axis: int
    each: int = 1


_MIXED = Along(-1)  # an element may depend on several examples, or on an unknown one
Fact = Along | None  # None: nothing in it depends on an example
_OVER_DEVICES = DEVICE_SUMS | {"pmax", "pmin"}


class Examples:
    """The examples of a call: the first axis of all explained values and of all outputs.

    `count` is 1 if an output may depend on more than one of them (attention over a sequence that is
    not batched, BatchNorm in training mode), or if the first axes differ.
    """

    def __init__(self, graph: Graph, explained: Sequence[Value], outputs: Iterable[Value]):
        outputs = list(outputs)
        self._known: dict[Value, Fact] = {}
        self.count = 1
        sizes = {v.shape[0] if v.ndim else 0 for v in (*explained, *outputs)}
        if len(sizes) == 1 and (size := sizes.pop()) > 1:
            starts = dict.fromkeys(explained, Along(0))
            solve(graph.eqns, _OnOneDevice(starts), self._known)
            self._known.update(starts)
            if all(self._known.get(v) in (None, Along(0)) for v in outputs):
                self.count = size

    def of(self, value: Value) -> Along | None:
        """The axis of the examples in a value; None if they cannot be told apart."""
        found = self._known.get(value)
        return None if self.count == 1 or found == _MIXED else found


def is_batch(graph: Graph, explained: Sequence[Value], output: Value) -> bool:
    """Whether each entry along an output's first axis depends on one row of an explained input.

    Only inputs with rows of their own count: elements of a vector are not examples.
    """
    return any(
        size > 1 and are_rows_of(graph, value, axis, output)
        for value in explained
        for axis, size in enumerate(value.shape)
    )


def are_rows_of(graph: Graph, value: Value, axis: int, output: Value) -> bool:
    """Whether each entry along the output's first axis depends on one row of a value."""
    if value.ndim < 2 or not output.ndim or value.shape[axis] != output.shape[0]:
        return False
    starts = {value: Along(axis)}
    facts: dict[Value, Fact] = {**starts}
    solve(graph.eqns, _Follow(starts), facts)
    return facts.get(output) == Along(0)


def statistics(graph: Graph, explained: Sequence[Value], outputs: Sequence[Value]) -> list[Eqn]:
    """Reductions over the axis of examples, through which a row of the outputs reads other rows.

    The list is empty unless, without them, the rows of some output are those of explained inputs.
    """
    sizes = {v.shape[0] for v in outputs if v.ndim}
    starts = {v: Along(0) for v in explained if v.ndim > 1 and v.shape[0] in sizes}
    if not starts:
        return []
    flow = _PastStatistics(starts)
    facts: dict[Value, Fact] = {**starts}
    solve(graph.eqns, flow, facts)
    rows = any(facts.get(v) == Along(0) for v in outputs)
    return list(dict.fromkeys(flow.found)) if rows else []


class _Follow(Flow[Fact]):
    """The axes of the rows of some values, in a program for all devices."""

    def __init__(self, starts: Mapping[Value, Along]):
        self._starts = starts

    def start(self, value: Value) -> Fact:
        return self._starts.get(value)

    def transfer(self, eqn: Eqn, look: Callable[[Value], Fact]) -> Sequence[Fact]:
        facts = [look(v) for v in eqn.inputs]
        fact = self._through(eqn, facts) if any(f is not None for f in facts) else None
        return [self.start(v) or fact for v in eqn.outputs]

    def join(self, a: Fact, b: Fact) -> Fact:
        return a if b is None or a == b else b if a is None else _MIXED

    def enter(self, eqn: Eqn, fact: Fact, inside: Value) -> Fact:
        if fact is None or fact == _MIXED or not inside.sliced:
            return fact
        return fact._replace(axis=fact.axis - 1) if fact.axis else _MIXED

    def leave(self, eqn: Eqn, fact: Fact, inside: Value, outside: Value) -> Fact:
        if fact is None or fact == _MIXED:
            return fact
        return fact._replace(axis=fact.axis + outside.ndim - inside.ndim)

    def chosen(self, fact: Fact, index: Fact) -> Fact:
        return fact if index is None else _MIXED

    def _mixes(self, eqn: Eqn) -> bool:
        """Whether an equation mixes rows in spite of its layout."""
        return eqn.name in _OVER_DEVICES

    def _through(self, eqn: Eqn, facts: Sequence[Fact]) -> Fact:
        meaning = row(eqn.name)
        layout = meaning.layout(eqn) if meaning.layout is not None else None
        if layout is None or _MIXED in facts or self._mixes(eqn):
            return _MIXED
        if eqn.name in ("reshape", "squeeze", "expand_dims"):
            return _reshaped(eqn, facts[0])
        own = layout.own | _moved_along(eqn) if meaning.layout is elementwise else layout.own
        found: Fact = None
        for value, fact, places in zip(eqn.inputs, facts, layout.operands, strict=True):
            if fact is None:
                continue
            after = places.get(fact.axis, ())
            if len(after) != 1 or after[0] in own:
                return _MIXED
            if any(v.shape[after[0]] != value.shape[fact.axis] for v in eqn.outputs):
                return _MIXED
            found = self.join(found, fact._replace(axis=after[0]))
        return found


class _OnOneDevice(_Follow):
    """The axes of the rows in the program for one device.

    A sum over devices adds the same rows of each, and `shard_map` holds pieces of arrays.
    """

    def enter(self, eqn: Eqn, fact: Fact, inside: Value) -> Fact:
        fact = super().enter(eqn, fact, inside)
        return _MIXED if fact is not None and eqn.name == "shard_map" else fact

    def _mixes(self, eqn: Eqn) -> bool:
        return False


class _PastStatistics(_Follow):
    """The axes of the rows if reductions over them, kept in `found`, count as constants."""

    def __init__(self, starts: Mapping[Value, Along]):
        super().__init__(starts)
        self.found: list[Eqn] = []

    def _through(self, eqn: Eqn, facts: Sequence[Fact]) -> Fact:
        first = facts[0]
        if (
            eqn.name in REDUCTIONS
            and first is not None
            and first.axis in eqn.params.get("axes", ())
        ):
            self.found.append(eqn)
            return None
        return super()._through(eqn, facts)


def _reshaped(eqn: Eqn, fact: Fact) -> Fact:
    """The examples after a reshape: they still follow one another if it keeps their blocks."""
    assert fact is not None
    old, new = eqn.inputs[0].shape, eqn.out.shape
    count = old[fact.axis] // fact.each
    if count == 1:  # axes of size 1 cannot be told apart; the first one stays the first
        return Along(0) if fact.axis == 0 and new[:1] == (1,) else _MIXED
    before = math.prod(old[: fact.axis])
    for axis, size in enumerate(new):
        if math.prod(new[:axis]) == before and size != 1 and not size % count:
            return Along(axis, size // count)
    return _MIXED


def _moved_along(eqn: Eqn) -> frozenset[int]:
    """Axes along which an equation that keeps the shape sorts, reverses or accumulates."""
    given = (eqn.params.get(name, ()) for name in ("axis", "dimension", "dimensions"))
    return frozenset(a for axes in given for a in (axes if isinstance(axes, tuple) else (axes,)))
