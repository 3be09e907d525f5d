"""Rules that treat positive and negative contributions separately: z+, alpha-beta, gamma."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxlrp.compat import is_concrete
from jaxlrp.errors import RuleError
from jaxlrp.rules.arithmetic import choose, is_zero
from jaxlrp.rules.base import LinearRule, check_number
from jaxlrp.rules.layer_view import Inputs, LayerView


def positive_part(b: Any) -> Any:
    return b if is_zero(b) else jnp.maximum(b, 0.0)


def negative_part(b: Any) -> Any:
    return b if is_zero(b) else jnp.minimum(b, 0.0)


def combine(x: Any, along: Any, across: Any) -> Any:
    """The density of x * along + |x| * across."""

    def combined(v: Any, a: Any, b: Any) -> Any:
        return a + choose(v < 0, -b, b, b)

    return jax.tree.map(combined, x, along, across)


@dataclasses.dataclass(frozen=True)
class AlphaBeta(LinearRule):
    r"""LRP-αβ: relevance is shared over positive and negative contributions separately.

    $$R_i = \sum_j \left( \alpha \frac{z_{ij}^+}{z_j^+} - \beta \frac{z_{ij}^-}{z_j^-} \right) R_j,
      \qquad \alpha - \beta = 1$$

    $z_{ij}^+$ and $z_{ij}^-$ are the positive and negative parts of the contribution $x_i w_{ij}$,
    and $z_j^\pm = \sum_i z_{ij}^\pm + b_j^\pm$. The rule takes five products per layer for x >= 0,
    nine for signed inputs.

    Shapes: x and $R_i$ are `Float[Array, "*in"]`; z and $R_j$ are `Float[Array, "*out"]`.

    Use it in convolutions, to see strong evidence for and against a class. It is not for layers
    whose outputs have contributions of only one sign: relevance is lost where a sum is empty, and
    the ledger lists it under the rule.

    Source: [Bach et al. 2015][bach2015], equation 60.

    Args:
      alpha: weight of the positive contributions, >= 1.
      beta: weight of the negative contributions, alpha - 1.
      epsilon: stabiliser of both denominators, >= 0, in units of the layer's output.
      bias: bias policy, see [`LinearRule`][jaxlrp.LinearRule].

    Raises:
      RuleError: alpha - beta is not 1.
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
                    f"{difference:g}, but must be 1 for relevance to be conserved."
                )

    @property
    def takes_relu(self) -> bool:
        return True

    def propagate(self, layer: LayerView) -> Inputs:
        found = layer.contributions()
        bias = 0.0 if self.bias == "ignore" else layer.bias
        p, bias_p = found.positive, positive_part(bias)
        sp = layer.over(p + bias_p, bias=bias_p, share=self.alpha, epsilon=self.epsilon)
        if is_zero(self.beta):
            return self.settle(layer, found.T(sp), lambda: sp * p)
        q, bias_q = found.negative, negative_part(bias)
        sq = layer.over(q + bias_q, bias=bias_q, share=-self.beta, epsilon=self.epsilon)
        return self.settle(layer, found.T(sp, sq), lambda: sp * p + sq * q)


@dataclasses.dataclass(frozen=True)
class ZPlus(LinearRule):
    r"""The z⁺ rule: only positive contributions count.

    $$R_i = \sum_j \frac{z_{ij}^+}{z_j^+} R_j, \qquad
      z_{ij}^+ = x_i^+ w_{ij}^+ + x_i^- w_{ij}^-, \qquad z_j^+ = \sum_i z_{ij}^+ + b_j^+$$

    It is the same as `AlphaBeta(1, 0)`, for signed inputs too. The rule takes three products per
    layer for x >= 0, five for signed inputs.

    Shapes: x and $R_i$ are `Float[Array, "*in"]`; z and $R_j$ are `Float[Array, "*out"]`.

    Use it in the convolutions of ReLU networks, for calm maps of positive evidence. It is not for
    evidence against a class, nor for layers in which signs carry the meaning (embeddings,
    attention).

    Source: [Montavon et al. 2017][montavon2017], section 4.1.

    Args:
      epsilon: stabiliser of the denominator, >= 0, in units of the layer's output.
      bias: bias policy, see [`LinearRule`][jaxlrp.LinearRule].
    """

    @property
    def takes_relu(self) -> bool:
        return True

    def propagate(self, layer: LayerView) -> Inputs:
        return AlphaBeta(1.0, 0.0, epsilon=self.epsilon, bias=self.bias).propagate(layer)


@dataclasses.dataclass(frozen=True)
class Gamma(LinearRule):
    r"""LRP-γ: contributions of the output's sign count (1 + γ) times.

    $$R_i = \sum_j \frac{x_i w_{ij} + \gamma (x_i w_{ij})^{\sigma_j}}{\sum_i x_i w_{ij} + b_j +
      \gamma \left( \sum_i (x_i w_{ij})^{\sigma_j} + b_j^{\sigma_j} \right)} R_j, \qquad
      \sigma_j = \begin{cases} + & z_j \ge 0 \\ - & z_j < 0 \end{cases}$$

    γ = 0 is LRP-ε; as γ grows, the rule approaches `ZPlus` where z >= 0.

    Shapes: x and $R_i$ are `Float[Array, "*in"]`; z and $R_j$ are `Float[Array, "*out"]`.

    Use it in convolutions, where some evidence against the class should stay visible, and in dense
    layers of transformers for calmer maps. It is not needed next to the output, where `Epsilon` is
    accurate and cheaper.

    Source: [Montavon et al. 2019][montavon2019] for x >= 0; for signed inputs [Andéol et al.
    2021][andeol2021], supplement.

    Args:
      gamma: how much more the favoured contributions count, >= 0.
      epsilon: stabiliser of the denominator, >= 0, in units of the layer's output.
      bias: bias policy, see [`LinearRule`][jaxlrp.LinearRule].
    """

    gamma: float = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number(self, "gamma", self.gamma)

    @property
    def takes_relu(self) -> bool:
        return True

    def propagate(self, layer: LayerView) -> Inputs:
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
        return self.settle(layer, self._back(layer, s, upper), lambda: s * z)

    @staticmethod
    def _contributions(layer: LayerView, linear: Any) -> tuple[Any, Any]:
        """Positive and negative contributions p and q, from one product and a difference.

        The difference is rounded in units of a = |x||W|. The favoured one is added 1 + gamma times,
        with the bias of its sign, to an output of its sign. That denominator is of the size of a or
        is not needed, so up to gamma = 100 the rounding does no harm.
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
        turned = choose(upper, s, -s, s) if layer.sign_split else s
        across = layer.map(absolute=1).T(g / 2 * turned)  # the same |W| as for the contributions
        return combine(layer.x, along, across)
