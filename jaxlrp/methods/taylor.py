"""Simple Taylor decomposition: a first-order expansion at a root point."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxlrp.errors import InputError
from jaxlrp.methods.task import (
    Task,
    along,
    check_count,
    filled,
    method,
    minus,
    sums,
    times,
)

_SEARCHES = ("ray", "steps")


class Expansion(NamedTuple):
    """The root of a Taylor decomposition, and the error of the first order.

    Attributes:
      root: the point of expansion, of the structure and shapes of x.
      value: the score there; 0 if it is a root.
      remainder: f(x) - f(root) - sum R, the terms of higher order.
    """

    root: Any
    value: Any
    remainder: Any


def simple_taylor(
    fn: Callable[..., Any],
    argnums: Any = 0,
    has_aux: bool = False,
    *,
    wrt: Any = None,
    root: Any = None,
    search: str = "ray",
    towards: Any = 0.0,
    steps: int = 32,
    expansion: bool = False,
    examples: int = 0,
) -> Callable[..., Any]:
    r"""Simple Taylor decomposition: the first-order expansion at a root $x_0$ of the score.

    $$R = (x - x_0) \, \nabla f(x_0), \qquad f(x) = f(x_0) + \sum_i R_i + \text{remainder}$$

    Use it for functions that are nearly linear between root and input. It is not for deep networks:
    the remainder is then large, and R explains little; `expansion` returns it.

    Source: [Bach et al. 2015][bach2015], section 2.3; [Montavon et al. 2018][montavon2018], section
    3.2.

    Args:
      fn: as in [`explain`][jaxlrp.explain], like argnums, has_aux and wrt.
      root: x0, if it is known: a number, arrays that broadcast to the explained values, or a
        function of these. Otherwise it is searched.
      search: `"ray"`: the root nearest to x on the line from x to `towards`, by `steps` evenly
        spaced points and as many halvings; if the score does not change its sign, the point at
        which its magnitude is least. `"steps"`: `steps` of Newton's method along the gradient, x0 -
        f / |df/dx|^2 df/dx, which looks for a near root in any direction.
      towards: the other end of the ray, in the form of `root`.
      steps: the number of points, or of steps; see `search`.
      expansion: return `(R, Expansion(root, value, remainder))`. Look at the remainder: if it is
        large, R explains little.
      examples: leading axes that count examples, in x and in the output: each then has a root of
        its own.

    Returns:
      A function `R(*args, target=None, **kwargs)` as that of `explain`.

    Raises:
      InputError: a parameter does not fit.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import methods
      >>> R = methods.simple_taylor(lambda x: x.sum() - 1, expansion=True)
      >>> R, found = R(jnp.array([1.0, 3.0]))
      >>> print(R, abs(found.remainder).round(4))
      [0.75 2.25] 0.0
      >>> print(found.root)
      [0.25 0.75]
    """
    if search not in _SEARCHES:
        raise InputError(f"search={search!r}: expected {' or '.join(map(repr, _SEARCHES))}.")
    check_count("steps", steps)

    @method(fn, argnums, has_aux, wrt)
    def simple_taylor(task: Task) -> Any:
        n = task.check_examples(examples)
        if root is not None:
            point = filled("root", root, task.x)
        elif search == "ray":
            point = _on_ray(task, filled("towards", towards, task.x), steps, n)
        else:
            point = _by_steps(task, steps, n)
        R = times(task.gradient(point), minus(task.x, point))
        if not expansion:
            return R
        value = task.scores(point, n)
        return R, Expansion(point, value, task.scores(task.x, n) - value - sums(R, n))

    return simple_taylor


def _between(x: Any, end: Any, t: Any) -> Any:
    return jax.tree.map(lambda a, b: a + along(t, a).astype(a.dtype) * (b - a), x, end)


def _on_ray(task: Task, end: Any, steps: int, examples: int) -> Any:
    """The root nearest to x on the way to `end`, or the point that is closest to a root."""

    def at(t: Any) -> Any:
        return task.scores(_between(task.x, end, t), examples)

    places = jnp.linspace(0, 1, steps + 1)
    at_x = task.scores(task.x, examples)
    places = places.astype(at_x.dtype)
    scores = jax.lax.map(lambda t: at(jnp.broadcast_to(t, at_x.shape)), places)
    crossed = jnp.sign(scores[1:]) * jnp.sign(scores[:1]) <= 0
    first = jnp.argmax(crossed, axis=0)
    low, high = places[first], places[first + 1]

    def halve(_: Any, bounds: tuple[Any, Any]) -> tuple[Any, Any]:
        low, high = bounds
        middle = (low + high) / 2
        before = at(middle) * jnp.sign(at_x) > 0
        return jnp.where(before, middle, low), jnp.where(before, high, middle)

    low, high = jax.lax.fori_loop(0, steps, halve, (low, high))
    nearest = places[jnp.argmin(jnp.abs(scores), axis=0)]
    t = jnp.where(jnp.any(crossed, axis=0), high, nearest)
    return _between(task.x, end, jax.lax.stop_gradient(t))


def _by_steps(task: Task, steps: int, examples: int) -> Any:
    def step(point: Any, _: Any) -> tuple[Any, None]:
        gradient = task.gradient(point)
        square = sums(times(gradient, gradient), examples)
        share = task.scores(point, examples) / jnp.where(square == 0, 1.0, square)
        moved = jax.tree.map(
            lambda p, g: (p - along(share, g) * g).astype(p.dtype), point, gradient
        )
        return moved, None

    return jax.lax.scan(step, task.x, None, length=steps)[0]
