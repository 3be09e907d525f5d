"""Settings for the whole test run: CPU, double precision unless a test asks otherwise."""

import atexit
import gc
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import pytest
from jax._src.interpreters import mlir

# Programs for processes of their own: they ask for eight devices when they are imported, which a
# search for doctests would do.
collect_ignore = ["devices"]

# Compilation is most of the time that the tests take, and few programs run more than twice. What
# XLA makes of a program stays as it is; only the code for it is made in a quicker way.
# Pieces of a program that are compiled apart would help on idle cores alone.
QUICK = (
    "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false "
    "--xla_cpu_parallel_codegen_split_count=1"
)


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


def compile_once() -> None:
    """Share what XLA compiles among all processes of this run, in a folder that goes with it.

    Most programs are single operations and layers that many tests have alike. A folder that is
    named in JAX_COMPILATION_CACHE_DIR is kept, and serves the next run too.
    """
    # Workers of pytest-xdist and programs in processes of their own find their parent's folder.
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        folder = tempfile.mkdtemp(prefix="jaxlrp-compiled-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        os.environ["JAX_COMPILATION_CACHE_DIR"] = folder
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    # JAX read them when it was imported.
    seconds = float(os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"])
    jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
    jax.config.update("jax_persistent_cache_min_compile_time_secs", seconds)


compile_once()


def lower_in_one_context() -> None:
    """Let programs of a thread share a context of MLIR, a fresh one after some hundreds.

    JAX makes one for each program: a fifth of what a small program costs, and about a megabyte
    that lives as long as the program. What stands in the context is the same.
    """
    make, own = getattr(mlir, "make_ir_context", None), threading.local()
    if make is None:  # a JAX that does it in another way
        return

    def shared():
        own.left = getattr(own, "left", 0) - 1
        if own.left < 0:
            own.context, own.left = make(), 300
        return own.context

    mlir.make_ir_context = shared


lower_in_one_context()

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
