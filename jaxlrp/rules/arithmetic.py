"""Division, products and choices for rules, right at zero and where no relevance arrives."""

# JAX's own annotations leave parts unknown.
# pyright: reportUnknownMemberType=false
from __future__ import annotations

from typing import Any, cast

import jax
import jax.numpy as jnp
from jax import lax

from jaxlrp.compat import sharded_like


def stabilise(z: Any, epsilon: Any) -> Any:
    """stab(z) = z + epsilon * sgn(z), with sgn(0) = +1."""
    return z if is_zero(epsilon) else lax.select(*_alike(z >= 0, z + epsilon, z - epsilon))


def stabilised_share(z: Any, epsilon: float) -> Any:
    """z / stab(z) = |z| / (|z| + epsilon) for a real z and epsilon > 0: 0 at 0, 1 at infinity."""
    number = z.dtype.type
    size = lax.min(lax.abs(z), number(jnp.finfo(z.dtype).max))
    return lax.div(size, lax.add(size, number(epsilon)))


def multiply(a: Any, b: Any) -> Any:
    """a * b; for arrays of one type without the work of `jnp`, which is traced at every call."""
    alike = jnp.shape(a) == jnp.shape(b) and jnp.result_type(a) == jnp.result_type(b)
    return lax.mul(a, b) if alike and jnp.shape(a) else a * b


def divide(a: Any, b: Any) -> Any:
    """a / b of floating arrays, in the same way as `multiply`."""
    alike = jnp.shape(a) == jnp.shape(b) and jnp.result_type(a) == jnp.result_type(b)
    return lax.div(a, b) if alike and jnp.shape(a) else a / b


def safe_divide(a: Any, b: Any) -> Any:
    """a / b, and 0 where b = 0; differentiable there too."""
    zero = b == 0
    return choose(zero, 0.0, divide(a, choose(zero, 1.0, b, b)), a)


def times(x: Any, density: Any) -> Any:
    """x * density for an array or a tuple of arrays; 0 where the density is 0, whatever x is.

    An input of -inf (a mask) with a density of 0 then has no relevance instead of NaN.
    """

    def one(a: Any, c: Any) -> Any:
        return choose(c == 0, 0.0, multiply(a, c), c)

    return jax.tree.map(one, x, density)


def is_zero(number: Any) -> bool:
    """Whether a parameter of a rule is written as 0; a traced one is not."""
    return isinstance(number, (int, float)) and number == 0


def as_tuple(x: Any) -> tuple[Any, ...]:
    """The arrays of an array or a tuple of arrays."""
    return cast("tuple[Any, ...]", x) if isinstance(x, tuple) else (x,)


def shaped_like(x: Any, array: Any) -> Any:
    """An array in the shape of x; if x has several arrays, one in the shape of each."""

    def shaped(one: Any) -> Any:
        return array.reshape(one.shape)

    return jax.tree.map(shaped, x)


def choose(where: Any, a: Any, b: Any, like: Any) -> Any:
    """`jnp.where` as one equation, in the dtype of `like`: rules are traced once per layer."""
    shape = jnp.broadcast_shapes(jnp.shape(where), jnp.shape(a), jnp.shape(b))
    test = where if where.shape == shape else jnp.broadcast_to(where, shape)
    return lax.select(test, *(sharded_like(_filled(v, shape, like.dtype), test) for v in (a, b)))


def _filled(x: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    """An array of a shape; for a number this takes one equation."""
    if isinstance(x, (int, float)):
        return lax.full(shape, x, dtype)
    x = jnp.asarray(x, dtype)
    return x if x.shape == shape else jnp.broadcast_to(x, shape)


def _alike(*arrays: Any) -> tuple[Any, ...]:
    shape = cast("tuple[int, ...]", jnp.broadcast_shapes(*(a.shape for a in arrays)))
    return tuple(a if a.shape == shape else jnp.broadcast_to(a, shape) for a in arrays)
