"""Repeated calls: a function that is called several times is recognised once.

Calls are inlined, so that layers are found across their borders. Where no layer can cross a border
and the same is known of what comes in, the calls hold the same layers: those of the first are
found, those of the others copied.
"""

from __future__ import annotations

import dataclasses
import heapq
import itertools
from collections.abc import Hashable, Iterable

import numpy as np

from jaxlrp.graph.groups import Group, Workbench
from jaxlrp.graph.ir import Eqn, Literal, Region, Value
from jaxlrp.graph.primitives import (
    AFFINE,
    COPIES,
    ELEMENTWISE,
    LINEAR_CORES,
    MOVES,
    REDUCTIONS,
    is_view,
)


@dataclasses.dataclass
class _Stretch:
    """The equations of one call, and the values in them in the order in which they are met."""

    region: Region
    eqns: list[Eqn]
    values: list[Value] = dataclasses.field(default_factory=list)


class _Copy:
    """A call that is like the first: where each equation and value of the first is in it."""

    def __init__(self, first: _Stretch, other: _Stretch):
        self.eqns = dict(zip(first.eqns, other.eqns, strict=True))
        self.values = dict(zip(first.values, other.values, strict=True))

    def image(self, group: Group) -> Group:
        """A group of the first call, in this one."""
        eqn, value, affine = self.eqns, self.values, group.affine
        if affine is not None:
            affine = dataclasses.replace(
                affine,
                core=None if affine.core is None else eqn[affine.core],
                pre=[eqn[e] for e in affine.pre],
                post=[eqn[e] for e in affine.post],
            )
        return dataclasses.replace(
            group,
            eqns=[eqn[e] for e in group.eqns],
            inputs=[value[v] for v in group.inputs],
            outputs=[value[v] for v in group.outputs],
            main=eqn[group.main],
            affine=affine,
            detached=tuple((eqn[e], i) for e, i in group.detached),
            logits=None if group.logits is None else value[group.logits],
            like=group,
        )


class Repeats:
    """The calls on a workbench that are like an earlier one."""

    def __init__(self, bench: Workbench):
        self._bench = bench
        self._done = len(bench.groups)
        self._first: dict[Eqn, Region] = {}
        self._copies: dict[Region, list[_Copy]] = {}
        self.regions: dict[Region, Region] = {}
        alike: dict[Hashable, list[_Stretch]] = {}
        for stretch in _repeated(bench.graph.eqns):
            if _is_closed(bench, stretch):
                alike.setdefault(_signature(bench, stretch), []).append(stretch)
        for first, *others in alike.values():
            if others:
                self._first.update(dict.fromkeys(first.eqns, first.region))
                self._copies[first.region] = [_Copy(first, other) for other in others]
                self.regions.update({s.region: first.region for s in (first, *others)})
        copies = (copy for found in self._copies.values() for copy in found)
        self._copied = {eqn for copy in copies for eqn in copy.eqns.values()}

    def without(self) -> list[Eqn]:
        """All equations of the graph but those of calls that are like an earlier one."""
        return [e for e in self._bench.graph.eqns if e not in self._copied]

    def copy(self) -> None:
        """Claim for the other calls what was found in the first since this was called last."""
        for group in self._bench.groups[self._done :]:
            region = self._first.get(group.eqns[0])
            if region is None or any(self._first.get(e) is not region for e in group.eqns):
                continue
            for copy in self._copies[region]:
                self._bench.claim(copy.image(group))
        self._done = len(self._bench.groups)

    def is_complete(self) -> bool:
        """Whether nothing is left open in the calls that are like an earlier one."""
        return not any(map(self._bench.is_open, self._copied))


def _repeated(eqns: Iterable[Eqn]) -> list[_Stretch]:
    """The outermost calls of what is called more than once, without control flow in them."""
    calls: dict[Region, _Stretch] = {}
    for eqn in eqns:
        region, outermost = eqn.region, None
        while region is not None:
            outermost = region if region.of is not None else outermost
            region = region.parent
        if outermost is not None:
            calls.setdefault(outermost, _Stretch(outermost, [])).eqns.append(eqn)
    return [s for s in calls.values() if not any(e.bodies for e in s.eqns)]


def _signature(bench: Workbench, stretch: _Stretch) -> Hashable:
    """All that recognition may ask about a call; fills in its values."""
    number: dict[Value, int] = {}
    regions: dict[Region | None, int] = {}
    parts: list[Hashable] = []
    inside = set(stretch.eqns)

    def meet(value: Value, fact: Hashable) -> int:
        if value not in number:
            number[value] = len(number)
            parts.append(fact)
        return number[value]

    def read(value: Value) -> Hashable:
        if isinstance(value, Literal):
            return str(value.dtype), np.asarray(value.val).tobytes()
        return number[value] if value in number else meet(value, _outside(bench, value))

    for eqn in stretch.eqns:
        region = regions.setdefault(eqn.region, len(regions))
        parts.append((eqn.prim, id(eqn.params), region, tuple(map(read, eqn.inputs))))
        for value in eqn.outputs:
            meet(value, _inside(bench, value, inside))
    stretch.values = list(number)
    return tuple(parts)


def _activity(bench: Workbench, value: Value) -> tuple[bool, ...]:
    facts = bench.activity
    return value in facts.depends, value in facts.active, value in facts.reached


def _outside(bench: Workbench, value: Value) -> Hashable:
    """What is known of a value that a call reads."""
    maker = value.producer
    return (
        _activity(bench, value),
        bench.intervals[value],
        value.shape,
        str(value.dtype),
        maker is not None and maker.name in ELEMENTWISE and _begins_chain(bench, value),
        value not in bench.activity.depends
        and (bool(bench.statics.parameters(value)), bench.statics.varying_axes(value)),
    )


def _begins_chain(bench: Workbench, value: Value) -> bool:
    """Whether a view or a scale is the only reader: a layer may fold it, or look what is before."""
    use = bench.sole_use(value)
    return use is not None and (use.name in AFFINE or is_view(use))


def _inside(bench: Workbench, value: Value, eqns: set[Eqn]) -> Hashable:
    """What is known of a value that a call makes, as far as it does not follow from the rest."""
    outside = [e for e in bench.graph.uses(value) if e not in eqns]
    return (
        _activity(bench, value),
        value in bench.activity.explained,
        bool(outside) or bench.graph.is_output(value),
        value in bench.outputs or any(bench.activity.is_reached(e) for e in outside),
    )


# -- borders that no layer crosses ----------------------------------------------------------------


def _is_closed(bench: Workbench, stretch: _Stretch) -> bool:
    """Whether no layer may hold equations of the call and others."""
    made, inside = {v for e in stretch.eqns for v in e.outputs}, set(stretch.eqns)
    read = {v for eqn in stretch.eqns for v in eqn.inputs if v not in made}
    given = {v for v in made if any(e not in inside for e in bench.graph.uses(v))}
    return not any(v in bench.activity.depends and _is_crossed(bench, v) for v in read | given)


def _is_crossed(bench: Workbench, value: Value) -> bool:
    """Whether some layer might hold both the equation that makes a value and all that read it."""
    if value not in bench.activity.reached:
        return True  # a statistic, or a mask, that follows from the input
    maker, uses = value.producer, bench.reached_uses(value)
    if maker is None or value in bench.outputs or value in bench.activity.explained:
        return False
    if _is_alone(bench, maker) or any(_is_alone(bench, e) for e in uses):
        return False
    if maker.name in LINEAR_CORES and _has_static(bench, maker):
        return len(uses) == 1 and _is_link(bench, uses[0])
    cores = all(e.name in LINEAR_CORES and _has_static(bench, e) for e in uses)
    return not cores or _is_link(bench, maker)


def _is_link(bench: Workbench, eqn: Eqn) -> bool:
    """Whether an equation may fold into the core of a linear layer."""
    one = len(bench.activity.active_inputs(eqn)) == 1
    return one and eqn.name in AFFINE | MOVES | COPIES


def _has_static(bench: Workbench, eqn: Eqn) -> bool:
    return any(v not in bench.activity.depends for v in eqn.inputs)


def _is_alone(bench: Workbench, eqn: Eqn) -> bool:
    """Whether an equation joins values that have no source in common that a layer could begin at.

    So does the sum of a residual stream: no layer of several equations holds it.
    """
    active = bench.activity.active_inputs(eqn)
    return len(active) == 2 and not _have_common_source(bench, *active)


def _have_common_source(bench: Workbench, a: Value, b: Value) -> bool:
    """Whether ways back from two values, through what one layer may hold, meet."""
    ways: dict[Value, int] = {a: 1, b: 2}
    heap: list[tuple[int, int, Value]] = []
    open_ways = {1: 0, 2: 0}
    turn = itertools.count()

    def push(value: Value) -> None:
        order = -1 if value.producer is None else value.producer.order
        heapq.heappush(heap, (-order, next(turn), value))
        open_ways[ways[value]] += 1

    push(a)
    push(b)
    # Latest first: what one way has left behind, the other can only meet before it ends.
    while open_ways[1] and open_ways[2]:
        value = heapq.heappop(heap)[2]
        way = ways[value]
        open_ways[way] -= 1
        eqn = value.producer
        if eqn is None or not _may_be_interior(bench, eqn):
            continue
        for before in eqn.inputs:
            if before not in bench.activity.depends:
                continue
            if before not in ways:
                ways[before] = way
                push(before)
            elif ways[before] != way:
                return True
    return False


def _may_be_interior(bench: Workbench, eqn: Eqn) -> bool:
    if eqn.name == "dot_general":
        return not _has_static(bench, eqn)
    return eqn.name in ELEMENTWISE | MOVES | REDUCTIONS | {"stop_gradient", "argmax"}
