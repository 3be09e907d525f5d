"""Settings for the whole test run: CPU, double precision unless a test asks otherwise."""

import gc
import os
import signal

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import pytest

from tests import quick_jax

# Programs for processes of their own: they ask for eight devices when they are imported, which a
# search for doctests would do.
collect_ignore = ["devices"]

# The flags are read when something is computed for the first time, not with `import jax`.
quick_jax.compile_quickly()
quick_jax.compile_once()
CONTEXTS = quick_jax.lower_in_one_context()
quick_jax.without_source_lines()

# Tracing makes many objects that live on, and JAX empties XLA's bins at every collection.
gc.set_threshold(100_000, 20, 20)

# The references are float64. A global switch rather than a fixture, so that arrays made in
# module-scoped fixtures and hypothesis strategies are float64 too. Arrays of a narrower dtype
# still keep it.
jax.config.update("jax_enable_x64", True)


def pytest_report_header() -> str:
    return f"XLA_FLAGS: {os.environ.get('XLA_FLAGS', '')}; contexts of MLIR are shared: {CONTEXTS}"


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
