"""Attention rollout: how attention alone would carry information from token to token."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxlrp import composites
from jaxlrp.errors import InputError
from jaxlrp.methods.task import wide
from jaxlrp.transforms import explain, plan


def attention_rollout(
    fn: Callable[..., Any],
    argnums: Any = None,
    has_aux: bool = False,
    *,
    wrt: Any = None,
    layers: Any = None,
    heads: int | None = -3,
    residual: float = 0.5,
) -> Callable[..., Any]:
    r"""Attention rollout: the attention matrices of all layers, multiplied.

    $$R = M_L \cdots M_2 M_1, \qquad M_l = r I + (1 - r) A_l$$

    where $A_l$ are the attention weights of layer l, averaged over heads, and r is the share of the
    residual connection. Cost: one gradient, as it is written here.

    Use it as a baseline for the relevance of tokens. It is not about a class, or for and against:
    it depends on neither values, classes nor signs.

    Source: [Abnar and Zuidema 2020][abnar2020].

    Args:
      fn: as in [`explain`][jaxlrp.explain], like argnums, has_aux and wrt; with integers as
        input give `wrt="embed"`.
      layers: a selector of the softmax layers, from the first to the last; by default all that have
        square matrices. A scanned layer counts once for each iteration.
      heads: the axis of the heads in the softmax's output, or None if there is none.
      residual: r, the share of the residual connection.

    Returns:
      A function of `fn`'s arguments (and `target`, which changes nothing), that returns the matrix
      of shape `(..., tokens, tokens)`: from column j to row i, rows sum to 1.

    Raises:
      InputError: no softmax layer is found, or their outputs do not fit together.
    """
    if isinstance(residual, (int, float)) and not 0 <= residual <= 1:
        raise InputError(f"residual={residual!r}: expected a share between 0 and 1.")
    rules = composites.gradient()
    planned = plan(fn, rules, argnums, has_aux, wrt=wrt)

    def rolled(*args: Any, target: Any = None, **kwargs: Any) -> Any:
        found = planned(*args, **kwargs)
        softmaxes = (y for y in found.layers if y.kind == "softmax" and _is_square(y.shape))
        wanted = list(softmaxes if layers is None else found.select(layers))
        if not wanted:
            raise InputError(
                "attention_rollout: no softmax layer with square matrices was found; name the "
                "layers with layers=."
            )
        names = {y.name for y in wanted}
        asked = explain(
            fn,
            rules,
            argnums,
            has_aux,
            wrt=wrt,
            layers=[lambda y: y.name in names],
            what="value",
        )
        result = asked(*args, target=target, **kwargs)
        (_, values), aux = result if has_aux else (result, None)
        matrices = []
        for layer in wanted:
            value = wide(values[layer.name])
            value = value.reshape(-1, *layer.shape)  # one for each iteration of a scan
            matrices += [_mixed(each, heads, residual, layer.name) for each in value]
        shapes = {m.shape for m in matrices}
        if len(shapes) > 1:
            raise InputError(
                f"attention_rollout: the attention matrices have different shapes, "
                f"{sorted(shapes)}; choose with layers= those that belong together."
            )
        rollout = matrices[0]
        for matrix in matrices[1:]:
            rollout = jnp.matmul(matrix, rollout, precision=jax.lax.Precision.HIGHEST)
        return (rollout, aux) if has_aux else rollout

    return rolled


def _is_square(shape: tuple[int, ...]) -> bool:
    return len(shape) > 1 and shape[-1] == shape[-2]


def _mixed(A: Any, heads: int | None, residual: Any, name: str) -> Any:
    if heads is not None:
        if not -A.ndim <= heads < A.ndim or A.ndim < 3:
            raise InputError(
                f"attention_rollout: the softmax {name!r} has an output of shape {A.shape}, which "
                f"has no axis {heads} of heads; give heads=None."
            )
        A = jnp.mean(A, axis=heads)
    if not _is_square(A.shape):
        raise InputError(
            f"attention_rollout: the attention of {name!r} has the shape {A.shape}, and is not "
            "a square matrix of tokens by tokens."
        )
    return residual * jnp.eye(A.shape[-1], dtype=A.dtype) + (1 - residual) * A
