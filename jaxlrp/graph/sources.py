"""The single values of which a value is an elementwise function."""

from __future__ import annotations

from collections.abc import Iterable

from jaxlrp.graph.affine import affine_operand, is_written
from jaxlrp.graph.groups import Workbench
from jaxlrp.graph.ir import Eqn, Value
from jaxlrp.graph.primitives import ELEMENTWISE

# At most so many equations of an activation are searched, so that planning stays near-linear.
_MOST = 40


def sources(bench: Workbench, value: Value) -> list[Value]:
    """The value itself, and every single active value of its shape from which it is made.

    The nearest is first. Equations that a linear layer may hold are not searched.
    """
    found, frontier = [value], {value}
    for _ in range(_MOST):
        latest = max(frontier, key=_order)
        eqn = latest.producer
        if eqn is None or latest in bench.activity.explained or not _may_be_inside(bench, eqn):
            break
        frontier.remove(latest)
        frontier.update(v for v in eqn.inputs if v in bench.activity.depends)
        if len(frontier) == 1:
            (only,) = frontier
            if only in bench.activity.active and only.shape == value.shape:
                found.append(only)
    return found


def common(lists: Iterable[list[Value]]) -> Value | None:
    """The nearest value that is in all lists."""
    first, *others = lists
    return next((v for v in first if all(v in other for other in others)), None)


def _may_be_inside(bench: Workbench, eqn: Eqn) -> bool:
    elementwise = eqn.name in ELEMENTWISE or eqn.name == "stop_gradient"
    return elementwise and bench.free(eqn) and not is_learned(bench, eqn)


def is_learned(bench: Workbench, eqn: Eqn) -> bool:
    """Whether an equation scales or shifts by an array that is learned."""
    return affine_operand(bench, eqn) is not None and not is_written(bench, eqn)


def _order(value: Value) -> int:
    return -1 if value.producer is None else value.producer.order
