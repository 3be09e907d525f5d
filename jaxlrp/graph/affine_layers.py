"""Scales and shifts that do not fold into a neighbour: layers of their own."""

from __future__ import annotations

import functools

from jaxlrp.graph import linear_region
from jaxlrp.graph.affine import affine_operand, is_move, is_written_scale
from jaxlrp.graph.groups import Group, Workbench
from jaxlrp.graph.ir import Eqn, Value
from jaxlrp.graph.particulars import Linear
from jaxlrp.graph.primitives import COPIES
from jaxlrp.graph.written_numbers import Written, factor_of


def find(bench: Workbench) -> None:
    """Find chains of scales and shifts that no neighbour took."""
    for eqn in bench.eqns:
        if bench.is_open(eqn) and affine_operand(bench, eqn) is not None:
            _claim(bench, eqn)


def _claim(bench: Workbench, first: Eqn) -> None:
    """Claim a chain of scales and shifts that no neighbour took, with the moves between them."""
    position = affine_operand(bench, first)
    assert position is not None
    source, chain = _region(bench, first, first.inputs[position])
    kind = "affine"
    if all(is_written_scale(bench, e) or is_move(bench, e) for e in chain):
        kind, source, chain = "structural", first.inputs[position], _number_scale(bench, first)
    linear = Linear(None, position, (), tuple(chain), True, transport="scale")
    bench.claim(Group(kind, chain, [source], [chain[-1].out], first, linear))


def _number_scale(bench: Workbench, first: Eqn) -> list[Eqn]:
    """A chain of scales by numbers, which passes relevance on element for element."""
    chain = [first]
    while (eqn := bench.sole_use(chain[-1].out)) is not None and bench.is_open(eqn):
        if eqn.name not in COPIES and not is_written_scale(bench, eqn):
            break
        chain.append(eqn)
    return chain


def _region(bench: Workbench, first: Eqn, operand: Value) -> tuple[Value, list[Eqn]]:
    """The region in which an equation is the first scale or shift, and the value before it.

    It may begin before moves, if parts are scaled separately there and joined again.
    """

    def belongs(eqn: Eqn) -> bool:
        # A written scale at the end is left to its reader, as after any linear layer.
        return affine_operand(bench, eqn) is not None and not is_written_scale(bench, eqn)

    def after(value: Value, *factors: float, within: bool) -> list[Eqn]:
        moves = functools.partial(is_move, bench)
        return linear_region.after(bench, value, belongs, moves, Written(factors), within)

    source = operand
    while (maker := source.producer) is not None and source not in bench.activity.explained:
        active = bench.activity.active_inputs(maker)
        if not bench.is_open(maker) or not is_move(bench, maker) or len(active) != 1:
            break
        (source,) = active
        parted = len(maker.outputs) > 1 or len(bench.reached_uses(source)) > 1
        if parted and first in (eqns := after(source, within=False)):
            return source, eqns
    return operand, [first, *after(first.out, factor_of(bench, first), within=True)]
