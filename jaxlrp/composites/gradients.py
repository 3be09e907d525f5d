"""The gradient, and gradients that are modified at ReLUs."""

from __future__ import annotations

from jaxlrp.graph.kinds import KINDS
from jaxlrp.planning.rulemap import RuleMap
from jaxlrp.planning.selectors import Selector, kind
from jaxlrp.rules import BetaSmooth, Deconvnet, Gradient, GuidedBackprop, Rule


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
