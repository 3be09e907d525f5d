"""Rules for the first layer: the input's domain is known, or its value should not count."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import numpy as np

from jaxlrp.compat import is_concrete
from jaxlrp.errors import RuleError
from jaxlrp.rules.base import BiasPolicy, LinearRule
from jaxlrp.rules.layer_view import Carries, LayerView


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ZBox(LinearRule):
    r"""R_i = sum_j (x_i w_ij - l_i w+_ij - h_i w-_ij) / sum_i (the same) R_j.

    For inputs in a box [low, high] (pixels). low and high are numbers or arrays that broadcast
    against the layer's input, as it is before any scale or shift that was folded in. The bias
    cancels in this rule.

    Source: Montavon et al. 2017, section 4.1 (z^B rule).
    """

    low: Any = 0.0
    high: Any = 1.0
    epsilon: float = dataclasses.field(default=1e-6, kw_only=True, metadata={"static": True})
    bias: BiasPolicy = dataclasses.field(default="absorb", kw_only=True, metadata={"static": True})

    carries: ClassVar[Carries] = "relevance"
    bounds_input: ClassVar[bool] = True
    fits: ClassVar[frozenset[str] | None] = frozenset({"dense", "conv", "embed", "affine"})

    def __post_init__(self) -> None:
        if not _is_value(self.low) or not _is_value(self.high):
            return  # rebuilt by a pytree operation, or traced: nothing to compare
        super().__post_init__()
        low, high = np.asarray(self.low), np.asarray(self.high)
        if np.any(np.isnan(low)) or np.any(np.isnan(high)) or np.any(low >= high):
            raise RuleError(
                f"ZBox(low={self.low}, high={self.high}): low must be below high everywhere; "
                "give the range that the inputs come from, for example ZBox(0.0, 1.0)."
            )

    def __hash__(self) -> int:
        return hash((type(self), self.epsilon, self.bias))

    @property
    def takes_relu(self) -> bool:
        return True

    def propagate(self, layer: LayerView) -> Any:
        # (x - l)W+ + (x - h)W-: xW - lW+ - hW- would be a difference of large numbers.
        above = layer.x - layer.constant(self.low)
        below = layer.x - layer.constant(self.high)
        split = layer.split()
        z = split(above, below)
        s = layer.over(z, epsilon=self.epsilon)
        up, down = split.T(s)
        return self.settle(layer, above * up + below * down, s * z)


@dataclasses.dataclass(frozen=True)
class WSquare(LinearRule):
    r"""R_i = sum_j w_ij^2 / sum_i w_ij^2 R_j: independent of the input's value.

    With `bias="absorb"` b^2 joins the denominator; the default ignores it, as in the paper.

    Source: Montavon et al. 2017, section 4.1 (w^2 rule).
    """

    bias: BiasPolicy = dataclasses.field(default="ignore", kw_only=True)

    carries: ClassVar[Carries] = "relevance"

    @property
    def takes_relu(self) -> bool:
        return True

    def propagate(self, layer: LayerView) -> Any:
        squares = layer.squares()
        z = squares(layer.constant(1.0))
        bias = 0.0 if self.bias == "ignore" else layer.bias**2
        s = layer.over(z + bias, bias=bias, epsilon=self.epsilon)
        return self.settle(layer, squares.T(s), s * z)


@dataclasses.dataclass(frozen=True)
class Flat(LinearRule):
    r"""R_i = sum_j R_j / n_j, n_j the number of in-bounds inputs that reach output j.

    Spreads relevance evenly over the receptive field; padding is nobody's input.

    Source: Lapuschkin et al., Unmasking Clever Hans predictors and assessing what machines really
    learn, Nature Communications 10:1096, 2019.
    """

    carries: ClassVar[Carries] = "relevance"

    @property
    def takes_relu(self) -> bool:
        return True

    def propagate(self, layer: LayerView) -> Any:
        ones = layer.ones()
        count = ones(layer.constant(1.0))
        s = layer.over(count, epsilon=self.epsilon)
        return self.settle(layer, ones.T(s), s * count)


def _is_value(v: Any) -> bool:
    numbers = (int, float, np.ndarray, np.generic, list, tuple)
    return isinstance(v, numbers) or (isinstance(v, jax.Array) and is_concrete(v))
