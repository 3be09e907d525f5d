"""Which values depend on the explained inputs, and which of them relevance reaches."""

from __future__ import annotations

from collections.abc import Iterable

import jax.numpy as jnp

from jaxlrp.graph.ir import Eqn, Graph, Value


class Activity:
    """Facts about a graph, given its explained inputs.

    `depends`: changes with the explained inputs, in any way (also through integers, booleans and
    `stop_gradient`). `active`: can receive relevance: depends through floating values alone.
    `reached`: active, and read (directly or not) by an output that relevance starts from; at an
    explained value relevance stops, wherever in the graph it stands.
    """

    def __init__(self, graph: Graph, explained: Iterable[Value], outputs: Iterable[Value]):
        self.explained = frozenset(explained)
        self.depends: set[Value] = set(self.explained)
        self.active: set[Value] = set(self.explained)
        for eqn in graph.eqns:
            if any(v in self.depends for v in eqn.inputs):
                self.depends.update(eqn.outputs)
                if eqn.name != "stop_gradient" and any(v in self.active for v in eqn.inputs):
                    self.active.update(v for v in eqn.outputs if is_inexact(v))
        self.reached: set[Value] = {v for v in outputs if v in self.active}
        for eqn in reversed(graph.eqns):
            if any(v in self.reached and v not in self.explained for v in eqn.outputs):
                self.reached.update(v for v in eqn.inputs if v in self.active)

    def active_inputs(self, eqn: Eqn) -> list[Value]:
        """Distinct active inputs of an equation, in order."""
        return list(dict.fromkeys(v for v in eqn.inputs if v in self.active))

    def is_reached(self, eqn: Eqn) -> bool:
        """Whether relevance arrives at the equation and has somewhere to go."""
        arrives = any(v in self.reached and v not in self.explained for v in eqn.outputs)
        return arrives and bool(self.active_inputs(eqn))

    def static(self, value: Value) -> bool:
        return value not in self.active


def is_inexact(value: Value) -> bool:
    dtype = getattr(value.aval, "dtype", None)
    return dtype is not None and bool(jnp.issubdtype(dtype, jnp.inexact))
