"""Repeated calls: a function that is called several times is recognised once.

Calls are inlined, so that layers are found across their borders. If no layer can cross a border and
the same facts are known about the inputs, the calls hold the same layers. The layers of the first
call are then found, and those of the others are copied.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from jaxlrp.graph.groups import Group, Workbench
from jaxlrp.graph.ir import Eqn, Graph, InlinedCall, Literal, Value
from jaxlrp.graph.layer_boundaries import is_crossed
from jaxlrp.graph.particulars import mapped


@dataclasses.dataclass
class _Contents:
    """The equations of one call, the values that it reads, and the readers of its results."""

    call: InlinedCall
    eqns: list[Eqn] = dataclasses.field(default_factory=list)
    read: dict[Value, None] = dataclasses.field(default_factory=dict)
    given: dict[Value, list[Eqn]] = dataclasses.field(default_factory=dict)


class _Copy:
    """A call that is like the first, with the images of the first call's equations and values."""

    def __init__(self, first: _Contents, other: _Contents, values: dict[Value, Value]):
        self.call = other.call
        self.eqns = dict(zip(first.eqns, other.eqns, strict=True))
        self.values = values

    def image(self, group: Group) -> Group:
        """A group of the first call, in this one."""
        eqn, value, particulars = self.eqns, self.values, group.particulars
        if particulars is not None:
            particulars = mapped(particulars, lambda x: eqn[x] if isinstance(x, Eqn) else value[x])
        return dataclasses.replace(
            group,
            eqns=[eqn[e] for e in group.eqns],
            inputs=[value[v] for v in group.inputs],
            outputs=[value[v] for v in group.outputs],
            main=eqn[group.main],
            particulars=particulars,
            detached=tuple((eqn[e], i) for e, i in group.detached),
            like=group,
        )


class Repeats:
    """The calls on a workbench that are like an earlier one."""

    def __init__(self, bench: Workbench):
        self._bench = bench
        self._done = len(bench.groups)
        self._first: dict[Eqn, InlinedCall] = {}
        self._copies: dict[InlinedCall, list[_Copy]] = {}
        self.calls: dict[InlinedCall, InlinedCall] = {}
        firsts: list[_Contents] = []
        for contents in _repeated(bench.graph):
            if _is_closed(bench, contents):
                found = ((f, _matched(bench, f, contents)) for f in firsts)
                match = next(((f, values) for f, values in found if values is not None), None)
                if match is None:
                    firsts.append(contents)
                else:
                    first, values = match
                    self._copies.setdefault(first.call, []).append(_Copy(first, contents, values))
                    self.calls.update(dict.fromkeys((first.call, contents.call), first.call))
        for first in firsts:
            if first.call in self._copies:
                self._first.update(dict.fromkeys(first.eqns, first.call))
        self._leave_out()

    def _leave_out(self) -> None:
        """Let finders begin everywhere except in the calls that are like an earlier one."""
        copies = (copy for found in self._copies.values() for copy in found)
        self._copied = {eqn for copy in copies for eqn in copy.eqns.values()}
        self._bench.eqns = [e for e in self._bench.graph.eqns if e not in self._copied]

    def check_bounds(self) -> None:
        """Give up calls whose values now have other proven bounds than those of the first call."""
        bounds = self._bench.intervals
        for call, copies in self._copies.items():
            kept = [c for c in copies if all(bounds[v] == bounds[w] for v, w in c.values.items())]
            for copy in set(copies) - set(kept):
                del self.calls[copy.call]
            self._copies[call] = kept
        self._leave_out()

    def copy(self) -> None:
        """Claim for the other calls the groups that were found in the first since the last copy."""
        for group in self._bench.groups[self._done :]:
            call = self._first.get(group.eqns[0])
            if call is None or any(self._first.get(e) is not call for e in group.eqns):
                continue
            for image in (copy.image(group) for copy in self._copies[call]):
                if all(self._bench.free(e) or e in image.borrowed for e in image.eqns):
                    self._bench.claim(image)
        self._done = len(self._bench.groups)

    def is_complete(self) -> bool:
        """Whether nothing is left open in the calls that are like an earlier one."""
        return not any(map(self._bench.is_open, self._copied))


def _repeated(graph: Graph) -> list[_Contents]:
    """The outermost calls of functions called more than once, without control flow in them."""
    calls: dict[InlinedCall, _Contents] = {}
    at: dict[Eqn, _Contents] = {}
    for eqn in graph.eqns:
        call, outermost = eqn.call, None
        while call is not None:
            outermost = call if call.of is not None else outermost
            call = call.parent
        if outermost is not None:
            at[eqn] = calls.setdefault(outermost, _Contents(outermost))
            at[eqn].eqns.append(eqn)
    for eqn in graph.eqns if at else ():
        here = at.get(eqn)
        for value in eqn.inputs:
            there = None if value.producer is None else at.get(value.producer)
            if there is not here:
                if here is not None and not isinstance(value, Literal):
                    here.read[value] = None
                if there is not None:
                    there.given.setdefault(value, []).append(eqn)
    return [found for found in calls.values() if not any(e.bodies for e in found.eqns)]


def _matched(bench: Workbench, first: _Contents, other: _Contents) -> dict[Value, Value] | None:
    """The values of one call in another, if recognition finds the same in both.

    Both run the same equations, and all facts that recognition reads about the values are the same.
    """
    if first.call.of is not other.call.of or len(first.eqns) != len(other.eqns):
        return None
    values: dict[Value, Value] = {}
    calls: dict[InlinedCall | None, InlinedCall | None] = {}
    for a, b in zip(first.eqns, other.eqns, strict=True):
        if a.params is not b.params or calls.setdefault(a.call, b.call) is not b.call:
            return None
        for v, w in zip(a.inputs, b.inputs, strict=True):
            if isinstance(v, Literal) or isinstance(w, Literal):
                if not _same_literal(v, w):
                    return None
            elif v not in values:
                if not _known_alike(bench, v, w):
                    return None
                values[v] = w
            elif values[v] is not w:
                return None
        values.update(zip(a.outputs, b.outputs, strict=True))
    one_to_one = len(set(values.values())) == len(values)
    alike = one_to_one and _active_alike(bench, values)
    return values if alike and _given_alike(bench, first, other, values) else None


def _same_literal(v: Value, w: Value) -> bool:
    if not isinstance(v, Literal) or not isinstance(w, Literal):
        return False
    # Numbers by their bytes: NaN is NaN, and -0.0 is not 0.0.
    bytes_v, bytes_w = (np.asarray(n.val).tobytes() for n in (v, w))
    return v.val is w.val or (v.dtype == w.dtype and bytes_v == bytes_w)


def _active_alike(bench: Workbench, values: Mapping[Value, Value]) -> bool:
    facts = bench.activity
    return all(
        (v in found) == (w in found)
        for found in (facts.depends, facts.active, facts.reached)
        for v, w in values.items()
    )


def _known_alike(bench: Workbench, v: Value, w: Value) -> bool:
    """Whether the same facts are known about two values that calls read."""
    if v is w:
        return True
    static = v not in bench.activity.depends
    return (
        bench.intervals[v] == bench.intervals[w]
        and v.shape == w.shape
        and v.dtype == w.dtype
        and (not static or _static_facts(bench, v) == _static_facts(bench, w))
    )


def _static_facts(bench: Workbench, value: Value) -> tuple[bool, frozenset[int]]:
    return bool(bench.statics.parameters(value)), bench.statics.varying_axes(value)


def _given_alike(
    bench: Workbench, first: _Contents, other: _Contents, values: Mapping[Value, Value]
) -> bool:
    """Whether the same results of two calls are read outside and get relevance from there."""

    def arrives(contents: _Contents) -> dict[Value, bool]:
        read = {v: any(map(bench.activity.is_reached, e)) for v, e in contents.given.items()}
        for value in (v for e in contents.eqns for v in e.outputs if bench.graph.is_output(v)):
            read[value] = read.get(value, False) or value in bench.outputs
        return read

    return {values[v]: a for v, a in arrives(first).items()} == arrives(other)


def _is_closed(bench: Workbench, contents: _Contents) -> bool:
    """Whether no layer may hold equations of the call and others."""
    border = (v for v in (*contents.read, *contents.given) if v in bench.activity.depends)
    return not any(is_crossed(bench, v) for v in border)
