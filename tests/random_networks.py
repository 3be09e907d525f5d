"""Random feed-forward networks: a description drawn by hypothesis, the weights, and an interpreter.

The description is plain data, so that one and the same network can be run in either memory layout,
with its reused weights tied or copied, and with parts of it behind `jax.checkpoint`.
"""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st
from jax import lax

ACTIVATIONS = {
    "relu": jax.nn.relu,
    "maximum": lambda x: jnp.maximum(x, 0.0),
    "where": lambda x: jnp.where(x > 0, x, 0.0),
    "leaky_relu": jax.nn.leaky_relu,
    "tanh": jnp.tanh,
    "gelu": jax.nn.gelu,
    "silu": jax.nn.silu,
}
# Piecewise linear and 0 at 0: there LRP-0 is input times gradient.
RECTIFIERS = ("relu", "maximum", "where", "leaky_relu")


@dataclass(frozen=True)
class Op:
    """One step; `branch` is what residual and concat run beside the identity."""

    kind: str
    options: tuple = ()
    branch: tuple = ()
    key: str = ""


@dataclass(frozen=True)
class Network:
    shape: tuple  # of one NHWC sample
    ops: tuple
    head: str
    classes: int
    bias: bool
    seed: int


@st.composite
def networks(draw, bias=None, activations=tuple(ACTIVATIONS), pools=("max", "avg"), max_ops=4):
    """A network on images of odd shapes; `bias` None lets the draw decide."""
    shape = (draw(st.integers(3, 7)), draw(st.integers(3, 7)), draw(st.integers(1, 3)))
    counter = iter(range(100))

    def step(size, depth):
        """One random op and the (height, width, channels) that it leaves."""
        height, width, channels = size
        kinds = ["conv", "conv", "dense", "activation", "reuse"]
        if depth:
            kinds += ["residual", "concat"]
            kinds += ["pool"] if pools and min(height, width) >= 2 else []
        kind = draw(st.sampled_from(kinds))
        key = f"p{next(counter)}"
        if kind == "activation":
            return Op(kind, (draw(st.sampled_from(activations)),)), size
        if kind == "pool":
            which, window = draw(st.sampled_from(pools)), draw(st.integers(2, 2))
            stride = draw(st.integers(1, 2))
            left = tuple((n - window) // stride + 1 for n in (height, width))
            return Op(kind, (which, window, stride)), (*left, channels)
        if kind == "dense":
            out = draw(st.integers(1, 4))
            return Op(kind, (channels, out), key=key), (height, width, out)
        if kind == "reuse":
            # The same weights twice, with an activation between.
            act = draw(st.sampled_from(activations))
            return Op(kind, (channels, act), key=key), size
        if kind == "conv":
            kernel = (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
            stride, dilation = draw(st.sampled_from([(1, 1), (2, 1), (1, 2)]))
            groups = draw(st.sampled_from([1, channels]))
            out = groups * draw(st.integers(1, 3))
            padding = "SAME" if not depth else draw(st.sampled_from(["SAME", "VALID"]))
            reach = tuple((k - 1) * dilation + 1 for k in kernel)
            if padding == "VALID" and (reach[0] > height or reach[1] > width):
                padding = "SAME"
            stride = 1 if not depth else stride
            if padding == "SAME":
                left = tuple(math.ceil(n / stride) for n in (height, width))
            else:
                left = tuple((n - r) // stride + 1 for n, r in zip((height, width), reach))
            options = (kernel, stride, dilation, groups, channels, out, padding)
            return Op(kind, options, key=key), (*left, out)
        # Branches keep height and width; a residual one comes back to as many channels.
        inner, left = [], size
        for _ in range(draw(st.integers(1, 2))):
            op, left = step(left, 0)
            inner.append(op)
        if kind == "residual":
            inner.append(Op("dense", (left[-1], channels), key=key))
            return Op(kind, branch=tuple(inner)), size
        return Op(kind, branch=tuple(inner)), (height, width, channels + left[-1])

    ops, size = [], shape
    for _ in range(draw(st.integers(2, max_ops))):
        op, size = step(size, 1)
        ops.append(op)
    # The last activation keeps two linear layers from meeting at the head.
    ops.append(Op("activation", (draw(st.sampled_from(activations)),)))
    head = draw(st.sampled_from(["flatten", "mean"] if "avg" in pools else ["flatten"]))
    return Network(
        shape=shape,
        ops=tuple(ops),
        head=head,
        classes=draw(st.integers(2, 4)),
        bias=draw(st.booleans()) if bias is None else bias,
        seed=draw(st.integers(0, 2**16)),
    )


def parameters(network):
    """Weights and biases by key, float64; the head's are under "head"."""
    rng = np.random.default_rng(network.seed)
    params = {}

    def linear(key, shape, fan_in, outputs):
        params[key] = {"kernel": rng.normal(size=shape) / math.sqrt(fan_in)}
        if network.bias:
            params[key]["bias"] = 0.3 * rng.normal(size=outputs)

    def visit(ops):
        for op in ops:
            visit(op.branch)
            if op.kind == "dense":
                linear(op.key, op.options, *op.options)
            elif op.kind == "reuse":
                channels = op.options[0]
                linear(op.key, (channels, channels), channels, channels)
            elif op.kind == "conv":
                kernel, _, _, groups, channels, out, _ = op.options
                per_group = channels // groups
                linear(op.key, (*kernel, per_group, out), kernel[0] * kernel[1] * per_group, out)

    visit(network.ops)
    height, width, channels = jax.eval_shape(
        lambda x: body(network, params, x), np.zeros((1, *network.shape))
    ).shape[1:]
    if network.head == "flatten":
        size = height * width * channels
        linear("head", (height, width, channels, network.classes), size, network.classes)
    else:
        linear("head", (channels, network.classes), channels, network.classes)
    return params


def sample(network, batch=2):
    return np.random.default_rng(network.seed + 1).normal(size=(batch, *network.shape))


def body(network, params, x, nchw=False, copied=False, remat=False):
    """Everything but the head. `copied` gives a reused layer's second call weights of its own."""
    space, channel_axis = ("hw", 1) if nchw else ("hw", 3)
    axes = "nc" + space if nchw else "n" + space + "c"

    def add_bias(p, y):
        if "bias" not in p:
            return y
        return y + (p["bias"][:, None, None] if nchw else p["bias"])

    def dense(p, y):
        return add_bias(p, jnp.einsum(f"{axes},cd->{axes.replace('c', 'd')}", y, p["kernel"]))

    def pool(which, window, stride, y):
        place = (lambda n: (1, 1, n, n)) if nchw else (lambda n: (1, n, n, 1))
        if which == "max":
            return lax.reduce_window(y, -jnp.inf, lax.max, place(window), place(stride), "VALID")
        total = lax.reduce_window(y, 0.0, lax.add, place(window), place(stride), "VALID")
        return total / window**2

    def run(ops, y):
        for op in ops:
            with jax.named_scope(op.key or op.kind):
                if op.kind == "activation":
                    y = ACTIVATIONS[op.options[0]](y)
                elif op.kind == "pool":
                    y = pool(*op.options, y)
                elif op.kind == "dense":
                    y = dense(params[op.key], y)
                elif op.kind == "reuse":
                    p = params[op.key]
                    again = jax.tree.map(np.copy, p) if copied else p
                    y = dense(again, ACTIVATIONS[op.options[1]](dense(p, y)))
                elif op.kind == "conv":
                    _, stride, dilation, groups, _, _, padding = op.options
                    layout = "NCHW" if nchw else "NHWC"
                    y = lax.conv_general_dilated(
                        y,
                        params[op.key]["kernel"],
                        (stride, stride),
                        padding,
                        rhs_dilation=(dilation, dilation),
                        dimension_numbers=(layout, "HWIO", layout),
                        feature_group_count=groups,
                    )
                    y = add_bias(params[op.key], y)
                else:
                    branch = jax.checkpoint(lambda y, op=op: run(op.branch, y)) if remat else None
                    other = branch(y) if remat else run(op.branch, y)
                    y = (
                        y + other
                        if op.kind == "residual"
                        else lax.concatenate([y, other], channel_axis)
                    )
        return y

    return run(network.ops, x)


def apply(network, params, x, nchw=False, copied=False, remat=False):
    """The logits. With `nchw`, x is NCHW too."""
    forward = jax.checkpoint(body, static_argnums=(0, 3, 4, 5)) if remat else body
    y = forward(network, params, x, nchw, copied, remat)
    p = params["head"]
    with jax.named_scope("head"):
        if network.head == "flatten":
            logits = jnp.einsum("nchw,hwcd->nd" if nchw else "nhwc,hwcd->nd", y, p["kernel"])
        else:
            logits = y.mean((2, 3) if nchw else (1, 2)) @ p["kernel"]
        return logits + p["bias"] if network.bias else logits
