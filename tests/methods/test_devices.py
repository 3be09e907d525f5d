"""Companion methods of a batch over several devices, in a process with four of them."""

import pytest

from tests.run.test_devices import results

METHODS = (
    "gradient",
    "grad_cam",
    "deep_lift",
    "integrated_gradients",
    "expected_gradients",
    "occlusion",
    "kernel_shap",
    "smooth_grad",
)


def test_all_are_compared():
    assert set(results("methods")) == set(METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_a_sharded_batch_changes_nothing(name):
    found = results("methods")[name]
    assert found["distance"] <= 1e-12
    assert found["devices"] == 4


@pytest.mark.parametrize("name", [n for n in METHODS if n != "expected_gradients"])
def test_the_batch_stays_where_it_is(name):
    """One evaluation at a time moves nothing; of KernelSHAP only the coefficients are gathered.

    Several evaluations at a time, as in `expected_gradients` here, gather the batch: JAX's batching
    rule of convolutions merges steps and examples into one axis, and XLA has no sharding for that.
    """
    moved = results("methods")[name]["moved"]
    assert moved.get("all-gather", 0) <= (3 * 8 if name == "kernel_shap" else 0)
    assert set(moved) <= {"all-gather"}
