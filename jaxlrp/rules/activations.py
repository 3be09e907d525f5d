"""Rules that change how relevance passes a ReLU: the gradient-like methods.

They start from the weight of an output, 1 for the chosen class, as in the literature. They act on
ReLUs; for any other activation they are its derivative.
"""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

import jax
import jax.numpy as jnp

from jaxlrp.rules.base import Rule, check_number
from jaxlrp.rules.layer_view import Carries, Inputs, LayerView

_ACTIVATION = frozenset({"activation"})


def _parts(slopes: tuple[float, float]) -> tuple[float, float, float]:
    """Slope s, turn t and side d of f(x) = t |s| max(d x, 0), t and d being 1 or -1."""
    below, above = slopes
    side = 1.0 if above else -1.0
    return above or below, math.copysign(1.0, above or -below), side


@dataclasses.dataclass(frozen=True)
class Deconvnet(Rule):
    r"""A ReLU on what arrives, whether the unit was active or not.

    $$R_i = \max(R_j, 0)$$

    It acts on ReLUs, in any spelling and with a number before or after; other activations take
    their derivative.

    Shapes: x, $R_i$, z and $R_j$ are `Float[Array, "*in"]`.

    Use it for comparison with the literature. It is not evidence about the decision: the maps are
    nearly the same for every class, see [Nie et al. 2018][nie2018].

    Source: [Zeiler and Fergus 2014][zeiler2014].
    """

    carries: ClassVar[Carries] = "relevance"
    fits: ClassVar[frozenset[str] | None] = _ACTIVATION
    from_weight: ClassVar[bool] = True

    def propagate(self, layer: LayerView) -> Inputs:
        if layer.relu_slopes is None:
            return layer.vjp(layer.relevance, detach=False)
        slope, turn, _ = _parts(layer.relu_slopes)
        return slope * jnp.where(turn * layer.relevance > 0, layer.relevance, 0.0)


@dataclasses.dataclass(frozen=True)
class GuidedBackprop(Rule):
    r"""A ReLU's gradient, where what arrives is positive.

    $$R_i = 1[x_i > 0] \max(R_j, 0)$$

    It acts on ReLUs, in any spelling and with a number before or after; other activations take
    their derivative.

    Shapes: x, $R_i$, z and $R_j$ are `Float[Array, "*in"]`.

    Use it for comparison with the literature. It is not evidence about the decision: the maps are
    nearly the same for every class, see [Nie et al. 2018][nie2018].

    Source: [Springenberg et al. 2015][springenberg2015].
    """

    carries: ClassVar[Carries] = "relevance"
    fits: ClassVar[frozenset[str] | None] = _ACTIVATION
    from_weight: ClassVar[bool] = True

    def propagate(self, layer: LayerView) -> Inputs:
        if layer.relu_slopes is None:
            return layer.vjp(layer.relevance, detach=False)
        slope, turn, side = _parts(layer.relu_slopes)
        kept = (side * layer.x > 0) & (turn * layer.relevance > 0)
        return slope * jnp.where(kept, layer.relevance, 0.0)


@dataclasses.dataclass(frozen=True)
class BetaSmooth(Rule):
    r"""A ReLU's derivative, replaced by that of a softplus.

    $$R_i = \text{sigmoid}(\beta x_i) R_j$$

    It acts on ReLUs, in any spelling and with a number before or after; other activations take
    their derivative.

    Shapes: x, $R_i$, z and $R_j$ are `Float[Array, "*in"]`.

    Use it for gradients that are harder to manipulate by small changes of the input. It is not for
    relevance: nothing is conserved.

    Source: [Dombrowski et al. 2019][dombrowski2019].

    Args:
      beta: sharpness, >= 0; as it grows the derivative becomes that of the ReLU.
    """

    beta: float = 10.0

    carries: ClassVar[Carries] = "relevance"
    fits: ClassVar[frozenset[str] | None] = _ACTIVATION
    from_weight: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_number(self, "beta", self.beta)

    def propagate(self, layer: LayerView) -> Inputs:
        if layer.relu_slopes is None:
            return layer.vjp(layer.relevance, detach=False)
        slope, _, side = _parts(layer.relu_slopes)
        return slope * jax.nn.sigmoid(self.beta * side * layer.x) * layer.relevance
