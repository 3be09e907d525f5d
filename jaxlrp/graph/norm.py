"""Layers that divide by a statistic of their own input: LayerNorm, RMSNorm, GroupNorm, L2, ...

The statistic (the factor that divides) is recognised by meaning: every way from the source to it
crosses a reduction, it has fewer elements than what it scales, and it is a reciprocal root, a
reciprocal or a bare divisor, with no weights between.
"""

from __future__ import annotations

from jaxlrp.graph.alignment import aligned
from jaxlrp.graph.groups import Affine, Group, Workbench
from jaxlrp.graph.ir import Eqn, Value
from jaxlrp.graph.linear import absorb_affine_after
from jaxlrp.graph.primitives import ADDITIONS, COPIES, ELEMENTWISE, MOVES

_REDUCERS = frozenset("reduce_sum reduce_max reduce_window_sum".split())


def find(bench: Workbench) -> None:
    for eqn in bench.eqns:
        if eqn.name in ("mul", "div") and bench.is_open(eqn):
            for position in _factor_positions(bench, eqn):
                if _claim(bench, eqn, position):
                    break


def _factor_positions(bench: Workbench, eqn: Eqn) -> list[int]:
    depends = bench.activity.depends
    if not all(v in depends for v in eqn.inputs) or eqn.inputs[0] is eqn.inputs[1]:
        return []
    if eqn.name == "div":
        return [1]
    return [i for i in (0, 1) if _divides(bench, eqn.inputs[i])]


def _divides(bench: Workbench, factor: Value) -> bool:
    """Whether a factor ends in a reciprocal, up to moves and static factors."""
    while True:
        eqn = factor.producer
        if eqn is None:
            return False
        dependent = [v for v in dict.fromkeys(eqn.inputs) if v in bench.activity.depends]
        if eqn.name in ("rsqrt", "pow"):
            return True
        if eqn.name == "integer_pow":
            return eqn.params["y"] < 0
        if eqn.name == "div" and eqn.inputs[0] not in bench.activity.depends:
            return True
        passes = eqn.name in MOVES | COPIES | {"mul", "div", "min", "max", "stop_gradient"}
        if not passes or len(dependent) != 1:
            return False
        factor = dependent[0]


def _allowed(eqn: Eqn) -> bool:
    return eqn.name in ELEMENTWISE | MOVES | _REDUCERS | {"stop_gradient", "dot_general"}


def _is_reduction(bench: Workbench, eqn: Eqn) -> bool:
    if eqn.name == "dot_general":  # a sum of squares written as a contraction
        return all(v in bench.activity.depends for v in eqn.inputs)
    return eqn.name in _REDUCERS


def _is_statistic(bench: Workbench, value: Value, source: Value, scaled: Value) -> list[Eqn] | None:
    """The equations from `source` to a statistic of it that is constant along some axes."""
    eqns = bench.slice_back(value, {source}, _allowed)
    if not eqns or not any(_is_reduction(bench, e) for e in eqns):
        return None
    if any(e.name == "dot_general" and not _is_reduction(bench, e) for e in eqns):
        return None  # weights between: a statistic of another layer's output
    # Without crossing a reduction the source must not be seen at all.
    stack = [value]
    while stack:
        v = stack.pop()
        if v is source:
            return None
        eqn = v.producer
        if eqn is None or v not in bench.activity.depends:
            continue
        if not _is_reduction(bench, eqn):
            stack.extend(eqn.inputs)
    thin = value
    while thin.producer is not None and thin.producer.name in MOVES | COPIES | {"mul"}:
        dependent = [v for v in thin.producer.inputs if v in bench.activity.depends]
        if len(dependent) != 1:
            break
        thin = dependent[0]
    return eqns if thin.size < scaled.size else None


def _sources(bench: Workbench, scaled: Value) -> list[Value]:
    """Values that the factor may be a statistic of, the likeliest first.

    Centring belongs to the norm, so what stands before it comes first; then the scaled value
    itself; then what it is a view of.
    """
    centred: list[Value] = []
    value = scaled
    while (eqn := value.producer) is not None and eqn not in bench.claimed:
        active = bench.activity.active_inputs(eqn)
        if eqn.name == "sub" and eqn.inputs[0] in bench.activity.active:
            before, mean = eqn.inputs
            views = _views_before(bench, before)
            if mean in bench.activity.depends:
                views = [v for v in views if _is_statistic(bench, mean, v, scaled)]
                centred = views + centred
                if not views:
                    break
            elif bench.intervals.constant(mean) == 0.0:
                centred = centred + views  # a mean that is not subtracted
            value = before
        elif eqn.name in MOVES | COPIES | {"mul", "div"} and len(active) == 1:
            value = active[0]
        else:
            break
    return list(dict.fromkeys(centred + _views_before(bench, scaled)))


def _views_before(bench: Workbench, value: Value) -> list[Value]:
    found = [value]
    while value.producer is not None and value.producer.name in MOVES | COPIES:
        active = [v for v in value.producer.inputs if v in bench.activity.active]
        if len(active) != 1:
            break
        value = active[0]
        found.append(value)
    return found


def _claim(bench: Workbench, eqn: Eqn, position: int) -> bool:
    factor, scaled = eqn.inputs[position], eqn.inputs[1 - position]
    if scaled not in bench.activity.active:
        return False
    for source in _sources(bench, scaled):
        statistic = _is_statistic(bench, factor, source, scaled)
        if statistic is None or aligned(scaled, source, factor, source) is False:
            continue
        path = bench.slice_back(scaled, {source}, _allowed)
        if path is None:
            continue
        eqns = sorted({*statistic, *path, eqn}, key=lambda e: e.order)
        if bench.closed(eqns, [eqn.out]):
            after = absorb_affine_after(bench, eqn.out, literal_shifts=False)
            output = after[-1].out if after else eqn.out
            group = Group("norm", eqns + after, [source], [output], eqn)
            group.detached = ((eqn, position),)
            group.affine = Affine(None, position, [], after, False)
            bench.claim(group)
            return True
        if _claim_centred_last(bench, eqn, factor, source):
            return True
    return False


def _claim_centred_last(bench: Workbench, eqn: Eqn, factor: Value, source: Value) -> bool:
    """x * f + (shift - mean * f): the centring is another product with the same factor."""
    root = _root(bench, factor)
    output = eqn.out
    while (use := bench.sole_use(output)) is not None and use.name in ADDITIONS:
        output = use.out
        eqns = bench.slice_back(output, {source}, _allowed)
        if not eqns or not bench.closed(eqns, [output]):
            continue
        detached = tuple(
            (e, i)
            for e in eqns
            if e.name in ("mul", "div") and all(v in bench.activity.depends for v in e.inputs)
            for i, v in enumerate(e.inputs)
            if _root(bench, v) is root
        )
        if not _is_linear(bench, eqns, output, source, detached):
            continue
        after = absorb_affine_after(bench, output, literal_shifts=False)
        output = after[-1].out if after else output
        group = Group("norm", [*eqns, *after], [source], [output], eqn, detached=detached)
        bench.claim(group)
        return True
    return False


def _root(bench: Workbench, value: Value) -> Value:
    """What a factor is a moved, copied or statically scaled form of."""
    while (eqn := value.producer) is not None and eqn.name in MOVES | COPIES | {"mul"}:
        dependent = [v for v in eqn.inputs if v in bench.activity.depends]
        if len(dependent) != 1:
            break
        value = dependent[0]
    return value


def _is_linear(
    bench: Workbench,
    eqns: list[Eqn],
    output: Value,
    source: Value,
    detached: tuple[tuple[Eqn, int], ...],
) -> bool:
    """Whether `output` is linear in `source` (plus a shift) once the detached factors are held."""
    held, inside = set(detached), set(eqns)
    stack, seen = [output], {source}
    while stack:
        value = stack.pop()
        eqn = value.producer
        if value in seen or eqn is None or eqn not in inside:
            continue
        seen.add(value)
        free = [v for i, v in enumerate(eqn.inputs) if (eqn, i) not in held]
        dependent = [v for v in free if v in bench.activity.depends]
        is_sum = eqn.name in ADDITIONS | MOVES | COPIES | {"neg", "reduce_sum"}
        is_scale = eqn.name in ("mul", "div") and len(dependent) == 1
        if not (is_sum or (is_scale and (eqn.name == "mul" or eqn.inputs[0] is dependent[0]))):
            return False
        stack.extend(dependent)
    return True
