"""Density or relevance for every edge of a graph, decided from the outputs back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from jaxlrp.graph import control_flow
from jaxlrp.graph.dataflow import Origins
from jaxlrp.graph.groups import Group
from jaxlrp.graph.ir import Graph, Literal, Value
from jaxlrp.graph.particulars import Activation, Move
from jaxlrp.planning.layers import Layer, group_of
from jaxlrp.planning.plans import Plan
from jaxlrp.rules.base import check_carries
from jaxlrp.rules.layer_view import Carries


def decide(plan: Plan, outputs: Iterable[Value], seed: str) -> None:
    """Density or relevance for every value, from the outputs back."""
    decider = _Decider(plan)
    for value in outputs:
        by_weight = seed == "density" and decider.starts_from_weight(value)
        plan.seeds[value] = "relevance" if by_weight else seed
    plan.edges.update(plan.seeds)
    decider.graph(plan.graph)


class _Decider:
    def __init__(self, plan: Plan):
        self.plan = plan
        self.edges = plan.edges
        self.last = {group_of(y).eqns[-1]: y for y in plan.layers}
        self.makers = {v: y for y in plan.layers for v in group_of(y).outputs}
        self.readers: dict[Value, list[Layer]] = {}
        for layer in plan.layers:
            for value in group_of(layer).inputs:
                self.readers.setdefault(value, []).append(layer)
        self.origins = Origins(plan.graph)
        graphs = list(control_flow.graphs(plan.graph))
        self.uses = Counter(v for g in graphs for e in g.eqns for v in dict.fromkeys(e.inputs))
        self.uses.update(v for g in graphs for v in g.outputs)  # aux too

    def starts_from_weight(self, value: Value) -> bool:
        """Whether the seed of an output is its weight, by the rules of the layers that make it.

        Equations that only move elements are skipped, and so are elements of the explained input,
        which no layer makes; if there are several makers, all must say so.
        """
        stack, seen, found = [value], set(), False
        while stack:
            v = stack.pop()
            if v in seen or v not in self.active:
                continue
            seen.add(v)
            layer = self.makers.get(v)
            if layer is None and v.producer is None and v.outer is not None:
                stack += self.origins.before(v)  # the input of a body
                continue
            if layer is None and v in self.plan.explained:
                continue
            if layer is None:
                return False
            group = group_of(layer)
            if group.main.bodies:
                bodies = group.main.bodies
                pairs = [p for body in bodies for p in control_flow.results(group.main, body)]
                stack += [inside for inside, outside in pairs if outside is v]
            elif layer.rule.carries == "same" or group.particulars == Move("move"):
                stack += group.inputs
            elif not layer.rule.from_weight:
                return False
            else:
                found = True
        return found

    def graph(self, graph: Graph) -> None:
        for eqn in reversed(graph.eqns):
            if eqn in self.last:
                layer = self.last[eqn]
                self.control(layer) if eqn.bodies else self.layer(layer)

    def layer(self, layer: Layer) -> None:
        group = group_of(layer)
        layer.arriving = self.arriving(group)
        for value in group.outputs:
            self.edges[value] = layer.arriving
        layer.carries = layer.rule.what_it_carries(layer.arriving, layer)
        check_carries(layer.rule, layer.carries)
        readers = self.readers.get(layer.output, [])
        layer.sign_split = not (
            layer.arriving == "density"
            and layer.output not in self.plan.found.outputs
            and all(_kills_negative(r) for r in readers)
        )
        layer.relu = self.only_relu(layer, readers)
        for value in group.inputs:
            self.carry(value, layer.carries)

    def arriving(self, group: Group) -> Carries:
        relevance = any(self.edges.get(v) == "relevance" for v in group.outputs)
        return "relevance" if relevance else "density"

    def carry(self, value: Value, what: str) -> None:
        if what == "relevance" or value not in self.edges:
            self.edges[value] = what

    def control(self, layer: Layer) -> None:
        """Decide the bodies; the carry of a scan is iterated to a fixed point.

        The carry has one sort: relevance if any iteration sends relevance. A density from outside
        is then converted at the border.
        """
        group = group_of(layer)
        layer.arriving = layer.carries = self.arriving(group)
        for body in group.main.bodies:
            for inside, outside in control_flow.results(group.main, body):
                self.carry(inside, self.edges.get(outside, "density"))
            back = control_flow.feedback(group.main, body)
            while True:
                for after, before in back:
                    if self.edges.get(after) == "relevance" and before in self.active:
                        self.edges[before] = "relevance"
                self.graph(body)
                behind = [(o, i) for o, i in back if self.edges.get(i) == "relevance"]
                changed = [o for o, _ in behind if self.edges.get(o) != "relevance"]
                if not changed:
                    break
                self.edges.update(dict.fromkeys(changed, "relevance"))
            for outside, inside in control_flow.operands(group.main, body):
                if inside in self.edges:
                    self.carry(outside, self.edges[inside])

    def only_relu(self, layer: Layer, readers: list[Layer]) -> Layer | None:
        """The ReLU that is the only reader of a layer's output, if it sends a density back."""
        output = layer.output
        if len(readers) != 1 or output in self.plan.found.outputs or layer.arriving != "density":
            return None
        reader = readers[0]
        activation = group_of(reader).particulars_as(Activation)
        passes = activation.is_relu and reader.rule.passes
        units = self.plan.found.units
        in_one_call = units(group_of(reader).eqns[-1]) == units(group_of(layer).eqns[-1])
        alone = self.uses[output] == 1
        alone = alone and all(isinstance(v, Literal) for v in group_of(reader).outside)
        good = passes and in_one_call and alone and layer.rule.takes_relu
        return reader if good and not layer.rule.plain and layer.kind != "structural" else None

    @property
    def active(self) -> set[Value]:
        return self.plan.activity.active


def _kills_negative(reader: Layer) -> bool:
    return group_of(reader).particulars_as(Activation).hard_relu and reader.rule.passes
