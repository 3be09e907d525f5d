"""Composites of positive contributions: excitation backprop and deep Taylor decomposition."""

from __future__ import annotations

from jax.typing import ArrayLike

from jaxlrp.composites.linear_layers import linear_layers, with_first
from jaxlrp.planning.rulemap import RuleMap
from jaxlrp.planning.selectors import Selector, kind
from jaxlrp.rules import Gradient, Rule, WSquare, ZBox, ZPlus
from jaxlrp.rules.base import BiasPolicy


def _plus_everywhere(epsilon: float, bias: BiasPolicy) -> dict[Selector, Rule]:
    plus = ZPlus(epsilon=epsilon, bias=bias)
    return {**linear_layers(epsilon, bias, conv=plus, dense=plus), kind("affine"): plus}


def excitation_backprop(*, epsilon: float = 1e-6, bias: BiasPolicy = "absorb") -> RuleMap:
    r"""[`ZPlus`][jaxlrp.ZPlus] in every linear layer; activations take their derivative.

    $$R_i = \sum_j \frac{x_i w_{ij}^+}{\sum_i x_i w_{ij}^+} R_j \qquad (x \ge 0)$$

    Use it for ReLU networks, if relevance is to be read as the probability that a unit wins. It is
    not for evidence against a class, nor for activations other than ReLU.

    Source: [Zhang et al. 2018][zhang2018].

    Args:
      epsilon: stabiliser, >= 0, in units of each layer's output.
      bias: bias policy, see [`LinearRule`][jaxlrp.LinearRule]; the paper's definition has no bias,
        which is `"ignore"`.

    Returns:
      A rule map.
    """
    entries = _plus_everywhere(epsilon, bias)
    return RuleMap({**entries, kind("activation"): Gradient()}, "excitation_backprop")


def deep_taylor(*, epsilon: float = 1e-6, bias: BiasPolicy = "absorb") -> RuleMap:
    r"""Deep Taylor decomposition: [`ZPlus`][jaxlrp.ZPlus] in every linear layer,
    [`WSquare`][jaxlrp.WSquare] in the first.

    $$\text{first: } R_i = \sum_j \frac{w_{ij}^2}{\sum_i w_{ij}^2} R_j, \qquad
      \text{other layers: } R_i = \sum_j \frac{z_{ij}^+}{z_j^+} R_j$$

    Use it for ReLU networks, if only positive evidence is wanted and inputs may be any real
    numbers. It is not for evidence against a class.

    Source: [Montavon et al. 2017][montavon2017], section 4.1.

    Args:
      epsilon: stabiliser, >= 0, in units of each layer's output.
      bias: bias policy of all layers except the first, see [`LinearRule`][jaxlrp.LinearRule].

    Returns:
      A rule map.
    """
    entries = _plus_everywhere(epsilon, bias)
    return RuleMap(with_first(entries, WSquare(epsilon=epsilon)), "deep_taylor")


def deep_taylor_bounded(
    low: ArrayLike, high: ArrayLike, *, epsilon: float = 1e-6, bias: BiasPolicy = "absorb"
) -> RuleMap:
    r"""`deep_taylor` for inputs in a box: [`ZBox`][jaxlrp.ZBox] in the first linear layer.

    $$\text{first: } R_i = \sum_j \frac{z_{ij} - l_i w_{ij}^+ - h_i w_{ij}^-}{\sum_i (z_{ij} -
      l_i w_{ij}^+ - h_i w_{ij}^-)} R_j, \qquad
      \text{other layers: } R_i = \sum_j \frac{z_{ij}^+}{z_j^+} R_j$$

    Use it for ReLU networks on pixels, if only positive evidence is wanted. It is not for inputs
    without bounds.

    Source: [Montavon et al. 2017][montavon2017], section 4.1.

    Args:
      low: lower bound of the network's input, before any normalisation inside the network; a number
        or an array that broadcasts against the input.
      high: upper bound, in the same form.
      epsilon: stabiliser, >= 0, in units of each layer's output.
      bias: bias policy, see [`LinearRule`][jaxlrp.LinearRule].

    Returns:
      A rule map.

    Raises:
      RuleError: `low` is not below `high`.
    """
    entries = deep_taylor(epsilon=epsilon, bias=bias)
    box = ZBox(low, high, epsilon=epsilon, bias=bias)
    return RuleMap(with_first(entries, box), "deep_taylor_bounded")
