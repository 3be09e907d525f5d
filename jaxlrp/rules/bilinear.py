"""Rules for products of two values that both depend on the input."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax.numpy as jnp

from jaxlrp.errors import RuleError
from jaxlrp.rules.base import Rule, check_number


@dataclasses.dataclass(frozen=True)
class Uniform(Rule):
    """Half of the relevance to each factor of a product.

    R_a = a * vjp_a(R / 2z), likewise for b, with z = a b (elementwise or a matrix product). A
    divisor counts as the factor 1/b. Of a product of n factors (over an axis, or up to an
    element) each gets 1/n.
    Source: Achtibat et al. 2024, proposition 3.3.
    """

    fits: ClassVar[frozenset[str] | None] = frozenset({"matmul", "product"})

    def propagate(self, layer: Any) -> Any:
        back = layer.vjp(layer.over(layer.z, share=1 / layer.factors))
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


@dataclasses.dataclass(frozen=True)
class Proportional(Rule):
    """Each factor of a product z = a b gets a share in proportion to its own value.

    R_a = a / stab(a + b) R, R_b = b / stab(a + b) R; with `absolute`, |a| / (|a| + |b|) R and
    |b| / (|a| + |b|) R. Elementwise products only.

    Source: Ding et al. 2017 (proportional) and Arras et al., Explaining and interpreting LSTMs,
    2019, where both are compared with `SignalTakesAll`.

    Args:
      absolute: divide by the magnitudes instead of the signed values.
      epsilon: stabiliser of the denominator.
    """

    absolute: bool = False
    epsilon: float = dataclasses.field(default=1e-6, kw_only=True)

    fits: ClassVar[frozenset[str] | None] = frozenset({"product"})

    def __post_init__(self) -> None:
        check_number(self, "epsilon", self.epsilon)

    def propagate(self, layer: Any) -> Any:
        a, b = layer.x if isinstance(layer.x, tuple) else (layer.x, layer.x)
        whole = jnp.abs(a) + jnp.abs(b) if self.absolute else a + b
        s = layer.over(jnp.broadcast_to(whole, layer.z.shape), epsilon=self.epsilon)
        shares = (jnp.sign(x) * s if self.absolute else s for x in (a, b))
        back = tuple(_summed(c, x.shape) for c, x in zip(shares, (a, b), strict=True))
        return back if isinstance(layer.x, tuple) else back[0]


def _summed(array: Any, shape: tuple[int, ...]) -> Any:
    """The sum of `array` over the axes along which a value of `shape` was broadcast."""
    axes = tuple(i for i, (n, m) in enumerate(zip(array.shape, shape, strict=True)) if n != m)
    return jnp.sum(array, axes, keepdims=True) if axes else array
