"""Changes of sign are moved to where one cancels another; only exact rewrites are made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

from jaxlrp.graph.affine_signs import below_zero, moves_one, opposite
from jaxlrp.graph.ir import Eqn, Graph, Literal, Value
from jaxlrp.graph.new_equations import alike, made
from jaxlrp.graph.primitives import ADDITIONS
from jaxlrp.graph.written_numbers import is_turned, is_turned_sum


class Signs:
    """The changes of sign of a graph whose values in `varying` are not static.

    Attributes:
      left: signs, sums and products that may have lost their readers.
    """

    def __init__(self, varying: Collection[Value]):
        self._varying = varying
        self._readers: Counter[Value] = Counter()
        self.left: list[Eqn] = []

    def count_readers(self, graph: Graph) -> None:
        self._readers.update(graph.outputs)
        for eqn in graph.eqns:
            self._readers.update(eqn.inputs)

    def read_instead(self, eqn: Eqn, values: Sequence[Value]) -> None:
        """Count the readers of an equation that was dropped as those of other values."""
        self._readers.subtract(eqn.inputs)
        for old, new in zip(eqn.outputs, values, strict=True):
            self._readers[new] += self._readers[old]

    def undone(self, eqn: Eqn) -> Value | None:
        """The value before two changes of sign, unless the first one belongs to a layer."""
        maker = eqn.inputs[0].producer if eqn.name == "neg" else None
        if maker is None or maker.name != "neg" or isinstance(maker.inputs[0], Literal):
            return None
        if self._readers[maker.out] > 1:  # a value of its own: its readers are functions of it
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
            if (turned := self._within_layer(eqn)) is not None:
                return turned
            if self._is_sum(maker):
                return self._into_terms(eqn, maker)
            if self._is_join(maker):
                return self._into_parts(eqn, maker)
            # A scaled value with another reader is a value of its own, and keeps its number.
            scaled = self._is_scaled(maker) and self._readers[maker.out] == 1
            into = self._is_product(maker) or scaled
            return self._into_a_factor(eqn, maker) if into else None
        if self._is_product(eqn):
            return self._out_of_product(eqn)
        return self._out_of_number(eqn) if eqn.name in ("mul", "div") else None

    def _within_layer(self, sign: Eqn) -> list[Eqn] | None:
        """`-(-h * g - b)` is `h * g + b`."""
        found = opposite(sign.inputs[0], self._varying, self._readers, sign.out)
        if found is None or not found[0]:
            return None
        self._leave(sign.inputs[0])
        return found[0]

    def _out_of_number(self, eqn: Eqn) -> list[Eqn] | None:
        """`h * -1` is `-h`, and `(-h - b) * -2` is `(h + b) * 2`."""
        places = (1,) if eqn.name == "div" else (0, 1)
        place = next((i for i in places if below_zero(eqn.inputs[i]) is not None), None)
        if place is None or (value := eqn.inputs[1 - place]) not in self._varying:
            return None
        number = below_zero(eqn.inputs[place])
        assert number is not None
        if number.val == 1:
            return [made("neg", [value], eqn, eqn.out)[0]]
        found = opposite(value, self._varying, self._readers)
        if found is None:
            return None
        self._leave(value)
        factors: list[Value] = [found[1], number] if place == 1 else [number, found[1]]
        return [*found[0], alike(eqn, factors, eqn.out)[0]]

    def _leave(self, value: Value) -> None:
        """Note that the equation of a value that now has another form may have lost its readers."""
        while (eqn := value.producer) is not None and value in self._varying:
            self.left.append(eqn)
            if eqn.name == "neg":
                break
            value = next(v for v in eqn.inputs if v in self._varying)

    def _of_difference(self, eqn: Eqn) -> list[Eqn] | None:
        """`x - a @ -w` is `x + -(a @ -w)`."""
        a, b = eqn.inputs
        if b not in self._varying or not is_turned(b, self._varying):
            return None
        sign, b = made("neg", [b], eqn)
        return [sign, made("add", [a, b], eqn, eqn.out)[0]]

    def _into_terms(self, sign: Eqn, total: Eqn) -> list[Eqn] | None:
        """A sign after a sum goes to its terms, if it cancels one in each that it reaches."""
        if not self._cancels(total.out):
            return None
        self.left.append(total)
        a, b = total.inputs
        turned, a = made("neg", [a], sign)
        signs = [turned]
        if total.name == "add":
            turned, b = made("neg", [b], sign)
            signs.append(turned)
        return [*signs, made("add", [a, b], sign, sign.out)[0]]

    def _into_parts(self, sign: Eqn, joined: Eqn) -> list[Eqn] | None:
        """A sign after joined, or moved, values goes to each part, if it cancels one in some."""
        if not self._cancels(joined.out) or not self._has_parts(joined):
            return None
        self.left.append(joined)
        signs, parts = zip(*(made("neg", [v], sign, Value(v.aval)) for v in joined.inputs))
        return [*signs, alike(joined, list(parts), sign.out)[0]]

    def _cancels(self, value: Value, most: int = 8) -> bool:
        """Whether each term, or some part, that a change of sign would reach has one in it."""
        eqn = value.producer
        if eqn is None or value not in self._varying or most == 0:
            return False
        if self._is_join(eqn) and self._has_parts(eqn):
            return any(self._cancels(v, most - 1) for v in eqn.inputs)
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
        turned, factors[place] = alike(sign, [factors[place]])
        return [turned, alike(product, factors, sign.out)[0]]

    def _out_of_product(self, eqn: Eqn) -> list[Eqn] | None:
        """`(-a) * b` is `-(a * b)`, unless the sign cancels one within a."""
        turns = [m for v in eqn.inputs if (m := v.producer) is not None and m.name == "neg"]
        leave = {m.out: m.inputs[0] for m in turns if not self._turned(m.inputs[0])}
        if not leave:
            return None
        self.left += (m for m in turns if m.out in leave)
        factors = [leave.get(v, v) for v in eqn.inputs]
        if sum(v in leave for v in eqn.inputs) == 2:
            return [alike(eqn, factors, eqn.out)[0]]
        product, value = alike(eqn, factors)
        sign = next(m for m in turns if m.out in leave)
        return [product, alike(sign, [value], eqn.out, at=eqn)[0]]

    def _is_sum(self, eqn: Eqn) -> bool:
        return eqn.name in ADDITIONS and all(v in self._varying for v in eqn.inputs)

    def _is_join(self, eqn: Eqn) -> bool:
        """Whether an equation joins values, or moves a single one."""
        alone = moves_one(eqn) and len(eqn.outputs) == 1
        joins = eqn.name == "concatenate" and all(v in self._varying for v in eqn.inputs)
        return joins or (alone and eqn.inputs[0] in self._varying)

    def _has_parts(self, eqn: Eqn | None, most: int = 8) -> bool:
        """Whether several values were joined, before moves of the whole."""
        while eqn is not None and self._is_join(eqn) and len(eqn.inputs) == 1 and most:
            eqn, most = eqn.inputs[0].producer, most - 1
        return eqn is not None and eqn.name == "concatenate" and self._is_join(eqn)

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
    """Whether a value is never positive by its own maximum: `-min(-h, 0)` is a ReLU."""
    eqn = value.producer
    if eqn is None or eqn.name != "min":
        return False
    return any(isinstance(v, Literal) and v.ndim == 0 and float(v.val) <= 0 for v in eqn.inputs)
