"""How two relevance maps are compared, and two plans."""

import jax
import numpy as np


def relative_l2(actual, expected):
    """Norm of the difference over the norm of the reference, in float64."""
    actual = np.asarray(actual, np.float64)
    expected = np.asarray(expected, np.float64)
    assert actual.shape == expected.shape, f"shape {actual.shape}, expected {expected.shape}"
    difference = np.linalg.norm(actual - expected)
    scale = np.linalg.norm(expected)
    return difference if scale == 0 else difference / scale


def assert_close(actual, expected, tolerance=1e-9, what="relevance"):
    """Fail unless the relative L2 distance is within `tolerance`; a NaN fails too."""
    distance = relative_l2(actual, expected)
    assert distance <= tolerance, f"{what}: relative L2 distance {distance:.3e} > {tolerance:.0e}"


def assert_leaves_close(actual, expected, tolerance=1e-12):
    """Fail unless each leaf is within `tolerance` of the expected leaf's largest number."""
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        a, b = np.asarray(a), np.asarray(b)  # jnp would compile each step for each shape
        gap, largest = np.max(np.abs(a - b)), np.max(np.abs(b))
        assert gap <= tolerance * largest, f"{gap:.3e} of {largest:.3e}"


def rows(plan):
    """What a plan says about its layers, without the places in the source."""
    return [
        (y.kind, y.name, y.rule, y.why, y.shape, y.folded, y.gate, y.carries, y.nonnegative)
        for y in plan.layers
    ]


def layer_relevance(layers, *names):
    """The one entry of a `layers` dictionary whose key is, or ends in, one of `names`."""
    found = [k for k in layers if any(k == n or k.endswith("/" + n) for n in names)]
    assert len(found) == 1, f"{names} matches {found} among {sorted(layers)}"
    return layers[found[0]]
