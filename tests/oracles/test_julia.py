"""Single layers against the arrays of RelevancePropagation.jl's own tests (float32 data).

Not comparable: GammaRule is the unsigned form, whose boosted WEIGHTS are positive whatever the sign
of the input. The inputs here are signed, and the generalised form (GeneralizedGammaRule) is the one
in the library. The two agree where the contribution's sign is the weight's, which
test_the_unsigned_gamma_where_it_agrees uses.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp as lrp
from tests import networks
from tests.compare import assert_close
from tests.numpy_jaxpr import in_numpy

RULES = {
    "ZeroRule": lrp.Epsilon(1e-9),
    "EpsilonRule": lrp.Epsilon(1e-6),
    "ZPlusRule": lrp.ZPlus(epsilon=1e-9),
    "AlphaBetaRule": lrp.AlphaBeta(2, 1, epsilon=1e-9),
    "GeneralizedGammaRule": lrp.Gamma(0.25, epsilon=1e-9),
    "ZBoxRule": lrp.ZBox(0.0, 1.0, epsilon=1e-9),
    "WSquareRule": lrp.WSquare(epsilon=1e-9),
    "FlatRule": lrp.Flat(epsilon=1e-9),
    "LayerNormRule": lrp.Epsilon(1e-9),
}
LINEAR = ("Dense_relu", "Dense_identity", "Scale_relu", "Scale_identity", "Conv", "Conv_relu")
OTHERS = ("MaxPool", "MeanPool", "GlobalMaxPool", "GlobalMeanPool", "Dropout", "flatten")


def layer(pack, name):
    """The function of one layer and its input, float64."""
    kind = name.removesuffix("_relu").removesuffix("_identity")
    wide = {k: np.asarray(v, np.float64) for k, v in pack.items()}
    x = wide[f"{kind}/x"] if f"{kind}/x" in wide else wide["Conv/x"]
    if kind == "Dense":
        bias = wide.get(f"{name}/bias", 0.0)

        def linear(x):
            return x @ wide[f"{name}/kernel"] + bias
    elif kind == "Scale":
        scale, shift = wide.get(f"{name}/scale", np.ones(4)), wide.get(f"{name}/bias", np.zeros(4))

        def linear(x):
            return x * scale + shift
    elif kind == "Conv":

        def linear(x):
            return networks.conv(x, wide["Conv/kernel"]) + wide["Conv/bias"]
    else:
        linear = {
            "MaxPool": lambda x: networks.max_pool(x, 3),
            "MeanPool": lambda x: networks.avg_pool(x, 3),
            "GlobalMaxPool": lambda x: x.max((1, 2)),
            "GlobalMeanPool": lambda x: x.mean((1, 2)),
            "Dropout": lambda x: x,  # inference: the identity
            "flatten": lambda x: x.reshape(x.shape[0], -1),
        }[kind]
    if name.endswith("relu"):
        return lambda x: jnp.maximum(linear(x), 0), x
    return linear, x


def of_the_output(fn, rules, x):
    """The seed of these arrays is the whole output."""
    value, back = lrp.relevance_vjp(fn, rules, x)
    (received,) = back(value)
    return received


def relevance(fn, rules, x):
    return in_numpy(lambda x: of_the_output(fn, rules, x))(x)


@pytest.mark.parametrize("name", LINEAR)
@pytest.mark.parametrize("rule", RULES)
def test_linear_layers(rule, name):
    pack = networks.load("relevancepropagation_jl_rules_nhwc")
    fn, x = layer(pack, name)
    # In ZBoxRule/Conv a denominator nearly vanishes: the stored float32 numbers are off by 1.7e-5
    # there.
    tolerance = 2e-5 if (rule, name) == ("ZBoxRule", "Conv") else 1e-6
    actual = relevance(fn, RULES[rule], x)
    assert_close(actual, pack[f"R/{rule}/{name}"], tolerance)


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("rule", ["ZeroRule", "EpsilonRule"])
def test_pooling_and_structure(rule, name):
    pack = networks.load("relevancepropagation_jl_rules_nhwc")
    fn, x = layer(pack, name)
    rules = {"avg_pool": RULES[rule]}
    # The peer divides by the stabilised output also where nothing is summed (a maximum, a reshape,
    # the identity), and loses 1e-6 there; here those hand on all of it.
    tolerance = 1e-6 if "Mean" in name else 5e-6
    assert_close(relevance(fn, rules, x), pack[f"R/{rule}/{name}"], tolerance)


def test_the_unsigned_gamma_where_it_agrees():
    # One input, one output each: x >= 0 with a non-negative output puts the signs where the
    # unsigned rule wants them.
    pack = networks.load("relevancepropagation_jl_rules_nhwc")
    for name in ("Scale_relu", "Scale_identity"):
        fn, x = layer(pack, name)
        comparable = (x >= 0) & (np.asarray(fn(x)) >= 0)
        assert comparable.sum() >= 2
        actual = np.asarray(relevance(fn, lrp.Gamma(0.25, epsilon=1e-9), x))
        stored = pack[f"R/GammaRule/{name}"]
        assert_close(actual[comparable], stored[comparable], 1e-6)


def test_the_unsigned_gamma_is_another_rule():
    # Should the two ever agree on signed inputs, the generalised form has been lost.
    pack = networks.load("relevancepropagation_jl_rules_nhwc")
    fn, x = layer(pack, "Conv_relu")
    actual = np.asarray(relevance(fn, RULES["GeneralizedGammaRule"], x))
    stored = pack["R/GammaRule/Conv_relu"]
    assert np.abs(actual - stored).max() > 1e-2 * np.abs(stored).max()


def test_a_batch_of_the_stored_layers_under_jit():
    pack = networks.load("relevancepropagation_jl_rules_nhwc")
    fn, x = layer(pack, "Conv_relu")
    actual = jax.jit(lambda x: of_the_output(fn, RULES["AlphaBetaRule"], x))(x)
    assert_close(actual, pack["R/AlphaBetaRule/Conv_relu"], 1e-6)
