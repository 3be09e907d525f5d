"""A random program as the list of layers that tests/layer_reference.py explains.

Programs that hold something whose layers are not beyond doubt (a shift behind a sum, a scale that
could fold into two neighbours) have none. Matrices come from loops over indices.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from tests.layer_reference import ACTIVATIONS, Layer, Rule
from tests.programs import Node, Program

AFFINE = ("bias", "scale", "batch_norm")
MOVES = ("reshape", "slice", "transpose", "flip", "expand")
CORES = ("dense", "conv")


def layers_of(one: Program) -> tuple[list[Layer], list[int]] | None:
    """The layers, and the numbers of the values that are outputs."""
    return _Reader(one).read()


class _Reader:
    def __init__(self, one: Program):
        self.one = one
        self.layers: list[Layer] = []
        self.number = {"x": 0}  # of the value that a name stands for
        self.shapes = {n: s[1:] if n in one.active else s for n, s in one.shapes.items()}
        self.pending: dict[str, tuple[str, list[Node]]] = {}  # affine steps before a core
        self.chains: dict[str, int] = {}  # number of the linear layer that ends at a name

    def read(self) -> tuple[list[Layer], list[int]] | None:
        if any(n not in self.one.active for n in (m.name for m in self.one.nodes)):
            return None
        for node in self.one.nodes:
            if not self._add(node):
                return None
        outputs = [self.number[name] for name in self.one.outputs if name in self.number]
        if len(outputs) < len(self.one.outputs) or outputs[0] != len(self.layers):
            return None
        return self.layers, outputs

    def _size(self, name: str) -> int:
        return int(np.prod(self.shapes[name]))

    def _layer(self, node: Node, kind: str, *reads: str, **facts: Any) -> bool:
        if any(r not in self.number for r in reads):
            return False
        self.layers.append(Layer(kind, tuple(self.number[r] for r in reads), facts))
        self.number[node.name] = len(self.layers)
        return True

    def _add(self, node: Node) -> bool:
        op, source = node.op, node.args[0]
        alone = self.one.readers(source) == 1
        if op in (*AFFINE, *MOVES):
            if source in self.chains and alone:
                return self._extend(node, source)
            if source in self.pending and alone:
                start, steps = self.pending[source]
                return self._wait(node, start, [*steps, node])
            if op in MOVES and source in self.number:
                return self._layer(node, "move", source, index=self._index(node))
            if source in self.chains or op in MOVES:
                return False  # several readers: whose scale is it?
            if self._folds_elsewhere(source):
                return False
            return self._wait(node, source, [node])
        if op in CORES:
            return self._core(node)
        if source in self.pending:
            return False
        if op in ACTIVATIONS:
            f, df = ACTIVATIONS[op]
            return self._layer(node, "activation", source, f=f, df=df)
        if op == "add":
            if any(self._begins_higher(a) for a in node.args) or self._is_inside_one(node):
                return False
            return self._layer(node, "add", *self._terms(node))
        if op == "concat":
            return self._concat(node)
        if op in ("avg_pool", "mean"):
            return self._average(node)
        if op == "max_pool":
            return self._layer(node, "max_pool", source, windows=self._cells(source))
        if op in ("layer_norm", "rms_norm", "l2_norm"):
            return self._norm(node)
        if op == "mul":
            return self._product(node)
        if op in ("scores", "mix", "half", "mask", "softmax"):
            return self._attention(node)
        return False

    def _folds_elsewhere(self, name: str) -> bool:
        """Whether a scale behind this value may belong to a sum, a norm, or what was joined."""
        node = self.one.by_name.get(name)
        while node is not None and node.op in MOVES:
            node = self.one.by_name.get(node.args[0])
        norms = ("layer_norm", "rms_norm", "l2_norm", "peak_norm")
        several = ("add", "mul", "concat", *norms)
        return node is not None and node.op in (*several, "avg_pool", "mean", "mix")

    # Linear layers and what folds into them.

    def _wait(self, node: Node, start: str, steps: list[Node]) -> bool:
        """Affine steps without a layer before them: those that a sole reader takes, it takes."""
        readers = [n for n in self.one.nodes if node.name in n.args]
        takes = len(readers) == 1 and node.name not in self.one.outputs
        if takes and (readers[0].op in CORES or readers[0].op in (*AFFINE, *MOVES)):
            self.pending[node.name] = (start, steps)
            return True
        if len(steps) > 1 or self.one.readers(node.name) > 1 or start not in self.number:
            return False
        size = self._size(start)
        matrix, bias = np.eye(size), np.zeros(size)
        matrix, bias, reach = self._step(node, matrix, bias, np.eye(size, dtype=bool))
        return self._layer(node, "affine", start, matrix=matrix, bias=bias, reach=reach)

    def _step(self, node: Node, matrix: Any, bias: Any, reach: Any) -> tuple[Any, Any, Any]:
        if node.op in MOVES:
            index = self._index(node)
            return matrix[:, index], bias[index], reach[:, index]
        scale, shift = self._affine(node)
        return matrix * scale, bias * scale + shift, reach

    def _affine(self, node: Node) -> tuple[Any, Any]:
        """Scale and shift, one number for each element of the value."""
        a = [self.one.arrays[n] for n in node.args[1:]]
        shape = self.shapes[node.name]
        if node.op == "bias":
            scale, shift = np.ones(1), a[0]
        elif node.op == "scale":
            scale, shift = a[0], np.zeros(1)
        else:
            gamma, beta, mean, variance = a
            scale = gamma / np.sqrt(variance + 1e-3)
            shift = beta - mean * scale
        return tuple(np.broadcast_to(v, shape).reshape(-1) for v in (scale, shift))

    def _index(self, node: Node) -> np.ndarray:
        """Where each element of a moved value comes from."""
        shape = self.shapes[node.args[0]]
        places = np.arange(int(np.prod(shape))).reshape(1, *shape)
        moved = eval(node.text.replace("{0}", "places"), {"places": places, "np": np})
        return np.broadcast_to(moved, (1, *self.shapes[node.name])).reshape(-1)

    def _extend(self, node: Node, source: str) -> bool:
        number = self.chains[source]
        layer = self.layers[number - 1]
        matrix, bias, reach = self._step(node, layer.matrix, layer.bias, layer.reach)
        facts = {"matrix": matrix, "bias": bias, "reach": reach}
        self.layers[number - 1] = Layer(layer.kind, layer.reads, facts)
        self.number[node.name] = self.chains[node.name] = number
        return True

    def _core(self, node: Node) -> bool:
        source, kernel = node.args[0], self.one.arrays[node.args[1]]
        start, steps = self.pending.get(source, (source, []))
        matrix, reach = self._matrix(node, kernel)
        bias = np.zeros(matrix.shape[1])
        size = self._size(start)
        before, shift, seen = np.eye(size), np.zeros(size), np.eye(size, dtype=bool)
        for step in steps:
            before, shift, seen = self._step(step, before, shift, seen)
        matrix, bias = before @ matrix, shift @ matrix + bias
        reach = (seen.astype(int) @ reach.astype(int)) > 0
        made = self._layer(node, node.op, start, matrix=matrix, bias=bias, reach=reach)
        self.chains[node.name] = len(self.layers)
        return made

    def _matrix(self, node: Node, kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        shape, out = self.shapes[node.args[0]], self.shapes[node.name]
        matrix = np.zeros((*shape, *out))
        reach = np.zeros((*shape, *out), bool)
        if node.op == "dense":
            for place in np.ndindex(*shape[:-1]):
                matrix[place][(slice(None), *place)] = kernel
                reach[place][(slice(None), *place)] = True
        else:
            (top, _), (left, _) = node["pads"]
            for i, j in np.ndindex(*out[:2]):
                for di, dj in np.ndindex(*kernel.shape[:2]):
                    r, c = i * node["stride"] + di - top, j * node["stride"] + dj - left
                    if 0 <= r < shape[0] and 0 <= c < shape[1]:
                        matrix[r, c, :, i, j, :] += kernel[di, dj]
                        reach[r, c, :, i, j, :] = True
        sizes = (int(np.prod(shape)), int(np.prod(out)))
        return matrix.reshape(sizes), reach.reshape(sizes)

    # The rest.

    def _terms(self, node: Node) -> list[str]:
        """A sum of sums is one sum."""
        terms = []
        for arg in node.args:
            inner = self.one.by_name.get(arg)
            if inner is not None and inner.op == "add" and self.one.readers(arg) == 1:
                terms += self._terms(inner)
            else:
                terms.append(arg)
        return terms

    def _begins_higher(self, name: str) -> bool:
        """Whether x + f(x) has an x that is itself an activation: all of it may be one."""
        node = self.one.by_name.get(name)
        return node is not None and node.op in ACTIVATIONS and self.one.readers(name) > 1

    def _is_inside_one(self, node: Node) -> bool:
        """Whether a sum of functions of one value may be part of an activation."""
        begins, stack = set(), list(node.args)
        while stack:
            name = stack.pop()
            maker = self.one.by_name.get(name)
            if maker is not None and maker.op in (*ACTIVATIONS, "add", "mul"):
                stack += maker.args
            else:
                begins.add(name)
        readers = [n.op for n in self.one.nodes if node.name in n.args]
        more = any(op in (*ACTIVATIONS, "add", "mul") for op in readers)
        return len(begins) == 1 and (more or begins.isdisjoint(node.args))

    def _concat(self, node: Node) -> bool:
        if not self._layer(node, "join", *node.args):
            return False
        joined = [
            np.arange(self._size(a)).reshape(self.shapes[a])
            + sum(self._size(b) for b in node.args[:i])
            for i, a in enumerate(node.args)
        ]
        index = np.concatenate(joined, -1).reshape(-1)
        return self._layer(node, "move", node.name, index=index)

    def _cells(self, source: str) -> np.ndarray:
        h, w, c = self.shapes[source]
        places = np.arange(h * w * c).reshape(h // 2, 2, w // 2, 2, c)
        return places.transpose(0, 2, 4, 1, 3).reshape(-1, 4)

    def _average(self, node: Node) -> bool:
        source = node.args[0]
        maker = self.one.by_name.get(source)
        while maker is not None and maker.op in MOVES:
            maker = self.one.by_name.get(maker.args[0])
        if maker is not None and maker.op == "mul":
            return False  # a product that is summed contracts, where both factors vary
        shape = self.shapes[source]
        if shape[:-1] == self.shapes[node.name][:-1] or np.prod(shape[:-1]) == 1:
            return False  # a mean of one element is a view
        if node.op == "avg_pool":
            windows = self._cells(source)
        else:
            windows = np.arange(int(np.prod(shape))).reshape(-1, shape[-1]).T
        matrix = np.zeros((self._size(source), len(windows)))
        for j, window in enumerate(windows):
            matrix[window, j] = 1 / len(window)
        facts = {"matrix": matrix, "bias": np.zeros(len(windows)), "reach": matrix != 0}
        return self._layer(node, "avg_pool", source, **facts)

    def _norm(self, node: Node) -> bool:
        shape = self.shapes[node.name]
        size = self._size(node.name)
        a = [np.broadcast_to(self.one.arrays[n], shape).reshape(-1) for n in node.args[1:]]
        return self._layer(
            node,
            "norm",
            node.args[0],
            groups=np.arange(size).reshape(-1, shape[-1]),
            centred=node.op == "layer_norm",
            of="sum" if node.op == "l2_norm" else "mean",
            epsilon=1e-6 if node.op == "l2_norm" else 1e-3,
            scale=a[0] if a else np.ones(size),
            shift=a[1] if len(a) > 1 else np.zeros(size),
        )

    def _product(self, node: Node) -> bool:
        reads = list(node.args)
        gates = [i for i, a in enumerate(reads) if self._activated(a)]
        if len(gates) != 1:
            return False
        shapes = [self.shapes[a] for a in reads]
        for i, shape in enumerate(shapes):
            if shape != self.shapes[node.name]:
                places = np.arange(int(np.prod(shape))).reshape(shape)
                index = np.broadcast_to(places, self.shapes[node.name]).reshape(-1)
                wide = Node(f"{node.name}_wide", "text", "")
                if not self._layer(wide, "move", reads[i], index=index):
                    return False
                reads[i] = wide.name
        return self._layer(node, "product", *reads, gate=gates[0])

    def _activated(self, name: str) -> bool:
        node = self.one.by_name.get(name)
        while node is not None and node.op in MOVES:
            node = self.one.by_name.get(node.args[0])
        return node is not None and node.op in ("sigmoid", "silu", "gelu")

    def _attention(self, node: Node) -> bool:
        a = node.args[0]
        if node.op == "softmax":
            time = self.shapes[node.name][-1]
            mask, allowed = self.one.by_name.get(a), np.ones(self._size(a), bool)
            if mask is not None and mask.op == "mask":
                allowed = np.broadcast_to(self.one.arrays[mask.args[1]], self.shapes[a]).reshape(-1)
            rows = np.arange(self._size(a)).reshape(-1, time)
            return self._layer(node, "softmax", a, rows=rows, allowed=allowed)
        if node.op == "mask":  # the softmax leaves out what is masked
            self.number[node.name] = self.number[a]
            return True
        if node.op == "half":
            return self._layer(node, "move", a, index=np.arange(self._size(a)), factor=0.5)
        b = node.args[1]
        (time, width), out = self.shapes[b], self.shapes[node.name]
        pairs = np.arange(time * width).reshape(time, width)
        if node.op == "scores":
            left = [list(pairs[i]) for i, j in np.ndindex(*out)]
            right = [list(pairs[j]) for i, j in np.ndindex(*out)]
            gate = None
        else:
            weights = np.arange(time * time).reshape(time, time)
            left = [list(weights[i]) for i, j in np.ndindex(*out)]
            right = [list(pairs[:, j]) for i, j in np.ndindex(*out)]
            gate = 0
        facts = {"left": np.array(left), "right": np.array(right), "gate": gate}
        return self._layer(node, "matmul", *node.args, **facts)


# What a rule map says, by kind of layer, in words of this file's own.


def _named(name: str, epsilon: float = 1e-6, **more: Any) -> Any:
    def rule(*args: float, bias: str = more.get("bias", "absorb"), **options: Any) -> Rule | None:
        names = more.get("takes", ())
        given = {**dict(zip(names, args)), **options}
        if given.pop("relative", False):
            return None
        defaults = more.get("defaults", {})
        return name, {"epsilon": epsilon, "bias": bias, **defaults, **given}

    return rule


_epsilon = _named("epsilon", takes=("epsilon",))
_zplus = _named("zplus")
_gamma = _named("gamma", takes=("gamma",), defaults={"gamma": 0.25})
_alpha_beta = _named("alpha_beta", takes=("alpha", "beta"), defaults={"alpha": 2.0, "beta": 1.0})
_flat = _named("flat")
_wsquare = _named("wsquare", bias="ignore")
_zbox = _named("zbox", takes=("low", "high"))


def _map(
    dense: Rule | None = None, conv: Rule | None = None, sums: float = 0.0, **more: Rule
) -> dict[str, Rule]:
    dense = dense or _epsilon(1e-6)
    add = _epsilon(sums)
    plain = ("pass", {"bias": "absorb"})
    kinds = dict.fromkeys(
        "activation move join max_pool softmax product matmul norm".split(), plain
    )
    linear = {"dense": dense, "conv": conv or dense, "affine": more.pop("affine", dense)}
    return {**kinds, **linear, "add": add, "avg_pool": add, **more}


def _composite(conv: Any, first: Any = None, dense: Any = None, **more: Any) -> Any:
    def made(*args: float) -> tuple[dict[str, Rule], Rule | None]:
        top = dense() if dense else _epsilon(1e-6)
        affine = top if dense else _epsilon(1e-6)
        return _map(top, conv(), 1e-6, affine=affine, **more), first(*args) if first else None

    return made


_STOP = {
    "softmax": ("stop", {}),
    "product": ("signal", {}),
    "matmul": ("signal", {}),
}
_COMPOSITES = {
    "lrp_zero": lambda: (_map(_epsilon(0.0)), None),
    "attn_lrp": lambda: (_map(_epsilon(0.0)), None),
    "cp_lrp": lambda: (_map(_epsilon(0.0), **_STOP), None),
    "epsilon_plus": _composite(_zplus),
    "epsilon_plus_flat": _composite(_zplus, _flat),
    "epsilon_alpha2_beta1": _composite(_alpha_beta),
    "epsilon_alpha2_beta1_flat": _composite(_alpha_beta, _flat),
    "epsilon_gamma_box": _composite(_gamma, _zbox),
    "excitation_backprop": _composite(_zplus, None, _zplus, activation=("gradient", {})),
    "deep_taylor": _composite(_zplus, _wsquare, _zplus),
    "deep_taylor_bounded": _composite(_zplus, _zbox, _zplus),
}


class _Selected(dict):
    def __hash__(self) -> int:  # a selector that stands as a key
        return id(self)


def reference_rules(text: str) -> tuple[dict[str, Rule], Rule | None] | None:
    """Rules by kind, and that of the first layers; None for those that have no reference."""
    fake = SimpleNamespace(
        Epsilon=_epsilon,
        ZPlus=_zplus,
        Gamma=_gamma,
        AlphaBeta=_alpha_beta,
        Flat=_flat,
        WSquare=_wsquare,
        ZBox=_zbox,
        kind=lambda name: name,
        first=lambda *kinds: "first",
        composites=SimpleNamespace(**_COMPOSITES),
    )
    try:
        found = eval(text, {"lrp": fake})
    except AttributeError:
        return None
    if found is None:
        return None
    if isinstance(found, dict):
        first = found.pop("first", None)
        return _map(**found) if False else {**_map(), **found}, first
    if isinstance(found[0], str):
        return _map(found), None
    return found
