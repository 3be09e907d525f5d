"""Batches of equal size from arrays, or from anything that yields batches."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from jaxlrp.errors import InputError


@dataclasses.dataclass(frozen=True)
class Batch:
    """Some rows of the data; `load` reads them, as a pytree of NumPy arrays."""

    number: int
    rows: int
    load: Callable[[], Any]


@dataclasses.dataclass(frozen=True)
class Source:
    """The source of batches.

    Attributes:
      size: rows of every batch except the last.
      count: number of examples; None if it is only known at the end.
      batches: all of them, in order.
    """

    size: int
    count: int | None
    batches: Iterator[Batch]


def read(data: Any, batch_size: int | None) -> Source:
    """The batches of an array or a tuple or dict of arrays, or of an iterable of batches."""
    if batch_size is not None and (
        isinstance(batch_size, bool)
        or not isinstance(batch_size, int | np.integer)
        or batch_size < 1
    ):
        raise InputError(f"batch_size={batch_size!r}: expected a whole number of at least 1.")
    size = None if batch_size is None else int(batch_size)
    if isinstance(data, tuple | Mapping) or _is_array(data) or not isinstance(data, Iterable):
        leaves = jax.tree.leaves(data)
        if leaves and all(map(_is_array, leaves)):
            return _of_arrays(data, size)
    elif not isinstance(data, str | bytes):
        return _of_iterable(data, size)
    what = ", ".join(sorted({type(leaf).__name__ for leaf in jax.tree.leaves(data)}))
    raise InputError(
        f"data of type {type(data).__name__} was given (it holds {what or 'nothing'}); expected an "
        "array, a tuple or dict of arrays, or an iterable of batches (a list, a loader)."
    )


def _is_array(leaf: Any) -> bool:
    return hasattr(leaf, "shape") and hasattr(leaf, "dtype") and hasattr(leaf, "__getitem__")


def _of_arrays(data: Any, size: int | None) -> Source:
    count = _rows(data, "data")
    if size is None:
        raise InputError("data are arrays: give batch_size, the number of examples at a time.")
    size = min(size, count)

    def rows(start: int, stop: int) -> Callable[[], Any]:
        return lambda: jax.tree.map(lambda a: np.asarray(a[start:stop]), data)

    starts = range(0, count, size)
    ends = [min(start + size, count) for start in starts]
    parts = enumerate(zip(starts, ends, strict=True))
    return Source(size, count, (Batch(n, j - i, rows(i, j)) for n, (i, j) in parts))


def _of_iterable(data: Iterable[Any], size: int | None) -> Source:
    items = (_as_arrays(item) for item in data)
    first = next(items, None)
    if first is None:
        raise InputError("the iterable yields no batches: there is nothing to explain.")
    size = _rows(first, "batch 0") if size is None else size
    parts = enumerate(_regrouped(itertools.chain([first], items), size))
    every = (Batch(n, _rows(part, f"batch {n}"), lambda part=part: part) for n, part in parts)
    return Source(size, None, every)


def _as_arrays(item: Any) -> Any:
    return jax.tree.map(np.asarray, item)


def _regrouped(items: Iterable[Any], size: int) -> Iterator[Any]:
    """The same rows in batches of one size; the last may have fewer."""
    waiting: Any = None
    for number, item in enumerate(items):
        _rows(item, f"batch {number}")
        if waiting is None:
            waiting = item
        elif jax.tree.structure(item) != jax.tree.structure(waiting):
            raise InputError(
                f"batch {number} has the structure {jax.tree.structure(item)}, the batches before "
                f"it {jax.tree.structure(waiting)}; all batches need the same."
            )
        else:
            waiting = jax.tree.map(lambda a, b: np.concatenate([a, b]), waiting, item)
        total = len(jax.tree.leaves(waiting)[0])
        for start in range(0, total - size + 1, size):
            yield jax.tree.map(lambda a, i=start: a[i : i + size], waiting)
        rest = total - total % size
        waiting = jax.tree.map(lambda a, i=rest: a[i:], waiting) if rest < total else None
    if waiting is not None:
        yield waiting


def _rows(tree: Any, what: str) -> int:
    """The length of the first axis, in which all arrays agree."""
    shapes = [tuple(leaf.shape) for leaf in jax.tree.leaves(tree)]
    lengths = {shape[0] if shape else None for shape in shapes}
    if len(lengths) != 1 or None in lengths:
        raise InputError(
            f"{what}: arrays of shapes {shapes} were given; all need the examples along their "
            "first axis, and as many of them."
        )
    (length,) = lengths
    if not length:
        raise InputError(f"{what}: there are no examples (shapes {shapes}).")
    return length
