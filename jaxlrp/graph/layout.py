"""The axes of operands in an output: axes that may vary, and axes that are aligned.

For each operand, a layout function returns the output axes along which the output may vary because
the operand varies along one of its axes. It also returns the axes along which the output may vary
independently of operands.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from jaxlrp.graph.ir import Eqn

Axes = tuple[int, ...]


class Layout(NamedTuple):
    """For each operand: its axes, and the output axes that they become."""

    operands: tuple[dict[int, Axes], ...]
    own: frozenset[int] = frozenset()


Layouts = Callable[[Eqn], "Layout | None"]


def _kept(rank: int) -> dict[int, Axes]:
    return {i: (i,) for i in range(rank)}


def elementwise(eqn: Eqn) -> Layout | None:
    """Element by element; a scalar beside arrays varies along no axis."""
    rank = eqn.out.ndim
    if any(v.ndim not in (0, rank) for v in eqn.inputs):
        return None
    return Layout(tuple(_kept(v.ndim) for v in eqn.inputs))


def moving_along(*names: str) -> Layouts:
    """Element by element, except along the axes that the parameters name."""

    def layout(eqn: Eqn) -> Layout | None:
        found = elementwise(eqn)
        axes = [eqn.params[name] for name in names]
        flat = (a for axis in axes for a in (axis if isinstance(axis, tuple) else (axis,)))
        return None if found is None else found._replace(own=frozenset(flat))

    return layout


def windows(eqn: Eqn) -> Layout | None:
    """Windows may hold padding, so the result varies along the axes of the windows."""
    sizes = eqn.params["window_dimensions"]
    own = frozenset(i for i, n in enumerate(sizes) if n != 1)
    return Layout((_kept(eqn.out.ndim), *({} for _ in eqn.inputs[1:])), own)


def padded(eqn: Eqn) -> Layout:
    config = eqn.params["padding_config"]
    own = frozenset(i for i, sizes in enumerate(config) if any(sizes))
    return Layout((_kept(eqn.out.ndim), {}), own)


def selected(eqn: Eqn) -> Layout:
    """One contiguous part along every axis, wherever it begins."""
    return Layout((_kept(eqn.out.ndim), *({} for _ in eqn.inputs[1:])))


def updated(eqn: Eqn) -> Layout:
    whole, part = (v.shape for v in eqn.inputs[:2])
    own = frozenset(i for i, (n, m) in enumerate(zip(whole, part, strict=True)) if n != m)
    rest = ({} for _ in eqn.inputs[2:])
    return Layout((_kept(len(whole)), _kept(len(part)), *rest), own)


def broadcast(eqn: Eqn) -> Layout:
    dims = eqn.params["broadcast_dimensions"]
    first = {i: (int(d),) for i, d in enumerate(dims)}
    return Layout((first, *({} for _ in eqn.inputs[1:])))


def transposed(eqn: Eqn) -> Layout:
    return Layout(({a: (i,) for i, a in enumerate(eqn.params["permutation"])},))


def reshaped(eqn: Eqn) -> Layout | None:
    groups = reshape_groups(eqn.inputs[0].shape, eqn.out.shape)
    if groups is None:
        return None
    return Layout(({i: tuple(after) for before, after in groups for i in before},))


def reduced(eqn: Eqn) -> Layout:
    axes = eqn.params["axes"]
    left = [i for i in range(eqn.inputs[0].ndim) if i not in axes]
    places: dict[int, Axes] = dict.fromkeys(axes, ()) | {a: (i,) for i, a in enumerate(left)}
    return Layout(tuple(places for _ in eqn.inputs))


def counted(eqn: Eqn) -> Layout:
    return Layout(tuple({} for _ in eqn.inputs), frozenset({eqn.params["dimension"]}))


def contracted(eqn: Eqn) -> Layout:
    contract, batch = eqn.params["dimension_numbers"]
    operands = []
    start = len(batch[0])
    for number in (0, 1):
        places: dict[int, Axes] = dict.fromkeys(contract[number], ())
        places |= {a: (i,) for i, a in enumerate(batch[number])}
        free = [a for a in range(eqn.inputs[number].ndim) if a not in places]
        operands.append(places | {a: (start + i,) for i, a in enumerate(free)})
        start += len(free)
    return Layout(tuple(operands))


def convolved(eqn: Eqn) -> Layout | None:
    numbers = eqn.params["dimension_numbers"]
    if eqn.params["batch_group_count"] != 1:
        return None
    lhs: dict[int, Axes] = dict.fromkeys(range(eqn.inputs[0].ndim), ())
    lhs[numbers.lhs_spec[0]] = (numbers.out_spec[0],)
    if eqn.params["feature_group_count"] != 1:
        lhs[numbers.lhs_spec[1]] = (numbers.out_spec[1],)
    rhs: dict[int, Axes] = dict.fromkeys(range(eqn.inputs[1].ndim), ())
    rhs[numbers.rhs_spec[0]] = (numbers.out_spec[1],)
    # Padding varies along spatial axes, and so do operands that vary there.
    return Layout((lhs, rhs), frozenset(numbers.out_spec[2:]))


def gathered(eqn: Eqn) -> Layout:
    """A slice varies along its own axes as the operand does, and along others as the indices do."""
    numbers = eqn.params["dimension_numbers"]
    gone = (*numbers.collapsed_slice_dims, *numbers.operand_batching_dims)
    kept = [a for a in range(eqn.inputs[0].ndim) if a not in gone]
    places: dict[int, Axes] = {int(a): () for a in numbers.collapsed_slice_dims}
    places |= {a: (int(d),) for a, d in zip(kept, numbers.offset_dims, strict=True)}
    batch = [i for i in range(eqn.out.ndim) if i not in numbers.offset_dims]
    operand_batch = zip(
        numbers.operand_batching_dims, numbers.start_indices_batching_dims, strict=True
    )
    places |= {int(a): (batch[int(i)],) for a, i in operand_batch}
    last = eqn.inputs[1].ndim - 1
    indices: dict[int, Axes] = {i: (batch[i],) for i in range(last)}
    indices[last] = ()
    return Layout((places, indices))


# -- reshapes ------------------------------------------------------------------------------------


def unit_reshape(old: Axes, new: Axes) -> dict[int, int] | None:
    """The new place of each axis in a reshape that only adds or drops axes of size 1, or None."""
    wide_old = [i for i, n in enumerate(old) if n != 1]
    wide_new = [i for i, n in enumerate(new) if n != 1]
    if [old[i] for i in wide_old] != [new[i] for i in wide_new]:
        return None
    return dict(zip(wide_old, wide_new, strict=True))


def reshape_groups(old: Axes, new: Axes) -> list[tuple[list[int], list[int]]] | None:
    """The smallest groups of axes that a reshape maps to each other, without axes of size 1."""
    if 0 in old:
        return None
    left = [i for i, n in enumerate(old) if n != 1]
    right = [i for i, n in enumerate(new) if n != 1]
    groups: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(left) and j < len(right):
        before, after = [left[i]], [right[j]]
        n, m = old[left[i]], new[right[j]]
        i, j = i + 1, j + 1
        while n != m:
            if n < m:
                if i == len(left):
                    return None
                before.append(left[i])
                n, i = n * old[left[i]], i + 1
            else:
                if j == len(right):
                    return None
                after.append(right[j])
                m, j = m * new[right[j]], j + 1
        groups.append((before, after))
    return groups
