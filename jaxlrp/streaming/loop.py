"""Explain a data set batch by batch: each batch is computed while the previous one is written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from jaxlrp import compat
from jaxlrp.errors import InputError
from jaxlrp.streaming.batches import Batch, Source, read
from jaxlrp.streaming.store import Store
from jaxlrp.types import PyTree

_SAME = 1e-2  # of the largest: other devices and batches round differently


def stream(
    explain_fn: Callable[..., PyTree],
    data: PyTree,
    *,
    batch_size: int | None = None,
    store: str | Path | None = None,
    settings: Mapping[str, str | float] | None = None,
    check: bool = True,
    progress: bool = True,
    devices: Sequence[object] | None = None,
) -> PyTree:
    """Explain a whole data set, batch by batch, into arrays or into a store on disk.

    Each batch is spread over the devices and computed while the results of the previous batch are
    written, so that two batches are in memory. The last batch is filled up with copies of its last
    row, whose results are left out. `explain_fn` is therefore compiled once, and must treat
    examples separately.

    A program that was killed continues if it is started again with the same store: a batch is
    marked as done after its results are written, with a checksum, and batches that were lost or
    damaged are computed again.

    Args:
      explain_fn: a function of a batch, compiled by `jax.jit`; it returns a pytree of arrays whose
        first axis is that of the batch. It is called `explain_fn(*batch)` if a batch is a tuple or
        a list, else `explain_fn(batch)`. Bind parameters as arguments:
        `functools.partial(jax.jit(f), params)`.
      data: an array, or a tuple or dict of arrays with the examples along their first axis (NumPy,
        memory-mapped, Zarr, HDF5: only slices are read); or an iterable of batches of such arrays,
        such as a loader of Grain, tf.data or PyTorch.
      batch_size: examples at a time. By default an iterable keeps the size of its first batch;
        otherwise its rows are regrouped.
      store: the folder of a Zarr group, new or begun by an earlier call. Without a store, the
        results are returned as arrays.
      settings: numbers and strings that are kept with the store; it is an error if the store was
        begun with other settings.
      check: whether a continued store is compared with `explain_fn` in one batch, so that results
        of two networks are never mixed. False is for functions that draw random numbers.
      progress: whether a bar of tqdm is shown.
      devices: the devices to use; by default all devices of this process.

    Returns:
      Without `store`, the results as NumPy arrays, in the structure that `explain_fn` returns. With
      it, a `zarr.Group` for reading, with an array for each result. A dict's keys are the names; a
      single array is named `relevance`.

    Raises:
      InputError: data, results or the store do not fit; the message says what was given.
      ImportError: zarr or tqdm is needed and not installed; both are in the extra `stream`.
      KeyboardInterrupt: it was interrupted; the message says how to continue.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> import jaxlrp as lrp
      >>> explain = jax.jit(lrp.explain(lambda x: x @ jnp.ones((4, 2)), lrp.Epsilon()))
      >>> lrp.stream(explain, jnp.ones((10, 4)), batch_size=3, progress=False).shape
      (10, 4)
    """
    if store is None and settings is not None:
        raise InputError("settings are kept with a store: give store, or no settings.")
    source = read(data, batch_size)
    place = _Place(jax.local_devices() if devices is None else devices, source.size)
    run: _Run | None = None
    try:
        kept = None
        if store is not None:
            kept = Store(Path(store), source.size, source.count, settings or {})
        run = _Run(explain_fn, source, kept, check, place)
        with _Bar(source, 0 if kept is None else len(kept.done), progress) as bar:
            for _ in run.results():
                bar.update()
        return run.finished()
    except KeyboardInterrupt:
        done = "stopped" if run is None else run.interrupted()
        raise KeyboardInterrupt(done) from None


class _Run:
    """One call: the function, the batches that are done, and the place of the results."""

    def __init__(
        self,
        explain_fn: Callable[..., Any],
        source: Source,
        store: Store | None,
        check: bool,
        place: _Place,
    ):
        self.explain_fn = explain_fn
        self.source = source
        self.store = store
        self.place = place
        self.parts: list[list[np.ndarray]] = []
        self.tree: Any = None
        self.rows = self.batches = 0
        self.to_check = min(store.done) if store is not None and store.done and check else None

    def results(self) -> Iterator[int]:
        """Compute the batches that are not done yet; yields the number of each when it is kept."""
        for batch, found in _one_behind(self._begun()):
            results = self._fetched(batch, found)
            if self.store is None:
                self.parts.append([array for _, array in results])
                yield batch.number
                continue
            self.store.begin(dict(results))
            if batch.number == self.to_check:
                self._compare(batch.number, dict(results))
            else:
                self.store.write(batch.number, dict(results))
                yield batch.number

    def finished(self) -> Any:
        if self.store is None:
            joined = [np.concatenate(arrays) for arrays in zip(*self.parts, strict=True)]
            return jax.tree.unflatten(self.tree, joined)
        return self.store.finish(self.batches, self.rows)

    def interrupted(self) -> str:
        if self.store is None:
            return "stopped; nothing is kept without a store: give store=, to go on later"
        count = self.source.count
        total = "" if count is None else f" of {-(-count // self.source.size)}"
        return (
            f"stopped after {len(self.store.done)}{total} batches; start the same again to go on "
            f"({self.store.path})"
        )

    def _begun(self) -> Iterator[tuple[Batch, Any]]:
        """The batches that are not done, each with its results, which are being computed."""
        done: set[int] = set() if self.store is None else set(self.store.done)
        for batch in self.source.batches:
            self.rows += batch.rows
            self.batches += 1
            if batch.number not in done or batch.number == self.to_check:
                data = self.place(batch)
                args = data if isinstance(data, tuple | list) else (data,)
                yield batch, self.explain_fn(*args)

    def _fetched(self, batch: Batch, found: Any) -> list[tuple[str, np.ndarray]]:
        """The results of a batch by name, without those of the rows that fill it up."""
        leaves, self.tree = jax.tree_util.tree_flatten_with_path(found)
        if not leaves:
            raise InputError("explain_fn returned no arrays.")
        rows = self.place.size
        results = []
        for path, leaf in leaves:
            name = "/".join(compat.path_names(path)) or "relevance"
            if not hasattr(leaf, "shape") or leaf.shape[:1] != (rows,):
                raise InputError(
                    f"explain_fn returned {name!r} of shape {np.shape(leaf)} for a batch of "
                    f"{rows}; every result needs the axis of the batch first."
                )
            results.append((name, _plain(leaf)[: batch.rows]))
        return results

    def _compare(self, number: int, results: dict[str, np.ndarray]) -> None:
        assert self.store is not None
        there = self.store.read(number)
        for name, array in results.items():
            stored = there[name][: len(array)]
            if not np.issubdtype(array.dtype, np.inexact):
                same = np.array_equal(stored, array)
            else:
                size = np.max(np.abs(array), initial=0.0, where=np.isfinite(array))
                same = np.allclose(stored, array, rtol=0, atol=_SAME * size, equal_nan=True)
            if not same:
                raise InputError(
                    f"store: {self.store.path} holds other results than explain_fn gives now (seen "
                    f"in {name!r} of batch {number}): another network, other rules or other data. "
                    "Give another store, or check=False if explain_fn draws random numbers."
                )


class _Place:
    """Where a batch is put: on one device, or its rows spread over several."""

    def __init__(self, devices: Sequence[Any], size: int):
        if not len(devices):
            raise InputError("devices is empty; give at least one device.")
        count = len(devices)
        self.size = -(-size // count) * count  # rows of a batch that is filled up
        self._sharding: Any = devices[0]
        if count > 1:
            mesh = jax.sharding.Mesh(np.array(devices), ("batch",))
            self._sharding = NamedSharding(mesh, PartitionSpec("batch"))

    def __call__(self, batch: Batch) -> Any:
        data = batch.load()
        if batch.rows < self.size:
            index = np.minimum(np.arange(self.size), batch.rows - 1)
            data = jax.tree.map(lambda a: a[index], data)
        return jax.device_put(data, self._sharding)


class _Bar:
    """A bar of tqdm, or nothing."""

    def __init__(self, source: Source, done: int, shown: bool):
        self._bar: Any = None
        if not shown:
            return
        try:
            from tqdm.auto import tqdm
        except ImportError as error:
            raise ImportError(
                "stream shows its progress with tqdm, which is not installed: "
                "pip install 'jaxlrp[stream]', or give progress=False"
            ) from error
        total = None if source.count is None else -(-source.count // source.size)
        self._bar = tqdm(total=total, initial=done, desc="explaining", unit="batch")

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def update(self) -> None:
        if self._bar is not None:
            self._bar.update()


def _one_behind(items: Iterable[Any]) -> Iterator[Any]:
    """The same items, each yielded after the next has been begun."""
    waiting: list[Any] = []
    for item in items:
        waiting.append(item)
        if len(waiting) == 2:
            yield waiting.pop(0)
    yield from waiting


def _plain(leaf: Any) -> np.ndarray:
    """An array of NumPy's own types: bfloat16 and narrower floats are float32."""
    array = np.asarray(leaf)
    extended = jnp.issubdtype(array.dtype, jnp.floating) and array.dtype.kind == "V"
    return array.astype(np.float32) if extended else array
