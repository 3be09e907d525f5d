"""Presets: rule maps by the names they have in the literature.

Each is a function that returns a `RuleMap`; arguments override its defaults. `epsilon` is the
stabiliser and `bias` the bias policy of all linear layers ("absorb", "ignore" or "distribute").
"""

from __future__ import annotations

from typing import Any

from jaxlrp.graph.kinds import KINDS
from jaxlrp.planning.coefficients import SignalIs
from jaxlrp.planning.roles import SoftmaxOfProduct, Summand
from jaxlrp.planning.rulemap import RuleMap
from jaxlrp.planning.selectors import Selector as _Selector
from jaxlrp.planning.selectors import first, kind
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
) -> dict[_Selector, Rule]:
    """Epsilon wherever something is added up, with other rules for conv and dense if given."""
    default = Epsilon(epsilon, bias=bias)
    entries: dict[_Selector, Rule] = {
        kind("dense"): dense or default,
        kind("conv"): conv or default,
        kind("embed"): dense or default,
        kind("affine"): default,
        kind("add"): Epsilon(epsilon),
        kind("avg_pool"): Epsilon(epsilon),
        kind("norm"): Detach(bias="ignore" if bias == "ignore" else "absorb"),
    }
    return entries


def _first_linear() -> _Selector:
    return first(kind("conv"), kind("dense"), kind("embed"))


def _flat(epsilon: float) -> dict[_Selector, Rule]:
    return {_first_linear(): Flat(epsilon=epsilon)}


def lrp_zero(*, bias: BiasPolicy = "absorb") -> RuleMap:
    """LRP-0 everywhere: Epsilon(0). Gradient x input on bias-free ReLU networks.

    Source: Bach et al. 2015, equation 56.
    """
    entries = _linear(0.0, bias)
    return RuleMap(entries, "lrp_zero")


def epsilon_plus(*, epsilon: float = 1e-6, bias: BiasPolicy = "absorb") -> RuleMap:
    """ZPlus in convolutions, Epsilon in dense layers.

    Source: Kohlbrenner et al., Towards best practice in explaining neural network decisions with
    LRP, IJCNN 2020.
    """
    return RuleMap(_linear(epsilon, bias, conv=ZPlus(epsilon=epsilon, bias=bias)), "epsilon_plus")


def epsilon_plus_flat(*, epsilon: float = 1e-6, bias: BiasPolicy = "absorb") -> RuleMap:
    """`epsilon_plus` with Flat in the first linear layer."""
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
    """AlphaBeta(2, 1) in convolutions, Epsilon in dense layers. Source: Kohlbrenner et al. 2020."""
    rule = AlphaBeta(alpha, beta, epsilon=epsilon, bias=bias)
    return RuleMap(_linear(epsilon, bias, conv=rule), "epsilon_alpha2_beta1")


def epsilon_alpha2_beta1_flat(
    *,
    epsilon: float = 1e-6,
    bias: BiasPolicy = "absorb",
    alpha: float = 2.0,
    beta: float = 1.0,
) -> RuleMap:
    """`epsilon_alpha2_beta1` with Flat in the first linear layer."""
    entries = epsilon_alpha2_beta1(epsilon=epsilon, bias=bias, alpha=alpha, beta=beta)
    return RuleMap({**entries, **_flat(epsilon)}, "epsilon_alpha2_beta1_flat")


def epsilon_gamma_box(
    low: Any,
    high: Any,
    *,
    gamma: float = 0.25,
    epsilon: float = 1e-6,
    bias: BiasPolicy = "absorb",
) -> RuleMap:
    """ZBox(low, high) in the first linear layer, Gamma in convolutions, Epsilon in dense layers.

    low and high bound the network's input before any normalisation inside the network.
    Source: Montavon et al. 2019, section 10.3.
    """
    entries = _linear(epsilon, bias, conv=Gamma(gamma, epsilon=epsilon, bias=bias))
    box = ZBox(low, high, epsilon=epsilon, bias=bias)
    return RuleMap({**entries, _first_linear(): box}, "epsilon_gamma_box")


def excitation_backprop(*, epsilon: float = 1e-6, bias: BiasPolicy = "absorb") -> RuleMap:
    """ZPlus in every linear layer; activations take their derivative.

    Source: Zhang et al., Top-down neural attention by excitation backprop, IJCV 2018.
    """
    plus = ZPlus(epsilon=epsilon, bias=bias)
    entries = _linear(epsilon, bias, conv=plus, dense=plus)
    entries[kind("affine")] = plus
    return RuleMap({**entries, kind("activation"): Gradient()}, "excitation_backprop")


def _gradient_like(activation: Rule) -> dict[_Selector, Rule]:
    entries: dict[_Selector, Rule] = {kind(k): Gradient() for k in KINDS if k != "max_pool"}
    return {**entries, kind("activation"): activation}


def gradient() -> RuleMap:
    """The gradient itself, for the layers inside: `layers=`, `condition=`. Returns no relevance.

    At the input it is `jax.grad` of the chosen outputs.
    """
    entries: dict[_Selector, Rule] = {kind(k): Gradient() for k in KINDS}
    return RuleMap(entries, "gradient")


def guided_backprop() -> RuleMap:
    """The gradient, with negative signals stopped at every activation. Returns no relevance.

    Source: Springenberg et al. 2015.
    """
    return RuleMap(_gradient_like(GuidedBackprop()), "guided_backprop")


def deconvnet() -> RuleMap:
    """The gradient, with activations replaced by a ReLU on the way back. Returns no relevance.

    Source: Zeiler and Fergus 2014.
    """
    return RuleMap(_gradient_like(Deconvnet()), "deconvnet")


def beta_smooth(beta: float = 10.0) -> RuleMap:
    """The gradient of the network with softplus(beta x)/beta in place of ReLU's derivative.

    Source: Dombrowski et al. 2019.
    """
    return RuleMap(_gradient_like(BetaSmooth(beta)), "beta_smooth")


def deep_taylor(*, epsilon: float = 1e-6, bias: BiasPolicy = "absorb") -> RuleMap:
    """ZPlus in every linear layer, WSquare in the first. Source: Montavon et al. 2017."""
    plus = ZPlus(epsilon=epsilon, bias=bias)
    entries = _linear(epsilon, bias, conv=plus, dense=plus)
    entries[kind("affine")] = plus
    return RuleMap({**entries, _first_linear(): WSquare(epsilon=epsilon)}, "deep_taylor")


def deep_taylor_bounded(
    low: Any, high: Any, *, epsilon: float = 1e-6, bias: BiasPolicy = "absorb"
) -> RuleMap:
    """`deep_taylor` for inputs in a box: ZBox(low, high) in the first layer."""
    entries = deep_taylor(epsilon=epsilon, bias=bias)
    box = ZBox(low, high, epsilon=epsilon, bias=bias)
    return RuleMap({**entries, _first_linear(): box}, "deep_taylor_bounded")


def attn_lrp(*, epsilon: float = 0.0, bias: BiasPolicy = "absorb") -> RuleMap:
    """Epsilon in linear layers, Taylor in softmax, half to each factor of a product.

    Source: Achtibat et al., AttnLRP: attention-aware layer-wise relevance propagation for
    transformers, ICML 2024.
    """
    return RuleMap(_linear(epsilon, bias), "attn_lrp")


def cp_lrp(*, epsilon: float = 0.0, bias: BiasPolicy = "absorb") -> RuleMap:
    """Attention weights and gates are constants: the softmax stops, the signal takes all.

    Source: Ali et al. 2022.
    """
    gates = {
        SoftmaxOfProduct(): Stop(),
        kind("product"): SignalTakesAll(),
        kind("matmul"): SignalTakesAll(),
    }
    return RuleMap({**_linear(epsilon, bias), **gates}, "cp_lrp")


def libra_grad() -> RuleMap:
    """Input x LibraGrad: a gradient balanced so that input and biases make up the whole output.

    Constants are the attention weights, a norm's divisor and the gate g of an activation x g(x)
    (GELU, SiLU); the branches of a product share alike. On ReLUs without attention it is gradient
    x input. It is `cp_lrp` but for gated MLPs, where `cp_lrp` gives all to what is gated. An
    activation with f(0) != 0 passes relevance on. `what="density"` with `layers=` returns the
    balanced gradient itself.

    Source: Mehri et al., LibraGrad: balancing gradient flow for universally better vision
    transformer attributions, CVPR 2025, section 3.5.
    """
    gates = {SoftmaxOfProduct(): Stop(), kind("matmul"): SignalTakesAll()}
    return RuleMap({**_linear(0.0, "absorb"), **gates}, "libra_grad")


def gim(*, temperature: float = 2.0) -> RuleMap:
    """Input x GIM: gradient interaction modifications for transformers. It does not conserve.

    The gradient with three changes: the softmax of attention takes its derivative at a
    temperature (`Tempered`), each factor of a product gets its share of 1/n (so queries and keys
    a quarter, values half), and a norm's divisor is constant. Activations take their derivative.
    The differences d from a baseline x0 are explained as the input of a shifted function:
    `explain(lambda d: fn(x0 + d), gim())(x - x0)`.

    Source: Edin et al., GIM: improved interpretability for large language models, 2025.
    """
    modified = {kind("activation"): Taylor(), SoftmaxOfProduct(): Tempered(temperature)}
    return RuleMap({**_linear(0.0, "absorb"), **modified}, "gim")


def lstm_lrp_all(
    epsilon: float = 1e-3,
    *,
    product: Rule | None = None,
    bias: BiasPolicy = "absorb",
) -> RuleMap:
    """LRP-all for recurrent networks: a gate gets nothing, the signal takes all.

    Epsilon(epsilon) where something is added up: in sums, and in dense layers that feed no sum;
    Epsilon(0) in the summands of a sum, so that a pre-activation W x + U h + b is divided once.

    Args:
      epsilon: stabiliser of the sums.
      product: the rule of the products; `Uniform()` is LRP-half, `Proportional()` LRP-prop and
        `Proportional(absolute=True)` LRP-abs.
      bias: what becomes of the bias's share.

    Source: Arras et al., Explaining recurrent neural network predictions in sentiment analysis,
    2017; Explaining and interpreting LSTMs, 2019.
    """
    rule = SignalTakesAll() if product is None else product
    entries: dict[_Selector, Rule] = {
        **_linear(epsilon, bias),
        Summand(): Epsilon(0.0, bias=bias),
        kind("product"): rule,
    }
    return RuleMap(entries, "lstm_lrp_all")


_MOST_FACTORS = 6  # of a product whose signal `mamba_lrp` looks for


def mamba_lrp(*, epsilon: float = 0.0, bias: BiasPolicy = "absorb") -> RuleMap:
    """Selective state spaces: the coefficients of the state are constants, the gate is halved.

    A product whose factors but one are computed from what that one carries (the discretised A, B
    and C), or lie in [0, 1], gives all to it; any other product shares alike. SiLU passes (its
    secant), norms are detached, the rest is Epsilon(epsilon).

    Source: Rezaei Jafari et al., MambaLRP: explaining selective state space sequence models,
    NeurIPS 2024.
    """
    entries: dict[_Selector, Rule] = {
        **_linear(epsilon, bias),
        **{SignalIs(n): SignalTakesAll(signal=n) for n in range(_MOST_FACTORS)},
    }
    return RuleMap(entries, "mamba_lrp")
