"""Layers that divide by a statistic of their own input: LayerNorm, RMSNorm, GroupNorm, L2, ...

The statistic (the factor that divides) is recognised by meaning: every way from the source to it
crosses a reduction, it has fewer elements than what it scales, and it is a reciprocal root, a
reciprocal or a bare divisor, with no weights between.
"""

from __future__ import annotations

from jaxlrp.graph.activity import is_inexact
from jaxlrp.graph.alignment import aligned
from jaxlrp.graph.groups import Affine, Group, Workbench
from jaxlrp.graph.ir import Eqn, Value
from jaxlrp.graph.linear import absorb_affine_after
from jaxlrp.graph.primitives import ADDITIONS, COPIES, ELEMENTWISE, MOVES
from jaxlrp.graph.tie import is_tied

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
    """Whether a factor ends in a reciprocal, up to moves, roots, powers and static factors."""
    while True:
        eqn = factor.producer
        if eqn is None:
            return False
        dependent = [v for v in dict.fromkeys(eqn.inputs) if v in bench.activity.depends]
        if eqn.name == "rsqrt" or (eqn.name == "integer_pow" and eqn.params["y"] < 0):
            return True
        if eqn.name == "pow" and eqn.inputs[1] not in bench.activity.depends:
            return bench.intervals[eqn.inputs[1]][1] < 0 or not _is_number(bench, eqn.inputs[1])
        if eqn.name == "div" and eqn.inputs[0] not in bench.activity.depends:
            return True
        if eqn.name not in MOVES | COPIES | _KEEPS_FORM or len(dependent) != 1:
            return False
        factor = dependent[0]


# Equations after which a divisor is still one.
_KEEPS_FORM = frozenset(
    "mul div neg min max stop_gradient sqrt cbrt square abs integer_pow".split()
)


# Further equations between a statistic's sum and the division: roots, powers, guards.
_BESIDE = frozenset("rsqrt pow select_n clamp".split())


def _is_number(bench: Workbench, value: Value) -> bool:
    return bench.intervals.constant(value) is not None


_ALLOWED = ELEMENTWISE | MOVES | _REDUCERS | {"stop_gradient", "dot_general", "tie"}


def _allowed(eqn: Eqn) -> bool:
    return eqn.name in _ALLOWED


def _is_reduction(bench: Workbench, eqn: Eqn) -> bool:
    if eqn.name == "dot_general":  # a sum of squares written as a contraction
        return all(v in bench.activity.depends for v in eqn.inputs)
    return eqn.name in _REDUCERS


def _made_from(bench: Workbench, value: Value, sources: set[Value]) -> list[Eqn] | None:
    """The equations from some values to one that depends on nothing else.

    Another layer may hold some of them too: a statistic is read, and relevance does not cross it.
    """
    found: set[Eqn] = set()
    first = min(-1 if v.producer is None else v.producer.order for v in sources)
    stack = [value]
    while stack:
        v = stack.pop()
        if v in sources or v not in bench.activity.depends:
            continue
        eqn = v.producer
        # What was computed before the sources was made from something else.
        if eqn is None or eqn.order <= first or not _allowed(eqn):
            return None
        if bench.kind_of(eqn) not in (None, "norm"):
            return None
        if eqn not in found:
            found.add(eqn)
            stack.extend(eqn.inputs)
    return sorted(found, key=lambda e: e.order)


def _is_statistic(bench: Workbench, value: Value, source: Value, scaled: Value) -> list[Eqn] | None:
    """The equations from `source` to a statistic of it that is constant along some axes."""
    if not _has_form(bench, value, scaled):
        return None
    eqns = _made_from(bench, value, {source})
    if not eqns or not any(_is_reduction(bench, e) for e in eqns):
        return None
    products = [e for e in eqns if e.name == "dot_general" and not is_tied(bench.graph, e)]
    if not all(_is_reduction(bench, e) for e in products):
        return None  # weights between: a statistic of another layer's output
    if _weighs_before_a_sum(bench, value, source):
        return None
    # Without crossing a reduction the source must not be seen at all.
    return None if source in _before_reductions(bench, value) else eqns


def _before_reductions(bench: Workbench, value: Value) -> dict[Value, None]:
    """Dependent values between the reductions that a value is made of and the value."""
    stack, seen = [value], {}
    while stack:
        v = stack.pop()
        eqn = v.producer
        if v in seen or v not in bench.activity.depends:
            continue
        seen[v] = None
        if eqn is not None and eqn.name == "tie":
            stack.append(eqn.inputs[0])
        elif eqn is not None and not _is_reduction(bench, eqn):
            stack.extend(eqn.inputs)
    return seen


def _has_form(bench: Workbench, value: Value, scaled: Value) -> bool:
    """Whether a value is a root or power of reductions, and has fewer elements than another.

    A gate is another function of a statistic.
    """
    if _thinnest(bench, value).size >= scaled.size:
        return False
    reduced = False
    for v in _before_reductions(bench, value):
        eqn = v.producer
        if eqn is None or eqn.name == "tie":
            continue
        if _is_reduction(bench, eqn):
            reduced = True
        elif eqn.name not in MOVES | COPIES | ADDITIONS | _KEEPS_FORM | _BESIDE:
            return False
    return reduced


def _thinnest(bench: Workbench, value: Value) -> Value:
    """The value before it was broadcast."""
    while (eqn := value.producer) is not None and eqn.name in MOVES | ELEMENTWISE | {"tie"}:
        read = eqn.inputs[:1] if eqn.name == "tie" else dict.fromkeys(eqn.inputs)
        dependent = [v for v in read if v in bench.activity.depends]
        if len(dependent) != 1:
            break
        (value,) = dependent
    return value


def _weighs_before_a_sum(bench: Workbench, value: Value, source: Value) -> bool:
    """Whether learned factors are multiplied in before a reduction: a layer, however written."""
    stack, seen = [(value, False)], set()
    while stack:
        v, reduced = stack.pop()
        eqn = v.producer
        if (v, reduced) in seen or v is source or eqn is None or v not in bench.activity.depends:
            continue
        seen.add((v, reduced))
        if reduced and eqn.name in ("mul", "div"):
            static = [w for w in eqn.inputs if w not in bench.activity.depends]
            for factor in static:
                learned = any(map(is_inexact, bench.statics.parameters(factor)))
                if learned and bench.statics.varying_axes(factor):
                    return True
        stack.extend((w, reduced or _is_reduction(bench, eqn)) for w in eqn.inputs)
    return False


def _sources(bench: Workbench, scaled: Value) -> list[Value]:
    """Values that the factor may be a statistic of, the likeliest first.

    Those of which the scaled value is made by moves, factors and centring. Centring belongs to the
    norm, so what stands before it comes first.
    """
    centred: list[Value] = []
    others: dict[Value, None] = {}
    stack = [scaled]
    while stack:
        value = stack.pop(0)
        if value in others or value not in bench.activity.active:
            continue
        others[value] = None
        eqn = value.producer
        if eqn is None or not bench.free(eqn):
            continue
        if eqn.name in ADDITIONS and len(eqn.inputs) == 2:
            before = _before_centring(bench, eqn, scaled)
            centred = before + centred
            stack.extend(before)
        elif eqn.name in MOVES | COPIES | {"neg"} or eqn.name == "mul":
            stack.extend(eqn.inputs)
        elif eqn.name == "div":
            stack.append(eqn.inputs[0])
    return list(dict.fromkeys([*centred, *others]))


def _before_centring(bench: Workbench, eqn: Eqn, scaled: Value) -> list[Value]:
    """For `x - mean(x)`: x, and the value that x is a view of; nothing for other equations."""
    for value, mean in (eqn.inputs, eqn.inputs[::-1]):
        if value not in bench.activity.active:
            continue
        views = _views_before(bench, value)
        if mean in bench.activity.depends:
            found = [v for v in views if _is_statistic(bench, mean, v, scaled)]
        else:  # a mean that is not subtracted
            found = views if bench.intervals.constant(mean) == 0.0 else []
        if found:
            return found
    return []


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
    if scaled not in bench.activity.active or not _has_form(bench, factor, scaled):
        return False
    for source in _sources(bench, scaled):
        statistic = _is_statistic(bench, factor, source, scaled)
        if statistic is None or aligned(scaled, source, factor, source) is False:
            continue
        path = bench.slice_back(scaled, {source}, _allowed)
        held = ((eqn, position),)
        alone = not bench.shared(statistic, {*(path or ()), eqn})
        if not alone and _claim_centred_last(bench, eqn, factor, source):
            return True
        whole = None if path is None else [*path, eqn]
        if whole is None or not (
            bench.closed_but_for(whole, statistic, [eqn.out])
            and _is_linear(bench, whole, eqn.out, source, held)
        ):
            # Other layers read what stands between, or a gate stands there: only the division.
            statistic = _made_from(bench, factor, {source, scaled}) or []
            whole, source = [eqn], scaled
        _finish(bench, statistic, whole, source, held)
        return True
    return False


def _finish(
    bench: Workbench,
    statistic: list[Eqn],
    path: list[Eqn],
    source: Value,
    detached: tuple[tuple[Eqn, int], ...],
    main: Eqn | None = None,
) -> None:
    """Claim a norm: a path from `source`, with its divisor held, and the scale after it."""
    last = path[-1]
    own = set(path)
    statistic = [e for e in statistic if e not in own]
    after = absorb_affine_after(bench, last.out, literal_shifts=False)
    output = after[-1].out if after else last.out
    eqns = sorted({*statistic, *path}, key=lambda e: e.order)
    group = Group("norm", eqns + after, [source], [output], main or last, detached=detached)
    if main is None:
        group.affine = Affine(None, detached[-1][1], [], after, False)
    group.borrowed = frozenset(bench.shared(statistic, own | set(after)))
    bench.claim(group)


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
        _finish(bench, [], eqns, source, detached, main=eqn)
        return True
    return False


def find_undone(bench: Workbench) -> None:
    """Products of a norm's divisor with functions of its output: `f(x / s) * s`.

    What is held where it divides is held there too: otherwise it would take half of the relevance
    that it only hands through.
    """
    norms: dict[Value, list[Group]] = {}
    for group in bench.groups:
        if group.kind == "norm":
            for eqn, position in group.detached:
                norms.setdefault(_base(bench, eqn.inputs[position]), []).append(group)
    if not norms:
        return
    made: dict[Group, set[Value]] = {}
    for eqn in bench.eqns:
        if eqn.name not in ("mul", "div") or not bench.is_open(eqn):
            continue
        for position in (1,) if eqn.name == "div" else (0, 1):
            factor, scaled = eqn.inputs[position], eqn.inputs[1 - position]
            if factor not in bench.activity.depends or scaled not in bench.activity.active:
                continue
            for group in norms.get(_base(bench, factor), ()):
                if group not in made:
                    made[group] = _made_after(bench, group.outputs)
                if scaled in made[group] and factor not in made[group]:
                    statistic = _exclusive(bench, factor, eqn)
                    _finish(bench, statistic, [eqn], scaled, ((eqn, position),))
                    break
            if eqn in bench.claimed:
                break


def _made_after(bench: Workbench, values: list[Value]) -> set[Value]:
    """The values that depend on some values."""
    made = set(values)
    for eqn in bench.graph.eqns:
        if not made.isdisjoint(eqn.inputs):
            made.update(eqn.outputs)
    return made


def _exclusive(bench: Workbench, factor: Value, reader: Eqn) -> list[Eqn]:
    """The open equations that make a factor for one reader alone."""
    found: list[Eqn] = []
    stack, group = [factor], {reader}
    while stack:
        value = stack.pop()
        eqn = value.producer
        if eqn is None or not bench.is_open(eqn) or eqn in group or eqn.bodies:
            continue
        if value in bench.outputs or any(e not in group for e in bench.reached_uses(value)):
            continue
        group.add(eqn)
        found.append(eqn)
        stack.extend(eqn.inputs)
    return found


def _base(bench: Workbench, value: Value) -> Value:
    """The value of which a factor is a moved, scaled, shifted or reciprocal form, root or power."""
    while (eqn := value.producer) is not None:
        dependent = [v for v in dict.fromkeys(eqn.inputs) if v in bench.activity.depends]
        keeps = eqn.name in MOVES | COPIES | _KEEPS_FORM | ADDITIONS | {"rsqrt", "pow"}
        if not keeps or len(dependent) != 1 or eqn.name == "abs":
            break
        value = dependent[0]
    return value


def _root(bench: Workbench, value: Value) -> Value:
    """The value of which a factor is a moved, copied or statically scaled form."""
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
        free = free[:1] if eqn.name == "tie" else free
        dependent = [v for v in free if v in bench.activity.depends]
        is_sum = eqn.name in ADDITIONS | MOVES | COPIES | {"neg", "reduce_sum", "tie"}
        is_scale = eqn.name in ("mul", "div") and len(dependent) == 1
        if not (is_sum or (is_scale and (eqn.name == "mul" or eqn.inputs[0] is dependent[0]))):
            return False
        stack.extend(dependent)
    return True
