"""The epsilon rule, and with epsilon = 0 the basic rule LRP-0."""

from __future__ import annotations

import dataclasses
from typing import Any

from jaxlrp.rules.base import LinearRule
from jaxlrp.rules.layer_view import LayerView


@dataclasses.dataclass(frozen=True)
class Epsilon(LinearRule):
    r"""R_i = x_i * sum_j w_ij R_j / stab(z_j), with z = xW + b.

    `Epsilon(0)` is LRP-0: on a bias-free ReLU network, gradient x input. With `relative=True`
    epsilon is in units of the root mean square of z over the features of one example.

    Shapes: x and R_i as the layer's input; z and R_j as its output.

    Source: Bach et al., On pixel-wise explanations for non-linear classifier decisions by
    layer-wise relevance propagation, PLoS ONE 10(7), 2015, equation 58.
    """

    epsilon: float = 1e-6
    relative: bool = False

    @property
    def plain(self) -> bool:
        zero = isinstance(self.epsilon, (int, float)) and self.epsilon == 0
        return zero and self.bias == "absorb"

    @property
    def takes_relu(self) -> bool:
        return not self.relative

    def propagate(self, layer: LayerView) -> Any:
        z, bias = (layer.linear, 0.0) if self.bias == "ignore" else (layer.z, layer.bias)
        epsilon = self.epsilon * layer.rms(z) if self.relative else self.epsilon
        s = layer.over(z, bias=bias, epsilon=epsilon)
        back = layer.map(signed=1).T(s)
        return self.settle(layer, back, s * (z - bias))
