"""Activations: groups of elementwise equations with one active source, whatever their spelling."""

from __future__ import annotations

import heapq
import itertools
import math

from jaxlrp.graph import branches
from jaxlrp.graph.activity import is_inexact
from jaxlrp.graph.affine import (
    affine_operand,
    is_move,
    is_written,
    is_written_scale,
    is_written_shift,
    leads_into_nonlinearity,
)
from jaxlrp.graph.contents import Unknown, equations_contents
from jaxlrp.graph.groups import Group, Workbench
from jaxlrp.graph.homogeneous import is_homogeneous
from jaxlrp.graph.ir import Eqn, Literal, Value
from jaxlrp.graph.particulars import Activation
from jaxlrp.graph.primitives import (
    ADDITIONS,
    COPIES,
    ELEMENTWISE,
    makes_integers,
)
from jaxlrp.graph.sums_and_products import is_sign_of_sum
from jaxlrp.graph.written_numbers import falls

# |f(0)| below this counts as f(0) = 0: a shift written in decimals (softplus(x) - 0.6931472).
ZERO = 1e-6


def find(bench: Workbench) -> None:
    linear: set[Eqn] = set()  # proven not to end an activation
    for eqn in reversed(bench.eqns):
        if eqn in linear or not bench.is_open(eqn):
            continue
        if eqn.name in ELEMENTWISE and len(eqn.outputs) == 1:
            linear.update(_claim_activation(bench, eqn))


def find_shifts(bench: Workbench) -> None:
    """Written shifts before or after an activation, with moves or other readers between.

    In `(1 - q[:, :1]) * q[:, 1:]` the 1 belongs to the gate, and is not a bias.
    """
    for eqn in bench.eqns:
        if not bench.is_open(eqn) or not is_written_shift(bench, eqn):
            continue
        (source,) = bench.activity.active_inputs(eqn)
        if source.shape == eqn.out.shape and (
            _follows_activation(bench, source) or leads_into_nonlinearity(bench, eqn.out)
        ):
            facts = _facts_of(bench, [eqn], source, eqn)
            bench.claim(Group("activation", [eqn], [source], [eqn.out], eqn, facts))


def _follows_activation(bench: Workbench, value: Value) -> bool:
    """Whether only moves, written scales and shifts lie between activations and a value."""
    stack, seen, found = [value], {value}, False
    while stack:
        v = stack.pop()
        eqn = v.producer
        if eqn is None or v in bench.activity.explained:
            return False
        if bench.kind_of(eqn) == "activation":
            found = True
            continue
        written = is_written_scale(bench, eqn) or is_written_shift(bench, eqn)
        if not (written or is_move(bench, eqn) or eqn.name == "reordered"):
            return False
        for before in bench.activity.active_inputs(eqn):
            if before not in seen:
                seen.add(before)
                stack.append(before)
    return found


def _nonlinear(bench: Workbench, eqn: Eqn) -> bool:
    if makes_integers(eqn):
        return True
    if eqn.name in COPIES | {"stop_gradient"} or affine_operand(bench, eqn) is not None:
        return False
    if eqn.name in ADDITIONS:
        return _has_inactive_term(bench, eqn)
    return not _routes(bench, eqn)


def _routes(bench: Workbench, eqn: Eqn) -> bool:
    """Whether relevance goes to the case that was taken: a choice that is not an activation.

    The choice is static, or a case depends on the input and was stopped.
    """
    if eqn.name != "select_n":
        return False
    depends, active = bench.activity.depends, bench.activity.active
    predicate, *cases = eqn.inputs
    stopped = any(v in depends and v not in active and is_inexact(v) for v in cases)
    return predicate not in depends or (stopped and any(v in active for v in cases))


def _has_inactive_term(bench: Workbench, eqn: Eqn) -> bool:
    """Whether a sum has one active term and one that depends on the input without being active.

    The latter is not a bias: all relevance passes the sum (a straight-through estimator).
    """
    if eqn.name not in ADDITIONS or not all(v in bench.activity.depends for v in eqn.inputs):
        return False
    inactive = [v for v in eqn.inputs if v not in bench.activity.active]
    # A product with zero, the start of a recurrence, depends on the input in name only.
    return len(inactive) == 1 and bench.intervals.constant(inactive[0]) != 0.0


def _absorbable(bench: Workbench, eqn: Eqn | None) -> bool:
    return (
        eqn is not None
        and (eqn.name in ELEMENTWISE or eqn.name == "stop_gradient")
        and len(eqn.outputs) == 1
        and bench.free(eqn)
        and any(v in bench.activity.depends for v in eqn.inputs)
        and not _routes(bench, eqn)
        and not _is_learned_shift(bench, eqn)
        and not is_sign_of_sum(bench, eqn)
    )


def _claim_activation(bench: Workbench, last: Eqn) -> list[Eqn]:
    """Grow a group backwards from its last equation, and claim the largest with one source.

    Equations are reached latest first, so when one is reached it is known whether all its readers
    are in the group. Returns the equations that are shown not to end an activation.
    """
    if _routes(bench, last):
        return []
    if affine_operand(bench, last) is not None and not is_written(bench, last):
        return []  # ends in a learned scale or shift: that is a layer of its own
    if last.name == "neg" and _is_term(bench, last.out) and falls(bench, last.out):
        return []  # the sign belongs to a term, and cancels no sign within it
    if joined := branches.joined_at(bench, last):
        return joined
    growth = _Growth(bench)
    best, curved = 0, False
    source: Value | None = None
    eqn: Eqn | None = last
    while eqn is not None:
        growth.add(eqn)
        curved = curved or _nonlinear(bench, eqn)
        if curved and len(growth.sources) == 1:
            (only,) = growth.sources
            if only.shape == last.out.shape:
                best, source = len(growth.group), only
        eqn = growth.latest()
    if source is None:
        return list(growth.group) if not curved and growth.may_have_one_source else []
    eqns = sorted(itertools.islice(growth.group, best), key=lambda e: e.order)
    _finish(bench, eqns, source, last)
    return []


class _Growth:
    """A group that grows backwards, one equation at a time, the latest first."""

    def __init__(self, bench: Workbench):
        self._bench = bench
        self.group: dict[Eqn, None] = {}
        self._frontier: dict[Value, None] = {}  # dependent values that the group reads
        self.sources: set[Value] = set()  # the active ones among them
        self._stay: set[Value] = set()  # the active ones that will never be inside
        self._heap: list[tuple[int, Eqn]] = []

    @property
    def may_have_one_source(self) -> bool:
        return len(self._stay) < 2

    def add(self, eqn: Eqn) -> None:
        activity = self._bench.activity
        self.group[eqn] = None
        for value in eqn.outputs:
            self._frontier.pop(value, None)
            self.sources.discard(value)
        for value in dict.fromkeys(eqn.inputs):
            if value in activity.depends and value not in self._frontier:
                self._frontier[value] = None
                maker = value.producer
                if value in activity.active:
                    self.sources.add(value)
                if _absorbable(self._bench, maker) and value not in self._bench.ends:
                    assert maker is not None
                    heapq.heappush(self._heap, (-maker.order, maker))
                elif value in activity.active:
                    self._stay.add(value)

    def latest(self) -> Eqn | None:
        """The next equation to add: the latest that only the group reads."""
        while self._heap and self.may_have_one_source:
            eqn = heapq.heappop(self._heap)[1]
            if not self._is_apart(eqn):
                return eqn
            if eqn.out in self._bench.activity.active:
                self._stay.add(eqn.out)
        return None

    def _is_apart(self, eqn: Eqn) -> bool:
        """Whether others read an equation's result, or it is a layer of its own.

        A BatchNorm before the activation is such a layer, and so is a residual.
        """
        bench, value = self._bench, eqn.out
        if self.sources == {value} and (
            _is_learned_affine(bench, eqn) or branches.joined_before(bench, eqn, self.group)
        ):
            return True
        readers = bench.reached_uses(value) if value in bench.activity.active else ()
        return any(e not in self.group for e in readers or bench.graph.uses(value))


def _is_term(bench: Workbench, value: Value) -> bool:
    """Whether a value is read only by a sum of active values."""
    reader = bench.sole_use(value)
    if reader is None or reader.name not in ADDITIONS:
        return False
    return len(bench.activity.active_inputs(reader)) == 2


def _is_learned_affine(bench: Workbench, eqn: Eqn) -> bool:
    return affine_operand(bench, eqn) is not None and not is_written(bench, eqn)


def _is_learned_shift(bench: Workbench, eqn: Eqn) -> bool:
    """A sum with an array that is added: a bias, wherever it is."""
    shifts = eqn.name in ADDITIONS and bench.activity.is_reached(eqn)
    return shifts and _is_learned_affine(bench, eqn)


def _finish(bench: Workbench, eqns: list[Eqn], source: Value, last: Eqn) -> None:
    if not any(_nonlinear(bench, e) for e in eqns):
        return
    main = next(e for e in reversed(eqns) if _nonlinear(bench, e))
    group = Group("activation", eqns, [source], [last.out], main)
    if any(_has_inactive_term(bench, e) for e in eqns):
        group.note = "a term depends on the input without being active: all relevance passes"
    group.particulars = _facts_of(bench, eqns, source, last)
    bench.claim(group)


def _facts_of(bench: Workbench, eqns: list[Eqn], source: Value, last: Eqn) -> Activation:
    """The facts about an elementwise function, computed once for all its occurrences."""
    made = {source, *(v for e in eqns for v in e.outputs)}
    if not all(v in made or isinstance(v, Literal) for e in eqns for v in e.inputs):
        return _worked_out(bench, eqns, source, last)  # what is read from outside has bounds
    try:
        key = equations_contents(eqns, [source], [last.out], bench.facts.avals)
    except Unknown:
        return _worked_out(bench, eqns, source, last)
    known = bench.facts.functions
    if key not in known:
        known[key] = _worked_out(bench, eqns, source, last)
    return known[key]


def _worked_out(bench: Workbench, eqns: list[Eqn], source: Value, last: Eqn) -> Activation:
    """The facts about an elementwise function, by interval arithmetic."""
    low, high = bench.intervals.image(eqns, source, (0.0, 0.0), last.out)
    zero_at_zero = low >= -ZERO and high <= ZERO
    left = bench.intervals.image(eqns, source, (-math.inf, 0.0), last.out)
    one_corner = is_homogeneous(bench, eqns, source, last.out)

    def at(x: float) -> tuple[float, float]:
        return bench.intervals.image(eqns, source, (x, x), last.out)

    hard_relu = left == (0.0, 0.0) or (one_corner and at(-1.0) == at(0.0) == (0.0, 0.0))
    below, above, relu_slopes = at(-1.0), at(1.0), None
    if one_corner and below[0] == below[1] and above[0] == above[1]:
        slopes = (0.0 - below[0], above[0])
        if slopes.count(0.0) == 1 and all(map(math.isfinite, slopes)):
            relu_slopes = slopes
    return Activation(zero_at_zero, hard_relu, relu_slopes)
