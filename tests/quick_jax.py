"""Means by which JAX and XLA take less time in tests; a JAX that lacks one makes them slower.

Everything in the tests that depends on how a version of JAX is made inside stands here. Each means
is tried, and left alone where it fails: no test may depend on one.
"""

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
import threading

import jax

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
    _set("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
    _set("jax_persistent_cache_min_compile_time_secs", seconds)


def lower_in_one_context() -> bool:
    """Let programs of a thread share a context of MLIR, a fresh one after some hundreds.

    JAX makes one for each program: a fifth of what a small program costs, and about a megabyte
    that lives as long as the program. What stands in the context is the same. Returns whether
    programs can be lowered so.
    """
    try:
        from jax._src.interpreters import mlir

        make = mlir.make_ir_context
    except (ImportError, AttributeError):  # a JAX that does it in another way
        return False
    mlir.make_ir_context = _shared(make)
    try:
        for number in (1.0, 2.0):
            jax.jit(lambda x, number=number: x + number).lower(1.0)
    except Exception:  # another JAX may ask anything of a context, and raise anything
        mlir.make_ir_context = make
        return False
    return True


def _shared(make):
    own = threading.local()

    def shared(*args, **options):
        own.left = getattr(own, "left", 0) - 1
        if own.left < 0 or own.made_for != (args, options):
            own.context, own.left, own.made_for = make(*args, **options), 300, (args, options)
        return own.context

    return shared


def without_source_lines() -> None:
    """Programs as XLA gets them name no source lines; the equations that jaxlrp reads still do."""
    _set("jax_traceback_in_locations_limit", 0)


def _set(name, value) -> None:
    try:
        jax.config.update(name, value)
    except (AttributeError, ValueError):  # a JAX without this setting
        print(f"{name}: JAX {jax.__version__} has no such setting", file=sys.stderr)
