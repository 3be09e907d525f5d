"""Presets: rule maps by the names they have in the literature.

Each preset is a function that returns a `RuleMap`; arguments override its defaults. `epsilon` is
the stabiliser and `bias` the bias policy of all linear layers ("absorb", "ignore" or "distribute").
Layers that a preset does not mention have the default rule of their kind. In the equations $z_{ij}
= x_i w_{ij}$ is the contribution of input i to output j of a layer, and $z_j$ the output; the
reference of each rule has the exact denominators, with bias and stabiliser.
"""

from jaxlrp.composites.attention import attn_lrp, cp_lrp, gim, libra_grad
from jaxlrp.composites.epsilon import (
    epsilon_alpha2_beta1,
    epsilon_alpha2_beta1_flat,
    epsilon_gamma_box,
    epsilon_plus,
    epsilon_plus_flat,
    lrp_zero,
)
from jaxlrp.composites.gradients import beta_smooth, deconvnet, gradient, guided_backprop
from jaxlrp.composites.positive import deep_taylor, deep_taylor_bounded, excitation_backprop
from jaxlrp.composites.recurrent import lstm_lrp_all, mamba_lrp

__all__ = [
    "attn_lrp",
    "beta_smooth",
    "cp_lrp",
    "deconvnet",
    "deep_taylor",
    "deep_taylor_bounded",
    "epsilon_alpha2_beta1",
    "epsilon_alpha2_beta1_flat",
    "epsilon_gamma_box",
    "epsilon_plus",
    "epsilon_plus_flat",
    "excitation_backprop",
    "gim",
    "gradient",
    "guided_backprop",
    "libra_grad",
    "lrp_zero",
    "lstm_lrp_all",
    "mamba_lrp",
]
