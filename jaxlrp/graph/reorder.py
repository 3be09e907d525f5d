"""Terms and factors in the order in which finders look for layers.

A sum hides a layer if a bias is apart from the product to which it belongs. A product hides one if
the factors of one activation are apart. A mean may be written as a product with one number
everywhere. In these cases new equations compute the value in another order, beside the network's
own (`graph/reordered_value.py`). If the order is right, nothing is added.
"""

from __future__ import annotations

from collections.abc import Iterable

from jaxlrp.graph import control_flow, hoist
from jaxlrp.graph.activity import is_inexact
from jaxlrp.graph.groups import Facts, Workbench
from jaxlrp.graph.ir import Eqn, Graph, Value
from jaxlrp.graph.primitives import ADDITIONS
from jaxlrp.graph.reorder_factors import factors_in_order
from jaxlrp.graph.reorder_terms import terms_in_order
from jaxlrp.graph.reordered_value import CannotOrder, Ordered
from jaxlrp.graph.uniform_kernels import as_sum

_ORDERS = {
    "mul": factors_in_order,
    "div": factors_in_order,
    "dot_general": as_sum,
    "conv_general_dilated": as_sum,
}


def reordered(
    graph: Graph, explained: Iterable[Value], outputs: Iterable[Value]
) -> tuple[Graph, Facts | None]:
    """The graph with its sums and products, in bodies too, in the order that finders expect.

    Its facts are returned too, if it had that order.
    """
    outputs, explained = list(outputs), list(explained)
    facts = hoist.facts_once_hoisted(graph, explained, outputs)
    before = list(control_flow.graphs(graph))
    found = _reordered(Workbench(graph, facts, outputs))
    return found, facts if list(control_flow.graphs(found)) == before else None


def _reordered(bench: Workbench) -> Graph:
    after: dict[Eqn, list[Eqn]] = {}
    done: set[Eqn] = set()
    bodies: dict[Eqn, tuple[Graph, ...]] = {}
    for eqn in reversed(bench.graph.eqns):
        if not bench.is_open(eqn):
            continue
        if eqn.bodies:
            bodies[eqn] = tuple(_body(bench, body) for body in eqn.bodies)
        elif (value := _beside_zero(bench, eqn)) is not None:
            after[eqn] = Ordered(eqn).in_place_of_own(value)
        elif eqn not in done and is_inexact(eqn.out):
            order = _ORDERS.get(eqn.name, terms_in_order)
            made = Ordered(eqn)
            try:
                value = order(bench, eqn, made, done)
            except CannotOrder:
                continue
            if value is not None and value.shape == eqn.out.shape:
                after[eqn] = made.in_place_of_own(value)
    for eqn, graphs in bodies.items():
        eqn.bodies = graphs
    if not after:
        return bench.graph
    graph = bench.graph
    eqns = [e for eqn in graph.eqns for e in (eqn, *after.get(eqn, ()))]
    return Graph(graph.inputs, graph.consts, eqns, graph.outputs)


def _beside_zero(bench: Workbench, eqn: Eqn) -> Value | None:
    """The term of a sum beside one that is 0 and depends on the input in name only.

    The first step of a recurrence from zeros has such terms: `sigmoid(f) * 0 + i * g`.
    """
    if eqn.name not in ADDITIONS:
        return None
    pairs = (eqn.inputs,) if eqn.name == "sub" else (eqn.inputs, eqn.inputs[::-1])
    for value, zero in pairs:
        alike = value.shape == eqn.out.shape and value.dtype == eqn.out.dtype
        in_name = zero in bench.activity.depends and zero not in bench.activity.active
        counts = alike and in_name and value in bench.activity.active
        if counts and bench.intervals.constant(zero) == 0.0:
            return value
    return None


def _body(bench: Workbench, body: Graph) -> Graph:
    outputs = [v for v in body.outputs if v in bench.activity.reached]
    return _reordered(Workbench(body, bench.facts, outputs))
