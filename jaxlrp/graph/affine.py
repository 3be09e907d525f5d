"""Scales, shifts and moves: equations with one active operand.

A number in the program, or an array made of such numbers, is written, and belongs to the activation
beside it. An argument, or a value that is closed over, is learned, and belongs to a layer.
"""

from __future__ import annotations

import math

from jaxlrp.graph.groups import Workbench
from jaxlrp.graph.ir import Eqn, Value
from jaxlrp.graph.primitives import (
    ADDITIONS,
    AFFINE,
    COPIES,
    ELEMENTWISE,
    MOVES,
    makes_integers,
    sums_nothing,
)


def affine_operand(bench: Workbench, eqn: Eqn, spread: bool = False) -> int | None:
    """Position of the active operand if the equation scales or shifts it by a static value.

    With `spread` it may also repeat the operand along axes of size 1.
    """
    if eqn.name not in AFFINE or is_mask(bench, eqn):
        return None
    held = bench.activity.held.get(eqn)
    active = [i for i, v in enumerate(eqn.inputs) if i != held and v in bench.activity.active]
    if len(active) != 1 or (eqn.name == "div" and active[0] == 1):
        return None
    others = (v for i, v in enumerate(eqn.inputs) if i not in (active[0], held))
    if any(v in bench.activity.depends for v in others):
        return None  # a gate, or a detached value, is not a parameter
    if eqn.out.shape != eqn.inputs[active[0]].shape and not spread:
        return None  # the active operand is broadcast
    return active[0]


def static_operands(bench: Workbench, eqn: Eqn) -> list[Value]:
    """The factors or shifts of an equation: parameters, and divisors that are held."""
    active = bench.activity.active_inputs(eqn)
    return [v for v in eqn.inputs if v not in active]


def is_mask(bench: Workbench, eqn: Eqn) -> bool:
    """A sum with a static mask of 0 and -inf: a choice, not a bias."""
    if eqn.name != "add":
        return False
    for value in eqn.inputs:
        while value.producer is not None and value.producer.name in MOVES | COPIES:
            value = value.producer.inputs[0]
        maker = value.producer
        if value in bench.activity.depends or maker is None or maker.name != "select_n":
            continue
        if {bench.intervals.constant(v) for v in maker.inputs[1:]} == {0.0, -math.inf}:
            return True
    return False


def is_written(bench: Workbench, eqn: Eqn) -> bool:
    """A scale or shift by numbers that are written in the program, not learned."""
    static = [v for v in eqn.inputs if v not in bench.activity.depends]
    return eqn.name == "neg" or any(not bench.statics.parameters(v) for v in static)


def is_written_shift(bench: Workbench, eqn: Eqn) -> bool:
    """A shift by numbers that are written in the program, not learned (and are not 0)."""
    if eqn.name not in ADDITIONS or not is_written(bench, eqn):
        return False
    static = (v for v in eqn.inputs if v not in bench.activity.depends)
    return all(bench.intervals.constant(v) != 0.0 for v in static)


def is_written_scale(bench: Workbench, eqn: Eqn) -> bool:
    """A scale or change of sign that is written in the program: it belongs to its reader."""
    if eqn.name == "neg":
        return True
    if affine_operand(bench, eqn) is None or not is_written(bench, eqn):
        return False
    return eqn.name in ("mul", "div") or not is_written_shift(bench, eqn)


def leads_into_nonlinearity(bench: Workbench, value: Value) -> bool:
    """Whether a nonlinear elementwise equation reads the value, possibly after moves."""
    stack, seen = [value], {value}
    while stack:
        for eqn in bench.reached_uses(stack.pop()):
            moves = is_move(bench, eqn) or eqn.name in COPIES
            if moves or affine_operand(bench, eqn) is not None:
                stack += [v for v in eqn.outputs if v not in seen]
                seen.update(eqn.outputs)
            elif (eqn.name in ELEMENTWISE and eqn.name not in AFFINE) or (
                eqn.name in ("mul", "div") and eqn.inputs[0] is eqn.inputs[1]
            ):
                return True
    return False


def is_move(bench: Workbench, eqn: Eqn) -> bool:
    """Whether an equation moves, selects or repeats elements by static positions and masks."""
    moves = eqn.name in MOVES or eqn.name in COPIES or eqn.name == "select_n"
    if eqn.bodies or not (moves or sums_nothing(eqn)):
        return False
    if eqn.name == "select_n" and sum(v in bench.activity.active for v in eqn.inputs) != 1:
        return False
    if makes_integers(eqn):
        return False
    depends = bench.activity.depends
    return all(v not in depends or v in bench.activity.active for v in eqn.inputs)


def brings_zeros(bench: Workbench, eqn: Eqn) -> bool:
    """Whether static elements, which are not inputs, are put beside the active ones."""
    if eqn.name == "select_n" or eqn.name in ("pad", "scatter", "dynamic_update_slice"):
        return True
    return eqn.name == "concatenate" and any(v not in bench.activity.active for v in eqn.inputs)
