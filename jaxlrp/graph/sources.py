"""Of which single values a value is an elementwise function."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from jaxlrp.graph.activity import Activity
from jaxlrp.graph.ir import Eqn, Value
from jaxlrp.graph.primitives import ELEMENTWISE

# Of an activation's equations so many are looked at: planning stays near-linear.
_MOST = 40


def sources(facts: Activity, value: Value, is_layer: Callable[[Eqn], bool]) -> list[Value]:
    """The value itself, and every active one of its shape from which alone it is made.

    The nearest first. What a linear layer holds (`is_layer`) is not looked through.
    """
    found, frontier = [value], {value}
    for _ in range(_MOST):
        latest = max(frontier, key=_order)
        eqn = latest.producer
        elementwise = eqn is not None and (eqn.name in ELEMENTWISE or eqn.name == "stop_gradient")
        if eqn is None or not elementwise or latest in facts.explained or is_layer(eqn):
            break
        frontier.remove(latest)
        frontier.update(v for v in eqn.inputs if v in facts.depends)
        if len(frontier) == 1:
            (only,) = frontier
            if only in facts.active and only.shape == value.shape:
                found.append(only)
    return found


def common(lists: Iterable[list[Value]]) -> Value | None:
    """The nearest value that is in all lists."""
    first, *others = lists
    return next((v for v in first if all(v in other for other in others)), None)


def _order(value: Value) -> int:
    return -1 if value.producer is None else value.producer.order
