"""Selectors by the part that a layer plays in the dataflow."""

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
            if whole is None or index in layers.sinks:
                continue
            readers, stack, seen = set(), list(layers.feeds[index]), set()
            while stack:
                reader = stack.pop()
                if reader in seen:
                    continue
                seen.add(reader)
                if layers.layers[reader].kind == "structural":
                    stack.extend(layers.feeds[reader])
                else:
                    readers.add(layers.layers[reader].kind)
            if readers == {whole}:
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
            # Of the kinds that were passed dense is remembered, the one that tells.
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
