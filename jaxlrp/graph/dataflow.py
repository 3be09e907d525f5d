"""One solver for facts about values: along the equations, through bodies, around loops.

A `Flow` describes the facts: those of an equation's output, given those of its operands, and those
that hold where paths meet. The solver handles how values enter and leave bodies. It repeats the
body of a loop until the facts about its carry hold before and after every iteration.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Generic, TypeVar

from jaxlrp.graph import control_flow
from jaxlrp.graph.ir import Eqn, Graph, Value

F = TypeVar("F")


class Flow(Generic[F]):
    """Facts of one sort, propagated from the inputs."""

    def start(self, value: Value) -> F:
        """The facts about a value that is not made by an equation."""
        raise NotImplementedError

    def transfer(self, eqn: Eqn, look: Callable[[Value], F]) -> Sequence[F]:
        """Facts about the outputs of an equation without bodies."""
        raise NotImplementedError

    def join(self, a: F, b: F) -> F:
        """The facts about a value that is one of two."""
        raise NotImplementedError

    def widen(self, old: F, new: F, turn: int) -> F:
        """The facts to try next for a carry that changed in an iteration; this must terminate."""
        return new

    def enter(self, eqn: Eqn, fact: F, inside: Value) -> F:
        """The fact about the input of a body, given that about the operand passed to it."""
        return fact

    def leave(self, eqn: Eqn, fact: F, inside: Value, outside: Value) -> F:
        """The fact about the output outside, given that about the output of a body."""
        return fact

    def chosen(self, fact: F, index: F) -> F:
        """The fact about an output of a branch, given that about the index of the branch."""
        return fact


def solve(eqns: Iterable[Eqn], flow: Flow[F], known: dict[Value, F]) -> None:
    """Add the facts about the results of all equations to `known`."""

    def look(value: Value) -> F:
        return known[value] if value in known else flow.start(value)

    for eqn in eqns:
        if eqn.bodies:
            _through_bodies(eqn, flow, known, look)
        else:
            known.update(zip(eqn.outputs, flow.transfer(eqn, look), strict=True))


def _through_bodies(
    eqn: Eqn, flow: Flow[F], known: dict[Value, F], look: Callable[[Value], F]
) -> None:
    found: dict[Value, F] = {}
    for body in eqn.bodies:
        for outside, inside in control_flow.operands(eqn, body):
            known[inside] = flow.enter(eqn, look(outside), inside)
        back = control_flow.feedback(eqn, body)
        turn, changed = 0, True
        while changed:
            solve(body.eqns, flow, known)
            changed = False
            for after, before in back:
                old = known[before]
                new = flow.join(old, look(after))
                if new != old:
                    known[before], changed = flow.widen(old, new, turn), True
            turn += 1
        begins = dict(back) if _may_be_skipped(eqn) else {}
        for inside, outside in control_flow.results(eqn, body):
            fact = look(inside)
            if inside in begins:  # without iterations the carry is returned as it is
                fact = flow.join(fact, known[begins[inside]])
            fact = flow.leave(eqn, fact, inside, outside)
            if eqn.name == "cond":
                fact = flow.chosen(fact, look(eqn.inputs[0]))
            found[outside] = flow.join(found[outside], fact) if outside in found else fact
    known.update(found)


def _may_be_skipped(eqn: Eqn) -> bool:
    return eqn.name == "scan" and control_flow.scan_length(eqn) == 0


def spread_back(
    graph: Graph, marked: set[Value], step: Callable[[Eqn], Iterable[Value]], allowed: set[Value]
) -> None:
    """Add to `marked` the values from which marked ones come, through bodies and around loops.

    `step` returns the operands of an equation to mark, given the values that are marked so far.
    Values outside `allowed` are not marked.
    """
    for eqn in reversed(graph.eqns):
        if not eqn.bodies:
            marked.update(step(eqn))
            continue
        for body in eqn.bodies:
            found = {i for i, o in control_flow.results(eqn, body) if o in marked}
            while True:
                marked.update(found & allowed)
                spread_back(body, marked, step, allowed)
                back = control_flow.feedback(eqn, body)
                found = {o for o, i in back if i in marked and o not in marked}
                if not found & allowed:
                    break
            pairs = control_flow.operands(eqn, body)
            marked.update(o for o, i in pairs if i in marked and o in allowed)


class Origins:
    """The values from which values are made, across bodies and iterations."""

    def __init__(self, graph: Graph):
        self._carried: dict[Value, Value] = {}  # a body's input: its value in the next iteration
        for inner in control_flow.graphs(graph):
            for eqn in inner.eqns:
                for body in eqn.bodies:
                    self._carried.update((b, a) for a, b in control_flow.feedback(eqn, body))

    def before(self, value: Value) -> Iterator[Value]:
        """The values from which a value is made directly."""
        eqn = value.producer
        if eqn is None:
            if value.outer is not None:
                yield value.outer
            if value in self._carried:
                yield self._carried[value]
        elif eqn.bodies:
            yield from (
                o for b in eqn.bodies for o, out in control_flow.results(eqn, b) if out is value
            )
            if eqn.name == "cond":
                yield eqn.inputs[0]
        else:
            yield from eqn.inputs
