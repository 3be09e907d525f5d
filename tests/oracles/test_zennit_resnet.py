"""A small ResNet against Zennit 1.0.0, whose numbers are of batch norms folded by hand.

Here the batch norms are left as they are, so the library has to fold them, a quarter of them with
negative scales. The relevance that Zennit's modes lose or win (69 % kept under EpsilonPlus) is the
bias's; tests/oracles/test_peers.py asks the ledger for it.
"""

import functools

import jax
import pytest

import jaxlrp as lrp
from tests import networks
from tests.compare import assert_close, layer_relevance
from tests.numpy_jaxpr import in_numpy

BIAS = {"none": "absorb", "bias": "ignore"}
COMPOSITES = (
    "epsilon_plus",
    "epsilon_plus_flat",
    "epsilon_alpha2_beta1_flat",
    "epsilon_gamma_box",
)
# What is stored -> what may be said for it: a folded layer bears its linear part's name.
LAYERS = {
    "stem_relu": ("stem_relu",),
    "block1/bn2": ("block1/conv2", "block1/bn2"),
    "block1/relu_out": ("block1/relu_out",),
    "block2/bn2": ("block2/conv2", "block2/bn2"),
    "block2/down_bn": ("block2/down_conv", "block2/down_bn"),
    "block2/relu_out": ("block2/relu_out",),
    "block3/bn3": ("block3/conv3", "block3/bn3"),
    "block3/down_bn": ("block3/down_conv", "block3/down_bn"),
    "block3/relu_out": ("block3/relu_out",),
    "gap": ("gap",),
    "fc": ("fc",),
}


def rule_map(composite, mode):
    box = {"low": -3.0, "high": 3.0} if composite == "epsilon_gamma_box" else {}
    return getattr(lrp.composites, composite)(**box, epsilon=1e-6, bias=BIAS[mode])


def functional(pack):
    return functools.partial(networks.resnet, networks.tree(pack, "params/"))


def flax_module(pack):
    module, variables = networks.linen("zennit_resnet")
    return functools.partial(module.apply, variables)


@pytest.mark.parametrize("mode", BIAS)
@pytest.mark.parametrize("composite", COMPOSITES)
@pytest.mark.parametrize("spelling", [functional, flax_module])
def test_input_and_every_layer(spelling, composite, mode):
    pack = networks.load("zennit_resnet")
    # Asked for by the name that the pack uses, which is the batch norm's.
    selectors = [f"**/{name}" for name in LAYERS]
    explain = lrp.value_and_relevance(spelling(pack), rule_map(composite, mode), layers=selectors)
    run = jax.jit if spelling is functional else in_numpy
    value, (relevance, layers) = run(explain)(pack["input"], target=pack["target"])
    assert_close(value, pack["logits"], 1e-13, "logits")
    prefix = f"composite/{composite}/{mode}"
    assert_close(relevance, pack[f"{prefix}/input"])
    for name, aliases in LAYERS.items():
        actual = layer_relevance(layers, *aliases)
        assert_close(actual, pack[f"{prefix}/layer/{name}"], what=name)


@pytest.mark.parametrize("spelling", [functional, flax_module])
def test_every_batch_norm_is_folded(spelling):
    pack = networks.load("zennit_resnet")
    plan = lrp.plan(spelling(pack), rule_map("epsilon_plus", "none"))(pack["input"])
    assert plan.count("conv") == 10
    assert plan.count("dense") == 1
    assert plan.count("affine") == 0
    assert plan.count("add") == 3
