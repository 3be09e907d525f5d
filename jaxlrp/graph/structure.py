"""The equations outside other layers: moves, fixed linear maps, winners, bilinear products."""

from __future__ import annotations

from jaxlrp.graph.activity import is_integer
from jaxlrp.graph.affine import is_mask
from jaxlrp.graph.groups import Group, Workbench
from jaxlrp.graph.ir import Eqn
from jaxlrp.graph.particulars import Move, Product
from jaxlrp.graph.primitives import (
    BITS,
    FIXED_LINEAR,
    LINEAR_CORES,
    MOVES,
    REDUCE_WINNERS,
    RUNNING_WINNERS,
    SCATTER_WINNERS,
    SORTS,
    WINDOW_WINNERS,
    rounds,
    sums_nothing,
)

# These have another meaning for integers than for floats.
_UNLIKE_FLOATS = BITS | {"div", "rem"}
_PAIRS = frozenset({"max", "min"})
_WINNERS = REDUCE_WINNERS | WINDOW_WINNERS | RUNNING_WINNERS | SCATTER_WINNERS | _PAIRS


def control_flow(bench: Workbench) -> list[Group]:
    """Claim the equations whose bodies relevance crosses."""
    found = []
    for eqn in bench.graph.eqns:
        if eqn.bodies and bench.is_open(eqn):
            active = [v for v in bench.activity.active_inputs(eqn) if v in bench.activity.reached]
            outputs = [v for v in eqn.outputs if v in bench.activity.active]
            found.append(bench.claim(Group("structural", [eqn], active, outputs, eqn)))
    return found


def claim_integers(bench: Workbench) -> None:
    """Claim nonlinear equations on integers that carry a value: no fold may hold them.

    Divisions round. Operations on bits do not keep the value, and have no rule.
    """
    for eqn in bench.eqns:
        if eqn.name not in _UNLIKE_FLOATS or not bench.is_open(eqn):
            continue
        if not (is_integer(eqn.inputs[0]) or eqn.name == "bitcast_convert_type"):
            continue
        active = bench.activity.active_inputs(eqn)
        outputs = [v for v in eqn.outputs if v in bench.activity.active]
        if eqn.name in BITS:
            note = "keeps bits, not values"
            bench.claim(Group("unsupported", [eqn], active, outputs, eqn, note=note))
        elif eqn.name in ("div", "rem") and eqn.inputs[0] in active and len(active) == 1:
            bench.claim(Group("activation", [eqn], active, outputs, eqn, note="rounds"))


def note_integers(bench: Workbench) -> None:
    """Note layers that read a value which depends on the input through integers that choose."""
    for group in bench.groups:
        makers = (bench.activity.integers(v) for v in group.outside)
        eqn = next((m for m in makers if m is not None), None)
        if eqn is not None:
            note = f"depends on the input through integers at {eqn.source}"
            group.note = f"{group.note}; {note}" if group.note else note


def find(bench: Workbench) -> None:
    for eqn in bench.eqns:
        if bench.is_open(eqn) and rounds(eqn):
            active = bench.activity.active_inputs(eqn)
            bench.claim(Group("activation", [eqn], active, [eqn.out], eqn, note="rounds"))
        elif bench.is_open(eqn):
            kind, particulars, note = _kind(bench, eqn)
            active = bench.activity.active_inputs(eqn)
            outputs = [v for v in eqn.outputs if v in bench.activity.active]
            bench.claim(Group(kind, [eqn], active, outputs, eqn, particulars, note=note))


def _kind(bench: Workbench, eqn: Eqn) -> tuple[str, Product | Move | None, str]:
    """Kind, particulars, and a remark for the plan."""
    name = eqn.name
    active = bench.activity.active
    if name in LINEAR_CORES:
        return "matmul", Product(), "both operands depend on the input"
    if name in ("reduce_prod", "cumprod"):
        return "product", Product(), "many factors"
    if name in ("triangular_solve", "custom_linear_solve"):
        if any(v in active for v in eqn.inputs[: _n_coefficients(eqn)]):
            return "unsupported", None, ""
        return "structural", Move("linear"), "a linear map with static coefficients"
    if name in _WINNERS:
        return "max_pool", Move("move"), ""
    if name in SORTS:
        return "structural", Move("move"), "relevance follows the permutation"
    if name in MOVES or name == "reordered" or sums_nothing(eqn):
        return "structural", Move("move"), ""
    if name == "select_n" and eqn.inputs[0] not in active:
        return "structural", Move("move"), "relevance goes to the case that was taken"
    if is_mask(bench, eqn):
        return "structural", Move("move"), "an added mask"
    if name in FIXED_LINEAR:
        return "structural", Move("linear"), "a fixed linear map"
    if name in ("mul", "div", "add", "sub") and len(bench.activity.active_inputs(eqn)) == 1:
        return "affine", None, "the input is broadcast"
    return "unsupported", None, ""


def _n_coefficients(eqn: Eqn) -> int:
    """How many operands of a solver are coefficients of its equations."""
    return 1 if eqn.name == "triangular_solve" else sum(eqn.params["const_lengths"])
