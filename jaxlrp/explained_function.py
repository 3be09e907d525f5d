"""A function of the explained values alone: the start of other explanation methods."""

# JAX's own annotations leave parts unknown.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from jaxlrp import composites
from jaxlrp.arguments import (
    Request,
    bound_call,
    check_outputs,
    explained,
    is_quantity,
    with_aux,
)
from jaxlrp.checks import ArgNums, normal_argnums
from jaxlrp.errors import InputError
from jaxlrp.planning.selectors import Selector
from jaxlrp.run import targets
from jaxlrp.run.bound_call import BoundCall
from jaxlrp.run.probes import Probes
from jaxlrp.run.pull_back import as_traced
from jaxlrp.types import PyTree, Target


def as_function_of(
    fn: Callable[..., PyTree],
    argnums: ArgNums = 0,
    has_aux: bool = False,
    *,
    wrt: Selector | None = None,
) -> Callable[..., tuple[PyTree, Callable[[PyTree], PyTree]]]:
    """The values that `explain` would explain, and `fn` as a function of them alone.

    It is meant for explanation methods of your own: with the same `argnums` and `wrt` as in
    `explain`, they need not know where the explained values are.

    Args:
      fn: as in [`explain`][jaxlrp.explain].
      argnums: as there.
      has_aux: as there.
      wrt: as there.

    Returns:
      A function of `fn`'s arguments that returns `(x, run)`. x is the explained argument, a tuple
      of them, or `{name: value}` with `wrt`. `run(x)` is the result of `fn` (with `has_aux` the
      pair of output and aux). `run` accepts other values with x's structure and shapes, and is
      differentiable. With `wrt`, low-precision values are float32.

    Raises:
      InputError: as `explain`.
      SelectorError: as `explain`.

    Examples:
      >>> import jax.numpy as jnp
      >>> import jaxlrp as lrp
      >>> x, run = lrp.as_function_of(lambda w, x: w * x, argnums=1)(3.0, jnp.array([1.0, 2.0]))
      >>> print(run(x + 1))
      [6. 9.]
    """
    numbers = normal_argnums(argnums)

    def at(*args: PyTree, **kwargs: PyTree) -> tuple[PyTree, Callable[[PyTree], PyTree]]:
        if wrt is None:
            return _of_arguments(fn, numbers, has_aux, args, kwargs)
        rules = composites.gradient()
        return _of_values(
            bound_call(Request(fn, rules, numbers, has_aux, wrt), args, kwargs), has_aux
        )

    return at


def output_weights(target: Target, output: PyTree) -> PyTree:
    """The weights on an output that a `target` means: one for each element.

    Args:
      target: where relevance starts, see [`Target`][jaxlrp.Target].
      output: the output, or its shapes (`jax.eval_shape`); any pytree.

    Returns:
      Weights with the structure and shapes of the output, float32 at least. They are ones for None,
      a one-hot row for a class, and floats as they are. A traced class out of range gives NaN.

    Raises:
      TargetError: the target does not fit the output.

    Examples:
      >>> import jax.numpy as jnp
      >>> import jaxlrp as lrp
      >>> print(lrp.output_weights(2, jnp.zeros(4)))
      [0. 0. 1. 0.]
    """
    leaves, tree = jax.tree.flatten(output)
    return jax.tree.unflatten(tree, targets.output_weights(target, leaves, tree))


def _of_arguments(
    fn: Callable[..., Any],
    numbers: int | tuple[int, ...],
    has_aux: bool,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> tuple[Any, Callable[[Any], Any]]:
    chosen, args = explained(numbers, args)
    for number in chosen:
        if not all(map(is_quantity, jax.tree.leaves(args[number]))):
            raise InputError(
                f"argument {number} holds integers or booleans beside floating arrays, which "
                "`explain` takes as static; here every leaf must be floating. Pass the others in "
                "an argument of their own."
            )

    def run(x: Any) -> Any:
        given = list(args)
        for number, value in zip(chosen, x if isinstance(numbers, tuple) else (x,), strict=True):
            given[number] = value
        result = fn(*given, **kwargs)
        check_outputs(jax.tree.leaves(with_aux(result)[0] if has_aux else result))
        return result

    x = tuple(args[i] for i in chosen)
    return (x if isinstance(numbers, tuple) else x[0]), run


def _of_values(traced: BoundCall, has_aux: bool) -> tuple[Any, Callable[[Any], Any]]:
    traced.act()
    values = traced.primals()
    positions = traced.explained(range(len(values)))

    def run(x: Any) -> Any:
        given = list(values)
        for name, position in positions.items():
            given[position] = x[name]
        out, aux = traced.run(given, Probes())
        typed = [as_traced(y, v) for y, v in zip(out, traced.outputs, strict=True)]
        result = jax.tree.unflatten(traced.out_tree, typed)
        return (result, traced.with_aux(aux)) if has_aux else result

    return {name: values[position] for name, position in positions.items()}, run
