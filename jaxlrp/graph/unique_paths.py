"""Whether each input element of a linear region reaches each of its outputs along one path at most.

This holds for moves that repeat no element. Otherwise the elements are numbered and the numbers
moved, and no number may occur twice among those that the core adds up. Windows that a gather or a
dynamic slice takes are followed if their positions are written in the program.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from jaxlrp.graph import moving
from jaxlrp.graph.ir import Eqn, Value
from jaxlrp.graph.places import Places
from jaxlrp.graph.primitives import sums_nothing

# Beyond so many elements nothing is claimed, so that planning stays quick.
_MOST = 4_000_000
_Numbers = dict[Value, "np.ndarray | None"]


def has_unique_paths(
    places: Places, eqns: Sequence[Eqn], source: Value, core: Eqn, operand: int
) -> bool:
    """Whether each element of `source` reaches an output once, through a core's operand."""
    links = {source} | {v for e in eqns for v in e.outputs}
    if not any(_repeats(e, links) for e in eqns):
        return True
    if max(v.size for v in links) > _MOST:
        return False
    numbers: _Numbers = {source: np.arange(1, source.size + 1).reshape(source.shape)}
    for eqn in eqns:
        moved = _moved(places, eqn, numbers)
        if moved is None:
            return False
        numbers.update(zip(eqn.outputs, moved, strict=True))
    found = numbers.get(core.inputs[operand])
    return found is not None and _met_once(found, core, operand)


def _repeats(eqn: Eqn, links: set[Value]) -> bool:
    active = [v for v in eqn.inputs if v in links]
    if eqn.name in ("gather", "tile", "scatter", "dynamic_update_slice"):
        return True
    return len(active) > 1 or sum(v.size for v in eqn.outputs) > sum(v.size for v in eqn.inputs)


def _met_once(numbers: np.ndarray, core: Eqn, operand: int) -> bool:
    """Whether no output adds an element twice, by the elements' numbers; 0 stands for none."""
    if core.name == "reduce_sum":
        contracted = tuple(core.params["axes"])
    elif core.name == "dot_general":
        contracted = tuple(core.params["dimension_numbers"][0][operand])
    else:  # windows overlap: nowhere twice
        contracted = tuple(range(numbers.ndim))
    kept = [i for i in range(numbers.ndim) if i not in contracted]
    width = math.prod(numbers.shape[i] for i in contracted)
    rows = np.transpose(numbers, (*kept, *contracted)).reshape(-1, width)
    rows = np.sort(rows, axis=1)
    return not bool(np.any((rows[:, 1:] == rows[:, :-1]) & (rows[:, 1:] != 0)))


def _moved(places: Places, eqn: Eqn, numbers: _Numbers) -> list[np.ndarray] | None:
    """The numbers after an equation, with 0 for static elements; None if they are unknown."""
    given = [numbers.get(v) for v in eqn.inputs]
    active = [x for x in given if x is not None]
    if len(active) == 0:
        return None
    x, name = active[0], eqn.name
    if name == "concatenate":
        pairs = zip(given, eqn.inputs, strict=True)
        parts = [np.zeros(v.shape, int) if g is None else g for g, v in pairs]
        return moving.moved(eqn, parts)
    if len(active) > 1:
        return None
    if sums_nothing(eqn):
        return [x.reshape(eqn.out.shape)]
    if name in moving.BY_PARAMETERS:
        return moving.moved(eqn, [x])
    if name in _AT_PLACES:
        known = [places.known(v) for v in eqn.inputs[1:]]
        at = [p for p in known if p is not None]
        return moving.moved(eqn, [x, *at]) if given[0] is x and len(at) == len(known) else None
    out = eqn.outputs[0].shape
    fits = x.ndim == len(out) and all(a in (1, b) for a, b in zip(x.shape, out, strict=True))
    if len(eqn.outputs) == 1 and fits:
        # Scales, shifts, copies, choices by static masks: element for element.
        return [np.broadcast_to(x, eqn.out.shape)] if name not in _OTHERS else None
    return None


_AT_PLACES = frozenset({"gather", "dynamic_slice"})
_OTHERS = frozenset("scatter dynamic_update_slice tile sort".split())
