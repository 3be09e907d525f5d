"""LRP on a list of layers, contribution by contribution, in NumPy: slow, plain, and nobody's code.

A network is a list of layers, each given as arrays; values are numbered, 0 is the input and layer n
makes value n. Everything is for ONE example, flattened. There is no jaxpr, no gradient and no code
of the library: each rule writes out what every input contributes to every output, and shares the
relevance of the output in proportion.

A rule is a tuple (name, options). Rules are asked for by kind of layer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Rule = tuple[str, dict[str, Any]]


@dataclass(frozen=True)
class Layer:
    """`reads` are the numbers of the values that it reads.

    kind and what it needs:
      dense, conv, affine: matrix (I, J), bias (J,), reach (I, J): which inputs an output can see.
        `bounds`: number of the inputs before an affine chain that was multiplied in.
      activation: f, and df where a rule takes its derivative.
      move: index (J,) into the input, -1 for a zero. `factor`: a number written after it.
      join: the inputs one after the other.
      add: the sum of its inputs. avg_pool: matrix.
      max_pool: windows (J, n), indices.
      norm: groups (G, n) of indices, centred, epsilon, of "mean" or "sum"; scale, shift.
      softmax: rows (G, n) of indices; allowed (I,).
      product: the elements of two inputs multiplied; `gate`: which of the two.
      matmul: out_j = sum_k a[left[j, k]] b[right[j, k]].
    """

    kind: str
    reads: tuple[int, ...]
    facts: dict[str, Any] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Any:
        return self.__dict__["facts"][name]


def forward(layers: Sequence[Layer], x: np.ndarray) -> list[np.ndarray]:
    values = [x]
    for layer in layers:
        values.append(_value(layer, [values[i] for i in layer.reads]))
    return values


def _value(layer: Layer, inputs: list[np.ndarray]) -> np.ndarray:
    x = inputs[0]
    if layer.kind in ("dense", "conv", "affine", "avg_pool"):
        return x @ layer.matrix + layer.bias
    if layer.kind == "activation":
        return layer.f(x)
    if layer.kind == "move":
        return layer.facts.get("factor", 1.0) * np.append(x, 0.0)[layer.index]
    if layer.kind == "join":
        return np.concatenate(inputs)
    if layer.kind == "add":
        return sum(inputs)
    if layer.kind == "max_pool":
        return x[layer.windows].max(1)
    if layer.kind == "norm":
        matrix, shift = _held(layer, x)
        return x @ matrix + shift
    if layer.kind == "softmax":
        out = np.zeros_like(x)
        for row in layer.rows:
            keep = row[layer.allowed[row]]
            e = np.exp(x[keep] - x[keep].max())
            out[keep] = e / e.sum()
        return out
    if layer.kind == "product":
        return inputs[0] * inputs[1]
    if layer.kind == "matmul":
        return (inputs[0][layer.left] * inputs[1][layer.right]).sum(1)
    raise ValueError(layer.kind)


def _held(layer: Layer, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A norm as a matrix and a shift, its divisor a number."""
    matrix = np.zeros((x.size, x.size))
    for group in layer.groups:
        v = x[group] - (x[group].mean() if layer.centred else 0.0)
        size = np.square(v).mean() if layer.of == "mean" else np.square(v).sum()
        share = np.eye(len(group)) - (1 / len(group) if layer.centred else 0.0)
        matrix[np.ix_(group, group)] = share / np.sqrt(size + layer.epsilon)
    return matrix * layer.scale, layer.shift


def relevance(
    layers: Sequence[Layer],
    x: np.ndarray,
    rules: Mapping[str, Rule],
    first: Rule | None = None,
    outputs: Sequence[int] = (-1,),
) -> np.ndarray:
    """Relevance of x for the sum of `outputs`, numbers of values.

    `rules` by kind; `first` for linear layers that no other one comes before.
    """
    values = forward(layers, x)
    back = [np.zeros_like(v) for v in values]
    for number in outputs:
        number %= len(values)
        back[number] = back[number] + _seed(layers, values, rules, number)
    leading = first_linear(layers)
    for number in range(len(layers), 0, -1):
        layer = layers[number - 1]
        rule = rules[layer.kind]
        if first is not None and number in leading and layer.kind in ("dense", "conv"):
            rule = first
        inputs = [values[i] for i in layer.reads]
        shares = _back(layer, rule, inputs, values[number], back[number])
        for i, share in zip(layer.reads, shares, strict=True):
            back[i] = back[i] + share
    return back[0]


def _seed(
    layers: Sequence[Layer],
    values: Sequence[np.ndarray],
    rules: Mapping[str, Rule],
    output: int,
) -> np.ndarray:
    """What starts at an output: its value, or 1 if the layer there takes a derivative."""
    number = output
    while number and layers[number - 1].kind in ("move", "max_pool"):
        (number,) = layers[number - 1].reads
    derivative = number > 0 and rules.get(layers[number - 1].kind, ("",))[0] == "gradient"
    return np.ones_like(values[output]) if derivative else values[output].copy()


def first_linear(layers: Sequence[Layer]) -> set[int]:
    """Numbers of dense layers and convolutions that the input reaches past no other one."""
    open_, found = {0}, set()
    for number, layer in enumerate(layers, 1):
        if not open_.isdisjoint(layer.reads):
            if layer.kind in ("dense", "conv"):
                found.add(number)
            else:
                open_.add(number)
    return found


def _stabilised(z: np.ndarray, epsilon: Any) -> np.ndarray:
    return z + epsilon * np.where(z >= 0, 1.0, -1.0)


def _over(r: np.ndarray, z: np.ndarray) -> np.ndarray:
    return np.divide(r, z, out=np.zeros_like(r), where=z != 0)


def _back(
    layer: Layer, rule: Rule, inputs: list[np.ndarray], out: np.ndarray, r: np.ndarray
) -> list[np.ndarray]:
    name, options = rule
    x = inputs[0]
    if layer.kind in ("dense", "conv", "affine", "avg_pool"):
        return [_linear(layer, name, options, x, out, r)]
    if layer.kind == "activation":
        return [r * layer.df(x)] if name == "gradient" else [r]
    if layer.kind == "move":
        back = np.zeros(x.size + 1)
        np.add.at(back, layer.index, r)
        return [back[:-1]]
    if layer.kind == "join":
        return np.split(r, np.cumsum([v.size for v in inputs])[:-1])
    if layer.kind == "add":
        s = _over(r, _stabilised(out, options["epsilon"]))
        return [v * s for v in inputs]
    if layer.kind == "max_pool":
        back = np.zeros_like(x)
        winners = layer.windows[np.arange(len(out)), x[layer.windows].argmax(1)]
        np.add.at(back, winners, r)
        return [back]
    if layer.kind == "norm":
        matrix, _ = _held(layer, x)
        # The shift keeps its part, unless it is ignored.
        z = x @ matrix if options["bias"] == "ignore" else out
        return [(x[:, None] * matrix * _over(r, z)).sum(1)]
    if layer.kind == "softmax":
        if name == "stop":
            return [np.zeros_like(x)]
        back = np.zeros_like(x)
        c = _over(r, out)
        for row in layer.rows:
            keep = row[layer.allowed[row]]
            p = out[keep]
            jacobian = np.diag(p) - np.outer(p, p)
            back[keep] = x[keep] * (jacobian @ c[keep])
        return [back]
    if layer.kind == "product":
        r = np.where(out == 0, 0.0, r)  # a product that is zero has no shares
        if name == "signal" and layer.gate is not None:
            return [np.zeros_like(r) if i == layer.gate else r for i in (0, 1)]
        return [r / 2, r / 2]
    if layer.kind == "matmul":
        a, b = inputs
        parts = a[layer.left] * b[layer.right] * _over(r, out)[:, None]
        backs = [np.zeros_like(a), np.zeros_like(b)]
        np.add.at(backs[0], layer.left, parts)
        np.add.at(backs[1], layer.right, parts)
        if name == "signal" and layer.gate is not None:
            return [back * (i != layer.gate) for i, back in enumerate(backs)]
        return [back / 2 for back in backs]
    raise ValueError(layer.kind)


def _linear(
    layer: Layer, name: str, options: dict[str, Any], x: np.ndarray, out: np.ndarray, r: np.ndarray
) -> np.ndarray:
    w, b, reach = layer.matrix, layer.bias, layer.reach
    policy, epsilon = options["bias"], options["epsilon"]
    # What input i gives to output j, and the bias as one more contribution.
    each = x[:, None] * w
    if name == "epsilon":
        parts = [(1.0, each, b)]
    elif name == "zplus":
        parts = [(1.0, np.maximum(each, 0), np.maximum(b, 0))]
    elif name == "alpha_beta":
        parts = [
            (options["alpha"], np.maximum(each, 0), np.maximum(b, 0)),
            (-options["beta"], np.minimum(each, 0), np.minimum(b, 0)),
        ]
    elif name == "gamma":
        up = out >= 0
        favour = np.where(up, np.maximum(each, 0), np.minimum(each, 0))
        favour_b = np.where(up, np.maximum(b, 0), np.minimum(b, 0))
        g = options["gamma"]
        parts = [(1.0, each + g * favour, b + g * favour_b)]
    elif name == "zbox":
        box = options["low"] * np.maximum(w, 0) + options["high"] * np.minimum(w, 0)
        parts = [(1.0, each - box, np.zeros_like(b))]
    elif name == "wsquare":
        parts = [(1.0, w**2, b**2)]
    elif name == "flat":
        parts = [(1.0, reach.astype(float), np.zeros_like(b))]
    else:
        raise ValueError(name)
    given = np.zeros_like(each)
    for share, z, extra in parts:
        total = z.sum(0) + (0.0 if policy == "ignore" else extra)
        given += z * _over(share * r, _stabilised(total, epsilon))
    if policy == "distribute":
        rest = r - given.sum(0)
        given += np.where(reach, _over(rest, reach.sum(0).astype(float)), 0.0)
    return given.sum(1)


Activation = tuple[Callable[[np.ndarray], np.ndarray], Callable[[np.ndarray], np.ndarray]]


def _normal_below(x: np.ndarray) -> np.ndarray:
    """The share of a normal distribution below x; 1 + erf would lose it far below 0."""
    from math import erfc

    return 0.5 * np.vectorize(erfc)(-x / 2**0.5)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


# f and its derivative.
ACTIVATIONS: dict[str, Activation] = {
    "relu": (lambda x: np.maximum(x, 0), lambda x: (x > 0) * 1.0),
    "leaky_relu": (lambda x: np.where(x > 0, x, 0.1 * x), lambda x: np.where(x > 0, 1.0, 0.1)),
    "tanh": (np.tanh, lambda x: 1 - np.tanh(x) ** 2),
    "sigmoid": (_sigmoid, lambda x: _sigmoid(x) * (1 - _sigmoid(x))),
    "silu": (
        lambda x: x * _sigmoid(x),
        lambda x: _sigmoid(x) * (1 + x * (1 - _sigmoid(x))),
    ),
    "gelu": (
        lambda x: x * _normal_below(x),
        lambda x: _normal_below(x) + x * np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi),
    ),
    "softplus": (lambda x: np.logaddexp(x, 0), _sigmoid),
    "hard_swish": (
        lambda x: x * np.clip(x + 3, 0, 6) / 6,
        lambda x: np.where(x <= -3, 0.0, np.where(x >= 3, 1.0, (2 * x + 3) / 6)),
    ),
    "abs": (np.abs, np.sign),
    "square": (np.square, lambda x: 2 * x),
    "straight_through": (np.round, lambda x: np.ones_like(x)),
}
