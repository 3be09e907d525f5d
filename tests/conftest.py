"""Settings for the whole test run: CPU, double precision unless a test asks otherwise."""

import gc
import os
import signal
import subprocess
import sys

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import pytest

# Programs for processes of their own: they ask for eight devices when they are imported, which a
# search for doctests would do.
collect_ignore = ["devices"]

# Compilation is most of the time that the tests take, and few programs run more than twice. What
# XLA makes of a program stays as it is; only the code for it is made in a quicker way.
QUICK = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"


def compile_quickly() -> None:
    """Put QUICK into XLA_FLAGS, for this process and those that it starts.

    XLA ends a process that gives it a flag which it does not know, and not every version knows
    these: another process tries them first.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    # In a worker of pytest-xdist they are there already; and who names a level keeps it.
    if os.environ["JAX_PLATFORMS"] != "cpu" or "xla_backend_optimization_level" in flags:
        return
    environment = os.environ | {"XLA_FLAGS": f"{flags} {QUICK}".strip()}
    trial = [sys.executable, "-c", "import jax; jax.devices()"]
    if not subprocess.run(trial, env=environment, capture_output=True, check=False).returncode:
        os.environ["XLA_FLAGS"] = environment["XLA_FLAGS"]


# The flags are read when something is computed for the first time, not with `import jax`.
compile_quickly()

# Tracing makes many objects that live on, and JAX empties XLA's bins at every collection.
gc.set_threshold(100_000, 20, 20)

# The references are float64. A global switch rather than a fixture, so that arrays made in
# module-scoped fixtures and hypothesis strategies are float64 too. Arrays of a narrower dtype
# still keep it.
jax.config.update("jax_enable_x64", True)

# Programs as XLA gets them name no source lines; the equations that jaxlrp reads still do.
jax.config.update("jax_traceback_in_locations_limit", 0)


def pytest_report_header() -> str:
    return f"XLA_FLAGS: {os.environ.get('XLA_FLAGS', '')}"


@pytest.fixture
def interruptible():
    """Interrupts as in a terminal: a shell starts programs in the background with them ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def x32():
    """Run one test under JAX's default, single precision."""
    with jax.enable_x64(False):
        yield
