"""Random networks as programs, and the rule maps under which they are explained."""

from __future__ import annotations

import ast
import dataclasses
import random
from collections.abc import Callable
from typing import Any

import numpy as np

import jaxlrp as lrp
from tests.layer_reference import ACTIVATIONS
from tests.programs import Node, Program
from tests.rewrites import CHANGES_KIND, KNOWN, LAST, LOOPS, SPELLINGS, SPLITS_FEATURES

_FIRST = "lrp.first(lrp.kind('conv'), lrp.kind('dense'))"

# Every linear rule with every policy for biases, and every composite, as Python. Each program is
# explained under one; `DIFFERS` are those in which dense layers and convolutions differ.
RULES: tuple[str, ...] = (
    *(
        f"lrp.{rule}{'' if bias == 'absorb' else f'bias={bias!r}'})".replace(",)", ")")
        for rule in (
            "Epsilon(1e-6, ",
            "ZPlus(",
            "Gamma(0.25, ",
            "AlphaBeta(2.0, 1.0, ",
        )
        for bias in ("absorb", "ignore", "distribute")
    ),
    "lrp.Epsilon(0.0)",
    "lrp.Epsilon(0.1)",
    "lrp.Epsilon(0.05, relative=True)",
    "lrp.Flat()",
    "lrp.Flat(bias='distribute')",
    "lrp.WSquare()",
    "lrp.WSquare(bias='absorb')",
    "lrp.WSquare(bias='distribute')",
    f"{{{_FIRST}: lrp.ZBox(-4.0, 4.0)}}",
    f"{{{_FIRST}: lrp.ZBox(-4.0, 4.0, bias='distribute')}}",
    "{'add': lrp.Epsilon(1e-3), 'avg_pool': lrp.Epsilon(1e-3)}",
    "{}",
    *(
        f"lrp.composites.{name}()"
        for name in (
            "lrp_zero epsilon_plus epsilon_plus_flat epsilon_alpha2_beta1"
            " epsilon_alpha2_beta1_flat excitation_backprop guided_backprop deconvnet beta_smooth"
            " deep_taylor attn_lrp cp_lrp lstm_lrp_all mamba_lrp"
        ).split()
    ),
    "lrp.composites.epsilon_gamma_box(-4.0, 4.0)",
    "lrp.composites.deep_taylor_bounded(-4.0, 4.0)",
)
RULES = tuple(r.replace(", )", ")") for r in RULES)
BY_DERIVATIVE = ("excitation_backprop", "guided_backprop", "deconvnet", "beta_smooth")
DIFFERS = ("epsilon_plus", "epsilon_alpha2", "epsilon_gamma")


def rule_map(text: str) -> Any:
    return eval(text, {"lrp": lrp})


def fits(rewrite: str, rules: str) -> bool:
    """Whether a rewrite should keep relevance under a rule map."""
    if rewrite in LAST and any(r in rules for r in ("guided_backprop", "deconvnet")):
        # Layers written twice stay two, and these rules keep what is positive in each.
        return False
    if rewrite in CHANGES_KIND:
        return not any(d in rules for d in (*DIFFERS, "relative"))
    if rewrite.startswith("straight_through: ") or rewrite == "peak_norm: backwards":
        # The derivative of a rounding is 0, that of a straight-through estimator 1. A sign that an
        # activation takes from the norm before it turns its derivative.
        return not any(r in rules for r in BY_DERIVATIVE)
    if rewrite.startswith("power: "):
        # A sum of two squares, or an activation: alike where sums have no stabiliser.
        plain = ("lrp_zero", "attn_lrp", "cp_lrp")
        return "'add'" not in rules and (
            "composites" not in rules or any(p in rules for p in plain)
        )
    if rewrite in LOOPS or rewrite == "recur: hoisted":
        # What is scanned is one layer: the first of a network, or a summand, in all steps or none.
        # An activation of a ReLU is one activation, and not a ReLU, unless a loop ends between.
        of_relus = ("guided_backprop", "deconvnet", "beta_smooth")
        others = ("first(", "_flat", "box", "bounded", "taylor", "lstm", *of_relus)
        return not any(r in rules for r in others)
    return not (rewrite in SPLITS_FEATURES and "relative" in rules)


class Builder:
    """Adds one line after another; `v` is the value that the next one reads."""

    def __init__(self, rng: random.Random, shape: tuple[int, ...]):
        self.rng = rng
        self.draw = np.random.default_rng(rng.randrange(2**32))
        self.v = "x"
        self.shape = shape  # of `v`, without the batch
        self.nodes: list[Node] = []
        self.arrays: dict[str, np.ndarray] = {}

    def learned(self, *shape: int, scale: float = 1.0, shift: float = 0.0) -> str:
        name = f"w{len(self.arrays)}"
        self.arrays[name] = np.round(scale * self.draw.normal(size=shape) + shift, 3)
        return name

    def positive(self, *shape: int) -> str:
        name = self.learned(*shape)
        self.arrays[name] = np.abs(self.arrays[name]) + 0.5
        return name

    def line(self, op: str, text: str, *args: str, shape: Any = None, **facts: Any) -> str:
        self.v = f"v{len(self.nodes)}"
        self.nodes.append(Node(self.v, op, text, args, tuple(facts.items())))
        self.shape = self.shape if shape is None else shape
        return self.v

    def spelled(self, op: str, *args: str, shape: Any = None, **facts: Any) -> str:
        """A line in one of the spellings of `op`; the first one most often."""
        left_out = set(KNOWN)
        if any(n.op == "avg_pool" and n.name in args for n in self.nodes):
            left_out.add("mean: scaled before")  # a number that either of two means may take
        texts = [t for name, t in SPELLINGS[op].items() if f"{op}: {name}" not in left_out]
        text = texts[0] if self.rng.random() < 0.7 else self.rng.choice(texts)
        return self.line(op, text, *args, shape=shape, **facts)

    @property
    def width(self) -> int:
        return self.shape[-1]

    # Layers.

    def dense(self, out: int | None = None, bias: bool | None = None) -> str:
        out = out or self.rng.choice([3, 4])
        w = self.learned(self.width, out, scale=self.width**-0.5)
        self.line("dense", "{0} @ {1}", self.v, w, shape=(*self.shape[:-1], out))
        if self.rng.random() < 0.6 if bias is None else bias:
            self.bias()
        return self.v

    def bias(self) -> str:
        return self.line("bias", "{0} + {1}", self.v, self.learned(self.width, scale=0.4))

    def scale(self) -> str:
        return self.line("scale", "{0} * {1}", self.v, self.learned(self.width, shift=0.3))

    def conv(self) -> str:
        height, width, channels = self.shape
        size, stride = self.rng.choice([1, 2, 3]), self.rng.choice([1, 1, 2])
        low = (size - 1) // 2
        pads = ((low, size - 1 - low),) * 2 if self.rng.random() < 0.7 else ((0, 0),) * 2
        if size > min(height, width) + sum(pads[0]):
            return self.v
        out = self.rng.choice([2, 3])
        w = self.learned(size, size, channels, out, scale=(size * size * channels) ** -0.5)
        text = (
            f"lax.conv_general_dilated({{0}}, {{1}}, ({stride}, {stride}), {pads},"
            " dimension_numbers=('NHWC', 'HWIO', 'NHWC'))"
        )
        left = tuple((n + sum(pads[0]) - size) // stride + 1 for n in (height, width))
        self.line("conv", text, self.v, w, shape=(*left, out), pads=pads, stride=stride)
        return self.bias() if self.rng.random() < 0.5 else self.v

    def activation(self) -> str:
        names = ["relu", "relu", "leaky_relu", "tanh", "sigmoid", "silu", "gelu", "softplus"]
        return self.spelled(self.rng.choice([*names, "hard_swish", "abs", "square"]), self.v)

    def batch_norm(self) -> str:
        n = self.width
        args = [self.positive(n), self.learned(n, scale=0.3), self.learned(n, scale=0.3)]
        return self.spelled("batch_norm", self.v, *args, self.positive(n))

    def norm(self) -> str:
        kind = self.rng.choice(["layer_norm", "rms_norm", "l2_norm", "peak_norm"])
        if self.width < 3:
            return self.v
        if kind == "layer_norm":
            args = [self.learned(self.width, shift=0.5), self.learned(self.width, scale=0.3)]
        else:
            args = [self.learned(self.width, shift=0.5)] if kind == "rms_norm" else []
        return self.spelled(kind, self.v, *args)

    def view(self) -> str:
        if len(self.shape) == 1 or self.rng.random() < 0.4:
            return self.line("flip", "{0}[..., ::-1]", self.v)
        if self.rng.random() < 0.5:
            text, rest = "{0}[:, 1:]", (self.shape[0] - 1, *self.shape[1:])
            return self.line("slice", text, self.v, shape=rest) if rest[0] > 1 else self.v
        order = (1, 0, *range(2, len(self.shape)))
        text = "{0}.transpose(0, " + ", ".join(str(i + 1) for i in order) + ")"
        shape = tuple(self.shape[i] for i in order)
        return self.line("transpose", text, self.v, shape=shape)

    def flatten(self) -> str:
        size = int(np.prod(self.shape))
        return self.line("reshape", "{0}.reshape({0}.shape[0], -1)", self.v, shape=(size,))

    # Parts with a branch.

    def residual(self) -> str:
        start, shape = self.v, self.shape
        self.rng.choice([self.norm, self.activation, self.dense])()
        self.dense()
        self.activation()
        branch = self.dense(out=shape[-1])
        return self.line("add", "{0} + {1}", start, branch, shape=shape)

    def skip(self) -> str:
        """x + f(x)"""
        start = self.v
        return self.line("add", "{0} + {1}", start, self.activation())

    def concat(self) -> str:
        start, shape = self.v, self.shape
        other = self.dense()
        both = (*shape[:-1], shape[-1] + self.width)
        return self.line("concat", "jnp.concatenate([{0}, {1}], -1)", start, other, shape=both)

    def gate(self) -> str:
        start, shape = self.v, self.shape
        signal = self.dense(out=4)
        self.v, self.shape = start, shape
        self.dense(out=4)
        gate = self.spelled(self.rng.choice(["sigmoid", "silu", "gelu"]), self.v)
        order = (gate, signal) if self.rng.random() < 0.5 else (signal, gate)
        return self.line("mul", "{0} * {1}", *order)

    def squeeze(self) -> str:
        """Channels weighted by what a picture's mean says."""
        start, shape = self.v, self.shape
        self.spelled("mean", self.v, shape=(shape[-1],))
        self.dense(out=shape[-1])
        gate = self.spelled("sigmoid", self.v)
        gate = self.line("expand", "{0}[:, None, None]", gate, shape=(1, 1, shape[-1]))
        return self.line("mul", "{0} * {1}", start, gate, shape=shape)

    def attention(self) -> str:
        start, shape = self.v, self.shape
        parts = []
        for _ in range(3):
            self.v, self.shape = start, shape
            parts.append(self.dense(out=3))
        q, k, v = parts
        time = shape[0]
        scores = self.spelled("scores", q, k, shape=(time, time))
        self.spelled("half", scores)
        if self.rng.random() < 0.4:
            mask = self.learned(time, time)
            self.arrays[mask] = np.tril(np.ones((time, time), bool))
            self.spelled("mask", self.v, mask)
        weights = self.spelled("softmax", self.v)
        out = self.spelled("mix", weights, v, shape=(time, 3))
        if self.rng.random() < 0.6:
            self.dense(out=shape[-1])
            out = self.line("add", "{0} + {1}", start, self.v, shape=shape)
        return out

    def quantised(self) -> str:
        return self.spelled("straight_through", self.scale())

    def pool(self) -> str:
        if min(self.shape[:2]) < 2 or self.shape[0] % 2 or self.shape[1] % 2:
            return self.v
        shape = (self.shape[0] // 2, self.shape[1] // 2, self.shape[2])
        return self.spelled(self.rng.choice(["max_pool", "avg_pool"]), self.v, shape=shape)

    def tower(self) -> str:
        n = self.width
        w, b = self.learned(2, n, n, scale=n**-0.5), self.learned(2, n, scale=0.3)
        return self.spelled("tower", self.v, w, b)

    def recurrence(self) -> str:
        u, v = self.learned(self.width, 4, scale=0.5), self.learned(4, 4, scale=0.5)
        return self.spelled("recur", self.v, u, v, self.learned(4, scale=0.3), shape=(4,))

    def fourier(self) -> str:
        if self.width < 3 or len(self.shape) > 2:
            return self.v
        n = self.width // 2 + 1
        return self.spelled("fourier", self.v, self.learned(n), self.learned(n))

    def spectrum(self) -> str:
        if self.width < 3 or len(self.shape) > 2:
            return self.v
        shape = (*self.shape[:-1], self.width // 2 + 1)
        return self.spelled("power", self.v, shape=shape)

    def mean(self) -> str:
        return self.spelled("mean", self.v, shape=(self.width,))


_ANYWHERE = "dense dense activation activation batch_norm norm residual skip concat gate view scale"
_PARTS: dict[int, list[str]] = {
    1: f"{_ANYWHERE} tower quantised fourier spectrum bias".split(),
    2: f"{_ANYWHERE} attention attention recurrence mean fourier bias".split(),
    3: f"{_ANYWHERE} conv conv conv pool pool mean squeeze".split(),
}
_SHAPES = {1: [(4,), (6,)], 2: [(3, 4)], 3: [(4, 4, 2), (4, 4, 3)]}


def program(seed: int) -> Program:
    """A random network; its batch holds two examples, and the two moved by one unit in the last
    place."""
    rng = random.Random(seed)
    rank = rng.choice([1, 2, 3, 3])
    build = Builder(rng, rng.choice(_SHAPES[rank]))
    start = build.shape
    for _ in range(rng.randint(2, 5)):
        part: Callable[[], str] = getattr(build, rng.choice(_PARTS[len(build.shape)]))
        part()
    if len(build.shape) > 1:
        (build.mean if rng.random() < 0.5 else build.flatten)()
    if rng.random() < 0.8:
        build.dense(out=3)
    x = np.round(build.draw.normal(size=(2, *start)), 3)
    x = np.where(x == 0, 0.5, x)
    moved = np.nextafter(x, np.where(build.draw.random(x.shape) < 0.5, -9.0, 9.0))
    x = np.concatenate([x, moved])
    if not build.nodes:
        return program(seed + 10**6)
    return also_given(Program(tuple(build.nodes), build.v, x, build.arrays).pruned(), seed)


def also_given(one: Program, seed: int) -> Program:
    """Every third program returns values from within too, as a network with a second head does."""
    rng = random.Random(f"outputs of {seed}")
    inner = [n for n in one.nodes if n.op != "mask"]  # -inf has no relevance
    within = [n.name for n in inner if n.name in one.active and n.name != one.output]
    if not within or rng.random() > 1 / 3:
        return one
    chosen = rng.sample(within, min(len(within), rng.choice([1, 1, 2])))
    return dataclasses.replace(one, also=tuple(chosen))


def ties(one: Program) -> bool:
    """Whether two numbers of a pooling window, or of a rank in a maximum, are the same."""
    pools = [n for n in one.nodes if n.op == "max_pool"]
    if not pools:
        return False
    values = one.values()
    for node in pools:
        v = np.asarray(values[node.args[0]])
        b, h, w, c = v.shape
        cells = v.reshape(b, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 5, 2, 4)
        cells = np.sort(cells.reshape(-1, 4), -1)
        if (cells[:, 3] - cells[:, 2] < 1e-9).any():
            return True
    return False


def at_a_kink(one: Program) -> bool:
    """Whether an activation in a network that rounds is where it has two derivatives.

    A rounded number often is: leaky_relu has the derivatives 1 and 0.1 at 0.
    """
    values, step = one.values(), 1e-6
    if not any(n.op == "straight_through" for n in one.nodes):
        return False
    for node in one.nodes:
        if node.op in ACTIVATIONS and node.op != "straight_through" and len(node.args) == 1:
            f, at = ACTIVATIONS[node.op][0], np.asarray(values[node.args[0]])
            bend = f(at + step) - 2 * f(at) + f(at - step)
            if (np.abs(bend) > 1e-3 * step).any():
                return True
    return False


def adds_sum_of_same(one: Program) -> bool:
    """Whether x is added to an activation of x that is itself written as a sum with x.

    `x + (0.5 * x + 0.5 * x * erf(x))` has three terms; see docs/recognition.md.
    """
    for node in (n for n in one.nodes if n.op == "add"):
        for x, activation in (node.args, node.args[::-1]):
            maker = one.by_name.get(activation)
            if maker is not None and maker.op in ACTIVATIONS and maker.args == (x,):
                written = ast.parse(maker.text.format("x"), mode="eval").body
                if isinstance(written, ast.BinOp) and isinstance(written.op, ast.Add | ast.Sub):
                    return True
    return False


def cancels(one: Program) -> bool:
    """Whether the terms of a sum cancel, as those of x + |x| do: shares too large for float32."""
    values = one.values()
    for node in (n for n in one.nodes if n.op == "add"):
        a, b = (np.asarray(values[arg]) for arg in node.args)
        if (np.abs(a + b) < 1e-6 * (np.abs(a) + np.abs(b))).any():
            return True
    for node in (n for n in one.nodes if n.op in ("avg_pool", "mean")):
        if (np.abs(values[node.name]) < 1e-12 * np.abs(values[node.args[0]]).max()).any():
            return True
    return False


def without(one: Program, name: str, instead: str) -> Program:
    """A program in which `instead` is read in the place of the node `name`."""
    nodes = tuple(n.renamed({name: instead}) for n in one.nodes if n.name != name)
    output, *also = (instead if n == name else n for n in one.outputs)
    return dataclasses.replace(one, nodes=nodes, output=output, also=tuple(also)).pruned()
