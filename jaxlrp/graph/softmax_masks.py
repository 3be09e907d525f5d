"""Softmaxes of which a mask may shut whole rows."""

from __future__ import annotations

import math

from jaxlrp.graph.activity import is_inexact
from jaxlrp.graph.groups import Group, Workbench
from jaxlrp.graph.ir import Value
from jaxlrp.graph.particulars import Softmax
from jaxlrp.graph.primitives import COPIES, ELEMENTWISE, MOVES
from jaxlrp.graph.softmax import OF_LOGARITHMS


def find(bench: Workbench) -> None:
    """Remember the logits of a softmax only if a mask may make them -inf."""
    for group in bench.groups:
        logits = group.particulars_as(Softmax).logits
        if logits is not None:
            shut = _may_be_shut(bench, logits)
            rows = _rows(group, logits) if shut else ()
            proven = group.particulars_as(Softmax).shares
            group.particulars = Softmax(logits if shut else None, rows, proven)


def _rows(group: Group, logits: Value) -> tuple[int, ...]:
    """The axes that a softmax sums over, if each weight stands where its logit stands."""
    if group.eqns[-1].name in OF_LOGARITHMS:
        return ()
    size, sums = math.prod(logits.shape), set[tuple[int, ...]]()
    for eqn in group.eqns:
        if all(math.prod(v.shape) < size for v in eqn.inputs):
            if eqn.name == "reduce_sum":
                return ()  # over several axes, in steps
            continue  # of the sums and maxima
        if eqn.name == "reduce_sum":
            sums.add(tuple(eqn.params["axes"]))
        elif eqn.name not in ELEMENTWISE | COPIES | {"reduce_max", "stop_gradient", "select_n"}:
            return ()
    return sums.pop() if len(sums) == 1 else ()


def _may_be_shut(bench: Workbench, logits: Value) -> bool:
    """Whether logits may be -inf by a mask: chosen, or added, from a static value."""
    value = logits
    while (eqn := value.producer) is not None:
        dependent = [v for v in eqn.inputs if v in bench.activity.depends and is_inexact(v)]
        static = [v for v in eqn.inputs if v not in dependent and is_inexact(v)]
        if len(dependent) != 1 or eqn.name not in MOVES | COPIES | {
            "select_n",
            "add",
            "mul",
            "div",
        }:
            return False
        if eqn.name in ("select_n", "add") and any(
            bench.intervals[v][0] == -math.inf for v in static
        ):
            return True
        value = dependent[0]
    return False
