"""Convolutional networks of `benchmarks/networks.py` as PyTorch modules, with the same weights.

Every layer is a module, in the order in which it runs, as Zennit asks for. Where Flax pads unevenly
(`SAME` under a stride) the convolution does too: rules that replace its input must not reach zeros
that are padded.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import operators  # noqa: F401
import torch
from networks import LITE0
from torch import nn
from zennit.layer import Sum


def numbers(array: Any) -> torch.Tensor:
    return torch.from_numpy(np.array(array))


class Padded(nn.Conv2d):
    """A convolution that pads at the end of both axes by more than at the start."""

    before, after = 0, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(nn.functional.pad(x, (self.before, self.after) * 2))


def _conv(weights: Mapping[str, Any], stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """Padded as `SAME` pads an even number of pixels."""
    size, _, inputs, outputs = weights["kernel"].shape
    layer = Padded(inputs * groups, outputs, size, stride, groups=groups, bias="bias" in weights)
    total = max(size - stride, 0)
    layer.before, layer.after = total // 2, total - total // 2
    layer.weight.data = numbers(weights["kernel"].transpose(3, 2, 0, 1))
    if "bias" in weights:
        layer.bias.data = numbers(weights["bias"])
    return layer


def _norm(weights: Mapping[str, Any], statistics: Mapping[str, Any]) -> nn.BatchNorm2d:
    layer = nn.BatchNorm2d(len(weights["scale"]), eps=1e-5)
    layer.weight.data, layer.bias.data = numbers(weights["scale"]), numbers(weights["bias"])
    layer.running_mean, layer.running_var = map(numbers, (statistics["mean"], statistics["var"]))
    return layer


def _dense(weights: Mapping[str, Any], picture: tuple[int, int, int] | None = None) -> nn.Linear:
    """A dense layer; with `picture` its inputs are pixels with channels last, here first."""
    kernel = np.asarray(weights["kernel"])
    if picture is not None:
        kernel = kernel.reshape(*picture, -1).transpose(2, 0, 1, 3).reshape(kernel.shape)
    layer = nn.Linear(*kernel.shape)
    layer.weight.data, layer.bias.data = numbers(kernel.T), numbers(weights["bias"])
    return layer


def vgg16(variables: Mapping[str, Any]) -> nn.Module:
    params = variables["params"]
    layers: list[nn.Module] = []
    number = 0
    for depth in (2, 2, 3, 3, 3):
        for _ in range(depth):
            layers += [_conv(params[f"Conv_{number}"]), nn.ReLU()]
            number += 1
        layers.append(nn.MaxPool2d(2, 2))
    layers += [nn.Flatten(), _dense(params["Dense_0"], (7, 7, 512)), nn.ReLU()]
    layers += [_dense(params["Dense_1"]), nn.ReLU(), _dense(params["Dense_2"])]
    return nn.Sequential(*layers)


class Bottleneck(nn.Module):
    def __init__(self, params: Mapping[str, Any], statistics: Mapping[str, Any], stride: int):
        super().__init__()

        def pair(number: int, stride: int = 1) -> list[nn.Module]:
            conv, norm = f"Conv_{number}", f"BatchNorm_{number}"
            return [_conv(params[conv], stride), _norm(params[norm], statistics[norm])]

        main = [*pair(0), nn.ReLU(), *pair(1, stride), nn.ReLU(), *pair(2)]
        self.main = nn.Sequential(*main)
        self.skip = nn.Sequential(*(pair(3, stride) if "Conv_3" in params else []))
        self.sum = Sum()
        self.relu = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.relu(self.sum(torch.stack([self.main(x), self.skip(x)], dim=-1)))


def resnet50(variables: Mapping[str, Any]) -> nn.Module:
    params, statistics = variables["params"], variables["batch_stats"]
    layers: list[nn.Module] = [
        _conv(params["Conv_0"], 2),
        _norm(params["BatchNorm_0"], statistics["BatchNorm_0"]),
        nn.ReLU(),
        nn.ZeroPad2d((0, 1, 0, 1)),  # zeros do not win: what is pooled is not negative
        nn.MaxPool2d(3, 2),
    ]
    number = 0
    for stage, depth in enumerate((3, 4, 6, 3)):
        for block in range(depth):
            name = f"Bottleneck_{number}"
            stride = 2 if stage and not block else 1
            layers.append(Bottleneck(params[name], statistics[name], stride))
            number += 1
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), _dense(params["Dense_0"])]
    return nn.Sequential(*layers)


class InvertedResidual(nn.Module):
    def __init__(self, params: Mapping[str, Any], statistics: Mapping[str, Any], stride: int):
        super().__init__()
        layers: list[nn.Module] = []
        last = sum(name.startswith("Conv_") for name in params) - 1
        for number in range(last + 1):
            conv, norm = params[f"Conv_{number}"], f"BatchNorm_{number}"
            groups = conv["kernel"].shape[-1] if number == last - 1 else 1
            layers += [
                _conv(conv, stride if number == last - 1 else 1, groups),
                _norm(params[norm], statistics[norm]),
                *([nn.ReLU6()] if number < last else []),
            ]
        self.main = nn.Sequential(*layers)
        inputs, outputs = layers[0].in_channels, layers[-2].out_channels
        self.sum = Sum() if stride == 1 and inputs == outputs else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.main(x)
        return y if self.sum is None else self.sum(torch.stack([x, y], dim=-1))


def efficientnet_lite0(variables: Mapping[str, Any]) -> nn.Module:
    params, statistics = variables["params"], variables["batch_stats"]

    def outer(number: int, stride: int) -> list[nn.Module]:
        conv, norm = f"Conv_{number}", f"BatchNorm_{number}"
        return [_conv(params[conv], stride), _norm(params[norm], statistics[norm]), nn.ReLU6()]

    layers = outer(0, 2)
    for repeats, _, stride, _, _ in LITE0:
        for block in range(repeats):
            name = f"InvertedResidual_{len(layers) - 3}"
            step = 1 if block else stride
            layers.append(InvertedResidual(params[name], statistics[name], step))
    layers += [*outer(1, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), _dense(params["Dense_0"])]
    return nn.Sequential(*layers)


MODELS: dict[str, Callable[[Mapping[str, Any]], nn.Module]] = {
    "vgg16": vgg16,
    "resnet50": resnet50,
    "efficientnet_lite0": efficientnet_lite0,
}


def build(name: str, params: Any) -> nn.Module:
    """The PyTorch module with the weights of a network of `benchmarks/networks.py`."""
    return MODELS[name](jax.tree.map(np.asarray, params)).eval().requires_grad_(False)
