"""The equations that make up a linear layer: which scales, shifts and moves belong to it."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

import jaxlrp as lrp
from tests.common import draw

W, V, B, S = draw(4, 3), draw(3, 4), draw(3), draw(4, seed=1)
X = draw(2, 4, seed=2)


def two_readers(x):
    scaled = x * S
    return (scaled @ W) * B + jnp.exp(scaled @ W)


# A layer a line: its kind, and the names of its equations.
REGIONS = {
    "a bias": (lambda x: x @ W + B, ["dense: dot_general add"]),
    "an affine map behind it": (lambda x: (x @ W - B) / B, ["dense: dot_general sub div"]),
    "a scale before it": (lambda x: (x * S) @ W, ["dense: mul dot_general"]),
    "a shift before it": (lambda x: (x - S) @ W, ["dense: sub dot_general"]),
    "a move between": (lambda x: (x * S)[:, ::-1] @ W, ["dense: mul rev dot_general"]),
    "a move before": (lambda x: x[:, ::-1] @ W, ["dense: rev dot_general"]),
    "parts with scales of their own": (
        lambda x: jnp.concatenate([x[:, :2] * S[:2], x[:, 2:]], 1) @ W,
        ["dense: slice mul slice concatenate dot_general"],
    ),
    # A move at the end is a layer of its own, unless a scale follows.
    "a move behind it": (lambda x: (x @ W).T, ["dense: dot_general", "structural: transpose"]),
    "a move and a scale behind it": (
        lambda x: (x @ W).T * B[:, None],
        ["dense: dot_general transpose mul"],
    ),
    # A written number is no weight.
    "a written scale": (lambda x: (x @ W) * 0.5, ["dense: dot_general", "structural: mul"]),
    "two signs": (lambda x: -(x @ W) * -B, ["dense: dot_general neg mul"]),
    "the next layer": (lambda x: (x @ W + B) @ V, ["dense: dot_general add", "dense: dot_general"]),
    "a scale that two layers read": (
        two_readers,
        ["dense: mul dot_general mul", "dense: mul dot_general", "activation: exp", "add: add"],
    ),
    "a scale before an activation": (
        lambda x: jax.nn.relu(x * S) @ W,
        ["affine: mul", "activation: max", "dense: dot_general"],
    ),
    "a scale behind an activation": (
        lambda x: (jax.nn.relu(x) * S) @ W,
        ["activation: max", "dense: mul dot_general"],
    ),
    # The last scale is the activation's own.
    "a gelu that ends in a scale": (
        lambda x: (x * (1.0 + lax.erf(x)) * 0.5) @ W,
        ["activation: erf add mul mul", "dense: dot_general"],
    ),
}


@pytest.mark.parametrize("name", REGIONS)
def test_what_belongs_to_a_linear_layer(name):
    fn, expected = REGIONS[name]
    layers = lrp.plan(fn, lrp.Epsilon())(X).layers
    found = [f"{y.kind}: {' '.join(e.name for e in y.group.eqns)}" for y in layers]
    assert found == expected
