"""Networks that jaxlrp has no code for: what the plan finds in them, and whether they conserve.

The expected numbers of layers stand in `networks.py`, worked out from each architecture.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp as lrp

from .networks import BUILDERS, CLASSES, Network

pytestmark = [
    pytest.mark.third_party,
    pytest.mark.filterwarnings("default"),  # what these packages import warns of its own age
]

# Everything that does arithmetic; "structural" equations are as many as a package cares to write.
KINDS = (
    "dense",
    "conv",
    "embed",
    "matmul",
    "product",
    "add",
    "activation",
    "softmax",
    "norm",
    "affine",
    "avg_pool",
    "max_pool",
    "reduce",
)


@pytest.fixture(scope="module", params=list(BUILDERS))
def name(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def network(name) -> Network:
    """The network as its package's users run it."""
    with jax.enable_x64(False):
        return BUILDERS[name]("float32")


def target(network: Network) -> jax.Array:
    return jnp.arange(network.x.shape[0]) % CLASSES


@pytest.mark.usefixtures("x32")
def test_plan_finds_every_layer(network):
    shapes = jax.eval_shape(lambda *args: args, network.params, network.x)
    plan = lrp.plan(network.fn, lrp.composites.lrp_zero(), argnums=1)(*shapes)
    found = {kind: plan.count(kind) for kind in KINDS if plan.count(kind)}
    assert found == network.counts, str(plan)


@pytest.mark.usefixtures("x32")
def test_epsilon_plus_flat_is_finite(network):
    explain = jax.jit(lrp.explain(network.fn, lrp.composites.epsilon_plus_flat(), argnums=1))
    relevance = explain(network.params, network.x, target=target(network))
    assert relevance.shape == network.x.shape
    assert jnp.isfinite(relevance).all()
    assert jnp.abs(relevance).max() > 0.0


def test_lrp_zero_conserves_without_biases(name):
    # Float64: where a bias nearly cancels what a unit gets, large relevance of either sign leaves
    # it, and fifty layers of that cost float32 three digits of the sum.
    network = BUILDERS[name]("float64")
    rules = lrp.composites.lrp_zero(bias="ignore")
    if "product" in network.counts:
        # Nothing flows into gates: a softmax does not conserve, and a channel's mean behind its
        # own GroupNorm consists of that norm's shift alone.
        rules = rules | {"product": lrp.SignalTakesAll()}
    explain = jax.jit(lrp.value_and_relevance(network.fn, rules, argnums=1))
    chosen = target(network)
    logits, relevance = explain(network.params, network.x, target=chosen)
    assert relevance.dtype == jnp.float64
    seed = np.take_along_axis(logits, chosen[:, None], axis=1)[:, 0]
    received = np.asarray(relevance).reshape(len(seed), -1).sum(axis=1)
    np.testing.assert_allclose(received / seed, 1.0, atol=1e-4)
