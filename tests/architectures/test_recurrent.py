"""Recurrent cells of every framework: gates found by meaning, relevance as one gets it by hand."""

import functools
import itertools

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp as lrp
from tests import recurrent_networks as networks
from tests.compare import assert_close
from tests.numpy_jaxpr import in_numpy
from tests.recurrent_networks import BUILDERS, LENGTHS, STEPS
from tests.recurrent_reference import Hand, last

SPREAD = "linen_lstm linen_mgu linen_bidirectional haiku_gru haiku_conv_lstm".split()
KINDS = "dense conv matmul product add activation softmax norm affine".split()
GATED = "the gate lies in [0, 1]"


@functools.cache
def load(name):
    return BUILDERS[name]()


def head(h):
    """Three classes of what the sequences end with."""
    h = h.reshape(2, -1)
    return h @ jnp.asarray(np.random.default_rng(2).normal(size=(h.shape[-1], 3)))


def logits(network):
    return lambda x: head(network.fn(x))


def explained(fn, rules, x, target=1):
    run = lrp.value_and_relevance(fn, rules)
    return in_numpy(lambda x: run(x, target=target))(x)


def hand_made(network, hand, target=1):
    """The logits and the relevance of the same cells written out."""

    def fn(x):
        h = [
            last(hand, cell, p, x, LENGTHS, back)
            for back, (cell, p) in enumerate(network.directions)
        ]
        z = hand.total(head(jnp.concatenate(h, -1)))
        return z[:, target].sum(), z

    run = in_numpy(jax.value_and_grad(fn, has_aux=True))
    (_, z), gradient = run(network.x)
    return z, network.x * gradient


@pytest.mark.parametrize("name", BUILDERS)
def test_the_plan_finds_every_layer_and_every_gate(name):
    network = load(name)
    plan = lrp.plan(logits(network), lrp.composites.lstm_lrp_all())(network.x)
    # Whether Keras joins its directions in float32 hangs on what ran in the process before.
    activations = [y for y in plan.layers if y.kind == "activation"]
    casts = sum(y.primitive == "convert_element_type" for y in activations)
    found = {kind: plan.count(kind) for kind in KINDS if plan.count(kind)}
    found["activation"] -= casts
    assert found == network.counts | {"dense": network.counts.get("dense", 0) + 1}, str(plan)
    products = plan.select("product")
    assert len(products) == 3 * len(network.directions)
    assert all(layer.why.endswith(GATED) for layer in products), str(plan)


def tolerance(name):
    # Rounding; in single precision, where Keras computes tanh, with a few steps' cancellation.
    return 1e-5 if name.startswith("keras") else 1e-9


@pytest.mark.parametrize("name", BUILDERS)
def test_relevance_is_what_one_gets_by_hand(name):
    # Epsilon is so wide that one too many, or one in another place, would show.
    network = load(name)
    value, relevance = explained(logits(network), lrp.composites.lstm_lrp_all(0.1), network.x)
    wanted_value, wanted = hand_made(network, Hand("all", 0.1))
    np.testing.assert_allclose(value, wanted_value, rtol=tolerance(name))
    assert relevance.dtype == jnp.float64
    assert_close(relevance, wanted, tolerance(name))
    # What a sequence does not contain gets exactly nothing.
    shown = np.arange(STEPS) < LENGTHS[:, None]
    np.testing.assert_array_equal(jnp.abs(relevance).reshape(2, STEPS, -1).max(-1) > 0, shown)


@pytest.fixture
def without_biases(monkeypatch):
    """Builds a network whose biases are 0."""
    monkeypatch.setattr(networks, "BIAS", 0.0)
    return lambda name: BUILDERS[name]()


@pytest.mark.parametrize("name", SPREAD)
def test_conserves_without_biases_and_epsilon(name, without_biases):
    network = without_biases(name)
    value, relevance = explained(logits(network), lrp.composites.lstm_lrp_all(0.0), network.x)
    total = relevance.reshape(2, -1).sum(1)
    np.testing.assert_allclose(total, value[:, 1], rtol=0, atol=1e-10 * jnp.abs(relevance).sum())


VARIANTS = {
    "half": lrp.Uniform(),
    "prop": lrp.Proportional(epsilon=0.0),
    "abs": lrp.Proportional(absolute=True, epsilon=0.0),
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", ["linen_lstm", "haiku_gru"])
def test_variants_are_what_one_gets_by_hand(name, variant):
    network = load(name)
    rules = lrp.composites.lstm_lrp_all(0.0, product=VARIANTS[variant])
    _, relevance = explained(logits(network), rules, network.x)
    _, wanted = hand_made(network, Hand(variant))
    assert_close(relevance, wanted, tolerance(name))


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_unrolled_by_the_framework(cell):
    # Without epsilon: the first sums of an unrolled loop have one active summand and are no sums.
    build = {"lstm": networks.haiku_lstm_network, "gru": networks.haiku_gru_network}[cell]
    network = build(hk.static_unroll)
    plan = lrp.plan(logits(network), lrp.composites.lstm_lrp_all(0.0))(network.x)
    products = plan.select("product")
    # The state is 0 at the first step, where what the gates of the state do is no product.
    assert len(products) == 3 * STEPS - {"lstm": 1, "gru": 2}[cell]
    assert all(layer.why.endswith(GATED) for layer in products)
    _, relevance = explained(logits(network), lrp.composites.lstm_lrp_all(0.0), network.x)
    assert_close(relevance, hand_made(network, Hand())[1], 1e-9)


@pytest.mark.parametrize("name", ["linen_optimized_lstm", "nnx_gru"])
def test_layers_have_the_scan_axis_first(name, without_biases):
    network = without_biases(name)
    rules = lrp.composites.lstm_lrp_all(0.0)
    plan = lrp.plan(logits(network), rules)(network.x)
    gated = [layer.name for layer in plan.select("product")]
    explain = lrp.explain(logits(network), rules, layers=gated)
    relevance, layers = in_numpy(lambda x: explain(x, target=1))(network.x)
    assert sorted(layers) == sorted(gated)
    assert {r.shape for r in layers.values()} == {(STEPS, 2, networks.HIDDEN)}
    # Two of the three products make the new state, which has what the inputs so far have.
    so_far = np.cumsum(relevance.sum(-1), 1)[0]
    totals = [r.sum(-1)[:, 0] for r in layers.values()]
    pairs = [a + b for a, b in itertools.combinations(totals, 2)]
    assert min(np.abs(pair - so_far).max() for pair in pairs) <= 1e-10 * np.abs(relevance).sum()


@pytest.mark.parametrize("name", ["nnx_gru", "haiku_lstm"])
def test_vmap_and_jit(name):
    network = load(name)
    rules = lrp.composites.lstm_lrp_all(0.1)
    _, wanted = explained(logits(network), rules, network.x)
    explain = lrp.explain(logits(network), rules)
    targets = jnp.arange(3)
    every = jax.vmap(lambda t: explain(network.x, target=t))
    assert_close(jax.jit(every)(targets)[1], wanted, 1e-12)
    several = jax.vmap(lambda x: explain(x, target=1))
    found = jax.jit(several)(jnp.stack([0.5 * network.x, network.x]))
    assert_close(found[1], wanted, 1e-12)
