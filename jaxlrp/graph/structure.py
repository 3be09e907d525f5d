"""What is left after the layers: moves, fixed linear maps, winners, bilinear products."""

from __future__ import annotations

from jaxlrp.graph.groups import Group, Workbench
from jaxlrp.graph.ir import Eqn
from jaxlrp.graph.primitives import (
    FIXED_LINEAR,
    LINEAR_CORES,
    MOVES,
    REDUCE_WINNERS,
    RUNNING_WINNERS,
    SCATTER_WINNERS,
    SORTS,
    WINDOW_WINNERS,
)

_WINNERS = REDUCE_WINNERS | WINDOW_WINNERS | RUNNING_WINNERS | SCATTER_WINNERS


def control_flow(bench: Workbench) -> list[Group]:
    """Claim the equations whose bodies relevance crosses."""
    found = []
    for eqn in bench.graph.eqns:
        if eqn.bodies and bench.is_open(eqn):
            active = [v for v in bench.activity.active_inputs(eqn) if v in bench.activity.reached]
            outputs = [v for v in eqn.outputs if v in bench.activity.active]
            found.append(bench.claim(Group("structural", [eqn], active, outputs, eqn)))
    return found


def find(bench: Workbench) -> None:
    for eqn in bench.eqns:
        if bench.is_open(eqn):
            kind, transport, note = _kind(bench, eqn)
            active = bench.activity.active_inputs(eqn)
            outputs = [v for v in eqn.outputs if v in bench.activity.active]
            group = Group(kind, [eqn], active, outputs, eqn, transport=transport, note=note)
            bench.claim(group)


def _kind(bench: Workbench, eqn: Eqn) -> tuple[str, str, str]:
    """Kind, how relevance is transported, and a remark for the plan."""
    name = eqn.name
    active = bench.activity.active
    if name in LINEAR_CORES:
        return "matmul", "linear", "both operands depend on the input"
    if name == "reduce_prod":
        return "product", "linear", "many factors"
    if name in _WINNERS:
        return "max_pool", "move", ""
    if name in SORTS:
        return "structural", "move", "relevance follows the permutation"
    if name in MOVES:
        return "structural", "move", ""
    if name == "select_n" and eqn.inputs[0] not in active:
        return "structural", "move", "relevance goes to the case that was taken"
    if name in FIXED_LINEAR:
        return "structural", "linear", "a fixed linear map"
    if name == "triangular_solve" and eqn.inputs[0] not in active:
        return "structural", "linear", "a linear map with static coefficients"
    if name in ("mul", "div", "add", "sub") and len(bench.activity.active_inputs(eqn)) == 1:
        return "affine", "linear", "the input is broadcast"
    return "unsupported", "linear", ""
