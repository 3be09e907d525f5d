"""Whether the weights of a softmax are proven to be shares of a sum, in [0, 1].

A weight is at most 1 if it is divided by at least the sum that it is itself a term of. A mask or a
number below 1 on the sum alone is no such proof, nor is the sum of another row.
"""

from __future__ import annotations

from typing import NamedTuple

from jaxlrp.graph.alignment import aligned
from jaxlrp.graph.groups import Workbench
from jaxlrp.graph.ir import Eqn, Value
from jaxlrp.graph.primitives import COPIES, MOVES
from jaxlrp.graph.ranges import UNIT

SEGMENT_SUMS = frozenset({"scatter-add", "scatter_add"})
_UNCHANGED = MOVES | COPIES | {"stop_gradient", "reordered"}
# Whether a comparison of a positive total with 0 is true.
_OF_POSITIVE = {"eq": False, "ne": True, "gt": True, "ge": True, "lt": False, "le": False}
_TURNED = {"gt": "lt", "lt": "gt", "ge": "le", "le": "ge"}


class Total(NamedTuple):
    """A sum of exponentials: the `exp`, the value that it sums, and that of its last step."""

    exp: Eqn
    terms: Value
    out: Value


def of_quotient(
    bench: Workbench, numerator: Value, above: Eqn, divisor: Value, total: Total
) -> bool:
    """Whether `numerator / divisor` is a share; `above` is the exponential in the numerator."""
    return _is_at_least(bench, divisor, total.out) and _is_summed(bench, numerator, above, total)


def of_logarithms(
    bench: Workbench, exponent: Value, log: Eqn, total: Total, shift: Value | None
) -> bool:
    """Whether `exp(exponent - (log + shift))` is a share, if all are aligned."""
    if not _is_at_least(bench, log.inputs[0], total.out) or not _adds_up(bench, total):
        return False
    given = _unmoved(bench, total.exp.inputs[0])
    if shift is None:
        return _unmoved(bench, exponent) is given
    eqn = given.producer
    if eqn is None or eqn.name != "sub":
        return False
    pairs = zip(eqn.inputs, (exponent, shift), strict=True)
    return all(_unmoved(bench, a) is _unmoved(bench, b) for a, b in pairs)


def are_aligned(numerator: Value, above: Eqn, divisor: Value, total: Total) -> bool:
    return aligned(numerator, above.out, divisor, total.exp.out) is True


def only_moves(bench: Workbench, value: Value, source: Value) -> bool:
    """Whether a value is the source, unchanged but for its places."""
    return _unmoved(bench, value) is _unmoved(bench, source)


def _unmoved(bench: Workbench, value: Value) -> Value:
    while (eqn := value.producer) is not None and eqn.name in _UNCHANGED:
        before = _dependent(bench, eqn)
        if before is None:
            break
        value = before
    return value


def _dependent(bench: Workbench, eqn: Eqn) -> Value | None:
    if eqn.name == "reordered":
        return eqn.inputs[0]
    depends = [v for v in dict.fromkeys(eqn.inputs) if v in bench.activity.depends]
    return depends[0] if len(depends) == 1 else None


def _is_at_least(bench: Workbench, value: Value, total: Value) -> bool:
    """Whether a divisor is at least a total of positive terms, or 1 where the total is 0."""
    if value is total:
        return True
    eqn = value.producer
    if eqn is None:
        return False
    if eqn.name in _UNCHANGED | {"abs"}:
        before = _dependent(bench, eqn)
        return before is not None and _is_at_least(bench, before, total)
    if eqn.name in ("add", "max", "mul") and len(eqn.inputs) == 2:
        pairs = (eqn.inputs, eqn.inputs[::-1])
        return any(_grows(bench, eqn, b) and _is_at_least(bench, a, total) for a, b in pairs)
    if eqn.name == "select_n" and len(eqn.inputs) == 3:
        case = _case_of_positive(bench, eqn.inputs[0], total)
        return case is not None and _is_at_least(bench, eqn.inputs[1 + case], total)
    return False


def _grows(bench: Workbench, eqn: Eqn, other: Value) -> bool:
    low = bench.intervals[other][0]
    return eqn.name == "max" or low >= (1.0 if eqn.name == "mul" else 0.0)


def _case_of_positive(bench: Workbench, predicate: Value, total: Value) -> int | None:
    """The case that is taken where the total is positive; None if something else is asked."""
    while (eqn := predicate.producer) is not None and eqn.name in _UNCHANGED:
        predicate = eqn.inputs[0]
    if eqn is None or eqn.name not in _OF_POSITIVE:
        return None
    for (value, bound), name in (
        (eqn.inputs, eqn.name),
        (eqn.inputs[::-1], _TURNED.get(eqn.name, eqn.name)),
    ):
        if bench.intervals.constant(bound) == 0.0 and only_moves(bench, value, total):
            return int(_OF_POSITIVE[name])
    return None


def _is_summed(bench: Workbench, numerator: Value, above: Eqn, total: Total) -> bool:
    """Whether a numerator is a term of the total, or at most that."""
    value, reached = numerator, [numerator]
    while (eqn := value.producer) is not None and eqn is not above and _lessens(bench, eqn):
        before = _dependent(bench, eqn)
        if before is None:
            break
        value = before
        reached.append(value)
    return _adds_up(bench, total, (*reached, *([total.exp.out] if above.out in reached else [])))


def _adds_up(bench: Workbench, total: Total, terms: tuple[Value, ...] = ()) -> bool:
    """Whether a total is the sum of one of the values, with no mask or weight in between."""
    value, terms = total.out, terms or (total.exp.out,)
    while value not in terms:
        eqn = value.producer
        if eqn is None or eqn.name not in _UNCHANGED | SEGMENT_SUMS | {"reduce_sum"}:
            return False
        before = eqn.inputs[2] if eqn.name in SEGMENT_SUMS else _dependent(bench, eqn)
        if before is None:
            return False
        value = before
    return True


def _lessens(bench: Workbench, eqn: Eqn) -> bool:
    """Whether an equation leaves a positive value as it is, or makes it smaller."""
    if eqn.name in _UNCHANGED:
        return True
    static = [v for v in eqn.inputs if v not in bench.activity.depends]
    if eqn.name == "select_n":
        return all(bench.intervals[v] == (0.0, 0.0) for v in static if v is not eqn.inputs[0])
    bounds = [bench.intervals[v] for v in static]
    return eqn.name == "mul" and all(UNIT[0] <= a and b <= UNIT[1] for a, b in bounds)
