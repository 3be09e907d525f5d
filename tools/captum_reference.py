"""Writes tests/data/captum.npz: what Captum says of small networks in float64.

Needs `torch==2.13.0`, `captum==0.9.0` and scikit-learn, which no extra of this project installs:

    python tools/captum_reference.py --out tests/data/captum.npz

The networks are an MLP (6-8-8-3) with ReLU, tanh or sigmoid, and a small convolutional network
(NCHW). Their weights, the inputs and the attributions are stored under one name each.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import captum.attr as ca
import numpy as np
import torch
from captum._utils.models.linear_model import SkLearnLinearRegression
from torch import nn

torch.set_default_dtype(torch.float64)


class MLP(nn.Module):
    def __init__(self, activation):
        super().__init__()
        self.first, self.second, self.last = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.act1, self.act2 = activation(), activation()

    def forward(self, x):
        return self.last(self.act2(self.second(self.act1(self.first(x)))))


class CNN(nn.Module):
    def __init__(self, pool):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 5, 3, padding=1)
        self.head = nn.Linear(5 * 16, 3)
        self.relu1, self.relu2, self.pool = nn.ReLU(), nn.ReLU(), pool(2)

    def forward(self, x):
        x = self.pool(self.relu1(self.conv1(x)))
        return self.head(torch.flatten(self.relu2(self.conv2(x)), 1))


def weights_of(prefix, model):
    return {f"{prefix}.{k}": v.detach().numpy() for k, v in model.state_dict().items()}


def of_mlp(arrays):
    x = torch.randn(4, 6)
    baseline = torch.randn(1, 6)
    target = torch.tensor([0, 2, 1, 2])
    references = torch.randn(5, 6)
    arrays.update({"mlp.x": x, "mlp.baseline": baseline, "mlp.target": target})
    arrays["mlp.references"] = references
    for name, activation in {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}.items():
        torch.manual_seed(1)
        model = MLP(activation)
        arrays.update(weights_of(f"mlp.{name}", model))
        found = {
            "gradient": ca.Saliency(model).attribute(x, target=target, abs=False),
            "gradient_x_input": ca.InputXGradient(model).attribute(x, target=target),
            "deep_lift": ca.DeepLift(model).attribute(x, baseline, target=target),
        }
        shap = ca.DeepLiftShap(model)
        found["deep_shap"] = shap.attribute(x, references, target=target)
        rules = {
            "gauss_legendre": "gausslegendre",
            "riemann_left": "riemann_left",
            "riemann_right": "riemann_right",
            "riemann_middle": "riemann_middle",
            "riemann_trapezoid": "riemann_trapezoid",
        }
        ig = ca.IntegratedGradients(model)
        for ours, theirs in rules.items():
            R, delta = ig.attribute(
                x, baseline, target=target, n_steps=20, method=theirs, return_convergence_delta=True
            )
            found[f"ig.{ours}"], found[f"ig.{ours}.delta"] = R, delta
        found["guided_backprop"] = ca.GuidedBackprop(model).attribute(x, target=target)
        found["deconvnet"] = ca.Deconvolution(model).attribute(x, target=target)
        segments = torch.tensor([[0, 0, 1, 2, 3, 3]])
        ablation = ca.FeatureAblation(model)
        found["ablation"] = ablation.attribute(x, baseline, target=target, feature_mask=segments)
        shapley = ca.ShapleyValues(model)
        found["shapley"] = shapley.attribute(x, baseline, target=target, feature_mask=segments)
        arrays.update({f"mlp.{name}.{k}": v for k, v in found.items()})


def of_cnn(arrays):
    torch.manual_seed(2)
    model = CNN(nn.MaxPool2d)
    averaging = CNN(nn.AvgPool2d)
    averaging.load_state_dict(model.state_dict())
    x, baseline = torch.randn(2, 2, 8, 8), torch.randn(1, 2, 8, 8)
    target = torch.tensor([1, 0])
    arrays.update(weights_of("cnn", model))
    arrays.update({"cnn.x": x, "cnn.baseline": baseline, "cnn.target": target})
    found = {
        "gradient": ca.Saliency(model).attribute(x, target=target, abs=False),
        "deep_lift": ca.DeepLift(model).attribute(x, baseline, target=target),
        "averaging.deep_lift": ca.DeepLift(averaging).attribute(x, baseline, target=target),
        "guided_backprop": ca.GuidedBackprop(model).attribute(x, target=target),
        "deconvnet": ca.Deconvolution(model).attribute(x, target=target),
        "grad_cam": ca.LayerGradCam(model, model.relu2).attribute(
            x, target=target, relu_attributions=True
        ),
        "guided_grad_cam": ca.GuidedGradCam(model, model.relu2).attribute(
            x, target=target, interpolate_mode="bilinear"
        ),
        "occlusion": ca.Occlusion(model).attribute(
            x, (2, 3, 3), strides=(2, 2, 2), baselines=baseline, target=target
        ),
        "layer_values": ca.LayerActivation(model, model.relu2).attribute(x),
    }
    arrays.update({f"cnn.{k}": v for k, v in found.items()})


def of_lime(arrays):
    """The linear model of LIME on stored samples, with the kernel that we document."""
    torch.manual_seed(1)
    model = MLP(nn.ReLU)
    x, baseline = arrays["mlp.x"][:1], arrays["mlp.baseline"]
    z = torch.bernoulli(torch.full((40, 6), 0.5))
    rows = iter(z)

    def weigh(original, perturbed, interpretable, **_):
        distance = 1 - torch.sqrt(interpretable.mean())
        return torch.exp(-((distance / 0.25) ** 2))

    method = ca.Lime(
        model,
        interpretable_model=SkLearnLinearRegression(),
        similarity_func=weigh,
        perturb_func=lambda *_, **__: next(rows)[None],
    )
    R = method.attribute(x, baseline, target=1, n_samples=len(z))
    arrays.update({"lime.z": z, "lime.coefficients": R})


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("tests/data/captum.npz"))
    args = parser.parse_args()
    torch.manual_seed(0)
    arrays = {}
    of_mlp(arrays)
    of_cnn(arrays)
    of_lime(arrays)
    stored = {
        k: v.detach().numpy() if isinstance(v, torch.Tensor) else v for k, v in arrays.items()
    }
    np.savez_compressed(args.out, **stored)
    print(f"{len(stored)} arrays in {args.out}")


if __name__ == "__main__":
    main()
