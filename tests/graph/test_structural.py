"""Equations that move, select, mix or rank elements: relevance follows them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.ad_checkpoint import checkpoint_name

import jaxlrp as lrp
from jaxlrp.graph.activity import Activity
from jaxlrp.graph.build import build
from jaxlrp.graph.groups import Facts, Group, Workbench
from jaxlrp.graph.recognise import check_linked
from tests.common import pull_back
from tests.numpy_jaxpr import in_numpy

RNG = np.random.default_rng(4)
X = jnp.asarray(RNG.normal(size=(4, 6)))
W = jnp.asarray(RNG.normal(size=(6, 6)))
INDEX = jnp.array([2, 0, 3, 3])

MOVES = {
    "reshape": lambda x: x.reshape(3, 8),
    "transpose": lambda x: x.T,
    "squeeze": lambda x: jnp.squeeze(x[None], 0),
    "expand": lambda x: x[:, None],
    "broadcast": lambda x: jnp.broadcast_to(x[:, None], (4, 3, 6)),
    "slice": lambda x: x[1:3, ::2],
    "dynamic slice": lambda x: lax.dynamic_slice(x, (INDEX[0], 1), (2, 3)),
    "gather": lambda x: x[INDEX],
    "take along": lambda x: jnp.take_along_axis(x, jnp.argsort(x, 1), 1),
    "rev": lambda x: x[::-1],
    "pad": lambda x: jnp.pad(x, ((1, 2), (0, 1))),
    "pad with a number": lambda x: jnp.pad(x, 1, constant_values=3.0),
    "concatenate": lambda x: jnp.concatenate([x, 2 * jnp.ones((1, 6)), x[:2]]),
    "stack": lambda x: jnp.stack([x, x]),
    "split": lambda x: jnp.split(x, 2, 1)[1],
    "unstack": lambda x: jnp.unstack(x)[2],
    "tile": lambda x: jnp.tile(x, (2, 1)),
    "select": lambda x: jnp.where(jnp.arange(6) % 2 == 0, x, 0.0),
    "select a number": lambda x: jnp.where(jnp.arange(6) % 2 == 0, x, 2.0),
    "select of two": lambda x: jnp.where(jnp.arange(6) % 2 == 0, x, x[::-1]),
    "copy": lambda x: x.copy(),
    "cast": lambda x: x.astype(jnp.float32).astype(jnp.float64),
    "dynamic update": lambda x: lax.dynamic_update_slice(jnp.zeros((5, 6)), x, (1, 0)),
    "scatter": lambda x: jnp.zeros((6, 6)).at[jnp.array([4, 0, 1, 2])].set(x),
    "name": lambda x: checkpoint_name(x, "here"),
    "barrier": lambda x: lax.optimization_barrier(x),
    "scale by a number": lambda x: -0.5 * x,
}
MIXES = {
    "cumsum": lambda x: jnp.cumsum(x, 1),
    "scatter add": lambda x: jnp.zeros((5, 6)).at[INDEX].add(x),
    "window sum": lambda x: lax.reduce_window(x, 0.0, lax.add, (2, 2), (1, 1), "SAME"),
    "mean": lambda x: x.mean(0),
    "sum": lambda x: x.sum(1, keepdims=True),
    "resize": lambda x: jax.image.resize(x, (8, 3), "bilinear"),
    "resize nearest": lambda x: jax.image.resize(x, (8, 12), "nearest"),
    "fft": lambda x: jnp.fft.irfft(jnp.fft.rfft(x) * jnp.arange(4)),
    "rotation": lambda x: x * jnp.cos(1.0) + jnp.roll(x, 3, 1) * jnp.sin(1.0),
    "difference": lambda x: jnp.diff(x, axis=1),
    "triangular solve": lambda x: lax.linalg.triangular_solve(
        jnp.tril(W) + 6 * jnp.eye(6), x.T, left_side=True, lower=True
    ),
    "add a literal 0": lambda x: sum([x, 2 * x]),
}
RANKS = {
    "scatter max": lambda x: jnp.full((5, 6), -9.0).at[INDEX].max(x)[INDEX],
    "sort": lambda x: jnp.sort(x, 1),
    "top k": lambda x: lax.top_k(x, 2)[0],
    "maximum": lambda x: x.max(1),
    "minimum": lambda x: x.min(0),
    "max of two": lambda x: jnp.maximum(x[:2], x[2:]),
    "min with broadcast": lambda x: jnp.minimum(x, x[:1]),
    "running maximum": lambda x: lax.cummax(x, 1),
    "window maximum": lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (2, 2), (2, 2), "SAME"),
}
ALL = {**MOVES, **MIXES, **RANKS}


# JAX has no derivative for it to compare with.
DIFFERENTIABLE = [name for name in ALL if name != "scatter max"]


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_a_density_follows_the_derivative(name):
    fn = ALL[name]
    relevance = in_numpy(lrp.explain(lambda x: fn(x @ W), lrp.Epsilon(0.0)))(X)
    gradient = in_numpy(jax.grad(lambda x: (fn(x @ W)).sum()))(X)
    # Through a cast passes the relevance of the rounded number.
    tolerance = 1e-6 if name == "cast" else 1e-9
    np.testing.assert_allclose(relevance, X * gradient, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", MOVES)
def test_relevance_moves_with_the_elements(name):
    """An element gets the relevance of the places it is moved to; that of constants is lost."""
    fn = MOVES[name]
    x = jnp.maximum(X, 0.0)  # zeros, which no density could serve
    relevance = RNG.normal(size=fn(x).shape)
    found = pull_back(fn, lrp.Epsilon(), x, relevance)
    comes_from = np.asarray(in_numpy(jax.jacobian(fn))(x)).reshape(relevance.size, x.size) != 0
    assert comes_from.sum(1).max() == 1
    # A value that the program itself casts to float32 carries float32 relevance.
    rtol = 1e-6 if name == "cast" else 1e-12
    np.testing.assert_allclose(np.ravel(found), np.ravel(relevance) @ comes_from, rtol=rtol)


@pytest.mark.parametrize("name", RANKS)
def test_relevance_goes_to_the_winners(name):
    """Nothing is lost or made, whoever of several equal ones wins."""
    fn = RANKS[name]
    x = jnp.maximum(X, 0.0)
    relevance = RNG.normal(size=fn(x).shape)
    found = pull_back(fn, lrp.Epsilon(), x, relevance)
    np.testing.assert_allclose(found.sum(), relevance.sum(), rtol=1e-12)
    won = np.isin(np.asarray(x), np.unique(fn(x)))
    assert not np.any(np.asarray(found)[~won])


@pytest.mark.parametrize("name", MIXES)
def test_relevance_through_a_mix_is_shared_by_contribution(name):
    fn = MIXES[name]
    relevance = RNG.normal(size=fn(X).shape)
    found = pull_back(fn, lrp.Epsilon(0.0), X, relevance)
    matrix = np.asarray(in_numpy(jax.jacobian(fn))(X)).reshape(relevance.size, X.size)
    z = matrix @ np.ravel(X)
    s = np.divide(np.ravel(relevance), z, out=np.zeros_like(z), where=z != 0)
    expected = np.ravel(X) * (matrix.T @ s)
    np.testing.assert_allclose(np.ravel(found), expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(
    ("fn", "expected"),
    [
        (lambda x: x.max(1), [[1, 0, 0], [0, 2, 0]]),
        (lambda x: jnp.maximum(x[:, 0], x[:, 1]), [[1, 0, 0], [0, 2, 0]]),
        (lambda x: lax.cummax(x, 1)[:, 2], [[1, 0, 0], [0, 2, 0]]),
        (lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (1, 3), (1, 1), "VALID")[:, 0],
         [[1, 0, 0], [0, 2, 0]]),
        (lambda x: lax.top_k(x, 1)[0][:, 0], [[1, 0, 0], [0, 2, 0]]),
    ],
)  # fmt: skip
def test_ties_go_to_the_first(fn, expected):
    """JAX's own derivative of a maximum splits a tie in equal parts."""
    x = jnp.array([[3.0, 3.0, 3.0], [1.0, 2.0, 2.0]])
    _, back = lrp.relevance_vjp(fn, lrp.Epsilon(), x)
    np.testing.assert_array_equal(back(jnp.array([1.0, 2.0]))[0], expected)


def test_indices_that_come_with_values():
    """One equation, two results: relevance follows the values, the indices are static."""
    table = jnp.asarray(RNG.normal(size=(6, 2)))

    def fn(x):
        values, indices = lax.top_k(x @ W, 2)
        return (values[..., None] * table[indices]).sum((1, 2))

    relevance = in_numpy(lrp.explain(fn, lrp.Epsilon(0.0)))(X)
    np.testing.assert_allclose(relevance, X * jax.grad(lambda x: fn(x).sum())(X), rtol=1e-9)
    layered = in_numpy(lrp.explain(fn, {lrp.first("dense"): lrp.Flat()}))(X)
    np.testing.assert_allclose(layered.sum(), fn(X).sum(), rtol=1e-5)


def test_ties_of_a_scatter():
    x = jnp.array([1.0, 2.0, 2.0, 5.0])

    def fn(x):
        return jnp.array([1.0, 0.0, 0.0]).at[jnp.array([0, 1, 1, 2])].max(x)

    _, back = lrp.relevance_vjp(fn, lrp.Epsilon(), x)
    # The first place keeps the number it had; the second goes to the first of two equals.
    np.testing.assert_array_equal(back(jnp.array([1.0, 2.0, 4.0]))[0], [0, 2, 0, 4])


def test_masks_of_minus_infinity_are_safe():
    def fn(x):
        return jnp.where(jnp.arange(6) < 4, x, -jnp.inf).max(1)

    np.testing.assert_allclose(
        in_numpy(lrp.explain(fn, lrp.Epsilon()))(X).sum(), fn(X).sum(), rtol=1e-9
    )
    masked = X.at[:, 4:].set(-jnp.inf)
    assert jnp.isfinite(in_numpy(lrp.explain(lambda x: x.max(1), lrp.Epsilon()))(masked)).all()


def test_what_is_sorted_along_is_static():
    """A table in the order of x depends on it, and has nothing to hand on."""
    table = jnp.arange(6.0) + 1.0

    def fn(x):
        keys, values = lax.sort((x, jnp.broadcast_to(table, x.shape)), num_keys=1)
        return keys * values

    places = jnp.argsort(jnp.argsort(X, 1), 1)
    order = jnp.take_along_axis(fn(X), places, 1)
    np.testing.assert_allclose(in_numpy(lrp.explain(fn, lrp.Epsilon(0.0)))(X), order, rtol=1e-12)


def test_an_output_within_a_layer_is_a_fault():
    graph = build(jax.make_jaxpr(lambda x: (jnp.tanh(-x), -x))(X), [()])
    graph.outputs = [graph.outputs[0], graph.eqns[0].out]
    bench = Workbench(
        graph, Facts(graph, Activity(graph, graph.inputs, graph.outputs)), graph.outputs
    )
    neg, tanh = graph.eqns[:2]
    bench.claim(Group("activation", [neg, tanh], [neg.inputs[0]], [tanh.out], tanh))
    with pytest.raises(AssertionError, match="fn returns a value within the activation layer"):
        check_linked(bench)


def test_a_layer_that_reads_within_another_is_a_fault():
    """Relevance would be lost there: the check that ends recognition sees it."""
    graph = build(jax.make_jaxpr(lambda x: jnp.tanh(-x) * 2.0)(X), [()])
    facts = Facts(graph, Activity(graph, graph.inputs, graph.outputs))
    bench = Workbench(graph, facts, graph.outputs)
    neg, tanh, mul = graph.eqns
    bench.claim(Group("structural", [mul], [tanh.out], [mul.out], mul))
    bench.claim(Group("activation", [tanh], [neg.out], [tanh.out], tanh))
    check_linked(bench)
    bench.claim(Group("activation", [neg, tanh, mul], [neg.inputs[0]], [mul.out], tanh))
    with pytest.raises(AssertionError, match="reads a value within the activation layer"):
        check_linked(bench)
