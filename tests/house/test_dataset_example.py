"""examples/dataset.py: stopped and started again, nothing lost, nothing doubled, nothing mixed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
DIGITS, BATCH = 158, 4  # the last batch is not full
BATCHES = 40
# LeNet's parameters, bias and kernel of each layer.
SHAPES = [(6,), (5, 5, 1, 6), (16,), (5, 5, 6, 16)]
SHAPES += [(120,), (400, 120), (84,), (120, 84), (10,), (84, 10)]
PROGRAM = [sys.executable, str(ROOT / "examples" / "dataset.py")]
SETTINGS = ["--digits", str(DIGITS), "--batch", str(BATCH)]


@pytest.fixture(scope="module", autouse=True)
def libraries():
    why = "examples/dataset.py wants the extra `dataset`"
    return [pytest.importorskip(name, reason=why) for name in ("flax", "mlxtend", "tqdm", "zarr")]


@pytest.fixture(scope="module")
def start(libraries, tmp_path_factory):
    """Starts the program in a folder that has its network already."""
    rng = np.random.default_rng(0)
    network = tmp_path_factory.mktemp("common") / "network.npz"
    np.savez(network, *(rng.normal(size=s, scale=0.1).astype(np.float32) for s in SHAPES))
    compiled = tmp_path_factory.mktemp("compiled")  # by the first of them, for all

    def started(out: Path, *more: str, devices: int = 1) -> subprocess.Popen:
        out.mkdir(exist_ok=True)
        if not (out / "network.npz").exists():
            (out / "network.npz").symlink_to(network)
        environment = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
        environment["JAX_PLATFORMS"] = "cpu"
        environment["JAX_COMPILATION_CACHE_DIR"] = str(compiled)
        environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        flags = os.environ.get("XLA_FLAGS", "")  # tests/quick_jax.py
        environment["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count={devices}"
        return subprocess.Popen(
            [*PROGRAM, "--out", str(out), *SETTINGS, *more],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return started


def finish(process: subprocess.Popen) -> str:
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return out


def files(out: Path, array: str) -> dict[str, int]:
    """The chunks of an array in the store, and when each was written."""
    found = (out / "relevance.zarr" / array / "c").rglob("*")
    return {
        str(f.relative_to(out)): f.stat().st_mtime_ns
        for f in found
        if f.is_file() and all(part.isdecimal() for part in f.relative_to(out).parts[3:])
    }


def wait_for(process: subprocess.Popen, event) -> None:
    limit = time.monotonic() + 300
    while not event():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < limit
        time.sleep(0.001)


def arrays(out: Path) -> dict[str, np.ndarray]:
    import zarr

    group = zarr.open_group(out / "relevance.zarr", mode="r")
    return {name: array[:] for name, array in group.arrays()}


@pytest.fixture(scope="module")
def undisturbed(start, tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed")
    assert f"of {DIGITS} digits are right" in finish(start(out))
    return arrays(out)


def test_every_digit_is_explained_for_its_class(undisturbed):
    assert undisturbed["done"].shape == (BATCHES,) and undisturbed["done"].all()
    assert undisturbed["relevance"].shape == (DIGITS, 28, 28, 1)
    assert undisturbed["relevance"].any(axis=(1, 2, 3)).all()


def test_killed_interrupted_and_started_again(start, undisturbed, tmp_path, interruptible):
    rng = np.random.default_rng(int.from_bytes(os.urandom(4)))  # truly any moment
    process = start(tmp_path)
    wait_for(process, lambda: any(tmp_path.glob("relevance.zarr*")))  # the store is being made
    time.sleep(rng.uniform(0, 0.02))
    process.kill()
    process.communicate()

    finished: dict[str, int] = {}
    for end in (signal.SIGKILL, signal.SIGINT):
        process = start(tmp_path)
        want = len(files(tmp_path, "done")) + int(rng.integers(1, 8))
        wait_for(process, lambda want=want: len(files(tmp_path, "done")) >= want)
        time.sleep(rng.uniform(0, 0.05))
        process.send_signal(end)
        _, errors = process.communicate(timeout=300)
        now = files(tmp_path, "done")
        assert now.items() >= finished.items()  # what was done is not done again
        finished = now
    assert "Traceback" not in errors  # after Ctrl-C, a bar and one line
    assert f"of {BATCHES} batches; start the same again to go on" in errors.splitlines()[-1]
    numbers = [int(Path(name).name) for name in finished]
    before = arrays(tmp_path)
    assert sorted(numbers) == list(np.flatnonzero(before["done"])) == list(range(len(numbers)))
    assert len(numbers) < BATCHES

    written = files(tmp_path, "relevance")
    finish(start(tmp_path, devices=3))  # other devices, which 4 digits do not fill
    again = files(tmp_path, "relevance")
    for number in numbers:
        name = f"relevance.zarr/relevance/c/{number}/0/0/0"
        assert again[name] == written[name]

    after = arrays(tmp_path)
    assert sorted(after) == sorted(undisturbed)
    whole = slice(0, BATCH * len(numbers))
    for name, expected in undisturbed.items():
        assert after[name].shape == expected.shape
        if name != "done":
            np.testing.assert_array_equal(after[name][whole], expected[whole])
            # Other devices add float32 in another order. Where a denominator nearly cancels, which
            # happens in digit 28, that moves relevance by 1e-5 of the digit's largest.
            largest = np.abs(expected).max(tuple(range(1, expected.ndim)), keepdims=True)
            assert (np.abs(after[name] - expected) <= 1e-4 * largest).all(), name

    process = start(tmp_path, "--batch", "5")
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 1
    assert "begun with other settings: batch_size" in errors.splitlines()[-1]
