"""An exponential that several softmaxes share is computed once for each of them.

`e = exp(u)`, `e / e.sum(0)` and `e / e.sum(1)` are two softmaxes of u, and a layer has equations of
its own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from jaxlrp.graph.ir import Eqn, Value
from jaxlrp.graph.new_equations import alike
from jaxlrp.graph.primitives import ADDITIONS, COPIES, LINEAR_CORES, MOVES

_SUMS = LINEAR_CORES | {"reduce_sum"}
_OF_MAXIMA = MOVES | COPIES | {"stop_gradient", "reduce_max", "max"}
_MOST = 10  # equations between a sum and the division


def with_own_exponentials(eqns: Sequence[Eqn]) -> list[Eqn]:
    """Equations in which softmaxes over different axes share no exponential."""
    readers: dict[Value, list[Eqn]] = defaultdict(list)
    for eqn in eqns:
        for value in dict.fromkeys(eqn.inputs):
            readers[value].append(eqn)
    kept: list[Eqn] = []
    for eqn in eqns:
        kept.append(eqn)
        if eqn.name not in ("exp", "exp2"):
            continue
        moved = _moved(eqn.out, readers)
        for total, shares in list(_softmaxes(moved, readers).items())[1:]:
            argument = _shifted_again(eqn.inputs[0], kept)
            copy, own = alike(eqn, [argument], at=eqn)
            kept.append(copy)
            again = {eqn.out: own}
            for reader in (total, *shares):
                reader.inputs = [
                    _moved_again(v, again, kept) if v in moved else v for v in reader.inputs
                ]
    return kept


def _moved(value: Value, readers: dict[Value, list[Eqn]]) -> dict[Value, None]:
    """A value, and what moves and copies make of it alone."""
    found = {value: None}
    ahead = [value]
    while ahead:
        for eqn in readers[ahead.pop()]:
            if eqn.name in MOVES | COPIES and len(eqn.inputs) == len(eqn.outputs) == 1:
                found[eqn.out] = None
                ahead.append(eqn.out)
    return found


def _moved_again(value: Value, again: dict[Value, Value], made: list[Eqn]) -> Value:
    """The same moves of another exponential."""
    if value not in again:
        eqn = value.producer
        assert eqn is not None
        copy, again[value] = alike(eqn, [_moved_again(eqn.inputs[0], again, made)], at=eqn)
        made.append(copy)
    return again[value]


def _softmaxes(moved: dict[Value, None], readers: dict[Value, list[Eqn]]) -> dict[Eqn, list[Eqn]]:
    """For each sum of an exponential, the quotients of the exponential and that sum."""
    found: dict[Eqn, list[Eqn]] = defaultdict(list)
    for eqn in dict.fromkeys(e for v in moved for e in readers[v]):
        if eqn.name == "div" or eqn.name == "mul":
            first = eqn.inputs[0] in moved
            total = _sum_within(eqn.inputs[1 if first else 0])
            summed = total is not None and not moved.keys().isdisjoint(total.inputs)
            if total is not None and summed and (first or eqn.name == "mul"):
                found[total].append(eqn)
    return found


def _sum_within(value: Value) -> Eqn | None:
    """The sum within a divisor or its reciprocal, before moves and further terms."""
    for _ in range(_MOST):
        eqn = value.producer
        if eqn is None or eqn.name in _SUMS:
            return eqn
        if eqn.name not in MOVES | COPIES | ADDITIONS | {"div", "integer_pow"}:
            return None
        value = eqn.inputs[1 if eqn.name == "div" else 0]
    return None


def _shifted_again(argument: Value, made: list[Eqn]) -> Value:
    """The argument of another exponential: the shift by a maximum is part of a softmax."""
    eqn = argument.producer
    if eqn is None or eqn.name != "sub":
        return argument
    value, shift = eqn.inputs
    copy, own = alike(eqn, [value, _maximum_again(shift, made)], at=eqn)
    made.append(copy)
    return own


def _maximum_again(value: Value, made: list[Eqn]) -> Value:
    """A value that is made of maxima, from other equations; any other value as it is."""
    eqn = value.producer
    if eqn is None or eqn.bodies or eqn.name not in _OF_MAXIMA:
        return value
    inputs = [_maximum_again(v, made) for v in eqn.inputs]
    if eqn.name != "reduce_max" and inputs == eqn.inputs:
        return value
    copy, own = alike(eqn, inputs, at=eqn)
    made.append(copy)
    return own
