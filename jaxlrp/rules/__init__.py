"""The rules: mathematics, with equations and sources. No rule sees a jaxpr."""

from jaxlrp.rules.activations import BetaSmooth, Deconvnet, GuidedBackprop
from jaxlrp.rules.base import LinearRule, Rule
from jaxlrp.rules.bilinear import Proportional, SignalTakesAll, Uniform
from jaxlrp.rules.elementary import Detach, Follow, Gradient, Pass, Stop, Taylor, WinnerTakesAll
from jaxlrp.rules.epsilon import Epsilon
from jaxlrp.rules.first_layer import Flat, WSquare, ZBox
from jaxlrp.rules.layer_view import Contributions, LayerView, LinearMap, SplitMap
from jaxlrp.rules.positive import AlphaBeta, Gamma, ZPlus
from jaxlrp.rules.tempered import Tempered

__all__ = [
    "AlphaBeta",
    "BetaSmooth",
    "Contributions",
    "Deconvnet",
    "Detach",
    "Epsilon",
    "Flat",
    "Follow",
    "Gamma",
    "Gradient",
    "GuidedBackprop",
    "LayerView",
    "LinearMap",
    "LinearRule",
    "Pass",
    "Proportional",
    "Rule",
    "SignalTakesAll",
    "SplitMap",
    "Stop",
    "Taylor",
    "Tempered",
    "Uniform",
    "WSquare",
    "WinnerTakesAll",
    "ZBox",
    "ZPlus",
]
