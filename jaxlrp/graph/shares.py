"""Whether the weights of a softmax are proven to be shares of a sum, in [0, 1].

A weight is at most 1 if it is divided by at least the sum that it is itself a term of. A mask or a
number below 1 on the sum alone is no such proof, nor is the sum of another row.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxlrp.graph.groups import Workbench
from jaxlrp.graph.ir import Eqn, Value
from jaxlrp.graph.primitives import COPIES, MOVES
from jaxlrp.graph.ranges import UNIT
from jaxlrp.graph.refine import holds_exactly

SEGMENT_SUMS = frozenset({"scatter-add", "scatter_add"})
_UNCHANGED = (MOVES | COPIES | {"stop_gradient", "reordered"}) - {"reduce_precision"}
# Whether a comparison of a positive total with 0 is true.
_OF_POSITIVE = {"eq": False, "ne": True, "gt": True, "ge": True, "lt": False, "le": False}
_TURNED = {"gt": "lt", "lt": "gt", "ge": "le", "le": "ge"}


class Total(NamedTuple):
    """A sum of exponentials: the `exp`, the value that it sums, and that of its last step."""

    exp: Eqn
    terms: Value
    out: Value


def of_quotient(
    bench: Workbench, numerator: Value, above: Eqn, divisor: Value, beside: Value, total: Total
) -> bool:
    """Whether `numerator / divisor` is a share, if both are aligned.

    `above` is the exponential in the numerator. `beside` is the divisor itself, or its reciprocal.
    """
    proof = _Proof(bench, total, numerator.dtype)
    maker = proof.unmoved(beside).producer
    divides = beside is divisor or (maker is not None and divisor in maker.inputs)
    return divides and proof.is_at_least(divisor) and proof.is_summed(numerator, above)


def of_logarithms(
    bench: Workbench,
    exp: Eqn,
    exponent: Value,
    log: Eqn,
    shift: Value | None,
    total: Total,
) -> bool:
    """Whether `exp(exponent - (log + shift))` is a share, if all are aligned.

    Here rounding does not keep the order, but in float32 what it adds to 1 is too small to matter.
    """
    proof = _Proof(bench, total, exp.out.dtype)
    if jnp.finfo(exp.out.dtype).bits < 32 or not proof.is_difference(exp, log, shift):
        return False
    if not proof.is_at_least(log.inputs[0]) or not proof.adds_up((total.exp.out,)):
        return False
    given = proof.unmoved(total.exp.inputs[0])
    if shift is None:
        return proof.unmoved(exponent) is given
    eqn = given.producer
    if eqn is None or eqn.name != "sub":
        return False
    return list(map(proof.unmoved, eqn.inputs)) == list(map(proof.unmoved, (exponent, shift)))


@dataclasses.dataclass(frozen=True)
class _Proof:
    """A proof for weights of one type.

    Rounding to it keeps the order of a term and its sum; a cast to a narrower type in between does
    not.
    """

    bench: Workbench
    total: Total
    dtype: Any

    def unmoved(self, value: Value) -> Value:
        """The value before moves and copies."""
        while (before := self._unchanged(value.producer)) is not None:
            value = before
        return value

    def is_difference(self, exp: Eqn, log: Eqn, shift: Value | None) -> bool:
        """Whether the argument of an exponential is a value minus `log + shift`, unrounded."""
        eqn = self.unmoved(exp.inputs[0]).producer
        if eqn is None or eqn.name != "sub":
            return False
        subtracted = self.unmoved(eqn.inputs[1])
        if shift is None:
            return subtracted is log.out
        eqn = subtracted.producer
        if eqn is None or eqn.name != "add":
            return False
        return {self.unmoved(v) for v in eqn.inputs} == {log.out, self.unmoved(shift)}

    def is_at_least(self, value: Value) -> bool:
        """Whether a value is at least the total, or positive where the total is 0."""
        eqn = value.producer
        if value is self.total.out or eqn is None:
            return value is self.total.out
        before = self._dependent(eqn) if eqn.name == "abs" else self._unchanged(eqn)
        if before is not None:
            return self.is_at_least(before)
        if eqn.name in ("add", "max", "mul") and len(eqn.inputs) == 2:
            pairs = (eqn.inputs, eqn.inputs[::-1])
            return any(self._grows(eqn, b) and self.is_at_least(a) for a, b in pairs)
        if eqn.name == "select_n" and len(eqn.inputs) == 3:
            case = self._case_of_positive(eqn.inputs[0])
            return case is not None and self.is_at_least(eqn.inputs[1 + case])
        return False

    def is_summed(self, numerator: Value, above: Eqn) -> bool:
        """Whether a numerator is a term of the total, or at most that."""
        value, reached = numerator, [numerator]
        while (eqn := value.producer) is not None and eqn is not above:
            before = self._unchanged(eqn) or self._lessened(eqn)
            if before is None:
                break
            value = before
            reached.append(value)
        if above.out in reached:  # which may be written twice
            reached.append(self.total.exp.out)
        return self.adds_up(reached)

    def adds_up(self, terms: Collection[Value]) -> bool:
        """Whether the total is the sum of one of the values, with no mask or weight in between."""
        value = self.total.out
        while value not in terms:
            eqn = value.producer
            if eqn is not None and eqn.name in SEGMENT_SUMS:
                before = eqn.inputs[2]
            elif eqn is not None and eqn.name == "reduce_sum":
                before = eqn.inputs[0]
            else:
                before = self._unchanged(eqn)
            if before is None:
                return False
            value = before
        return True

    def _unchanged(self, eqn: Eqn | None) -> Value | None:
        """The value of which an equation makes the same numbers, maybe at other places."""
        if eqn is None or eqn.name not in _UNCHANGED or len(eqn.outputs) != 1:
            return None
        if eqn.name == "convert_element_type" and not holds_exactly(self.dtype, eqn.out.dtype):
            return None
        return eqn.inputs[0] if eqn.name == "reordered" else self._dependent(eqn)

    def _dependent(self, eqn: Eqn) -> Value | None:
        depends = [v for v in dict.fromkeys(eqn.inputs) if v in self.bench.activity.depends]
        return depends[0] if len(depends) == 1 else None

    def _lessened(self, eqn: Eqn) -> Value | None:
        """The positive value that a static mask or weight makes smaller, or leaves as it is."""
        static = [v for v in eqn.inputs if v not in self.bench.activity.depends]
        if eqn.name == "select_n":
            (low, high), static = (0.0, 0.0), [v for v in static if v is not eqn.inputs[0]]
        elif eqn.name == "mul" and len(static) == 1:
            low, high = UNIT
        else:
            return None
        bounds = [self.bench.intervals[v] for v in static]
        within = all(low <= a and b <= high for a, b in bounds)
        return self._dependent(eqn) if within else None

    def _grows(self, eqn: Eqn, other: Value) -> bool:
        """Whether a positive value is not made smaller by the other operand of an equation."""
        low = self.bench.intervals[other][0]
        return eqn.name == "max" or low >= (1.0 if eqn.name == "mul" else 0.0)

    def _case_of_positive(self, predicate: Value) -> int | None:
        """The case that is taken where the total is positive; None if something else is asked."""
        while (eqn := predicate.producer) is not None and eqn.name in _UNCHANGED:
            predicate = eqn.inputs[0]
        if eqn is None or eqn.name not in _OF_POSITIVE:
            return None
        turned = _TURNED.get(eqn.name, eqn.name)
        for (value, bound), name in ((eqn.inputs, eqn.name), (eqn.inputs[::-1], turned)):
            zero = self.bench.intervals.constant(bound) == 0.0
            if zero and self.unmoved(value) is self.unmoved(self.total.out):
                return int(_OF_POSITIVE[name])
        return None
