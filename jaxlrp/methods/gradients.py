"""The gradient, its square, and gradient times input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxlrp.methods.task import Task, method, times


def gradient(
    fn: Callable[..., Any], argnums: Any = 0, has_aux: bool = False, *, wrt: Any = None
) -> Callable[..., Any]:
    r"""How much the score changes with each input: the gradient.

    $$R_i = \frac{\partial f}{\partial x_i}$$

    in units of the score per unit of the input.

    Use it to ask what would change the output. It is not an answer to what made the output: it does
    not sum to it.

    Source: [Simonyan et al. 2014][simonyan2014].

    Args:
      fn: as in [`explain`][jaxlrp.explain], like argnums, has_aux and wrt.

    Returns:
      A function `R(*args, target=None, **kwargs)` as that of `explain`.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import methods
      >>> print(methods.gradient(lambda x: x**2)(jnp.array([1.0, 3.0])))
      [2. 6.]
    """

    @method(fn, argnums, has_aux, wrt)
    def gradient(task: Task) -> Any:
        return task.gradient(task.x)

    return gradient


def sensitivity(
    fn: Callable[..., Any], argnums: Any = 0, has_aux: bool = False, *, wrt: Any = None
) -> Callable[..., Any]:
    r"""Sensitivity analysis: the decomposition of the squared norm of the gradient.

    $$R_i = \left( \frac{\partial f}{\partial x_i} \right)^2, \qquad
      \sum_i R_i = \lVert \nabla f(x) \rVert^2$$

    Use it to ask where the score is steepest. It is not about the causes of the score, nor about
    its sign: it is never negative.

    Source: [Montavon et al. 2018][montavon2018], section 3.1.

    Args:
      fn: as in [`explain`][jaxlrp.explain], like argnums, has_aux and wrt.

    Returns:
      A function `R(*args, target=None, **kwargs)` as that of `explain`.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import methods
      >>> print(methods.sensitivity(lambda x: x**2)(jnp.array([1.0, 3.0])))
      [ 4. 36.]
    """

    @method(fn, argnums, has_aux, wrt)
    def sensitivity(task: Task) -> Any:
        return jax.tree.map(jnp.square, task.gradient(task.x))

    return sensitivity


def gradient_x_input(
    fn: Callable[..., Any], argnums: Any = 0, has_aux: bool = False, *, wrt: Any = None
) -> Callable[..., Any]:
    r"""Gradient × input: the linear part of the score at x.

    $$R_i = x_i \frac{\partial f}{\partial x_i}$$

    It sums to the score of a function that is linear, or homogeneous of degree 1 (networks of ReLUs
    and maxima without biases). For such functions it equals LRP-0 and integrated gradients from
    zero.

    Use it as the baseline of methods that should do better. It is not for deep networks on
    pictures, where it is as noisy as the gradient.

    Source: [Shrikumar et al. 2016][shrikumar2016].

    Args:
      fn: as in [`explain`][jaxlrp.explain], like argnums, has_aux and wrt.

    Returns:
      A function `R(*args, target=None, **kwargs)` as that of `explain`.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import methods
      >>> print(methods.gradient_x_input(lambda x: x**2)(jnp.array([1.0, 3.0])))
      [ 2. 18.]
    """

    @method(fn, argnums, has_aux, wrt)
    def gradient_x_input(task: Task) -> Any:
        return times(task.x, task.gradient(task.x))

    return gradient_x_input
