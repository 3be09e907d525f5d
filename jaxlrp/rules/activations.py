"""Rules that change how relevance passes a ReLU: the gradient-like methods.

They start from the weight of an output, 1 for the chosen class, as in the literature. They act on
ReLUs; for any other activation they are its derivative.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from jaxlrp.rules.base import Rule, check_number
from jaxlrp.rules.layer_view import Carries, Inputs, LayerView

_ACTIVATION = frozenset({"activation"})


@dataclasses.dataclass(frozen=True)
class Deconvnet(Rule):
    r"""A ReLU on what arrives, whether the unit was active or not.

    $$R_i = \max(R_j, 0)$$

    It acts on ReLUs, in any spelling; other activations take their derivative.

    Shapes: x, $R_i$, z and $R_j$ are `Float[Array, "*in"]`.

    Use it for comparison with the literature. It is not evidence about the decision: the maps are
    nearly the same for every class, see [Nie et al. 2018][nie2018].

    Source: [Zeiler and Fergus 2014][zeiler2014].
    """

    carries: ClassVar[Carries] = "relevance"
    fits: ClassVar[frozenset[str] | None] = _ACTIVATION
    from_weight: ClassVar[bool] = True

    def propagate(self, layer: LayerView) -> Inputs:
        if not layer.is_relu:
            return layer.vjp(layer.relevance, detach=False)
        return jnp.maximum(layer.relevance, 0.0)


@dataclasses.dataclass(frozen=True)
class GuidedBackprop(Rule):
    r"""A ReLU's gradient, where what arrives is positive.

    $$R_i = 1[x_i > 0] \max(R_j, 0)$$

    It acts on ReLUs, in any spelling; other activations take their derivative.

    Shapes: x, $R_i$, z and $R_j$ are `Float[Array, "*in"]`.

    Use it for comparison with the literature. It is not evidence about the decision: the maps are
    nearly the same for every class, see [Nie et al. 2018][nie2018].

    Source: [Springenberg et al. 2015][springenberg2015].
    """

    carries: ClassVar[Carries] = "relevance"
    fits: ClassVar[frozenset[str] | None] = _ACTIVATION
    from_weight: ClassVar[bool] = True

    def propagate(self, layer: LayerView) -> Inputs:
        if not layer.is_relu:
            return layer.vjp(layer.relevance, detach=False)
        return jnp.where(layer.x > 0, jnp.maximum(layer.relevance, 0.0), 0.0)


@dataclasses.dataclass(frozen=True)
class BetaSmooth(Rule):
    r"""A ReLU's derivative, replaced by that of a softplus.

    $$R_i = \text{sigmoid}(\beta x_i) R_j$$

    It acts on ReLUs, in any spelling; other activations take their derivative.

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
        if not layer.is_relu:
            return layer.vjp(layer.relevance, detach=False)
        return jax.nn.sigmoid(self.beta * layer.x) * layer.relevance
