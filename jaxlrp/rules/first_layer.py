"""Rules for the first layer, if the input's domain is known or its value should not count."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import numpy as np
from jax.typing import ArrayLike

from jaxlrp.compat import is_concrete
from jaxlrp.errors import RuleError
from jaxlrp.rules.base import BiasPolicy, LinearRule
from jaxlrp.rules.layer_view import Carries, Inputs, LayerView


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ZBox(LinearRule):
    r"""The z^B rule: for inputs with known bounds.

    $$R_i = \sum_j \frac{x_i w_{ij} - l_i w_{ij}^+ - h_i w_{ij}^-}
      {\sum_i (x_i w_{ij} - l_i w_{ij}^+ - h_i w_{ij}^-)} R_j$$

    l and h bound the layer's input before any scale or shift that was folded into the layer. The
    bias cancels. The rule takes five products.

    Shapes: x and $R_i$ are `Float[Array, "*in"]`, l and h broadcast against x; z and $R_j$ are
    `Float[Array, "*out"]`.

    Use it in the first layer on pixels, or on other inputs with known limits. It is not for hidden
    layers, nor for inputs without natural bounds (word embeddings, normalised features): use `Flat`
    or `WSquare` there.

    Source: [Montavon et al. 2017][montavon2017], section 4.1 (z^B rule).

    Args:
      low: lower bound l, a number or an array.
      high: upper bound h, above `low` everywhere.
      epsilon: stabiliser of the denominator, >= 0, in units of the layer's output.
      bias: bias policy; only `"distribute"` makes a difference, see
        [`LinearRule`][jaxlrp.LinearRule].

    Raises:
      RuleError: `low` is not below `high`, or one of them is not finite or (while planning) does
        not broadcast to the layer's input.
    """

    low: ArrayLike = 0.0
    high: ArrayLike = 1.0
    epsilon: float = dataclasses.field(default=1e-6, kw_only=True, metadata={"static": True})
    bias: BiasPolicy = dataclasses.field(default="absorb", kw_only=True, metadata={"static": True})

    carries: ClassVar[Carries] = "relevance"
    bounds_input: ClassVar[bool] = True
    fits: ClassVar[frozenset[str] | None] = frozenset({"dense", "conv", "embed", "affine"})

    def __post_init__(self) -> None:
        for name in ("low", "high"):
            bound: Any = getattr(self, name)
            if type(bound) in (list, tuple):
                object.__setattr__(self, name, np.asarray(bound))
            if isinstance(bound, (str, bytes)) or (_is_value(bound) and not _is_finite(bound)):
                raise RuleError(
                    f"ZBox: {name}={bound!r} was given; expected a finite number, or an array of "
                    "such, that bounds the inputs."
                )
        if not _is_value(self.low) or not _is_value(self.high):
            return  # rebuilt by a pytree operation, or traced: nothing to compare
        super().__post_init__()
        low, high = np.asarray(self.low), np.asarray(self.high)
        if _shape_of_both(low, high) is None:
            raise RuleError(
                f"ZBox: low of shape {low.shape} and high of shape {high.shape} were given; they "
                "must broadcast against each other."
            )
        if np.any(low >= high):
            raise RuleError(
                f"ZBox(low={self.low}, high={self.high}): low must be below high everywhere; "
                "give the range that the inputs come from, for example ZBox(0.0, 1.0)."
            )

    @property
    def takes_relu(self) -> bool:
        return True

    def propagate(self, layer: LayerView) -> Inputs:
        # (x - l)W+ + (x - h)W-: xW - lW+ - hW- would be a difference of large numbers.
        above = layer.x - layer.constant(self.low)
        below = layer.x - layer.constant(self.high)
        split = layer.split()
        z = split(above, below)
        s = layer.over(z, epsilon=self.epsilon)
        up, down = split.T(s)
        return self.settle(layer, above * up + below * down, lambda: s * z)


@dataclasses.dataclass(frozen=True)
class WSquare(LinearRule):
    r"""The w² rule: shares relevance by squared weights, whatever the input's value.

    $$R_i = \sum_j \frac{w_{ij}^2}{\sum_i w_{ij}^2} R_j$$

    With `bias="absorb"` $b_j^2$ is added to the denominator.

    Shapes: $R_i$ is `Float[Array, "*in"]`, $R_j$ is `Float[Array, "*out"]`.

    Use it in the first layer, where a value of 0 means nothing special (standardised features). It
    is not for hidden layers: the value of an activation is then ignored.

    Source: [Montavon et al. 2017][montavon2017], section 4.1 (w² rule).

    Args:
      epsilon: stabiliser of the denominator, >= 0, in units of the squared weights' sum.
      bias: bias policy; the default leaves the bias out, as the paper does. See
        [`LinearRule`][jaxlrp.LinearRule].
    """

    bias: BiasPolicy = dataclasses.field(default="ignore", kw_only=True)

    carries: ClassVar[Carries] = "relevance"

    @property
    def takes_relu(self) -> bool:
        return True

    def propagate(self, layer: LayerView) -> Inputs:
        squares = layer.squares()
        z = squares(layer.constant(1.0))
        bias = 0.0 if self.bias == "ignore" else layer.bias**2
        s = layer.over(z + bias, bias=bias, epsilon=self.epsilon)
        return self.settle(layer, squares.T(s), lambda: s * z)


@dataclasses.dataclass(frozen=True)
class Flat(LinearRule):
    r"""Shares relevance equally over the receptive field.

    $$R_i = \sum_j \frac{R_j}{n_j}, \qquad n_j = \text{number of inputs that reach output } j$$

    Padding is not an input and gets no relevance.

    Shapes: $R_i$ is `Float[Array, "*in"]`, $R_j$ is `Float[Array, "*out"]`.

    Use it in the first layer, for maps that do not depend on how pixels are normalised. It is not
    for dense layers on a whole picture, where every pixel would get the same share.

    Source: [Lapuschkin et al. 2019][lapuschkin2019].

    Args:
      epsilon: stabiliser of the denominator, >= 0, in numbers of inputs.
      bias: bias policy; there is no bias in the denominator, so only `"distribute"` makes a
        difference. See [`LinearRule`][jaxlrp.LinearRule].
    """

    carries: ClassVar[Carries] = "relevance"

    @property
    def takes_relu(self) -> bool:
        return True

    def propagate(self, layer: LayerView) -> Inputs:
        ones = layer.ones()
        count = ones(layer.constant(1.0))
        s = layer.over(count, epsilon=self.epsilon)
        return self.settle(layer, ones.T(s), lambda: s * count)


def _is_value(v: Any) -> bool:
    numbers = (int, float, complex, np.ndarray, np.generic, list, tuple)
    return isinstance(v, numbers) or (isinstance(v, jax.Array) and is_concrete(v))


def _is_finite(bound: Any) -> bool:
    array = np.asarray(bound)
    return array.dtype.kind in "fiuV" and bool(np.all(np.isfinite(array.astype(float))))


def _shape_of_both(low: np.ndarray, high: np.ndarray) -> tuple[int, ...] | None:
    try:
        return np.broadcast_shapes(low.shape, high.shape)
    except ValueError:
        return None
