"""How often each element of a value is read, through moves that repeat no element."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from jaxlrp.graph.groups import Workbench
from jaxlrp.graph.ir import Eqn, Value
from jaxlrp.graph.primitives import COPIES, rounds, sums_nothing

# Moves that repeat no element, and whose positions are known from the parameters alone.
PARTS = frozenset("slice split concatenate".split())
_WHOLE = frozenset("reshape squeeze expand_dims transpose rev broadcast_in_dim".split())
_MOST = 2**28  # elements, each of which is counted


def is_part(eqn: Eqn) -> bool:
    """Whether an equation moves elements without repeating any."""
    return eqn.name in PARTS or is_whole(eqn)


def is_whole(eqn: Eqn) -> bool:
    """Whether an equation moves all elements of a value without repeating any."""
    keeps = eqn.name in _WHOLE and eqn.inputs[0].size == eqn.out.size
    return keeps or sums_nothing(eqn) or copies_one(eqn)


def copies_one(eqn: Eqn) -> bool:
    """Whether an equation returns one value as it is: a barrier, a constraint, a name."""
    alone = eqn.name in COPIES and len(eqn.inputs) == len(eqn.outputs) == 1
    return alone and eqn.inputs[0].dtype == eqn.out.dtype and not rounds(eqn)


def is_alone(
    bench: Workbench,
    value: Value,
    moves: list[Eqn],
    leaf: Value,
    leaves: Collection[Value],
    aside: bool = False,
) -> bool:
    """Whether each element of a leaf is at most one of a value's, and is not read elsewhere then.

    Others of the `leaves` that are made of this one are read elsewhere. With `aside`, other
    equations may read the leaf itself.
    """
    if leaf.size > _MOST:
        return False
    inside = set(moves)
    carries = leaf in bench.activity.active
    made = {leaf: None}  # the leaf, and all values that moves alone make from it
    stack, steps = [leaf], set()
    while stack:
        v = stack.pop()
        for eqn in bench.reached_uses(v):
            follows = carries and is_part(eqn) and not (aside and v is leaf)
            if eqn not in steps and (eqn in inside or follows):
                steps.add(eqn)
                made.update(dict.fromkeys(eqn.outputs))
                stack.extend(v for v in eqn.outputs if v not in leaves)
    order = sorted(steps, key=lambda e: -e.order)
    others: dict[Value, int] = {}
    for v in made if carries else ():
        if aside and v is leaf:
            continue
        # Equations that relevance does not reach read the leaf as it was.
        uses = bench.reached_uses(v) if v is leaf else bench.graph.uses(v)
        others[v] = sum(e not in steps for e in uses)
        others[v] += bench.graph.is_output(v) + (v is not leaf and v in leaves)
    others.pop(value, None)
    own = _readings(order, leaf, {value: 1}, leaves)
    elsewhere = _readings(order, leaf, others, leaves)
    return not (np.any(own > 1) or np.any((own > 0) & (elsewhere > 0)))


def _readings(
    steps: list[Eqn], leaf: Value, read: dict[Value, int], leaves: Collection[Value]
) -> np.ndarray:
    """How often each element of a leaf is read through some values that moves make from it.

    The moves are given latest first. Readings of other leaves are not counted back.
    """
    counts = {v: np.full(v.shape, min(n, 9), np.uint8) for v, n in read.items() if n}
    for eqn in steps:
        given = [counts.get(v) for v in eqn.outputs]
        if all(g is None for g in given):
            continue
        for v, back in zip(eqn.inputs, _back(eqn, given), strict=True):
            if v is not leaf and v in leaves:
                continue
            # The count is capped, as one that wraps around to 0 would be a false proof.
            counts[v] = np.minimum(counts[v] + back, 9) if v in counts else back
    return counts.get(leaf, np.zeros(leaf.shape, np.uint8))


def _back(eqn: Eqn, given: Sequence[np.ndarray | None]) -> list[np.ndarray]:
    """Readings of a move's operands, from those of its results."""
    params, source = eqn.params, eqn.inputs[0]
    parts = [np.zeros(v.shape, np.uint8) if g is None else g for v, g in zip(eqn.outputs, given)]
    if eqn.name == "split":
        return [np.concatenate(parts, params["axis"])]
    (x,) = parts
    if eqn.name == "concatenate":
        ends = np.cumsum([v.shape[params["dimension"]] for v in eqn.inputs])[:-1]
        return list(np.split(x, ends, params["dimension"]))
    if eqn.name == "slice":
        strides = params["strides"] or (1,) * x.ndim
        limits = zip(params["start_indices"], params["limit_indices"], strides, strict=True)
        whole = np.zeros(source.shape, np.uint8)
        whole[tuple(slice(*limit) for limit in limits)] = x
        return [whole]
    if eqn.name == "transpose":
        return [np.transpose(x, np.argsort(params["permutation"]))]
    if eqn.name == "rev":
        return [np.flip(x, params["dimensions"])]
    if eqn.name == "reshape" and params["dimensions"] is not None:
        order = params["dimensions"]
        turned = x.reshape([source.shape[i] for i in order])
        return [np.transpose(turned, np.argsort(order))]
    return [x.reshape(source.shape)]
