"""The networks that the benchmarks explain: convolutional ones, a perceptron, ViT and BERT.

Written in Flax Linen as anyone would write them; nothing here knows of relevance. Weights are
random (He), and so are the BatchNorm statistics.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np


class VGG16(nn.Module):
    """Thirteen convolutions in five stages, then three dense layers."""

    classes: int = 1000

    @nn.compact
    def __call__(self, x):
        for width, depth in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
            for _ in range(depth):
                x = nn.relu(nn.Conv(width, (3, 3))(x))
            x = nn.max_pool(x, (2, 2), (2, 2))
        x = x.reshape(x.shape[0], -1)
        for _ in range(2):
            x = nn.relu(nn.Dense(4096)(x))
        return nn.Dense(self.classes)(x)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolution with a skip; the 3x3 strides, as in the usual weights."""

    width: int
    stride: int = 1

    @nn.compact
    def __call__(self, x):
        def conv(x, width, size, stride=1):
            x = nn.Conv(width, (size, size), (stride, stride), use_bias=False)(x)
            return nn.BatchNorm(use_running_average=True)(x)

        y = nn.relu(conv(x, self.width, 1))
        y = nn.relu(conv(y, self.width, 3, self.stride))
        y = conv(y, 4 * self.width, 1)
        if x.shape != y.shape:
            x = conv(x, 4 * self.width, 1, self.stride)
        return nn.relu(x + y)


class ResNet(nn.Module):
    """A stem and bottleneck blocks: sixteen in ResNet50, fifty in ResNet152."""

    depths: tuple[int, ...] = (3, 4, 6, 3)
    classes: int = 1000

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(64, (7, 7), (2, 2), use_bias=False)(x)
        x = nn.relu(nn.BatchNorm(use_running_average=True)(x))
        x = nn.max_pool(x, (3, 3), (2, 2), padding="SAME")
        for stage, depth in enumerate(self.depths):
            for block in range(depth):
                stride = 2 if stage and not block else 1
                x = Bottleneck(64 * 2**stage, stride)(x)
        return nn.Dense(self.classes)(x.mean(axis=(1, 2)))


class InvertedResidual(nn.Module):
    """Widen by 1x1, filter each channel, narrow by 1x1; a skip where the shape stays."""

    features: int
    size: int
    stride: int
    expansion: int

    @nn.compact
    def __call__(self, x):
        def conv(x, width, size, stride=1, groups=1):
            sizes, strides = (size, size), (stride, stride)
            x = nn.Conv(width, sizes, strides, feature_group_count=groups, use_bias=False)(x)
            return nn.BatchNorm(use_running_average=True)(x)

        wide = self.expansion * x.shape[-1]
        y = nn.relu6(conv(x, wide, 1)) if self.expansion > 1 else x
        y = nn.relu6(conv(y, wide, self.size, self.stride, wide))
        y = conv(y, self.features, 1)
        return x + y if x.shape == y.shape else y


# Repeats, kernel, stride, expansion and channels of the stages of EfficientNet-Lite0.
LITE0 = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


class EfficientNetLite0(nn.Module):
    """Inverted residuals with ReLU6, as in the usual weights."""

    classes: int = 1000

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(32, (3, 3), (2, 2), use_bias=False)(x)
        x = nn.relu6(nn.BatchNorm(use_running_average=True)(x))
        for repeats, size, stride, expansion, features in LITE0:
            for block in range(repeats):
                x = InvertedResidual(features, size, 1 if block else stride, expansion)(x)
        x = nn.Conv(1280, (1, 1), use_bias=False)(x)
        x = nn.relu6(nn.BatchNorm(use_running_average=True)(x))
        return nn.Dense(self.classes)(x.mean(axis=(1, 2)))


class MLP(nn.Module):
    """Twelve dense layers, with ReLU between them."""

    width: int = 1024
    depth: int = 12
    classes: int = 1000

    @nn.compact
    def __call__(self, x):
        for _ in range(self.depth - 1):
            x = nn.relu(nn.Dense(self.width)(x))
        return nn.Dense(self.classes)(x)


class Attention(nn.Module):
    """Self-attention with several heads, as einsums."""

    heads: int = 12

    @nn.compact
    def __call__(self, x):
        shape = (self.heads, x.shape[-1] // self.heads)
        q, k, v = (nn.DenseGeneral(shape, name=name)(x) for name in ("query", "key", "value"))
        scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) / np.sqrt(shape[-1]).astype(x.dtype)
        mixed = jnp.einsum("bhqk,bkhd->bqhd", nn.softmax(scores), v)
        return nn.DenseGeneral(x.shape[-1], axis=(-2, -1), name="out")(mixed)


class Block(nn.Module):
    """One layer of a transformer, with the norms before or after each half."""

    before: bool

    @nn.compact
    def __call__(self, x):
        def mlp(x):
            return nn.Dense(x.shape[-1])(nn.gelu(nn.Dense(4 * x.shape[-1])(x)))

        if self.before:
            x = x + Attention()(nn.LayerNorm()(x))
            return x + mlp(nn.LayerNorm()(x))
        x = nn.LayerNorm()(x + Attention()(x))
        return nn.LayerNorm()(x + mlp(x))


class ViT(nn.Module):
    """The shape of ViT-B/16: 196 patches and a class token, twelve layers, width 768."""

    classes: int = 1000
    remat: bool = False

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(768, (16, 16), (16, 16))(x).reshape(x.shape[0], -1, 768)
        token = self.param("token", nn.initializers.zeros, (1, 1, 768))
        x = jnp.concatenate([jnp.broadcast_to(token, (x.shape[0], 1, 768)), x], axis=1)
        x = x + self.param("position", nn.initializers.zeros, (1, x.shape[1], 768))
        block = nn.remat(Block) if self.remat else Block
        for _ in range(12):
            x = block(before=True)(x)
        return nn.Dense(self.classes)(nn.LayerNorm()(x)[:, 0])


class BERT(nn.Module):
    """The shape of BERT-base on 128 embedded tokens: twelve layers, width 768."""

    classes: int = 2

    @nn.compact
    def __call__(self, x):
        x = nn.LayerNorm()(x)
        for _ in range(12):
            x = Block(before=False)(x)
        return nn.Dense(self.classes)(jnp.tanh(nn.Dense(768)(x[:, 0])))


def rotate(x):
    """Rotary positions on (batch, length, heads, width)."""
    half = x.shape[-1] // 2
    angles = jnp.arange(x.shape[1])[:, None] * 10_000.0 ** (-jnp.arange(half) / half)
    cos, sin = (f(angles)[:, None, :].astype(x.dtype) for f in (jnp.cos, jnp.sin))
    a, b = x[..., :half], x[..., half:]
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


class Network(NamedTuple):
    """`fn(params, x)` gives logits; `x` lies within [-3, 3]."""

    fn: Callable[[Any, jax.Array], jax.Array]
    params: Any
    x: jax.Array


MODELS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "vgg16": (VGG16(), (224, 224, 3)),
    "resnet50": (ResNet(), (224, 224, 3)),
    "resnet152": (ResNet((3, 8, 36, 3)), (224, 224, 3)),
    "efficientnet_lite0": (EfficientNetLite0(), (224, 224, 3)),
    "mlp": (MLP(), (1024,)),
    "vit": (ViT(), (224, 224, 3)),
    "vit_remat": (ViT(remat=True), (224, 224, 3)),
    "bert": (BERT(), (128, 768)),
}


def build(name: str, batch: int, seed: int = 0) -> Network:
    """A network with random weights and an input of `batch` examples."""
    model, shape = MODELS[name]
    rng = np.random.default_rng(seed)
    x = np.clip(rng.standard_normal((batch, *shape), np.float32), -3.0, 3.0)

    def draw(path, leaf):
        kind = path[-1].key
        if kind == "kernel":
            scale = np.sqrt(2.0 / np.prod(leaf.shape[:-1]))
            return jnp.asarray(rng.standard_normal(leaf.shape, np.float32) * np.float32(scale))
        if kind in ("scale", "var"):
            return jnp.asarray(rng.uniform(0.5, 1.5, leaf.shape), leaf.dtype)
        return jnp.asarray(0.1 * rng.standard_normal(leaf.shape), leaf.dtype)

    shapes = jax.eval_shape(model.init, jax.random.key(0), x)
    return Network(model.apply, jax.tree_util.tree_map_with_path(draw, shapes), jnp.asarray(x))
