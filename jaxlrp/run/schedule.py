"""The schedule: the order in which layers and other equations of a graph run."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from jaxlrp.graph import control_flow
from jaxlrp.graph.ir import Eqn, Graph, InlinedCall, Value
from jaxlrp.planning.layers import Layer, group_of
from jaxlrp.planning.plans import Plan


@dataclasses.dataclass(frozen=True)
class Step:
    """A step: a layer, or an equation that relevance does not cross."""

    layer: Layer | None
    eqn: Eqn | None
    reads: Sequence[Value]
    writes: Sequence[Value]
    units: tuple[InlinedCall, ...]  # the calls around it that run as one, outermost first

    @property
    def used(self) -> tuple[int, ...]:
        """Which results of its equation others read: one part of a split, say."""
        assert self.eqn is not None
        return tuple(self.eqn.outputs.index(v) for v in self.writes)


def schedule(plan: Plan, graph: Graph, outputs: Sequence[Value]) -> list[Step]:
    """Layers and other equations of a graph (or body), each after its operands.

    A layer runs in the place of its last equation. An equation inside a layer also runs separately
    if a reader of its result carries no relevance.
    """
    last = {group_of(layer).eqns[-1]: layer for layer in plan.layers}
    made = {v for layer in plan.layers for v in group_of(layer).outputs} | set(plan.explained)
    needed: set[Value] = set(outputs)
    units = plan.found.units
    steps: list[Step] = []
    for eqn in reversed(graph.eqns):
        if eqn in last:
            group = group_of(last[eqn])
            reads = [*group.inputs, *group.outside, *control_flow.free_values(eqn)]
            steps.append(Step(last[eqn], None, reads, group.outputs, units(eqn)))
            needed.update(reads)
        writes = [v for v in eqn.outputs if v in needed and v not in made]
        if writes:
            steps.append(Step(None, eqn, eqn.inputs, writes, units(eqn)))
            needed.update(eqn.inputs)
    return steps[::-1]
