"""W+ and W- of large kernels, computed only when the relevance of their layer has arrived.

XLA's scheduler for CPU computes whatever depends on parameters alone at the very start, and keeps
it: all splits of all layers are then in memory together. A factor of 1 that is read off the
arriving relevance, which no pass of the compiler sees through, puts each split in its place. The
kernel takes it before the split, so that both are one loop.

It is left out in loops, where a split that depends on nothing is computed once for all steps, where
splits are kept for later calls, and on several devices, where reading it is communication.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

_SMALLEST = 2**12  # elements; smaller kernels are not worth a further equation
_early = contextvars.ContextVar("early", default=False)


@contextlib.contextmanager
def early() -> Iterator[None]:
    """Splits depend on their kernels alone."""
    token = _early.set(True)
    try:
        yield
    finally:
        _early.reset(token)


def are_late() -> bool:
    """Whether the splits of the layers that run now wait for relevance."""
    return not _early.get() and jax.default_backend() == "cpu" and jax.device_count() == 1


def after(arrived: Any, kernel: Any) -> Any:
    """A kernel, to the last bit, that is there after some relevance; None waits for nothing."""
    if arrived is None or not arrived.size or kernel.size < _SMALLEST:
        return kernel
    if not jnp.issubdtype(arrived.dtype, jnp.floating):
        return kernel
    first = jax.lax.stop_gradient(arrived[(0,) * arrived.ndim])
    return kernel * _one(first).astype(kernel.dtype)


@jax.custom_batching.custom_vmap
def _one(number: Any) -> Any:
    return jnp.where((number > 0) & (number < 0), 0.0, 1.0)


@_one.def_vmap
def _(size: int, batched: list[bool], numbers: Any) -> tuple[Any, bool]:
    # Any one of them will do. A factor for each would make a kernel for each.
    return (_one(numbers[0]) if size else jnp.ones(())), False
