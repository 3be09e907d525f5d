"""Control flow: the correspondence of values in a body and values outside it.

A scan's body has the inputs (constants, carry, one slice of each sequence) and the outputs (carry,
one slice of each stacked result); its carry feeds back. A cond has one body for each branch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from jaxlrp import compat
from jaxlrp.graph.ir import Eqn, Graph, Value

Pair = tuple[Value, Value]


def operands(eqn: Eqn, body: Graph) -> list[Pair]:
    """Pairs of an operand outside and the body's input to which it is passed."""
    outside = eqn.inputs[1:] if eqn.name == "cond" else eqn.inputs
    return list(zip(outside, body.inputs, strict=True))


def results(eqn: Eqn, body: Graph) -> list[Pair]:
    """Pairs of the body's output and the output outside."""
    return list(zip(body.outputs, eqn.outputs, strict=True))


def feedback(eqn: Eqn, body: Graph) -> list[Pair]:
    """Pairs of the body's output and the input that it is in the next iteration."""
    if eqn.name != "scan":
        return []
    start, n = scan_parts(eqn, body)
    return list(zip(body.outputs[:n], body.inputs[start : start + n], strict=True))


def scan_parts(eqn: Eqn, body: Graph) -> compat.ScanParts:
    """How many operands of a scan are constants, and how many start its carry."""
    lists = (eqn.inputs, eqn.outputs, body.inputs, body.outputs)
    return compat.scan_parts(*([v.ndim for v in values] for values in lists))


def scan_length(eqn: Eqn) -> int:
    """The number of iterations of a scan."""
    return compat.scan_settings(eqn.params)["length"]


def bind_operands(eqn: Eqn) -> None:
    """Record for the inputs of bodies the corresponding values outside."""
    for body in eqn.bodies:
        first_slice = sum(scan_parts(eqn, body)) if eqn.name == "scan" else len(eqn.inputs)
        for number, (outside, inside) in enumerate(operands(eqn, body)):
            inside.outer = outside
            inside.sliced = number >= first_slice


def graphs(graph: Graph) -> Iterator[Graph]:
    """A graph and all bodies in it, outer ones first."""
    yield graph
    for eqn in graph.eqns:
        for body in eqn.bodies:
            yield from graphs(body)


def free_values(eqn: Eqn) -> list[Value]:
    """Constants that bodies read from outside without an operand."""
    found: dict[Value, None] = {}
    for body in eqn.bodies:
        for inner in graphs(body):
            made = {v for e in inner.eqns for v in e.outputs} | set(inner.inputs)
            read: Iterable[Value] = (v for e in inner.eqns for v in e.inputs)
            found.update(dict.fromkeys(v for v in read if v not in made and v.outer is None))
            found.update(dict.fromkeys(v for v in inner.outputs if v not in made))
    return [v for v in found if type(v) is Value]
