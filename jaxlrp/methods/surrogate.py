"""A linear model of the presence of segments: KernelSHAP and LIME."""

from __future__ import annotations

from collections.abc import Callable
from math import comb
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlrp.errors import InputError
from jaxlrp.methods.batches import each_of
from jaxlrp.methods.least_squares import fit
from jaxlrp.methods.parts import baseline_of, checked_segments, one_array, rebuilt, spread
from jaxlrp.methods.task import Task, check_count, method, wide

_MOST_ENUMERATED = 16


def kernel_shap(
    fn: Callable[..., Any],
    argnums: Any = 0,
    has_aux: bool = False,
    *,
    segments: Any,
    n_segments: int | None = None,
    wrt: Any = None,
    baseline: Any = 0.0,
    samples: int = 512,
    examples: int | None = None,
    batch: int = 8,
) -> Callable[..., Any]:
    r"""KernelSHAP: the Shapley value of each segment, by least squares.

    $$R = \text{argmin}_c \sum_z \pi(z) \left( f(x_z) - f(x_0) - \sum_s c_s z_s \right)^2, \qquad
      \pi(z) = \frac{n - 1}{\binom{n}{|z|} |z| (n - |z|)}$$

    under the constraint $\sum_s c_s = f(x) - f(x_0)$, which holds exactly. $x_z$ has the values of
    x in the segments with $z_s = 1$ and the baseline's elsewhere; n counts segments. If their
    number, $2^n - 2$, is at most `samples`, all coalitions are taken, and the values are exact;
    else they are drawn by the kernel, each with its complement. Cost: `samples` evaluations, and no
    gradient.

    Use it with few segments, if the function can only be evaluated. It is not for single pixels.

    Source: [Lundberg and Lee 2017][lundberg2017], theorem 2.

    Args:
      fn: as in [`explain`][jaxlrp.explain], like argnums, has_aux and wrt; one array is explained.
      segments: integers from 0 that broadcast to the array: which segment each element is in.
      n_segments: the number of segments; needed if `segments` are traced.
      baseline: a number, an array that broadcasts to the input, or a function of it.
      samples: the largest number of coalitions, without the empty one and the whole.
      examples: leading axes that count examples, in x and in the output: each then has a model of
        its own. It must be given if x and the output share a first axis.
      batch: evaluations at a time.

    Returns:
      A function `R(*args, key, target=None, **kwargs)`. R has x's shape: the value of a segment
      stands on each of its elements.

    Raises:
      InputError: no key, or segments that do not fit.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlrp import methods
      >>> R = methods.kernel_shap(lambda x: x[0] * x[1] + x[2], segments=jnp.arange(3))
      >>> print(R(jnp.array([2.0, 3.0, 1.0]), key=jax.random.key(0)).round(4))
      [3. 3. 1.]
    """
    check_count("samples", samples, 2)
    check_count("batch", batch)

    @method(fn, argnums, has_aux, wrt, draws=True)
    def kernel_shap(task: Task, key: Any) -> Any:
        x = one_array(task, "kernel_shap")
        n = task.one_or_many(examples)
        where, count = checked_segments(segments, n_segments, x)
        x0 = baseline_of(task, baseline)
        full, empty = task.scores(task.x, n), task.scores(rebuilt(task, x0), n)
        if count == 1:
            return rebuilt(task, spread((full - empty)[None], where, x, n))
        z, weights = _coalitions(key, count, samples, full.dtype)
        values = _evaluate(task, z, where, x, x0, n, batch)
        # The constraint on the sum is built in: the last value is the difference minus all others.
        last = z[:, -1].reshape(-1, *(1,) * full.ndim)
        left = values - empty - last * (full - empty)
        head = fit(z[:, :-1] - z[:, -1:], left, weights)
        tail = full - empty - jnp.sum(head, axis=0)
        return rebuilt(task, spread(jnp.concatenate([head, tail[None]]), where, x, n))

    return kernel_shap


def lime(
    fn: Callable[..., Any],
    argnums: Any = 0,
    has_aux: bool = False,
    *,
    segments: Any,
    n_segments: int | None = None,
    wrt: Any = None,
    baseline: Any = 0.0,
    samples: int = 512,
    width: float = 0.25,
    ridge: float = 0.0,
    examples: int | None = None,
    batch: int = 8,
) -> Callable[..., Any]:
    r"""LIME: the coefficient of each segment in a local linear model.

    $$R = \text{argmin}_c \min_{c_0} \sum_k \pi(z_k)
      \left( f(x_{z_k}) - c_0 - \sum_s c_s z_{ks} \right)^2 + \text{ridge} \sum_s c_s^2, \qquad
      \pi(z) \propto e^{-d(z)^2 / \text{width}^2}$$

    with $d = 1 - \sqrt{|z| / n}$, the cosine distance from the whole input. Each segment is there
    with probability 1/2; $x_z$ has the values of x in the segments with $z_s = 1$ and the
    baseline's elsewhere. Cost: `samples` evaluations, and no gradient.

    Use it with few segments, if the function can only be evaluated. It is not a decomposition: the
    model has an intercept, and the coefficients need not sum to anything.

    Source: [Ribeiro et al. 2016][ribeiro2016].

    Args:
      segments: this and all arguments that are not listed here are as in
        [`kernel_shap`][jaxlrp.methods.kernel_shap].
      width: the width of the kernel.
      ridge: the penalty on the squared coefficients (not on the intercept).

    Returns:
      A function `R(*args, key, target=None, **kwargs)`. R has x's shape: the coefficient of a
      segment stands on each of its elements.

    Raises:
      InputError: no key, or segments that do not fit.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlrp import methods
      >>> R = methods.lime(lambda x: 2 * x[0] + x[2], segments=jnp.arange(3))
      >>> print(R(jnp.array([2.0, 3.0, 1.0]), key=jax.random.key(0)).round(3) + 0)
      [4. 0. 1.]
    """
    check_count("samples", samples, 2)
    check_count("batch", batch)
    for name, value, open_ in (("width", width, True), ("ridge", ridge, False)):
        if isinstance(value, (int, float)) and (value < 0 or (open_ and value == 0)):
            raise InputError(
                f"{name}={value!r}: expected a number {'above' if open_ else 'of at least'} 0."
            )

    @method(fn, argnums, has_aux, wrt, draws=True)
    def lime(task: Task, key: Any) -> Any:
        x = one_array(task, "lime")
        n = task.one_or_many(examples)
        where, count = checked_segments(segments, n_segments, x)
        x0 = baseline_of(task, baseline)
        dtype = jnp.promote_types(x.dtype, jnp.float32)
        z = jax.random.bernoulli(key, 0.5, (samples, count)).astype(dtype)
        values = _evaluate(task, z, where, x, x0, n, batch)
        return rebuilt(task, spread(local_model(z, values, width, ridge), where, x, n))

    return lime


def local_model(z: Any, values: Any, width: float, ridge: float) -> Any:
    """LIME's coefficients from samples z (samples, segments) and values (samples, ...)."""
    distance = 1 - jnp.sqrt(jnp.mean(z, axis=1))
    weights = jnp.exp(-jnp.square(distance / width))
    weights = weights / jnp.sum(weights)

    def centred(a: Any) -> Any:
        return a - jnp.einsum("k,k...->...", weights, a)

    # Around the weighted means the intercept is 0, and has no penalty.
    return fit(centred(z), centred(values), weights, ridge)


def _evaluate(task: Task, z: Any, where: Any, x: Any, x0: Any, examples: int, batch: int) -> Any:
    """The score of each row of z, with the segments that are 1 there: (rows, *examples)."""

    def each(row: Any) -> Any:
        there = jnp.broadcast_to(row[where] > 0, x.shape)
        return task.scores(rebuilt(task, jnp.where(there, x, x0)), examples)

    return wide(each_of(each, z, batch))


def _coalitions(key: Any, count: int, samples: int, dtype: Any) -> tuple[Any, Any]:
    """Coalitions as rows of zeros and ones, and their weights."""
    if count <= _MOST_ENUMERATED and 2**count - 2 <= samples:
        numbers = np.arange(1, 2**count - 1)
        z = (numbers[:, None] >> np.arange(count)) & 1
        sizes = z.sum(axis=1)
        kernel = [(count - 1) / (comb(count, s) * s * (count - s)) for s in map(int, sizes)]
        weights = np.array(kernel)
        return jnp.asarray(z, dtype), jnp.asarray(weights / weights.sum(), dtype)
    # All coalitions of size s together have the weight (n - 1) / (s (n - s)); drawn ones count
    # equally.
    size_key, member_key = jax.random.split(key)
    sizes = np.arange(1, count)
    chance = 1 / (sizes * (count - sizes))
    half = -(-samples // 2)
    drawn = jax.random.choice(
        size_key, jnp.asarray(sizes), (half,), p=jnp.asarray(chance / chance.sum())
    )
    ranks = jnp.argsort(jnp.argsort(jax.random.uniform(member_key, (half, count)), axis=1), axis=1)
    z = (ranks < drawn[:, None]).astype(dtype)
    z = jnp.concatenate([z, 1 - z])[:samples]
    return z, jnp.full(len(z), 1 / len(z), dtype)
