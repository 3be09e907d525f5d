"""Rules without a denominator: pass, follow, stop, gradient, winner; and the detached norm."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp

from jaxlrp.errors import RuleError
from jaxlrp.rules.arithmetic import choose
from jaxlrp.rules.base import Rule
from jaxlrp.rules.layer_view import Carries, LayerView, PlannedLayer


@dataclasses.dataclass(frozen=True)
class Pass(Rule):
    """R_i = R_j: relevance passes unchanged, whatever the layer computes.

    The rule of activations. Fits any layer whose input has as many elements as its output.
    Source: Bach et al. 2015.
    """

    carries: ClassVar[Carries] = "relevance"
    passes: ClassVar[bool] = True

    def what_it_carries(self, arriving: Carries, layer: PlannedLayer) -> Carries:
        if not self.passes:
            return super().what_it_carries(arriving, layer)
        # f(x)/x carries a density through an activation with f(0) = 0 and loses nothing.
        return arriving if layer.kind == "activation" and layer.zero_at_zero else "relevance"

    def propagate(self, layer: LayerView) -> Any:
        if layer.carries == "density":
            return layer.secant(layer.density)
        return jax.tree.map(lambda x: jnp.reshape(layer.relevance, x.shape), layer.x)


@dataclasses.dataclass(frozen=True)
class Follow(Rule):
    """Relevance follows the elements that an equation moves, selects, repeats or drops."""

    carries: ClassVar[Carries] = "same"
    fits: ClassVar[frozenset[str] | None] = frozenset({"structural"})
    follows: ClassVar[bool] = True

    @property
    def plain(self) -> bool:
        return True

    def propagate(self, layer: LayerView) -> Any:
        if layer.arriving == "relevance" and layer.transport == "scale":
            return jax.tree.map(lambda x: jnp.reshape(layer.relevance, x.shape), layer.x)
        return layer.vjp(layer.arrived)


@dataclasses.dataclass(frozen=True)
class Stop(Rule):
    """R_i = 0: no relevance passes. With `cp_lrp` this is the rule of attention's softmax."""

    carries: ClassVar[Carries] = "density"

    def propagate(self, layer: LayerView) -> Any:
        return jax.tree.map(jnp.zeros_like, layer.x)


@dataclasses.dataclass(frozen=True)
class Gradient(Rule):
    """R_i = sum_j dz_j/dx_i R_j: the plain vector-Jacobian product on what arrives.

    Not multiplied by the input and not conserving; the rule of the gradient-like composites. At an
    output that such a layer makes the seed is the weight, 1 for the chosen class. For a derivative
    between rules that share relevance out see `Taylor`. The derivative of a ReLU at 0 is 0, in
    every spelling.
    """

    carries: ClassVar[Carries] = "relevance"
    from_weight: ClassVar[bool] = True

    def propagate(self, layer: LayerView) -> Any:
        if layer.is_relu:
            return choose(layer.x > 0, layer.relevance, 0.0, layer.x)
        return layer.vjp(layer.relevance, detach=False)


@dataclasses.dataclass(frozen=True)
class Taylor(Rule):
    """R_i = x_i * sum_j dz_j/dx_i R_j / z_j: first-order Taylor expansion without its constant.

    The rule of softmax, log-softmax and logsumexp; it does not conserve.
    Source: Achtibat et al., AttnLRP, ICML 2024, equation 13.
    """

    @property
    def plain(self) -> bool:
        return True

    def propagate(self, layer: LayerView) -> Any:
        return layer.vjp(layer.over(layer.z))


@dataclasses.dataclass(frozen=True)
class Detach(Rule):
    """The factor by which a norm divides is a constant; centring and scale are linear.

    R_i = x_i * sum_j c_ij R_j / y_j where y = c x + b with the factor held at its value. With
    `bias="absorb"` the shift b keeps its share; with `"ignore"` it leaves the denominator.
    Source: Ali et al., XAI for transformers: better explanations through conservative
    propagation, ICML 2022.
    """

    bias: Literal["absorb", "ignore"] = dataclasses.field(default="absorb", kw_only=True)

    fits: ClassVar[frozenset[str] | None] = frozenset({"norm"})

    def __post_init__(self) -> None:
        if self.bias not in ("absorb", "ignore"):
            raise RuleError(f"Detach(bias={self.bias!r}): give 'absorb' or 'ignore'.")

    @property
    def plain(self) -> bool:
        return self.bias == "absorb"

    def propagate(self, layer: LayerView) -> Any:
        if self.bias == "ignore":
            return layer.vjp(layer.over(layer.linear))
        return layer.vjp(layer.over(layer.z, bias=layer.bias))


@dataclasses.dataclass(frozen=True)
class WinnerTakesAll(Rule):
    """All relevance of an output goes to the input that won it; ties to the first, row-major."""

    carries: ClassVar[Carries] = "same"
    fits: ClassVar[frozenset[str] | None] = frozenset({"max_pool"})

    def propagate(self, layer: LayerView) -> Any:
        return layer.route(layer.arrived)
