"""Bounds of the cases of a select by its predicate: where(v > 0, v, 0) is never negative."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from jaxlrp.graph.ir import Eqn, Value
from jaxlrp.graph.ranges import EVERYTHING, Interval, Look, hull, meet

_COMPARISONS = frozenset("eq ne gt ge lt le".split())
_MIRRORED = {"lt": "gt", "gt": "lt", "le": "ge", "ge": "le"}
# The place of each axis of an origin in the value that is made from it.
Place = tuple[Value, tuple[int, ...]]


def select(eqn: Eqn, look: Look) -> Interval:
    """Bounds of the cases that may be taken, each refined by the predicate."""
    pred, *cases = eqn.inputs
    low, high = look(pred)
    options = []
    for index, case in enumerate(cases):
        if not low <= index <= high:
            continue
        bounds: Interval | None = look(case)
        if len(cases) == 2:
            bounds = _refined(case, look(case), pred, index == 1, look)
        if bounds is not None:
            options.append(bounds)
    return hull(options) if options else EVERYTHING


def _refined(
    case: Value, bounds: Interval, pred: Value, taken: bool, look: Look
) -> Interval | None:
    """Bounds of a case, given the predicate; None if it is never taken."""
    test, places = _origin(pred)
    eqn = test.producer
    if eqn is None or eqn.name not in _COMPARISONS:
        return bounds
    for one, other, name in (
        (eqn.inputs[0], eqn.inputs[1], eqn.name),
        (eqn.inputs[1], eqn.inputs[0], _MIRRORED.get(eqn.name, eqn.name)),
    ):
        if not _same_elements(_beneath(one, places), _origin(case)):
            continue
        low, high = look(other)
        if name in ("eq", "ne"):
            return meet(bounds, (low, high)) if (name == "eq") == taken else bounds
        above = (name in ("gt", "ge")) == taken
        return meet(bounds, (low, EVERYTHING[1]) if above else (EVERYTHING[0], high))
    return bounds


def _origin(value: Value) -> Place:
    """The value of which a value is an exact copy, and the places of its axes in the copy."""
    places = tuple(range(value.ndim))
    while (eqn := value.producer) is not None:
        if eqn.name == "broadcast_in_dim":
            dims = eqn.params["broadcast_dimensions"]
            value, places = eqn.inputs[0], tuple(places[d] for d in dims)
        elif _copies_exactly(eqn):
            value = eqn.inputs[value.index]
        else:
            break
    return value, places


def _beneath(operand: Value, places: tuple[int, ...]) -> Place:
    """The origin of a comparison's operand, in the axes of the select that reads it."""
    origin, inner = _origin(operand)
    if operand.ndim != len(places):  # a scalar beside an array
        return origin, () if not inner else (-1,) * len(inner)
    return origin, tuple(places[i] for i in inner)


def _same_elements(a: Place, b: Place) -> bool:
    if a[0] is not b[0]:
        return False
    wide = [i for i, n in enumerate(a[0].shape) if n != 1]
    return all(a[1][i] == b[1][i] for i in wide)


def _copies_exactly(eqn: Eqn) -> bool:
    if eqn.name == "convert_element_type":
        return holds_exactly(eqn.inputs[0].dtype, eqn.out.dtype)
    return eqn.name in ("copy", "copy_p", "name", "optimization_barrier", "stop_gradient")


def holds_exactly(old: Any, new: Any) -> bool:
    """Whether every number of one type is a number of another."""
    if old == new or jnp.issubdtype(old, jnp.bool_):
        return True
    if jnp.issubdtype(old, jnp.complexfloating) or jnp.issubdtype(new, jnp.complexfloating):
        return False
    if jnp.issubdtype(old, jnp.floating):
        if not jnp.issubdtype(new, jnp.floating):
            return False
        a, b = jnp.finfo(old), jnp.finfo(new)
        return b.nmant >= a.nmant and b.maxexp >= a.maxexp and b.minexp <= a.minexp
    if not jnp.issubdtype(old, jnp.integer):
        return False
    a = jnp.iinfo(old)
    if jnp.issubdtype(new, jnp.floating):
        return a.bits - (a.min < 0) <= jnp.finfo(new).nmant + 1
    if not jnp.issubdtype(new, jnp.integer):
        return False
    b = jnp.iinfo(new)
    return b.min <= a.min and a.max <= b.max
