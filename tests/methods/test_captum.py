"""Captum's numbers for small networks in float64, written by tools/captum_reference.py.

Where the definitions agree, so do the numbers. Where they do not, the test says how they differ.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp as lrp
from jaxlrp import methods
from jaxlrp.methods.quadrature import RULES
from jaxlrp.methods.surrogate import local_model
from tests.methods_networks import ACTIVATIONS, STORED, cnn, mlp

X, BASELINE, TARGET = STORED["mlp.x"], STORED["mlp.baseline"], STORED["mlp.target"]
PICTURES, BLANK, CLASSES = STORED["cnn.x"], STORED["cnn.baseline"], STORED["cnn.target"]
REFERENCES = STORED["mlp.references"]
SEGMENTS = np.array([0, 0, 1, 2, 3, 3])


@functools.cache
def of_mlp(activation):
    """What all methods find for an MLP, in one program."""
    f = mlp(activation)
    parts = {"segments": SEGMENTS, "baseline": BASELINE, "examples": 1}

    @jax.jit
    def found(x, target):
        called = {
            "gradient": methods.gradient(f),
            "gradient_x_input": methods.gradient_x_input(f),
            "deep_lift": methods.deep_lift(f, baseline=BASELINE),
            "deep_shap": methods.deep_shap(f, references=REFERENCES, batch=2),
            "guided_backprop": methods.guided_backprop(f),
            "deconvnet": methods.deconvnet(f),
            "ablation": methods.occlusion(f, **parts),
        }
        R = {name: method(x, target=target) for name, method in called.items()}
        shapley = methods.kernel_shap(f, **parts, samples=14)
        return R | {"shapley": shapley(x, target=target, key=jax.random.key(0))}

    return found(X, TARGET)


@functools.cache
def of_pictures():
    """What all methods find for the CNN, in one program."""

    def averaging(x):
        return cnn(x, averaging=True)

    last = lrp.last("activation")
    occlusion = {"window": (2, 3, 3), "stride": 2, "baseline": BLANK, "examples": 1, "batch": 5}

    @jax.jit
    def found(x, target):
        called = {
            "gradient": methods.gradient(cnn),
            "guided_backprop": methods.guided_backprop(cnn),
            "deconvnet": methods.deconvnet(cnn),
            "averaging.deep_lift": methods.deep_lift(averaging, baseline=BLANK),
            "deep_lift": methods.deep_lift(cnn, baseline=BLANK),
            "grad_cam": methods.grad_cam(cnn, last, layout="NCHW"),
            "guided_grad_cam": methods.guided_grad_cam(cnn, last, layout="NCHW"),
            "occlusion": methods.occlusion(cnn, **occlusion),
        }
        R = {name: method(x, target=target) for name, method in called.items()}
        rules, layers = lrp.composites.gradient(), [last]
        _, values = lrp.explain(cnn, rules, layers=layers, what="value")(x, target=target)
        return R | {"layer_values": values}

    return found(PICTURES, CLASSES)


def close(actual, name, tolerance=1e-6):
    np.testing.assert_allclose(actual, STORED[name], rtol=0, atol=tolerance * _size(STORED[name]))


def _size(array):
    return np.abs(array).max()


# On other activations than ReLU guided backprop and deconvnet take the gradient, here and there.
# The Shapley values are those of Captum's ShapleyValues, which goes through all orders; its
# KernelShap only samples.
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(
    "name",
    [
        "gradient",
        "gradient_x_input",
        "deep_lift",
        "deep_shap",
        "guided_backprop",
        "deconvnet",
        "ablation",
        "shapley",
    ],
)
def test_mlp(activation, name):
    close(of_mlp(activation)[name], f"mlp.{activation}.{name}")


@pytest.mark.parametrize(
    ("activation", "rule"),
    [
        ("relu", "gauss_legendre"),
        ("sigmoid", "gauss_legendre"),
        *[("tanh", rule) for rule in RULES],
    ],
)
def test_integrated_gradients(activation, rule):
    method = methods.integrated_gradients(
        mlp(activation), baseline=BASELINE, steps=20, rule=rule, gap=True, examples=1
    )
    R, gap = jax.jit(method)(X, target=TARGET)
    stored, delta = (STORED[f"mlp.{activation}.ig.{rule}{end}"] for end in ("", ".delta"))
    if rule == "riemann_trapezoid":
        # Captum's weights sum to 19/20 for 20 nodes, ours to 1.
        np.testing.assert_allclose(R * 19 / 20, stored, atol=1e-6 * _size(stored))
        return
    np.testing.assert_allclose(R, stored, atol=1e-6 * _size(stored))
    # Captum's delta is the sum of R minus the difference: the gap with the other sign.
    np.testing.assert_allclose(gap, -delta, atol=1e-8)


class TestCNN:
    @pytest.mark.parametrize(
        "name",
        [
            "gradient",
            "guided_backprop",
            "deconvnet",
            "averaging.deep_lift",
            "guided_grad_cam",
            "occlusion",
        ],
    )
    def test_pictures(self, name):
        close(of_pictures()[name], f"cnn.{name}")

    def test_grad_cam(self):
        close(of_pictures()["grad_cam"][:, None], "cnn.grad_cam")

    def test_deep_lift_with_a_maximum_conserves_where_captum_does_not(self):
        """The sums of Captum's attributions miss the difference by 0.013 and 0.036."""
        R = of_pictures()["deep_lift"]
        difference = np.asarray(jax.jit(lambda x: cnn(x) - cnn(BLANK))(PICTURES))
        difference = difference[np.arange(2), CLASSES]
        np.testing.assert_allclose(R.sum((1, 2, 3)), difference, rtol=1e-12)
        stored = STORED["cnn.deep_lift"].sum((1, 2, 3))
        assert np.all(np.abs(stored - difference) > 0.01)

    def test_layer_value_is_the_activation(self):
        (value,) = of_pictures()["layer_values"].values()
        close(value, "cnn.layer_values")


def test_lime_of_the_same_samples():
    """Captum's Lime with our kernel and samples; its own kernel sees inputs, not segments."""
    z = jnp.asarray(STORED["lime.z"])
    x, x0 = X[:1], BASELINE
    values = mlp("relu")(jnp.where(z > 0, x, x0))[:, 1]
    close(jax.jit(local_model)(z, values, 0.25, 0.0)[None], "lime.coefficients")
