"""Companion methods, to compare with Layer-wise Relevance Propagation.

Each method is a transformation with the `argnums`, `has_aux`, `wrt` and `target` of
[`explain`][jaxlrp.explain], and returns a function that can be jitted, vmapped and differentiated.
Methods that draw random numbers take a `key=` at the call. Methods that evaluate the function many
times do so inside one program, `batch` evaluations at a time.
"""

from jaxlrp.methods.bias_gradients import full_grad
from jaxlrp.methods.cam import grad_cam, grad_cam_plus_plus, guided_grad_cam, layer_cam
from jaxlrp.methods.differences import deep_lift, deep_shap
from jaxlrp.methods.gradients import gradient, gradient_x_input, sensitivity
from jaxlrp.methods.modified import deconvnet, excitation_backprop, guided_backprop
from jaxlrp.methods.noise import smooth_grad, var_grad
from jaxlrp.methods.paths import expected_gradients, integrated_gradients
from jaxlrp.methods.removal import occlusion, rise
from jaxlrp.methods.rollout import attention_rollout
from jaxlrp.methods.surrogate import kernel_shap, lime
from jaxlrp.methods.taylor import Expansion, simple_taylor

__all__ = [
    "gradient",
    "sensitivity",
    "gradient_x_input",
    "simple_taylor",
    "Expansion",
    "integrated_gradients",
    "expected_gradients",
    "smooth_grad",
    "var_grad",
    "deep_lift",
    "deep_shap",
    "guided_backprop",
    "deconvnet",
    "excitation_backprop",
    "grad_cam",
    "grad_cam_plus_plus",
    "layer_cam",
    "guided_grad_cam",
    "full_grad",
    "occlusion",
    "rise",
    "kernel_shap",
    "lime",
    "attention_rollout",
]
