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


@dataclasses.dataclass(frozen=True)
class _ReluRule(Rule):
    """A rule for ReLUs, of x or -x and with a number before or after: f(x) = t s max(d x, 0).

    For any other activation it is the derivative.
    """

    carries: ClassVar[Carries] = "relevance"
    fits: ClassVar[frozenset[str] | None] = frozenset({"activation"})
    from_weight: ClassVar[bool] = True

    def propagate(self, layer: LayerView) -> Inputs:
        if layer.relu_slopes is None:
            return layer.vjp(layer.relevance, detach=False)
        below, above = layer.relu_slopes
        turned = math.copysign(1.0, above or -below) * layer.relevance
        side = 1.0 if above else -1.0
        return (above or below) * self.through(side * layer.x, turned, layer.relevance)

    def through(self, x: jax.Array, turned: jax.Array, relevance: jax.Array) -> jax.Array:
        """Relevance before max(x, 0); `turned` has the sign of relevance at that ReLU."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Deconvnet(_ReluRule):
    r"""A ReLU on the arriving relevance, whether the unit was active or not.

    $$R_i = \max(R_j, 0)$$

    It acts on ReLUs, in any spelling and with a number before or after; other activations take
    their derivative.

    Shapes: x, $R_i$, z and $R_j$ are `Float[Array, "*in"]`.

    Use it for comparison with the literature. It is not evidence about the decision: the maps are
    nearly the same for every class, see [Nie et al. 2018][nie2018].

    Source: [Zeiler and Fergus 2014][zeiler2014].
    """

    def through(self, x: jax.Array, turned: jax.Array, relevance: jax.Array) -> jax.Array:
        return jnp.where(turned > 0, relevance, 0.0)


@dataclasses.dataclass(frozen=True)
class GuidedBackprop(_ReluRule):
    r"""The gradient of a ReLU, where the arriving relevance is positive.

    $$R_i = 1[x_i > 0] \max(R_j, 0)$$

    It acts on ReLUs, in any spelling and with a number before or after; other activations take
    their derivative.

    Shapes: x, $R_i$, z and $R_j$ are `Float[Array, "*in"]`.

    Use it for comparison with the literature. It is not evidence about the decision: the maps are
    nearly the same for every class, see [Nie et al. 2018][nie2018].

    Source: [Springenberg et al. 2015][springenberg2015].
    """

    def through(self, x: jax.Array, turned: jax.Array, relevance: jax.Array) -> jax.Array:
        return jnp.where((x > 0) & (turned > 0), relevance, 0.0)


@dataclasses.dataclass(frozen=True)
class BetaSmooth(_ReluRule):
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

    def __post_init__(self) -> None:
        check_number(self, "beta", self.beta)

    def through(self, x: jax.Array, turned: jax.Array, relevance: jax.Array) -> jax.Array:
        return jax.nn.sigmoid(self.beta * x) * relevance
