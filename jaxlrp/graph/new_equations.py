"""Equations that take the place of others."""

from __future__ import annotations

from typing import Any

from jaxlrp import compat
from jaxlrp.graph.ir import Eqn, Value
from jaxlrp.graph.reordered_value import operation


def alike(
    eqn: Eqn, inputs: list[Value], out: Value | None = None, at: Eqn | None = None
) -> tuple[Eqn, Value]:
    """The same operation on other operands, in the place of an equation; and its result."""
    return _equation(eqn.prim, eqn.params, inputs, at or eqn, out)


def made(name: str, inputs: list[Value], at: Eqn, out: Value | None = None) -> tuple[Eqn, Value]:
    """An arithmetic operation in the place of an equation; and its result."""
    return _equation(*operation(name), inputs, at, out)


def _equation(
    prim: Any, params: compat.Params, inputs: list[Value], at: Eqn, out: Value | None
) -> tuple[Eqn, Value]:
    out = Value(at.out.aval) if out is None else out
    new = Eqn(prim, params, inputs, [out], at.scope, at.source_info, at.call)
    out.producer, out.index = new, 0
    return new, out
