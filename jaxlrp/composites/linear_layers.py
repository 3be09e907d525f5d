"""Entries that composites share: rules for all linear layers, and for the first of them."""

from __future__ import annotations

from collections.abc import Mapping

from jaxlrp.planning.selectors import Selector, first, kind
from jaxlrp.rules import Detach, Epsilon, Rule
from jaxlrp.rules.base import BiasPolicy


def linear_layers(
    epsilon: float, bias: BiasPolicy, conv: Rule | None = None, dense: Rule | None = None
) -> dict[Selector, Rule]:
    """Epsilon for all layers that add up, with other rules for conv and dense if given."""
    default = Epsilon(epsilon, bias=bias)
    entries: dict[Selector, Rule] = {
        kind("dense"): dense or default,
        kind("conv"): conv or default,
        kind("embed"): dense or default,
        kind("affine"): default,
        kind("add"): Epsilon(epsilon),
        kind("avg_pool"): Epsilon(epsilon),
        kind("norm"): Detach(bias="ignore" if bias == "ignore" else "absorb"),
    }
    return entries


def with_first(entries: Mapping[Selector, Rule], rule: Rule) -> dict[Selector, Rule]:
    """The entries, with another rule for the first linear layer."""
    return {**entries, first(kind("conv"), kind("dense"), kind("embed")): rule}
