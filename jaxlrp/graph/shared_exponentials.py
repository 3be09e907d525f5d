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
        for total, shares in list(_softmaxes(eqn, readers[eqn.out]).items())[1:]:
            shift: list[Eqn] = []
            argument = _shifted_again(eqn.inputs[0], shift)
            copy, own = alike(eqn, [argument], at=eqn)
            kept += [*shift, copy]
            for reader in (total, *shares):
                reader.inputs = [own if v is eqn.out else v for v in reader.inputs]
    return kept


def _softmaxes(exp: Eqn, readers: Sequence[Eqn]) -> dict[Eqn, list[Eqn]]:
    """For each sum of an exponential, the quotients of the exponential and that sum."""
    found: dict[Eqn, list[Eqn]] = defaultdict(list)
    for eqn in readers:
        if eqn.name == "div" or eqn.name == "mul":
            first = eqn.inputs[0] is exp.out
            total = _sum_within(eqn.inputs[1 if first else 0])
            if total is not None and total in readers and (first or eqn.name == "mul"):
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
