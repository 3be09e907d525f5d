"""The numbers by which a program multiplies, which a change of sign or a scale may cancel."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import numpy as np

from jaxlrp.graph.groups import Workbench
from jaxlrp.graph.ir import Eqn, Literal, Value
from jaxlrp.graph.primitives import ADDITIONS, COPIES, LINEAR_CORES, MOVES, sums_nothing

_MOST = 30  # equations that are searched
_FALLING = frozenset("erfc rsqrt acos".split())
_RISING = COPIES | frozenset(
    """exp exp2 expm1 log log1p tanh logistic erf sqrt cbrt atan asinh sinh floor ceil round
    max min clamp""".split()
)
_PASSED = MOVES | COPIES | {"stop_gradient"}


def factor_of(bench: Workbench, eqn: Eqn) -> float:
    """The written number by which an equation multiplies its active operand.

    For a learned factor it is the number that is written beside it.
    """
    if eqn.name == "neg":
        return -1.0
    if eqn.name == "sub":
        return -1.0 if eqn.inputs[1] in bench.activity.active else 1.0
    static = [v for v in eqn.inputs if v not in bench.activity.active]
    if eqn.name not in ("mul", "div") or len(static) != 1:
        return 1.0
    number = factor_in(bench, static[0])
    if number > 0.0 and bench.intervals[static[0]][1] < 0.0:
        number = -number
    if number == 0.0:
        return 1.0
    return number if eqn.name == "mul" else 1.0 / number


def factor_in(bench: Workbench, value: Value, most: int = _MOST) -> float:
    """The number that is written beside a static value: -1 of `-w`, 0.5 of `(0.5 * w).T`."""
    number = bench.intervals.constant(value)
    if not bench.statics.parameters(value):
        return 1.0 if number is None else number
    eqn = value.producer
    if eqn is None and value.outer is not None and not bench.facts.places.is_varying(value):
        return factor_in(bench, value.outer, most - 1) if most else 1.0  # passed to a body
    if eqn is None or most == 0:
        return 1.0
    if eqn.name == "neg":
        return -factor_in(bench, eqn.inputs[0], most - 1)
    if eqn.name in ("mul", "div", "dot_general"):
        a, b = (factor_in(bench, v, most // 2) for v in eqn.inputs)
        if a == 0.0 or b == 0.0:
            return 1.0
        return a / b if eqn.name == "div" else a * b
    if eqn.name == "sub" and bench.intervals.constant(eqn.inputs[0]) == 0.0:
        return -factor_in(bench, eqn.inputs[1], most - 1)
    if eqn.name in _PASSED and len(eqn.inputs) == 1:
        return factor_in(bench, eqn.inputs[0], most - 1)
    return 1.0


class Written(NamedTuple):
    """The numbers within a value that a change of sign or a scale may cancel.

    Attributes:
      numbers: the numbers beside its weights, beside its input, and in between.
      falls: whether its input is a decreasing function of another value.
    """

    numbers: tuple[float, ...] = ()
    falls: bool = False


NOTHING_WRITTEN = Written()


def falls(bench: Workbench, value: Value) -> bool:
    """Whether a value is a decreasing function of another, by a chain of monotone functions.

    -relu(h) is one; -min(-h, 0) is not, as its signs cancel.
    """
    turned = False
    for _ in range(_MOST):
        eqn = value.producer
        if eqn is None or value in bench.activity.explained or not bench.is_open(eqn):
            break
        depends = [v for v in eqn.inputs if v in bench.activity.depends]
        if len(depends) != 1:
            break
        scales = eqn.name in {"neg", "mul", "div"} | ADDITIONS
        under = eqn.name == "div" and eqn.inputs[1] is depends[0]
        if eqn.name in _FALLING or under or (scales and factor_of(bench, eqn) < 0.0):
            turned = not turned
        elif not scales and eqn.name not in _RISING:
            break
        (value,) = depends
    return turned


def is_turned(value: Value, varying: Collection[Value]) -> bool:
    """Whether a value is a product with a sign written within it, beside its weights or input.

    A change of sign after it then belongs to it. So it does if the input is a decreasing function.
    `varying` are the values that are not static.
    """
    turned = crossed = summed = bent = falls = False
    for _ in range(_MOST):
        eqn = value.producer
        moving = [v for v in dict.fromkeys(eqn.inputs) if v in varying] if eqn else []
        if eqn is None or eqn.bodies or len(moving) != 1:
            break
        moves = eqn.name in MOVES or sums_nothing(eqn)
        if eqn.name in LINEAR_CORES | {"reduce_sum"} and not moves and (crossed or summed):
            break
        if eqn.name == "reduce_sum" and not moves:  # of a product written as multiply and sum
            summed, value = True, moving[0]
            continue
        if summed and not moves:
            if eqn.name != "mul":
                break
            summed, crossed = False, True
        if crossed and eqn.name == "neg" and is_turned(moving[0], varying):
            break  # it belongs to the layer before
        scales = eqn.name in {"mul", "div", "neg"} | ADDITIONS | LINEAR_CORES
        bends = not scales and not moves and eqn.name not in COPIES
        if bends and not (crossed and eqn.name in _RISING | _FALLING):
            break
        under = eqn.name in ("div", "sub") and eqn.inputs[1] is moving[0]
        flips = under or eqn.name == "neg" or eqn.name in _FALLING
        if scales and eqn.name not in ADDITIONS:
            flips ^= any(is_negated(v) for v in eqn.inputs if v is not moving[0])
        shift = eqn.name in ADDITIONS and any(isinstance(v, Literal) for v in eqn.inputs)
        reciprocal = under and eqn.name == "div"  # decreasing, unlike 1 / (1 + exp(-x))
        bent = bent or (crossed and (shift or bends or reciprocal))
        if bent:
            falls ^= flips
        else:
            turned ^= flips
        crossed = crossed or eqn.name in LINEAR_CORES
        (value,) = moving
    return crossed and (turned or falls)


def is_turned_sum(value: Value, varying: Collection[Value]) -> bool:
    """Whether a value is a sum whose first varying term is subtracted: `-a - c`."""
    turned = joined = False
    for _ in range(_MOST):
        eqn = value.producer
        if eqn is None or not (eqn.name in ADDITIONS | COPIES or eqn.name == "neg"):
            break
        moving = [v for v in eqn.inputs if v in varying]
        if not moving:
            break
        joined = joined or len(moving) > 1
        under = eqn.name == "sub" and moving[0] is not eqn.inputs[0]
        turned ^= under or eqn.name == "neg"
        value = moving[0]
    return joined and turned


def is_negated(value: Value) -> bool:
    """Whether a static value is written with a sign."""
    turned = False
    for _ in range(_MOST):
        eqn = value.producer
        if isinstance(value, Literal):
            return turned ^ bool(np.all(np.asarray(value.val) < 0))
        if eqn is None and value.outer is not None:
            value = value.outer  # of a body: a value that is fed back into it is not static
            continue
        if eqn is None:
            return turned
        if eqn.name == "neg" or eqn.name in _PASSED:
            turned ^= eqn.name == "neg"
            value = eqn.inputs[0]
        elif eqn.name in ("mul", "div"):
            turned ^= any(is_negated(v) for v in eqn.inputs if isinstance(v, Literal))
            value = next((v for v in eqn.inputs if not isinstance(v, Literal)), eqn.inputs[0])
        else:
            return turned
    return turned
