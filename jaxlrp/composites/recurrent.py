"""Composites for recurrent networks and state spaces: how relevance passes their gates."""

from __future__ import annotations

from jaxlrp.composites.linear_layers import linear_layers
from jaxlrp.planning.coefficients import SignalIs
from jaxlrp.planning.roles import Summand
from jaxlrp.planning.rulemap import RuleMap
from jaxlrp.planning.selectors import Selector, kind
from jaxlrp.rules import Epsilon, Rule, SignalTakesAll
from jaxlrp.rules.base import BiasPolicy


def lstm_lrp_all(
    epsilon: float = 1e-3,
    *,
    product: Rule | None = None,
    bias: BiasPolicy = "absorb",
) -> RuleMap:
    r"""LRP-all for recurrent networks: a gate gets no relevance, the signal gets all of it.

    $$\text{product } z = g s: R_g = 0, \; R_s = R, \qquad
      \text{sum } z: R_i = \frac{z_i}{\text{stab}(z)} R$$

    [`Epsilon(epsilon)`][jaxlrp.Epsilon] is the rule of sums, and of dense layers that do not feed a
    sum. The summands of a sum have `Epsilon(0)`, so that relevance is divided by a pre-activation
    Wx + Uh + b only once.

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
        **linear_layers(epsilon, bias),
        Summand(): Epsilon(0.0, bias=bias),
        kind("product"): rule,
    }
    return RuleMap(entries, "lstm_lrp_all")


_MOST_FACTORS = 6  # of a product whose signal `mamba_lrp` looks for


def mamba_lrp(*, epsilon: float = 0.0, bias: BiasPolicy = "absorb") -> RuleMap:
    r"""MambaLRP for selective state spaces: coefficients of the state are constants, and the gate
    gets half.

    $$h_t = A_t h_{t-1} + B_t x_t, \; y_t = C_t h_t \text{ with } A_t, B_t, C_t \text{ held}, \qquad
      \text{product } a b: R_a = R_b = \tfrac{1}{2} R$$

    If all factors of a product except one are computed from that one (the discretised A, B and C),
    or lie in [0, 1], that factor gets all relevance. Any other product gives equal shares. SiLU
    passes relevance on, norms are detached, and linear layers have `Epsilon(epsilon)`.

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
        **linear_layers(epsilon, bias),
        **{SignalIs(n): SignalTakesAll(signal=n) for n in range(_MOST_FACTORS)},
    }
    return RuleMap(entries, "mamba_lrp")
