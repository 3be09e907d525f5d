"""LRP-0, and composites with `Epsilon` in dense layers and other rules in convolutions."""

from __future__ import annotations

from jax.typing import ArrayLike

from jaxlrp.composites.linear_layers import linear_layers, with_first
from jaxlrp.planning.rulemap import RuleMap
from jaxlrp.rules import AlphaBeta, Flat, Gamma, ZBox, ZPlus
from jaxlrp.rules.base import BiasPolicy


def lrp_zero(*, bias: BiasPolicy = "absorb") -> RuleMap:
    r"""LRP-0 in every layer: [`Epsilon(0)`][jaxlrp.Epsilon].

    $$R_i = \sum_j \frac{x_i w_{ij}}{z_j} R_j$$

    Use it as the baseline: in networks of ReLU, linear and average-pooling layers without biases it
    is gradient × input, and conserves relevance exactly. It is not for pictures, where it is as
    noisy as the gradient.

    Source: [Bach et al. 2015][bach2015], equation 56.

    Args:
      bias: bias policy of the linear layers, see [`LinearRule`][jaxlrp.LinearRule].

    Returns:
      A rule map.
    """
    return RuleMap(linear_layers(0.0, bias), "lrp_zero")


def epsilon_plus(*, epsilon: float = 1e-6, bias: BiasPolicy = "absorb") -> RuleMap:
    r"""[`ZPlus`][jaxlrp.ZPlus] in convolutions, [`Epsilon`][jaxlrp.Epsilon] in dense layers.

    $$\text{conv: } R_i = \sum_j \frac{z_{ij}^+}{z_j^+} R_j, \qquad
      \text{dense: } R_i = \sum_j \frac{z_{ij}}{\text{stab}(z_j)} R_j$$

    Use it for convolutional networks on pictures, if the detail of the pixels should be kept. It is
    not for transformers, whose layers are all dense: see `attn_lrp`.

    Source: [Kohlbrenner et al. 2020][kohlbrenner2020].

    Args:
      epsilon: stabiliser, >= 0, in units of each layer's output.
      bias: bias policy, see [`LinearRule`][jaxlrp.LinearRule].

    Returns:
      A rule map.
    """
    entries = linear_layers(epsilon, bias, conv=ZPlus(epsilon=epsilon, bias=bias))
    return RuleMap(entries, "epsilon_plus")


def epsilon_plus_flat(*, epsilon: float = 1e-6, bias: BiasPolicy = "absorb") -> RuleMap:
    r"""`epsilon_plus` with [`Flat`][jaxlrp.Flat] in the first linear layer.

    $$\text{first: } R_i = \sum_j \frac{R_j}{n_j}, \qquad
      \text{conv: } R_i = \sum_j \frac{z_{ij}^+}{z_j^+} R_j, \qquad
      \text{dense: } R_i = \sum_j \frac{z_{ij}}{\text{stab}(z_j)} R_j$$

    Use it first for convolutional networks on pictures: its maps are calm and do not depend on how
    pixels are normalised. It is not for networks that begin with a dense layer on the whole input.

    Source: [Kohlbrenner et al. 2020][kohlbrenner2020]; [Lapuschkin et al. 2019][lapuschkin2019] for
    the first layer.

    Args:
      epsilon: stabiliser, >= 0, in units of each layer's output.
      bias: bias policy, see [`LinearRule`][jaxlrp.LinearRule].

    Returns:
      A rule map.
    """
    entries = epsilon_plus(epsilon=epsilon, bias=bias)
    return RuleMap(with_first(entries, Flat(epsilon=epsilon)), "epsilon_plus_flat")


def epsilon_alpha2_beta1(
    *,
    epsilon: float = 1e-6,
    bias: BiasPolicy = "absorb",
    alpha: float = 2.0,
    beta: float = 1.0,
) -> RuleMap:
    r"""[`AlphaBeta(2, 1)`][jaxlrp.AlphaBeta] in convolutions, [`Epsilon`][jaxlrp.Epsilon] in dense
    layers.

    $$\text{conv: }
      R_i = \sum_j \left( 2 \frac{z_{ij}^+}{z_j^+} - \frac{z_{ij}^-}{z_j^-} \right) R_j, \qquad
      \text{dense: } R_i = \sum_j \frac{z_{ij}}{\text{stab}(z_j)} R_j$$

    Use it for convolutional networks, to see strong evidence for and against a class. It is not the
    first choice in deep networks: positive and negative relevance grow from layer to layer, and it
    costs more than `epsilon_plus`.

    Source: [Kohlbrenner et al. 2020][kohlbrenner2020].

    Args:
      epsilon: stabiliser, >= 0, in units of each layer's output.
      bias: bias policy, see [`LinearRule`][jaxlrp.LinearRule].
      alpha: weight of the positive contributions.
      beta: weight of the negative contributions, alpha - 1.

    Returns:
      A rule map.
    """
    rule = AlphaBeta(alpha, beta, epsilon=epsilon, bias=bias)
    return RuleMap(linear_layers(epsilon, bias, conv=rule), "epsilon_alpha2_beta1")


def epsilon_alpha2_beta1_flat(
    *,
    epsilon: float = 1e-6,
    bias: BiasPolicy = "absorb",
    alpha: float = 2.0,
    beta: float = 1.0,
) -> RuleMap:
    r"""`epsilon_alpha2_beta1` with [`Flat`][jaxlrp.Flat] in the first linear layer.

    $$\text{first: } R_i = \sum_j \frac{R_j}{n_j}, \qquad
      \text{conv: }
      R_i = \sum_j \left( 2 \frac{z_{ij}^+}{z_j^+} - \frac{z_{ij}^-}{z_j^-} \right) R_j$$

    Dense layers have `Epsilon`. Use it like `epsilon_alpha2_beta1`, if maps should not depend on
    how pixels are normalised. It is not for networks that begin with a dense layer on the whole
    input.

    Source: [Kohlbrenner et al. 2020][kohlbrenner2020]; [Lapuschkin et al. 2019][lapuschkin2019] for
    the first layer.

    Args:
      epsilon: stabiliser, >= 0, in units of each layer's output.
      bias: bias policy, see [`LinearRule`][jaxlrp.LinearRule].
      alpha: weight of the positive contributions.
      beta: weight of the negative contributions, alpha - 1.

    Returns:
      A rule map.
    """
    entries = epsilon_alpha2_beta1(epsilon=epsilon, bias=bias, alpha=alpha, beta=beta)
    return RuleMap(with_first(entries, Flat(epsilon=epsilon)), "epsilon_alpha2_beta1_flat")


def epsilon_gamma_box(
    low: ArrayLike,
    high: ArrayLike,
    *,
    gamma: float = 0.25,
    epsilon: float = 1e-6,
    bias: BiasPolicy = "absorb",
) -> RuleMap:
    r"""[`ZBox`][jaxlrp.ZBox] in the first linear layer, [`Gamma`][jaxlrp.Gamma] in convolutions,
    [`Epsilon`][jaxlrp.Epsilon] in dense layers.

    $$\text{first: } R_i = \sum_j \frac{z_{ij} - l_i w_{ij}^+ - h_i w_{ij}^-}{\sum_i (z_{ij} -
      l_i w_{ij}^+ - h_i w_{ij}^-)} R_j, \qquad
      \text{conv: }
      R_i = \sum_j \frac{z_{ij} + \gamma z_{ij}^+}{\sum_i (z_{ij} + \gamma z_{ij}^+)} R_j$$

    The second equation is for an output z >= 0 without bias; [`Gamma`][jaxlrp.Gamma] has all cases.

    Use it for convolutional networks on pictures with known bounds of the pixels, where evidence
    against the class should show. It is not for inputs without bounds.

    Source: [Montavon et al. 2019][montavon2019], section 10.3.

    Args:
      low: lower bound of the network's input, before any normalisation inside the network; a number
        or an array that broadcasts against the input.
      high: upper bound, in the same form.
      gamma: how much more the favoured contributions count, >= 0.
      epsilon: stabiliser, >= 0, in units of each layer's output.
      bias: bias policy, see [`LinearRule`][jaxlrp.LinearRule].

    Returns:
      A rule map.

    Raises:
      RuleError: `low` is not below `high`.
    """
    entries = linear_layers(epsilon, bias, conv=Gamma(gamma, epsilon=epsilon, bias=bias))
    box = ZBox(low, high, epsilon=epsilon, bias=bias)
    return RuleMap(with_first(entries, box), "epsilon_gamma_box")
