"""Single layers against the arrays of iNNvestigate's tests: float32, no biases, x >= 0.

Two of its analyzers are not followed. IntegratedGradients counts the zero baseline among its 64
steps; behind a ReLU the derivative there is 0, and the stored numbers are 63/64 of the truth
(behind a max-pool the last 64th goes to the first entry of the window): the truth is asserted.
DeepTaylor puts AlphaBeta(1, 0) on a first layer, where Montavon (2017) and `deep_taylor` have
WSquare: it is compared as ZPlus.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp as lrp
from tests import networks
from tests.common import pull_back
from tests.compare import assert_close
from tests.numpy_jaxpr import in_numpy

LAYERS = (
    "Dense",
    "Dense_relu",
    "Conv2D",
    "Conv2D_relu",
    "AveragePooling2D",
    "MaxPooling2D",
)


def everywhere(rule, avg_pool=None):
    """`rule` on the linear layers; pooling shares in proportion unless said otherwise."""
    return {"conv": rule, "dense": rule, "avg_pool": avg_pool or lrp.Epsilon(0.0)}


def preset(conv):
    return {"conv": conv, "dense": lrp.Epsilon(0.1), "avg_pool": lrp.Epsilon(0.0)}


GRADIENT_POOL = lrp.Gradient()
LRP_0 = lrp.Epsilon(0.0)
ALPHA_1 = lrp.AlphaBeta(1, 0, epsilon=0.0)
ALPHA_2 = lrp.AlphaBeta(2, 1, epsilon=0.0)
FLAT = lrp.Flat(epsilon=0.0)

ANALYZERS = {
    "LRPZ": everywhere(LRP_0),
    "LRPZIgnoreBias": everywhere(lrp.Epsilon(0.0, bias="ignore")),
    "LRPEpsilon": everywhere(lrp.Epsilon(1e-7)),
    "LRPEpsilonIgnoreBias": everywhere(lrp.Epsilon(1e-7, bias="ignore")),
    "LRPAlpha1Beta0": everywhere(ALPHA_1),
    "LRPAlpha1Beta0IgnoreBias": everywhere(lrp.AlphaBeta(1, 0, epsilon=0.0, bias="ignore")),
    "LRPAlpha2Beta1": everywhere(ALPHA_2),
    "LRPAlpha2Beta1IgnoreBias": everywhere(lrp.AlphaBeta(2, 1, epsilon=0.0, bias="ignore")),
    "LRPZPlus": everywhere(lrp.ZPlus(epsilon=0.0)),
    "LRPZPlusFast": everywhere(lrp.ZPlus(epsilon=0.0)),
    "LRPWSquare": everywhere(lrp.WSquare(epsilon=0.0)),
    "LRPFlat": everywhere(FLAT),
    "LRPZ_Flat_input_layer_rule": everywhere(FLAT),
    "LRPZ_boxed_input_layer_rule": everywhere(lrp.ZBox(-10.0, 10.0, epsilon=0.0)),
    "LRPSequentialPresetA": preset(ALPHA_1),
    "LRPSequentialPresetB": preset(ALPHA_2),
    "LRPSequentialPresetAFlat": everywhere(FLAT),
    "LRPSequentialPresetBFlat": everywhere(FLAT),
    # These take mean pooling as its plain gradient.
    "DeepTaylor": everywhere(lrp.ZPlus(epsilon=0.0), GRADIENT_POOL),
    "BoundedDeepTaylor": lrp.composites.deep_taylor_bounded(-128.0, 128.0, epsilon=0.0)
    | {"avg_pool": GRADIENT_POOL},
    "Deconvnet": lrp.composites.deconvnet(),
    "GuidedBackprop": lrp.composites.guided_backprop(),
}


def layer(pack, analyzer, name):
    """From the image to the flattened output of the one layer."""
    kernel = pack.get(f"{analyzer}/{name}/w")
    kernel = None if kernel is None else kernel.astype(np.float64)

    def inner(x):
        if name == "AveragePooling2D":
            return networks.avg_pool(x, 2)
        if name == "MaxPooling2D":
            return networks.max_pool(x, 2)
        return networks.conv(x, kernel) if kernel.ndim == 4 else x @ kernel

    def fn(x):
        y = inner(x)
        if name.endswith("relu"):
            y = jnp.maximum(y, 0)
        return y.reshape(x.shape[0], -1)

    return fn


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("analyzer", ANALYZERS)
def test_analyzers(analyzer, name):
    pack = networks.load("innvestigate_layer")
    fn, x = layer(pack, analyzer, name), pack["input"]
    target = pack[f"{analyzer}/{name}/output"].argmax(-1)
    if any(rule.from_weight for rule in ANALYZERS[analyzer].values()):
        # Ours may start from the weight; the pack starts from the output's value.
        def from_value(x):
            value, back = lrp.relevance_vjp(fn, ANALYZERS[analyzer], x)
            return value, *back(value * np.eye(value.shape[-1])[target])

        value, relevance = in_numpy(from_value)(x)
    else:
        explain = lrp.value_and_relevance(fn, ANALYZERS[analyzer])
        value, relevance = jax.jit(explain)(x, target=target)
    assert_close(value, pack[f"{analyzer}/{name}/output"], 1e-6, "output")
    assert_close(relevance, pack[f"{analyzer}/{name}/attribution"], 1e-6)


@pytest.mark.parametrize("name", LAYERS)
def test_gradients(name):
    pack = networks.load("innvestigate_layer")
    x = pack["input"]
    # A gradient starts from 1 and not from the value of the output.
    fn, out = layer(pack, "Gradient", name), pack[f"Gradient/{name}/output"]
    gradient = everywhere(lrp.Gradient(), lrp.Gradient())
    rules = gradient | {"activation": lrp.Gradient()}
    actual = pull_back(fn, rules, x, np.eye(out.shape[1])[out.argmax(-1)])
    assert_close(actual, pack[f"Gradient/{name}/attribution"], 1e-6)

    # Without biases LRP-0 is the input times the gradient.
    fn, out = layer(pack, "InputTimesGradient", name), pack[f"InputTimesGradient/{name}/output"]
    actual = in_numpy(lrp.explain(fn, lrp.composites.lrp_zero()))(x, target=out.argmax(-1))
    assert_close(actual, pack[f"InputTimesGradient/{name}/attribution"], 1e-6)


@pytest.mark.parametrize("name", LAYERS)
def test_integrated_gradients_is_a_64th_short_in_the_peer(name):
    # From a zero baseline and without biases, the integral of the gradient is the gradient at x,
    # so the truth is LRP-0.
    pack = networks.load("innvestigate_layer")
    fn, out = layer(pack, "IntegratedGradients", name), pack[f"IntegratedGradients/{name}/output"]
    truth = in_numpy(lrp.explain(fn, lrp.composites.lrp_zero()))(
        pack["input"], target=out.argmax(-1)
    )
    np.testing.assert_allclose(np.sum(truth, (1, 2, 3)), out.max(-1), rtol=1e-6)
    stored = pack[f"IntegratedGradients/{name}/attribution"].astype(np.float64)
    if name.endswith("relu"):
        assert_close(truth, stored * 64 / 63, 1e-6)
    elif name == "MaxPooling2D":
        # At the baseline every window is tied, and that step's derivative went to its first entry.
        _, derivative = jax.vjp(fn, np.zeros_like(pack["input"]))
        (at_baseline,) = derivative(np.eye(out.shape[1])[out.argmax(-1)])
        step = pack["input"] * np.asarray(at_baseline) / 64
        assert np.linalg.norm(step) > 1e-3 * np.linalg.norm(truth)
        assert_close(truth, (stored - step) * 64 / 63, 1e-6)
    else:
        assert_close(truth, stored, 1e-6)
