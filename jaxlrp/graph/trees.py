"""Sums and products as flat lists: the tree of equations that makes a value, and its leaves.

A sum is a list of terms with signs, and a product is a list of factors with powers, whatever the
order and the number of equations in which the program adds and multiplies.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

from jaxlrp.graph.ir import Eqn, Value
from jaxlrp.graph.primitives import ADDITIONS, COPIES, is_view, rounds

Operand = tuple[Value, int]  # with its sign in a sum, its power in a product
Operands = Callable[[Eqn], "list[Operand] | None"]


@dataclasses.dataclass
class Tree:
    """Equations, the last one first, and their leaves, in the order of the program."""

    eqns: list[Eqn]
    leaves: list[Operand]

    def powers(self) -> Mapping[Value, int]:
        """How often each leaf is in the list; negative if it divides."""
        found: dict[Value, int] = {}
        for value, power in self.leaves:
            found[value] = found.get(value, 0) + power
        return found


def grow(root: Eqn, operands: Operands, inner: Callable[[Value, Eqn], Eqn | None]) -> Tree:
    """The tree that ends at `root`; `inner` returns the equation of an operand, if it belongs."""
    eqns, leaves = {root: None}, []
    stack = [(value, sign, root) for value, sign in reversed(operands(root) or [])]
    while stack:
        value, sign, reader = stack.pop()
        eqn = _member(value, reader, inner)
        parts_of = None if eqn is None else operands(eqn)
        if eqn is None or parts_of is None:
            leaves.append((value, sign))
            continue
        eqns[eqn] = None
        stack += [(v, sign * s, eqn) for v, s in reversed(parts_of)]
    return Tree(list(eqns), leaves)


def _member(value: Value, reader: Eqn, inner: Callable[[Value, Eqn], Eqn | None]) -> Eqn | None:
    """The equation that makes an operand; a copy only if the copied value belongs too."""
    first = eqn = inner(value, reader)
    while eqn is not None and is_copy(eqn):
        eqn = inner(eqn.inputs[0], eqn)
    return None if eqn is None else first


def factors(eqn: Eqn) -> list[Operand] | None:
    """The factors of an equation, each with its power."""
    if eqn.name in ("mul", "div"):
        first, second = eqn.inputs
        return [(first, 1), (second, 1 if eqn.name == "mul" else -1)]
    return [(eqn.inputs[0], 1)] if eqn.name == "neg" or is_copy(eqn) else None


def terms(eqn: Eqn) -> list[Operand] | None:
    """The terms of an equation, each with its sign."""
    if eqn.name in ADDITIONS:
        first, second = eqn.inputs
        return [(first, 1), (second, -1 if eqn.name == "sub" else 1)]
    if eqn.name == "neg":
        return [(eqn.inputs[0], -1)]
    if eqn.name == "concatenate":  # summed along its own axis: see `graph/stacks.py`
        return [(v, 1) for v in eqn.inputs]
    one = eqn.name == "reduce_sum" or is_copy(eqn) or is_view(eqn)
    return [(eqn.inputs[0], 1)] if one else None


def is_copy(eqn: Eqn) -> bool:
    """Whether an equation returns its first operand unchanged."""
    return eqn.name == "reordered" or (
        eqn.name in COPIES and not rounds(eqn) and len(eqn.inputs) == 1
    )
