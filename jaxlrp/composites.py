"""Presets: rule maps by the names they have in the literature.

Each is a function that returns a `RuleMap`; arguments override its defaults. `epsilon` is the
stabiliser and `bias` the bias policy of all linear layers ("absorb", "ignore" or "distribute").
Layers that a preset does not mention have the default rule of their kind. In the equations $z_{ij}
= x_i w_{ij}$ is the contribution of input i to output j of a layer, and $z_j$ the output; the
reference of each rule has the exact denominators, with bias and stabiliser.
"""

from __future__ import annotations

from jax.typing import ArrayLike

from jaxlrp.graph.kinds import KINDS
from jaxlrp.planning.coefficients import SignalIs
from jaxlrp.planning.roles import SoftmaxOfProduct, Summand
from jaxlrp.planning.rulemap import RuleMap
from jaxlrp.planning.selectors import Selector, first, kind
from jaxlrp.rules import (
    AlphaBeta,
    BetaSmooth,
    Deconvnet,
    Detach,
    Epsilon,
    Flat,
    Gamma,
    Gradient,
    GuidedBackprop,
    Rule,
    SignalTakesAll,
    Stop,
    Taylor,
    Tempered,
    WSquare,
    ZBox,
    ZPlus,
)
from jaxlrp.rules.base import BiasPolicy

__all__ = [
    "attn_lrp",
    "beta_smooth",
    "cp_lrp",
    "deconvnet",
    "deep_taylor",
    "deep_taylor_bounded",
    "epsilon_alpha2_beta1",
    "epsilon_alpha2_beta1_flat",
    "epsilon_gamma_box",
    "epsilon_plus",
    "epsilon_plus_flat",
    "excitation_backprop",
    "gim",
    "gradient",
    "guided_backprop",
    "libra_grad",
    "lrp_zero",
    "lstm_lrp_all",
    "mamba_lrp",
]


def _linear(
    epsilon: float, bias: BiasPolicy, conv: Rule | None = None, dense: Rule | None = None
) -> dict[Selector, Rule]:
    """Epsilon wherever something is added up, with other rules for conv and dense if given."""
    default = Epsilon(epsilon, bias=bias)
    entries: dict[Selector, Rule] = {
        kind("dense"): dense or default,
        kind("conv"): conv or default,
        kind("embed"): dense or default,
        kind("affine"): default,
        kind("add"): Epsilon(epsilon),
        kind("avg_pool"): Epsilon(epsilon),
        kind("norm"): Detach(bias="ignore" if bias == "ignore" else "absorb"),
    }
    return entries


def _first_linear() -> Selector:
    return first(kind("conv"), kind("dense"), kind("embed"))


def _flat(epsilon: float) -> dict[Selector, Rule]:
    return {_first_linear(): Flat(epsilon=epsilon)}


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
    entries = _linear(0.0, bias)
    return RuleMap(entries, "lrp_zero")


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
    return RuleMap(_linear(epsilon, bias, conv=ZPlus(epsilon=epsilon, bias=bias)), "epsilon_plus")


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
    return RuleMap(
        {**epsilon_plus(epsilon=epsilon, bias=bias), **_flat(epsilon)}, "epsilon_plus_flat"
    )


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
    return RuleMap(_linear(epsilon, bias, conv=rule), "epsilon_alpha2_beta1")


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

    Dense layers have `Epsilon`. Use it as `epsilon_alpha2_beta1`, if maps should not depend on how
    pixels are normalised. It is not for networks that begin with a dense layer on the whole input.

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
    return RuleMap({**entries, **_flat(epsilon)}, "epsilon_alpha2_beta1_flat")


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

    The second equation is that of an output z >= 0 without bias; [`Gamma`][jaxlrp.Gamma] has all
    cases.

    Use it for convolutional networks on pictures with known bounds of the pixels, where evidence
    against the class should show. It is not for inputs without bounds.

    Source: [Montavon et al. 2019][montavon2019], section 10.3.

    Args:
      low: lower bound of the network's input, before any normalisation inside the network; a number
        or an array that broadcasts against the input.
      high: upper bound, likewise.
      gamma: how much more the favoured contributions count, >= 0.
      epsilon: stabiliser, >= 0, in units of each layer's output.
      bias: bias policy, see [`LinearRule`][jaxlrp.LinearRule].

    Returns:
      A rule map.

    Raises:
      RuleError: `low` is not below `high`.
    """
    entries = _linear(epsilon, bias, conv=Gamma(gamma, epsilon=epsilon, bias=bias))
    box = ZBox(low, high, epsilon=epsilon, bias=bias)
    return RuleMap({**entries, _first_linear(): box}, "epsilon_gamma_box")


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
    plus = ZPlus(epsilon=epsilon, bias=bias)
    entries = _linear(epsilon, bias, conv=plus, dense=plus)
    entries[kind("affine")] = plus
    return RuleMap({**entries, kind("activation"): Gradient()}, "excitation_backprop")


def _gradient_like(activation: Rule) -> dict[Selector, Rule]:
    entries: dict[Selector, Rule] = {kind(k): Gradient() for k in KINDS if k != "max_pool"}
    return {**entries, kind("activation"): activation}


def gradient() -> RuleMap:
    r"""[`Gradient`][jaxlrp.Gradient] in every layer: the gradient itself, for the layers inside.

    $$R_i = \frac{\partial f}{\partial x_i}$$

    Use it with `layers=` and `condition=`; at the input it is `jax.grad` of the chosen outputs. It
    is not relevance: nothing is multiplied by the input, and nothing is conserved.

    Source: [Simonyan et al. 2014][simonyan2014].

    Returns:
      A rule map.
    """
    entries: dict[Selector, Rule] = {kind(k): Gradient() for k in KINDS}
    return RuleMap(entries, "gradient")


def guided_backprop() -> RuleMap:
    r"""The gradient, with [`GuidedBackprop`][jaxlrp.GuidedBackprop] at every ReLU.

    $$\text{ReLU: } R_i = 1[x_i > 0] \max(R_j, 0), \qquad
      \text{other layers: } R_i = \sum_j \frac{\partial z_j}{\partial x_i} R_j$$

    Use it for comparison with the literature. It is not relevance, and nearly the same for every
    class ([Nie et al. 2018][nie2018]).

    Source: [Springenberg et al. 2015][springenberg2015].

    Returns:
      A rule map.
    """
    return RuleMap(_gradient_like(GuidedBackprop()), "guided_backprop")


def deconvnet() -> RuleMap:
    r"""The gradient, with [`Deconvnet`][jaxlrp.Deconvnet] at every ReLU.

    $$\text{ReLU: } R_i = \max(R_j, 0), \qquad
      \text{other layers: } R_i = \sum_j \frac{\partial z_j}{\partial x_i} R_j$$

    Use it for comparison with the literature. It is not relevance, and nearly the same for every
    class ([Nie et al. 2018][nie2018]).

    Source: [Zeiler and Fergus 2014][zeiler2014].

    Returns:
      A rule map.
    """
    return RuleMap(_gradient_like(Deconvnet()), "deconvnet")


def beta_smooth(beta: float = 10.0) -> RuleMap:
    r"""The gradient, with [`BetaSmooth`][jaxlrp.BetaSmooth] at every ReLU.

    $$\text{ReLU: } R_i = \text{sigmoid}(\beta x_i) R_j, \qquad
      \text{other layers: } R_i = \sum_j \frac{\partial z_j}{\partial x_i} R_j$$

    Use it for gradients that are harder to manipulate by small changes of the input. It is not
    relevance: nothing is multiplied by the input, and nothing is conserved.

    Source: [Dombrowski et al. 2019][dombrowski2019].

    Args:
      beta: sharpness, >= 0; as it grows the derivative becomes that of the ReLU.

    Returns:
      A rule map.
    """
    return RuleMap(_gradient_like(BetaSmooth(beta)), "beta_smooth")


def deep_taylor(*, epsilon: float = 1e-6, bias: BiasPolicy = "absorb") -> RuleMap:
    r"""Deep Taylor decomposition: [`ZPlus`][jaxlrp.ZPlus] in every linear layer,
    [`WSquare`][jaxlrp.WSquare] in the first.

    $$\text{first: } R_i = \sum_j \frac{w_{ij}^2}{\sum_i w_{ij}^2} R_j, \qquad
      \text{other layers: } R_i = \sum_j \frac{z_{ij}^+}{z_j^+} R_j$$

    Use it for ReLU networks, if positive evidence alone is wanted and inputs may be any real
    numbers. It is not for evidence against a class.

    Source: [Montavon et al. 2017][montavon2017], section 4.1.

    Args:
      epsilon: stabiliser, >= 0, in units of each layer's output.
      bias: bias policy of all layers but the first, see [`LinearRule`][jaxlrp.LinearRule].

    Returns:
      A rule map.
    """
    plus = ZPlus(epsilon=epsilon, bias=bias)
    entries = _linear(epsilon, bias, conv=plus, dense=plus)
    entries[kind("affine")] = plus
    return RuleMap({**entries, _first_linear(): WSquare(epsilon=epsilon)}, "deep_taylor")


def deep_taylor_bounded(
    low: ArrayLike, high: ArrayLike, *, epsilon: float = 1e-6, bias: BiasPolicy = "absorb"
) -> RuleMap:
    r"""`deep_taylor` for inputs in a box: [`ZBox`][jaxlrp.ZBox] in the first linear layer.

    $$\text{first: } R_i = \sum_j \frac{z_{ij} - l_i w_{ij}^+ - h_i w_{ij}^-}{\sum_i (z_{ij} -
      l_i w_{ij}^+ - h_i w_{ij}^-)} R_j, \qquad
      \text{other layers: } R_i = \sum_j \frac{z_{ij}^+}{z_j^+} R_j$$

    Use it for ReLU networks on pixels, if positive evidence alone is wanted. It is not for inputs
    without bounds.

    Source: [Montavon et al. 2017][montavon2017], section 4.1.

    Args:
      low: lower bound of the network's input, before any normalisation inside the network; a number
        or an array that broadcasts against the input.
      high: upper bound, likewise.
      epsilon: stabiliser, >= 0, in units of each layer's output.
      bias: bias policy, see [`LinearRule`][jaxlrp.LinearRule].

    Returns:
      A rule map.

    Raises:
      RuleError: `low` is not below `high`.
    """
    entries = deep_taylor(epsilon=epsilon, bias=bias)
    box = ZBox(low, high, epsilon=epsilon, bias=bias)
    return RuleMap({**entries, _first_linear(): box}, "deep_taylor_bounded")


def attn_lrp(*, epsilon: float = 0.0, bias: BiasPolicy = "absorb") -> RuleMap:
    r"""AttnLRP: [`Epsilon`][jaxlrp.Epsilon] in linear layers, [`Taylor`][jaxlrp.Taylor] in softmax,
    [`Uniform`][jaxlrp.Uniform] in products, [`Detach`][jaxlrp.Detach] in norms.

    $$\text{softmax } s(x): R_i = x_i \left( R_i^{s} - s_i \sum_j R_j^{s} \right), \qquad
      \text{product } a b: R_a = R_b = \tfrac{1}{2} R$$

    where $R^s$ is the relevance of the softmax's output. Use it for transformers, if queries and
    keys should get relevance too. It is not for accounts that balance: the softmax does not
    conserve, and the ledger lists how much it takes.

    Source: [Achtibat et al. 2024][achtibat2024], equation 13 and proposition 3.3.

    Args:
      epsilon: stabiliser, >= 0, in units of each layer's output.
      bias: bias policy, see [`LinearRule`][jaxlrp.LinearRule]; prefer `"absorb"` in transformers.

    Returns:
      A rule map.
    """
    return RuleMap(_linear(epsilon, bias), "attn_lrp")


def cp_lrp(*, epsilon: float = 0.0, bias: BiasPolicy = "absorb") -> RuleMap:
    r"""CP-LRP: attention weights and gates are constants. [`Stop`][jaxlrp.Stop] in the softmax of
    attention, [`SignalTakesAll`][jaxlrp.SignalTakesAll] in products.

    $$\text{attention } y_j = \sum_i p_{ji} v_i: \quad R_i = \sum_j \frac{p_{ji} v_i}{y_j} R_j$$

    Use it for transformers, if the ledger should balance: it conserves where there are no biases.
    It is not for questions about queries and keys, which get nothing.

    Source: [Ali et al. 2022][ali2022].

    Args:
      epsilon: stabiliser, >= 0, in units of each layer's output.
      bias: bias policy, see [`LinearRule`][jaxlrp.LinearRule]; prefer `"absorb"` in transformers.

    Returns:
      A rule map.
    """
    gates = {
        SoftmaxOfProduct(): Stop(),
        kind("product"): SignalTakesAll(),
        kind("matmul"): SignalTakesAll(),
    }
    return RuleMap({**_linear(epsilon, bias), **gates}, "cp_lrp")


def libra_grad() -> RuleMap:
    r"""Input × LibraGrad: the gradient with factors held such that it has the whole output.

    $$\text{attention } y_j = \sum_i p_{ji} v_i: \; R_i = \sum_j \frac{p_{ji} v_i}{y_j} R_j, \qquad
      \text{product } a b: R_a = R_b = \tfrac{1}{2} R$$

    Constants are the attention weights, the divisor of a norm, and the gate g of an activation x
    g(x) such as GELU and SiLU, which therefore passes relevance on; so does an activation with f(0)
    != 0. It differs from `cp_lrp` in gated MLPs, where that gives everything to the gated factor.
    The balanced gradient itself is `what="density"` with `layers=`.

    Use it for transformers and MLP mixers, if relevance should sum to the output: it conserves
    where there are no biases. It is not for questions about queries and keys, which get nothing.

    Source: [Mehri et al. 2025][mehri2025], section 3.5.

    Returns:
      A rule map.
    """
    gates = {SoftmaxOfProduct(): Stop(), kind("matmul"): SignalTakesAll()}
    return RuleMap({**_linear(0.0, "absorb"), **gates}, "libra_grad")


def gim(*, temperature: float = 2.0) -> RuleMap:
    r"""Input × GIM: the gradient with a softer softmax in attention, and shares of products.

    $$\text{softmax of attention, with } p = \text{softmax}(x / T): \;
      R_i = x_i \sum_j p_j (\delta_{ij} - p_i) \frac{R_j}{z_j}, \qquad
      \text{product } a b: R_a = R_b = \tfrac{1}{2} R$$

    The softmax of attention has [`Tempered(T)`][jaxlrp.Tempered]; queries and keys get a quarter
    each, and values a half. Activations take their derivative ([`Taylor`][jaxlrp.Taylor]), and the
    divisor of a norm is a constant. Differences from a baseline x0 are explained as the input of a
    shifted function: `explain(lambda d: fn(x0 + d), gim())(x - x0)`.

    Use it for transformers whose attention is nearly one-hot, where the derivative of the softmax
    vanishes although its scores matter. It is not for accounts that balance: it does not conserve.

    Source: [Edin et al. 2025][edin2025].

    Args:
      temperature: T, above 0; 1 is the derivative of the softmax itself.

    Returns:
      A rule map.

    Raises:
      RuleError: `temperature` is not above 0.
    """
    modified = {kind("activation"): Taylor(), SoftmaxOfProduct(): Tempered(temperature)}
    return RuleMap({**_linear(0.0, "absorb"), **modified}, "gim")


def lstm_lrp_all(
    epsilon: float = 1e-3,
    *,
    product: Rule | None = None,
    bias: BiasPolicy = "absorb",
) -> RuleMap:
    r"""LRP-all for recurrent networks: a gate gets nothing, the signal everything.

    $$\text{product } z = g s: R_g = 0, \; R_s = R, \qquad
      \text{sum } z: R_i = \frac{z_i}{\text{stab}(z)} R$$

    [`Epsilon(epsilon)`][jaxlrp.Epsilon] stands where something is added up: in sums, and in dense
    layers that feed no sum. The summands of a sum have `Epsilon(0)`, so that a pre-activation Wx +
    Uh + b is divided once.

    Use it for LSTM, GRU and similar cells of any library. It is not for gates that carry the
    evidence themselves: `product=Uniform()` gives them half.

    Source: [Arras et al. 2017][arras2017]; [Arras et al. 2019][arras2019].

    Args:
      epsilon: stabiliser of the sums, >= 0, in units of the sum.
      product: the rule of the products; `Uniform()` is LRP-half, `Proportional()` LRP-prop and
        `Proportional(absolute=True)` LRP-abs.
      bias: bias policy, see [`LinearRule`][jaxlrp.LinearRule].

    Returns:
      A rule map.
    """
    rule = SignalTakesAll() if product is None else product
    entries: dict[Selector, Rule] = {
        **_linear(epsilon, bias),
        Summand(): Epsilon(0.0, bias=bias),
        kind("product"): rule,
    }
    return RuleMap(entries, "lstm_lrp_all")


_MOST_FACTORS = 6  # of a product whose signal `mamba_lrp` looks for


def mamba_lrp(*, epsilon: float = 0.0, bias: BiasPolicy = "absorb") -> RuleMap:
    r"""MambaLRP for selective state spaces: coefficients of the state are constants, the gate is
    halved.

    $$h_t = A_t h_{t-1} + B_t x_t, \; y_t = C_t h_t \text{ with } A_t, B_t, C_t \text{ held}, \qquad
      \text{product } a b: R_a = R_b = \tfrac{1}{2} R$$

    A product of which all factors but one are computed from that one (the discretised A, B and C),
    or lie in [0, 1], gives all to it; any other product shares alike. SiLU passes relevance on,
    norms are detached, linear layers have `Epsilon(epsilon)`.

    Use it for Mamba, Mamba-2 and networks that mix them with attention. It is not for LSTM cells:
    see `lstm_lrp_all`.

    Source: [Rezaei Jafari et al. 2024][jafari2024].

    Args:
      epsilon: stabiliser, >= 0, in units of each layer's output.
      bias: bias policy, see [`LinearRule`][jaxlrp.LinearRule].

    Returns:
      A rule map.
    """
    entries: dict[Selector, Rule] = {
        **_linear(epsilon, bias),
        **{SignalIs(n): SignalTakesAll(signal=n) for n in range(_MOST_FACTORS)},
    }
    return RuleMap(entries, "mamba_lrp")
