"""Changes of sign are moved to where one cancels another; only exact rewrites are made."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from jaxlrp.graph.ir import Eqn, Literal, Value
from jaxlrp.graph.primitives import ADDITIONS
from jaxlrp.graph.reordered_value import operation
from jaxlrp.graph.written_numbers import is_turned, is_turned_sum


class Signs:
    """The changes of sign of a graph whose values in `varying` are not static.

    Attributes:
      left: signs, sums and products that may have lost their readers.
    """

    def __init__(self, varying: Collection[Value]):
        self._varying = varying
        self.left: list[Eqn] = []

    def undone(self, eqn: Eqn) -> Value | None:
        """The value before two changes of sign, unless the first one belongs to a layer."""
        maker = eqn.inputs[0].producer if eqn.name == "neg" else None
        if maker is None or maker.name != "neg" or isinstance(maker.inputs[0], Literal):
            return None
        inner = maker.inputs[0]
        return None if is_turned(inner, self._varying) else inner

    def moved(self, eqn: Eqn) -> list[Eqn] | None:
        """The equations of a sum, product, or its sign, with changes of sign where they may cancel.

        None if nothing moves.
        """
        if eqn.name == "sub":
            return self._of_difference(eqn)
        if eqn.name == "neg":
            maker = eqn.inputs[0].producer
            if maker is None:
                return None
            if self._is_sum(maker):
                return self._into_terms(eqn, maker)
            scaled = self._is_product(maker) or self._is_scaled(maker)
            return self._into_a_factor(eqn, maker) if scaled else None
        return self._out_of_product(eqn) if self._is_product(eqn) else None

    def _of_difference(self, eqn: Eqn) -> list[Eqn] | None:
        """`x - a @ -w` is `x + -(a @ -w)`."""
        a, b = eqn.inputs
        if b not in self._varying or not is_turned(b, self._varying):
            return None
        sign, b = _made("neg", [b], eqn)
        return [sign, _made("add", [a, b], eqn, eqn.out)[0]]

    def _into_terms(self, sign: Eqn, total: Eqn) -> list[Eqn] | None:
        """A sign after a sum goes to its terms, if it cancels one in each that it reaches."""
        if not self._cancels(total.out):
            return None
        self.left.append(total)
        a, b = total.inputs
        turned, a = _made("neg", [a], sign)
        signs = [turned]
        if total.name == "add":
            turned, b = _made("neg", [b], sign)
            signs.append(turned)
        return [*signs, _made("add", [a, b], sign, sign.out)[0]]

    def _cancels(self, value: Value, most: int = 8) -> bool:
        """Whether a sum has a change of sign in each term that one after it would reach."""
        eqn = value.producer
        if eqn is None or value not in self._varying or most == 0:
            return False
        if not self._is_sum(eqn):
            return eqn.name == "neg" or is_turned(value, self._varying)
        reached = eqn.inputs[:1] if eqn.name == "sub" else eqn.inputs
        return all(self._cancels(v, most - 1) for v in reached)

    def _into_a_factor(self, sign: Eqn, product: Eqn) -> list[Eqn] | None:
        """A sign after a product goes to the factor within which it cancels one."""
        place = next((i for i, v in enumerate(product.inputs) if self._turned(v)), None)
        if place is None:
            return None
        self.left.append(product)
        factors = list(product.inputs)
        turned, factors[place] = _alike(sign, [factors[place]])
        return [turned, _alike(product, factors, sign.out)[0]]

    def _out_of_product(self, eqn: Eqn) -> list[Eqn] | None:
        """`(-a) * b` is `-(a * b)`, unless the sign cancels one within a."""
        turns = [m for v in eqn.inputs if (m := v.producer) is not None and m.name == "neg"]
        leave = {m.out: m.inputs[0] for m in turns if not self._turned(m.inputs[0])}
        if not leave:
            return None
        self.left += (m for m in turns if m.out in leave)
        factors = [leave.get(v, v) for v in eqn.inputs]
        if sum(v in leave for v in eqn.inputs) == 2:
            return [_alike(eqn, factors, eqn.out)[0]]
        product, value = _alike(eqn, factors)
        sign = next(m for m in turns if m.out in leave)
        return [product, _alike(sign, [value], eqn.out, at=eqn)[0]]

    def _is_sum(self, eqn: Eqn) -> bool:
        return eqn.name in ADDITIONS and all(v in self._varying for v in eqn.inputs)

    def _is_product(self, eqn: Eqn) -> bool:
        return eqn.name in ("mul", "div") and all(v in self._varying for v in eqn.inputs)

    def _is_scaled(self, eqn: Eqn) -> bool:
        """Whether an equation multiplies by a number that is written."""
        scales = eqn.name == "mul" or (eqn.name == "div" and eqn.inputs[0] in self._varying)
        return scales and any(isinstance(v, Literal) for v in eqn.inputs)

    def _turned(self, value: Value) -> bool:
        """Whether a change of sign after a value cancels one within it."""
        turned = is_turned(value, self._varying) or is_turned_sum(value, self._varying)
        return turned or _is_capped(value)


def _is_capped(value: Value) -> bool:
    """Whether a value is nowhere positive by its own maximum: `-min(-h, 0)` is a ReLU."""
    eqn = value.producer
    if eqn is None or eqn.name != "min":
        return False
    return any(isinstance(v, Literal) and v.ndim == 0 and float(v.val) <= 0 for v in eqn.inputs)


def _alike(
    eqn: Eqn, inputs: list[Value], out: Value | None = None, at: Eqn | None = None
) -> tuple[Eqn, Value]:
    """The same operation on other operands, in the place of an equation; and its result."""
    return _equation(eqn.prim, eqn.params, inputs, at or eqn, out)


def _made(name: str, inputs: list[Value], at: Eqn, out: Value | None = None) -> tuple[Eqn, Value]:
    """An arithmetic operation in the place of an equation; and its result."""
    return _equation(*operation(name), inputs, at, out)


def _equation(
    prim: Any, params: dict[str, Any], inputs: list[Value], at: Eqn, out: Value | None
) -> tuple[Eqn, Value]:
    out = Value(at.out.aval) if out is None else out
    new = Eqn(prim, params, inputs, [out], at.scope, at.source_info, at.call)
    out.producer, out.index = new, 0
    return new, out
