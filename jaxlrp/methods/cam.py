"""Class activation maps: activations of one layer, weighted by their gradient."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxlrp import composites
from jaxlrp.errors import InputError
from jaxlrp.methods.parts import one_array, rebuilt
from jaxlrp.methods.task import Task, method, wide


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
    r"""Grad-CAM: where a layer with values A saw the class, as coarse as its pixels.

    $$R = \text{relu} \left( \sum_k w_k A_k \right), \qquad
      w_k = \frac{1}{|p|} \sum_p \frac{\partial f}{\partial A_{kp}}$$

    where k counts channels and p the pixels of the layer. Cost: one gradient.

    Use it for convolutional networks, to see roughly where a class was found. It is not for detail,
    nor for layers whose pixels have no place in the picture.

    Source: [Selvaraju et al. 2017][selvaraju2017].

    Args:
      fn: as in [`explain`][jaxlrp.explain], like argnums, has_aux and wrt.
      layer: a selector of one layer, whose output is A; usually the last activation before the
        pooling: `layer=jaxlrp.last("activation")`.
      layout: one letter for each axis of A: `H` and `W` are the picture, `C` the channels; the
        others are kept, in front.
      relu: whether to keep only evidence for the class.
      size: height and width to which R is resized, bilinearly.

    Returns:
      A function `R(*args, target=None, **kwargs)`; R has the shape `(..., H, W)` of the layer, or
      of `size`.

    Raises:
      InputError: the selector matches several layers, or one whose output is not a picture.
    """
    picture = _Picture(layout, relu, size)

    @method(fn, argnums, has_aux, wrt)
    def grad_cam(task: Task) -> Any:
        A, g = _values_and_gradients(task, layer, layout, "grad_cam")
        return picture.of(jnp.mean(g, axis=picture.axes, keepdims=True) * A)

    return grad_cam


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
    r"""Grad-CAM whose weights count several objects of a class equally, however large they are.

    $$R = \text{relu} \left( \sum_k w_k A_k \right), \qquad
      w_k = \sum_p a_{kp} \, \text{relu}(g_{kp}), \qquad
      a_{kp} = \frac{g_{kp}^2}{2 g_{kp}^2 + g_{kp}^3 \sum_q A_{kq}}$$

    where $g = \partial f / \partial A$, k counts channels, and p and q the pixels of the layer.
    Arguments and result are those of [`grad_cam`][jaxlrp.methods.grad_cam]. Cost: one gradient.

    Use it like `grad_cam`, if a picture may show a class several times. It is not for detail.

    Source: [Chattopadhay et al. 2018][chattopadhay2018], equation 19.
    """
    picture = _Picture(layout, relu, size)

    @method(fn, argnums, has_aux, wrt)
    def grad_cam_plus_plus(task: Task) -> Any:
        A, g = _values_and_gradients(task, layer, layout, "grad_cam_plus_plus")
        below = 2 * g**2 + g**3 * jnp.sum(A, axis=picture.axes, keepdims=True)
        zero = below == 0
        a = jnp.where(zero, 0.0, g**2 / jnp.where(zero, 1.0, below))
        return picture.of(jnp.sum(a * jax.nn.relu(g), axis=picture.axes, keepdims=True) * A)

    return grad_cam_plus_plus


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
    r"""LayerCAM: each pixel of a layer has its own weight.

    $$R_p = \text{relu} \left( \sum_k \text{relu}(g_{kp}) A_{kp} \right), \qquad
      g = \frac{\partial f}{\partial A}$$

    where k counts channels and p the pixels of the layer. Arguments and result are those of
    [`grad_cam`][jaxlrp.methods.grad_cam]. Cost: one gradient.

    Use it for finer maps than those of Grad-CAM, also in early layers. It is not for evidence
    against a class.

    Source: [Jiang et al. 2021][jiang2021].
    """
    picture = _Picture(layout, relu, size)

    @method(fn, argnums, has_aux, wrt)
    def layer_cam(task: Task) -> Any:
        A, g = _values_and_gradients(task, layer, layout, "layer_cam")
        return picture.of(jax.nn.relu(g) * A)

    return layer_cam


def guided_grad_cam(
    fn: Callable[..., Any],
    layer: Any,
    argnums: Any = 0,
    has_aux: bool = False,
    *,
    wrt: Any = None,
    layout: str = "NHWC",
) -> Callable[..., Any]:
    r"""Guided Grad-CAM: guided backprop where Grad-CAM saw the class.

    $$R = R^{\text{guided}} \cdot \text{resize}(R^{\text{Grad-CAM}})$$

    Cost: two gradients.

    Use it for detail within the area of one class. It is not relevance: the factors have no
    common scale, and nothing is conserved.

    Source: [Selvaraju et al. 2017][selvaraju2017], section 3.2.

    Args:
      fn: as in [`explain`][jaxlrp.explain], like argnums, has_aux and wrt; one array is explained.
      layer: as in [`grad_cam`][jaxlrp.methods.grad_cam].
      layout: one letter for each axis, for the layer and for the explained picture.

    Returns:
      A function `R(*args, target=None, **kwargs)` as that of `explain`.

    Raises:
      InputError: as `grad_cam`, or the layout does not name the axes of the explained picture.
    """
    _check_layout(layout)

    @method(fn, argnums, has_aux, wrt)
    def guided_grad_cam(task: Task) -> Any:
        x = one_array(task, "guided_grad_cam")
        if x.ndim != len(layout):
            raise InputError(
                f"guided_grad_cam: layout={layout!r} must name the axes of the explained picture "
                f"too, which has the shape {x.shape}."
            )
        size = (x.shape[layout.index("H")], x.shape[layout.index("W")])
        picture = _Picture(layout, relu=True, size=size)
        A, g = _values_and_gradients(task, layer, layout, "guided_grad_cam")
        cam = picture.of(jnp.mean(g, axis=picture.axes, keepdims=True) * A)
        (guided,) = jax.tree.leaves(task.explain(composites.guided_backprop()))
        return rebuilt(task, guided * picture.spread(cam))

    return guided_grad_cam


@dataclasses.dataclass(frozen=True)
class _Picture:
    """How the weighted values of a layer become a map."""

    layout: str
    relu: bool
    size: tuple[int, int] | None

    def __post_init__(self) -> None:
        _check_layout(self.layout)
        if self.size is not None and (len(self.size) != 2 or min(self.size) < 1):
            raise InputError(f"size={self.size!r}: expected a height and a width, or None.")

    @property
    def axes(self) -> tuple[int, int]:
        return self.layout.index("H"), self.layout.index("W")

    def of(self, weighted: Any) -> Any:
        """The sum over channels, of shape (..., H, W)."""
        weighted = jnp.moveaxis(weighted, self.axes, (-2, -1))
        left = [letter for letter in self.layout if letter not in "HW"]
        R = jnp.sum(weighted, axis=left.index("C"))
        R = jax.nn.relu(R) if self.relu else R
        if self.size is None:
            return R
        return jax.image.resize(R, (*R.shape[:-2], *self.size), "bilinear")

    def spread(self, R: Any) -> Any:
        """A map with its axes in the order of the layout, of size 1 along the channels."""
        order = [letter for letter in self.layout if letter not in "HWC"] + ["H", "W", "C"]
        return jnp.transpose(R[..., None], [order.index(letter) for letter in self.layout])


def _values_and_gradients(task: Task, layer: Any, layout: str, name: str) -> tuple[Any, Any]:
    """The output A of the selected layer, and dscore/dA."""
    _, layers = task.explain(composites.gradient(), layers=[layer], what=("value", "relevance"))
    if len(layers) != 1:
        raise InputError(
            f"{name}: layer={layer!r} matches {len(layers)} layers ({', '.join(layers)}); give "
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
