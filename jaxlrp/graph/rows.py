"""Which values consist of rows that depend each on one row of an explained input: examples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from jaxlrp.graph.dataflow import Flow, solve
from jaxlrp.graph.families import row
from jaxlrp.graph.ir import Eqn, Graph, Value
from jaxlrp.graph.primitives import DEVICE_SUMS, REDUCTIONS

# The facts besides an axis: no row of the input is in the value, or several are in one element.
_NONE, _MIXED = -1, -2
# Primitives whose layout is that of an elementwise function, though they mix along one axis.
_ALONG = {"rev": "dimensions", "sort": "dimension", "cummax": "axis", "cummin": "axis"}
_OVER_DEVICES = DEVICE_SUMS | {"pmax", "pmin"}


class _Rows(Flow[int]):
    """The axis of a value along which its rows are those of the explained inputs.

    Reductions over that axis are kept in `statistics`, and their results count as constant.
    """

    def __init__(self, starts: Mapping[Value, int], look_past_statistics: bool):
        self._starts = starts
        self._look_past = look_past_statistics
        self.statistics: list[Eqn] = []

    def start(self, value: Value) -> int:
        return self._starts.get(value, _NONE)

    def transfer(self, eqn: Eqn, look: Callable[[Value], int]) -> Sequence[int]:
        facts = [look(v) for v in eqn.inputs]
        if any(v in self._starts for v in eqn.outputs):
            return [self.start(v) for v in eqn.outputs]
        found = self._of(eqn, facts) if any(f != _NONE for f in facts) else _NONE
        return [found] * len(eqn.outputs)

    def _of(self, eqn: Eqn, facts: Sequence[int]) -> int:
        meaning = row(eqn.name)
        layout = None if meaning.layout is None else meaning.layout(eqn)
        if layout is None or _MIXED in facts or eqn.name in _OVER_DEVICES:
            return _MIXED
        if self._look_past and eqn.name in REDUCTIONS and facts[0] in eqn.params.get("axes", ()):
            self.statistics.append(eqn)
            return _NONE
        found = _NONE
        for value, fact, places in zip(eqn.inputs, facts, layout.operands, strict=True):
            if fact == _NONE:
                continue
            after = _leading(eqn, fact) or places.get(fact, ())
            if len(after) != 1 or after[0] in layout.own or _mixes(eqn, fact):
                return _MIXED
            if value.shape[fact] != eqn.out.shape[after[0]]:
                return _MIXED
            found = self.join(found, after[0])
        return found

    def join(self, a: int, b: int) -> int:
        if a == b or b == _NONE:
            return a
        return b if a == _NONE else _MIXED

    def enter(self, eqn: Eqn, fact: int, inside: Value) -> int:
        if fact < 0:
            return fact
        return _MIXED if inside.sliced and fact == 0 else fact - inside.sliced

    def leave(self, eqn: Eqn, fact: int, inside: Value, outside: Value) -> int:
        return fact if fact < 0 else fact + outside.ndim - inside.ndim

    def chosen(self, fact: int, index: int) -> int:
        return fact if index == _NONE else _MIXED


def _leading(eqn: Eqn, axis: int) -> tuple[int, ...]:
    """A batch of one stays the leading axis in reshapes, whose layouts skip axes of size 1."""
    old, new = eqn.inputs[0].shape, eqn.out.shape
    one = axis == 0 and eqn.name == "reshape" and old[:1] == new[:1] == (1,)
    return (0,) if one else ()


def _mixes(eqn: Eqn, axis: int) -> bool:
    if eqn.name not in _ALONG:
        return False
    along = eqn.params[_ALONG[eqn.name]]
    return axis in along if isinstance(along, tuple) else axis == along


def is_batch(graph: Graph, explained: Sequence[Value], output: Value) -> bool:
    """Whether each entry along an output's first axis depends on one row of an explained input.

    Only inputs with rows of their own count: elements of a vector are no examples.
    """
    return any(
        size > 1 and are_rows_of(graph, value, axis, output)
        for value in explained
        for axis, size in enumerate(value.shape)
    )


def are_rows_of(graph: Graph, value: Value, axis: int, output: Value) -> bool:
    """Whether the output's entries along its first axis depend each on one row of a value."""
    if value.ndim < 2 or not output.ndim or value.shape[axis] != output.shape[0]:
        return False
    facts = {value: axis}
    solve(graph.eqns, _Rows(facts.copy(), look_past_statistics=False), facts)
    return facts.get(output, _NONE) == 0


def statistics(graph: Graph, explained: Sequence[Value], outputs: Sequence[Value]) -> list[Eqn]:
    """Reductions over the axis of examples: all that one row of the outputs has of other rows.

    None, unless the rows of some output are otherwise those of the explained inputs.
    """
    sizes = {v.shape[0] for v in outputs if v.ndim}
    starts = {v: 0 for v in explained if v.ndim > 1 and v.shape[0] in sizes}
    if not starts:
        return []
    flow, facts = _Rows(starts, look_past_statistics=True), starts.copy()
    solve(graph.eqns, flow, facts)
    rows = any(facts.get(v, _NONE) == 0 for v in outputs)
    return list(dict.fromkeys(flow.statistics)) if rows else []
