"""Class activation maps: activations of one layer, weighted by the gradient there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlrp import composites
from jaxlrp.errors import InputError
from jaxlrp.methods.task import Task, method, wide
from jaxlrp.transforms import explain

Weigh = Callable[[Any, Any, tuple[int, ...]], Any]


def grad_cam(
    fn: Callable[..., Any],
    layer: Any,
    argnums: Any = 0,
    has_aux: bool = False,
    *,
    wrt: Any = None,
    layout: str = "NHWC",
    relu: bool = True,
    size: tuple[int, int] | None = None,
) -> Callable[..., Any]:
    """R = relu(sum over channels k of w_k A_k), w_k the mean of dscore/dA_k over the picture.

    Where a layer with values A saw the class, as coarse as its pixels. Cost: one gradient.

    Args:
      fn: as in [`explain`][jaxlrp.explain].
      argnums: as there.
      has_aux: as there.
      wrt: as there.
      layer: a selector of one layer, whose output is A; usually the last activation before the
        pooling: `layer=jaxlrp.last("activation")`.
      layout: one letter for each axis of A: `H` and `W` are the picture, `C` the channels; the
        others are kept, in front.
      relu: keep what speaks for the class alone.
      size: height and width to which R is resized, bilinearly.

    Returns:
      A function `R(*args, target=None, **kwargs)`; R has the shape `(..., H, W)` of the layer, or
      of `size`.

    Raises:
      InputError: the selector matches several layers, or one whose output is no picture.

    Source: Selvaraju et al., Grad-CAM: visual explanations from deep networks via gradient-based
    localization, ICCV 2017.
    """

    def weigh(A: Any, g: Any, picture: tuple[int, ...]) -> Any:
        return jnp.mean(g, axis=picture, keepdims=True) * A

    return _cam(fn, layer, argnums, has_aux, wrt, layout, relu, size, weigh, "grad_cam")


def grad_cam_plus_plus(
    fn: Callable[..., Any],
    layer: Any,
    argnums: Any = 0,
    has_aux: bool = False,
    *,
    wrt: Any = None,
    layout: str = "NHWC",
    relu: bool = True,
    size: tuple[int, int] | None = None,
) -> Callable[..., Any]:
    """Grad-CAM with w_k = sum over the picture of a relu(g), a = g^2 / (2 g^2 + g^3 sum A).

    g = dscore/dA. Several objects of the class count alike, however large they are. Cost: one
    gradient.

    Args:
      fn: as in
        [`grad_cam`][jaxlrp.methods.grad_cam].
      layer: as there.
      argnums: as there.
      has_aux: as there.
      wrt: as there.
      layout: as there.
      relu: as there.
      size: as there.

    Returns:
      As [`grad_cam`][jaxlrp.methods.grad_cam].

    Source: Chattopadhay et al., Grad-CAM++: generalized gradient-based visual explanations, 2018,
    equation 19.
    """

    def weigh(A: Any, g: Any, picture: tuple[int, ...]) -> Any:
        below = 2 * g**2 + g**3 * jnp.sum(A, axis=picture, keepdims=True)
        zero = below == 0
        a = jnp.where(zero, 0.0, g**2 / jnp.where(zero, 1.0, below))
        return jnp.sum(a * jax.nn.relu(g), axis=picture, keepdims=True) * A

    return _cam(fn, layer, argnums, has_aux, wrt, layout, relu, size, weigh, "grad_cam_plus_plus")


def layer_cam(
    fn: Callable[..., Any],
    layer: Any,
    argnums: Any = 0,
    has_aux: bool = False,
    *,
    wrt: Any = None,
    layout: str = "NHWC",
    relu: bool = True,
    size: tuple[int, int] | None = None,
) -> Callable[..., Any]:
    """R = relu(sum over channels of relu(g) A), g = dscore/dA: each pixel has its own weight.

    Finer than Grad-CAM, and useful in early layers too. Cost: one gradient.

    Args:
      fn: as in
        [`grad_cam`][jaxlrp.methods.grad_cam].
      layer: as there.
      argnums: as there.
      has_aux: as there.
      wrt: as there.
      layout: as there.
      relu: as there.
      size: as there.

    Returns:
      As [`grad_cam`][jaxlrp.methods.grad_cam].

    Source: Jiang et al., LayerCAM: exploring hierarchical class activation maps for localization,
    2021.
    """

    def weigh(A: Any, g: Any, picture: tuple[int, ...]) -> Any:
        return jax.nn.relu(g) * A

    return _cam(fn, layer, argnums, has_aux, wrt, layout, relu, size, weigh, "layer_cam")


def guided_grad_cam(
    fn: Callable[..., Any],
    layer: Any,
    argnums: Any = 0,
    has_aux: bool = False,
    *,
    layout: str = "NHWC",
) -> Callable[..., Any]:
    """R = guided backprop times Grad-CAM, resized to the picture.

    The edges of guided backprop, where Grad-CAM saw the class. Cost: two gradients.

    Args:
      fn: as in [`explain`][jaxlrp.explain]; the explained argument is one array.
      argnums: as there.
      has_aux: as there.
      layer: as in [`grad_cam`][jaxlrp.methods.grad_cam].
      layout: one letter for each axis of the layer and of the picture alike.

    Returns:
      A function `R(*args, target=None, **kwargs)` as that of `explain`.

    Source: Selvaraju et al. 2017, section 3.2.
    """

    def body(task: Task) -> Any:
        x = task.x
        if not hasattr(x, "shape") or x.ndim != len(layout):
            raise InputError(
                f"guided_grad_cam: layout={layout!r} must name the axes of the explained picture "
                f"too, which is {getattr(x, 'shape', jax.tree.structure(x))}."
            )
        size = (x.shape[layout.index("H")], x.shape[layout.index("W")])
        cam = grad_cam(task.run, layer, layout=layout, size=size)(x, target=task.target)
        guided = explain(task.run, composites.guided_backprop())(x, target=task.target)
        kept = [a for a, letter in enumerate(layout) if letter not in "HWC"]
        order = [*kept, layout.index("H"), layout.index("W")]
        missing = [a for a in range(x.ndim) if a not in order]
        cam = jnp.expand_dims(cam, tuple(range(cam.ndim, x.ndim)))
        return guided * jnp.transpose(cam, np.argsort([*order, *missing]).tolist())

    _check_layout(layout)
    return method(fn, argnums, has_aux, None, body, "guided_grad_cam")


def _cam(
    fn: Any,
    layer: Any,
    argnums: Any,
    has_aux: bool,
    wrt: Any,
    layout: str,
    relu: bool,
    size: tuple[int, int] | None,
    weigh: Weigh,
    name: str,
) -> Callable[..., Any]:
    _check_layout(layout)
    if size is not None and (len(size) != 2 or min(size) < 1):
        raise InputError(f"size={size!r}: expected a height and a width, or None.")
    asked = explain(
        fn,
        composites.gradient(),
        argnums,
        has_aux,
        wrt=wrt,
        layers=[layer],
        what=("value", "relevance"),
    )

    def transformed(*args: Any, target: Any = None, **kwargs: Any) -> Any:
        found = asked(*args, target=target, **kwargs)
        (_, layers), aux = found if has_aux else (found, None)
        A, g = _one_picture(layers, layer, layout, name)
        picture = (layout.index("H"), layout.index("W"))
        weighted = weigh(A, g, picture)
        weighted = jnp.moveaxis(weighted, picture, (-2, -1))
        left = [letter for letter in layout if letter not in "HW"]
        R = jnp.sum(weighted, axis=left.index("C"))
        R = jax.nn.relu(R) if relu else R
        if size is not None:
            R = jax.image.resize(R, (*R.shape[:-2], *size), "bilinear")
        return (R, aux) if has_aux else R

    transformed.__name__ = f"{name}_{getattr(fn, '__name__', type(fn).__name__)}"
    return transformed


def _one_picture(
    layers: dict[str, dict[str, Any]], selector: Any, layout: str, name: str
) -> tuple[Any, Any]:
    if len(layers) != 1:
        raise InputError(
            f"{name}: layer={selector!r} matches {len(layers)} layers ({', '.join(layers)}); give "
            "a selector of one, such as a name of these or jaxlrp.last(...)."
        )
    ((found, asked),) = layers.items()
    A, g = wide(asked["value"]), wide(asked["relevance"])
    if A.ndim != len(layout):
        raise InputError(
            f"{name}: layer {found!r} has an output of shape {A.shape}, but layout={layout!r} "
            f"names {len(layout)} axes."
        )
    return A, g


def _check_layout(layout: str) -> None:
    if len(set(layout)) != len(layout) or not {"H", "W", "C"} <= set(layout):
        raise InputError(f"layout={layout!r}: expected one letter for each axis, with H, W and C.")
