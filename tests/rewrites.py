"""Other spellings of a program that compute the same and must be explained the same.

A rewrite is a small function of an `Edit`: it may put another line, or several, in the place of
one node, and answers whether it did. `SPELLINGS` holds those that only change a line.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.programs import Node, Program, names_of

# What an op may be written as. Each entry is a rewrite of its own, named "op: spelling".
SPELLINGS: dict[str, dict[str, str]] = {
    "relu": {
        "max": "jnp.maximum({0}, 0.0)",
        "nn": "jax.nn.relu({0})",
        "where": "jnp.where({0} > 0, {0}, 0.0)",
        "where not": "jnp.where({0} <= 0, 0.0, {0})",
        "min of the negative": "-jnp.minimum(-{0}, 0.0)",
        "times the test": "{0} * ({0} > 0)",
        "half of the sum with abs": "({0} + jnp.abs({0})) / 2",
        "clip": "jnp.clip({0}, 0.0, None)",
        "where of ones": "jnp.where({0} > 0, 1.0, 0.0) * {0}",
    },
    "leaky_relu": {
        "nn": "jax.nn.leaky_relu({0}, 0.1)",
        "where": "jnp.where({0} > 0, {0}, 0.1 * {0})",
        "max": "jnp.maximum({0}, 0.1 * {0})",
        "two relus": "jax.nn.relu({0}) - 0.1 * jax.nn.relu(-{0})",
        "times a choice": "{0} * jnp.where({0} > 0, 1.0, 0.1)",
        "line and relu": "0.1 * {0} + 0.9 * jax.nn.relu({0})",
    },
    "tanh": {
        "logistic": "2 * jax.nn.sigmoid(2 * {0}) - 1",
        "exp": "1 - 2 / (jnp.exp(2 * {0}) + 1)",
        "quotient": "(jnp.exp({0}) - jnp.exp(-{0})) / (jnp.exp({0}) + jnp.exp(-{0}))",
    },
    "sigmoid": {
        "logistic": "jax.nn.sigmoid({0})",
        "exp": "1 / (1 + jnp.exp(-{0}))",
        "tanh": "0.5 * (jnp.tanh(0.5 * {0}) + 1)",
        "exp over": "jnp.exp({0}) / (jnp.exp({0}) + 1)",
    },
    "silu": {
        "nn": "jax.nn.silu({0})",
        "product": "{0} * jax.nn.sigmoid({0})",
        "product commuted": "jax.nn.sigmoid({0}) * {0}",
        "quotient": "{0} / (1 + jnp.exp(-{0}))",
        "tanh": "0.5 * {0} * (1 + jnp.tanh(0.5 * {0}))",
    },
    "gelu": {
        "nn": "jax.nn.gelu({0}, approximate=False)",
        "erf": "0.5 * {0} * (1 + lax.erf({0} / 2**0.5))",
        "erf commuted": "(lax.erf({0} * 0.5**0.5) + 1) * ({0} / 2)",
        "erfc": "{0} * (0.5 * lax.erfc(-{0} * 0.5**0.5))",
        "spread": "0.5 * {0} + 0.5 * {0} * lax.erf({0} / 2**0.5)",
    },
    "softplus": {
        "nn": "jax.nn.softplus({0})",
        "log1p": "jnp.log1p(jnp.exp({0}))",
        "log": "jnp.log(1 + jnp.exp({0}))",
        "shifted": "jnp.maximum({0}, 0.0) + jnp.log1p(jnp.exp(-jnp.abs({0})))",
    },
    "hard_swish": {
        "nn": "jax.nn.hard_swish({0})",
        "clip": "{0} * jnp.clip({0} + 3, 0, 6) / 6",
        "commuted": "jnp.minimum(jnp.maximum({0} + 3, 0), 6) * {0} * (1 / 6)",
        "where": "{0} * jnp.where({0} > 3, 1.0, jnp.where({0} < -3, 0.0, ({0} + 3) / 6))",
    },
    "abs": {
        "max": "jnp.maximum({0}, -{0})",
        "where": "jnp.where({0} < 0, -{0}, {0})",
        "sign": "{0} * jnp.sign({0})",
        "two relus": "jax.nn.relu({0}) + jax.nn.relu(-{0})",
    },
    "square": {
        "product": "{0} * {0}",
        "pow": "{0} ** 2",
        "square": "jnp.square({0})",
        "negatives": "(-{0}) * (-{0})",
    },
    "layer_norm": {
        "var": "({0} - {0}.mean(-1, keepdims=True))"
        " / jnp.sqrt({0}.var(-1, keepdims=True) + 1e-3) * {1} + {2}",
        "rsqrt": "({0} - {0}.mean(-1, keepdims=True))"
        " * lax.rsqrt({0}.var(-1, keepdims=True) + 1e-3) * {1} + {2}",
        "scale first": "{1} * ({0} - {0}.mean(-1, keepdims=True))"
        " * lax.rsqrt({0}.var(-1, keepdims=True) + 1e-3) + {2}",
        "scale on the root": "({0} - {0}.mean(-1, keepdims=True))"
        " * ({1} / jnp.sqrt({0}.var(-1, keepdims=True) + 1e-3)) + {2}",
        "scale on rsqrt": "({0} - {0}.mean(-1, keepdims=True))"
        " * ({1} * lax.rsqrt({0}.var(-1, keepdims=True) + 1e-3)) + {2}",
        "mean of squares": "({0} - {0}.mean(-1, keepdims=True)) * lax.rsqrt("
        "({0} ** 2).mean(-1, keepdims=True) - {0}.mean(-1, keepdims=True) ** 2 + 1e-3) * {1} + {2}",
        "power": "({0} - {0}.mean(-1, keepdims=True))"
        " * ({0}.var(-1, keepdims=True) + 1e-3) ** -0.5 * {1} + {2}",
        "backwards": "-({0}.mean(-1, keepdims=True) - {0})"
        " / jnp.sqrt({0}.var(-1, keepdims=True) + 1e-3) * {1} + {2}",
        "negated scale": "({0}.mean(-1, keepdims=True) - {0})"
        " / jnp.sqrt({0}.var(-1, keepdims=True) + 1e-3) * -{1} + {2}",
        "centred twice": "({0} - {0}.mean(-1, keepdims=True)) / jnp.sqrt((jnp.square({0}"
        " - {0}.mean(-1, keepdims=True))).mean(-1, keepdims=True) + 1e-3) * {1} + {2}",
        "sums": "({0} - {0}.sum(-1, keepdims=True) / {0}.shape[-1])"
        " / jnp.sqrt({0}.var(-1, keepdims=True) + 1e-3) * {1} + {2}",
        "reciprocal": "({0} - {0}.mean(-1, keepdims=True))"
        " * (1 / jnp.sqrt({0}.var(-1, keepdims=True) + 1e-3)) * {1} + {2}",
        "spread": "{0} * (lax.rsqrt({0}.var(-1, keepdims=True) + 1e-3) * {1}) + ({2}"
        " - {0}.mean(-1, keepdims=True) * (lax.rsqrt({0}.var(-1, keepdims=True) + 1e-3) * {1}))",
        "one plus": "({0} - {0}.mean(-1, keepdims=True))"
        " / jnp.sqrt({0}.var(-1, keepdims=True) + 1e-3) * (1 + ({1} - 1)) + {2}",
    },
    "rms_norm": {
        "rsqrt": "{0} * lax.rsqrt(({0} * {0}).mean(-1, keepdims=True) + 1e-3) * {1}",
        "root": "{0} / jnp.sqrt((jnp.square({0})).mean(-1, keepdims=True) + 1e-3) * {1}",
        "scale first": "{1} * {0} * lax.rsqrt(({0} * {0}).mean(-1, keepdims=True) + 1e-3)",
        "scale on rsqrt": "{0} * ({1} * lax.rsqrt(({0} * {0}).mean(-1, keepdims=True) + 1e-3))",
        "scale over root": "{0} * {1} / jnp.sqrt(({0} ** 2).mean(-1, keepdims=True) + 1e-3)",
        "one plus": "(1 + ({1} - 1)) * {0}"
        " * lax.rsqrt((jnp.square({0})).mean(-1, keepdims=True) + 1e-3)",
        "root of the reciprocal": "{0} * jnp.sqrt("
        "1 / (({0} * {0}).mean(-1, keepdims=True) + 1e-3)) * {1}",
        "power": "{0} * (({0} * {0}).mean(-1, keepdims=True) + 1e-3) ** -0.5 * {1}",
        "contraction": "{0} / jnp.sqrt(jnp.einsum('...i,...i->...', {0}, {0})[..., None]"
        " / {0}.shape[-1] + 1e-3) * {1}",
        "sum": "{0} * {0}.shape[-1] ** 0.5"
        " / jnp.sqrt(({0} * {0}).sum(-1, keepdims=True) + 1e-3 * {0}.shape[-1]) * {1}",
    },
    "l2_norm": {
        "root": "{0} / jnp.sqrt(({0} * {0}).sum(-1, keepdims=True) + 1e-6)",
        "rsqrt": "{0} * lax.rsqrt((jnp.square({0})).sum(-1, keepdims=True) + 1e-6)",
        "reciprocal": "{0} * (1 / jnp.sqrt(({0} ** 2).sum(-1, keepdims=True) + 1e-6))",
        "power": "{0} / (({0} ** 2).sum(-1, keepdims=True) + 1e-6) ** 0.5",
        "contraction": "{0} / jnp.sqrt(jnp.einsum('...i,...i->...', {0}, {0}) + 1e-6)[..., None]",
        "negatives": "-{0} / -jnp.sqrt(({0} * {0}).sum(-1, keepdims=True) + 1e-6)",
    },
    "peak_norm": {
        "peak": "{0} / (jnp.abs({0}).max(-1, keepdims=True) + 1e-3)",
        "ends": "{0} / (jnp.maximum({0}.max(-1, keepdims=True),"
        " -{0}.min(-1, keepdims=True)) + 1e-3)",
        "smallest": "{0} / (1e-3 - (-jnp.abs({0})).min(-1, keepdims=True))",
        "reciprocal": "{0} * (1 / (1e-3 + jnp.abs({0}).max(-1, keepdims=True)))",
        "backwards": "-{0} / (jnp.minimum({0}.min(-1, keepdims=True),"
        " -{0}.max(-1, keepdims=True)) - 1e-3)",
    },
    "batch_norm": {  # gamma, beta, mean, variance
        "root": "({0} - {3}) / jnp.sqrt({4} + 1e-3) * {1} + {2}",
        "rsqrt": "({0} - {3}) * lax.rsqrt({4} + 1e-3) * {1} + {2}",
        "scale first": "{1} * ({0} - {3}) / jnp.sqrt({4} + 1e-3) + {2}",
        "joined": "({0} - {3}) * ({1} * lax.rsqrt({4} + 1e-3)) + {2}",
        "folded": "{0} * ({1} / jnp.sqrt({4} + 1e-3)) + ({2} - {3} * ({1} / jnp.sqrt({4} + 1e-3)))",
        "backwards": "({3} - {0}) / jnp.sqrt({4} + 1e-3) * -{1} + {2}",
        "shift subtracted": "{0} * {1} / jnp.sqrt({4} + 1e-3)"
        " - ({3} * {1} / jnp.sqrt({4} + 1e-3) - {2})",
        "nn": "jax.nn.standardize({0}, mean={3}, variance={4}, epsilon=1e-3) * {1} + {2}",
    },
    "softmax": {
        "nn": "jax.nn.softmax({0}, axis=-1)",
        "bare": "jnp.exp({0}) / jnp.exp({0}).sum(-1, keepdims=True)",
        "shifted": "jnp.exp({0} - {0}.max(-1, keepdims=True))"
        " / jnp.exp({0} - {0}.max(-1, keepdims=True)).sum(-1, keepdims=True)",
        "stopped shift": "jnp.exp({0} - lax.stop_gradient({0}.max(-1, keepdims=True))) / jnp.exp("
        "{0} - lax.stop_gradient({0}.max(-1, keepdims=True))).sum(-1, keepdims=True)",
        "exp of log": "jnp.exp(jax.nn.log_softmax({0}, axis=-1))",
        "logsumexp": "jnp.exp({0} - jax.nn.logsumexp({0}, axis=-1, keepdims=True))",
        "reciprocal": "jnp.exp({0}) * (1 / jnp.exp({0}).sum(-1, keepdims=True))",
        "contraction": "jnp.exp({0}) / (jnp.exp({0}) @ jnp.ones(({0}.shape[-1], 1), {0}.dtype))",
    },
    "mask": {
        "where": "jnp.where({1}, {0}, -jnp.inf)",
        "where finite": "jnp.where({1}, {0}, -1e30)",
        "added": "{0} + jnp.where({1}, 0.0, -jnp.inf)",
        "select": "lax.select(jnp.broadcast_to({1}, {0}.shape), {0}, jnp.full_like({0}, -1e30))",
        "where not": "jnp.where(~{1}, -jnp.inf, {0})",
    },
    "scores": {  # q k^T
        "swapped": "{0} @ {1}.swapaxes(-1, -2)",
        "einsum": "jnp.einsum('bqd,bkd->bqk', {0}, {1})",
        "the other way": "({1} @ {0}.swapaxes(-1, -2)).swapaxes(-1, -2)",
        "vmap": "jax.vmap(lambda q, k: q @ k.T)({0}, {1})",
        "general": "lax.dot_general({0}, {1}, (((2,), (2,)), ((0,), (0,))))",
        "sum": "({0}[:, :, None, :] * {1}[:, None, :, :]).sum(-1)",
    },
    "mix": {  # attention weights times values
        "matmul": "{0} @ {1}",
        "einsum": "jnp.einsum('bqk,bkd->bqd', {0}, {1})",
        "the other way": "jnp.einsum('bkd,bqk->bqd', {1}, {0})",
        "vmap": "jax.vmap(jnp.matmul)({0}, {1})",
        "sum": "({0}[:, :, :, None] * {1}[:, None, :, :]).sum(2)",
    },
    "half": {  # a literal scale of the scores
        "product": "{0} * 0.5",
        "quotient": "{0} / 2.0",
        "power": "{0} * 4 ** -0.5",
        "reciprocal": "{0} * (1 / 2)",
        "array": "{0} * jnp.full({0}.shape[-1:], 0.5, {0}.dtype)",
    },
    "max_pool": {
        "window": "lax.reduce_window({0}, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), 'VALID')",
        "reshape": "{0}.reshape({0}.shape[0], {0}.shape[1] // 2, 2, {0}.shape[2] // 2, 2,"
        " {0}.shape[3]).max((2, 4))",
        "slices": "jnp.maximum(jnp.maximum({0}[:, ::2, ::2], {0}[:, ::2, 1::2]),"
        " jnp.maximum({0}[:, 1::2, ::2], {0}[:, 1::2, 1::2]))",
        "stack": "jnp.stack([{0}[:, ::2, ::2], {0}[:, ::2, 1::2],"
        " {0}[:, 1::2, ::2], {0}[:, 1::2, 1::2]]).max(0)",
    },
    "avg_pool": {
        "window": "lax.reduce_window({0}, 0.0, lax.add, (1, 2, 2, 1), (1, 2, 2, 1), 'VALID') / 4",
        "window of quarters": "lax.reduce_window("
        "{0} * 0.25, 0.0, lax.add, (1, 2, 2, 1), (1, 2, 2, 1), 'VALID')",
        "reshape": "{0}.reshape({0}.shape[0], {0}.shape[1] // 2, 2, {0}.shape[2] // 2, 2,"
        " {0}.shape[3]).mean((2, 4))",
        "sum": "{0}.reshape({0}.shape[0], {0}.shape[1] // 2, 2, {0}.shape[2] // 2, 2,"
        " {0}.shape[3]).sum((2, 4)) * 0.25",
        "convolution": "lax.conv_general_dilated("
        "{0}, jnp.full((2, 2, 1, {0}.shape[-1]), 0.25, {0}.dtype), (2, 2), 'VALID',"
        " dimension_numbers=('NHWC', 'HWIO', 'NHWC'), feature_group_count={0}.shape[-1])",
    },
    "mean": {  # over all axes between the batch and the features
        "mean": "{0}.mean(tuple(range(1, {0}.ndim - 1)))",
        "flat": "{0}.reshape({0}.shape[0], -1, {0}.shape[-1]).mean(1)",
        "sum": "{0}.reshape({0}.shape[0], -1, {0}.shape[-1]).sum(1) / np.prod({0}.shape[1:-1])",
        "scaled before": "({0} / np.prod({0}.shape[1:-1]))"
        ".reshape({0}.shape[0], -1, {0}.shape[-1]).sum(1)",
        "contraction": "jnp.einsum('bnd,n->bd', {0}.reshape({0}.shape[0], -1, {0}.shape[-1]),"
        " jnp.full(np.prod({0}.shape[1:-1]), 1 / np.prod({0}.shape[1:-1]), {0}.dtype))",
    },
    "tower": {
        "loop": "tower({0}, {1}, {2})",
        "scan": "tower_scanned({0}, {1}, {2})",
        "fori": "tower_looped({0}, {1}, {2})",
    },
    "recur": {
        "loop": "recur({0}, {1}, {2}, {3})",
        "scan": "recur_scanned({0}, {1}, {2}, {3})",
        "hoisted": "recur_hoisted({0}, {1}, {2}, {3})",
    },
    "straight_through": {
        "round": "jnp.round({0})",
        "stopped difference": "{0} + lax.stop_gradient(jnp.round({0}) - {0})",
        "stopped sum": "lax.stop_gradient(jnp.round({0})) + ({0} - lax.stop_gradient({0}))",
    },
    "fourier": {  # a static complex weight between two transforms
        "rfft": "jnp.fft.irfft(jnp.fft.rfft({0}) * lax.complex({1}, {2}), {0}.shape[-1])",
        "commuted": "jnp.fft.irfft(lax.complex({1}, {2}) * jnp.fft.rfft({0}), n={0}.shape[-1])",
        "parts": "jnp.fft.irfft(lax.complex(jnp.real(jnp.fft.rfft({0})) * {1}"
        " - jnp.imag(jnp.fft.rfft({0})) * {2}, jnp.real(jnp.fft.rfft({0})) * {2}"
        " + jnp.imag(jnp.fft.rfft({0})) * {1}), {0}.shape[-1])",
    },
    "power": {  # of a spectrum
        "parts": "jnp.real(jnp.fft.rfft({0})) ** 2 + jnp.imag(jnp.fft.rfft({0})) ** 2",
        "abs": "jnp.abs(jnp.fft.rfft({0})) ** 2",
        "conjugate": "jnp.real(jnp.fft.rfft({0}) * jnp.conj(jnp.fft.rfft({0})))",
    },
}

REWRITES: dict[str, Callable[[Edit], bool]] = {}
# Those that change a layer's kind between dense and conv: both must have the same rule.
CHANGES_KIND = {
    "dense as a convolution",
    "convolution as patches",
    "convolution as gathered patches",
}
# Those that change over which outputs a relative epsilon takes its mean, or the biases in them.
SPLITS_FEATURES = {
    "bias behind a view",
    "split the outputs of a dense layer",
    "split the channels of a convolution",
    "dense fused with another",
    "bias before a slice, the rest cut off",
    "a wider padding cut off",
}
# Not both in one chain: of several signs that could cancel, the one written first decides.
APART = [{"peak_norm: backwards", "negate the weights and the output"}]
# What is computed twice is one value if both are written alike: no other rewrite comes after.
LAST = {"compute an argument again"}
# Rewrites after which the library answers otherwise today, and why; see docs/recognition.md.
KNOWN: dict[str, str] = {
    "fourier: parts": "real and imaginary parts that are scaled apart are no complex layer",
    "vmap of cond": "a batched branch stops what it did not take: the layer ends there",
}
VIEWS = ("reshape", "slice", "transpose", "flip")


@dataclass
class Edit:
    """One node of a program, to be put in other words."""

    program: Program
    node: Node
    rng: random.Random
    new: list[Node] = dataclasses.field(default_factory=list)
    arrays: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

    @property
    def args(self) -> tuple[str, ...]:
        return self.node.args

    @property
    def op(self) -> str:
        return self.node.op

    @property
    def shape(self) -> tuple[int, ...]:
        return self.program.shapes[self.node.name]

    def shape_of(self, position: int) -> tuple[int, ...]:
        return self.program.shapes[self.args[position]]

    def producer(self, position: int = 0) -> Node | None:
        if position >= len(self.args):
            return None
        return self.program.by_name.get(self.args[position])

    def is_padded(self) -> bool:
        """Whether a line pads what this one makes, and adds a bias there."""
        names, nodes = {self.node.name}, self.program.nodes
        for node in nodes:
            if node.op in {*VIEWS, "text"} and node.args and node.args[0] in names:
                names.add(node.name)
        return any("jnp.pad(" in n.text for n in nodes if not names.isdisjoint(n.args))

    def is_joined(self) -> bool:
        """Whether scales, shifts and moves alone stand between a line and what was joined, added
        up or normalised."""
        node = self.producer()
        while node is not None and node.op in ("bias", "scale", "batch_norm", *VIEWS):
            node = self.program.by_name.get(node.args[0])
        ends = ("add", "layer_norm", "rms_norm", "l2_norm", "peak_norm")
        return node is not None and (node.op in ends or "concatenate" in node.text)

    def is_active(self, position: int = 0) -> bool:
        return position < len(self.args) and self.args[position] in self.program.active

    def fresh(self, prefix: str = "v") -> str:
        taken = names_of((*self.program.nodes, *self.new))
        taken |= {*self.program.arrays, *self.arrays}
        number = len(taken)
        while f"{prefix}{number}" in taken:
            number += 1
        return f"{prefix}{number}"

    def let(self, text: str, *args: str, op: str = "text", **facts: Any) -> str:
        """A new line before the node."""
        name = self.fresh()
        self.new.append(Node(name, op, text, args, tuple(facts.items())))
        return name

    def to(self, text: str, *args: str, op: str = "text", **facts: Any) -> bool:
        """The line that takes the node's place."""
        self.new.append(Node(self.node.name, op, text, args, tuple(facts.items())))
        return True

    def keep(self, **changes: Any) -> bool:
        self.new.append(dataclasses.replace(self.node, **changes))
        return True

    def learned(self, array: np.ndarray) -> str:
        name = self.fresh("w")
        self.arrays[name] = np.asarray(array)
        return name

    def array(self, position: int) -> np.ndarray | None:
        return self.program.arrays.get(self.args[position])

    def result(self) -> Program:
        nodes = []
        for node in self.program.nodes:
            nodes += self.new if node is self.node else [node]
        arrays = {**self.program.arrays, **self.arrays}
        return dataclasses.replace(self.program, nodes=tuple(nodes), arrays=arrays).pruned()


def rewrite(name: str) -> Callable[[Callable[[Edit], bool]], Callable[[Edit], bool]]:
    def add(fn: Callable[[Edit], bool]) -> Callable[[Edit], bool]:
        REWRITES[name] = fn
        return fn

    return add


# Layers end where loops begin. A number beside a product is the product's, and a product that is
# summed over whole axes a matmul, over windows a product and a mean.
LOOPS = {f"{op}: {name}" for op in ("tower", "recur") for name in SPELLINGS[op]}
_NOT_AFTER = {name: {"scale", "bias", "batch_norm", "text"} for name in LOOPS}
_NOT_AFTER["mean: scaled before"] = {"mul", "avg_pool"}
_NOT_AFTER |= {f"avg_pool: {name}": {"mul"} for name in SPELLINGS["avg_pool"]}


# An activation with a sign, and a norm whose sign reaches the layer before it: they may cancel.
SIGNED = [SPELLINGS["sigmoid"]["exp"], SPELLINGS["relu"]["min of the negative"]]
TURNED = [SPELLINGS["peak_norm"]["backwards"]]


def _spelling(op: str, name: str, text: str) -> Callable[[Edit], bool]:
    unless = _NOT_AFTER.get(f"{op}: {name}", set())
    rivals = TURNED if text in SIGNED else SIGNED if text in TURNED else []

    def fn(e: Edit) -> bool:
        before = [e.program.by_name.get(e.args[0])] if e.args else []
        while before and before[-1] is not None and before[-1].op in {*VIEWS, *unless, "text"}:
            before.append(e.program.by_name.get(before[-1].args[0]))
        ends = before[-1].op if before and before[-1] is not None else ""
        linear = ends in ("dense", "conv") and "mul" not in unless
        if not linear and any(node is not None and node.op in unless for node in before):
            return False
        if any(node.text in rivals for node in e.program.nodes):
            return False
        if name in ("line and relu", "spread") and _is_beside_its_source(e):
            return False
        if "tanh(0.5" in text and _is_doubled(e):
            return False
        if ("0.5 * {0}" in text or "{0} / 2)" in text) and _adds_its_source(e):
            return False
        if name == "window of quarters" and _is_divided_again(e):
            return False
        return e.op == op and e.node.text != text and e.keep(text=text)

    return fn


def _is_doubled(e: Edit) -> bool:
    """Whether a layer reads twice the value, by way of activations: 1 + tanh is one by itself."""
    names = {e.node.name}
    for node in e.program.nodes:
        if not node.args or node.args[0] not in names:
            continue
        if node.text.startswith("(2 * {0})"):
            return True
        if node.op in SPELLINGS or node.op in {*VIEWS, "text"}:
            names.add(node.name)
    return False


def _is_divided_again(e: Edit) -> bool:
    """Whether a mean follows that is scaled before its sum: by a number that either may take."""
    readers = [n for n in e.program.nodes if e.node.name in n.args]
    return any(n.op == "mean" and n.text.startswith("({0} /") for n in readers)


def _adds_its_source(e: Edit) -> bool:
    """Whether x + f(x) is read: 0.5 * (x + f(x)) may be an activation."""
    by_name = e.program.by_name
    node = by_name.get(e.args[0])
    while node is not None and node.op in {*VIEWS, "text"}:
        node = by_name.get(node.args[0])
    if node is None or node.op != "add":
        return False
    before: set[str] = set()
    stack = [a for b in node.args if b in by_name for a in by_name[b].args]
    while stack:
        name = stack.pop()
        if name not in before:
            before.add(name)
            stack += by_name[name].args if name in by_name else ()
    return not before.isdisjoint(node.args)


def _is_beside_its_source(e: Edit) -> bool:
    """Whether a sum reads a value and its source: x + (0.1 * x + 0.9 * relu(x)) is 1.1 * x + ..."""
    readers = (n for n in e.program.nodes if e.node.name in n.args)
    return any(n.op == "add" and e.args[0] in n.args for n in readers)


for _op, _texts in SPELLINGS.items():
    for _name, _text in _texts.items():
        REWRITES[f"{_op}: {_name}"] = _spelling(_op, _name, _text)


# Sums.


@rewrite("commute a sum")
def _(e: Edit) -> bool:
    return e.op in ("add", "bias") and e.to("{1} + {0}", *e.args)


@rewrite("reassociate a sum")
def _(e: Edit) -> bool:
    inner = e.producer()
    if e.op not in ("add", "bias") or inner is None or inner.op not in ("add", "bias"):
        return False
    if e.program.readers(inner.name) > 1:  # a value of its own
        return False
    a, b = inner.args
    if e.rng.random() < 0.5:
        return e.to("{0} + ({1} + {2})", a, b, e.args[1])
    return e.to("({0} + {2}) + {1}", a, b, e.args[1])


@rewrite("subtract the negative")
def _(e: Edit) -> bool:
    return e.op in ("add", "bias") and e.to("{0} - (-{1})", *e.args)


@rewrite("negate a sum's terms")
def _(e: Edit) -> bool:
    other = e.program.by_name.get(e.args[1]) if e.op == "add" else None
    reads_sign = other is not None and ("-{0}" in other.text or "gelu(" in other.text)
    if reads_sign and other.args[0] == e.args[0]:
        return False  # x + f(x), and f reads the same -x
    return e.op in ("add", "bias") and e.to("-(-{0} - {1})", *e.args)


@rewrite("sum of a stack")
def _(e: Edit) -> bool:
    return e.op == "add" and e.to("jnp.stack([{0}, {1}]).sum(0)", *e.args)


@rewrite("sum() of a list")
def _(e: Edit) -> bool:
    return e.op == "add" and e.to("sum([{0}, {1}])", *e.args)


@rewrite("bias in two parts")
def _(e: Edit) -> bool:
    b = e.array(1) if e.op == "bias" else None
    if b is None:
        return False
    part = np.round(0.3 * b + 0.1, 3)
    return e.to("({0} + {1}) + {2}", e.args[0], e.learned(part), e.learned(b - part))


@rewrite("bias piece by piece")
def _(e: Edit) -> bool:
    if e.op != "bias" or e.array(1) is None or e.shape[-1] < 2:
        return False
    if e.program.readers(e.args[0]) > 1:  # as below: joined pieces are such a view
        return False
    k = e.rng.randint(1, e.shape[-1] - 1)
    text = "jnp.concatenate([{0}[..., :K] + {1}[:K], {0}[..., K:] + {1}[K:]], -1)"
    return e.to(text.replace("K", str(k)), *e.args)


@rewrite("bias behind a view")
def _(e: Edit) -> bool:
    inner = e.producer()
    if e.op not in VIEWS or inner is None or inner.op != "bias":
        return False
    x, b = inner.args
    if e.program.readers(inner.name) > 1:  # a value of its own
        return False
    if e.program.readers(x) > 1:  # a bias of no layer: a sum beside it has it, past a view it stays
        return False
    view = e.node.text
    like = e.let("jnp.broadcast_to({0}, (1, *{1}.shape[1:]))", b, x)
    return e.to("{0} + {1}", e.let(view, x), e.let(view, like))


@rewrite("bias before a slice, the rest cut off")
def _(e: Edit) -> bool:
    if e.op != "bias" or e.array(1) is None or e.is_joined():
        return False
    if e.program.readers(e.args[0]) > 1:
        return False
    b = e.array(1)
    more = np.round(np.random.default_rng(e.rng.randrange(99)).normal(size=2), 3)
    text = "(jnp.pad({0}, [(0, 0)] * ({0}.ndim - 1) + [(0, 2)]) + {1})[..., :-2]"
    return e.to(text, e.args[0], e.learned(np.concatenate([b, more])))


# Scales, shifts and products.


@rewrite("commute a product")
def _(e: Edit) -> bool:
    return e.op in ("mul", "scale") and e.to("{1} * {0}", *e.args)


@rewrite("reassociate a product")
def _(e: Edit) -> bool:
    inner = e.producer()
    if e.op not in ("mul", "scale") or inner is None or inner.op not in ("mul", "scale"):
        return False
    if e.op == "scale" and inner.op == "mul":
        return False  # beside a linear layer a scale is that layer's, beside others the product's
    if e.program.readers(inner.name) > 1:  # a value of its own
        return False
    return e.to("{0} * ({1} * {2})", *inner.args, e.args[1])


@rewrite("divide by the reciprocal")
def _(e: Edit) -> bool:
    return e.op == "scale" and e.to("{0} / (1 / {1})", *e.args)


@rewrite("negate both factors")
def _(e: Edit) -> bool:
    return e.op in ("mul", "scale") and e.to("(-{0}) * (-{1})", *e.args)


@rewrite("negate a factor and the product")
def _(e: Edit) -> bool:
    return e.op == "mul" and e.to("-({0} * (-{1}))", *e.args, op="mul")


@rewrite("scale in two steps")
def _(e: Edit) -> bool:
    s = e.array(1) if e.op == "scale" else None
    if s is None:
        return False
    return e.to("{0} * {1} * ({2} / {1})", e.args[0], e.learned(np.abs(s) + 0.5), e.args[1])


@rewrite("scale piece by piece")
def _(e: Edit) -> bool:
    if e.op != "scale" or e.array(1) is None or e.shape[-1] < 2:
        return False
    if _joins_a_shared_join(e.program, e.args[0]):  # a piece has parts of several values
        return False
    text = "jnp.concatenate([{0}[..., :1] * {1}[:1], {0}[..., 1:] * {1}[1:]], -1)"
    return e.to(text, *e.args)


def _joins_a_shared_join(program: Program, name: str) -> bool:
    """Whether a value was joined from values of which one was joined too, and has other readers."""
    node = program.by_name.get(name)
    while node is not None and node.op in {*VIEWS, "bias", "scale", "batch_norm"}:
        node = program.by_name.get(node.args[0])
    if node is None or node.op != "concat":
        return False
    parts = [program.by_name.get(arg) for arg in node.args]
    return any(p and p.op == "concat" and program.readers(p.name) > 1 for p in parts)


@rewrite("scale behind a view")
def _(e: Edit) -> bool:
    inner = e.producer()
    if e.op not in VIEWS or inner is None or inner.op != "scale":
        return False
    if e.program.readers(inner.name) > 1:  # a value of its own
        return False
    x, s = inner.args
    like = e.let("jnp.broadcast_to({0}, (1, *{1}.shape[1:]))", s, x)
    return e.to("{0} * {1}", e.let(e.node.text, x), e.let(e.node.text, like))


@rewrite("double negation")
def _(e: Edit) -> bool:
    return e.node.name in e.program.active and _again(e, "-(-{0})")


@rewrite("times one")
def _(e: Edit) -> bool:
    return e.node.name in e.program.active and _again(e, "1.0 * {0}")


@rewrite("plus zero")
def _(e: Edit) -> bool:
    return e.node.name in e.program.active and _again(e, "{0} + 0.0")


@rewrite("doubled and halved")
def _(e: Edit) -> bool:
    return e.node.name in e.program.active and _again(e, "(2.0 * {0}) / 2.0")


@rewrite("negate before and after a dense layer")
def _(e: Edit) -> bool:
    if e.op not in ("dense", "conv") or _reads_a_sign(e):  # either pair of signs may cancel
        return False
    return _again(e, "-{0}", e.let("-{0}", e.args[0]))


def _reads_a_sign(e: Edit) -> bool:
    node = e.producer()
    while node is not None and node.op in VIEWS:
        node = e.program.by_name.get(node.args[0])
    return node is not None and node.text.startswith("-")


@rewrite("negate the weights and the output")
def _(e: Edit) -> bool:
    if e.op not in ("dense", "conv"):
        return False
    return _again(e, "-{0}", e.args[0], e.let("-{0}", e.args[1]))


def _again(e: Edit, text: str, *args: str) -> bool:
    """The node's own line (with other arguments, if any), then `text` of it."""
    name = e.fresh()
    args = (*args, *e.args[len(args) :])
    e.new.append(dataclasses.replace(e.node, name=name, args=args))
    return e.to(text, name)


# Common subexpressions undone.


def _clone(e: Edit, name: str, deep: int) -> str:
    node = e.program.by_name.get(name)
    if node is None or node.body:
        return name
    args = tuple(_clone(e, a, deep - 1) for a in node.args) if deep > 0 else node.args
    copy = dataclasses.replace(node, name=e.fresh(), args=args)
    e.new.append(copy)
    return copy.name


@rewrite("compute an argument again")
def _(e: Edit) -> bool:
    shared = [
        i
        for i, a in enumerate(e.args)
        if a in e.program.active
        and a in e.program.by_name
        and e.program.readers(a) > 1
        # A sum or product becomes part of the one that reads it, if it is computed again.
        and e.program.by_name[a].op not in ("fourier", "add", "mul")
        and not (_is_summed(e.program, a) and _ends_in_a_shift(e.program, a))
    ]
    if not shared or e.node.body:
        return False
    position = e.rng.choice(shared)
    deep = e.rng.randint(0, 2)
    if _parts_a_layer(e.program, e.args[position], deep):
        return False
    copy = _clone(e, e.args[position], deep)
    args = (*e.args[:position], copy, *e.args[position + 1 :])
    return e.keep(args=args)


def _is_summed(program: Program, name: str) -> bool:
    return any(n.op == "add" and name in n.args for n in program.nodes)


def _ends_in_a_shift(program: Program, name: str) -> bool:
    """Whether a value is that of a shift which no linear layer has: a sum takes it from a sole
    value, and leaves it to one that is read elsewhere."""
    node = program.by_name[name]
    if node.op in ("bias", "batch_norm", "text", *VIEWS):
        return not _follows_a_layer(program, name)
    return node.op == "layer_norm"


def _parts_a_layer(program: Program, name: str, deep: int) -> bool:
    """Whether a layer that is shared, or its copy, has a sole reader then, and takes its scale or
    bias."""
    node = program.by_name.get(name)
    if node is None or node.body:
        return False
    readers = [n.op for n in program.nodes if name in n.args]
    takes = {"bias", "scale", "batch_norm", "add", "text", "concat", *VIEWS}.intersection(readers)
    is_layer = node.op in ("dense", "conv", "fourier", "text") or _follows_a_layer(program, name)
    if takes and is_layer and program.readers(name) > 1:
        return True
    return deep > 0 and any(_parts_a_layer(program, a, deep - 1) for a in node.args)


@rewrite("each reader computes the slice again")
def _(e: Edit) -> bool:
    """x[..., :] written twice, as in x[:2] / norm(x[:2])."""
    if e.op not in ("layer_norm", "rms_norm", "l2_norm", "softmax", "silu", "gelu", "square"):
        return False
    a = e.args[0]
    parts = e.node.text.split("{0}")
    views = [e.let("{0}[:, 0:]", a) for _ in parts[1:3]]
    text, args = parts[0], [a, *e.args[1:], *views]
    for index, part in enumerate(parts[1:]):
        place = len(e.args) + min(index, len(views) - 1)
        text += f"{{{place}}}{part}"
    return e.to(text, *args)


# Moves put in and undone.

_MOVES = {
    "split and concatenate": "jnp.concatenate([{0}[..., :1], {0}[..., 1:]], -1)",
    "split along the batch": "jnp.concatenate([{0}[:1], {0}[1:]])",
    "pad and slice": "jnp.pad({0}, [(0, 0)] * ({0}.ndim - 1) + [(1, 2)])[..., 1:-2]",
    "flip twice": "jnp.flip(jnp.flip({0}, -1), -1)",
    "transpose twice": "{0}.T.T",
    "swap twice": "{0}.swapaxes(0, -1).swapaxes(0, -1)",
    "flatten and back": "{0}.reshape(-1).reshape({0}.shape)",
    "roll and back": "jnp.roll(jnp.roll({0}, 1, -1), -1, -1)",
    "permute and back": "{0}[..., np.arange({0}.shape[-1])[::-1]]"
    "[..., np.arange({0}.shape[-1])[::-1]]",
    "stack and take": "jnp.stack([{0}, 2 * {0}])[0]",
    "repeat and take": "jnp.repeat({0}, 2, -1)[..., ::2]",
    "broadcast and take": "jnp.broadcast_to({0}[None], (2, *{0}.shape))[1]",
    "dynamic slice": "lax.dynamic_slice_in_dim({0}, 0, {0}.shape[-1], -1)",
    "barrier": "lax.optimization_barrier({0})",
    "copy": "jnp.array({0}, copy=True)",
    "cast to itself": "lax.convert_element_type({0}, {0}.dtype)",
    "choose all": "jnp.where(jnp.ones({0}.shape[-1], bool), {0}, 0.0)",
    "scatter into zeros": "jnp.zeros_like({0}).at[..., :].set({0})",
    "concatenate and crop": "jnp.concatenate([{0}, jnp.ones_like({0})], -1)[..., : {0}.shape[-1]]",
    "expand and squeeze": "{0}[:, None][:, 0]",
    "triangle and the rest": "jnp.where(np.arange({0}.shape[-1]) > 0, {0}, 0.0)"
    " + jnp.where(np.arange({0}.shape[-1]) > 0, 0.0, {0})",
}


MOVED = tuple(_MOVES)


def _move(text: str) -> Callable[[Edit], bool]:
    def fn(e: Edit) -> bool:
        return e.node.name in e.program.active and _again(e, text)

    return fn


for _name, _text in _MOVES.items():
    REWRITES[_name] = _move(_text)


@rewrite("a scale in and out of a norm")
def _(e: Edit) -> bool:
    """A norm of 2x with four times the epsilon is the norm of x."""
    if e.op not in ("layer_norm", "rms_norm") or "1e-3" not in e.node.text:
        return False
    twice = e.let("2.0 * {0}", e.args[0])
    return e.to(e.node.text.replace("1e-3", "4e-3"), twice, *e.args[1:])


# Statics.


@rewrite("stop the gradient of weights")
def _(e: Edit) -> bool:
    if e.op not in ("dense", "conv", "bias", "scale"):
        return False
    return e.keep(args=(e.args[0], e.let("lax.stop_gradient({0})", e.args[1])))


@rewrite("weights from a stack")
def _(e: Edit) -> bool:
    w = e.array(1) if e.op in ("dense", "conv", "bias", "scale") else None
    if w is None:
        return False
    stack = e.learned(np.stack([w[..., ::-1], w]))
    return e.keep(args=(e.args[0], e.let("{0}[1]", stack)))


@rewrite("weights as a product")
def _(e: Edit) -> bool:
    w = e.array(1) if e.op == "dense" else None
    if w is None:
        return False
    a = np.round(np.random.default_rng(e.rng.randrange(99)).normal(size=(len(w), len(w))), 2)
    a += 3 * np.eye(len(w))
    product = e.let("{0} @ {1}", e.learned(a), e.learned(np.linalg.solve(a, w)))
    return e.keep(args=(e.args[0], product))


@rewrite("weights as a sum")
def _(e: Edit) -> bool:
    w = e.array(1) if e.op in ("dense", "conv") else None
    if w is None:
        return False
    part = np.round(0.4 * w, 2)
    return e.keep(args=(e.args[0], e.let("{0} + {1}", e.learned(part), e.learned(w - part))))


@rewrite("weights normalised")
def _(e: Edit) -> bool:
    w = e.array(1) if e.op in ("dense", "conv") else None
    if w is None:
        return False
    size = np.sqrt((w**2).sum(tuple(range(w.ndim - 1))))
    axes = tuple(range(w.ndim - 1))
    text = "{1} * {0} / jnp.sqrt(({0} ** 2).sum(AXES))".replace("AXES", str(axes))
    return e.keep(args=(e.args[0], e.let(text, e.learned(3 * w), e.learned(size))))


@rewrite("close over the weights")
def _(e: Edit) -> bool:
    return False  # done in `apply`, which sees the whole program


# Dense layers.

_DENSE = {
    "dense as dot_general": "lax.dot_general({0}, {1}.T, ((({0}.ndim - 1,), (1,)), ((), ())))",
    "dense as einsum": "jnp.einsum('...i,io->...o', {0}, {1})",
    "dense as einsum, weights first": "jnp.einsum('io,...i->...o', {1}, {0})",
    "dense as a sum of products": "({0}[..., None] * {1}).sum(-2)",
    "dense as a sum of products, weights turned": "({1}.T * {0}[..., None, :]).sum(-1)",
    "dense as vmap over outputs": "jnp.moveaxis("
    "jax.vmap(lambda w: ({0} * w).sum(-1))({1}.T), 0, -1)",
    "dense as vmap over examples": "jax.vmap(lambda v: v @ {1})({0})",
    "dense as tensordot": "jnp.tensordot({0}, {1}, 1)",
    "dense on flat rows": "({0}.reshape(-1, {0}.shape[-1]) @ {1})"
    ".reshape(*{0}.shape[:-1], {1}.shape[-1])",
    "dense turned": "jnp.moveaxis({1}.T @ {0}.reshape(-1, {0}.shape[-1]).T, 0, -1)"
    ".reshape(*{0}.shape[:-1], {1}.shape[-1])",
    "dense with inputs in another order": "{0}[..., ::-1] @ {1}[::-1]",
    "dense with outputs in another order": "({0} @ {1}[:, ::-1])[..., ::-1]",
    "dense of twice the input": "(2 * {0}) @ (0.5 * {1})",
    "dense with half the weights": "({0} @ (0.5 * {1})) * 2",
}


def _reads_a_tanh(e: Edit) -> bool:
    """Whether a sigmoid that is written with tanh is read, by way of activations."""
    node = e.producer()
    while node is not None and (node.op in SPELLINGS or node.op in {*VIEWS, "text"}):
        if "tanh(0.5" in node.text:
            return True
        node = e.program.by_name.get(node.args[0])
    return False


def _dense(text: str) -> Callable[[Edit], bool]:
    def fn(e: Edit) -> bool:
        if text.startswith("(2 * {0})") and _reads_a_tanh(e):
            return False
        return e.op == "dense" and e.to(text, *e.args)

    return fn


for _name, _text in _DENSE.items():
    REWRITES[_name] = _dense(_text)


@rewrite("dense as a convolution")
def _(e: Edit) -> bool:
    if e.op != "dense" or len(e.shape) != 4:
        return False
    text = (
        "lax.conv_general_dilated({0}, {1}[None, None], (1, 1), 'VALID',"
        " dimension_numbers=('NHWC', 'HWIO', 'NHWC'))"
    )
    return e.to(text, *e.args)


@rewrite("split the outputs of a dense layer")
def _(e: Edit) -> bool:
    if e.op != "dense" or e.shape[-1] < 2 or e.is_padded():
        return False
    if e.node.name in e.program.outputs:  # a value of its own, of which no scale reaches the parts
        return False
    return e.to("jnp.concatenate([{0} @ {1}[:, :1], {0} @ {1}[:, 1:]], -1)", *e.args)


@rewrite("dense fused with another")
def _(e: Edit) -> bool:
    w = e.array(1) if e.op == "dense" else None
    if w is None or e.is_padded():
        return False
    other = e.learned(w[:, ::-1])
    text = "({0} @ jnp.concatenate([{1}, {2}], 1))[..., : {1}.shape[1]]"
    return e.to(text, *e.args, other)


@rewrite("dense with padded inputs")
def _(e: Edit) -> bool:
    w = e.array(1) if e.op == "dense" else None
    if w is None:
        return False
    more = e.learned(np.concatenate([w, 1 + np.abs(w[:2])]))
    return e.to("jnp.pad({0}, [(0, 0)] * ({0}.ndim - 1) + [(0, 2)]) @ {1}", e.args[0], more)


@rewrite("a scale behind dense in its weights")
def _(e: Edit) -> bool:
    inner = e.producer()
    if e.op != "scale" or inner is None or inner.op not in ("dense", "conv"):
        return False
    if e.program.readers(inner.name) > 1:
        return False
    weights = e.let("{0} * {1}", inner.args[1], e.args[1])
    return e.to(inner.text, inner.args[0], weights)


@rewrite("a scale before dense in its weights")
def _(e: Edit) -> bool:
    inner = e.producer()
    if e.op != "dense" or inner is None or inner.op != "scale":
        return False
    if e.program.readers(inner.name) > 1 or _follows_a_layer(e.program, inner.args[0]):
        return False
    weights = e.let("{1}[:, None] * {0}", e.args[1], inner.args[1])
    return e.to("{0} @ {1}", inner.args[0], weights)


@rewrite("a batch norm behind dense in its weights")
def _(e: Edit) -> bool:
    inner = e.producer()
    if e.op != "batch_norm" or inner is None or inner.op not in ("dense", "conv"):
        return False
    if e.program.readers(inner.name) > 1:
        return False
    _, gamma, beta, mean, variance = e.args
    scale = e.let("{0} / jnp.sqrt({1} + 1e-3)", gamma, variance)
    weights = e.let("{0} * {1}", inner.args[1], scale)
    shift = e.let("{0} - {1} * {2}", beta, mean, scale)
    core = e.let(inner.text, inner.args[0], weights)
    return e.to("{0} + {1}", core, shift, op="bias")


@rewrite("a batch norm before dense in its weights")
def _(e: Edit) -> bool:
    inner = e.producer()
    if e.op != "dense" or inner is None or inner.op != "batch_norm":
        return False
    if e.program.readers(inner.name) > 1:
        return False
    x, gamma, beta, mean, variance = inner.args
    if _follows_a_layer(e.program, x):
        return False
    scale = e.let("{0} / jnp.sqrt({1} + 1e-3)", gamma, variance)
    shift = e.let("({0} - {1} * {2}) @ {3}", beta, mean, scale, e.args[1])
    core = e.let("{0} @ ({1}[:, None] * {2})", x, scale, e.args[1])
    return e.to("{0} + {1}", core, shift, op="bias")


def _follows_a_layer(program: Program, name: str) -> bool:
    """Whether a value is that of a linear layer or norm, which has a scale after it, or a part.

    So may be a line of several operands that an earlier rewrite wrote: a layer in another spelling.
    """
    node = program.by_name.get(name)
    while node is not None and node.op in {*VIEWS, "bias", "scale", "batch_norm", "text"}:
        if node.op == "text" and len(node.args) > 1:
            return True
        node = program.by_name.get(node.args[0]) if node.args else None
    layers = ("dense", "conv", "fourier", "concat")
    norms = ("layer_norm", "rms_norm", "l2_norm", "peak_norm")
    return node is not None and node.op in layers + norms


# Convolutions: facts hold the padding and the stride.


def _conv_text(padding: Any, stride: int, layout: str = "NHWC", kernel: str = "HWIO") -> str:
    return (
        f"lax.conv_general_dilated({{0}}, {{1}}, ({stride}, {stride}), {padding},"
        f" dimension_numbers=({layout!r}, {kernel!r}, {layout!r}))"
    )


@rewrite("padding as an operation of its own")
def _(e: Edit) -> bool:
    if e.op != "conv":
        return False
    pads = ((0, 0), *e.node["pads"], (0, 0))
    padded = e.let(f"jnp.pad({{0}}, {pads})", e.args[0])
    return e.to(_conv_text("'VALID'", e.node["stride"]), padded, e.args[1])


@rewrite("padding by concatenation")
def _(e: Edit) -> bool:
    if e.op != "conv":
        return False
    (top, bottom), across = e.node["pads"]
    text = (
        f"jnp.concatenate([jnp.zeros((x.shape[0], {top}, *{{0}}.shape[2:])), {{0}},"
        f" jnp.zeros((x.shape[0], {bottom}, *{{0}}.shape[2:]))], 1)"
    ).replace("x.shape", "{0}.shape")
    padded = e.let(text, e.args[0])
    return e.to(_conv_text(f"((0, 0), {across})", e.node["stride"]), padded, e.args[1])


@rewrite("channels first")
def _(e: Edit) -> bool:
    if e.op != "conv":
        return False
    turned = e.let("{0}.transpose(0, 3, 1, 2)", e.args[0])
    text = _conv_text(e.node["pads"], e.node["stride"], "NCHW")
    return e.to("{0}.transpose(0, 2, 3, 1)", e.let(text, turned, e.args[1]))


@rewrite("kernels as OIHW")
def _(e: Edit) -> bool:
    if e.op != "conv":
        return False
    kernel = e.let("{0}.transpose(3, 2, 0, 1)", e.args[1])
    text = _conv_text(e.node["pads"], e.node["stride"], kernel="OIHW")
    return e.to(text, e.args[0], kernel)


@rewrite("height and width swapped")
def _(e: Edit) -> bool:
    if e.op != "conv":
        return False
    turned, kernel = e.let("{0}.swapaxes(1, 2)", e.args[0]), e.let("{0}.swapaxes(0, 1)", e.args[1])
    text = _conv_text(e.node["pads"][::-1], e.node["stride"])
    return e.to("{0}.swapaxes(1, 2)", e.let(text, turned, kernel))


@rewrite("a picture upside down")
def _(e: Edit) -> bool:
    if e.op != "conv" or e.node["stride"] != 1:
        return False
    flipped, kernel = e.let("{0}[:, ::-1]", e.args[0]), e.let("{0}[::-1]", e.args[1])
    (top, bottom), across = e.node["pads"]
    text = _conv_text(((bottom, top), across), 1)
    return e.to("{0}[:, ::-1]", e.let(text, flipped, kernel))


@rewrite("convolution of each example")
def _(e: Edit) -> bool:
    if e.op != "conv":
        return False
    text = e.node.text.replace("{0}", "v[None]")
    return e.to(f"jax.vmap(lambda v: {text}[0])({{0}})", *e.args)


@rewrite("convolution as patches")
def _(e: Edit) -> bool:
    if e.op != "conv":
        return False
    text = f"patches({{0}}, {{1}}, {e.node['pads']}, {e.node['stride']})"
    return e.to(text, *e.args)


@rewrite("convolution as gathered patches")
def _(e: Edit) -> bool:
    if e.op != "conv":
        return False
    text = f"gathered({{0}}, {{1}}, {e.node['pads']}, {e.node['stride']})"
    return e.to(text, *e.args)


@rewrite("split the channels of a convolution")
def _(e: Edit) -> bool:
    if e.op != "conv" or e.shape[-1] < 2 or e.is_padded():
        return False
    first, rest = e.let("{0}[..., :1]", e.args[1]), e.let("{0}[..., 1:]", e.args[1])
    one, two = e.let(e.node.text, e.args[0], first), e.let(e.node.text, e.args[0], rest)
    return e.to("jnp.concatenate([{0}, {1}], -1)", one, two)


@rewrite("a wider padding cut off")
def _(e: Edit) -> bool:
    if e.op != "conv" or e.node["stride"] != 1:
        return False
    (top, bottom), across = e.node["pads"]
    text = _conv_text(((top + 1, bottom + 1), across), 1)
    return e.to("{0}[:, 1:-1]", e.let(text, *e.args))


# A part of the program as a call.

WRAPS: dict[str, str] = {
    "jit": "jax.jit({f})({args})",
    "remat": "jax.checkpoint({f})({args})",
    "named scope": "jax.named_scope('part')({f})({args})",
    "vmap over examples": "each({f}, {args})",
    "map over examples": "each_in_turn({f}, {args})",
    "scan of one step": "scan_one({f}, {args})",
    "carry of one step": "carry_one({f}, {args})",
    "cond": "lax.cond(FLAG, {f}, {f}, {args})",
    "cond with another branch": "lax.cond(FLAG, {f}, lambda *a: jax.tree.map("
    "jnp.zeros_like, {f}(*a)), {args})",
    "vmap of cond": "each_if(FLAG, {f}, {args})",
}


# A layer cannot cross the border of a loop's body or of a branch: there a part begins and ends at
# one of these. Other calls may cut a layer in two.
BORDERS = {
    *"relu leaky_relu tanh sigmoid silu gelu softplus hard_swish abs square".split(),
    *"softmax max_pool scores mix".split(),
}
ENDS = {"tower", "recur"}  # they begin with a linear layer, which holds the bias before it
WHOLE_LAYERS = {
    "map over examples",
    "scan of one step",
    "carry of one step",
    "cond",
    "cond with another branch",
}


def _cuts_a_layer(program: Program, inside: set[str]) -> bool:
    for node in program.nodes:
        for arg in node.args:
            source = program.by_name.get(arg)
            crosses = (node.name in inside) != (arg in inside)
            if source is None or not crosses or arg not in program.active:
                continue
            if node.op not in BORDERS and source.op not in BORDERS | ENDS:
                return True
    return False


def wrap(program: Program, name: str, rng: random.Random) -> Program | None:
    """Some neighbouring lines as a function, called in the manner of `name`."""
    nodes = program.nodes
    start = rng.randrange(len(nodes))
    stop = rng.randint(start + 1, min(len(nodes), start + 6))
    part = nodes[start:stop]
    inside = {n.name for n in part}
    active = program.active
    if any(n.name not in active for n in part):
        return None
    if name in WHOLE_LAYERS and _cuts_a_layer(program, inside):
        return None
    args = [a for n in part for a in n.args if a in active and a not in inside]
    args = list(dict.fromkeys(args))
    later = {a for n in nodes[stop:] for a in n.args} | {*program.outputs}
    for n in nodes[stop:]:
        later |= {a for inner in n.body for a in inner.args}
    returns = tuple(n.name for n in part if n.name in later)
    if not args or not returns:
        return None
    if any(len(n.returns) > 1 and n.name in (*args, *returns) for n in nodes):  # no array
        return None
    shapes = [program.shapes[a] for a in args if a in program.shapes]
    if any(shape[:1] != shapes[0][:1] for shape in shapes):  # a bias that is given a batch axis
        return None
    text = WRAPS[name]
    if name == "carry of one step" and (
        len(args) != 1 or len(returns) != 1 or program.shapes[args[0]] != program.shapes[returns[0]]
    ):
        return None
    arrays = dict(program.arrays)
    if "FLAG" in text:
        flag = f"flag{len(arrays)}"
        arrays[flag] = np.array(True)
        text = text.replace("FLAG", f"p[{flag!r}]")
    taken = names_of(nodes) | {*arrays}
    call = f"c{len(taken)}"
    while call in taken:
        call += "_"
    name_ = returns[0] if len(returns) == 1 else call
    extra = (("flag", flag),) if "FLAG" in WRAPS[name] else ()
    new = [Node(name_, "text", text, tuple(args), extra, part, returns)]
    if len(returns) > 1:
        new += [Node(r, "text", f"{{0}}[{i}]", (call,)) for i, r in enumerate(returns)]
    nodes = (*nodes[:start], *new, *nodes[stop:])
    return dataclasses.replace(program, nodes=nodes, arrays=arrays)


NAMES = (*REWRITES, *WRAPS)


def apply(program: Program, name: str, seed: int) -> Program | None:
    """The program in the spelling `name` at a place that `seed` draws; None if there is none."""
    rng = random.Random(seed)
    if name == "close over the weights":
        closed = frozenset(n for n in program.arrays if rng.random() < 0.7 and "flag" not in n)
        return dataclasses.replace(program, closed=closed) if closed else None
    if name in WRAPS:
        tries = (wrap(program, name, rng) for _ in range(20))
        return next((p for p in tries if p is not None), None)
    nodes = list(program.nodes)
    rng.shuffle(nodes)
    for node in nodes:
        if node.body:
            continue
        edit = Edit(program, node, rng)
        if REWRITES[name](edit):
            return edit.result()
    return None
