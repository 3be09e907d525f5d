"""What must hold for any network: conservation, LRP-0, and indifference to spelling.

Networks are drawn by hypothesis (tests/random_networks.py): odd shapes, branches, reused weights,
pooling, several activations. The draws are the same in every run.
"""

import functools

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import jaxlrp as lrp
from tests import random_networks
from tests.compare import assert_close
from tests.numpy_jaxpr import in_numpy
from tests.random_networks import RECTIFIERS, apply, networks, parameters, sample

few = settings(
    max_examples=4,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

RULES = {
    "lrp_zero": lambda: lrp.composites.lrp_zero(),
    "epsilon_plus_flat": lambda: lrp.composites.epsilon_plus_flat(epsilon=1e-3),
    "epsilon_gamma_box": lambda: lrp.composites.epsilon_gamma_box(-5.0, 5.0, epsilon=1e-3),
    "alpha2_beta1, bias ignored": lambda: lrp.composites.epsilon_alpha2_beta1(
        epsilon=1e-3, bias="ignore"
    ),
    "gamma, bias distributed": lambda: lrp.Gamma(0.5, epsilon=1e-3, bias="distribute"),
    "wsquare": lambda: lrp.WSquare(),
}
# A stabiliser of 1e-3 keeps the condition of the rules low, so that 1e-9 is about rounding and
# not about luck.
rule_names = st.sampled_from(sorted(RULES))


def targets(network, batch=2):
    return np.arange(batch) % network.classes


def explained(network, rules, x, target, **spelling):
    """Relevance of the logits at `target`."""
    fn = functools.partial(apply, network, parameters(network), **spelling)
    return in_numpy(lrp.explain(fn, rules))(x, target=target)


@few
@given(networks(bias=False))
def test_lrp_zero_conserves_without_biases(network):
    x, target = sample(network), targets(network)
    fn = functools.partial(apply, network, parameters(network))
    explain = in_numpy(lrp.value_and_relevance(fn, lrp.composites.lrp_zero()))
    value, relevance = explain(x, target=target)
    seed = np.asarray(value)[np.arange(len(x)), target]
    # Rounding is relative to what is summed, which may cancel.
    scale = np.abs(relevance).sum((1, 2, 3)) + np.abs(seed)
    assert np.all(np.abs(np.sum(relevance, (1, 2, 3)) - seed) <= 1e-10 * scale)


@few
@given(
    networks(bias=True),
    st.sampled_from([lrp.Epsilon, lrp.ZPlus, lrp.Gamma, lrp.AlphaBeta]),
)
def test_a_distributed_bias_conserves(network, rule):
    x, target = sample(network), targets(network)
    rule = rule(epsilon=1e-3, bias="distribute")
    everywhere = dict.fromkeys(("conv", "dense", "affine"), rule)
    # Relevance can now reach outputs that are 0, and pooling and sums must hand that on too.
    everywhere |= {
        "add": lrp.Epsilon(1e-3, bias="distribute"),
        "avg_pool": lrp.Epsilon(1e-3, bias="distribute"),
    }
    fn = functools.partial(apply, network, parameters(network))
    value, relevance = in_numpy(lrp.value_and_relevance(fn, everywhere))(x, target=target)
    seed = np.asarray(value)[np.arange(len(x)), target]
    scale = np.abs(relevance).sum((1, 2, 3)) + np.abs(seed)
    assert np.all(np.abs(np.sum(relevance, (1, 2, 3)) - seed) <= 1e-10 * scale)


@few
@given(networks(bias=False, activations=RECTIFIERS))
def test_lrp_zero_is_input_times_gradient_on_rectifier_networks(network):
    x, target = sample(network), targets(network)
    fn = functools.partial(apply, network, parameters(network))

    def chosen(x):
        return fn(x)[np.arange(len(x)), target].sum()

    expected = x * in_numpy(jax.grad(chosen))(x)
    assert_close(explained(network, lrp.composites.lrp_zero(), x, target), expected)
    # Epsilon(0) written by hand is the same rule map.
    assert_close(explained(network, lrp.Epsilon(0.0), x, target), expected)


@few
@given(networks(), rule_names)
def test_a_batch_is_its_rows(network, rule):
    x, target = sample(network, 3), targets(network, 3)
    fn = functools.partial(apply, network, parameters(network))
    explain = in_numpy(lrp.explain(fn, RULES[rule]()))
    together = np.asarray(explain(x, target=target))
    for row in range(3):
        alone = explain(x[row : row + 1], target=target[row : row + 1])
        assert_close(together[row : row + 1], alone)


@few
@given(networks(), rule_names)
def test_vmap_is_the_batch(network, rule):
    x, target = sample(network, 3), targets(network, 3)
    fn = functools.partial(apply, network, parameters(network))
    explain = lrp.explain(lambda row: fn(row[None])[0], RULES[rule]())
    rows = in_numpy(jax.vmap(lambda row, t: explain(row, target=t)))(x, target)
    assert_close(rows, explained(network, RULES[rule](), x, target))
    # The other way round: the function itself is a vmap.
    inside = jax.vmap(lambda row: fn(row[None])[0])
    assert_close(in_numpy(lrp.explain(inside, RULES[rule]()))(x, target=target), rows)


@settings(few, max_examples=2)  # eager execution compiles every operation by itself
@given(networks(max_ops=3), rule_names)
def test_eager_is_jit(network, rule):
    x, target = sample(network), targets(network)
    fn = functools.partial(apply, network, parameters(network))
    eager = lrp.explain(fn, RULES[rule]())(x, target=target)
    assert_close(jax.jit(lrp.explain(fn, RULES[rule]()))(x, target=target), eager)
    # A jit inside is looked into.
    inside = lrp.explain(jax.jit(fn), RULES[rule]())
    assert_close(in_numpy(inside)(x, target=target), eager)


@few
@given(networks(), rule_names)
def test_remat_changes_nothing(network, rule):
    x, target = sample(network), targets(network)
    plain = explained(network, RULES[rule](), x, target)
    assert_close(explained(network, RULES[rule](), x, target, remat=True), plain)


@few
@given(networks(), rule_names)
def test_nchw_is_nhwc(network, rule):
    x, target = sample(network), targets(network)
    last = explained(network, RULES[rule](), x, target)
    first = explained(network, RULES[rule](), x.transpose(0, 3, 1, 2), target, nchw=True)
    assert_close(np.transpose(first, (0, 2, 3, 1)), last)


@few
@given(networks().filter(lambda n: any(op.kind == "reuse" for op in walk(n.ops))), rule_names)
def test_tied_weights_are_copied_weights(network, rule):
    x, target = sample(network), targets(network)
    tied = explained(network, RULES[rule](), x, target)
    assert_close(explained(network, RULES[rule](), x, target, copied=True), tied)


def walk(ops):
    for op in ops:
        yield op
        yield from walk(op.branch)


@settings(few, max_examples=2)  # the ledger runs operation by operation
@given(networks(max_ops=3), rule_names)
def test_the_ledger_closes_its_books(network, rule):
    x, target = sample(network), targets(network)
    fn = functools.partial(apply, network, parameters(network))
    ledger = lrp.ledger(fn, RULES[rule]())(x, target=target)
    relevance = np.asarray(explained(network, RULES[rule](), x, target))
    size = max(np.abs(relevance).sum(), abs(float(ledger.relevance_out)))
    np.testing.assert_allclose(float(ledger.relevance_in), relevance.sum(), atol=1e-9 * size)
    lost = 0.0
    for layer in ledger.layers:
        parts = layer.relevance_in + layer.bias + layer.stabiliser + layer.rule_loss
        size = max(size, abs(layer.relevance_out))
        np.testing.assert_allclose(layer.relevance_out, parts, atol=1e-9 * size)
        lost += layer.bias + layer.stabiliser + layer.rule_loss
    total = float(ledger.relevance_in) + float(lost)
    np.testing.assert_allclose(float(ledger.relevance_out), total, atol=1e-9 * size)


@pytest.mark.parametrize("dtype", [np.float32, jax.numpy.bfloat16])
def test_narrow_types_follow_float64(dtype, x32):
    # Rounding of the values themselves, about 4 x the type's unit here; the rules must not make
    # more of it.
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(8, 16)), rng.normal(size=(16, 3))
    x = rng.normal(size=(4, 8))

    def fn(weights, x):
        return jax.nn.relu(x @ weights[0]) @ weights[1]

    weights = (first.astype(dtype), second.astype(dtype))
    explain = jax.jit(lrp.explain(functools.partial(fn, weights), lrp.ZPlus()))
    narrow = explain(x.astype(dtype), target=1)
    assert narrow.dtype in (dtype, np.float32)  # relevance may be wider than the values
    with jax.enable_x64(True):
        wide_weights = [np.asarray(w, np.float64) for w in weights]
        wide_x = np.asarray(x.astype(dtype), np.float64)
        explain = jax.jit(lrp.explain(functools.partial(fn, wide_weights), lrp.ZPlus()))
        wide = explain(wide_x, target=1)
    unit = float(jax.numpy.finfo(dtype).eps)
    assert_close(np.asarray(narrow, np.float64), wide, 10 * unit)


@few
@given(networks())
def test_the_spellings_compute_one_function(network):
    # Without the library: otherwise the tests above would compare two networks.
    params, x = parameters(network), sample(network)
    expected = apply(network, params, x)
    np.testing.assert_allclose(
        apply(network, params, x.transpose(0, 3, 1, 2), nchw=True), expected, rtol=1e-12, atol=1e-12
    )
    np.testing.assert_array_equal(apply(network, params, x, copied=True), expected)
    np.testing.assert_allclose(
        apply(network, params, x, remat=True), expected, rtol=1e-12, atol=1e-12
    )


def test_the_generator_makes_what_it_promises():
    """Over many draws every kind of step occurs, and every network runs."""
    seen = set()

    @settings(few, max_examples=100)
    @given(networks())
    def collect(network):
        seen.update(op.kind for op in walk(network.ops))
        seen.add(network.head)
        shape = jax.eval_shape(
            functools.partial(apply, network, parameters(network)), sample(network)
        ).shape
        assert shape == (2, network.classes)

    collect()
    assert seen >= {
        "activation",
        "concat",
        "conv",
        "dense",
        "flatten",
        "mean",
        "pool",
        "residual",
        "reuse",
    }
    assert set(RECTIFIERS) < set(random_networks.ACTIVATIONS)
