"""Rules that treat positive and negative contributions apart: z+, alpha-beta, gamma."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxlrp.compat import is_concrete
from jaxlrp.errors import RuleError
from jaxlrp.rules.base import LinearRule, check_number, choose


def contributions(layer: Any, both: bool = True) -> tuple[Any, Any]:
    """Positive and negative contributions p = x+W+ + x-W- and q = xW - p, without the bias.

    For x >= 0 one product, p = xW+. Otherwise a = |x||W| gives p = (xW + a)/2. What is a
    difference of sums and below their rounding is no contribution: it is set to 0, so that an
    output with contributions of one sign alone does not divide by noise. q is None unless `both`.
    """
    if layer.nonnegative:
        p = layer.map(positive=1)(layer.x)
        if not both:
            return p, None
        q = layer.z - layer.bias - p
        return p, choose(q >= -_noise(p - q), 0.0, q, q)
    linear = layer.z - layer.bias
    a = layer.map(absolute=1)(jax.tree.map(jnp.abs, layer.x))
    p, q = (linear + a) / 2, (linear - a) / 2
    return choose(p <= _noise(a), 0.0, p, p), choose(q >= -_noise(a), 0.0, q, q)


def _noise(a: Any) -> Any:
    """Rounding of a sum whose terms have the magnitudes that add up to `a`."""
    return float(32 * jnp.finfo(a.dtype).eps) * a


def positive_part(b: Any) -> Any:
    return jnp.maximum(b, 0.0)


def negative_part(b: Any) -> Any:
    return jnp.minimum(b, 0.0)


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

    def propagate(self, layer: Any) -> Any:
        only_positive = isinstance(self.beta, (int, float)) and self.beta == 0
        p, q = contributions(layer, both=not only_positive)
        bias_p = self.kept(positive_part(layer.bias))
        sp = layer.over(p + bias_p, bias=bias_p, share=self.alpha, epsilon=self.epsilon)
        sq = None
        if not only_positive:
            bias_q = self.kept(negative_part(layer.bias))
            sq = layer.over(q + bias_q, bias=bias_q, share=-self.beta, epsilon=self.epsilon)
        kept = sp * p if sq is None else sp * p + sq * q
        return self.settle(layer, self._back(layer, sp, sq), kept)

    @staticmethod
    def _back(layer: Any, sp: Any, sq: Any) -> Any:
        if layer.nonnegative:
            back = layer.map(positive=1).T(sp)
            if sq is None:
                return back
            return jax.tree.map(jnp.add, back, layer.map(negative=1).T(sq))
        along = layer.map(signed=0.5).T(sp if sq is None else sp + sq)
        across = layer.map(absolute=0.5).T(sp if sq is None else sp - sq)
        return combine(layer.x, along, across)


@dataclasses.dataclass(frozen=True)
class ZPlus(LinearRule):
    r"""R_i = sum_j z+_ij / z+_j R_j, with z+_j = sum_i z+_ij + b+_j.

    z+_ij = x+_i w+_ij + x-_i w-_ij: for signed inputs too only positive contributions count. The
    same as AlphaBeta(1, 0).

    Source: Montavon et al., Explaining nonlinear classification decisions with deep Taylor
    decomposition, Pattern Recognition 65, 2017, section 4.1.
    """

    def propagate(self, layer: Any) -> Any:
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

    def propagate(self, layer: Any) -> Any:
        g = self.gamma
        p, q = contributions(layer, both=layer.sign_split)
        linear = layer.z - layer.bias
        upper = layer.z >= 0
        favoured = choose(upper, p, q, p) if layer.sign_split else p
        bias_part = positive_part(layer.bias)
        if layer.sign_split:
            bias_part = choose(upper, bias_part, negative_part(layer.bias), p)
        bias = self.kept(layer.bias + g * bias_part)
        z = linear + g * favoured
        s = layer.over(z + bias, bias=bias, epsilon=self.epsilon)
        if not layer.sign_split:
            s = choose(upper, s, 0.0, s)
        return self.settle(layer, self._back(layer, s, upper), s * z)

    def _back(self, layer: Any, s: Any, upper: Any) -> Any:
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
