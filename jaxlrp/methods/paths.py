"""Gradients along paths from a baseline: integrated and expected gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxlrp.errors import InputError
from jaxlrp.methods.batches import total
from jaxlrp.methods.quadrature import nodes_and_weights
from jaxlrp.methods.task import (
    Task,
    check_count,
    filled,
    method,
    minus,
    set_of,
    sums,
    times,
)


def integrated_gradients(
    fn: Callable[..., Any],
    argnums: Any = 0,
    has_aux: bool = False,
    *,
    wrt: Any = None,
    baseline: Any = 0.0,
    baselines: Any = None,
    path: Callable[[Any, Any, Any], Any] | None = None,
    steps: int = 64,
    rule: str = "gauss_legendre",
    batch: int = 8,
    gap: bool = False,
    examples: int = 0,
) -> Callable[..., Any]:
    r"""Integrated gradients: the gradient along a path from a baseline $x_0$ to x.

    $$R = (x - x_0) \int_0^1 \nabla f(x_0 + a (x - x_0)) \, da, \qquad \sum_i R_i = f(x) - f(x_0)$$

    The sum holds up to the error of the quadrature, which `gap` returns. Cost: `steps`
    gradients.

    Use it if some baseline means that nothing is there. It is not for inputs without such a value:
    for these use several `baselines`, or [`expected_gradients`][jaxlrp.methods.expected_gradients].

    Source: [Sundararajan et al. 2017][sundararajan2017].

    Args:
      fn: as in [`explain`][jaxlrp.explain], like argnums, has_aux and wrt.
      baseline: x0: a number, arrays that broadcast to the explained values, or a function of these.
      baselines: several in place of one, counted by a first axis; R is the mean.
      path: `path(x, x0, a)` with values x0 at a = 0 and x at a = 1; by default the straight line.
        R is then the integral of df/dx * d path/da.
      steps: nodes of the quadrature.
      rule: `"gauss_legendre"` (for smooth functions the most accurate), `"riemann_middle"`,
        `"riemann_left"`, `"riemann_right"` or `"riemann_trapezoid"`. The last three evaluate an end
        of the path: at a baseline of zero the derivative of a ReLU is 0, and a share of R is lost.
      batch: gradients computed at a time, which bounds memory.
      gap: return `(R, gap)` with gap = f(x) - f(x0) - sum R, of the shape of the examples.
      examples: leading axes that count examples, in x and in the output, for the gap; 0 returns one
        number for all.

    Returns:
      A function `R(*args, target=None, **kwargs)` as that of `explain`; `(R, gap)` with `gap`, and
      `(..., aux)` with `has_aux`.

    Raises:
      InputError: a parameter or a baseline does not fit.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import methods
      >>> R = methods.integrated_gradients(lambda x: x**2)(jnp.array([1.0, 3.0]))
      >>> print(R.round(4))
      [1. 9.]
    """
    nodes, weights = nodes_and_weights(rule, steps)
    check_count("batch", batch)
    if baselines is not None and not (isinstance(baseline, (int, float)) and baseline == 0):
        raise InputError("Both baseline and baselines were given; give one of them.")
    curve = straight if path is None else path

    @method(fn, argnums, has_aux, wrt)
    def integrated_gradients(task: Task) -> Any:
        if baselines is None:
            x0 = filled("baseline", baseline, task.x)
            starts, count = jax.tree.map(lambda b: b[None], x0), 1
        else:
            starts, count = set_of("baselines", baselines, task.x)

        def each(item: Any) -> Any:
            which, a, weight = item
            x0 = jax.tree.map(lambda b: b[which], starts)
            point, speed = jax.jvp(lambda t: curve(task.x, x0, t), (a,), (jnp.ones_like(a),))
            found = times(task.gradient(point), speed)
            return jax.tree.map(lambda r: weight.astype(r.dtype) * r, found)

        dtype = jnp.promote_types(jnp.result_type(*jax.tree.leaves(task.x)), jnp.float32)
        items = (
            jnp.repeat(jnp.arange(count), len(nodes)),
            jnp.tile(jnp.asarray(nodes, dtype), count),
            jnp.tile(jnp.asarray(weights / count, dtype), count),
        )
        R = total(each, items, batch, like=(task.x, starts))
        if not gap:
            return R
        n = task.check_examples(examples)
        at_starts = total(lambda x0: task.scores(x0, n), starts, batch, like=task.x) / count
        return R, task.scores(task.x, n) - at_starts - sums(R, n)

    return integrated_gradients


def expected_gradients(
    fn: Callable[..., Any],
    argnums: Any = 0,
    has_aux: bool = False,
    *,
    references: Any,
    wrt: Any = None,
    samples: int = 64,
    batch: int = 8,
) -> Callable[..., Any]:
    r"""Expected gradients: integrated gradients, averaged over many random baselines.

    $$R = E_{x', a} \left[ (x - x') \, \nabla f(x' + a (x - x')) \right], \qquad
      E \left[ \sum_i R_i \right] = f(x) - E_{x'}[f(x')]$$

    with x' one of the references and a between 0 and 1. This is a Monte Carlo estimate, whose error
    falls with the root of `samples`. Cost: `samples` gradients.

    Use it if no single baseline means that nothing is there, and typical inputs are known. It is
    not for exact sums.

    Source: [Erion et al. 2021][erion2021].

    Args:
      fn: as in [`explain`][jaxlrp.explain], like argnums, has_aux and wrt.
      references: values like x, counted by a first axis; a batch is broadcast over.
      samples: the number of drawn pairs of a reference and a position. All references are used
        equally often, up to a difference of one, and positions are stratified.
      batch: gradients computed at a time.

    Returns:
      A function `R(*args, key, target=None, **kwargs)` as that of `explain`.

    Raises:
      InputError: there is no key, or the references do not fit.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlrp import methods
      >>> R = methods.expected_gradients(jnp.sum, references=jnp.ones((3, 2)))
      >>> print(R(jnp.array([1.0, 3.0]), key=jax.random.key(0)))
      [0. 2.]
    """
    check_count("samples", samples)
    check_count("batch", batch)

    @method(fn, argnums, has_aux, wrt, draws=True)
    def expected_gradients(task: Task, key: Any) -> Any:
        starts, count = set_of("references", references, task.x)
        order_key, place_key, jitter_key = jax.random.split(key, 3)
        rounds = -(-samples // count)
        keys = jax.random.split(order_key, rounds)
        orders = jax.vmap(lambda k: jax.random.permutation(k, count))(keys)
        which = orders.reshape(-1)[:samples]
        dtype = jnp.promote_types(jnp.result_type(*jax.tree.leaves(task.x)), jnp.float32)
        strata = jax.random.permutation(place_key, samples)
        places = (strata + jax.random.uniform(jitter_key, (samples,), dtype)) / samples

        def each(item: Any) -> Any:
            n, a = item
            x0 = jax.tree.map(lambda b: b[n], starts)
            return times(task.gradient(straight(task.x, x0, a)), minus(task.x, x0))

        found = total(each, (which, places), batch, like=(task.x, starts))
        return jax.tree.map(lambda r: r / samples, found)

    return expected_gradients


def straight(x: Any, x0: Any, a: Any) -> Any:
    """The straight line from x0 at a = 0 to x at a = 1."""
    return jax.tree.map(lambda end, start: start + a.astype(end.dtype) * (end - start), x, x0)
