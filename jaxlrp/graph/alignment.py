"""Whether a value that was reduced and broadcast again is still aligned with its source."""

from __future__ import annotations

from typing import Literal

from jaxlrp.graph.ir import Eqn, Value
from jaxlrp.graph.layout import unit_reshape
from jaxlrp.graph.primitives import COPIES, ELEMENTWISE, REDUCTIONS

# Per axis: the axis of the origin along which it runs, None if it is constant.
Labels = tuple[int | None, ...]
_PARTS = frozenset("slice dynamic_slice gather rev split concatenate pad sort top_k".split())

_SAME = ELEMENTWISE | COPIES | {"stop_gradient", "reordered"}


def aligned(a: Value, origin_a: Value, b: Value, origin_b: Value) -> bool | None:
    """Whether `b` runs along the same axes as `a`, or is constant there; None if it is unknown.

    Each is followed back to its origin, and the two origins have one shape. The result is also
    False if `b` holds only a part of the origin, or a part in another order.
    """
    of_a, of_b = _labels(a, origin_a, {}), _labels(b, origin_b, {})
    if of_b == "part":
        return False
    if isinstance(of_a, str) or isinstance(of_b, str) or len(of_a) != len(of_b):
        return None
    return all(y is None or x == y for x, y in zip(of_a, of_b, strict=True))


def reduced_axes(value: Value, origin: Value) -> frozenset[int] | None:
    """The axes of `origin` that no axis of `value` runs along; None if it is unknown."""
    labels = _labels(value, origin, {})
    if isinstance(labels, str):
        return None
    return frozenset(i for i, n in enumerate(origin.shape) if n != 1) - frozenset(labels)


def runs_alike(value: Value, origin: Value) -> bool:
    """Whether a value has the elements of its origin at their places."""
    same = tuple(i if n != 1 else None for i, n in enumerate(origin.shape))
    return _labels(value, origin, {}) == same


def _labels(
    value: Value, origin: Value, known: dict[Value, Labels | Literal["part", "unknown"]]
) -> Labels | Literal["part", "unknown"]:
    if value not in known:
        known[value] = _found(value, origin, known)
    return known[value]


def _found(value: Value, origin: Value, known) -> Labels | Literal["part", "unknown"]:
    if value is origin:
        return tuple(i if n != 1 else None for i, n in enumerate(value.shape))
    eqn = value.producer
    if eqn is None:
        return (None,) * value.ndim
    carried = eqn.inputs[:1] if eqn.name == "reordered" else eqn.inputs
    before = [_labels(v, origin, known) for v in carried]
    if "part" in before:
        return "part"
    if "unknown" in before:
        return "unknown"
    labels = [b for b in before if not isinstance(b, str)]
    if not any(any(x is not None for x in b) for b in labels):
        return (None,) * value.ndim
    if eqn.name in _PARTS:
        return "part"
    return _through(eqn, labels) if len(eqn.outputs) == 1 else "unknown"


def _through(eqn: Eqn, labels: list[Labels]) -> Labels | Literal["unknown"]:
    old, new = eqn.inputs[0].shape, eqn.out.shape
    first = labels[0]
    if eqn.name == "transpose":
        return tuple(first[i] for i in eqn.params["permutation"])
    if eqn.name == "broadcast_in_dim":
        places = dict(zip(eqn.params["broadcast_dimensions"], first, strict=True))
        return tuple(places.get(i) for i in range(len(new)))
    if eqn.name in ("reshape", "squeeze", "expand_dims"):
        moved = unit_reshape(old, new)
        if moved is None:
            return "unknown"
        back = {j: first[i] for i, j in moved.items()}
        return tuple(back.get(i) for i in range(len(new)))
    if eqn.name in REDUCTIONS and "axes" in eqn.params:
        return tuple(x for i, x in enumerate(first) if i not in eqn.params["axes"])
    if eqn.name in _SAME:
        merged: list[int | None] = []
        for axis in range(len(new)):
            found = {b[axis] for b in labels if len(b) == len(new)} - {None}
            if len(found) > 1:
                return "unknown"
            merged.append(next(iter(found), None))
        return tuple(merged)
    return "unknown"
