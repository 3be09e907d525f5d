"""Settings for the whole test run: CPU, double precision unless a test asks otherwise."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import pytest

# The references are float64. A global switch rather than a fixture, so that arrays made in
# module-scoped fixtures and hypothesis strategies are float64 too. Arrays of a narrower dtype
# still keep it.
jax.config.update("jax_enable_x64", True)


@pytest.fixture
def x32():
    """Run one test under JAX's default, single precision."""
    with jax.enable_x64(False):
        yield
