"""FullGrad: the input's share of the score, and the share of every layer's bias."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxlrp import composites
from jaxlrp.errors import InputError
from jaxlrp.methods.task import Task, method, times, wide


def full_grad(
    fn: Callable[..., Any],
    argnums: Any = 0,
    has_aux: bool = False,
    *,
    wrt: Any = None,
    layout: str = "NHWC",
    parts: bool = False,
) -> Callable[..., Any]:
    r"""FullGrad: the input's share of the score, and that of the bias of each layer.

    $$R = \psi \left( x \frac{\partial f}{\partial x} \right)
      + \sum_l \psi \left( b_l \frac{\partial f}{\partial z_l} \right), \qquad
      f(x) = \sum_i x_i \frac{\partial f}{\partial x_i}
      + \sum_l \sum_j b_{lj} \frac{\partial f}{\partial z_{lj}}$$

    where $b_l$ is the bias of a layer with output $z_l$. The bias of any layer is g(x) - g'(x) x,
    so smooth activations have one too, and the parts sum to the score exactly. $\psi$ takes the
    magnitude, scales it to [0, 1], resizes it to the picture and sums over channels. Cost: one
    gradient, and one more evaluation of the network.

    Use it for networks whose biases carry much of the score. It is not signed, as the map adds
    magnitudes; `parts` returns the terms themselves.

    Source: [Srinivas and Fleuret 2019][srinivas2019].

    Args:
      fn: as in [`explain`][jaxlrp.explain], like argnums, has_aux and wrt; one picture is
        explained, unless `parts` is true.
      layout: one letter for each axis of the picture: `H`, `W` and `C`; others count examples. The
        map shows the layers whose output has these axes too.
      parts: return `(x g_x, {layer: b g_z})` in place of the map: the terms themselves.

    Returns:
      A function `R(*args, target=None, **kwargs)`; R has the shape `(..., H, W)`, and is not
      negative.

    Raises:
      InputError: the layout does not fit.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlrp import methods
      >>> f = lambda x: jax.nn.relu(2 * x + 1)
      >>> R, layers = methods.full_grad(f, parts=True)(jnp.array([3.0]))
      >>> print(R, sum(jnp.sum(b) for b in layers.values()))
      [6.] 1.0
    """
    if len(set(layout)) != len(layout) or not {"H", "W", "C"} <= set(layout):
        raise InputError(f"layout={layout!r}: expected one letter for each axis, with H, W and C.")

    @method(fn, argnums, has_aux, wrt)
    def full_grad(task: Task) -> Any:
        gradient, layers = task.explain(
            composites.gradient(), layers=[_brings_bias], what=("bias", "relevance")
        )
        of_input = times(task.x, gradient)
        of_layers = {
            name: wide(asked["bias"]) * wide(asked["relevance"]) for name, asked in layers.items()
        }
        if parts:
            return of_input, of_layers
        leaves = jax.tree.leaves(of_input)
        if len(leaves) != 1 or leaves[0].ndim != len(layout):
            shapes = ", ".join(str(leaf.shape) for leaf in leaves)
            raise InputError(
                f"full_grad: layout={layout!r} was given for explained values of shape {shapes}; "
                "expected one array with these axes. parts=True needs no layout."
            )
        size = tuple(leaves[0].shape[layout.index(a)] for a in "HW")
        maps = [_shown(leaves[0], layout, size)]
        maps += [_shown(b, layout, size) for b in of_layers.values() if b.ndim == len(layout)]
        return sum(maps[1:], maps[0])

    return full_grad


def _brings_bias(layer: Any) -> bool:
    return layer.primitive not in ("scan", "cond", "shard_map")


def _shown(term: Any, layout: str, size: tuple[int, ...]) -> Any:
    """The magnitude of a term, each example's between 0 and 1, as large as the picture."""
    axes = [layout.index(a) for a in "CHW"]
    term = jnp.moveaxis(jnp.abs(term), axes, (-3, -2, -1))
    low = jnp.min(term, axis=(-3, -2, -1), keepdims=True)
    high = jnp.max(term, axis=(-3, -2, -1), keepdims=True)
    flat = high == low
    term = jnp.where(flat, 0.0, (term - low) / jnp.where(flat, 1.0, high - low))
    return jnp.sum(jax.image.resize(term, (*term.shape[:-2], *size), "bilinear"), axis=-3)
