"""Sums over many evaluations in batches of bounded memory, inside one compiled program."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxlrp.methods.task import check_count


def total(each: Callable[[Any], Any], items: Any, batch: int, like: Any) -> Any:
    """The sum of `each(item)` over the first axis of `items`, at most `batch` at a time.

    This is a scan over batches of equal size; the sum leaves out the items that fill up the last
    batch. The derivative computes each batch again. `like` are arrays on which the result depends.
    """
    count = jax.tree.leaves(items)[0].shape[0]
    rounds = -(-count // check_count("batch", batch))
    size = -(-count // rounds)

    @jax.checkpoint
    def part(indices: Any) -> Any:
        chosen = jax.tree.map(lambda a: a[indices % count], items)
        found = jax.vmap(each)(chosen)
        valid = indices < count

        def add_up(y: Any) -> Any:
            kept = jnp.reshape(valid, (size,) + (1,) * (y.ndim - 1))
            return jnp.sum(jnp.where(kept, y, jnp.zeros_like(y)), axis=0)

        return jax.tree.map(add_up, found) if rounds * size > count else _summed(found)

    indices = jnp.arange(rounds * size).reshape(rounds, size)
    if rounds == 1:
        return part(indices[0])
    shapes = jax.eval_shape(part, indices[0])
    nothing = _zero(like)
    start = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype) + nothing.astype(s.dtype), shapes)

    def step(carry: Any, indices: Any) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, carry, part(indices)), None

    return jax.lax.scan(step, start, indices)[0]


def each_of(each: Callable[[Any], Any], items: Any, batch: int) -> Any:
    """`each(item)` for all items, stacked; at most `batch` at a time."""
    return jax.lax.map(each, items, batch_size=check_count("batch", batch))


def _summed(found: Any) -> Any:
    return jax.tree.map(lambda y: jnp.sum(y, axis=0), found)


def _zero(like: Any) -> Any:
    """0, marked inside `shard_map` as varying wherever `like` does."""
    firsts = [jnp.ravel(x)[0] for x in jax.tree.leaves(like)]
    return sum((jnp.where(jnp.isnan(f), 0.0, 0.0) for f in firsts), jnp.zeros(()))
