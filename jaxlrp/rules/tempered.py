"""A softmax whose derivative is taken at another temperature than its value."""

# JAX's own annotations leave parts unknown.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxlrp.errors import RuleError
from jaxlrp.rules.arithmetic import as_tuple, is_zero
from jaxlrp.rules.base import Rule, check_number
from jaxlrp.rules.layer_view import LayerView


@dataclasses.dataclass(frozen=True)
class Tempered(Rule):
    """R_i = x_i sum_j p_j (1[i = j] - p_i) R_j / z_j with p = softmax(x / temperature).

    The `Taylor` rule of a softmax z = softmax(x) with the derivative of a softer one. Where one
    score is far above the others z is flat and hides how much that score matters; p is not. Like
    `Taylor` it does not conserve; `temperature=1` is `Taylor`.

    Args:
      temperature: above 0; more than 1 is softer.

    Source: Edin et al., GIM: improved interpretability for large language models, 2025.
    """

    temperature: float = 2.0

    fits: ClassVar[frozenset[str] | None] = frozenset({"softmax"})

    def __post_init__(self) -> None:
        check_number(self, "temperature", self.temperature)
        if is_zero(self.temperature):
            raise RuleError("Tempered: temperature=0 was given; expected a number above 0.")

    def propagate(self, layer: LayerView) -> Any:
        several = isinstance(layer.x, tuple)
        softer = [x / self.temperature for x in as_tuple(layer.x)]
        z, back = jax.vjp(layer.function, *softer)
        found = as_tuple(back(jnp.asarray(layer.over(layer.z), z.dtype)))
        return found if several else found[0]
