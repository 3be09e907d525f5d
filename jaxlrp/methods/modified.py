"""Backward passes with other rules at ReLUs: `explain` with the composites of the same name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jaxlrp import composites
from jaxlrp.transforms import explain


def guided_backprop(
    fn: Callable[..., Any], argnums: Any = 0, has_aux: bool = False, *, wrt: Any = None, **rest: Any
) -> Callable[..., Any]:
    """The gradient, with ReLUs that pass on positive values only: 1[z > 0] max(R, 0).

    Sharp pictures of edges, but nearly the same for every class (Adebayo et al. 2018).
    `explain` with [`composites.guided_backprop`][jaxlrp.composites.guided_backprop]; takes
    `layers`, `what` and `check_finite` as well. Cost: one gradient.

    Source: Springenberg et al., Striving for simplicity: the all convolutional net, 2015.
    """
    return explain(fn, composites.guided_backprop(), argnums, has_aux, wrt=wrt, **rest)


def deconvnet(
    fn: Callable[..., Any], argnums: Any = 0, has_aux: bool = False, *, wrt: Any = None, **rest: Any
) -> Callable[..., Any]:
    """The gradient with max(R, 0) in place of the derivative of ReLUs.

    `explain` with [`composites.deconvnet`][jaxlrp.composites.deconvnet]; takes `layers`, `what` and
    `check_finite` as well. Cost: one gradient.

    Source: Zeiler and Fergus, Visualizing and understanding convolutional networks, ECCV 2014.
    """
    return explain(fn, composites.deconvnet(), argnums, has_aux, wrt=wrt, **rest)


def excitation_backprop(
    fn: Callable[..., Any], argnums: Any = 0, has_aux: bool = False, *, wrt: Any = None, **rest: Any
) -> Callable[..., Any]:
    """Winning probabilities: relevance goes back in proportion to positive contributions.

    `explain` with [`composites.excitation_backprop`][jaxlrp.composites.excitation_backprop]; takes
    `layers`, `what` and `check_finite` as well. Cost: about two gradients.

    Source: Zhang et al., Top-down neural attention by excitation backprop, IJCV 2018.
    """
    return explain(fn, composites.excitation_backprop(), argnums, has_aux, wrt=wrt, **rest)
