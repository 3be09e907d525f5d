"""Probes: the quantities that a run reports besides the relevance of the explained inputs.

They are extra inputs of value 0 whose cotangents are these quantities: those that are requested at
a layer (its relevance, its value, ...), or its entries in the ledger. They add up over all calls of
a layer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import jax.numpy as jnp

from jaxlrp.planning.layers import Layer, group_of
from jaxlrp.planning.plans import Plan

# The words that `what=` accepts.
WORDS = ("relevance", "value", "density", "inputs", "bias")
# The words that are only known if a layer runs separately from the ReLU after it.
OF_INPUTS = frozenset({"inputs", "bias"})
# The entries of a layer's account for each example. `constants` is the relevance that reaches
# values which it does not follow further; `gross` is the sum of |R|.
ACCOUNT = (
    "relevance_out",
    "relevance_in",
    "bias",
    "stabiliser",
    "constants",
    "gross_out",
    "gross_in",
)


@dataclasses.dataclass(frozen=True)
class Probes:
    """The quantities of layers to report (a dict by word); or accounts of all layers."""

    asked: Mapping[Layer, Any] = dataclasses.field(default_factory=dict)
    accounts: Mapping[Layer, Any] = dataclasses.field(default_factory=dict)
    masks: Mapping[Layer, Any] = dataclasses.field(default_factory=dict)

    def _maps(self) -> tuple[Mapping[Layer, Any], ...]:
        return self.asked, self.accounts, self.masks

    def of(self, layers: Iterable[Layer]) -> Probes:
        """The probes of some layers, in their order."""
        layers = list(layers)
        return Probes(*({y: m[y] for y in layers if y in m} for m in self._maps()))

    def of_layer(self, layer: Layer) -> tuple[bool, ...]:
        """The words of the quantities that a layer reports."""
        return tuple(layer in m for m in self._maps())

    def arrays(self) -> list[list[Any]]:
        """The arrays alone, to pass through a transformation."""
        return [list(m.values()) for m in self._maps()]

    def filled(self, arrays: list[list[Any]]) -> Probes:
        """The same probes with other arrays."""
        pairs = zip(self._maps(), arrays, strict=True)
        return Probes(*(dict(zip(m, a, strict=True)) for m, a in pairs))


def probe(plan: Plan, layer: Layer, words: Iterable[str]) -> dict[str, Any]:
    """The zeros whose cotangents report the quantities of a layer."""

    def zeros(shape: tuple[int, ...], dtype: Any) -> Any:
        return jnp.zeros((*layer.iterations, *shape), plan.relevance_dtype(dtype))

    inputs = group_of(layer).inputs
    return {
        word: tuple(zeros(v.shape, v.dtype) for v in inputs)
        if word == "inputs"
        else zeros(layer.shape, layer.dtype)
        for word in words
    }
