"""Rules that change how relevance passes a ReLU: the gradient-like methods.

They start from the weight of an output, 1 for the chosen class, as in the literature. They act on
ReLUs; any other activation takes its derivative.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxlrp.rules.base import Rule, check_number
from jaxlrp.rules.layer_view import Carries, LayerView

_ACTIVATION = frozenset({"activation"})


@dataclasses.dataclass(frozen=True)
class Deconvnet(Rule):
    """R_i = max(R_j, 0) at a ReLU, whether the unit was active or not.

    Source: Zeiler and Fergus, Visualizing and understanding convolutional networks, ECCV 2014.
    """

    carries: ClassVar[Carries] = "relevance"
    fits: ClassVar[frozenset[str] | None] = _ACTIVATION
    from_weight: ClassVar[bool] = True

    def propagate(self, layer: LayerView) -> Any:
        if not layer.is_relu:
            return layer.vjp(layer.relevance, detach=False)
        return jnp.maximum(layer.relevance, 0.0)


@dataclasses.dataclass(frozen=True)
class GuidedBackprop(Rule):
    """R_i = 1[x_i > 0] max(R_j, 0) at a ReLU: its gradient, of what is positive alone.

    Source: Springenberg et al., Striving for simplicity: the all convolutional net, 2015.
    """

    carries: ClassVar[Carries] = "relevance"
    fits: ClassVar[frozenset[str] | None] = _ACTIVATION
    from_weight: ClassVar[bool] = True

    def propagate(self, layer: LayerView) -> Any:
        if not layer.is_relu:
            return layer.vjp(layer.relevance, detach=False)
        return jnp.where(layer.x > 0, jnp.maximum(layer.relevance, 0.0), 0.0)


@dataclasses.dataclass(frozen=True)
class BetaSmooth(Rule):
    """R_i = sigmoid(beta x_i) R_j: a ReLU's derivative replaced by that of a softplus.

    Source: Dombrowski et al., Explanations can be manipulated and geometry is to blame, 2019.
    """

    beta: float = 10.0

    carries: ClassVar[Carries] = "relevance"
    fits: ClassVar[frozenset[str] | None] = _ACTIVATION
    from_weight: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_number(self, "beta", self.beta)

    def propagate(self, layer: LayerView) -> Any:
        if not layer.is_relu:
            return layer.vjp(layer.relevance, detach=False)
        return jax.nn.sigmoid(self.beta * layer.x) * layer.relevance
