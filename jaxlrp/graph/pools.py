"""The scales beside a sum that make it a mean."""

from __future__ import annotations

import math

from jaxlrp.graph import linear_region
from jaxlrp.graph.affine import affine_operand, is_written_scale
from jaxlrp.graph.groups import Workbench
from jaxlrp.graph.ir import Eqn, Value
from jaxlrp.graph.primitives import is_view
from jaxlrp.graph.written_numbers import factor_of


def divisors(bench: Workbench, total: Eqn) -> tuple[Value, list[Eqn], list[Eqn]]:
    """The value that is summed, and the static scales before and after it that make it a mean.

    They are as many as are needed to divide by the count. A further scale by a number stays
    outside, as after any layer. If no number of them divides by it, all belong to the sum.
    """
    before, after = _before(bench, total), _after(bench, total.out)
    goal = 1.0 / _count(total)
    if not math.isclose(math.prod(factor_of(bench, e) for e in before + after), goal):
        if (part := _as_far_as(bench, after, goal)) is not None:
            before, after = [], part
        elif (part := _as_far_as(bench, before[::-1], goal)) is not None:
            before, after = part[::-1], []
    if not linear_region.worth_folding(bench, before):
        return total.inputs[0], [], after
    (source,) = bench.activity.active_inputs(before[0])
    return source, before, after


def _count(total: Eqn) -> int:
    """How many elements each sum has."""
    if total.name == "reduce_window_sum":
        return math.prod(total.params["window_dimensions"])
    return max(1, total.inputs[0].size // max(1, total.out.size))


def _as_far_as(bench: Workbench, eqns: list[Eqn], goal: float) -> list[Eqn] | None:
    """The first of some scales whose product is a number, or that hold an array of counts."""
    factor = 1.0
    for place, eqn in enumerate(eqns):
        scales = eqn.name in ("mul", "div")
        static = [v for v in eqn.inputs if v not in bench.activity.active] if scales else []
        if any(bench.intervals.constant(v) is None for v in static):
            return eqns[: place + 1]
        factor *= factor_of(bench, eqn)
        if scales and math.isclose(factor, goal, rel_tol=1e-6):
            return eqns[: place + 1]
    return None


def _before(bench: Workbench, total: Eqn) -> list[Eqn]:
    """Scales by numbers before a sum, and the views between them."""
    chain: list[Eqn] = []
    kept, value = 0, total.inputs[0]
    while (eqn := value.producer) is not None and bench.is_open(eqn):
        if bench.sole_use(value) is None or value in bench.activity.explained:
            break
        scales = eqn.name in ("mul", "div") and is_written_scale(bench, eqn)
        if not scales and not is_view(eqn):
            break
        chain.append(eqn)
        (value,) = bench.activity.active_inputs(eqn)
        kept = len(chain) if scales else kept
    return chain[:kept][::-1]


def _after(bench: Workbench, start: Value) -> list[Eqn]:
    """Static scales after a sum, and the views between them."""

    def divides(eqn: Eqn) -> bool:
        if eqn.name not in ("mul", "div") or affine_operand(bench, eqn) is None:
            return False
        static = (v for v in eqn.inputs if v not in bench.activity.active)
        return not any(bench.statics.parameters(v) for v in static)

    return linear_region.after(bench, start, divides, is_view)
