"""Rules for products of values that all depend on the input."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Container
from typing import Any, ClassVar

import jax.numpy as jnp

from jaxlrp.errors import RuleError
from jaxlrp.rules.base import Rule, check_number
from jaxlrp.rules.layer_view import LayerView


@dataclasses.dataclass(frozen=True)
class Uniform(Rule):
    """Half of the relevance to each of two factors of a product, 1/n to each of n.

    R_a = a * vjp_a(R / n z) with z = a b c ... (elementwise, over an axis or up to an element, or
    a matrix product of two), however it is nested. A divisor counts as the factor 1/b; what is a
    factor several times counts once.
    Source: Achtibat et al. 2024, proposition 3.3.
    """

    fits: ClassVar[frozenset[str] | None] = frozenset({"matmul", "product"})

    def propagate(self, layer: LayerView) -> Any:
        return _shared(layer, 1 / layer.factors)


def _shared(layer: LayerView, share: Any, signals: Container[int] | None = None) -> Any:
    """`share` of what arrives to each factor, or to each of the signals."""
    back = layer.vjp(layer.over(layer.z, share=share))
    if not isinstance(back, tuple):
        return back
    # The density of a factor a^n is n times that of a; n < 0 turns the sign of a divisor's share.
    powers = layer.powers or (1,) * len(back)
    pairs = enumerate(zip(back, powers, strict=True))
    return tuple(
        (c if n == 1 else c / n) if signals is None or i in signals else jnp.zeros_like(c)
        for i, (c, n) in pairs
    )


@dataclasses.dataclass(frozen=True)
class SignalTakesAll(Rule):
    """The gates of a product get nothing, the signal everything.

    Args:
      signal: position of the signal among the factors; None lets the graph decide. A factor that
        divides is a gate, then one that lies in [0, 1], one that comes from a softmax, one that is
        an activation's output; several signals share alike. Where no factor is a gate, `Uniform`
        applies, and the plan says so.

    Source: Arras et al., Explaining and interpreting LSTMs, 2019.
    """

    signal: int | None = None

    fits: ClassVar[frozenset[str] | None] = frozenset({"matmul", "product"})

    def __post_init__(self) -> None:
        whole = isinstance(self.signal, int) and not isinstance(self.signal, bool)
        if self.signal is not None and not (whole and self.signal >= 0):
            raise RuleError(
                f"SignalTakesAll(signal={self.signal!r}): expected 0, 1, ..., or None to let the "
                "graph decide."
            )

    def propagate(self, layer: LayerView) -> Any:
        if not isinstance(layer.x, tuple):
            return Uniform().propagate(layer)
        signals = [i for i in range(len(layer.x)) if i not in layer.gates]
        if self.signal is not None:
            if self.signal >= len(layer.x):
                raise RuleError(f"{self} was given to a product of {len(layer.x)} factors.")
            signals = [self.signal]
        return _shared(layer, 1 / len(signals), signals)


@dataclasses.dataclass(frozen=True)
class Proportional(Rule):
    """Each factor of a product z = a b c ... gets a share in proportion to its own value.

    R_a = a / stab(a + b + c + ...) R; with `absolute`, |a| / (|a| + |b| + |c| + ...) R. A divisor
    counts as the factor 1/b. Elementwise products only.

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

    def propagate(self, layer: LayerView) -> Any:
        inputs = layer.x if isinstance(layer.x, tuple) else (layer.x,)
        powers = layer.powers or (1,) * len(inputs)
        shares = [
            jnp.sign(x) * jnp.abs(x) ** (n - 1) if self.absolute else x ** (n - 1)
            for x, n in zip(inputs, powers, strict=True)
        ]
        whole = functools.reduce(jnp.add, (x * c for x, c in zip(inputs, shares, strict=True)))
        s = layer.over(jnp.broadcast_to(whole, layer.z.shape), epsilon=self.epsilon)
        back = tuple(_summed(s * c, x.shape) for x, c in zip(inputs, shares, strict=True))
        return back if isinstance(layer.x, tuple) else back[0]


def _summed(array: Any, shape: tuple[int, ...]) -> Any:
    """The sum of `array` over the axes along which a value of `shape` was broadcast."""
    axes = tuple(i for i, (n, m) in enumerate(zip(array.shape, shape, strict=True)) if n != m)
    return jnp.sum(array, axes, keepdims=True) if axes else array
