"""The values that depend on the explained inputs, and those that relevance reaches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import jax.numpy as jnp

from jaxlrp.graph.dataflow import Flow, solve, spread_back
from jaxlrp.graph.families import row
from jaxlrp.graph.ir import Eqn, Graph, Literal, Value
from jaxlrp.graph.primitives import carrying


class Dependence(NamedTuple):
    """How a value depends on the explained ones.

    `integers`: it depends on them only through integers that this equation makes.
    """

    depends: bool = False
    active: bool = False
    integers: Eqn | None = None


_STATIC = Dependence()


class _Forward(Flow[Dependence]):
    def __init__(self, explained: frozenset[Value]):
        self._explained = explained

    def start(self, value: Value) -> Dependence:
        return Dependence(True, True) if value in self._explained else _STATIC

    def transfer(self, eqn: Eqn, look: Callable[[Value], Dependence]) -> Sequence[Dependence]:
        operands = [look(v) for v in eqn.inputs]
        if not any(d.depends for d in operands):
            return [self.start(v) for v in eqn.outputs]
        meaning = row(eqn.name)
        carries = [i for i in carrying(eqn) if operands[i].active]
        if eqn.name == "stop_gradient" or _is_times_zero(eqn):
            carries = []
        found = []
        for place, value in enumerate(eqn.outputs):
            comes = place in carries if meaning.pairs else bool(carries)
            active = comes and is_number(value) and place not in meaning.choices
            active = active or value in self._explained
            made = next((d.integers for d in operands if d.integers is not None), None)
            if is_integer(value):
                made = made or eqn
            elif active:
                made = None
            found.append(Dependence(True, active, made))
        return found

    def join(self, a: Dependence, b: Dependence) -> Dependence:
        return Dependence(a.depends or b.depends, a.active or b.active, a.integers or b.integers)

    def chosen(self, fact: Dependence, index: Dependence) -> Dependence:
        return fact._replace(
            depends=fact.depends or index.depends, integers=fact.integers or index.integers
        )


class Activity:
    """Facts about a graph and the bodies in it, given its explained inputs.

    `depends`: the value changes with the explained inputs, in any way (also through integers,
    booleans and `stop_gradient`). `active`: it can receive relevance, as it depends on them through
    values that are carried on. An integer carries a value if it is made from an active number by a
    cast or by arithmetic. The result of a comparison, or a position (argmax, the indices of a
    sort), only chooses. `reached`: it is active, and read (directly or not) by an output from which
    relevance starts. At an explained value relevance stops, wherever it is in the graph. For a
    carry, each of the three is true in every iteration if it is true in one.
    """

    def __init__(self, graph: Graph, explained: Iterable[Value], outputs: Iterable[Value]):
        self.explained = frozenset(explained)
        # Operands that undo a linear layer's own divisor; they are held constant like parameters.
        self.held: dict[Eqn, int] = {}
        facts = {v: Dependence(True, True) for v in self.explained}
        solve(graph.eqns, _Forward(self.explained), facts)
        self.depends: set[Value] = {v for v, d in facts.items() if d.depends}
        self.active: set[Value] = {v for v, d in facts.items() if d.active}
        self._integers = {v: d.integers for v, d in facts.items() if d.integers is not None}
        self.reached: set[Value] = {v for v in outputs if v in self.active}
        spread_back(graph, self.reached, self._comes_from, self.active)

    def _comes_from(self, eqn: Eqn) -> Iterable[Value]:
        for value in eqn.outputs:
            if value in self.reached and value not in self.explained:
                return self.active_inputs(eqn)
        return ()

    def active_inputs(self, eqn: Eqn) -> list[Value]:
        """The distinct active inputs that an equation carries on, in order."""
        if eqn.bodies:
            return list(dict.fromkeys(v for v in eqn.inputs if v in self.active))
        held, active = self.held.get(eqn), self.active
        values = [v for v in eqn.inputs if v in active]
        if values and (held is not None or row(eqn.name).chooses):
            carried = [eqn.inputs[i] for i in carrying(eqn) if i != held]
            values = [v for v in carried if v in active]
        return list(dict.fromkeys(values)) if len(values) > 1 else values

    def held_in(self, eqns: Iterable[Eqn]) -> tuple[tuple[Eqn, int], ...]:
        """The held operands of some equations."""
        return tuple((e, self.held[e]) for e in eqns if e in self.held)

    def integers(self, value: Value) -> Eqn | None:
        """The equation that makes the integers through which a value depends on the input."""
        return self._integers.get(value)

    def is_reached(self, eqn: Eqn) -> bool:
        """Whether relevance arrives at the equation and has somewhere to go."""
        for value in eqn.outputs:
            if value in self.reached and value not in self.explained:
                return bool(self.active_inputs(eqn))
        return False


def _is_times_zero(eqn: Eqn) -> bool:
    """A product with a zero that is written in the program: the start of a recurrence."""
    return eqn.name == "mul" and any(_is_zero(v) for v in eqn.inputs)


def _is_zero(value: Value) -> bool:
    while (eqn := value.producer) is not None:
        if eqn.name not in ("broadcast_in_dim", "convert_element_type", "copy"):
            return False
        value = eqn.inputs[0]
    return isinstance(value, Literal) and bool(value.val == 0)


def is_integer(value: Value) -> bool:
    dtype = getattr(value.aval, "dtype", None)
    return dtype is not None and bool(jnp.issubdtype(dtype, jnp.integer))


def is_number(value: Value) -> bool:
    """Whether a value may carry relevance: floating, complex or integer, but not boolean."""
    return is_inexact(value) or is_integer(value)


def is_inexact(value: Value) -> bool:
    dtype = getattr(value.aval, "dtype", None)
    return dtype is not None and bool(jnp.issubdtype(dtype, jnp.inexact))
