"""A softmax whose derivative is taken at another temperature than its value."""

# JAX's own annotations leave parts unknown.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from jaxlrp.errors import RuleError
from jaxlrp.rules.arithmetic import as_tuple, is_zero
from jaxlrp.rules.base import Rule, check_number
from jaxlrp.rules.layer_view import Inputs, LayerView


@dataclasses.dataclass(frozen=True)
class Tempered(Rule):
    r"""A softmax with the derivative that it has at another temperature.

    $$R_i = x_i \sum_j p_j (\delta_{ij} - p_i) \frac{R_j}{z_j}, \qquad
      p = \text{softmax}(x / T), \; z = \text{softmax}(x)$$

    It is [`Taylor`][jaxlrp.Taylor] with the derivative of a softer function: `temperature=1` is
    `Taylor`, and neither conserves.

    Shapes: x and $R_i$ are `Float[Array, "*in"]`; z and $R_j$ are `Float[Array, "*out"]`.

    Use it in attention that is nearly one-hot: there z is flat and hides how much the largest score
    matters, while p is not. It is not for a softmax at the output, whose probabilities are
    explained.

    Source: [Edin et al. 2025][edin2025].

    Args:
      temperature: T, above 0; more than 1 is softer.

    Raises:
      RuleError: `temperature` is not above 0, or the layer is not a softmax.
    """

    temperature: float = 2.0

    fits: ClassVar[frozenset[str] | None] = frozenset({"softmax"})

    def __post_init__(self) -> None:
        check_number(self, "temperature", self.temperature)
        if is_zero(self.temperature):
            raise RuleError("Tempered: temperature=0 was given; expected a number above 0.")

    def propagate(self, layer: LayerView) -> Inputs:
        several = isinstance(layer.x, tuple)
        softer = [x / self.temperature for x in as_tuple(layer.x)]
        z, back = jax.vjp(layer.function, *softer)
        found = as_tuple(back(jnp.asarray(layer.over(layer.z), z.dtype)))
        return found if several else found[0]
