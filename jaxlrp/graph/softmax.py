"""Softmax, log-softmax and logsumexp, found by their computation.

softmax: exp(u) over a broadcast sum of the same exp(u); log-softmax: u minus the log of that sum;
logsumexp: the log of that sum (plus the shift). Views, copies and masks with static predicates may
be anywhere between; the shift may be any maximum of the source, and is part of the layer.
"""

from __future__ import annotations

from collections.abc import Callable

from jaxlrp.graph import shares
from jaxlrp.graph.activity import is_inexact
from jaxlrp.graph.alignment import aligned, reduced_axes, runs_alike
from jaxlrp.graph.groups import Group, Workbench
from jaxlrp.graph.intervals import UNIT
from jaxlrp.graph.ir import Eqn, Literal, Value
from jaxlrp.graph.particulars import Softmax
from jaxlrp.graph.primitives import COPIES, ELEMENTWISE, MOVES, REDUCTIONS
from jaxlrp.graph.reordered_value import is_reordered
from jaxlrp.graph.segments import OF_SHAPE, reads_back, reads_own, unwrapped
from jaxlrp.graph.shares import SEGMENT_SUMS, Total


def find(bench: Workbench) -> None:
    for eqn in bench.eqns:
        if not bench.is_open(eqn):
            continue
        if eqn.name in ("div", "mul"):
            _softmax(bench, eqn)
        elif eqn.name == "log":
            _log_of_sum(bench, eqn)


def prove_shares(bench: Workbench) -> None:
    """Prove that shares of a sum lie in [0, 1], whatever the exponents."""
    bench.facts.prove([g.outputs[0] for g in bench.groups if _are_shares(g)], UNIT)


def _are_shares(group: Group) -> bool:
    """Whether a softmax has probabilities as output (no logarithms, no weights above 1)."""
    return group.particulars_as(Softmax).shares and group.eqns[-1].name not in OF_LOGARITHMS


# Sums and maxima over segments: over all elements that are put at one position.
_SEGMENTS = SEGMENT_SUMS | {"scatter-max", "scatter_max"}


_PLAIN = ELEMENTWISE | MOVES | REDUCTIONS | {"stop_gradient"}
_ALLOWED = _PLAIN | _SEGMENTS | {"argmax", "reordered"}

# The last equation of a softmax whose output is a logarithm.
OF_LOGARITHMS = frozenset({"log", "add", "sub"})

_OF_MAXIMA = ELEMENTWISE | MOVES | {"stop_gradient", "reduce_max"}


def _is_allowed(bench: Workbench) -> Callable[[Eqn], bool]:
    """Whether an equation may be in a softmax: it has no layer, or is there in another order."""
    return lambda eqn: eqn.name in _ALLOWED or is_reordered(bench.graph, eqn)


def _producer_through_moves(bench: Workbench, value: Value) -> Eqn | None:
    """The equation that made a value, before views, broadcasts, copies and static masks."""
    while True:
        eqn = value.producer
        if eqn is None:
            return None
        before = _passed_through(bench, eqn)
        if before is None:
            return eqn
        value = before


def _passed_through(bench: Workbench, eqn: Eqn) -> Value | None:
    """The one value that an equation moves, copies, masks or leaves as it is.

    The value that replaces it where a mask is shut is static.
    """
    if eqn.name == "reordered":
        return eqn.inputs[0]
    every = [v for v in dict.fromkeys(eqn.inputs) if v in bench.activity.depends]
    dependent = [v for v in every if is_inexact(v)]
    if len(dependent) != 1 or len(eqn.outputs) != 1:
        return None
    idle = eqn.name == "abs" and bench.intervals.nonnegative(dependent[0])
    # A static weight (a mask of 0 and 1) on exp(u) is as good as its logarithm added to u.
    weighs = eqn.name == "mul" and eqn.inputs.count(dependent[0]) == 1
    weighs = weighs and bench.intervals.nonnegative(dependent[0])
    passes = eqn.name in MOVES | COPIES | {"select_n", "stop_gradient"} or idle or weighs
    return dependent[0] if passes else None


def _sum_of_exp(bench: Workbench, value: Value) -> Total | None:
    """The sum of exponentials that a value is, plus static terms, sinks, a guard against 0."""
    eqn = _producer_through_moves(bench, value)
    while eqn is not None and eqn.name in ("add", "max"):
        operands = [_producer_through_moves(bench, v) for v in eqn.inputs]
        kinds = {"reduce_sum", "add", "max"} | SEGMENT_SUMS
        sums = [e for e in operands if e is not None and e.name in kinds]
        for value, operand in zip(eqn.inputs, operands, strict=True):
            beside = operand not in sums[:1] and value in bench.activity.depends
            if beside and not bench.intervals.nonnegative(value):
                return None
        eqn = sums[0] if sums else None
    if eqn is None or eqn.name not in {"reduce_sum"} | SEGMENT_SUMS:
        return None
    if eqn.name != "reduce_sum" and bench.intervals.constant(eqn.inputs[0]) != 0.0:
        return None
    terms = eqn.inputs[0] if eqn.name == "reduce_sum" else eqn.inputs[2]
    inner = _producer_through_moves(bench, terms)
    while inner is not None and inner.name == "reduce_sum":  # over several axes, in steps
        terms = inner.inputs[0]
        inner = _producer_through_moves(bench, terms)
    if inner is None or inner.name not in ("exp", "exp2"):
        return None
    return Total(inner, terms, eqn.out)


def _reciprocal(bench: Workbench, value: Value) -> Value | None:
    """The value whose reciprocal this is."""
    eqn = _producer_through_moves(bench, value)
    if eqn is None:
        return None
    if eqn.name == "integer_pow" and eqn.params["y"] == -1:
        return eqn.inputs[0]
    if eqn.name == "div" and bench.intervals.constant(eqn.inputs[0]) == 1.0:
        return eqn.inputs[1]
    return None


def _source(bench: Workbench, total: Total) -> Value:
    """The argument of the exponential, before a shift by its own maximum.

    A shift that varies within a row is none: a static one is a bias, another one a term.
    """
    exponent = total.exp.inputs[0]
    eqn = exponent.producer
    while eqn is not None and eqn.name in COPIES:
        exponent = eqn.inputs[0]
        eqn = exponent.producer
    if eqn is None or eqn.name != "sub":
        return total.exp.inputs[0]
    source, shift = eqn.inputs
    every = frozenset(range(exponent.ndim))  # a segment may be along any axis
    summed = reduced_axes(total.out, total.exp.out)
    learned = shift not in bench.activity.depends
    if summed is None:
        summed = every if learned else frozenset()
    constant = bench.statics.varying_axes(shift).isdisjoint(summed)
    own = constant and (learned or _is_maximum(bench, shift, source))
    own = own and source in bench.activity.active
    return source if own else total.exp.inputs[0]


def _is_maximum(bench: Workbench, shift: Value, source: Value) -> bool:
    """Whether a shift is made from maxima of the source (or of a value that it is a view of)."""
    origin = _origin(bench, source)
    stack, crossed = [shift], False
    while stack:
        value = stack.pop()
        if value not in bench.activity.depends:
            continue
        eqn = value.producer
        if eqn is None:
            return False
        largest = eqn.name == "reduce_max" or eqn.name in _SEGMENTS - SEGMENT_SUMS
        if largest and _origin(bench, eqn.inputs[-1]) is origin:
            crossed = True
        elif eqn.name in _OF_MAXIMA:
            stack.extend(eqn.inputs)
        else:
            return False
    return crossed


def _origin(bench: Workbench, value: Value) -> Value:
    """The value of which a value is a moved, copied or statically masked form."""
    while (eqn := value.producer) is not None:
        before = _passed_through(bench, eqn)
        if before is None:
            break
        value = before
    return value


def _claim(bench: Workbench, output: Value, source: Value, exp: Eqn, proven: bool = False) -> bool:
    """Claim the equations between source and output, whatever view of the source comes first."""
    for stop in dict.fromkeys((source, _origin(bench, source))):
        eqns = bench.slice_back(output, {stop}, _is_allowed(bench))
        if eqns and exp in eqns and bench.closed(eqns, [output]):
            bench.claim(
                Group("softmax", eqns, [stop], [output], exp, Softmax(source, shares=proven))
            )
            return True
    return False


def _softmax(bench: Workbench, eqn: Eqn) -> None:
    if eqn.name == "div":
        pairs = [(eqn.inputs[0], eqn.inputs[1], eqn.inputs[1])]
    else:
        a, b = eqn.inputs
        pairs = [(n, r, d) for n, d in ((a, b), (b, a)) if (r := _reciprocal(bench, d)) is not None]
    for numerator, denominator, beside in pairs:
        total, above = _sum_of_exp(bench, denominator), _producer_through_moves(bench, numerator)
        if total is None or above is None or not _same(above, total.exp):
            continue
        # Each element over the sum of its own row or segment, not of another one.
        of_segment = _own_segment(bench, numerator, above, beside, total)
        if of_segment is None:
            found = aligned(numerator, above.out, beside, total.exp.out)
            of_segment = found is not False, found is True
        own, proven = of_segment
        if own:
            given = (numerator, above, denominator, beside, total)
            proven = proven and shares.of_quotient(bench, *given)
            _claim(bench, eqn.out, _source(bench, total), total.exp, proven)
            return


def _own_segment(
    bench: Workbench, numerator: Value, above: Eqn, value: Value, total: Total
) -> tuple[bool, bool] | None:
    """Whether each term reads the sum over its own segment, and whether that is certain.

    None without sums over segments.
    """
    scatter = total.out.producer
    if scatter is None or scatter.name not in SEGMENT_SUMS:
        return None
    if not runs_alike(numerator, above.out) or not runs_alike(total.terms, total.exp.out):
        return False, False
    read: list[Eqn] = []
    while (eqn := value.producer) is not None and eqn is not scatter:
        if eqn.name == "gather":
            if not reads_back(eqn, scatter):
                return False, False
            read.append(eqn)
        elif eqn.name in MOVES | REDUCTIONS and not (
            eqn.name in OF_SHAPE and eqn.inputs[0].shape == eqn.out.shape
        ):
            return False, False
        leading = [v for v in dict.fromkeys(eqn.inputs) if v in bench.activity.depends]
        sums = [v for v in leading if len(leading) == 1 or _leads_to(bench, v, scatter)]
        if not sums:
            return False, False
        value = sums[0]
    if eqn is not scatter or len(read) != 1:
        return False, False
    own = unwrapped(read[0].inputs[1]) is unwrapped(scatter.inputs[1])
    return own, own and reads_own(bench.intervals, read[0], scatter)


def _leads_to(bench: Workbench, value: Value, scatter: Eqn) -> bool:
    total = _sum_of_exp(bench, value)
    return total is not None and total.out.producer is scatter


def _same(a: Eqn, b: Eqn) -> bool:
    """Whether two equations compute the same value (exp(u) written twice)."""
    if a is b:
        return True
    if a.prim is not b.prim or len(a.inputs) != len(b.inputs) or len(a.outputs) != 1:
        return False
    if a.name not in _PLAIN:
        return False
    if str(a.params) != str(b.params):
        return False
    return all(_same_value(v, w) for v, w in zip(a.inputs, b.inputs, strict=True))


def _same_value(v: Value, w: Value) -> bool:
    if v is w:
        return True
    if isinstance(v, Literal) and isinstance(w, Literal):
        return v.dtype == w.dtype and bool(v.val == w.val)
    if v.producer is None or w.producer is None:
        return False
    return _same(v.producer, w.producer)


def _log_of_sum(bench: Workbench, eqn: Eqn) -> None:
    total = _sum_of_exp(bench, eqn.inputs[0])
    if total is None:
        return
    source = _source(bench, total)
    # The longest form first: the exponential of a log-softmax, log-softmax, logsumexp with its
    # shift added back, the bare log.
    output, candidates = eqn.out, [(eqn.out, False)]
    shift, exponent = None, None
    natural = total.exp.name == "exp"  # as the logarithm is
    while (use := bench.sole_use(output)) is not None:
        whole = natural and use.name in ("add", "sub")
        whole = whole and _completes(bench, use, output, source, total)
        back = use.name == total.exp.name and exponent is not None
        moves = use.name in MOVES | COPIES or _is_certain(bench, use, output)
        if not (whole or back or moves):
            break
        other = next((v for v in use.inputs if v is not output), output)
        proven = (
            exponent is not None and back and _is_share(bench, use, exponent, eqn, total, shift)
        )
        if whole and use.name == "add":
            shift = other
        elif whole:
            exponent = (other, output)
        output = use.out
        if whole or back:
            candidates.append((output, proven))
        if back:
            break
    for candidate, proven in reversed(candidates):
        if _claim(bench, candidate, source, total.exp, proven):
            return


def _is_certain(bench: Workbench, select: Eqn, value: Value) -> bool:
    """Whether a select takes a value wherever it is a number."""
    if select.name != "select_n":
        return False
    case = bench.intervals.constant(select.inputs[0])
    return case is not None and select.inputs[1 + int(case)] is value


def _is_share(
    bench: Workbench,
    exp: Eqn,
    exponent: tuple[Value, Value],
    log: Eqn,
    total: Total,
    shift: Value | None,
) -> bool:
    """Whether the exponential of a log-softmax, `exponent` minus a logarithm, is at most 1."""
    other, subtracted = exponent
    origin = _origin(bench, other)
    in_place = aligned(other, origin, subtracted, origin) is True
    return in_place and shares.of_logarithms(bench, exp, other, log, shift, total)


def _completes(bench: Workbench, use: Eqn, log: Value, source: Value, total: Total) -> bool:
    other = use.inputs[1] if use.inputs[0] is log else use.inputs[0]
    if use.name == "add":
        return other in bench.activity.depends and _is_maximum(bench, other, source)
    origin = _origin(bench, other)
    if origin not in (_origin(bench, source), _origin(bench, total.exp.inputs[0])):
        return False
    return use.inputs[1] is log and aligned(other, origin, log, origin) is not False
