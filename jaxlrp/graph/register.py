"""Primitives of users: a row of the table, from a description by keywords."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from jaxlrp import compat
from jaxlrp.errors import InputError
from jaxlrp.graph import layout, ranges, spreads
from jaxlrp.graph.families import Row, row
from jaxlrp.graph.primitives import enter, is_known


def register_primitive(
    primitive: compat.Primitive | str,
    *,
    like: compat.Primitive | str | None = None,
    moves: bool | None = None,
    linear: bool | None = None,
    elementwise: bool | None = None,
    keeps_sign: bool | None = None,
    bounds: tuple[float, float] | Callable[..., tuple[float, float]] | None = None,
) -> None:
    """Register the meaning of a primitive of your own, so that relevance can pass it.

    A primitive that is linear or moves elements needs a derivative and a transpose, as for
    `jax.vjp`. Functions that were planned before are planned anew.

    Args:
      primitive: a `jax.extend.core.Primitive`, or its name.
      like: a primitive of JAX (or its name) with the same meaning; it must have the same operands
        and, if it has parameters, these too. Further arguments state the differences.
      moves: every output element is one element of an operand, or a constant: relevance follows the
        elements.
      linear: it is linear in each of its operands by itself. With one operand that depends on the
        input it is a linear layer, whose weights are the floating operands beside it; every linear
        rule applies.
      elementwise: each output element depends on one element of each operand. With one operand that
        depends on the input it is an activation: relevance passes it.
      keeps_sign: operands without negative entries give outputs without negative entries.
      bounds: the least and the largest value of its outputs; or a function that returns such a
        pair, given one for each operand.

    Raises:
      InputError: no meaning was given, or the meaning contradicts itself.

    Examples:
      >>> import jaxlrp as lrp
      >>> lrp.register_primitive("my_swish", elementwise=True)
      >>> lrp.register_primitive("my_hard_tanh", like="tanh")
    """
    name = _name_of(primitive)
    meanings = {"moves": moves, "linear": linear, "elementwise": elementwise}
    given = [k for k, v in meanings.items() if v]
    if len(given) > 1:
        raise InputError(
            f"register_primitive({name!r}): {' and '.join(given)} exclude each other; give "
            "one of them."
        )
    if like is None and not given and keeps_sign is None and bounds is None:
        raise InputError(
            f"register_primitive({name!r}) was given no meaning: give like=, moves=, linear=, "
            "elementwise=, keeps_sign= or bounds=."
        )
    made = row(name)
    if like is not None:
        if not is_known(_name_of(like)):
            raise InputError(
                f"register_primitive({name!r}): like={_name_of(like)!r} is not a known primitive; "
                "give one of jax.lax, or its name."
            )
        made = row(_name_of(like))
    if given:
        made = dataclasses.replace(_MEANINGS[given[0]], bounds=made.bounds, ulps=made.ulps)
    if keeps_sign is not None:
        made = dataclasses.replace(made, bounds=spreads.keeps_sign if keeps_sign else None)
    if bounds is not None:
        made = dataclasses.replace(made, bounds=_bounds_of(name, bounds))
    enter(name, made)


_MEANINGS = {
    "moves": Row(frozenset({"move"}), parts=True),
    "linear": Row(frozenset({"core"})),
    "elementwise": Row(frozenset({"unary"}), layout=layout.elementwise),
}


def _name_of(primitive: Any) -> str:
    name = primitive if isinstance(primitive, str) else getattr(primitive, "name", None)
    if not isinstance(name, str) or not (
        isinstance(primitive, str) or compat.is_primitive(primitive)
    ):
        raise InputError(
            f"{primitive!r} is not a primitive: give a jax.extend.core.Primitive or its name."
        )
    return name


def _bounds_of(name: str, bounds: Any) -> ranges.Transfer:
    if callable(bounds):
        made: Any = bounds
        return ranges.of(made)
    try:
        low, high = (float(b) for b in bounds)
    except (TypeError, ValueError):
        low, high = 1.0, 0.0
    if not low <= high:
        raise InputError(
            f"register_primitive({name!r}): bounds={bounds!r}; expected a pair (least, largest) or "
            "a function that makes one from the pairs of the operands."
        )
    return ranges.always((low, high))
