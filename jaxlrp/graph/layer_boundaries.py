"""Boundaries that no layer crosses: equations on both sides can never be in one layer."""

from __future__ import annotations

import heapq
import itertools

from jaxlrp.graph.affine import is_written, is_written_shift
from jaxlrp.graph.groups import Workbench
from jaxlrp.graph.ir import Eqn, Value
from jaxlrp.graph.linear import core_operand
from jaxlrp.graph.primitives import (
    ADDITIONS,
    AFFINE,
    COPIES,
    DEVICE_SUMS,
    ELEMENTWISE,
    LINEAR_CORES,
    MOVES,
    REDUCTIONS,
    is_view,
)


def is_crossed(bench: Workbench, value: Value) -> bool:
    """Whether a layer might hold the equation that makes a value and equations that read it."""
    if value not in bench.activity.reached:
        return True  # a statistic, or a mask, that follows from the input
    maker, uses = value.producer, bench.reached_uses(value)
    if maker is None or value in bench.outputs or value in bench.activity.explained:
        return False
    # Whether a scale folds into a core depends on equations before it, a shift on those after it.
    if maker.name in ELEMENTWISE and _is_scaled(bench, value):
        return True
    if _is_shifted(bench, maker):
        return True
    if len(uses) == 1 and _are_one_tree(bench, maker, uses[0]):
        return True
    # A core folds the equations before it, whatever else reads their results.
    if _is_link(bench, maker) and any(_is_core(bench, e) or _is_link(bench, e) for e in uses):
        return True
    if _is_alone(bench, maker) or any(_is_alone(bench, e) for e in uses):
        return False
    if _is_core(bench, maker):
        return any(_is_link(bench, e) for e in uses)
    if all(_is_core(bench, e) for e in uses):
        return _is_link(bench, maker)
    if _begins_at_join(bench, maker):
        return all(e.name in ELEMENTWISE or _is_link(bench, e) for e in uses)
    return True


def _is_scaled(bench: Workbench, value: Value) -> bool:
    """Whether a value, or a view of it, is scaled by a number that is written in the program."""
    for eqn in bench.reached_uses(value):
        if is_view(eqn):
            if _is_scaled(bench, eqn.out):
                return True
        elif eqn.name == "neg" or (eqn.name in ("mul", "div") and is_written(bench, eqn)):
            return True
    return False


def _is_shifted(bench: Workbench, eqn: Eqn | None) -> bool:
    """Whether a number that is written in the program was added, before scales and copies."""
    while eqn is not None and _is_link(bench, eqn):
        if is_written_shift(bench, eqn):
            return True
        active = bench.activity.active_inputs(eqn)
        eqn = active[0].producer if active else None
    return False


def _begins_at_join(bench: Workbench, eqn: Eqn) -> bool:
    """Whether an equation ends an elementwise chain that begins at a core or a join.

    A statistic (of a norm, of a softmax) belongs to a value that also has other readers.
    """
    while not (_is_core(bench, eqn) or _is_alone(bench, eqn)):
        active = bench.activity.active_inputs(eqn)
        if eqn.name not in ELEMENTWISE or eqn.name in ("exp", "exp2") or len(active) != 1:
            return False
        before = active[0].producer
        if before is None or bench.sole_use(active[0]) is not eqn:
            return False
        eqn = before
    return True


def _is_core(bench: Workbench, eqn: Eqn) -> bool:
    return eqn.name in LINEAR_CORES and core_operand(bench, eqn) is not None


def _is_link(bench: Workbench, eqn: Eqn) -> bool:
    """Whether an equation may fold into the core of a linear layer."""
    if eqn.name in MOVES or eqn.name == "select_n":  # parts of one value may meet again
        return True
    one = len(bench.activity.active_inputs(eqn)) == 1
    return one and (eqn.name in AFFINE | DEVICE_SUMS or is_view(eqn))


def _are_one_tree(bench: Workbench, maker: Eqn, reader: Eqn) -> bool:
    """Whether both may belong to one sum, one product, or to a product that is summed."""
    if maker.name in _TERMS and _is_stacked_term(bench, reader):
        return True
    if reader.name == "reduce_sum":
        return maker.name in MOVES or maker.name in ("mul", "div", "neg")
    return any(maker.name in made and reader.name in read for made, read in _TREES)


def _is_stacked_term(bench: Workbench, view: Eqn) -> bool:
    """Whether a value with one more axis is joined to others that are then added up."""
    joined = bench.sole_use(view.out) if is_view(view) else None
    if joined is None or joined.name != "concatenate":
        return False
    total = bench.sole_use(joined.out)
    return total is not None and total.name == "reduce_sum"


_TERMS = ADDITIONS | COPIES | {"neg", "reordered"}
_FACTORS = COPIES | {"mul", "div", "neg", "reordered"}
_TREES = ((_TERMS | {"reduce_sum"}, _TERMS), (_FACTORS, _FACTORS))


def _is_alone(bench: Workbench, eqn: Eqn) -> bool:
    """Whether an equation joins values without a common source at which a layer could begin.

    The sum of a residual stream does: no layer except its own tree holds it.
    """
    active = bench.activity.active_inputs(eqn)
    return len(active) == 2 and not _have_common_source(bench, *active)


def _have_common_source(bench: Workbench, a: Value, b: Value) -> bool:
    """Whether paths back from two values, through equations of one layer, may meet."""
    ways: dict[Value, int] = {a: 1, b: 2}
    heap: list[tuple[int, int, Value]] = []
    open_ways = {1: 0, 2: 0}
    turn = itertools.count()

    def push(value: Value) -> None:
        order = -1 if value.producer is None else value.producer.order
        heapq.heappush(heap, (-order, next(turn), value))
        open_ways[ways[value]] += 1

    push(a)
    push(b)
    # Latest first: if one path has passed an equation, the other reaches it before it ends.
    while open_ways[1] and open_ways[2]:
        value = heapq.heappop(heap)[2]
        way = ways[value]
        open_ways[way] -= 1
        eqn = value.producer
        if eqn is None or not _may_be_interior(bench, eqn):
            continue
        for before in eqn.inputs:
            if before not in bench.activity.depends:
                continue
            if before not in ways:
                ways[before] = way
                push(before)
            elif ways[before] != way:
                return True
    return False


_INTERIOR = ELEMENTWISE | MOVES | REDUCTIONS | {"stop_gradient", "argmax"}


def _may_be_interior(bench: Workbench, eqn: Eqn) -> bool:
    if eqn.name == "dot_general":
        return all(v in bench.activity.depends for v in eqn.inputs)
    return eqn.name in _INTERIOR
