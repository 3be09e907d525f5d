"""Rules that treat positive and negative contributions apart: z+, alpha-beta, gamma."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxlrp.compat import is_concrete
from jaxlrp.errors import RuleError
from jaxlrp.rules.arithmetic import choose
from jaxlrp.rules.base import LinearRule, check_number
from jaxlrp.rules.layer_view import LayerView


def positive_part(b: Any) -> Any:
    return b if isinstance(b, float) and b == 0 else jnp.maximum(b, 0.0)


def negative_part(b: Any) -> Any:
    return b if isinstance(b, float) and b == 0 else jnp.minimum(b, 0.0)


def combine(x: Any, along: Any, across: Any) -> Any:
    """The density of x * along + |x| * across."""
    return jax.tree.map(lambda v, a, b: a + choose(v < 0, -b, b, b), x, along, across)


@dataclasses.dataclass(frozen=True)
class AlphaBeta(LinearRule):
    r"""R_i = sum_j (alpha * z+_ij / z+_j - beta * z-_ij / z-_j) R_j.

    z+_ij and z-_ij are the positive and negative parts of the contribution x_i w_ij; z+_j and
    z-_j their sums, b+ with the first and b- with the second. alpha - beta = 1, alpha >= 1.

    Source: Bach et al. 2015, equation 60.
    """

    alpha: float = 2.0
    beta: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number(self, "alpha", self.alpha)
        check_number(self, "beta", self.beta)
        if is_concrete(self.alpha) and is_concrete(self.beta):
            difference = float(self.alpha) - float(self.beta)
            if abs(difference - 1.0) > 1e-6:
                raise RuleError(
                    f"AlphaBeta(alpha={self.alpha}, beta={self.beta}): alpha - beta is "
                    f"{difference:g}, and must be 1 for relevance to be conserved."
                )

    @property
    def takes_relu(self) -> bool:
        return True

    def propagate(self, layer: LayerView) -> Any:
        found = layer.contributions()
        bias = 0.0 if self.bias == "ignore" else layer.bias
        p, bias_p = found.positive, positive_part(bias)
        sp = layer.over(p + bias_p, bias=bias_p, share=self.alpha, epsilon=self.epsilon)
        if isinstance(self.beta, (int, float)) and self.beta == 0:
            return self.settle(layer, found.T(sp), sp * p)
        q, bias_q = found.negative, negative_part(bias)
        sq = layer.over(q + bias_q, bias=bias_q, share=-self.beta, epsilon=self.epsilon)
        return self.settle(layer, found.T(sp, sq), sp * p + sq * q)


@dataclasses.dataclass(frozen=True)
class ZPlus(LinearRule):
    r"""R_i = sum_j z+_ij / z+_j R_j, with z+_j = sum_i z+_ij + b+_j.

    z+_ij = x+_i w+_ij + x-_i w-_ij: for signed inputs too only positive contributions count. The
    same as AlphaBeta(1, 0).

    Source: Montavon et al., Explaining nonlinear classification decisions with deep Taylor
    decomposition, Pattern Recognition 65, 2017, section 4.1.
    """

    @property
    def takes_relu(self) -> bool:
        return True

    def propagate(self, layer: LayerView) -> Any:
        return AlphaBeta(1.0, 0.0, epsilon=self.epsilon, bias=self.bias).propagate(layer)


@dataclasses.dataclass(frozen=True)
class Gamma(LinearRule):
    r"""Positive contributions, if the output is positive, count (1 + gamma) times.

    R_i = sum_j g_ij / sum_i g_ij R_j with g_ij = x_i w_ij + gamma * (x_i w_ij)+ where the true
    output z_j >= 0, and x_i w_ij + gamma * (x_i w_ij)- where z_j < 0; the bias likewise.

    Source: Montavon et al., Layer-wise relevance propagation: an overview, 2019, for x >= 0;
    generalised to signed inputs as in Andeol et al., Learning domain invariant representations
    by joint Wasserstein distance minimization, 2021, supplement.
    """

    gamma: float = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number(self, "gamma", self.gamma)

    @property
    def takes_relu(self) -> bool:
        return True

    def propagate(self, layer: LayerView) -> Any:
        g, ignore = self.gamma, self.bias == "ignore"
        linear = layer.linear if ignore else layer.z - layer.bias
        p, q = self._contributions(layer, linear)
        upper = layer.z >= 0
        favoured, favoured_bias = p, positive_part(layer.bias)
        if layer.sign_split:
            favoured = choose(upper, p, q, p)
            favoured_bias = choose(upper, favoured_bias, negative_part(layer.bias), p)
        bias = 0.0 if ignore else layer.bias + g * favoured_bias
        z = linear + g * favoured
        s = layer.over(z + bias, bias=bias, epsilon=self.epsilon)
        if not layer.sign_split:
            s = choose(upper, s, 0.0, s)
        return self.settle(layer, self._back(layer, s, upper), s * z)

    @staticmethod
    def _contributions(layer: LayerView, linear: Any) -> tuple[Any, Any]:
        """Positive and negative contributions p and q, from one product and a difference.

        The difference is rounded in units of a = |x||W|. Of the two the one that counts is added
        1 + gamma times, with the bias of its sign, to an output of its sign: that denominator is
        of the size of a or is not needed, so up to gamma = 100 the rounding does no harm.
        """
        if layer.nonnegative:
            p = layer.map(positive=1)(layer.x)
            return p, linear - p
        a = layer.map(absolute=1)(jax.tree.map(jnp.abs, layer.x))
        return (linear + a) / 2, (linear - a) / 2

    def _back(self, layer: LayerView, s: Any, upper: Any) -> Any:
        g = self.gamma
        if layer.nonnegative:
            if not layer.sign_split:
                return layer.map(signed=1, positive=g).T(s)
            above = layer.map(signed=1, positive=g).T(choose(upper, s, 0.0, s))
            below = layer.map(signed=1, negative=g).T(choose(upper, 0.0, s, s))
            return jax.tree.map(jnp.add, above, below)
        along = layer.map(signed=1 + g / 2).T(s)
        across = layer.map(absolute=g / 2).T(choose(upper, s, -s, s) if layer.sign_split else s)
        return combine(layer.x, along, across)
