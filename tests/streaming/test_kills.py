"""A program that writes a store is killed a hundred times, and nothing is lost or doubled."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

PROGRAM = Path(__file__).with_name("killed.py")


def start(store):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
    environment |= {"JAX_PLATFORMS": "cpu"}
    command = [sys.executable, str(PROGRAM), str(store)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def finish(process):
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors


def marks(store):
    folder = store / "done" / "c"
    return {f.name: f.stat().st_mtime_ns for f in folder.glob("*") if f.name.isdecimal()}


@pytest.mark.slow
@pytest.mark.parametrize("kills", [100])
def test_killed_a_hundred_times(kills, tmp_path):
    pytest.importorskip("zarr")
    rng = np.random.default_rng(int.from_bytes(os.urandom(4)))  # truly any moment
    whole = tmp_path / "whole"
    process = start(whole)
    finish(process)

    store = tmp_path / "store"
    before: dict[str, int] = {}
    working = 0
    for _ in range(kills):
        process = start(store)
        limit = time.monotonic() + 300
        while process.poll() is None and len(marks(store)) <= len(before):
            assert time.monotonic() < limit
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.02))
        working += process.poll() is None
        process.kill()
        process.communicate()
        now = marks(store)
        assert now.items() >= before.items()  # what was done is not done again
        before = now
    assert working >= 0.9 * kills  # it was still at work when it was killed

    process = start(store)
    finish(process)
    import zarr

    found, expected = (zarr.open_group(path, mode="r") for path in (store, whole))
    assert found["done"][:].all()
    np.testing.assert_allclose(found["relevance"][:], expected["relevance"][:], rtol=1e-5)
