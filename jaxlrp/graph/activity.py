"""Which values depend on the explained inputs, and which of them relevance reaches."""

from __future__ import annotations

from collections.abc import Iterable

import jax.numpy as jnp

from jaxlrp.graph import control
from jaxlrp.graph.ir import Eqn, Graph, Literal, Value


class Activity:
    """Facts about a graph and the bodies in it, given its explained inputs.

    `depends`: changes with the explained inputs, in any way (also through integers, booleans and
    `stop_gradient`). `active`: can receive relevance: depends through floating values alone.
    `reached`: active, and read (directly or not) by an output that relevance starts from; at an
    explained value relevance stops, wherever in the graph it stands. Of a carry all three hold in
    every iteration if they hold in one.
    """

    def __init__(self, graph: Graph, explained: Iterable[Value], outputs: Iterable[Value]):
        self.explained = frozenset(explained)
        self.depends: set[Value] = set(self.explained)
        self.active: set[Value] = set(self.explained)
        self._forward(graph)
        self.reached: set[Value] = {v for v in outputs if v in self.active}
        self._backward(graph)

    def _forward(self, graph: Graph) -> None:
        for eqn in graph.eqns:
            if eqn.bodies:
                self._into(eqn)
            elif not self.depends.isdisjoint(eqn.inputs):
                self.depends.update(eqn.outputs)
                cut = eqn.name == "stop_gradient" or _is_times_zero(eqn)
                if not cut and not self.active.isdisjoint(eqn.inputs):
                    self.active.update(v for v in eqn.outputs if is_inexact(v))

    def _into(self, eqn: Eqn) -> None:
        for body in eqn.bodies:
            pairs = control.operands(eqn, body)
            while True:
                for facts in (self.depends, self.active):
                    facts.update(inside for outside, inside in pairs if outside in facts)
                self._forward(body)
                back = control.feedback(eqn, body)
                if not any(o in f and i not in f for o, i in back for f in self._both()):
                    break
                pairs = [*pairs, *back]
            for facts in self._both():
                facts.update(out for inside, out in control.results(eqn, body) if inside in facts)
        if eqn.name == "cond" and eqn.inputs[0] in self.depends:
            self.depends.update(eqn.outputs)

    def _both(self) -> tuple[set[Value], set[Value]]:
        return self.depends, self.active

    def _backward(self, graph: Graph) -> None:
        for eqn in reversed(graph.eqns):
            if eqn.bodies:
                self._out_of(eqn)
            elif any(v in self.reached and v not in self.explained for v in eqn.outputs):
                self.reached.update(v for v in eqn.inputs if v in self.active)

    def _out_of(self, eqn: Eqn) -> None:
        for body in eqn.bodies:
            found = {i for i, o in control.results(eqn, body) if o in self.reached}
            while True:
                self.reached.update(found & self.active)
                self._backward(body)
                back = control.feedback(eqn, body)
                found = {o for o, i in back if i in self.reached and o not in self.reached}
                if not found & self.active:
                    break
            pairs = control.operands(eqn, body)
            self.reached.update(o for o, i in pairs if i in self.reached and o in self.active)

    def active_inputs(self, eqn: Eqn) -> list[Value]:
        """Distinct active inputs of an equation, in order."""
        return list(dict.fromkeys(v for v in eqn.inputs if v in self.active))

    def is_reached(self, eqn: Eqn) -> bool:
        """Whether relevance arrives at the equation and has somewhere to go."""
        arrives = any(v in self.reached and v not in self.explained for v in eqn.outputs)
        return arrives and bool(self.active_inputs(eqn))


def _is_times_zero(eqn: Eqn) -> bool:
    """A product with a zero that is written in the program: the start of a recurrence."""
    return eqn.name == "mul" and any(_is_zero(v) for v in eqn.inputs)


def _is_zero(value: Value) -> bool:
    while (eqn := value.producer) is not None:
        if eqn.name not in ("broadcast_in_dim", "convert_element_type", "copy"):
            return False
        value = eqn.inputs[0]
    return isinstance(value, Literal) and bool(value.val == 0)


def is_inexact(value: Value) -> bool:
    dtype = getattr(value.aval, "dtype", None)
    return dtype is not None and bool(jnp.issubdtype(dtype, jnp.inexact))
