"""A small CNN against Zennit 1.0.0: nine rules and eight composites, both bias modes.

Where Zennit errs elsewhere it does not here: every layer is a module of its own and is called once,
batch norm is absent, and no output is exactly 0 under Gamma (where Zennit drops the relevance).
tests/oracles/test_peers.py has those cases.
"""

import functools

import jax
import numpy as np
import pytest

import jaxlrp as lrp
from tests import networks
from tests.compare import assert_close, layer_relevance
from tests.numpy_jaxpr import in_numpy

BIAS = {"none": "absorb", "bias": "ignore"}
LAYERS = (
    "conv1",
    "relu1",
    "pool1",
    "conv2",
    "relu2",
    "pool2",
    "flatten",
    "fc1",
    "relu3",
    "fc2",
)
SELECTORS = [f"**/{name}" for name in LAYERS]

RULES = {
    "epsilon_1e-6": lambda bias: lrp.Epsilon(1e-6, bias=bias),
    "epsilon_0.25": lambda bias: lrp.Epsilon(0.25, bias=bias),
    "zplus": lambda bias: lrp.ZPlus(bias=bias),
    "gamma_0.25": lambda bias: lrp.Gamma(0.25, bias=bias),
    "alphabeta_2_1": lambda bias: lrp.AlphaBeta(2, 1, bias=bias),
    "alphabeta_1_0": lambda bias: lrp.AlphaBeta(1, 0, bias=bias),
    "wsquare": lambda bias: lrp.WSquare(bias=bias),
    "flat": lambda bias: lrp.Flat(bias=bias),
    "zbox_first_epsilon": lambda bias: lrp.Epsilon(1e-6, bias=bias),
}
COMPOSITES = (
    "epsilon_plus",
    "epsilon_plus_flat",
    "epsilon_alpha2_beta1",
    "epsilon_alpha2_beta1_flat",
    "epsilon_gamma_box",
    "excitation_backprop",
    "guided_backprop",
    "deconvnet",
)
CONFIGURATIONS = [
    f"{kind}/{name}/{mode}"
    for mode in BIAS
    for kind, names in (("rule", RULES), ("composite", COMPOSITES))
    for name in names
    # These two have no bias to leave out.
    if not (mode == "bias" and name in ("guided_backprop", "deconvnet"))
]


def rule_map(configuration):
    kind, name, mode = configuration.split("/")
    bias = BIAS[mode]
    if kind == "composite":
        preset = getattr(lrp.composites, name)
        if name in ("guided_backprop", "deconvnet"):
            return preset()
        box = {"low": -3.0, "high": 3.0} if name == "epsilon_gamma_box" else {}
        return preset(**box, epsilon=1e-6, bias=bias)
    rule = RULES[name](bias)
    # Zennit treats sums and mean pooling with its Epsilon rule, whatever the rule of the linear
    # layers.
    rules = {
        "conv": rule,
        "dense": rule,
        "add": lrp.Epsilon(1e-6),
        "avg_pool": lrp.Epsilon(1e-6),
    }
    if name == "zbox_first_epsilon":
        rules["**/conv1"] = lrp.ZBox(-3.0, 3.0, bias=bias)
    return rules


def functional(pack):
    return functools.partial(networks.cnn, networks.tree(pack, "params/"))


def flax_module(pack):
    module, variables = networks.linen("zennit_cnn")
    return functools.partial(module.apply, variables)


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
@pytest.mark.parametrize("spelling", [functional, flax_module])
def test_input_and_every_layer(spelling, configuration):
    pack = networks.load("zennit_cnn")
    explain = lrp.value_and_relevance(spelling(pack), rule_map(configuration), layers=SELECTORS)
    target = pack["target"]
    if configuration.split("/")[1] in ("guided_backprop", "deconvnet"):
        # Ours start from the weight; the pack's start from the logit.
        target = np.eye(10)[target] * pack["logits"]
    run = jax.jit if spelling is functional else in_numpy
    value, (relevance, layers) = run(explain)(pack["input"], target=target)
    assert_close(value, pack["logits"], 1e-13, "logits")
    assert_close(relevance, pack[f"{configuration}/input"])
    for name in LAYERS:
        expected = pack[f"{configuration}/layer/{name}"]
        assert_close(layer_relevance(layers, name), expected, what=name)


@pytest.mark.parametrize(
    "configuration", ["rule/gamma_0.25/none", "composite/epsilon_plus_flat/bias"]
)
def test_the_ways_to_seed_agree(configuration):
    pack = networks.load("zennit_cnn")
    fn, rules, x = functional(pack), rule_map(configuration), pack["input"]
    expected = pack[f"{configuration}/input"]
    one_hot = np.eye(10)[pack["target"]]
    assert_close(jax.jit(lrp.explain(fn, rules))(x, target=one_hot), expected)

    def by_hand(x, relevance):
        value, back = lrp.relevance_vjp(fn, rules, x)
        return value, *back(relevance)

    value, relevance = in_numpy(by_hand)(x, pack["R_out"])
    assert_close(value, pack["logits"], 1e-13, "logits")
    assert_close(relevance, expected)


@pytest.mark.parametrize("configuration", ["rule/wsquare/none", "rule/flat/none"])
def test_a_tied_pooling_window_goes_to_its_first_entry(configuration):
    # 76 windows are tied at 0. Only rules that give relevance to an output of 0 can tell.
    pack = networks.load("zennit_cnn")
    arriving = pack[f"{configuration}/layer/pool1"][pack["ties/pool1"]]
    assert np.abs(arriving).max() > 0
    explain = lrp.explain(functional(pack), rule_map(configuration), layers=["**/relu1"])
    _, layers = jax.jit(explain)(pack["input"], target=pack["target"])
    actual = np.asarray(layer_relevance(layers, "relu1"))
    first = actual[:, ::2, ::2][pack["ties/pool1"]]
    np.testing.assert_allclose(first, arriving, rtol=1e-9)
