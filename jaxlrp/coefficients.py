"""Products in which one factor is computed from what the other one carries.

In a selective state space h = a h + b u, y = c h, the coefficients a, b and c are functions of u:
they say how u is passed on. Such a product has a signal, the factor that carries u, and a
coefficient.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from jaxlrp.selectors import LayerGraph, Selector

# What carries on what it was given, and what computes something new from it.
_CARRIES = frozenset("structural affine add reduce avg_pool norm".split())
_COMPUTES = frozenset("dense conv".split())
_PRODUCTS = ("product", "matmul")


@dataclasses.dataclass(frozen=True)
class SignalIs(Selector):
    """Products whose signal is the factor at `position`.

    The other one is bounded by [0, 1], is a share, or is computed by a linear layer from what the
    signal carries.
    """

    position: int

    def select(self, layers: LayerGraph) -> frozenset[int]:
        signals = _signals(layers)
        return frozenset(i for i, position in signals.items() if position == self.position)

    def __repr__(self) -> str:
        return f"product whose signal is factor {self.position}"


def _signals(layers: LayerGraph) -> dict[int, int]:
    """Position of the signal of every product that has one; to a fixed point."""
    products = [
        i
        for i, layer in enumerate(layers.layers)
        if layer.kind in _PRODUCTS and len(layers.makers[i]) == 2
    ]
    signals: dict[int, int] = {}
    for index in products:
        gate, by = layers.layers[index].gate
        if gate is not None and by in ("divides", "bounds", "share"):
            signals[index] = 1 - gate
    changed = True
    while changed:
        changed = False
        for index in products:
            if index in signals:
                continue
            first, second = layers.makers[index]
            second_is_computed = _computed(
                layers, second, _carried(layers, first, signals), signals
            )
            first_is_computed = _computed(layers, first, _carried(layers, second, signals), signals)
            if first_is_computed != second_is_computed:
                signals[index] = 0 if second_is_computed else 1
                changed = True
    return signals


def _carried(layers: LayerGraph, start: Iterable[int], signals: dict[int, int]) -> set[int]:
    """The layers whose output a value carries on."""
    stack, found = list(start), set()
    while stack:
        index = stack.pop()
        if index in found:
            continue
        found.add(index)
        if layers.layers[index].kind in _CARRIES:
            stack.extend(m for made in layers.makers[index] for m in made)
        elif index in signals:
            stack.extend(layers.makers[index][signals[index]])
    return found


def _computed(
    layers: LayerGraph, start: Sequence[int], sources: set[int], signals: dict[int, int]
) -> bool:
    """Whether a linear layer lies between one of the sources and a value."""
    stack, seen = [(index, False) for index in start], set()
    while stack:
        index, crossed = stack.pop()
        if (index, crossed) in seen:
            continue
        seen.add((index, crossed))
        if crossed and index in sources:
            return True
        after = crossed or layers.layers[index].kind in _COMPUTES
        made = layers.makers[index]
        if index in signals:  # of a product the coefficient is not what it carries
            made = [made[signals[index]]]
        stack.extend((m, after) for group in made for m in group)
    return False
