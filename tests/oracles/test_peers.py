"""What other LRP packages get wrong in feed-forward networks; the truth is asserted.

The packages and versions these were seen in: Zennit 1.0.0, Captum, iNNvestigate, LXT 2.1, autolrp
0.2.0, RelevancePropagation.jl. Nothing of them is imported.
"""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import mlir

import jaxlrp as lrp
from tests import networks, reference
from tests.common import pull_back
from tests.compare import assert_close, layer_relevance

EPSILON = lrp.Epsilon(1e-6)


def layer_of(weights):
    return reference.dense_layer(weights["kernel"], weights["bias"])


def random_dense(rng, inputs, outputs):
    return {"kernel": rng.normal(size=(inputs, outputs)), "bias": rng.normal(size=outputs)}


# --- one layer used twice


class Twice(nn.Module):
    @nn.compact
    def __call__(self, x):
        dense = nn.Dense(4, param_dtype=jnp.float64, name="shared")
        return dense(nn.relu(dense(x)))


@pytest.mark.parametrize(
    ("rule", "expected_rule"),
    [
        (lrp.Epsilon(0.1), functools.partial(reference.epsilon_rule, epsilon=0.1)),
        (lrp.ZPlus(), reference.zplus_rule),
        (lrp.Gamma(0.25), reference.gamma_rule),
    ],
)
def test_one_dense_used_twice(rule, expected_rule):
    # Zennit keeps the last call's tensors: wrong by up to 0.95, while the sum still conserves.
    rng = np.random.default_rng(0)
    weights, x, relevance = (
        random_dense(rng, 4, 4),
        rng.normal(size=(2, 4)),
        rng.normal(size=(2, 4)),
    )
    layer = layer_of(weights)
    hidden = np.maximum(x @ layer.matrix + layer.bias, 0)
    middle = reference.apply_rule(expected_rule, layer, hidden, relevance)
    expected = reference.apply_rule(expected_rule, layer, x, middle)

    def module(x):
        return Twice().apply({"params": {"shared": weights}}, x)

    assert_close(pull_back(module, rule, x, relevance), expected)
    plan = lrp.plan(module, rule)(x)
    names = [layer.name for layer in plan.layers if layer.kind == "dense"]
    assert len(names) == len(set(names)) == 2, "two calls are two layers, with names of their own"

    def scanned(x):
        first = jax.nn.relu(x @ weights["kernel"] + weights["bias"])
        return first @ weights["kernel"] + weights["bias"]

    assert_close(pull_back(scanned, rule, x, relevance), expected)


# --- functional activations and sums


RELUS = {
    "jax.nn.relu": jax.nn.relu,
    "flax": nn.relu,
    "maximum": lambda x: jnp.maximum(x, 0),
    "maximum, the other way": lambda x: jnp.maximum(0.0, x),
    "lax.max": lambda x: lax.max(x, jnp.zeros_like(x)),
    "where": lambda x: jnp.where(x > 0, x, 0),
    "clip": lambda x: jnp.clip(x, 0, None),
    "mask": lambda x: x * (x > 0),
    "lambda under jit": jax.jit(lambda x: jnp.maximum(x, 0)),
}


@pytest.mark.parametrize("spelling", RELUS)
def test_functional_relu_and_plus(spelling):
    # Zennit never sees either, and the relevance doubles; Captum gives each summand all of it.
    rng = np.random.default_rng(1)
    inner, outer = random_dense(rng, 5, 5), random_dense(rng, 5, 3)
    x, relevance = rng.normal(size=(2, 5)), rng.normal(size=(2, 3))
    relu = RELUS[spelling]

    def fn(x):
        y = relu(x @ inner["kernel"] + inner["bias"])
        return (x + y) @ outer["kernel"] + outer["bias"]

    y = np.maximum(x @ inner["kernel"] + inner["bias"], 0)
    at_sum = reference.apply_rule(
        functools.partial(reference.epsilon_rule, epsilon=0.0), layer_of(outer), x + y, relevance
    )
    share = at_sum / (x + y)
    expected = x * share + reference.apply_rule(
        functools.partial(reference.epsilon_rule, epsilon=0.0), layer_of(inner), x, y * share
    )
    actual = pull_back(fn, lrp.composites.lrp_zero(), x, relevance)
    assert_close(actual, expected)


def test_plus_conserves():
    rng = np.random.default_rng(2)
    matrix, x = rng.normal(size=(4, 4)), rng.normal(size=(3, 4))

    def fn(x):
        return x + jnp.maximum(x @ matrix, 0) + x

    value, relevance = lrp.value_and_relevance(fn, lrp.composites.lrp_zero())(x)
    np.testing.assert_allclose(relevance.sum(1), value.sum(1), rtol=1e-12)


# --- which layer is first


class HeadFirst(nn.Module):
    """Declares the head before the stem."""

    def setup(self):
        self.head = nn.Dense(3, param_dtype=jnp.float64)
        self.stem = nn.Dense(6, param_dtype=jnp.float64)

    def __call__(self, x):
        return self.head(nn.relu(self.stem(x)))


def test_first_is_first_in_the_dataflow():
    # Zennit goes by declaration: here the head would get Flat.
    rng = np.random.default_rng(3)
    params = {"head": random_dense(rng, 6, 3), "stem": random_dense(rng, 4, 6)}
    x = rng.normal(size=(2, 4))

    def fn(x):
        return HeadFirst().apply({"params": params}, x)

    rules = lrp.composites.epsilon_plus_flat()
    plan = lrp.plan(fn, rules)(x)
    by_name = {
        layer.name.split("/")[-1]: layer.rule for layer in plan.layers if layer.kind == "dense"
    }
    assert isinstance(by_name["stem"], lrp.Flat)
    assert isinstance(by_name["head"], lrp.Epsilon)

    value, actual = lrp.value_and_relevance(fn, rules)(x, target=np.array([0, 2]))
    seed = np.asarray(value) * np.eye(3)[[0, 2]]
    hidden = np.maximum(x @ params["stem"]["kernel"] + params["stem"]["bias"], 0)
    middle = reference.apply_rule(reference.epsilon_rule, layer_of(params["head"]), hidden, seed)
    expected = reference.apply_rule(reference.flat_rule, layer_of(params["stem"]), x, middle)
    assert_close(actual, expected)


def test_two_layers_that_read_the_input_are_both_first():
    rng = np.random.default_rng(4)
    a, b, c = (random_dense(rng, 4, 4) for _ in range(3))

    def dense(name, p, x):
        with jax.named_scope(name):
            return x @ p["kernel"] + p["bias"]

    def fn(x):
        return dense("c", c, jax.nn.relu(dense("a", a, x)) + jax.nn.relu(dense("b", b, x)))

    plan = lrp.plan(fn, {"dense": lrp.ZPlus(), lrp.first("dense"): lrp.Flat()})(np.zeros((2, 4)))
    rules = {layer.name: type(layer.rule) for layer in plan.layers if layer.kind == "dense"}
    assert rules == {"a": lrp.Flat, "b": lrp.Flat, "c": lrp.ZPlus}


# --- batch norm and padding


def norm(p, x):
    return (x - p["mean"]) * (p["scale"] / np.sqrt(p["var"] + 1e-3)) + p["bias"]


def random_norm(rng, channels):
    return {
        "mean": rng.normal(size=channels),
        "var": rng.uniform(0.5, 2, size=channels),
        "scale": rng.normal(size=channels),  # some are negative
        "bias": rng.normal(size=channels),
    }


@pytest.mark.parametrize("bias", ["absorb", "ignore", "distribute"])
@pytest.mark.parametrize(
    ("rule", "expected_rule"),
    [
        (lrp.Epsilon, reference.epsilon_rule),
        (lrp.ZPlus, reference.zplus_rule),
        (lrp.Gamma, reference.gamma_rule),
        (lrp.AlphaBeta, reference.alpha_beta_rule),
    ],
)
def test_batch_norm_before_a_padded_convolution(rule, expected_rule, bias):
    # The shift does not reach the zero padding, so the folded bias depends on the position: it is
    # layer(0). Zennit does not fold this order; folding one bias per channel is wrong at the
    # border.
    rng = np.random.default_rng(5)
    p, kernel, shift = random_norm(rng, 2), rng.normal(size=(3, 3, 2, 3)), rng.normal(size=3)
    x = rng.normal(size=(2, 4, 5, 2))

    def fn(x):
        return networks.conv(norm(p, x), kernel, padding="SAME") + shift

    relevance = rng.normal(size=(2, 4, 5, 3))
    folded = reference.layer_of_affine(fn_of_one(fn), (4, 5, 2))
    mask = reference.layer_of(functools.partial(networks.conv, padding="SAME"), kernel, (4, 5, 2))
    folded = reference.dense_layer(folded.matrix, folded.bias, mask.in_bounds)
    assert np.ptp(folded.bias.reshape(4, 5, 3), axis=(0, 1)).min() > 0.1
    expected = reference.apply_rule(expected_rule, folded, x, relevance, bias=bias)
    rules = {"conv": rule(bias=bias)}
    assert_close(pull_back(fn, rules, x, relevance), expected)
    plan = lrp.plan(fn, rules)(x)
    assert (plan.count("conv"), plan.count("affine")) == (1, 0)


def fn_of_one(fn):
    return lambda x: fn(x[None])[0]


@pytest.mark.parametrize("written", ["joined first", "joined in steps", "by parts"])
def test_densenet_order(written):
    """concatenate, norm, ReLU, convolution: a convolution has its part of the norm after it."""
    rng = np.random.default_rng(6)
    stem, kernel = rng.normal(size=(3, 3, 2, 3)), rng.normal(size=(3, 3, 5, 2))
    p, x = random_norm(rng, 5), rng.normal(size=(1, 4, 4, 2))
    first, rest = ({k: v[part] for k, v in p.items()} for part in (slice(2), slice(2, None)))

    def grow(x):
        return networks.conv(x, stem, padding="SAME")

    def last(x):
        return networks.conv(x, kernel, padding="SAME")

    def fn(x):
        y = grow(x)
        if written == "by parts":
            y = jnp.concatenate([norm(first, x), norm(rest, y)], -1)
        elif written == "joined in steps":
            both = jnp.concatenate([x, y[..., :1]], -1)
            y = norm(p, jnp.concatenate([both, y[..., 1:]], -1))
        else:
            y = norm(p, jnp.concatenate([x, y], -1))
        return last(jax.nn.relu(y))

    def layer(function, shape):
        return reference.layer_of_affine(function, shape)

    relevance = rng.normal(size=(1, 4, 4, 2))
    alpha_beta = functools.partial(reference.alpha_beta_rule, alpha=2, beta=1)
    normed = np.concatenate([norm(first, x), norm(rest, grow(x))], -1)
    middle = reference.apply_rule(
        alpha_beta, layer(fn_of_one(last), (4, 4, 5)), np.maximum(normed, 0), relevance
    )
    own = layer(functools.partial(norm, first), (4, 4, 2))
    through = layer(lambda x: norm(rest, fn_of_one(grow)(x)), (4, 4, 2))
    expected = reference.apply_rule(reference.epsilon_rule, own, x, middle[..., :2])
    expected += reference.apply_rule(alpha_beta, through, x, middle[..., 2:])
    rules = {"conv": lrp.AlphaBeta(2, 1), "affine": EPSILON}
    assert_close(pull_back(fn, rules, x, relevance), expected)
    plan = lrp.plan(fn, rules)(x)
    assert (plan.count("conv"), plan.count("affine")) == (2, 1)


# --- arithmetic of single rules


def test_alpha_minus_beta_is_one_to_rounding():
    # 1.4 - 0.4 is 0.9999999999999999 in floating point, and Zennit compares exactly.
    assert 1.4 - 0.4 != 1
    matrix, x, relevance = np.array([[1.0], [-2.0]]), np.array([3.0, 1.0]), np.array([1.0])
    # Positive share (1, 0), negative share (0, 1).
    actual = pull_back(lambda x: x @ matrix, lrp.AlphaBeta(1.4, 0.4, epsilon=0.0), x, relevance)
    np.testing.assert_allclose(actual, [1.4, -0.4], rtol=1e-15)
    with pytest.raises(ValueError, match="alpha"):
        lrp.explain(lambda x: x @ matrix, lrp.AlphaBeta(2.0, 0.5))(x)


def test_gamma_at_an_output_of_exactly_zero():
    # Zennit drops the relevance. 0 counts as positive: 1.25 * 1 - 1 = 0.25 is shared as 1.25 and
    # -1.
    matrix, x = np.array([[1.0], [-1.0]]), np.array([1.0, 1.0])
    actual = pull_back(lambda x: x @ matrix, lrp.Gamma(0.25, epsilon=0.0), x, np.array([1.0]))
    np.testing.assert_array_equal(actual, [5.0, -4.0])


@pytest.mark.parametrize(("alpha", "beta", "expected"), [(1, 0, (-1, 0)), (2, 1, (-2, 0.5))])
def test_alpha_beta_with_a_negative_bias(alpha, beta, expected):
    # iNNvestigate gives -1e7: its stabiliser is all there is in a denominator without inputs.
    matrix, x = np.array([[1.0], [-1.0]]), np.array([1.0, 1.0])
    rule = lrp.AlphaBeta(alpha, beta, epsilon=0.0)
    actual = pull_back(lambda x: x @ matrix - 1.0, rule, x, np.array([-1.0]))
    np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16, np.float32, np.float64])
@pytest.mark.parametrize("activation", [jax.nn.silu, jnp.tanh, jax.nn.gelu])
def test_an_activation_near_zero(activation, dtype):
    # LXT divides by x + 1e-10: -inf at x = -1e-10, and in float16 the 1e-10 is 0 and 0/0 is NaN.
    x = np.array([-1e-10, 0.0, 1e-10, -1e-45, -6e-8, 1e-3, -2.0]).astype(dtype)

    def fn(x):
        return activation(x) * np.asarray(3, dtype)

    value, relevance = lrp.value_and_relevance(fn, lrp.composites.lrp_zero())(x)
    assert relevance.dtype in (dtype, np.float32)  # relevance may be wider than the values
    value, relevance = np.asarray(value, np.float64), np.asarray(relevance, np.float64)
    assert np.all(np.isfinite(relevance))
    # All of the output's value goes to its one input, but for a few units of rounding; an x below
    # the smallest normal number may get nothing, and 3 f(x) is at most three times that.
    info = jnp.finfo(dtype)
    np.testing.assert_allclose(
        relevance, value, rtol=8 * float(info.eps), atol=3 * float(info.smallest_normal)
    )


# --- what relevance does not reach, and what it cannot cross

mystery_p = Primitive("mystery")
mystery_p.def_impl(lambda x: x)
mystery_p.def_abstract_eval(lambda x: x)
mlir.register_lowering(mystery_p, lambda ctx, x: [x])


def mystery(x):
    return mystery_p.bind(x)


def test_a_layer_that_relevance_never_reaches_needs_no_rule():
    # Captum demands one anyway.
    rng = np.random.default_rng(7)
    matrix, x = rng.normal(size=(3, 2)), rng.normal(size=(2, 3))

    def fn(x):
        unused = mystery(x).sum()
        frozen = lax.stop_gradient(jnp.tanh(mystery(x)).mean())
        return x @ matrix, (unused, frozen)

    actual, aux = lrp.explain(fn, EPSILON, has_aux=True)(x, target=0)
    assert np.isfinite(aux[0])
    assert_close(actual, lrp.explain(lambda x: x @ matrix, EPSILON)(x, target=0), 1e-15)


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit, jax.checkpoint])
def test_an_unsupported_layer_is_an_error_that_says_where(transform):
    # Zennit, autolrp and shap fall back to the gradient.
    def fn(x):
        return transform(lambda x: mystery(x) * 2.0)(x) + 1.0

    with pytest.raises(lrp.UnsupportedPrimitiveError, match="mystery") as error:
        lrp.explain(fn, EPSILON)(np.ones(3))
    assert "test_peers.py" in str(error.value), "the source line belongs in the message"
    with pytest.raises(lrp.UnsupportedPrimitiveError, match="mystery"):
        lrp.plan(fn, EPSILON)(jax.ShapeDtypeStruct((3,), np.float64))


def test_two_rule_sets_in_one_process():
    # LXT's patches are global: the second set is ignored and other models change.
    rng = np.random.default_rng(8)
    params = {"head": random_dense(rng, 6, 3), "stem": random_dense(rng, 4, 6)}
    x = rng.normal(size=(2, 4))

    def fn(x):
        return HeadFirst().apply({"params": params}, x)

    def gradient(x):
        return jax.grad(lambda x: fn(x).sum())(x)

    before = (np.asarray(fn(x)), np.asarray(gradient(x)))
    sets = {"zplus": lrp.ZPlus(), "flat": lrp.Flat(), "epsilon": lrp.Epsilon(0.1)}
    alone = {name: np.asarray(lrp.explain(fn, rule)(x, target=0)) for name, rule in sets.items()}
    both = [lrp.explain(fn, rule) for rule in sets.values()]
    for _ in range(2):
        for name, explain in zip(sets, both):
            np.testing.assert_array_equal(explain(x, target=0), alone[name])
    assert not np.allclose(alone["zplus"], alone["epsilon"])
    assert not np.allclose(alone["zplus"], alone["flat"])
    np.testing.assert_array_equal(fn(x), before[0])
    np.testing.assert_array_equal(gradient(x), before[1])


# --- where the relevance went


@pytest.mark.parametrize(
    ("name", "forward"),
    [
        ("zennit_cnn", networks.cnn),
        # The ledger runs operation by operation: half a minute of compiling here.
        pytest.param("zennit_resnet", networks.resnet, marks=pytest.mark.slow),
    ],
)
def test_the_ledger_names_what_the_bias_kept(name, forward):
    # EpsilonPlus hands on 79 % and 68 % of the CNN's two logits, 69 % and 75 % of the ResNet's, and
    # Zennit says nothing.
    pack = networks.load(name)
    fn = functools.partial(forward, networks.tree(pack, "params/"))
    rules = lrp.composites.epsilon_plus()
    ledger = lrp.ledger(fn, rules)(pack["input"], target=pack["target"])
    stored = pack["composite/epsilon_plus/none/input"]
    np.testing.assert_allclose(float(ledger.relevance_out), pack["R_out"].sum(), rtol=1e-12)
    np.testing.assert_allclose(float(ledger.relevance_in), stored.sum(), rtol=1e-9)
    kept = stored.sum() / pack["R_out"].sum()
    np.testing.assert_allclose(float(ledger.conservation), kept, rtol=1e-9)
    lost = {
        part: math.fsum(float(getattr(layer, part)) for layer in ledger.layers)
        for part in ("bias", "stabiliser", "rule_loss")
    }
    missing = pack["R_out"].sum() - stored.sum()
    np.testing.assert_allclose(sum(lost.values()), missing, rtol=1e-8)
    # Most of it is the biases', and the layer that keeps most is in the text. The stabiliser is
    # tiny; where a unit has no positive contribution, it is the rule that drops what arrives.
    assert abs(lost["stabiliser"]) < 1e-3 * abs(missing)
    assert abs(lost["bias"]) > 0.5 * abs(missing)
    worst = max(ledger.layers, key=lambda layer: abs(layer.bias))
    assert worst.name in str(ledger)
    assert "bias" in ledger.verdict


def test_the_ledger_of_one_layer_by_hand():
    # z = 3 - 1 + 2 = 4: of a relevance of 8 the inputs get 6 and -2, and the bias keeps 4.
    matrix, x = np.array([[3.0], [-1.0]]), np.array([1.0, 1.0])

    def fn(x):
        with jax.named_scope("only"):
            return 2.0 * (x @ matrix + 2.0)

    ledger = lrp.ledger(fn, lrp.Epsilon(0.0))(x, target=0)
    (layer,) = [entry for entry in ledger.layers if entry.kind == "dense"]
    assert layer.name == "only"
    assert float(layer.relevance_out) == 8.0
    assert float(layer.relevance_in) == 4.0
    assert float(layer.bias) == 4.0
    assert float(layer.stabiliser) == 0.0
    assert float(layer.rule_loss) == 0.0
    assert float(ledger.conservation) == 0.5


def test_the_ledger_of_the_stabiliser_and_the_rule_by_hand():
    # Epsilon(1): z = 1, denominator 2, half of the relevance stays with the stabiliser.
    ledger = lrp.ledger(lambda x: x @ np.ones((1, 1)), lrp.Epsilon(1.0))(np.ones(1), target=0)
    (layer,) = [entry for entry in ledger.layers if entry.kind == "dense"]
    assert (float(layer.relevance_in), float(layer.stabiliser)) == (0.5, 0.5)
    assert (float(layer.bias), float(layer.rule_loss)) == (0.0, 0.0)


@pytest.mark.parametrize("epsilon", [0.0, 1e-6])
def test_the_ledger_of_a_unit_without_positive_contributions(epsilon):
    # ZPlus has nothing to share among: the rule drops it all, whatever the stabiliser.
    rule = lrp.ZPlus(epsilon=epsilon)
    ledger = lrp.ledger(lambda x: x @ -np.ones((1, 1)), rule)(np.ones(1), target=0)
    total = sum(float(entry.rule_loss) for entry in ledger.layers)
    assert (float(ledger.relevance_out), float(ledger.relevance_in), total) == (-1.0, 0.0, -1.0)


def test_no_relevance_is_lost_in_a_bias_free_network():
    rng = np.random.default_rng(9)
    matrices = [rng.normal(size=(5, 5)) for _ in range(4)]

    def fn(x):
        for matrix in matrices:
            x = jax.nn.relu(x @ matrix) + x
        return x

    x = rng.normal(size=(2, 5))
    ledger = lrp.ledger(fn, lrp.composites.lrp_zero())(x, target=1)
    np.testing.assert_allclose(float(ledger.conservation), 1.0, rtol=1e-10)
    for layer in ledger.layers:
        assert float(layer.bias) == 0.0
        assert float(layer.stabiliser) == 0.0


def test_a_plan_before_anything_runs_lists_every_layer():
    # A proof that nothing was missed: each linear layer of the network is in the plan, with its
    # rule.
    pack = networks.load("zennit_cnn")
    fn = functools.partial(networks.cnn, networks.tree(pack, "params/"))
    shape = jax.ShapeDtypeStruct(pack["input"].shape, np.float64)
    plan = lrp.plan(fn, lrp.composites.epsilon_plus_flat())(shape)
    linear = [layer for layer in plan.layers if layer.kind in ("conv", "dense")]
    assert [layer.name for layer in linear] == ["conv1", "conv2", "fc1", "fc2"]
    assert [type(layer.rule) for layer in linear] == [
        lrp.Flat,
        lrp.ZPlus,
        lrp.Epsilon,
        lrp.Epsilon,
    ]
    names = {layer.name for layer in plan.layers}
    assert {"relu1", "pool1", "relu2", "pool2", "relu3"} <= names
    text = str(plan)
    for layer in linear:
        assert layer.name in text


def test_relevance_at_a_layer_is_what_leaves_the_next():
    pack = networks.load("zennit_cnn")
    fn = functools.partial(networks.cnn, networks.tree(pack, "params/"))
    explain = jax.jit(lrp.explain(fn, lrp.composites.epsilon_plus(), layers=["fc1"]))
    _, layers = explain(pack["input"], target=pack["target"])
    assert_close(layer_relevance(layers, "fc1"), pack["composite/epsilon_plus/none/layer/fc1"])
