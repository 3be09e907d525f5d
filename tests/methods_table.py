"""All methods, small, on one network of pictures: for what they have in common."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

import jaxlrp as lrp
from jaxlrp import methods

KERNEL = jax.random.normal(jax.random.key(2), (3, 3, 2, 3))
HEAD = jax.random.normal(jax.random.key(3), (3, 2))
QUARTERS = (np.arange(4)[:, None] // 2 * 2 + np.arange(4) // 2)[..., None]


def attending(x):
    """A batch of pictures NHWC; convolution, ReLU, attention between its pixels, two classes."""
    numbers = ("NHWC", "HWIO", "NHWC")
    h = jax.lax.conv_general_dilated(x, KERNEL, (1, 1), "SAME", dimension_numbers=numbers)
    h = jax.nn.relu(h + 0.1).reshape(x.shape[0], 16, 3)
    return (jax.nn.softmax(jnp.einsum("bic,bjc->bij", h, h)) @ h).mean(1) @ HEAD


last = lrp.last("activation")
by_score = {"examples": 1, "batch": 4}
OF_PICTURES = {
    "gradient": methods.gradient,
    "sensitivity": methods.sensitivity,
    "gradient_x_input": methods.gradient_x_input,
    "simple_taylor": functools.partial(methods.simple_taylor, steps=4, examples=1),
    "integrated_gradients": functools.partial(methods.integrated_gradients, steps=3, batch=2),
    "expected_gradients": lambda f, **k: methods.expected_gradients(
        f, references=like(k, np.ones((2, 1, 4, 4, 2))), samples=3, batch=2, **k
    ),
    "deep_lift": methods.deep_lift,
    "deep_shap": lambda f, **k: methods.deep_shap(
        f, references=like(k, np.ones((2, 1, 4, 4, 2))), batch=1, **k
    ),
    "guided_backprop": methods.guided_backprop,
    "deconvnet": methods.deconvnet,
    "excitation_backprop": methods.excitation_backprop,
    "grad_cam": lambda f, **k: methods.grad_cam(f, last, **k),
    "grad_cam_plus_plus": lambda f, **k: methods.grad_cam_plus_plus(f, last, **k),
    "layer_cam": lambda f, **k: methods.layer_cam(f, last, **k),
    "guided_grad_cam": lambda f, **k: methods.guided_grad_cam(f, last, **k),
    "full_grad": methods.full_grad,
    "occlusion": functools.partial(methods.occlusion, window=(2, 2, 2), stride=2, **by_score),
    "rise": functools.partial(methods.rise, cells=2, samples=6, **by_score),
    "kernel_shap": functools.partial(methods.kernel_shap, segments=QUARTERS, **by_score),
    "lime": functools.partial(methods.lime, segments=QUARTERS, samples=6, **by_score),
    "attention_rollout": functools.partial(methods.attention_rollout, heads=None),
}
DRAW = {"expected_gradients", "rise", "kernel_shap", "lime"}
# Around any explanation, so that wrt and aux are that explanation's.
AROUND = {"smooth_grad", "var_grad"}


def like(options, references):
    """References by the name of what is explained, where that has one."""
    return {"embed_0": references} if options.get("wrt") else references
