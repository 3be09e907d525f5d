"""Slow, obvious float64 references of the linear rules, on a layer written as a dense matrix.

Everything is for ONE sample: x has shape (I,), the matrix (I, J), the bias and the relevance R
(J,). Each rule writes the contribution z_ij = x_i w_ij of every input to every output as a full
matrix and shares R_j out in proportion. There is no trick here, so that an error cannot hide in
one.

A bias is an extra contribution that belongs to no input:

- absorb: it counts in the denominator and keeps its share;
- ignore: it is not there (the sign of the true output, which Gamma asks for, keeps it);
- distribute: it counts; its share and the stabiliser's go to the in-bounds inputs in equal parts.
"""

from dataclasses import dataclass

import jax
import numpy as np


@dataclass(frozen=True)
class DenseLayer:
    """y = x @ matrix + bias, and which inputs lie within reach of which output."""

    matrix: np.ndarray
    bias: np.ndarray
    in_bounds: np.ndarray

    def __call__(self, x):
        return x @ self.matrix + self.bias


def dense_layer(matrix, bias=None, in_bounds=None):
    matrix = np.asarray(matrix, np.float64)
    bias = np.zeros(matrix.shape[1]) if bias is None else np.asarray(bias, np.float64)
    mask = np.ones(matrix.shape, bool) if in_bounds is None else np.asarray(in_bounds, bool)
    return DenseLayer(matrix, bias, mask)


def matrix_of(linear, in_shape):
    """The matrix (I, J) of a linear function, by applying it to every unit vector."""
    size = int(np.prod(in_shape))
    units = np.eye(size).reshape((size, *in_shape))
    return np.asarray(jax.jit(jax.vmap(linear))(units), np.float64).reshape(size, -1)


def layer_of(apply, kernel, in_shape, bias=None):
    """`apply(x, kernel)` for one sample, as a DenseLayer.

    `bias` broadcasts against the output. An input is in bounds of an output when an all-ones kernel
    joins them.
    """
    kernel = np.asarray(kernel, np.float64)
    out_shape = jax.eval_shape(apply, np.zeros(in_shape), kernel).shape
    flat_bias = np.broadcast_to(
        0.0 if bias is None else np.asarray(bias, np.float64), out_shape
    ).reshape(-1)
    reach = matrix_of(lambda x: apply(x, np.ones_like(kernel)), in_shape) != 0
    return dense_layer(matrix_of(lambda x: apply(x, kernel), in_shape), flat_bias, reach)


def layer_of_affine(function, in_shape):
    """An affine function as a DenseLayer: its bias is its value at 0, in bounds what is not 0."""
    zero = np.asarray(function(np.zeros(in_shape)), np.float64)
    matrix = matrix_of(lambda x: function(x) - zero, in_shape)
    return dense_layer(matrix, zero.reshape(-1), matrix != 0)


def positive(a):
    return np.where(a > 0, a, 0.0)


def negative(a):
    return np.where(a < 0, a, 0.0)


def _share(layer, contributions, extra, relevance, epsilon, bias):
    """Give every input i the part contributions_ij / stabilised denominator_j of relevance_j.

    `extra` is the bias's contribution to the denominator (None: the rule has none).
    """
    inputs, outputs = contributions.shape
    received = np.zeros(inputs)
    for j in range(outputs):
        own = 0.0 if extra is None or bias == "ignore" else extra[j]
        z = contributions[:, j].sum() + own
        stabiliser = epsilon[j] * (1.0 if z >= 0 else -1.0)
        denominator = z + stabiliser
        if denominator == 0:
            continue
        numerator = contributions[:, j].copy()
        if bias == "distribute":
            reach = layer.in_bounds[:, j]
            numerator[reach] += (own + stabiliser) / reach.sum() if reach.any() else 0.0
        received += numerator / denominator * relevance[j]
    return received


def _constant(epsilon, layer):
    return np.full(layer.matrix.shape[1], float(epsilon))


def epsilon_rule(layer, x, relevance, *, epsilon=1e-6, relative=False, bias="absorb"):
    contributions = x[:, None] * layer.matrix
    size = _constant(epsilon, layer)
    if relative:
        z = contributions.sum(0) + (0.0 if bias == "ignore" else layer.bias)
        size = size * np.sqrt(np.mean(z**2))
    return _share(layer, contributions, layer.bias, relevance, size, bias)


def zplus_rule(layer, x, relevance, *, epsilon=1e-6, bias="absorb"):
    contributions = positive(x[:, None] * layer.matrix)
    return _share(
        layer, contributions, positive(layer.bias), relevance, _constant(epsilon, layer), bias
    )


def alpha_beta_rule(layer, x, relevance, *, alpha=2, beta=1, epsilon=1e-6, bias="absorb"):
    z, size = x[:, None] * layer.matrix, _constant(epsilon, layer)
    for_it = _share(layer, positive(z), positive(layer.bias), relevance, size, bias)
    against = _share(layer, negative(z), negative(layer.bias), relevance, size, bias)
    return alpha * for_it - beta * against


def gamma_rule(layer, x, relevance, *, gamma=0.25, epsilon=1e-6, bias="absorb"):
    """Generalised: contributions of the output's sign weigh 1 + gamma; 0 counts as positive."""
    z = x[:, None] * layer.matrix
    favoured = (layer(x) >= 0)[None, :]
    contributions = z + gamma * np.where(favoured, positive(z), negative(z))
    extra = layer.bias + gamma * np.where(favoured[0], positive(layer.bias), negative(layer.bias))
    return _share(layer, contributions, extra, relevance, _constant(epsilon, layer), bias)


def unsigned_gamma_rule(layer, x, relevance, *, gamma=0.25, epsilon=1e-6, bias="absorb"):
    """The older form, not in the library: positive WEIGHTS weigh 1 + gamma, whatever the input."""
    contributions = x[:, None] * (layer.matrix + gamma * positive(layer.matrix))
    extra = layer.bias + gamma * positive(layer.bias)
    return _share(layer, contributions, extra, relevance, _constant(epsilon, layer), bias)


def zbox_rule(layer, x, relevance, *, low, high, epsilon=1e-6, bias="absorb"):
    """The bias is in xW + b as well as in the two box terms, and cancels."""
    low, high = np.broadcast_to(low, x.shape), np.broadcast_to(high, x.shape)
    contributions = (
        x[:, None] * layer.matrix
        - low[:, None] * positive(layer.matrix)
        - high[:, None] * negative(layer.matrix)
    )
    return _share(layer, contributions, None, relevance, _constant(epsilon, layer), bias)


def wsquare_rule(layer, x, relevance, *, epsilon=1e-6, bias="ignore"):
    return _share(layer, layer.matrix**2, layer.bias**2, relevance, _constant(epsilon, layer), bias)


def flat_rule(layer, x, relevance, *, epsilon=1e-6, bias="absorb"):
    contributions = layer.in_bounds.astype(np.float64)
    return _share(layer, contributions, None, relevance, _constant(epsilon, layer), bias)


def pass_rule(layer, x, relevance):
    assert relevance.shape == x.shape, "Pass needs as many outputs as inputs"
    return relevance


RULES = {
    "epsilon": epsilon_rule,
    "zplus": zplus_rule,
    "alpha_beta": alpha_beta_rule,
    "gamma": gamma_rule,
    "zbox": zbox_rule,
    "wsquare": wsquare_rule,
    "flat": flat_rule,
}


def apply_rule(rule, layer, x, relevance, **options):
    """One rule on a batch: x and the relevance have shape (N, ...); gives the shape of x."""
    rows = [
        rule(
            layer,
            np.asarray(row, np.float64).reshape(-1),
            np.asarray(r, np.float64).reshape(-1),
            **options,
        )
        for row, r in zip(x, relevance, strict=True)
    ]
    return np.stack(rows).reshape(np.shape(x))
