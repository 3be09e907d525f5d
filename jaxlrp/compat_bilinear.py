"""New primitives that are linear in each of two operands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jax.extend import core
from jax.interpreters import ad, batching, mlir


def bilinear(
    like: core.Primitive,
    name: str,
    compute: Callable[..., Any],
    transposes: tuple[Callable[..., Any], Callable[..., Any]],
    mapped: Callable[..., Any],
) -> core.Primitive:
    """A primitive with the parameters and the type of another one, computed in another way.

    Args:
      compute: computes the result from both operands and, by name, the parameters.
      transposes: one function for each operand. It receives the cotangent of the result, both
        operands (its own as an `ad.UndefinedPrimal`) and the parameters, and returns the cotangent
        of its operand.
      mapped: computes the results from both operands, the axis of each that is mapped (or None),
        and the parameters. The results are stacked along the first axis.
    """
    made = core.Primitive(name)
    made.def_impl(compute)
    made.def_effectful_abstract_eval(like.abstract_eval)
    ad.defbilinear(made, *transposes)

    def batch(operands: Any, axes: Any, **params: Any) -> tuple[Any, int]:
        return mapped(operands, axes, **params), 0

    batching.primitive_batchers[made] = batch
    mlir.register_lowering(made, mlir.lower_fun(compute, multiple_results=False))
    return made
