"""Paths on which relevance bypasses the masked layers of `condition=`.

A mask is placed at a layer's output. Relevance bypasses it if some path of the dataflow, from an
output back to an explained value, meets no masked layer. Mark all layers that depend on a masked
layer. A path that starts at a marked layer and meets no mask leaves the marked part exactly once,
at a layer that reads both a masked value and something else. These layers are the answer. One walk
over the layers in each direction finds them all, in loops and branches too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from jaxlrp.planning.layers import Layer
from jaxlrp.planning.plans import Note, Plan
from jaxlrp.planning.selectors import LayerGraph

_SHOWN = 3  # names, or places, in a text


def open_paths(plan: Plan, masked: Iterable[Layer]) -> Iterator[Note]:
    """A note for each place where relevance reaches an explained value past the masked layers.

    No such path is left if its `layers` are masked too.
    """
    number = {layer: n for n, layer in enumerate(plan.layers)}
    masks = frozenset(number[layer] for layer in masked)
    if masks:
        yield from _Paths(plan.adjacency, masks).note()


class _Paths:
    """The paths of a plan that meet no masked layer."""

    def __init__(self, layers: LayerGraph, masks: frozenset[int]):
        self._layers = layers.layers
        self._bare = layers.bare
        count = len(layers.layers)
        # The edges that relevance crosses, back from each layer and forth to each.
        self._makers: list[list[int]] = [[] for _ in range(count)]
        self._readers: list[list[int]] = [[] for _ in range(count)]
        for reader, inputs in enumerate(layers.makers):
            for position, makers in enumerate(inputs):
                if self._crosses(reader, position):
                    self._makers[reader] += makers
                    for maker in makers:
                        self._readers[maker].append(reader)
        self._entries = {i for i, position in layers.entries if self._crosses(i, position)}
        self._masks = masks
        arrived = _walk(layers.sinks, self._makers, masks.__contains__)
        self._open = _walk(self._entries, self._readers, lambda i: i not in arrived)
        self._sinks = layers.sinks & self._open
        self._after = _walk(masks, self._readers)
        self._before = _walk(masks, self._makers)

    def _crosses(self, reader: int, position: int) -> bool:
        layer = self._layers[reader]
        return layer.rule.sends_to(position, layer)

    def note(self) -> Iterator[Note]:
        closing: dict[int, None] = {}
        places: list[str] = []
        for reader in sorted(self._open & self._after):
            beside = self._beside(reader)
            if beside:
                # Masking a value before a masked layer as well would mask that layer once more.
                apart = None not in beside and self._before.isdisjoint(beside)
                closing.update(
                    dict.fromkeys(i for i in (beside if apart else [reader]) if i is not None)
                )
                places.append(f"{self._name(reader)} also reads {_listed(map(self._name, beside))}")
        for sink in sorted(self._sinks - self._after):
            closing[sink] = None
            places.append(f"{self._name(sink)} is an output that sends no relevance there")
        if self._bare:
            places.append("an explained value is an output itself, which no mask closes")
        if places:
            names = tuple(self._layers[i].name for i in closing)
            remedy = f" To stop it, mask {_listed(map(repr, names))} too." if names else ""
            masked = _listed(map(self._name, sorted(self._masks)))
            text = f"Relevance reaches an explained value past {masked}, masked by condition=: "
            yield Note("open path", f"{text}{_listed(places, '; ')}.{remedy}", names)

    def _beside(self, reader: int) -> list[int | None]:
        """The inputs of a layer that do not come from a masked one; None is an explained value."""
        found: dict[int | None, None] = {}
        for maker in self._makers[reader]:
            if maker in self._open and maker not in self._after:
                found[self._through_moves(maker)] = None
        if reader in self._entries:
            found[None] = None
        return list(found)

    def _through_moves(self, index: int) -> int | None:
        """The layer whose elements are moved; its name is the one that users know."""
        while self._layers[index].kind == "structural":
            makers = {i for i in self._makers[index] if i in self._open}
            if index in self._entries:
                return index if makers else None
            if len(makers) != 1:
                return index
            (index,) = makers
        return index

    def _name(self, index: int | None) -> str:
        return "an explained value" if index is None else repr(self._layers[index].name)


def _walk(
    starts: Iterable[int],
    further: Sequence[Iterable[int]],
    closed: Callable[[int], bool] = lambda _: False,
) -> set[int]:
    """All layers that are reached from some, including these, without entering closed ones."""
    found: set[int] = set()
    stack = list(starts)
    while stack:
        index = stack.pop()
        if index not in found and not closed(index):
            found.add(index)
            stack += further[index]
    return found


def _listed(texts: Iterable[str], between: str = ", ") -> str:
    texts = list(dict.fromkeys(texts))
    more = f" and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else ""
    return between.join(texts[:_SHOWN]) + more
