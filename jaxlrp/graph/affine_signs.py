"""A change of sign after scales and shifts that cancels one within them.

`-(-h * g - b)` is `h * g + b`: a layer of its own has no core whose region could tell that the two
belong together, and an activation beside it would take either.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from jaxlrp.graph.ir import Eqn, Literal, Value
from jaxlrp.graph.new_equations import alike, made
from jaxlrp.graph.primitives import ADDITIONS, MOVES, sums_nothing
from jaxlrp.graph.written_numbers import is_negated, is_turned

_MOST = 30  # equations that are searched


def opposite(
    value: Value,
    varying: Collection[Value],
    readers: Mapping[Value, int],
    out: Value | None = None,
    most: int = _MOST,
) -> tuple[list[Eqn], Value] | None:
    """Equations without a change of sign whose result is the opposite of a value; and the result.

    None if no sign within its scales and shifts would cancel one after it. A value with another
    reader is a layer of its own, and is left unchanged.

    Args:
      value: the value.
      varying: the values that are not static.
      readers: how many equations read each value.
      out: the value that the last equation makes.
      most: the largest number of equations to search.
    """
    eqn = value.producer
    places = [i for i, v in enumerate(eqn.inputs) if v in varying] if eqn else []
    if eqn is None or len(places) != 1 or len(eqn.outputs) != 1 or eqn.bodies or not most:
        return None
    (place,) = places
    inner = eqn.inputs[place]
    if eqn.name == "neg":
        return None if is_turned(inner, varying) else ([], inner)
    if readers.get(value, 0) > 1:
        return None
    if eqn.name == "sub" and place == 1:
        if _is_number(eqn.inputs[0]):  # 1 - z is a gate, z - 1 is not
            return None
        new, result = alike(eqn, eqn.inputs[::-1], out)
        return [new], result
    if eqn.name in ("mul", "div") and (eqn.name == "mul" or place == 0):
        static = eqn.inputs[1 - place]
        if is_negated(static) and not is_turned(inner, varying):
            signs, static = _opposite_of_static(static, eqn)
            factors = [inner, static] if place == 0 else [static, inner]
            new, result = alike(eqn, factors, out)
            return [*signs, new], result
    elif eqn.name not in ADDITIONS and not moves_one(eqn):
        return None
    turned = opposite(inner, varying, readers, None, most - 1)
    if turned is None:
        return None
    eqns, inner = turned
    if eqn.name in ADDITIONS:
        name = "add" if eqn.name == "sub" else "sub"
        new, result = made(name, [inner, eqn.inputs[1 - place]], eqn, out)
    else:
        operands = list(eqn.inputs)
        operands[place] = inner
        new, result = alike(eqn, operands, out)
    return [*eqns, new], result


def below_zero(value: Value) -> Literal | None:
    """The opposite of a real number that is written and negative."""
    if not isinstance(value, Literal) or value.ndim > 0 or np.iscomplexobj(value.val):
        return None
    return Literal(value.aval, -value.val) if value.val < 0 else None


def moves_one(eqn: Eqn) -> bool:
    """Whether an equation moves elements of one value, and nothing else."""
    return (eqn.name in MOVES and len(eqn.inputs) == 1) or sums_nothing(eqn)


def _is_number(value: Value) -> bool:
    while (eqn := value.producer) is not None and moves_one(eqn):
        (value,) = eqn.inputs
    return isinstance(value, Literal)


def _opposite_of_static(value: Value, at: Eqn) -> tuple[list[Eqn], Value]:
    number = below_zero(value)
    if number is not None:
        return [], number
    sign, result = made("neg", [value], at, Value(value.aval))
    return [sign], result
