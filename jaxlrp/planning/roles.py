"""Selectors by the part that a layer plays in the dataflow."""

from __future__ import annotations

import dataclasses

from jaxlrp.graph.kinds import is_product, kinds_that
from jaxlrp.planning.selectors import LayerGraph, LayerSelector

_KEEPS_SHARES = kinds_that("keeps_shares")


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
            stack, seen = [(reader, False) for reader in layers.feeds[index]], set()
            while stack:
                reader, mixed = stack.pop()
                if (reader, mixed) in seen:
                    continue
                seen.add((reader, mixed))
                kind = layers.layers[reader].kind
                if is_product(kind):
                    found.add(index)
                elif kind in _KEEPS_SHARES and not (kind == "activation" and mixed):
                    after = mixed or kind == "dense"
                    stack.extend((further, after) for further in layers.feeds[reader])
        return frozenset(found)

    def __repr__(self) -> str:
        return "softmax that feeds a product"
