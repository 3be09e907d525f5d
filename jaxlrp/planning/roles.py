"""Selectors by the role of a layer in the dataflow."""

from __future__ import annotations

import dataclasses

from jaxlrp.graph.kinds import is_product, keeps_shares
from jaxlrp.planning.selectors import LayerGraph, LayerSelector


@dataclasses.dataclass(frozen=True)
class Summand(LayerSelector):
    """Dense layers and convolutions read by sums alone, and sums read by shifts alone.

    The sum that they are a summand of is stabilised once.
    """

    def select(self, layers: LayerGraph) -> frozenset[int]:
        found = set()
        for index, layer in enumerate(layers.layers):
            whole = {"dense": "add", "conv": "add", "add": "affine"}.get(layer.kind)
            if whole is not None and _read_by(index, layers) == {whole}:
                found.add(index)
        return frozenset(found)

    def __repr__(self) -> str:
        return "a summand"


@dataclasses.dataclass(frozen=True)
class SoftmaxOfProduct(LayerSelector):
    """Softmax layers whose output is a factor of a product of two active values.

    It may be moved, scaled, clipped, mixed over heads or renormalised on the way.
    """

    def select(self, layers: LayerGraph) -> frozenset[int]:
        found = set()
        for index, layer in enumerate(layers.layers):
            if layer.kind != "softmax":
                continue
            # Of the kinds that were passed only dense is remembered, as only it matters.
            stack = [(reader, "structural") for reader in layers.feeds[index]]
            seen = set(stack)
            while stack:
                reader, before = stack.pop()
                kind = layers.layers[reader].kind
                if is_product(kind):
                    found.add(index)
                elif keeps_shares(before, kind):
                    now = "dense" if "dense" in (before, kind) else before
                    further = {(next_, now) for next_ in layers.feeds[reader]} - seen
                    seen |= further
                    stack.extend(further)
        return frozenset(found)

    def __repr__(self) -> str:
        return "softmax that feeds a product"


def _read_by(index: int, layers: LayerGraph) -> set[str]:
    """The kinds that read a layer, moved or not; "output" if it is an output of the function."""
    kinds: set[str] = set()
    stack, seen = [index], {index}
    while stack:
        passed = stack.pop()
        if passed in layers.sinks:
            kinds.add("output")
        for reader in layers.feeds[passed]:
            if layers.layers[reader].kind != "structural":
                kinds.add(layers.layers[reader].kind)
            elif reader not in seen:
                seen.add(reader)
                stack.append(reader)
    return kinds
