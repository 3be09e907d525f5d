"""Rules without a denominator: pass, follow, stop, gradient, winner; and the detached norm."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Literal

import jax
from jax import lax

from jaxlrp.errors import RuleError
from jaxlrp.rules.arithmetic import choose, shaped_like
from jaxlrp.rules.base import Rule
from jaxlrp.rules.layer_view import Carries, Inputs, LayerView, PlannedLayer


@dataclasses.dataclass(frozen=True)
class Pass(Rule):
    """Passes relevance through unchanged, whatever the layer computes.

    $$R_i = R_j$$

    This is the default rule of activations. It fits any layer whose input has as many elements as
    its output.

    Shapes: $R_i$ is `Float[Array, "*in"]`, $R_j$ is `Float[Array, "*out"]`, of the same size.

    Use it in activations, and to skip a layer that only rescales. It is not for layers that mix
    their inputs: element i of the input then gets the relevance of an output that it may not have
    made.

    Source: [Bach et al. 2015][bach2015].
    """

    carries: ClassVar[Carries] = "relevance"
    passes: ClassVar[bool] = True

    def what_it_carries(self, arriving: Carries, layer: PlannedLayer) -> Carries:
        if not self.passes:
            return super().what_it_carries(arriving, layer)
        # f(x)/x carries a density through an activation with f(0) = 0 without loss.
        return arriving if layer.kind == "activation" and layer.zero_at_zero else "relevance"

    def propagate(self, layer: LayerView) -> Inputs:
        if layer.carries == "density":
            return layer.secant(layer.density)
        return shaped_like(layer.x, layer.relevance)


@dataclasses.dataclass(frozen=True)
class Follow(Rule):
    r"""Relevance follows the elements that an equation moves, selects, repeats or drops.

    $$R_i = \sum_{j : \pi(j) = i} R_j, \qquad z_j = x_{\pi(j)}$$

    It is LRP-0 of a linear layer with weights 0 and 1, and the default rule of `structural` layers:
    reshapes, slices, padding, gathers.

    Shapes: x and $R_i$ are `Float[Array, "*in"]`; z and $R_j$ are `Float[Array, "*out"]`.

    Use it wherever elements only move. It is not for layers that compute with their elements.

    Source: [Bach et al. 2015][bach2015], equation 56 with weights 0 and 1.
    """

    carries: ClassVar[Carries] = "same"
    fits: ClassVar[frozenset[str] | None] = frozenset({"structural"})
    follows: ClassVar[bool] = True

    @property
    def plain(self) -> bool:
        return True

    def propagate(self, layer: LayerView) -> Inputs:
        if layer.arriving == "relevance" and layer.transport == "scale":
            return shaped_like(layer.x, layer.relevance)
        return layer.vjp(layer.arrived)


@dataclasses.dataclass(frozen=True)
class Stop(Rule):
    """No relevance passes.

    $$R_i = 0$$

    Shapes: $R_i$ is `Float[Array, "*in"]`.

    Use it to end relevance at a branch, as [`cp_lrp`][jaxlrp.composites.cp_lrp] does at the softmax
    of attention. It is not for a layer on the only path to the input: nothing arrives then.

    Source: [Ali et al. 2022][ali2022], for attention weights.
    """

    carries: ClassVar[Carries] = "density"

    def sends_to(self, position: int, layer: PlannedLayer) -> bool:
        return False

    def propagate(self, layer: LayerView) -> Inputs:
        def zeros(x: Any) -> Any:
            return lax.full_like(x, 0)

        return jax.tree.map(zeros, layer.x)


@dataclasses.dataclass(frozen=True)
class Gradient(Rule):
    r"""The plain vector-Jacobian product of the arriving relevance.

    $$R_i = \sum_j \frac{\partial z_j}{\partial x_i} R_j$$

    The result is not multiplied by the input and not conserved. If a layer with this rule makes an
    output, the seed there is the weight, 1 for the chosen class. The derivative of a ReLU at 0 is
    0, in every spelling.

    Shapes: x and $R_i$ are `Float[Array, "*in"]`; z and $R_j$ are `Float[Array, "*out"]`.

    Use it for gradients and their modifications in all layers of a network, as
    [`gradient`][jaxlrp.composites.gradient] does. It is not for a single layer among layers that
    share relevance: `Taylor` is the derivative that conserves where it can.

    Source: [Simonyan et al. 2014][simonyan2014].
    """

    carries: ClassVar[Carries] = "relevance"
    from_weight: ClassVar[bool] = True

    def propagate(self, layer: LayerView) -> Inputs:
        if layer.is_relu:
            return choose(layer.x > 0, layer.relevance, 0.0, layer.x)
        return layer.vjp(layer.relevance, detach=False)


@dataclasses.dataclass(frozen=True)
class Taylor(Rule):
    r"""First-order Taylor expansion of the layer, without its constant term.

    $$R_i = x_i \sum_j \frac{\partial z_j}{\partial x_i} \frac{R_j}{z_j}$$

    This is the default rule of softmax, log-softmax and logsumexp. It does not conserve: the
    constant term of the expansion takes a share, which the ledger lists under the rule.

    Shapes: x and $R_i$ are `Float[Array, "*in"]`; z and $R_j$ are `Float[Array, "*out"]`.

    Use it for smooth functions of several inputs that no other rule fits. It is not for functions
    that are steep or flat at x: the expansion is then far from the function.

    Source: [Achtibat et al. 2024][achtibat2024], equation 13.
    """

    @property
    def plain(self) -> bool:
        return True

    def propagate(self, layer: LayerView) -> Inputs:
        return layer.vjp(layer.over(layer.z))


@dataclasses.dataclass(frozen=True)
class Detach(Rule):
    r"""The factor by which a norm divides is a constant; centring and scale are linear.

    $$R_i = x_i \sum_j c_{ij} \frac{R_j}{y_j}, \qquad y_j = \sum_i c_{ij} x_i + b_j$$

    with the divisor inside c held at its value. This is the default rule of `norm` layers:
    LayerNorm, RMSNorm, GroupNorm and others.

    Shapes: x and $R_i$ are `Float[Array, "*in"]`; y and $R_j$ are `Float[Array, "*out"]`.

    Use it for every norm whose divisor depends on the input. It is not for batch normalisation with
    fixed statistics, which belongs to the linear layer beside it. With `bias="ignore"` the
    denominator consists of the scaled values, which may be near 0.

    Source: [Ali et al. 2022][ali2022].

    Args:
      bias: `"absorb"`: the shift b keeps its share; `"ignore"`: it leaves the denominator.

    Raises:
      RuleError: the bias policy is another one.
    """

    bias: Literal["absorb", "ignore"] = dataclasses.field(default="absorb", kw_only=True)

    fits: ClassVar[frozenset[str] | None] = frozenset({"norm"})

    def __post_init__(self) -> None:
        if self.bias not in ("absorb", "ignore"):
            raise RuleError(f"Detach(bias={self.bias!r}): expected 'absorb' or 'ignore'.")

    @property
    def plain(self) -> bool:
        return self.bias == "absorb"

    def propagate(self, layer: LayerView) -> Inputs:
        if self.bias == "ignore":
            return layer.vjp(layer.over(layer.linear))
        return layer.vjp(layer.over(layer.z, bias=layer.bias))


@dataclasses.dataclass(frozen=True)
class WinnerTakesAll(Rule):
    r"""All relevance of an output goes to the winning input.

    $$R_i = \sum_{j : \pi(j) = i} R_j, \qquad
      \pi(j) = \text{place of the largest input of output } j$$

    If several inputs are equal, the first in row-major order wins. This is the default rule of
    `max_pool` layers.

    Shapes: x and $R_i$ are `Float[Array, "*in"]`; z and $R_j$ are `Float[Array, "*out"]`.

    Use it for max pooling and maxima over an axis, where it conserves relevance. It is not for
    smooth maxima such as logsumexp, which have `Taylor`.

    Source: [Bach et al. 2015][bach2015].
    """

    carries: ClassVar[Carries] = "same"
    fits: ClassVar[frozenset[str] | None] = frozenset({"max_pool"})

    def propagate(self, layer: LayerView) -> Inputs:
        return layer.route(layer.arrived)
