"""New primitives that are linear in each of two operands, by the parts of JAX for this purpose."""

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
      compute: the result, of both operands and the parameters by name.
      transposes: a cotangent of either operand, of that of the result, both operands (of the one in
        question its `aval` alone) and the parameters.
      mapped: as in `jax.vmap`, of both operands, the axes that are mapped (or None) and the
        parameters; the result is mapped along its first axis.
    """
    made = core.Primitive(name)
    made.def_impl(compute)
    made.def_effectful_abstract_eval(like.abstract_eval)
    ad.defbilinear(made, *transposes)
    batching.primitive_batchers[made] = lambda operands, axes, **params: (
        mapped(operands, axes, **params),
        0,
    )
    mlir.register_lowering(made, mlir.lower_fun(compute, multiple_results=False))
    return made
