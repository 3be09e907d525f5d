"""All groups of a graph: recognition in order of precedence."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from jaxlrp.graph import (
    activation,
    affine_layers,
    contraction,
    gates,
    hoist,
    linear,
    norm,
    softmax,
    softmax_masks,
    structure,
    sums_and_products,
)
from jaxlrp.graph.groups import Facts, Group, Workbench
from jaxlrp.graph.ir import Eqn, Graph, InlinedCall, Value
from jaxlrp.graph.repeats import Repeats

_FINDERS = (
    structure.claim_integers,
    softmax.find,
    softmax.prove_shares,
    norm.find,
    norm.find_undone,
    linear.find,
    contraction.find,
    linear.find_sums,
    linear.fold,
    norm.find_held,
    activation.find,
    activation.find_shifts,
    sums_and_products.find_products,
    sums_and_products.find_sums,
    affine_layers.find,
    structure.find,
)


@dataclasses.dataclass(frozen=True)
class Recognised:
    """The result of recognition: facts and groups.

    Attributes:
      facts: activity, bounds and the like, for the graph and all bodies in it.
      groups: in dataflow order; the groups in a body come before the control flow around them.
      seeded: values from which relevance starts.
      outputs: these, and the values with which a body ends.
      calls: the repeated calls of functions, each with the first call that is like it.
    """

    facts: Facts
    groups: tuple[Group, ...]
    seeded: frozenset[Value]
    outputs: frozenset[Value]
    calls: Mapping[InlinedCall, InlinedCall]

    def units(self, eqn: Eqn) -> tuple[InlinedCall, ...]:
        """The calls around an equation that run as one, outermost first."""
        found, call = [], eqn.call
        while call is not None:
            if call.settings is not None or call in self.calls:
                found.append(call)
            call = call.parent
        return tuple(reversed(found))


def recognise(
    graph: Graph,
    explained: Iterable[Value],
    outputs: Iterable[Value],
    inner_layers: Iterable[Group] = (),
    facts: Facts | None = None,
) -> Recognised:
    """Group every equation that relevance crosses on its way from `outputs` to `explained`.

    `inner_layers` are the layers at which explained values inside the function are read; `facts`
    are those of the graph, if they are known.
    """
    outputs, explained = list(outputs), list(explained)
    if facts is None:
        facts = hoist.facts_once_hoisted(graph, explained, outputs)
    bench = Workbench(graph, facts, outputs)
    for group in inner_layers:
        bench.claim(group)
    around: dict[Workbench, Group | None] = {bench: None}
    _add_bodies(bench, around)
    repeats = {one: Repeats(one) for one in around}
    # First without the calls that are like an earlier one, then for the equations they leave open.
    for finder in _FINDERS:
        for one, calls in repeats.items():
            finder(one)
            calls.copy()
        if finder is softmax.prove_shares:
            for calls in repeats.values():
                calls.check_bounds()
    for one, calls in repeats.items():
        if not calls.is_complete():
            one.eqns = one.graph.eqns
            for finder in _FINDERS:
                finder(one)
    for one in around:
        softmax_masks.find(one)
        gates.find(one)
        structure.note_integers(one)
    inside: dict[Group | None, list[Group]] = {}
    for one, group in around.items():
        inside.setdefault(group, []).extend(sorted(one.groups, key=_last))
        for found in one.groups:
            found.around = group
        check_linked(one)
    groups = tuple(_in_order(None, inside))
    ends = frozenset().union(*(one.outputs for one in around))
    calls = {k: v for one in repeats.values() for k, v in one.calls.items()}
    return Recognised(facts, groups, frozenset(outputs), ends, calls)


def _add_bodies(bench: Workbench, around: dict[Workbench, Group | None]) -> None:
    for group in structure.control_flow(bench):
        for body in group.main.bodies:
            outputs = [v for v in body.outputs if v in bench.activity.reached]
            inner = Workbench(body, bench.facts, outputs)
            around[inner] = group
            _add_bodies(inner, around)


def check_linked(bench: Workbench) -> None:
    """Check that every value that a layer reads, or fn returns, is not within a layer."""
    reads = [(v, group) for group in bench.groups for v in group.inputs]
    for value, reader in [*reads, *((v, None) for v in bench.outputs)]:
        maker = None if value.producer is None else bench.claimed.get(value.producer)
        if maker is None or maker is reader or value in maker.outputs:
            continue
        who = f"the {reader.kind} layer at {reader.main.source} reads" if reader else "fn returns"
        raise AssertionError(
            f"a fault of jaxlrp, please report it: {who} a value within the {maker.kind} layer at "
            f"{maker.main.source}, so relevance would be lost there"
        )


def _in_order(around: Group | None, inside: dict[Group | None, list[Group]]) -> Iterable[Group]:
    for group in inside.get(around, ()):
        if group.main.bodies:
            yield from _in_order(group, inside)
        yield group


def _last(group: Group) -> int:
    return group.eqns[-1].order
