"""A softmax whose derivative is taken at another temperature than its value."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxlrp.errors import RuleError
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
        if isinstance(self.temperature, (int, float)) and self.temperature == 0:
            raise RuleError("Tempered: temperature=0 was given; expected a number above 0.")

    def propagate(self, layer: LayerView) -> Any:
        softer = jax.tree.map(lambda x: x / self.temperature, layer.x)
        inputs = softer if isinstance(softer, tuple) else (softer,)
        z, back = jax.vjp(layer.function, *inputs)
        found = back(jnp.asarray(layer.over(layer.z), z.dtype))
        return found if isinstance(softer, tuple) else found[0]
