"""Mean and variance of an explanation under noise on its input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxlrp.errors import InputError
from jaxlrp.methods.batches import total
from jaxlrp.methods.task import check_count, checked_key, wide


def smooth_grad(
    relevance_fn: Callable[..., Any],
    argnums: Any = 0,
    *,
    samples: int = 32,
    noise: float = 0.15,
    relative: bool = True,
    examples: int = 0,
    batch: int = 8,
) -> Callable[..., Any]:
    r"""SmoothGrad: the mean of an explanation over inputs with Gaussian noise.

    $$\bar R = \frac{1}{n} \sum_{k=1}^{n} R(x + \sigma \xi_k), \qquad \xi_k \sim N(0, 1)$$

    `smooth_grad(methods.gradient(fn))` is SmoothGrad, and `smooth_grad(jaxlrp.explain(fn, rules))`
    is the same for LRP. Cost: `samples` explanations.

    Use it around any noisy explanation, such as the gradient. It is not for inputs that may only
    have certain values, such as tokens.

    Source: [Smilkov et al. 2017][smilkov2017].

    Args:
      relevance_fn: a function `(*args, target=..., ...)` that returns arrays: an explanation.
      argnums: the argument(s) that get the noise; integer leaves get none. For noise on embeddings,
        call `x, run = as_function_of(fn, wrt="embed")(*args)` and explain `run` at x.
      samples: the number of noisy inputs.
      noise: standard deviation; with `relative` as a share of the input's range, max - min of
        each array (of each example with `examples`), else in the input's own units.
      examples: leading axes that count examples, for the range.
      batch: explanations computed at a time.

    Returns:
      A function `R(*args, key, **kwargs)`, where R has the structure that `relevance_fn` returns.

    Raises:
      InputError: there is no key, a parameter is out of range, or no floating array could get
        noise.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlrp import methods
      >>> R = methods.smooth_grad(methods.gradient(lambda x: 3 * x))
      >>> print(R(jnp.array([1.0, 2.0]), key=jax.random.key(0)))
      [3. 3.]
    """
    draw = _noisy(relevance_fn, argnums, samples, noise, relative, examples)

    def smoothed(*args: Any, key: Any = None, **kwargs: Any) -> Any:
        each, keys = draw(checked_key(key, "smooth_grad"), args, kwargs)
        found = total(each, keys, batch, like=_floats(args, argnums))
        return jax.tree.map(lambda r: r / samples, found)

    return smoothed


def var_grad(
    relevance_fn: Callable[..., Any],
    argnums: Any = 0,
    *,
    samples: int = 32,
    noise: float = 0.15,
    relative: bool = True,
    examples: int = 0,
    batch: int = 8,
) -> Callable[..., Any]:
    r"""VarGrad: the variance of an explanation over inputs with Gaussian noise.

    $$V = \frac{1}{n} \sum_{k=1}^{n} \left( R(x + \sigma \xi_k) - \bar R \right)^2, \qquad
      \xi_k \sim N(0, 1)$$

    where $\bar R$ is the mean over the same samples. They are drawn once and explained twice, so
    that no precision is lost in a difference of large sums. Cost: 2 `samples` explanations.

    Use it to see where an explanation cannot be relied upon. It is not evidence for or against the
    output.

    Source: [Adebayo et al. 2018][adebayo2018local].

    Args:
      relevance_fn: this and all other arguments: as in
        [`smooth_grad`][jaxlrp.methods.smooth_grad].

    Returns:
      A function `R(*args, key, **kwargs)`, where R has the structure that `relevance_fn` returns.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlrp import methods
      >>> R = methods.var_grad(methods.gradient(lambda x: 3 * x))
      >>> print(R(jnp.array([1.0, 2.0]), key=jax.random.key(0)))
      [0. 0.]
    """
    draw = _noisy(relevance_fn, argnums, samples, noise, relative, examples)

    def varied(*args: Any, key: Any = None, **kwargs: Any) -> Any:
        each, keys = draw(checked_key(key, "var_grad"), args, kwargs)
        like = _floats(args, argnums)
        mean = jax.tree.map(lambda r: r / samples, total(each, keys, batch, like))

        def squared(key: Any) -> Any:
            return jax.tree.map(lambda r, m: jnp.square(r - m), each(key), mean)

        return jax.tree.map(lambda r: r / samples, total(squared, keys, batch, like))

    return varied


def _noisy(
    relevance_fn: Callable[..., Any],
    argnums: Any,
    samples: int,
    noise: Any,
    relative: bool,
    examples: int,
) -> Callable[..., tuple[Callable[[Any], Any], Any]]:
    check_count("samples", samples)
    if isinstance(noise, (int, float)) and not 0 <= noise < float("inf"):
        raise InputError(f"noise={noise!r}: expected a standard deviation of at least 0.")
    numbers = argnums if isinstance(argnums, (tuple, list)) else (argnums,)

    def draw(key: Any, args: tuple[Any, ...], kwargs: Any) -> tuple[Callable[[Any], Any], Any]:
        for number in numbers:
            if not -len(args) <= number < len(args):
                raise InputError(
                    f"argnums={argnums} selects argument {number}, but {len(args)} positional "
                    "arguments were given; pass the explained arguments by position."
                )
        if not _floats(args, argnums):
            raise InputError(
                f"argnums={argnums}: no number there is floating, so nothing would get noise. For "
                "noise on values inside a function (wrt=) take them from jaxlrp.as_function_of."
            )

        def each(key: Any) -> Any:
            given = list(args)
            for number, k in zip(numbers, jax.random.split(key, len(numbers)), strict=True):
                leaves, tree = jax.tree.flatten(args[number])
                keys = jax.random.split(k, max(1, len(leaves)))
                moved = [_moved(x, k, noise, relative, examples) for x, k in zip(leaves, keys)]
                given[number] = jax.tree.unflatten(tree, moved)
            return jax.tree.map(wide, relevance_fn(*given, **kwargs))

        return each, jax.random.split(key, samples)

    return draw


def _moved(x: Any, key: Any, noise: Any, relative: bool, examples: int) -> Any:
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        return x
    if not 0 <= examples <= x.ndim:
        raise InputError(
            f"examples={examples}: expected a number of leading axes, at most the {x.ndim} of the "
            f"input of shape {x.shape}."
        )
    deviation = jnp.asarray(noise, x.dtype)
    if relative:
        axes = tuple(range(examples, x.ndim))
        deviation = deviation * jnp.ptp(x, axis=axes, keepdims=True)
    return x + deviation * jax.random.normal(key, x.shape, x.dtype)


def _floats(args: tuple[Any, ...], argnums: Any) -> list[Any]:
    numbers = argnums if isinstance(argnums, (tuple, list)) else (argnums,)
    leaves = jax.tree.leaves([args[n] for n in numbers])
    return [x for x in map(jnp.asarray, leaves) if jnp.issubdtype(x.dtype, jnp.floating)]
