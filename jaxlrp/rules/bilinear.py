"""Rules for products of two values that both depend on the input."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxlrp.errors import RuleError
from jaxlrp.rules.base import Rule


@dataclasses.dataclass(frozen=True)
class Uniform(Rule):
    """Half of the relevance to each factor of a product.

    R_a = a * vjp_a(R / 2z), likewise for b, with z = a b (elementwise or a matrix product). A
    divisor counts as the factor 1/b.
    Source: Achtibat et al. 2024, proposition 3.3.
    """

    fits: ClassVar[frozenset[str] | None] = frozenset({"matmul", "product"})

    def propagate(self, layer: Any) -> Any:
        back = jax.tree.map(lambda c: c / 2, layer.vjp(layer.over(layer.z)))
        if layer.reciprocal is None:
            return back
        # d(a/b)/db has the sign of -a/b; as a factor 1/b the divisor has a positive share.
        return tuple(-c if i == layer.reciprocal else c for i, c in enumerate(back))


@dataclasses.dataclass(frozen=True)
class SignalTakesAll(Rule):
    """The gate of a product gets nothing, the signal everything.

    Args:
      signal: position of the signal among the two factors; None lets the graph decide (the gate
        lies in [0, 1], or is an activation's output, or divides). Where it cannot, `Uniform`
        applies, and the plan says so.

    Source: Arras et al., Explaining and interpreting LSTMs, 2019.
    """

    signal: int | None = None

    fits: ClassVar[frozenset[str] | None] = frozenset({"matmul", "product"})

    def __post_init__(self) -> None:
        if self.signal not in (None, 0, 1):
            raise RuleError(
                f"SignalTakesAll(signal={self.signal!r}): expected 0, 1, or None to let the graph "
                "decide."
            )

    def propagate(self, layer: Any) -> Any:
        signal = self.signal
        if signal is None and layer.gate is not None:
            signal = 1 - layer.gate
        if signal is None or not isinstance(layer.x, tuple):
            return Uniform().propagate(layer)
        back = layer.vjp(layer.over(layer.z))
        flipped = -1.0 if layer.reciprocal == signal else 1.0
        return tuple(flipped * c if i == signal else jnp.zeros_like(c) for i, c in enumerate(back))
