"""Evaluate equations on arrays, as traced or with low-precision values widened to float32."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxlrp import compat
from jaxlrp.graph.families import row
from jaxlrp.graph.ir import Eqn, Literal, Value, is_low
from jaxlrp.graph.primitives import DEVICE_MOVES, DEVICE_SUMS, carrying
from jaxlrp.run import depthwise

Env = dict[Value, Any]

# Their operands need not vary along the same axes of a manual mesh.
_APART = DEVICE_MOVES | DEVICE_SUMS


class Counted(NamedTuple):
    """An integer that carries a value: the exact integer, and a float that carries relevance."""

    number: Any
    exact: Any


def number_of(x: Any) -> Any:
    """An active value as a float."""
    return x.number if isinstance(x, Counted) else x


def exact_of(x: Any) -> Any:
    """A value in the form that it has in the traced program."""
    return x.exact if isinstance(x, Counted) else x


def on_number(function: Callable[[Any], Any], x: Any) -> Any:
    """Apply a function with a backward pass for relevance to the array that carries relevance."""
    return x._replace(number=function(x.number)) if isinstance(x, Counted) else function(x)


@jax.custom_vjp
def hold(x: Any) -> Any:
    """The identity of x, through which no relevance passes.

    Unlike `stop_gradient`, it is constant for only one derivative, the one that carries relevance.
    A derivative of the relevance sees that it depends on the input.
    """
    return x


hold.defvjp(lambda x: (x, None), lambda _, arrived: (None,))


def held(eqn: Eqn, values: Sequence[Any], mark: Any) -> list[Any]:
    """Evaluate an equation that relevance does not cross.

    As with `hold`, a derivative of the result is the true one. The derivative that carries
    relevance never uses that of the equation, which may not exist. `mark` is a number on which the
    derivative that carries relevance depends: without it, the next derivative would be the one that
    is held.
    """

    @jax.custom_vjp
    def call(values: list[Any], mark: Any) -> list[Any]:
        return apply(eqn, values)

    def forward(values: list[Any], mark: Any) -> tuple[list[Any], None]:
        return apply(eqn, values), None

    call.defvjp(forward, lambda _, arrived: (None, None))
    return call(list(values), mark)


def held_value(x: Any, mark: Any) -> Any:
    """`hold`, also if the derivative that carries relevance does not depend on x."""

    @jax.custom_vjp
    def call(x: Any, mark: Any) -> Any:
        return x

    call.defvjp(lambda x, mark: (x, None), lambda _, arrived: (None, None))
    return call(x, mark)


def widen(x: Any) -> Any:
    """An array in the precision in which relevance is computed: float32 at least."""
    dtype = getattr(x, "dtype", None)
    return x.astype(jnp.float32) if dtype is not None and is_low(dtype) else x


def as_number(x: Any) -> Any:
    """A static factor or term beside active values: floating, float32 at least."""
    x = jnp.asarray(x)
    return x.astype(jnp.float32) if _is_integer(x.dtype) else widen(x)


def _is_integer(dtype: Any) -> bool:
    return bool(jnp.issubdtype(dtype, jnp.integer))


def read(env: Env, value: Value) -> Any:
    if value in env:
        return env[value]
    if isinstance(value, Literal):
        return value.val
    raise KeyError(f"value of shape {value.shape} was never computed")


def apply(eqn: Eqn, values: Sequence[Any], wide: bool = False) -> list[Any]:
    """Evaluate an equation; with `wide` in float32 if the traced program used fewer bits."""
    params = eqn.params
    if wide:
        values = [_widen_operand(v, a) for v, a in zip(values, eqn.inputs, strict=True)]
        carried = [v for v, a in zip(values, eqn.inputs, strict=True) if _is_carried(v, a)]
        params = widened_params(params, carried[0].dtype if carried else None)
        if carried:
            values = [
                jnp.asarray(v, carried[0].dtype) if i in carrying(eqn) else v
                for i, v in enumerate(values)
            ]
        if values and hasattr(values[0], "dtype") and values[0].dtype != eqn.inputs[0].dtype:
            params = compat.retyped(eqn.prim, params, values[0].dtype)
        if eqn.name == "reduce_precision":
            return [values[0]]
    if len(values) > 1 and eqn.name not in _APART and not row(eqn.name).pairs:
        values = _varying_alike(values)  # an equation made anew does not say it
    return depthwise.bind(eqn.prim, params, values)


def _varying_alike(values: Sequence[Any]) -> Sequence[Any]:
    """Operands that vary along the same axes of a manual mesh."""
    axes = [compat.varying_axes(v) for v in values]
    every = frozenset().union(*axes)
    if all(a == every for a in axes):
        return values
    gaps = (tuple(sorted(every - a)) for a in axes)
    return [
        jax.lax.pcast(v, gap, to="varying") if gap else v
        for v, gap in zip(values, gaps, strict=True)
    ]


def _widen_operand(v: Any, value: Value) -> Any:
    dtype = getattr(value.aval, "dtype", None)
    return jnp.asarray(v).astype(jnp.float32) if dtype is not None and is_low(dtype) else v


def _is_carried(v: Any, value: Value) -> bool:
    """Whether an integer of the program is represented by a float."""
    dtype = getattr(v, "dtype", None)
    return dtype is not None and _is_integer(value.dtype) and not _is_integer(dtype)


def widened_params(params: dict[str, Any], number: Any = None) -> dict[str, Any]:
    """Parameters for float32 at least; for `number` if integers of the program are floats."""
    changed = {}
    for key in ("new_dtype", "preferred_element_type", "dtype"):
        dtype = params.get(key)
        if dtype is not None and is_low(dtype):
            changed[key] = jnp.dtype(jnp.float32)
        elif dtype is not None and number is not None and _is_integer(dtype):
            changed[key] = jnp.dtype(number)
    return {**params, **changed} if changed else params


def run(
    eqns: Iterable[Eqn],
    env: Env,
    wide: bool = False,
    detached: Sequence[tuple[Eqn, int]] = (),
    given: Mapping[tuple[Eqn, int], Any] | None = None,
) -> None:
    """Evaluate equations in order, adding their outputs to `env`.

    Operands in `detached` are held constant; those in `given` are replaced.
    """
    held = set(detached)
    for eqn in eqns:
        values = [read(env, v) for v in eqn.inputs]
        if held:
            values = [hold(v) if (eqn, i) in held else v for i, v in enumerate(values)]
        if given:
            values = [given.get((eqn, i), v) for i, v in enumerate(values)]
        env.update(zip(eqn.outputs, apply(eqn, values, wide), strict=True))
