"""Statistics: roots and powers of sums or maxima of a value, such as its deviation or its length.

They are recognised by meaning: every path from the value to its statistic crosses a reduction, the
statistic has fewer elements than the value that it scales, and no weights come between.
"""

from __future__ import annotations

from collections.abc import Collection

from jaxlrp.graph.activity import is_inexact
from jaxlrp.graph.groups import Workbench
from jaxlrp.graph.ir import Eqn, Value
from jaxlrp.graph.primitives import ADDITIONS, COPIES, ELEMENTWISE, MOVES, REDUCTIONS
from jaxlrp.graph.reordered_value import is_reordered

_ALLOWED = ELEMENTWISE | MOVES | REDUCTIONS | {"stop_gradient", "dot_general", "reordered"}
# After these a divisor is still a divisor; a statistic may have them after its reductions, too.
KEEPS_FORM = frozenset("mul div neg min max stop_gradient sqrt cbrt square abs integer_pow".split())
# Further equations between a statistic's sum and the division: roots, powers, guards.
_BESIDE = frozenset("rsqrt pow select_n clamp".split())
# At most so many values are searched before sums and products have their order.
_MOST = 100
_THROUGH = ELEMENTWISE | MOVES | REDUCTIONS | {"stop_gradient"}


def is_allowed(eqn: Eqn) -> bool:
    """Whether a norm may contain an equation."""
    return eqn.name in _ALLOWED


def _is_reduction(bench: Workbench, eqn: Eqn) -> bool:
    if eqn.name == "dot_general":  # a sum of squares written as a contraction
        return all(v in bench.activity.depends for v in eqn.inputs)
    return eqn.name in REDUCTIONS


def made_from(bench: Workbench, value: Value, sources: set[Value]) -> list[Eqn] | None:
    """The equations from some values to one that depends on nothing else.

    Another layer may hold some of them too, as a statistic is read but not crossed by relevance.
    """
    found: set[Eqn] = set()
    first = min(-1 if v.producer is None else v.producer.order for v in sources)
    stack = [value]
    while stack:
        v = stack.pop()
        if v in sources or v not in bench.activity.depends:
            continue
        eqn = v.producer
        # A value from before the sources was made from something else.
        if eqn is None or eqn.order <= first or not is_allowed(eqn):
            return None
        if bench.kind_of(eqn) not in (None, "norm"):
            return None
        if eqn not in found:
            found.add(eqn)
            stack.extend(eqn.inputs)
    return sorted(found, key=lambda e: e.order)


def statistic_of(bench: Workbench, value: Value, source: Value, scaled: Value) -> list[Eqn] | None:
    """The equations from `source` to a statistic of it that is constant along some axes.

    None if the value is not such a statistic.
    """
    if not has_form(bench, value, scaled):
        return None
    eqns = made_from(bench, value, {source})
    if not eqns or not any(_is_reduction(bench, e) for e in eqns):
        return None
    products = [e for e in eqns if e.name == "dot_general" and not is_reordered(bench.graph, e)]
    if not all(_is_reduction(bench, e) for e in products):
        return None  # weights between: a statistic of another layer's output
    if _weighs_before_a_sum(bench, value, source):
        return None
    # Without crossing a reduction the source must not be reached at all.
    return None if source in _before_reductions(bench, value) else eqns


def _before_reductions(bench: Workbench, value: Value) -> dict[Value, None]:
    """Dependent values between a value and the reductions from which it is made."""
    stack, seen = [value], {}
    while stack:
        v = stack.pop()
        eqn = v.producer
        if v in seen or v not in bench.activity.depends:
            continue
        seen[v] = None
        if eqn is not None and eqn.name == "reordered":
            stack.append(eqn.inputs[0])
        elif eqn is not None and not _is_reduction(bench, eqn):
            stack.extend(eqn.inputs)
    return seen


def has_form(bench: Workbench, value: Value, scaled: Value) -> bool:
    """Whether a value is a root or power of reductions, and has fewer elements than another.

    A gate is another function of a statistic.
    """
    if _thinnest(bench, value).size >= scaled.size:
        return False
    reduced = False
    for v in _before_reductions(bench, value):
        eqn = v.producer
        if eqn is None or eqn.name == "reordered":
            continue
        if _is_reduction(bench, eqn):
            reduced = True
        elif eqn.name not in MOVES | COPIES | ADDITIONS | KEEPS_FORM | _BESIDE:
            return False
    return reduced


def _thinnest(bench: Workbench, value: Value) -> Value:
    """The value before it was broadcast."""
    while (eqn := value.producer) is not None and eqn.name in MOVES | ELEMENTWISE | {"reordered"}:
        read = eqn.inputs[:1] if eqn.name == "reordered" else dict.fromkeys(eqn.inputs)
        dependent = [v for v in read if v in bench.activity.depends]
        if len(dependent) != 1:
            break
        (value,) = dependent
    return value


def _weighs_before_a_sum(bench: Workbench, value: Value, source: Value) -> bool:
    """Whether learned factors come before a reduction, which is a layer, however written."""
    stack, seen = [(value, False)], set()
    while stack:
        v, reduced = stack.pop()
        eqn = v.producer
        if (v, reduced) in seen or v is source or eqn is None or v not in bench.activity.depends:
            continue
        seen.add((v, reduced))
        if reduced and _weighs(bench, eqn):
            return True
        stack.extend((w, reduced or _is_reduction(bench, eqn)) for w in eqn.inputs)
    return False


def _weighs(bench: Workbench, eqn: Eqn) -> bool:
    """Whether an equation scales by a learned array that varies."""
    if eqn.name not in ("mul", "div"):
        return False
    for factor in (v for v in eqn.inputs if v not in bench.activity.depends):
        learned = any(map(is_inexact, bench.statics.parameters(factor)))
        if learned and bench.statics.varying_axes(factor):
            return True
    return False


def is_reduced_from(bench: Workbench, value: Value, of: Collection[Value]) -> bool:
    """Whether a value is made from sums or maxima of one of some others, without weights between.

    This is used before recognition: such a value may become a statistic of a norm or softmax, which
    `statistic_of` decides.
    """
    stack, seen = [(value, False)], set()
    while stack:
        one, reduced = stack.pop()
        if (one, reduced) in seen or len(seen) > _MOST:
            continue
        seen.add((one, reduced))
        if reduced and one in of:
            return True
        eqn = one.producer
        if eqn is None or one not in bench.activity.depends or (reduced and _weighs(bench, eqn)):
            continue
        if eqn.name in _THROUGH:
            reduced = reduced or eqn.name in REDUCTIONS
            stack += [(v, reduced) for v in eqn.inputs]
    return False
