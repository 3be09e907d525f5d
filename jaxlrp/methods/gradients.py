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
    """R = df/dx: how much the score would change with each input.

    Units: score per input. It answers "what would change the output", not "what made it".

    Args:
      fn: as in [`explain`][jaxlrp.explain], like argnums, has_aux and wrt.

    Returns:
      A function `R(*args, target=None, **kwargs)` as that of `explain`.

    Source: Simonyan et al., Deep inside convolutional networks, 2014.

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
    """R = (df/dx)^2: the decomposition of the gradient's squared norm, to which it sums up.

    Sensitivity analysis: never negative; it says how steep the score is, not how it came about.

    Args:
      fn: as in [`explain`][jaxlrp.explain], like argnums, has_aux and wrt.

    Returns:
      A function `R(*args, target=None, **kwargs)` as that of `explain`.

    Source: Montavon et al., Methods for interpreting and understanding deep neural networks, 2018,
    section 3.1.

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
    """R = x * df/dx: the score's linear part at x.

    It sums to the score of a function that is linear, or homogeneous of degree 1 (networks of
    ReLUs and maxima without biases), where it is LRP-0 and integrated gradients from zero as well.

    Args:
      fn: as in [`explain`][jaxlrp.explain], like argnums, has_aux and wrt.

    Returns:
      A function `R(*args, target=None, **kwargs)` as that of `explain`.

    Source: Shrikumar et al., Not just a black box, 2016.

    >>> import jax.numpy as jnp
    >>> from jaxlrp import methods
    >>> print(methods.gradient_x_input(lambda x: x**2)(jnp.array([1.0, 3.0])))
    [ 2. 18.]
    """

    @method(fn, argnums, has_aux, wrt)
    def gradient_x_input(task: Task) -> Any:
        return times(task.x, task.gradient(task.x))

    return gradient_x_input
