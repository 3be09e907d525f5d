"""All groups of a graph: recognition in order of precedence."""

from __future__ import annotations

from collections.abc import Iterable

from jaxlrp.graph import activation, gates, linear, norm, softmax, structure
from jaxlrp.graph.activity import Activity
from jaxlrp.graph.groups import Group, Workbench
from jaxlrp.graph.ir import Graph, Value


def recognise(
    graph: Graph,
    explained: Iterable[Value],
    outputs: Iterable[Value],
    entries: Iterable[Group] = (),
) -> Workbench:
    """Group every equation that relevance crosses on its way from `outputs` to `explained`.

    `entries` are the layers at which explained values inside the function are read.
    """
    outputs = list(outputs)
    bench = Workbench(graph, Activity(graph, explained, outputs), outputs)
    for group in entries:
        bench.claim(group)
    for finder in (
        softmax.find,
        norm.find,
        linear.find,
        activation.find,
        activation.find_pairs,
        structure.find,
        gates.find,
    ):
        finder(bench)
    bench.groups.sort(key=_last)
    return bench


def _last(group: Group) -> int:
    return group.eqns[-1].order
