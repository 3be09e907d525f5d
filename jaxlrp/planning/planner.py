"""From a graph to a plan: layers with names and rules, and density or relevance for edges."""

from __future__ import annotations

from collections.abc import Sequence

from jaxlrp.graph.groups import Facts, Group
from jaxlrp.graph.ir import Graph, Value
from jaxlrp.graph.particulars import Activation
from jaxlrp.graph.recognise import recognise
from jaxlrp.graph.reorder import reordered
from jaxlrp.planning import edges
from jaxlrp.planning import names as naming
from jaxlrp.planning.assign import assign_rules
from jaxlrp.planning.kinds import default_rule
from jaxlrp.planning.layers import Layer
from jaxlrp.planning.notes import notes_of
from jaxlrp.planning.plans import Plan
from jaxlrp.planning.rulemap import RuleMap


def make_plan(
    graph: Graph,
    explained: Sequence[Value],
    outputs: Sequence[Value],
    rules: RuleMap,
    seed: str = "density",
    inner_layers: Sequence[Group] = (),
) -> Plan:
    """Recognise layers, give each its rule, and choose density or relevance for edges."""
    graph, facts = reordered(graph, explained, outputs)
    plan = survey(graph, explained, outputs, inner_layers, facts)
    assign_rules(plan, rules)
    edges.decide(plan, outputs, seed)
    plan.notes = notes_of(plan, outputs)
    return plan


def survey(
    graph: Graph,
    explained: Sequence[Value],
    outputs: Sequence[Value],
    inner_layers: Sequence[Group] = (),
    facts: Facts | None = None,
) -> Plan:
    """The layers of a graph with their names, before any rule."""
    found = recognise(graph, explained, outputs, inner_layers, facts)
    named = naming.assign(found)
    layers = [_layer(found.facts, group, *named[group]) for group in found.groups]
    return Plan(graph, explained, found, layers)


def _layer(facts: Facts, group: Group, name: str, others: tuple[str, ...]) -> Layer:
    output = group.outputs[0]
    return Layer(
        kind=group.kind,
        name=name,
        shape=output.shape,
        dtype=output.dtype,
        primitive=group.main.name,
        rule=default_rule(group),
        why="explained: relevance stops here" if group.inner else f"default for {group.kind}",
        folded=len(group.eqns),
        names=(name, *others),
        zero_at_zero=group.particulars_as(Activation).zero_at_zero,
        group=group,
        nonnegative=all(facts.intervals.nonnegative(v) for v in group.inputs),
    )
