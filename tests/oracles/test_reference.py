"""The dense references of tests/reference.py against numbers made elsewhere; no library in it."""

import json
from fractions import Fraction
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from tests import networks, reference
from tests.compare import assert_close, relative_l2

ZENNIT_RULES = {
    "epsilon_1e-6": partial(reference.epsilon_rule, epsilon=1e-6),
    "epsilon_0.25": partial(reference.epsilon_rule, epsilon=0.25),
    "zplus": reference.zplus_rule,
    "gamma_0.25": partial(reference.gamma_rule, gamma=0.25),
    "alphabeta_2_1": partial(reference.alpha_beta_rule, alpha=2, beta=1),
    "alphabeta_1_0": partial(reference.alpha_beta_rule, alpha=1, beta=0),
    # The pack's mode "none" keeps the squared bias, which is "absorb" here.
    "wsquare": reference.wsquare_rule,
    "flat": reference.flat_rule,
    "zbox_first_epsilon": None,
}
# layer: (what it reads, what its input's relevance is stored as, the shape of its input)
ZENNIT_LAYERS = {
    "conv1": ("input", "input", (16, 16, 3)),
    "conv2": ("act/pool1", "layer/pool1", (8, 8, 8)),
    "fc1": ("act/flatten", "layer/flatten", (256,)),
    "fc2": ("act/relu3", "layer/relu3", (32,)),
}


@pytest.fixture(scope="module")
def cnn_layers():
    pack = networks.load("zennit_cnn")
    conv = partial(networks.conv, padding=((1, 1), (1, 1)))
    layers = {}
    for name, (_, _, shape) in ZENNIT_LAYERS.items():
        kernel, bias = pack[f"params/{name}/kernel"], pack[f"params/{name}/bias"]
        apply = conv if name.startswith("conv") else jnp.dot
        layers[name] = reference.layer_of(apply, kernel, shape, bias)
    return layers


@pytest.mark.parametrize("mode", ["none", "bias"])
@pytest.mark.parametrize("layer", ZENNIT_LAYERS)
@pytest.mark.parametrize("rule", ZENNIT_RULES)
def test_single_zennit_layers(cnn_layers, rule, layer, mode):
    pack = networks.load("zennit_cnn")
    function = ZENNIT_RULES[rule]
    if rule == "zbox_first_epsilon":
        function = partial(reference.zbox_rule, low=-3.0, high=3.0)
        function = function if layer == "conv1" else reference.epsilon_rule
    x, received, _ = ZENNIT_LAYERS[layer]
    prefix = f"rule/{rule}/{mode}"
    bias = "absorb" if mode == "none" else "ignore"
    actual = reference.apply_rule(
        function, cnn_layers[layer], pack[x], pack[f"{prefix}/layer/{layer}"], bias=bias
    )
    assert_close(actual, pack[f"{prefix}/{received}"])


def test_the_stored_activations_are_those_of_the_dense_layers(cnn_layers):
    pack = networks.load("zennit_cnn")
    for name, (x, _, _) in ZENNIT_LAYERS.items():
        rows = np.stack([cnn_layers[name](row.reshape(-1)) for row in pack[x]])
        assert_close(rows.reshape(pack[f"act/{name}"].shape), pack[f"act/{name}"], 1e-13)


JULIA_RULES = {
    "ZeroRule": partial(reference.epsilon_rule, epsilon=1e-9),
    "EpsilonRule": partial(reference.epsilon_rule, epsilon=1e-6),
    "ZPlusRule": partial(reference.zplus_rule, epsilon=1e-9),
    "AlphaBetaRule": partial(reference.alpha_beta_rule, epsilon=1e-9),
    "GammaRule": partial(reference.unsigned_gamma_rule, epsilon=1e-9),
    "GeneralizedGammaRule": partial(reference.gamma_rule, epsilon=1e-9),
    "ZBoxRule": partial(reference.zbox_rule, low=0.0, high=1.0, epsilon=1e-9),
    "WSquareRule": partial(reference.wsquare_rule, epsilon=1e-9, bias="ignore"),
    "FlatRule": partial(reference.flat_rule, epsilon=1e-9),
    "LayerNormRule": partial(reference.epsilon_rule, epsilon=1e-9),
}


def julia_layer(pack, layer):
    """The DenseLayer, its input and its output after the activation."""
    kind = layer.split("_")[0]
    x = pack[f"{kind}/x"].astype(np.float64)
    if kind == "Dense":
        bias = pack.get(f"{layer}/bias")
        dense = reference.dense_layer(pack[f"{layer}/kernel"], bias)
    elif kind == "Scale":
        # No input but its own reaches an output, so the other 0s of the matrix are out of bounds.
        scale = pack.get(f"{layer}/scale", np.ones(x.shape[-1]))
        dense = reference.dense_layer(
            np.diag(scale), pack.get(f"{layer}/bias"), np.eye(scale.size, dtype=bool)
        )
    else:
        dense = reference.layer_of(
            networks.conv, pack["Conv/kernel"], x.shape[1:], pack["Conv/bias"]
        )
    out = np.stack([dense(row.reshape(-1)) for row in x])
    return dense, x, np.maximum(out, 0) if layer.endswith("relu") else out


JULIA_LAYERS = ("Dense_relu", "Dense_identity", "Scale_relu", "Scale_identity", "Conv", "Conv_relu")


@pytest.mark.parametrize("layer", JULIA_LAYERS)
@pytest.mark.parametrize("rule", JULIA_RULES)
def test_julia_rules(rule, layer):
    pack = networks.load("relevancepropagation_jl_rules_nhwc")
    dense, x, out = julia_layer(pack, layer)
    actual = reference.apply_rule(JULIA_RULES[rule], dense, x, out)
    # The stored arrays are float32. ZBoxRule/Conv has a denominator near 0 there.
    tolerance = 1e-4 if (rule, layer) == ("ZBoxRule", "Conv") else 1e-6
    assert_close(actual, pack[f"R/{rule}/{layer}"], tolerance)


@pytest.mark.parametrize("layer", ["Conv2D", "Conv2D_relu", "Dense", "Dense_relu"])
@pytest.mark.parametrize(
    ("analyzer", "rule"),
    [
        ("LRPZ", partial(reference.epsilon_rule, epsilon=0)),
        ("LRPEpsilon", partial(reference.epsilon_rule, epsilon=1e-7)),
        ("LRPZPlus", partial(reference.zplus_rule, epsilon=0)),
        ("LRPAlpha2Beta1", partial(reference.alpha_beta_rule, epsilon=0)),
        ("LRPWSquare", partial(reference.wsquare_rule, epsilon=0)),
        ("LRPFlat", partial(reference.flat_rule, epsilon=0)),
        ("BoundedDeepTaylor", partial(reference.zbox_rule, low=-128.0, high=128.0, epsilon=0)),
    ],
)
def test_innvestigate_rules(analyzer, rule, layer):
    pack = networks.load("innvestigate_layer")
    kernel = pack[f"{analyzer}/{layer}/w"].astype(np.float64)
    apply = networks.conv if layer.startswith("Conv") else jnp.dot
    dense = reference.layer_of(apply, kernel, (10, 10, 3))
    x = pack["input"]
    out = np.stack([dense(row.reshape(-1)) for row in x])
    out = np.maximum(out, 0) if layer.endswith("relu") else out
    seed = np.where(out == out.max(1, keepdims=True), out, 0)
    actual = reference.apply_rule(rule, dense, x, seed)
    assert_close(actual, pack[f"{analyzer}/{layer}/attribution"], 1e-6)


def _case(start):
    cases = json.loads((networks.DATA / "relevancepropagation_jl_analytic.json").read_text())
    return next(case for case in cases["cases"] if case["rule"].startswith(start))


def _numbers(values):
    return np.array([float(Fraction(v)) for v in values])


def test_analytic_cases():
    case = _case("zero")
    layer = reference.dense_layer(np.array(case["W"]).T, case["b"])
    actual = reference.epsilon_rule(layer, np.array(case["a"]), _numbers(case["R_out"]), epsilon=0)
    assert_close(actual, _numbers(case["R"]), 1e-15)

    case = _case("alphabeta")
    layer = reference.dense_layer(np.array(case["W"]).T, case["b"])
    for alpha, beta in ((1, 0), (2, 1)):
        actual = reference.alpha_beta_rule(
            layer, np.array(case["a"]), np.array(case["R_out"]), alpha=alpha, beta=beta, epsilon=0
        )
        np.testing.assert_array_equal(actual, case[f"a{alpha}b{beta}"])

    case = _case("generalized gamma")
    layer = reference.dense_layer(np.array(case["W"]).T, case["b"])
    actual = reference.gamma_rule(layer, np.array(case["a"]), np.array(case["R_out"]), epsilon=0)
    assert_close(actual, _numbers(case["R"]), 1e-15)


@pytest.mark.parametrize(
    "rule", ["epsilon", "zplus", "gamma", "alpha_beta", "wsquare", "flat", "zbox"]
)
def test_distribute_conserves(rule):
    rng = np.random.default_rng(0)
    layer = reference.dense_layer(rng.normal(size=(5, 4)), rng.normal(size=4))
    x, relevance = rng.normal(size=5), rng.normal(size=4)
    options = {"low": -3.0, "high": 3.0} if rule == "zbox" else {}
    actual = reference.RULES[rule](layer, x, relevance, bias="distribute", epsilon=0.1, **options)
    np.testing.assert_allclose(actual.sum(), relevance.sum(), rtol=1e-12)


def test_relative_epsilon_is_in_units_of_the_outputs_rms():
    layer = reference.dense_layer([[3.0, 4.0]])
    # z = (3, 4), root mean square sqrt(12.5); twice that is 7.071...
    actual = reference.epsilon_rule(layer, np.ones(1), np.ones(2), epsilon=2.0, relative=True)
    np.testing.assert_allclose(actual, [3 / (3 + 50**0.5) + 4 / (4 + 50**0.5)], rtol=1e-15)


def test_in_bounds_knows_padding_dilation_groups_and_strides():
    # Two inputs, kernel (2, 3) with padding 1: the border outputs reach one input only.
    def apply(x, kernel):
        return lax.conv_general_dilated(
            x[None, :, None], kernel, (1,), ((1, 1),), dimension_numbers=("NWC", "WIO", "NWC")
        )[0]

    layer = reference.layer_of(apply, np.array([[[2.0]], [[3.0]]]), (2,))
    np.testing.assert_array_equal(layer.matrix, [[3, 2, 0], [0, 3, 2]])
    np.testing.assert_array_equal(layer.in_bounds, [[True, True, False], [False, True, True]])
    # A weight of 0 is in bounds all the same.
    layer = reference.layer_of(apply, np.array([[[2.0]], [[0.0]]]), (2,))
    np.testing.assert_array_equal(layer.in_bounds, [[True, True, False], [False, True, True]])

    def grouped(x, kernel):
        return lax.conv_general_dilated(
            x[None],
            kernel,
            (2,),
            "VALID",
            rhs_dilation=(2,),
            dimension_numbers=("NWC", "WIO", "NWC"),
            feature_group_count=2,
        )[0]

    layer = reference.layer_of(grouped, np.ones((2, 1, 2)), (5, 2))
    reach = layer.in_bounds.reshape(5, 2, 2, 2)
    for position, channel, out_position, out_channel in np.ndindex(5, 2, 2, 2):
        expected = channel == out_channel and position - 2 * out_position in (0, 2)
        assert reach[position, channel, out_position, out_channel] == expected


def test_an_affine_function_gives_its_bias_as_its_value_at_zero():
    layer = reference.layer_of_affine(lambda x: 2 * x + jnp.arange(3.0), (3,))
    np.testing.assert_array_equal(layer.matrix, 2 * np.eye(3))
    np.testing.assert_array_equal(layer.bias, [0, 1, 2])


def test_the_comparison_sees_one_per_cent():
    # A stored reference with a relative tolerance of 0.05 lets a 1 % error in the routing pass;
    # ours must not.
    truth = np.random.default_rng(1).normal(size=50)
    moved = truth.copy()
    moved[0] += 0.01 * truth[1]
    moved[1] -= 0.01 * truth[1]
    assert relative_l2(moved, truth) > 1e-5
    with pytest.raises(AssertionError, match="relative L2"):
        assert_close(moved, truth, 1e-5)
    with pytest.raises(AssertionError, match="relative L2 distance nan"):
        assert_close(np.full(50, np.nan), truth)


def test_forward_passes_meet_the_stored_logits():
    for name, forward in (("zennit_cnn", networks.cnn), ("zennit_resnet", networks.resnet)):
        pack = networks.load(name)
        params = networks.tree(pack, "params/")
        assert_close(jax.jit(forward)(params, pack["input"]), pack["logits"], 1e-13)
        module, variables = networks.linen(name)
        assert_close(jax.jit(module.apply)(variables, pack["input"]), pack["logits"], 1e-13)
