"""Evaluate equations on arrays, as traced or with low-precision values widened to float32."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxlrp import compat
from jaxlrp.graph.ir import Eqn, Literal, Value

Env = dict[Value, Any]


@jax.custom_vjp
def hold(x: Any) -> Any:
    """x, through which no relevance passes.

    Unlike `stop_gradient` it is constant for one derivative only, the one that carries relevance:
    a derivative of the relevance sees that it depends on the input.
    """
    return x


hold.defvjp(lambda x: (x, None), lambda _, arrived: (None,))


def held(eqn: Eqn, values: Sequence[Any], mark: Any) -> list[Any]:
    """One equation that relevance does not cross.

    As with `hold`, a derivative of what comes out is the true one. The derivative that carries
    relevance never looks at the equation, which may have none. `mark` is a number that this
    derivative does look at: without one, the next derivative would be the one that is held.
    """

    @jax.custom_vjp
    def call(values: list[Any], mark: Any) -> list[Any]:
        return apply(eqn, values)

    def forward(values: list[Any], mark: Any) -> tuple[list[Any], None]:
        return apply(eqn, values), None

    call.defvjp(forward, lambda _, arrived: (None, None))
    return call(list(values), mark)


def held_value(x: Any, mark: Any) -> Any:
    """`hold`, also where the derivative that carries relevance sees nothing of x."""

    @jax.custom_vjp
    def call(x: Any, mark: Any) -> Any:
        return x

    call.defvjp(lambda x, mark: (x, None), lambda _, arrived: (None, None))
    return call(x, mark)


def is_low(dtype: Any) -> bool:
    """Floating types narrower than 32 bits."""
    return bool(jnp.issubdtype(dtype, jnp.floating)) and jnp.dtype(dtype).itemsize < 4


def widen(x: Any) -> Any:
    """An array as it takes part in relevance: float32 at least."""
    dtype = getattr(x, "dtype", None)
    return x.astype(jnp.float32) if dtype is not None and is_low(dtype) else x


def read(env: Env, value: Value) -> Any:
    if value in env:
        return env[value]
    if isinstance(value, Literal):
        return value.val
    raise KeyError(f"value of shape {value.shape} was never computed")


def apply(eqn: Eqn, values: Sequence[Any], wide: bool = False) -> list[Any]:
    """One equation; with `wide` in float32 where the traced program used fewer bits."""
    params = eqn.params
    if wide:
        values = [_widen_operand(v, a) for v, a in zip(values, eqn.inputs, strict=True)]
        params = widened_params(params)
        if eqn.name == "reduce_precision":
            return [values[0]]
    return compat.bind(eqn.prim, params, values)


def _widen_operand(v: Any, value: Value) -> Any:
    dtype = getattr(value.aval, "dtype", None)
    return jnp.asarray(v).astype(jnp.float32) if dtype is not None and is_low(dtype) else v


def widened_params(params: dict[str, Any]) -> dict[str, Any]:
    changed = {
        key: jnp.dtype(jnp.float32)
        for key in ("new_dtype", "preferred_element_type", "dtype")
        if params.get(key) is not None and is_low(params[key])
    }
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
