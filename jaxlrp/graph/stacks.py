"""A stack of values that is summed along its own axis is the sum of these values."""

from __future__ import annotations

from jaxlrp.graph.groups import Workbench
from jaxlrp.graph.ir import Eqn, Value
from jaxlrp.graph.primitives import is_view


def is_stack_sum(bench: Workbench, total: Eqn) -> bool:
    """Whether an equation adds up several active values that were stacked for it alone."""
    if total.name != "reduce_sum" or len(total.params["axes"]) != 1:
        return False
    (axis,) = total.params["axes"]
    stack = total.inputs[0].producer
    if stack is None or not bench.is_open(stack) or bench.sole_use(stack.out) is not total:
        return False
    if stack.out in bench.activity.explained:
        return False
    active = bench.activity.active_inputs(stack)
    if len(active) < 2:
        return False
    along = stack.name == "concatenate" and stack.params["dimension"] == axis
    return along and all(_is_layer_of_stack(bench, stack, v, total.out) for v in active)


def stacked_terms(bench: Workbench, total: Eqn) -> list[Value]:
    """The values that were stacked and are added up, with a further axis; none for other sums."""
    if not is_stack_sum(bench, total):
        return []
    stack = total.inputs[0].producer
    assert stack is not None
    return list(bench.activity.active_inputs(stack))


def _is_layer_of_stack(bench: Workbench, stack: Eqn, piece: Value, out: Value) -> bool:
    """Whether a piece is a whole value with one more axis."""
    eqn = piece.producer
    if eqn is None or not bench.is_open(eqn) or not is_view(eqn):
        return False
    alone = bench.sole_use(piece) is stack and piece not in bench.activity.explained
    return alone and eqn.inputs[0].shape == out.shape
