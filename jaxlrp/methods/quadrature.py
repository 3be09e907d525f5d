"""Nodes and weights for integrals from 0 to 1."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxlrp.errors import InputError
from jaxlrp.methods.task import check_count

RULES = (
    "gauss_legendre",
    "riemann_middle",
    "riemann_left",
    "riemann_right",
    "riemann_trapezoid",
)


def nodes_and_weights(rule: str, steps: Any) -> tuple[np.ndarray, np.ndarray]:
    """`steps` nodes in [0, 1] and their weights, which sum to 1."""
    check_count("steps", steps, 2 if rule == "riemann_trapezoid" else 1)
    if rule == "gauss_legendre":
        nodes, weights = np.polynomial.legendre.leggauss(steps)
        return (nodes + 1) / 2, weights / 2
    even = np.full(steps, 1 / steps)
    if rule == "riemann_middle":
        return (np.arange(steps) + 0.5) / steps, even
    if rule == "riemann_left":
        return np.arange(steps) / steps, even
    if rule == "riemann_right":
        return (np.arange(steps) + 1) / steps, even
    if rule == "riemann_trapezoid":
        weights = np.full(steps, 1 / (steps - 1))
        weights[[0, -1]] /= 2
        return np.linspace(0, 1, steps), weights
    raise InputError(f"rule={rule!r}: expected one of {', '.join(map(repr, RULES))}.")
