"""The epsilon rule, and with epsilon = 0 the basic rule LRP-0."""

from __future__ import annotations

import dataclasses

from jaxlrp.rules.arithmetic import is_zero
from jaxlrp.rules.base import LinearRule
from jaxlrp.rules.layer_view import Inputs, LayerView


@dataclasses.dataclass(frozen=True)
class Epsilon(LinearRule):
    r"""LRP-ε: shares relevance by contribution, over a stabilised denominator.

    $$R_i = \sum_j \frac{x_i w_{ij}}{z_j + \epsilon \, \text{sgn}(z_j)} R_j, \qquad
      z_j = \sum_i x_i w_{ij} + b_j$$

    with sgn(0) = +1. `Epsilon(0)` is LRP-0; in a ReLU network without biases LRP-0 is gradient ×
    input. The rule takes the two products per layer that a gradient takes.

    Shapes: x and $R_i$ are `Float[Array, "*in"]`; z and $R_j$ are `Float[Array, "*out"]`.

    Use it in dense layers near the output, and in every linear layer of transformers and recurrent
    networks. It is not for the convolutions of a deep network, where it is as noisy as the
    gradient: `Gamma` and `ZPlus` give calmer maps there.

    Source: [Bach et al. 2015][bach2015], equation 58.

    Args:
      epsilon: stabiliser of the denominator, >= 0, in units of the layer's output.
      relative: whether epsilon is in units of the root mean square of z over the features of one
        example.
      bias: bias policy, see [`LinearRule`][jaxlrp.LinearRule].
    """

    epsilon: float = 1e-6
    relative: bool = False

    @property
    def plain(self) -> bool:
        return is_zero(self.epsilon) and self.bias == "absorb"

    @property
    def takes_relu(self) -> bool:
        return not self.relative

    def propagate(self, layer: LayerView) -> Inputs:
        z, bias = (layer.linear, 0.0) if self.bias == "ignore" else (layer.z, layer.bias)
        epsilon = self.epsilon * layer.rms(z) if self.relative else self.epsilon
        s = layer.over(z, bias=bias, epsilon=epsilon)
        back = layer.map(signed=1).T(s)
        return self.settle(layer, back, lambda: s * (z - bias))
