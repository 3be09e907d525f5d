"""One least-squares problem: the linear model that weighs which parts of an input are there."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp


def fit(design: Any, values: Any, weights: Any, ridge: Any = 0.0) -> Any:
    """The coefficients c that minimise sum_k weights_k (design_k c - values_k)^2 + ridge |c|^2.

    design has the shape (rows, columns), values (rows, ...), weights (rows,); c is
    (columns, ...). Solved by normal equations of scaled columns, so that it can be differentiated;
    a column of zeros has the coefficient 0.
    """
    eps = jnp.finfo(design.dtype).eps
    normal = jnp.einsum("ki,k,kj->ij", design, weights, design)
    right = jnp.einsum("ki,k,k...->i...", design, weights, values)
    normal = normal + ridge * jnp.eye(design.shape[1], dtype=design.dtype)
    size = jnp.sqrt(jnp.diagonal(normal))
    scale = jnp.where(size > 0, 1 / jnp.where(size > 0, size, 1.0), 0.0)
    scaled = scale[:, None] * normal * scale[None, :]
    lift = jnp.where(size > 0, 4 * eps, 1.0)
    factor = jax.scipy.linalg.cho_factor(scaled + jnp.diag(lift))
    flat = right.reshape(right.shape[0], -1)
    solution = scale[:, None] * jax.scipy.linalg.cho_solve(factor, scale[:, None] * flat)
    return solution.reshape(right.shape)
