"""The networks of the picture demo are the published ones, to 1e-4 of their logits."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp as lrp

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "examples"))

import imagenet_networks  # noqa: E402

pytestmark = pytest.mark.third_party
STORED = dict(np.load(ROOT / "tests" / "data" / "imagenet_logits.npz"))


def picture(size):
    """The waves of tools/imagenet_reference.py."""
    y, x = np.mgrid[:size, :size] / 227
    waves = [np.sin(9 * x + 4 * y), np.cos(13 * y * x), np.sin(30 * x * x - 7 * y)]
    return np.round(127.5 * (1 + np.stack(waves, -1))).astype(np.float32)[None]


@pytest.mark.parametrize(("name", "size"), [("efficientnet_lite0", 224), ("squeezenet", 227)])
def test_logits_are_those_of_the_published_network(name, size):
    network, variables = getattr(imagenet_networks, name)()
    logits = jax.jit(network.apply)(variables, jnp.asarray(picture(size)))[0]
    np.testing.assert_allclose(logits, STORED[name], atol=1e-4)


def test_the_difference_of_two_explanations_explains_the_difference():
    """The demo subtracts relevance; it is the relevance of the difference of the logits."""
    network, variables = imagenet_networks.efficientnet_lite0()
    explained = jax.jit(lrp.explain(network.apply, lrp.composites.epsilon_plus_flat(), argnums=1))
    x = jnp.asarray(picture(64))
    hot = np.eye(1000, dtype=np.float32)[[3, 7]]
    one, other = (explained(variables, x, target=h[None]) for h in hot)
    both = explained(variables, x, target=(hot[0] - hot[1])[None])
    np.testing.assert_allclose(one - other, both, atol=1e-4 * np.abs(both).max())
