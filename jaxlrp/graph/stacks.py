"""A stack of values that is summed along its own axis is the sum of these values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from jaxlrp.graph.groups import Workbench
from jaxlrp.graph.ir import Eqn, Value
from jaxlrp.graph.new_equations import alike
from jaxlrp.graph.primitives import is_view


def with_own_pieces(eqns: Sequence[Eqn], outputs: Sequence[Value]) -> list[Eqn]:
    """Equations in which a stack that is summed shares the views of its pieces with no other.

    `x[None]` may be a piece of the stack and, written alike, an operand of a product.
    """
    readers = Counter(v for eqn in eqns for v in eqn.inputs) + Counter(outputs)
    sums = {(e.inputs[0], *e.params["axes"]) for e in eqns if e.name == "reduce_sum"}
    kept: list[Eqn] = []
    for eqn in eqns:
        if eqn.name == "concatenate" and (eqn.out, eqn.params["dimension"]) in sums:
            for place, piece in enumerate(eqn.inputs):
                maker = piece.producer
                if readers[piece] > 1 and maker is not None and is_view(maker):
                    copy, own = alike(maker, list(maker.inputs), at=maker)
                    kept.append(copy)
                    eqn.inputs = [*eqn.inputs[:place], own, *eqn.inputs[place + 1 :]]
        kept.append(eqn)
    return kept


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
    """Whether a piece is a whole value with one more axis, or what a loop returns so."""
    eqn = piece.producer
    if eqn is None:
        return False
    if eqn.bodies:
        return piece.shape[stack.params["dimension"]] == 1
    alone = bench.sole_use(piece) is stack and piece not in bench.activity.explained
    whole = bench.is_open(eqn) and is_view(eqn) and eqn.inputs[0].shape == out.shape
    return alone and whole
