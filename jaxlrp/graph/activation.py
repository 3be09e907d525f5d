"""Activations: groups of elementwise equations with one active source, whatever their spelling.

Also what remains elementwise afterwards: scales and shifts that fold into no neighbour, sums and
products of two active values, selections between them.
"""

from __future__ import annotations

import math

from jaxlrp.graph.groups import Affine, Group, Workbench
from jaxlrp.graph.ir import Eqn, Value
from jaxlrp.graph.linear import affine_operand, is_literal_shift
from jaxlrp.graph.primitives import (
    ADDITIONS,
    COMPARISONS,
    COPIES,
    ELEMENTWISE,
    makes_integers,
    rounds,
)

# |f(0)| below this counts as f(0) = 0: a shift written in decimals (softplus(x) - 0.6931472).
ZERO = 1e-6
_PIECEWISE_LINEAR = COMPARISONS | COPIES | {"max", "min", "select_n"}


def find(bench: Workbench) -> None:
    for eqn in reversed(bench.eqns):
        if bench.is_open(eqn) and eqn.name in ELEMENTWISE and len(eqn.outputs) == 1:
            _claim_activation(bench, eqn)
    for eqn in bench.eqns:
        if bench.is_open(eqn) and affine_operand(bench, eqn) is not None:
            _claim_affine(bench, eqn)


def _nonlinear(bench: Workbench, eqn: Eqn) -> bool:
    if makes_integers(eqn):
        return True
    if eqn.name in COPIES or affine_operand(bench, eqn) is not None:
        return False
    if eqn.name in ADDITIONS:
        return False
    if eqn.name == "select_n":  # a static choice of elements is routing, not an activation
        return eqn.inputs[0] in bench.activity.depends
    return True


def _absorbable(bench: Workbench, eqn: Eqn | None) -> bool:
    return (
        eqn is not None
        and eqn.name in ELEMENTWISE
        and bench.free(eqn)
        and any(v in bench.activity.depends for v in eqn.inputs)
        # A static choice between elements moves relevance; it is nobody's activation.
        and not (eqn.name == "select_n" and eqn.inputs[0] not in bench.activity.depends)
    )


def _frontier(bench: Workbench, group: set[Eqn]) -> list[Value]:
    inside = {v for e in group for v in e.outputs}
    read = (v for e in group for v in e.inputs)
    return list(dict.fromkeys(v for v in read if v in bench.activity.depends and v not in inside))


def _active(bench: Workbench, values: list[Value]) -> list[Value]:
    return [v for v in values if v in bench.activity.active]


def _claim_activation(bench: Workbench, last: Eqn) -> None:
    """Grow a group backwards from its last equation, and keep the largest with one source."""
    if affine_operand(bench, last) is not None and not _literal(bench, last):
        return  # ends in a learned scale or shift: that is a layer of its own
    group = {last}
    best: set[Eqn] | None = None
    while True:
        frontier = _frontier(bench, group)
        sources = _active(bench, frontier)
        same_shape = len(sources) == 1 and sources[0].shape == last.out.shape
        if same_shape and any(_nonlinear(bench, e) for e in group):
            best = set(group)
        candidates = [v.producer for v in frontier if _absorbable(bench, v.producer)]
        if len(sources) == 1 and _is_learned_affine(bench, sources[0].producer):
            # A BatchNorm before the activation is a layer of its own.
            candidates = [e for e in candidates if e is not sources[0].producer]
        grown = [
            e
            for e in dict.fromkeys(candidates)
            if e is not None
            and all(u in group for u in bench.reached_uses(e.out))
            and e.out not in bench.outputs
            and (e.out in bench.activity.active or all(u in group for u in bench.graph.uses(e.out)))
        ]
        if not grown:
            break
        group.add(max(grown, key=lambda e: e.order))
    if best is None:
        return
    source = _active(bench, _frontier(bench, best))[0]
    if last.name in ADDITIONS and source in last.inputs:
        return  # x + gelu(x): a sum of two branches
    _finish(bench, sorted(best, key=lambda e: e.order), source, last)


def _is_learned_affine(bench: Workbench, eqn: Eqn | None) -> bool:
    return (
        eqn is not None
        and bench.free(eqn)
        and affine_operand(bench, eqn) is not None
        and not _literal(bench, eqn)
    )


def _literal(bench: Workbench, eqn: Eqn) -> bool:
    return eqn.name == "neg" or any(bench.intervals.constant(v) is not None for v in eqn.inputs)


def _finish(bench: Workbench, eqns: list[Eqn], source: Value, last: Eqn) -> None:
    if not any(_nonlinear(bench, e) for e in eqns):
        return
    main = next(e for e in reversed(eqns) if _nonlinear(bench, e))
    group = Group("activation", eqns, [source], [last.out], main)
    low, high = bench.intervals.image(eqns, source, (0.0, 0.0), last.out)
    group.zero_at_zero = low >= -ZERO and high <= ZERO
    left = bench.intervals.image(eqns, source, (-math.inf, 0.0), last.out)
    group.hard_relu = left == (0.0, 0.0)
    group.is_relu = group.hard_relu and _is_identity_above_zero(bench, eqns, source, last.out)
    bench.claim(group)


def _is_identity_above_zero(
    bench: Workbench, eqns: list[Eqn], source: Value, output: Value
) -> bool:
    """f(x) = x for x > 0: piecewise linear, with no corner other than 0, and right at points."""
    if not all(e.name in _PIECEWISE_LINEAR and not rounds(e) for e in eqns):
        return False
    inside = {v for e in eqns for v in e.outputs} | {source}
    if any(
        bench.intervals.constant(v) not in (0.0,) for e in eqns for v in e.inputs if v not in inside
    ):
        return False
    points = (1e-30, 1.0, 1e30)
    return all(bench.intervals.image(eqns, source, (p, p), output) == (p, p) for p in points)


def _claim_affine(bench: Workbench, first: Eqn) -> None:
    """A chain of scales and shifts that no neighbour took."""
    chain = [first]
    while (eqn := bench.sole_use(chain[-1].out)) is not None and bench.is_open(eqn):
        if affine_operand(bench, eqn) is None and eqn.name not in COPIES:
            break
        chain.append(eqn)
    position = affine_operand(bench, first)
    assert position is not None
    source = first.inputs[position]
    number_scale = all(
        e.name in COPIES or (_literal(bench, e) and not is_literal_shift(bench, e)) for e in chain
    )
    kind = "structural" if number_scale else "affine"
    affine = Affine(None, position, [], chain, True)
    group = Group(kind, chain, [source], [chain[-1].out], first, affine)
    group.transport = "scale"
    bench.claim(group)


def find_pairs(bench: Workbench) -> None:
    """Sums and products of active values, and the larger of two."""
    for eqn in bench.eqns:
        if not bench.is_open(eqn):
            continue
        active = bench.activity.active_inputs(eqn)
        if eqn.name in ADDITIONS:
            bench.claim(Group("add", [eqn], active, [eqn.out], eqn))
        elif eqn.name in ("mul", "div") and len(active) == 2:
            bench.claim(Group("product", [eqn], active, [eqn.out], eqn))
        elif eqn.name in ("max", "min"):
            bench.claim(Group("max_pool", [eqn], active, [eqn.out], eqn))
