"""The networks whose relevance is stored in tests/data, in plain JAX and in Flax."""

import functools
import pathlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

DATA = pathlib.Path(__file__).parent / "data"


@functools.cache
def load(name):
    """A stored pack as a dictionary of arrays."""
    with np.load(DATA / f"{name}.npz", allow_pickle=False) as pack:
        return {key: pack[key] for key in pack.files}


def tree(pack, prefix):
    """The entries below `prefix` as nested dictionaries."""
    nested = {}
    for key, value in pack.items():
        if key.startswith(prefix):
            *path, leaf = key.removeprefix(prefix).split("/")
            node = nested
            for part in path:
                node = node.setdefault(part, {})
            node[leaf] = value
    return nested


def conv(x, kernel, stride=1, padding="VALID"):
    """NHWC with an HWIO kernel; a missing batch axis is allowed."""
    single = x.ndim == 3
    out = lax.conv_general_dilated(
        x[None] if single else x,
        kernel,
        (stride, stride),
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return out[0] if single else out


def max_pool(x, size, stride=None):
    steps = (1, stride or size, stride or size, 1)
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, size, size, 1), steps, "VALID")


def avg_pool(x, size):
    window = (1, size, size, 1)
    return lax.reduce_window(x, 0.0, lax.add, window, window, "VALID") / size**2


SAME_3X3 = ((1, 1), (1, 1))

# --- the small CNN


def cnn(params, x):
    """Plain functions; every layer under a named scope."""

    def linear(name, x):
        p = params[name]
        with jax.named_scope(name):
            y = conv(x, p["kernel"], padding=SAME_3X3) if x.ndim == 4 else x @ p["kernel"]
            return y + p["bias"]

    def relu(name, x):
        with jax.named_scope(name):
            return jnp.maximum(x, 0)

    x = relu("relu1", linear("conv1", x))
    with jax.named_scope("pool1"):
        x = max_pool(x, 2)
    x = relu("relu2", linear("conv2", x))
    with jax.named_scope("pool2"):
        x = avg_pool(x, 2)
    with jax.named_scope("flatten"):
        x = x.reshape(x.shape[0], -1)
    x = relu("relu3", linear("fc1", x))
    return linear("fc2", x)


class CNN(nn.Module):
    """The same in Flax Linen."""

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(8, (3, 3), padding=SAME_3X3, param_dtype=jnp.float64, name="conv1")(x)
        with jax.named_scope("relu1"):
            x = nn.relu(x)
        with jax.named_scope("pool1"):
            x = nn.max_pool(x, (2, 2), (2, 2))
        x = nn.Conv(16, (3, 3), padding=SAME_3X3, param_dtype=jnp.float64, name="conv2")(x)
        with jax.named_scope("relu2"):
            x = nn.relu(x)
        with jax.named_scope("pool2"):
            x = nn.avg_pool(x, (2, 2), (2, 2))
        with jax.named_scope("flatten"):
            x = x.reshape(x.shape[0], -1)
        x = nn.Dense(32, param_dtype=jnp.float64, name="fc1")(x)
        with jax.named_scope("relu3"):
            x = nn.relu(x)
        return nn.Dense(10, param_dtype=jnp.float64, name="fc2")(x)


# --- the small ResNet, batch norm not folded

# name, kernels of the main branch, stride, which convolution strides, has the shortcut a projection
BLOCKS = (
    ("block1", ("conv1", "conv2"), 1, "conv1", False),
    ("block2", ("conv1", "conv2"), 2, "conv1", True),
    ("block3", ("conv1", "conv2", "conv3"), 2, "conv2", True),
)


def batch_norm(p, x):
    return (x - p["mean"]) * (p["scale"] / jnp.sqrt(p["var"] + p["eps"])) + p["bias"]


def resnet(params, x):
    """Plain functions; every layer under a named scope."""

    def conv_norm(block, conv_name, norm_name, x, stride=1):
        p = params if block is None else params[block]
        kernel = p[conv_name] if block else params["stem_conv"]
        with jax.named_scope(conv_name):
            padding = SAME_3X3 if kernel["kernel"].shape[0] == 3 else "VALID"
            x = conv(x, kernel["kernel"], stride, padding)
        with jax.named_scope(norm_name):
            return batch_norm(p[norm_name], x)

    def relu(name, x):
        with jax.named_scope(name):
            return jax.nn.relu(x)

    x = relu("stem_relu", conv_norm(None, "stem_conv", "stem_bn", x))
    for block, convs, stride, strided, down in BLOCKS:
        with jax.named_scope(block):
            y = x
            for index, name in enumerate(convs, 1):
                y = conv_norm(block, name, f"bn{index}", y, stride if name == strided else 1)
                if index < len(convs):
                    y = relu(f"relu{index}", y)
            skip = conv_norm(block, "down_conv", "down_bn", x, stride) if down else x
            with jax.named_scope("add"):
                y = y + skip
            x = relu("relu_out", y)
    with jax.named_scope("gap"):
        x = x.mean((1, 2))
    with jax.named_scope("fc"):
        return x @ params["fc"]["kernel"] + params["fc"]["bias"]


class Block(nn.Module):
    convs: tuple
    stride: int
    strided: str
    down: bool
    widths: tuple

    @nn.compact
    def __call__(self, x):
        def conv_norm(conv_name, norm_name, x, width, kernel, stride):
            padding = SAME_3X3 if kernel == 3 else "VALID"
            x = nn.Conv(
                width,
                (kernel, kernel),
                (stride, stride),
                padding=padding,
                use_bias=False,
                param_dtype=jnp.float64,
                name=conv_name,
            )(x)
            norm = nn.BatchNorm(True, epsilon=1e-3, param_dtype=jnp.float64, name=norm_name)
            return norm(x)

        y = x
        for index, (name, width, kernel) in enumerate(zip(self.convs, *self.widths), 1):
            stride = self.stride if name == self.strided else 1
            y = conv_norm(name, f"bn{index}", y, width, kernel, stride)
            if index < len(self.convs):
                with jax.named_scope(f"relu{index}"):
                    y = nn.relu(y)
        if self.down:
            x = conv_norm("down_conv", "down_bn", x, self.widths[0][-1], 1, self.stride)
        with jax.named_scope("add"):
            y = y + x
        with jax.named_scope("relu_out"):
            return nn.relu(y)


class ResNet(nn.Module):
    """The same in Flax Linen."""

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(
            8, (3, 3), padding=SAME_3X3, use_bias=False, param_dtype=jnp.float64, name="stem_conv"
        )(x)
        x = nn.BatchNorm(True, epsilon=1e-3, param_dtype=jnp.float64, name="stem_bn")(x)
        with jax.named_scope("stem_relu"):
            x = nn.relu(x)
        widths = {
            "block1": ((8, 8), (3, 3)),
            "block2": ((16, 16), (3, 3)),
            "block3": ((8, 8, 32), (1, 3, 1)),
        }
        for name, convs, stride, strided, down in BLOCKS:
            x = Block(convs, stride, strided, down, widths[name], name=name)(x)
        with jax.named_scope("gap"):
            x = x.mean((1, 2))
        return nn.Dense(10, param_dtype=jnp.float64, name="fc")(x)


def linen(name):
    """The Flax module of a pack and its variables."""
    params = tree(load(name), "params/")
    if name == "zennit_cnn":
        return CNN(), {"params": params}

    def split(node):
        weights, statistics = {}, {}
        for key, child in node.items():
            if "mean" in child:
                assert child["eps"] == 1e-3
                weights[key] = {k: child[k] for k in ("scale", "bias")}
                statistics[key] = {k: child[k] for k in ("mean", "var")}
            elif "kernel" in child:
                weights[key] = child
            else:
                weights[key], statistics[key] = split(child)
        return weights, statistics

    weights, statistics = split(params)
    return ResNet(), {"params": weights, "batch_stats": statistics}
