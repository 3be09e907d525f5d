"""Products in which one factor is computed from the value that the other one carries.

In a selective state space h = a h + b u, y = c h, the coefficients a, b and c are functions of u
that say how u is passed on. Such a product has a signal, the factor that carries u, and a
coefficient.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from jaxlrp.graph.kinds import is_product, kinds_that
from jaxlrp.planning.selectors import LayerGraph, LayerSelector

# Kinds that carry a value on, and kinds that compute a new value from it.
_CARRIES = kinds_that("hands_on")
_COMPUTES = frozenset({"dense", "conv"})
# Proofs of a gate that are accepted here too.
_SHOWN = frozenset({"divides", "bounds", "share"})


@dataclasses.dataclass(frozen=True)
class SignalIs(LayerSelector):
    """Products whose signal is the factor at `position`.

    Every other factor is bounded by [0, 1], is a share, or is computed by a linear layer from the
    value that the signal carries.
    """

    position: int

    def select(self, layers: LayerGraph) -> frozenset[int]:
        signals = _signals(layers)
        return frozenset(i for i, position in signals.items() if position == self.position)

    def __repr__(self) -> str:
        return f"product whose signal is factor {self.position}"


def _signals(layers: LayerGraph) -> dict[int, int]:
    """Position of the signal of every product that has one, iterated to a fixed point."""
    products = {
        i: list(range(len(layers.makers[i])))
        for i, layer in enumerate(layers.layers)
        if is_product(layer.kind) and len(layers.makers[i]) > 1
    }
    signals: dict[int, int] = {}
    for index, factors in products.items():
        layer = layers.layers[index]
        if _SHOWN.issuperset(layer.gate[1].split(", ")):
            products[index] = factors = [i for i in factors if i not in layer.gates]
        if len(factors) == 1:
            signals[index] = factors[0]
    changed = True
    while changed:
        changed = False
        for index, factors in products.items():
            if index not in signals:
                found = _signal(layers, layers.makers[index], factors, signals)
                if found is not None:
                    signals[index], changed = found, True
    return signals


def _signal(
    layers: LayerGraph,
    makers: Sequence[Sequence[int]],
    factors: Sequence[int],
    signals: dict[int, int],
) -> int | None:
    """The factor from which all others are computed, while it is computed from none of them."""
    carried = {i: _carried(layers, makers[i], signals) for i in factors}
    computed = {
        (i, j): _computed(layers, makers[j], carried[i], signals)
        for i in factors
        for j in factors
        if i != j
    }
    for i in factors:
        others = [j for j in factors if j != i]
        if all(computed[i, j] and not computed[j, i] for j in others):
            return i
    return None


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
        if index in signals:  # a product does not carry the value of its coefficient
            made = [made[signals[index]]]
        stack.extend((m, after) for group in made for m in group)
    return False
