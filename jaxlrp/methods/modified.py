"""Backward passes with other rules at ReLUs: `explain` with the composites of the same name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jaxlrp import composites
from jaxlrp.transforms import explain


def guided_backprop(
    fn: Callable[..., Any],
    argnums: Any = None,
    has_aux: bool = False,
    *,
    wrt: Any = None,
    **rest: Any,
) -> Callable[..., Any]:
    r"""The gradient, with ReLUs that pass on only positive values.

    $$\text{ReLU: } R_i = 1[x_i > 0] \max(R_j, 0)$$

    `explain` with [`composites.guided_backprop`][jaxlrp.composites.guided_backprop]; takes
    `layers`, `what` and `check_finite` as well. Cost: one gradient.

    Use it for comparison with the literature. It is not an explanation of one class: it shows
    edges, nearly the same for every class ([Nie et al. 2018][nie2018]).

    Source: [Springenberg et al. 2015][springenberg2015].
    """
    return explain(fn, composites.guided_backprop(), argnums, has_aux, wrt=wrt, **rest)


def deconvnet(
    fn: Callable[..., Any],
    argnums: Any = None,
    has_aux: bool = False,
    *,
    wrt: Any = None,
    **rest: Any,
) -> Callable[..., Any]:
    r"""The gradient, with the positive part of the arriving values for the derivative of ReLUs.

    $$\text{ReLU: } R_i = \max(R_j, 0)$$

    `explain` with [`composites.deconvnet`][jaxlrp.composites.deconvnet]; takes `layers`, `what` and
    `check_finite` as well. Cost: one gradient.

    Use it for comparison with the literature. It is not an explanation of one class: its maps are
    nearly the same for every class ([Nie et al. 2018][nie2018]).

    Source: [Zeiler and Fergus 2014][zeiler2014].
    """
    return explain(fn, composites.deconvnet(), argnums, has_aux, wrt=wrt, **rest)


def excitation_backprop(
    fn: Callable[..., Any],
    argnums: Any = None,
    has_aux: bool = False,
    *,
    wrt: Any = None,
    **rest: Any,
) -> Callable[..., Any]:
    r"""Winning probabilities: positive contributions share the arriving relevance.

    $$R_i = \sum_j \frac{x_i w_{ij}^+}{\sum_i x_i w_{ij}^+} R_j \qquad (x \ge 0)$$

    `explain` with [`composites.excitation_backprop`][jaxlrp.composites.excitation_backprop]; takes
    `layers`, `what` and `check_finite` as well. Cost: about two gradients.

    Use it for ReLU networks, if R is to be read as the probability that a unit wins. It is not for
    evidence against a class.

    Source: [Zhang et al. 2018][zhang2018].
    """
    return explain(fn, composites.excitation_backprop(), argnums, has_aux, wrt=wrt, **rest)
