"""Where the examples of a batch lie in each value, if every output depends on one example alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from jaxlrp.graph.dataflow import Flow, solve
from jaxlrp.graph.families import row
from jaxlrp.graph.ir import Eqn, Graph, Value
from jaxlrp.graph.layout import elementwise


class Along(NamedTuple):
    """An axis along which the examples lie one after the other, `each` elements of each."""

    axis: int
    each: int = 1


_MIXED = Along(-1)  # an element may depend on several examples, or on an unknown one
Fact = Along | None  # None: nothing in it depends on the explained values


class Examples:
    """The examples of a call: the first axis of all explained values and of all outputs.

    `count` is 1 where an output may depend on more than one of them (attention over a sequence that
    is not batched, BatchNorm in training mode), and where the first axes differ.
    """

    def __init__(self, graph: Graph, explained: Sequence[Value], outputs: Iterable[Value]):
        outputs = list(outputs)
        self._known: dict[Value, Fact] = {}
        self.count = 1
        sizes = {v.shape[0] if v.ndim else 0 for v in (*explained, *outputs)}
        if len(sizes) == 1 and (size := sizes.pop()) > 1:
            flow = _Follow(frozenset(explained), size)
            solve(graph.eqns, flow, self._known)
            self._known.update(dict.fromkeys(explained, Along(0)))
            if all(self._known.get(v) in (None, Along(0)) for v in outputs):
                self.count = size

    def of(self, value: Value) -> Along | None:
        """Where the examples lie in a value; None where they cannot be told apart."""
        found = self._known.get(value)
        return None if self.count == 1 or found == _MIXED else found


class _Follow(Flow[Fact]):
    def __init__(self, explained: frozenset[Value], count: int):
        self._explained = explained
        self._count = count

    def start(self, value: Value) -> Fact:
        return Along(0) if value in self._explained else None

    def transfer(self, eqn: Eqn, look: Callable[[Value], Fact]) -> Sequence[Fact]:
        facts = [look(v) for v in eqn.inputs]
        fact = self._through(eqn, facts) if any(f is not None for f in facts) else None
        fits = fact is None or all(self._fits(fact, v) for v in eqn.outputs)
        return [self.start(v) or (fact if fits else _MIXED) for v in eqn.outputs]

    def join(self, a: Fact, b: Fact) -> Fact:
        return a if b is None or a == b else b if a is None else _MIXED

    def enter(self, eqn: Eqn, fact: Fact, inside: Value) -> Fact:
        if fact is None or (fact.axis > 0 and eqn.name == "scan" and inside.sliced):
            return fact and fact._replace(axis=fact.axis - 1)
        return _MIXED if inside.sliced or eqn.name == "shard_map" else fact

    def leave(self, eqn: Eqn, fact: Fact, inside: Value, outside: Value) -> Fact:
        if fact is None or fact == _MIXED:
            return fact
        return fact._replace(axis=fact.axis + outside.ndim - inside.ndim)

    def chosen(self, fact: Fact, index: Fact) -> Fact:
        return fact if index is None else _MIXED

    def _fits(self, fact: Along, value: Value) -> bool:
        axes = range(value.ndim)
        return fact.axis in axes and value.shape[fact.axis] == self._count * fact.each

    def _through(self, eqn: Eqn, facts: Sequence[Fact]) -> Fact:
        meaning = row(eqn.name)
        layout = meaning.layout(eqn) if meaning.layout is not None else None
        if layout is None or _MIXED in facts:
            return _MIXED
        if eqn.name in ("reshape", "squeeze", "expand_dims"):
            return self._reshaped(eqn, facts[0])
        found: set[Along] = set()
        for fact, places in zip(facts, layout.operands, strict=True):
            if fact is not None:
                (place,) = axes if len(axes := places.get(fact.axis, ())) == 1 else (-1,)
                found.add(fact._replace(axis=place))
        own = layout.own | _moved_along(eqn) if meaning.layout is elementwise else layout.own
        fact = found.pop()
        return _MIXED if found or fact.axis in own else fact

    def _reshaped(self, eqn: Eqn, fact: Fact) -> Fact:
        """The examples follow each other in blocks, so they do where the blocks are kept."""
        assert fact is not None
        old, new = eqn.inputs[0].shape, eqn.out.shape
        before = math.prod(old[: fact.axis])
        for axis, size in enumerate(new):
            if math.prod(new[:axis]) == before and size != 1 and not size % self._count:
                return Along(axis, size // self._count)
        return _MIXED


def _moved_along(eqn: Eqn) -> frozenset[int]:
    """Axes along which an equation that keeps the shape sorts, turns round or accumulates."""
    given = (eqn.params.get(name, ()) for name in ("axis", "dimension", "dimensions"))
    return frozenset(a for axes in given for a in (axes if isinstance(axes, tuple) else (axes,)))
