"""Captum's numbers for small networks in float64, written by tools/captum_reference.py.

Where the definitions agree, so do the numbers. Where they do not, the test says how they differ.
"""

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


def at(method, **options):
    """A method of pictures, compiled in one piece."""
    return jax.jit(method)(PICTURES, target=CLASSES, **options)


def close(actual, name, tolerance=1e-6):
    np.testing.assert_allclose(actual, STORED[name], rtol=0, atol=tolerance * _size(STORED[name]))


def _size(array):
    return np.abs(array).max()


@pytest.mark.parametrize("activation", ACTIVATIONS)
class TestMLP:
    @pytest.mark.parametrize("name", ["gradient", "gradient_x_input"])
    def test_gradients(self, activation, name):
        R = getattr(methods, name)(mlp(activation))(X, target=TARGET)
        close(R, f"mlp.{activation}.{name}")

    def test_deep_lift(self, activation):
        R = methods.deep_lift(mlp(activation), baseline=BASELINE)(X, target=TARGET)
        close(R, f"mlp.{activation}.deep_lift")

    def test_deep_shap(self, activation):
        R = methods.deep_shap(mlp(activation), references=REFERENCES, batch=2)
        close(R(X, target=TARGET), f"mlp.{activation}.deep_shap")

    @pytest.mark.parametrize("name", ["guided_backprop", "deconvnet"])
    def test_modified_gradients(self, activation, name):
        # On other activations than ReLU both take the gradient, here and there.
        R = getattr(methods, name)(mlp(activation))(X, target=TARGET)
        close(R, f"mlp.{activation}.{name}")

    def test_occlusion_of_segments(self, activation):
        method = methods.occlusion(
            mlp(activation), segments=SEGMENTS, baseline=BASELINE, examples=1
        )
        close(method(X, target=TARGET), f"mlp.{activation}.ablation")

    def test_kernel_shap_of_all_coalitions_is_the_shapley_value(self, activation):
        # Captum's ShapleyValues, which goes through all orders; its KernelShap only samples.
        method = methods.kernel_shap(
            mlp(activation), segments=SEGMENTS, baseline=BASELINE, examples=1, samples=14
        )
        R = method(X, target=TARGET, key=jax.random.key(0))
        close(R, f"mlp.{activation}.shapley")


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
    R, gap = method(X, target=TARGET)
    stored, delta = (STORED[f"mlp.{activation}.ig.{rule}{end}"] for end in ("", ".delta"))
    if rule == "riemann_trapezoid":
        # Captum's weights sum to 19/20 for 20 nodes, ours to 1.
        np.testing.assert_allclose(R * 19 / 20, stored, atol=1e-6 * _size(stored))
        return
    np.testing.assert_allclose(R, stored, atol=1e-6 * _size(stored))
    # Captum's delta is the sum of R minus the difference: the gap with the other sign.
    np.testing.assert_allclose(gap, -delta, atol=1e-8)


class TestCNN:
    def test_gradient(self):
        close(at(methods.gradient(cnn)), "cnn.gradient")

    def test_guided_backprop_and_deconvnet(self):
        close(at(methods.guided_backprop(cnn)), "cnn.guided_backprop")
        close(at(methods.deconvnet(cnn)), "cnn.deconvnet")

    def test_deep_lift(self):
        def averaging(x):
            return cnn(x, averaging=True)

        R = at(methods.deep_lift(averaging, baseline=BLANK))
        close(R, "cnn.averaging.deep_lift")

    def test_deep_lift_with_a_maximum_conserves_where_captum_does_not(self):
        """The sums of Captum's attributions miss the difference by 0.013 and 0.036."""
        R = at(methods.deep_lift(cnn, baseline=BLANK))
        difference = (cnn(PICTURES) - cnn(BLANK))[np.arange(2), CLASSES]
        np.testing.assert_allclose(R.sum((1, 2, 3)), difference, rtol=1e-12)
        stored = STORED["cnn.deep_lift"].sum((1, 2, 3))
        assert np.all(np.abs(stored - difference) > 0.01)

    def test_layer_value_is_the_activation(self):
        _, found = lrp.explain(
            cnn, lrp.composites.gradient(), layers=[lrp.last("activation")], what="value"
        )(PICTURES)
        (value,) = found.values()
        close(value, "cnn.layer_values")

    def test_grad_cam(self):
        R = methods.grad_cam(cnn, lrp.last("activation"), layout="NCHW")
        close(at(R)[:, None], "cnn.grad_cam")

    def test_guided_grad_cam(self):
        R = methods.guided_grad_cam(cnn, lrp.last("activation"), layout="NCHW")
        close(at(R), "cnn.guided_grad_cam")

    def test_occlusion_windows(self):
        method = methods.occlusion(
            cnn, window=(2, 3, 3), stride=2, baseline=BLANK, examples=1, batch=5
        )
        close(at(method), "cnn.occlusion")


def test_lime_of_the_same_samples():
    """Captum's Lime with our kernel and samples; its own kernel sees inputs, not segments."""
    z = jnp.asarray(STORED["lime.z"])
    x, x0 = X[:1], BASELINE
    values = mlp("relu")(jnp.where(z > 0, x, x0))[:, 1]
    close(local_model(z, values, 0.25, 0.0)[None], "lime.coefficients")
