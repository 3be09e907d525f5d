"""Division, products and choices for rules: right at zero, and where no relevance arrives."""

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
    return z + choose(z >= 0, epsilon, -epsilon, z)


def safe_divide(a: Any, b: Any) -> Any:
    """a / b, and 0 where b = 0; differentiable there too."""
    zero = b == 0
    return choose(zero, 0.0, a / choose(zero, 1.0, b, b), a)


def times(x: Any, density: Any) -> Any:
    """x * density for an array or a tuple of arrays; 0 where the density is 0, whatever x is.

    An input of -inf (a mask) that carries nothing has no relevance, not NaN.
    """

    def one(a: Any, c: Any) -> Any:
        return choose(c == 0, 0.0, a * c, c)

    return jax.tree.map(one, x, density)


def is_zero(number: Any) -> bool:
    """Whether a parameter of a rule is written as 0; one that is traced is not."""
    return isinstance(number, (int, float)) and number == 0


def as_tuple(x: Any) -> tuple[Any, ...]:
    """The arrays of an array or a tuple of arrays."""
    return cast("tuple[Any, ...]", x) if isinstance(x, tuple) else (x,)


def shaped_like(x: Any, array: Any) -> Any:
    """An array in the shape of x; of several arrays, in the shape of each."""

    def shaped(one: Any) -> Any:
        return array.reshape(one.shape)

    return jax.tree.map(shaped, x)


def choose(where: Any, a: Any, b: Any, like: Any) -> Any:
    """`jnp.where` as one equation, in the dtype of `like`: rules are traced once per layer."""
    shape = jnp.broadcast_shapes(jnp.shape(where), jnp.shape(a), jnp.shape(b))
    cases = (lax.broadcast_to_rank(jnp.asarray(v, like.dtype), len(shape)) for v in (a, b))
    full = [v if v.shape == shape else jnp.broadcast_to(v, shape) for v in cases]
    test = where if where.shape == shape else jnp.broadcast_to(where, shape)
    return lax.select(test, *(sharded_like(v, test) for v in full))
