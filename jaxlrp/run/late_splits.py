"""A rule's products with W+ and W-, computed only when the relevance of their layer has arrived.

XLA's scheduler for CPU computes whatever does not depend on the arriving relevance as early as it
can, and keeps it: all splits of all layers are then in memory together, or, if the splits are
prepared, all products with them. A factor of 1 that is read off the arriving relevance, which no
pass of the compiler sees through, puts each in its place. The kernel takes it before the split, so
that both are one loop; with splits that are prepared, the input of the layer takes it.

It is left out in loops, where a split that depends on nothing is computed once for all steps, where
equations run one by one, and on several devices, where reading it is communication.
"""

from __future__ import annotations

import contextvars
from contextlib import AbstractContextManager
from typing import Any, Literal

import jax
import jax.numpy as jnp

from jaxlrp.run.held import held

_SMALLEST = 2**12  # elements; smaller kernels are not worth a further equation
Waiting = Literal["kernel", "input", None]
_chosen: contextvars.ContextVar[Waiting] = contextvars.ContextVar("waiting", default="kernel")


def wait(choice: Waiting) -> AbstractContextManager[None]:
    """Let the kernels of layers wait for relevance, or their inputs, or nothing."""
    return held(_chosen, choice)


def waiting() -> Waiting:
    """What waits for relevance in the layers that run now."""
    return _chosen.get() if jax.default_backend() == "cpu" and jax.device_count() == 1 else None


def is_large(kernel: Any) -> bool:
    return kernel.size >= _SMALLEST


def after(arrived: Any, array: Any) -> Any:
    """An array, to the last bit, that is there after some relevance."""
    if not arrived.size:
        return array
    if not all(jnp.issubdtype(x.dtype, jnp.floating) for x in (arrived, array)):
        return array
    first = jax.lax.stop_gradient(arrived[(0,) * arrived.ndim])
    return array * _one(first).astype(array.dtype)


@jax.custom_batching.custom_vmap
def _one(number: Any) -> Any:
    return jnp.where((number > 0) & (number < 0), 0.0, 1.0)


@_one.def_vmap
def _(size: int, batched: list[bool], numbers: Any) -> tuple[Any, bool]:
    # Any one of them will do. A factor for each would make a kernel for each.
    return (_one(numbers[0]) if size else jnp.ones(())), False
