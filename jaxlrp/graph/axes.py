"""The axes along which a static value may vary, and the origin of a parameter."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from jaxlrp.graph.dataflow import Flow, Origins, solve
from jaxlrp.graph.families import row
from jaxlrp.graph.ir import Eqn, Graph, Value
from jaxlrp.graph.layout import unit_reshape
from jaxlrp.graph.primitives import RANDOM, SCATTERS

__all__ = ["Statics", "unit_reshape"]

Axes = frozenset[int]


def _wide(value: Value) -> Axes:
    return frozenset(i for i, n in enumerate(value.shape) if n != 1)


class _Varying(Flow[Axes]):
    """Axes along which the elements of a value may differ."""

    def start(self, value: Value) -> Axes:
        return _wide(value)

    def transfer(self, eqn: Eqn, look: Callable[[Value], Axes]) -> Sequence[Axes]:
        meaning = row(eqn.name)
        if meaning.pairs and meaning.layout is not None and len(eqn.inputs) >= len(eqn.outputs):
            together = eqn.inputs if meaning.parts else ()  # a sort moves them by its keys
            return [
                frozenset().union(*map(look, (eqn.inputs[i], *together))) & _wide(v)
                for i, v in enumerate(eqn.outputs)
            ]
        layout = meaning.layout(eqn) if meaning.layout is not None else None
        if layout is None:
            return [_wide(v) for v in eqn.outputs]
        found = set(layout.own)
        for value, places in zip(eqn.inputs, layout.operands, strict=True):
            for axis in look(value):
                found.update(places.get(axis, range(eqn.out.ndim)))
        return [frozenset(found) & _wide(v) for v in eqn.outputs]

    def join(self, a: Axes, b: Axes) -> Axes:
        return a | b

    def enter(self, eqn: Eqn, fact: Axes, inside: Value) -> Axes:
        if inside.outer is None or inside.outer.ndim != inside.ndim + inside.sliced:
            return _wide(inside)
        return frozenset(i - inside.sliced for i in fact) & _wide(inside)

    def leave(self, eqn: Eqn, fact: Axes, inside: Value, outside: Value) -> Axes:
        if eqn.name == "shard_map":  # each device has a part
            return _wide(outside)
        stacked = outside.ndim - inside.ndim
        axes = {i + stacked for i in fact} | set(range(stacked))
        return frozenset(axes) & _wide(outside)


class Statics:
    """Facts about the values that do not carry relevance."""

    def __init__(self, graph: Graph):
        self._axes: dict[Value, Axes] = {}
        self._params: dict[Value, tuple[Value, ...]] = {}
        self._roots = set(graph.inputs) | {v for v, _ in graph.consts}
        self._origins = Origins(graph)
        solve(graph.eqns, _Varying(), self._axes)

    def varying_axes(self, value: Value) -> Axes:
        """Axes along which the elements of `value` may differ."""
        return self._axes[value] if value in self._axes else _wide(value)

    def parameters(self, value: Value) -> tuple[Value, ...]:
        """Inputs and constants of the graph (and random draws) that `value` is computed from."""
        if value not in self._params:
            found: dict[Value, None] = {}
            stack, seen = [value], set()
            while stack:
                v = stack.pop()
                if v in seen:
                    continue
                seen.add(v)
                if v in self._params:
                    found.update(dict.fromkeys(self._params[v]))
                elif v in self._roots or (v.producer is not None and v.producer.name in RANDOM):
                    found[v] = None
                else:
                    stack.extend(reversed(self._contents(v)))
            self._params[value] = tuple(found)
        return self._params[value]

    def _contents(self, value: Value) -> list[Value]:
        """The values that a value is made from directly; the places of a scatter do not count."""
        before = list(self._origins.before(value))
        scattered = value.producer is not None and value.producer.name in SCATTERS
        return [before[0], *before[2:]] if scattered else before
