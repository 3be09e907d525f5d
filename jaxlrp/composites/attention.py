"""Composites for transformers: how relevance passes the softmax and the products of attention."""

from __future__ import annotations

from jaxlrp.composites.linear_layers import linear_layers
from jaxlrp.planning.roles import SoftmaxOfProduct
from jaxlrp.planning.rulemap import RuleMap
from jaxlrp.planning.selectors import kind
from jaxlrp.rules import SignalTakesAll, Stop, Taylor, Tempered
from jaxlrp.rules.base import BiasPolicy


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
    return RuleMap(linear_layers(epsilon, bias), "attn_lrp")


def cp_lrp(*, epsilon: float = 0.0, bias: BiasPolicy = "absorb") -> RuleMap:
    r"""CP-LRP: attention weights and gates are constants. [`Stop`][jaxlrp.Stop] in the softmax of
    attention, [`SignalTakesAll`][jaxlrp.SignalTakesAll] in products.

    $$\text{attention } y_j = \sum_i p_{ji} v_i: \quad R_i = \sum_j \frac{p_{ji} v_i}{y_j} R_j$$

    Use it for transformers, if the ledger should balance: it conserves where there are no biases.
    It is not for questions about queries and keys, which get no relevance.

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
    return RuleMap({**linear_layers(epsilon, bias), **gates}, "cp_lrp")


def libra_grad() -> RuleMap:
    r"""Input × LibraGrad: the gradient with factors held so that it sums to the whole output.

    $$\text{attention } y_j = \sum_i p_{ji} v_i: \; R_i = \sum_j \frac{p_{ji} v_i}{y_j} R_j, \qquad
      \text{product } a b: R_a = R_b = \tfrac{1}{2} R$$

    The attention weights, the divisor of a norm, and the gate g of an activation x g(x) such as
    GELU and SiLU are constants. Such an activation therefore passes relevance on, and so does an
    activation with f(0) != 0. It differs from `cp_lrp` in gated MLPs, where `cp_lrp` gives all
    relevance to the gated factor. The balanced gradient itself is `what="density"` with `layers=`.

    Use it for transformers and MLP mixers, if relevance should sum to the output: it conserves
    where there are no biases. It is not for questions about queries and keys, which get no
    relevance.

    Source: [Mehri et al. 2025][mehri2025], section 3.5.

    Returns:
      A rule map.
    """
    gates = {SoftmaxOfProduct(): Stop(), kind("matmul"): SignalTakesAll()}
    return RuleMap({**linear_layers(0.0, "absorb"), **gates}, "libra_grad")


def gim(*, temperature: float = 2.0) -> RuleMap:
    r"""Input × GIM: the gradient with a softer softmax in attention, and shared products.

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
    return RuleMap({**linear_layers(0.0, "absorb"), **modified}, "gim")
