"""Runs of a linear layer with its weights replaced: by a function of each, or by ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from jaxlrp import compat
from jaxlrp.graph.ir import Eqn, Value
from jaxlrp.run.kernels import contraction_count, weight_position, window_count
from jaxlrp.run.linear_protocols import LinearProgram

Weights = Callable[[Any], Any]


def combination(signed: float, positive: float, negative: float, absolute: float) -> Weights:
    """The weights signed*W + positive*W+ + negative*W- + absolute*|W|, elementwise."""

    def weights(w: Any) -> Any:
        parts = [
            (signed, lambda: w),
            (positive, lambda: jnp.maximum(w, 0)),
            (negative, lambda: jnp.minimum(w, 0)),
            (absolute, lambda: jnp.abs(w)),
        ]
        terms = [part() if _is_one(c) else c * part() for c, part in parts if not is_zero(c)]
        return sum(terms[1:], terms[0]) if terms else jnp.zeros_like(w)

    return weights


def is_zero(c: Any) -> bool:
    return isinstance(c, (int, float)) and c == 0


def _is_one(c: Any) -> bool:
    return isinstance(c, (int, float)) and c == 1


class Weighted:
    """Runs with a function of every factor in its place.

    Without `signs` no factor is negative. With `late` the function is not the identity, and its
    result need not be there before relevance arrives.
    """

    def __init__(
        self, program: LinearProgram, weights: Weights, signs: bool = True, late: bool = True
    ):
        self.program = program
        self.late = late
        self.weights = weights
        self.signs = signs and weights is not jnp.abs

    def negated(self, x: Any) -> Any:
        return -x if self.signs else x

    def added(self, x: Any, y: Any) -> Any:
        return x + y

    def applied(self, function: Callable[[Any], Any], x: Any) -> Any:
        return function(x)

    def scaled(self, x: Any, factor: Callable[[], Any], sign: int | None) -> Any:
        # A combination of W, W+ and W- is formed from the kernel if no scale is negative.
        if self.program.one_kernel and self.signs:
            return x * factor()
        return x * self.weights(factor())

    def through(self, core: Eqn, operand: int, x: Any) -> Any:
        kernel = self.program.kernel(core, operand)
        kernel = self.program.late(kernel) if self.late else kernel
        return self.program.product(core, operand, x, self.weights(kernel))

    def moved(self, eqn: Eqn, env: dict[Value, Any]) -> list[Any]:
        return self.program.move(eqn, env)


class Ones(Weighted):
    """Runs with every factor 1: it counts inputs, and its transpose spreads evenly."""

    def __init__(self, program: LinearProgram):
        super().__init__(program, jnp.ones_like, signs=False)

    def scaled(self, x: Any, factor: Callable[[], Any], sign: int | None) -> Any:
        return x

    def through(self, core: Eqn, operand: int, x: Any) -> Any:
        """A window sum over one channel, or a sum over contracted axes."""
        if core.name == "conv_general_dilated":
            if operand == 0 and core.params["batch_group_count"] == 1:
                return window_count(core, x)
            return self._with_ones(core, operand, x)
        if core.name != "dot_general":
            return self._with_ones(core, operand, x)
        return contraction_count(core, operand, x)

    def _with_ones(self, core: Eqn, operand: int, x: Any) -> Any:
        kernel = core.inputs[weight_position(core, operand)]
        ones = compat.typed_like(jnp.ones(kernel.shape, x.dtype), x)
        return self.program.product(core, operand, x, ones)
