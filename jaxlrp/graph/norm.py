"""Layers that divide by a statistic of their own input: LayerNorm, RMSNorm, GroupNorm, L2, ...

The statistic (`statistic.py`) is the factor that divides: a reciprocal root, a reciprocal or a bare
divisor.
"""

from __future__ import annotations

from jaxlrp.graph.affine import affine_operand, is_move
from jaxlrp.graph.alignment import aligned
from jaxlrp.graph.groups import Group, Workbench
from jaxlrp.graph.ir import Eqn, Value
from jaxlrp.graph.linear import absorb_affine_after, core_operand
from jaxlrp.graph.particulars import Norm
from jaxlrp.graph.primitives import ADDITIONS, COPIES, LINEAR_CORES, MOVES
from jaxlrp.graph.statistic import KEEPS_FORM, has_form, is_allowed, made_from, statistic_of


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
        if eqn.name not in MOVES | COPIES | KEEPS_FORM or len(dependent) != 1:
            return False
        factor = dependent[0]


def _is_number(bench: Workbench, value: Value) -> bool:
    return bench.intervals.constant(value) is not None


def _sources(bench: Workbench, scaled: Value) -> list[Value]:
    """Values of which the factor may be a statistic, the likeliest first.

    These are the values from which the scaled value is made by moves, factors and centring.
    Centring belongs to the norm, so the values before it come first.
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
            found = [v for v in views if statistic_of(bench, mean, v, scaled)]
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
    if scaled not in bench.activity.active or not has_form(bench, factor, scaled):
        return False
    for source in _sources(bench, scaled):
        statistic = statistic_of(bench, factor, source, scaled)
        if statistic is None or aligned(scaled, source, factor, source) is False:
            continue
        path = bench.slice_back(scaled, {source}, is_allowed)
        held = ((eqn, position),)
        alone = not bench.shared(statistic, {*(path or ()), eqn})
        if not alone and _claim_centred_last(bench, eqn, factor, source):
            return True
        whole = None if path is None else [*path, eqn]
        if whole is None or not (
            bench.closed_but_for(whole, statistic, [eqn.out])
            and _is_linear(bench, whole, eqn.out, source, held)
        ):
            # If other layers read values between, or a gate is there, only the division is the
            # norm.
            statistic = made_from(bench, factor, {source, scaled}) or []
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
    after = absorb_affine_after(bench, last.out, written_shifts=False)
    output = after[-1].out if after else last.out
    eqns = sorted({*statistic, *path}, key=lambda e: e.order)
    borrowed = frozenset(bench.shared(statistic, own | set(after)))
    parts = Norm(tuple(after) if main is None else None, borrowed)
    bench.claim(Group("norm", eqns + after, [source], [output], main or last, parts, detached))


def _claim_centred_last(bench: Workbench, eqn: Eqn, factor: Value, source: Value) -> bool:
    """x * f + (shift - mean * f): the centring is another product with the same factor."""
    root = _root(bench, factor)
    output = eqn.out
    while (use := bench.sole_use(output)) is not None and use.name in ADDITIONS:
        output = use.out
        eqns = bench.slice_back(output, {source}, is_allowed)
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

    A factor that is held where it divides is held there too. Otherwise it would take half of the
    relevance that it only passes through. If f is a linear layer, the factor is a scale of that
    layer, `((x / s) @ W) * s + b`, and `find_held` claims it only if the layer does not.
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
                    if _ends_linear_layer(bench, scaled):
                        bench.activity.held[eqn] = position
                        bench.claimed.update(dict.fromkeys(statistic, group))
                    else:
                        _finish(bench, statistic, [eqn], scaled, ((eqn, position),))
                    break
            if eqn in bench.claimed or eqn in bench.activity.held:
                break


def find_held(bench: Workbench) -> None:
    """Held factors that no linear layer took."""
    for eqn in bench.eqns:
        position = bench.activity.held.get(eqn)
        if position is not None and bench.is_open(eqn):
            _finish(bench, [], [eqn], eqn.inputs[1 - position], ((eqn, position),))


def _ends_linear_layer(bench: Workbench, value: Value) -> bool:
    """Whether scales, shifts and moves lead from a product with learned weights to a value."""
    while (eqn := value.producer) is not None and bench.sole_use(value) is not None:
        if eqn.name in LINEAR_CORES:
            weights = (v for v in eqn.inputs if v not in bench.activity.depends)
            return core_operand(bench, eqn) is not None and any(
                map(bench.statics.parameters, weights)
            )
        active = bench.activity.active_inputs(eqn)
        if len(active) != 1 or (affine_operand(bench, eqn) is None and not is_move(bench, eqn)):
            return False
        (value,) = active
    return False


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
        if value in bench.ends or any(e not in group for e in bench.reached_uses(value)):
            continue
        group.add(eqn)
        found.append(eqn)
        stack.extend(eqn.inputs)
    return found


def _base(bench: Workbench, value: Value) -> Value:
    """The value of which a factor is a moved, scaled, shifted or inverted form, root or power."""
    while (eqn := value.producer) is not None:
        dependent = [v for v in dict.fromkeys(eqn.inputs) if v in bench.activity.depends]
        keeps = eqn.name in MOVES | COPIES | KEEPS_FORM | ADDITIONS | {"rsqrt", "pow"}
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
        free = free[:1] if eqn.name == "reordered" else free
        dependent = [v for v in free if v in bench.activity.depends]
        is_sum = eqn.name in ADDITIONS | MOVES | COPIES | {"neg", "reduce_sum", "reordered"}
        is_scale = eqn.name in ("mul", "div") and len(dependent) == 1
        if not (is_sum or (is_scale and (eqn.name == "mul" or eqn.inputs[0] is dependent[0]))):
            return False
        stack.extend(dependent)
    return True
