"""The layers that read each layer of a plan, also through loops and branches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from jaxlrp.graph import control_flow
from jaxlrp.graph.ir import Value
from jaxlrp.graph.recognise import Recognised
from jaxlrp.planning.layers import Layer, group_of
from jaxlrp.planning.selectors import LayerGraph


def layer_graph(
    every: Sequence[Layer], found: Recognised, explained: Sequence[Value]
) -> LayerGraph:
    """The readers of each layer, for selectors that follow the dataflow."""
    layers = [layer for layer in every if not group_of(layer).main.bodies]
    index = {layer: i for i, layer in enumerate(every)}
    reads: dict[Value, list[int]] = {}
    for layer in layers:
        for value in group_of(layer).inputs:
            reads.setdefault(value, []).append(index[layer])
    onward = _onward(found)

    def readers(values: Iterable[Value]) -> list[tuple[int, Value]]:
        reading: list[tuple[int, Value]] = []
        stack, seen = list(values), set()
        while stack:
            value = stack.pop()
            if value not in seen:
                seen.add(value)
                reading += [(reader, value) for reader in reads.get(value, ())]
                stack.extend(onward.get(value, ()))
        return reading

    feeds: list[list[int]] = [[] for _ in every]
    makers: list[list[list[int]]] = [[[] for _ in group_of(y).inputs] for y in every]
    sinks = set()
    for layer in layers:
        reading = readers(group_of(layer).outputs)
        feeds[index[layer]] = sorted({reader for reader, _ in reading})
        for reader, value in reading:
            position = group_of(every[reader]).inputs.index(value)
            makers[reader][position].append(index[layer])
        if _comes_out(group_of(layer).outputs, onward, found.seeded):
            sinks.add(index[layer])
    entries = frozenset(
        (reader, group_of(every[reader]).inputs.index(value))
        for reader, value in readers(explained)
    )
    bare = _comes_out(explained, onward, found.seeded)
    return LayerGraph(every, feeds, makers, entries, frozenset(sinks), bare)


def _onward(found: Recognised) -> dict[Value, list[Value]]:
    """The names of a value elsewhere: inside a body, outside of it, in its next iteration."""
    onward: dict[Value, list[Value]] = {}
    for group in found.groups:
        for body in group.main.bodies:
            for pairs in (control_flow.operands, control_flow.results, control_flow.feedback):
                for one, other in pairs(group.main, body):
                    onward.setdefault(one, []).append(other)
    return onward


def _comes_out(
    values: Iterable[Value], onward: dict[Value, list[Value]], outputs: frozenset[Value]
) -> bool:
    stack, seen = list(values), set()
    while stack:
        value = stack.pop()
        if value in outputs:
            return True
        if value not in seen:
            seen.add(value)
            stack.extend(onward.get(value, ()))
    return False
