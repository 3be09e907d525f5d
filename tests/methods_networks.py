"""The small networks of Captum's stored numbers, written in JAX."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

STORED = dict(np.load(Path(__file__).parent / "data" / "captum.npz"))
ACTIVATIONS = {"relu": jax.nn.relu, "tanh": jnp.tanh, "sigmoid": jax.nn.sigmoid}


def mlp(activation):
    """6-8-8-3, of rows."""
    f = ACTIVATIONS[activation]
    W = [
        (STORED[f"mlp.{activation}.{n}.weight"].T, STORED[f"mlp.{activation}.{n}.bias"])
        for n in ("first", "second", "last")
    ]

    def network(x):
        h = f(x @ W[0][0] + W[0][1])
        return f(h @ W[1][0] + W[1][1]) @ W[2][0] + W[2][1]

    return network


def _conv(x, name):
    y = jax.lax.conv_general_dilated(
        x,
        STORED[f"cnn.{name}.weight"],
        (1, 1),
        "SAME",
        dimension_numbers=("NCHW", "OIHW", "NCHW"),
    )
    return y + STORED[f"cnn.{name}.bias"][:, None, None]


def _max_pool(h):
    return jax.lax.reduce_window(h, -jnp.inf, jax.lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")


def _avg_pool(h):
    return h.reshape(*h.shape[:2], h.shape[2] // 2, 2, h.shape[3] // 2, 2).mean((3, 5))


def cnn(x, averaging=False):
    """A batch NCHW, two channels of 8 x 8; three classes."""
    h = jax.nn.relu(_conv(x, "conv1"))
    h = jax.nn.relu(_conv((_avg_pool if averaging else _max_pool)(h), "conv2"))
    h = h.reshape(x.shape[0], -1)
    return h @ STORED["cnn.head.weight"].T + STORED["cnn.head.bias"]
