"""A Zarr store of results that a killed program can continue.

A chunk is a batch, so that a batch replaces whole files. When its results are in the store, a batch
is marked as done by a checksum of them, so a chunk that was lost or damaged since is found.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxlrp.errors import InputError
from jaxlrp.streaming.interrupts import uninterrupted

_MARK = "jaxlrp.stream"
_DONE = "done"
_FIRST = 64  # batches for which there is room before the number of examples is known


class Store:
    """Results by name, in a folder.

    Attributes:
      done: the numbers of the batches whose results are in the store, as they were written.
    """

    def __init__(self, path: Path, size: int, count: int | None, settings: Mapping[str, Any]):
        self.path = path
        self.size = size
        self.count = count
        own = {"batch_size": size} if count is None else {"batch_size": size, "examples": count}
        if taken := sorted({"batch_size", "examples"} & set(settings)):
            raise InputError(f"settings: {taken} are kept with every store; use other names.")
        self.about = own | _plain(settings)
        self.group: Any = None
        self._arrays: dict[str, Any] = {}
        self._done: Any = None
        if path.is_symlink() or path.exists():
            with uninterrupted():
                self._open()
        self.done = self._checked()

    def begin(self, results: Mapping[str, np.ndarray]) -> None:
        """Make the store for results like these, or check that they fit the existing store."""
        wanted = {name: (tuple(a.shape[1:]), str(a.dtype)) for name, a in results.items()}
        if self.group is None:
            _check_results(results)
            with uninterrupted():
                self._make(wanted)
            return
        there = {n: (tuple(a.shape[1:]), str(a.dtype)) for n, a in self._arrays.items()}
        if there != wanted:
            raise InputError(
                f"{self.path} holds {_listed(there)}; explain_fn returns {_listed(wanted)}. Give "
                "another store."
            )

    def write(self, number: int, results: Mapping[str, np.ndarray]) -> None:
        start = number * self.size
        rows = len(next(iter(results.values())))
        with uninterrupted():
            self._grow(number, start + rows)
            for name, array in results.items():
                self._arrays[name][start : start + rows] = array
            # After the rest, and before the next.
            self._done[number] = _checksum(results)
            self.done.add(number)

    def read(self, number: int) -> dict[str, np.ndarray]:
        """The results of a batch, as they are in the store."""
        part = slice(number * self.size, (number + 1) * self.size)
        return {name: array[part] for name, array in self._arrays.items()}

    def finish(self, batches: int, examples: int) -> Any:
        """Cut off the room that was not needed; returns the group for reading."""
        with uninterrupted():
            for array in self._arrays.values():
                if array.shape[0] != examples:
                    array.resize((examples, *array.shape[1:]))
            if self._done.shape != (batches,):
                self._done.resize((batches,))
            return _zarr().open_group(self.path, mode="r")

    def _take(self, group: Any) -> None:
        found = dict(group.attrs)[_MARK]
        self._arrays = {name: group[name] for name in found["results"]}
        self._done, self.group = group[_DONE], group

    def _open(self) -> None:
        zarr = _zarr()
        if not self.path.is_dir():
            raise InputError(f"store: {self.path} is a file; give a folder, or one that is new.")
        try:
            self._take(zarr.open_group(self.path, mode="r+"))
            there = dict(self.group.attrs)[_MARK]["about"]
        except Exception as error:  # what zarr raises depends on its version and on the files
            inside = ", ".join(sorted(p.name for p in self.path.iterdir())[:4]) or "nothing"
            raise InputError(
                f"store: {self.path} exists, but stream did not make it (it holds "
                f"{inside}); give another path, or remove it."
            ) from error
        other = [n for n in {**there, **self.about} if there.get(n) != self.about.get(n)]
        other = [n for n in other if n != "examples" or self.count is not None]
        if other:
            here = {name: self.about.get(name) for name in other}
            then = {name: there.get(name) for name in other}
            raise InputError(
                f"store: {self.path} was begun with other settings: {', '.join(other)}. Here "
                f"{here}, there {then}. Give the same, or another store."
            )

    def _make(self, results: Mapping[str, tuple[tuple[int, ...], str]]) -> None:
        zarr = _zarr()
        unfinished = self.path.with_name(f"{self.path.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)  # of a run that was killed
        try:
            unfinished.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"store: {self.path} cannot be made ({error}).") from error
        rows = self.size * _FIRST if self.count is None else self.count
        attributes = {_MARK: {"about": self.about, "results": list(results)}}
        group = zarr.create_group(unfinished, attributes=attributes)
        for name, (shape, dtype) in results.items():
            chunks = (self.size, *shape)
            group.create_array(name, shape=(rows, *shape), dtype=dtype, chunks=chunks, fill_value=0)
        batches = -(-rows // self.size)
        group.create_array(_DONE, shape=(batches,), dtype="uint64", chunks=(1,), fill_value=0)
        unfinished.rename(self.path)
        self._take(zarr.open_group(self.path, mode="r+"))

    def _grow(self, number: int, rows: int) -> None:
        """Make room for a batch, by doubling if the number of examples is not known."""
        batches = self._done.shape[0]
        if number >= batches:
            batches = max(2 * batches, number + 1)
            self._done.resize((batches,))
        for array in self._arrays.values():
            if array.shape[0] < rows:
                array.resize((batches * self.size, *array.shape[1:]))

    def _checked(self) -> set[int]:
        """The batches that are marked as done and whose results still have their checksum."""
        if self.group is None:
            return set()
        found: set[int] = set()
        for number in range(self._done.shape[0]):
            with uninterrupted(), contextlib.suppress(Exception):
                # A batch that cannot be read, whatever the codec's error, is computed again.
                if (mark := int(self._done[number])) and self._matches(number, mark):
                    found.add(number)
        return found

    def _matches(self, number: int, mark: int) -> bool:
        count = (mark >> 32) - 1  # of the rows that were written; room may follow them
        rows = {name: a[:count] for name, a in self.read(number).items()}
        return count > 0 and _checksum(rows) == mark


def _check_results(results: Mapping[str, np.ndarray]) -> None:
    for name, array in results.items():
        if name.split("/")[0] == _DONE or name.startswith("/"):
            raise InputError(f"a result is named {name!r}; a store needs another name for it.")
        if array.dtype.kind not in "biufc":
            raise InputError(
                f"result {name!r} has dtype {array.dtype}, which a store cannot hold; return "
                "another type, or leave it out."
            )


def _checksum(results: Mapping[str, np.ndarray]) -> int:
    """Not 0: the number of rows, and a checksum of their bytes."""
    total = 0
    for name in sorted(results):
        total = zlib.crc32(np.ascontiguousarray(results[name]).tobytes(), total)
    rows = len(next(iter(results.values())))
    return ((rows + 1) << 32) | total


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return json.loads(json.dumps(dict(settings)))
    except (TypeError, ValueError) as error:
        raise InputError(
            f"settings must be a mapping from names to numbers and strings: {error}"
        ) from error


def _listed(arrays: Mapping[str, tuple[tuple[int, ...], str]]) -> str:
    return ", ".join(f"{n!r} {dtype}{list(shape)}" for n, (shape, dtype) in arrays.items())


def _zarr() -> Any:
    try:
        import zarr
    except ImportError as error:
        raise ImportError(
            "stream(store=...) writes with zarr, which is not installed: "
            "pip install 'jaxlrp[stream]', or give no store to get arrays"
        ) from error
    return zarr
