"""Targets: classes, weights and structures of them, and what is said where one does not fit."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import checkify

import jaxlrp as lrp
from tests.compare import assert_close

RNG = np.random.default_rng(0)
W, V = RNG.normal(size=(4, 3)), RNG.normal(size=(4, 2))
X = RNG.uniform(0.5, 1.5, size=(2, 4))


def net(x):
    return jax.nn.relu(x @ W)


def two(x):
    return {"a": x @ W, "b": x @ V}


@pytest.mark.parametrize(
    ("target", "same"),
    [
        ([1, 2], np.array([1, 2])),
        ((1, 2), np.array([1, 2])),
        ([jnp.array(1), 2], np.array([1, 2])),
        ([[0, 1.0, 0], (0.5, 0, 0)], np.array([[0, 1.0, 0], [0.5, 0, 0]])),
        (np.int64(1), 1),
    ],
)
def test_a_list_of_numbers_is_an_array(target, same):
    explain = lrp.explain(net, lrp.Epsilon(0.0))
    assert_close(explain(X, target=target), explain(X, target=same))
    wrapped = lrp.explain(lambda x: (net(x),), lrp.Epsilon(0.0))
    assert_close(wrapped(X, target=target), explain(X, target=same))
    assert_close(wrapped(X, target=(target,)), explain(X, target=same))


def test_a_traced_list_is_an_array():
    explain = lrp.explain(net, lrp.Epsilon(0.0))
    traced = jax.jit(lambda a, b: explain(X, target=[a, b]))
    assert_close(traced(1, 2), explain(X, target=np.array([1, 2])))


def test_each_output_has_a_target_of_its_own():
    alone = {
        "a": lrp.explain(lambda x: x @ W, lrp.Epsilon(0.0)),
        "b": lrp.explain(lambda x: x @ V, lrp.Epsilon(0.0)),
    }
    explain = lrp.explain(two, lrp.Epsilon(0.0))
    weights = RNG.normal(size=(2, 2))
    a, b = alone["a"](X, target=[2, 0]), alone["b"](X, target=weights)
    assert_close(explain(X, target={"a": [2, 0], "b": weights.tolist()}), a + b)
    assert_close(explain(X, target={"a": [2, 0], "b": None}), a)
    assert_close(explain(X, target={"a": None, "b": 1}), alone["b"](X, target=1))
    assert_close(explain(X, target=None), alone["a"](X) + alone["b"](X))


def test_outputs_of_which_one_is_not_seeded():
    given = lrp.output_weights({"a": 1, "b": None}, two(X))
    assert_close(given["a"], np.array([[0.0, 1, 0]] * 2))
    assert_close(given["b"], np.zeros((2, 2)))


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (0, r"target=0 was given, but fn returns .*2 arrays.*target=\{'a': 0, 'b': None\}"),
        (1.0, "target=1.0 was given, but fn returns"),
        (np.zeros((2, 3)), r"target=float64\[2, 3\] was given, but fn returns"),
        ([0, 1], r"target has the structure PyTreeDef\(\[\*, \*\]\), but fn returns"),
        ({"a": 0}, "Expected a target for each in the same structure"),
        ({"a": None, "b": None}, "seeds none of the outputs"),
        ({"a": 3, "b": None}, r"target\['a'\] 3 is out of range: the output has 3 classes"),
        ({"a": 0, "b": np.ones(3)}, r"target\['b'\]: weights of shape \(3,\).*shape \(2, 2\)"),
        ({"a": "cat", "b": 0}, r"target\['a'\]: 'cat' of type str"),
    ],
)
def test_targets_of_several_outputs_that_do_not_fit(target, message):
    with pytest.raises(lrp.TargetError, match=message):
        lrp.explain(two, lrp.Epsilon())(X, target=target)


@pytest.mark.parametrize("target", [3, -1, np.array([0, 7]), [0, 7]])
def test_a_class_out_of_range(target):
    with pytest.raises(lrp.TargetError, match="out of range: the output has 3 classes, 0 to 2"):
        lrp.explain(net, lrp.Epsilon())(X, target=target)


def test_a_traced_class_out_of_range_is_nan_and_an_error_under_checkify():
    explain = jax.jit(lrp.explain(net, lrp.Epsilon()))
    relevance = explain(X, target=jnp.array([1, 3]))
    assert jnp.isfinite(relevance[0]).all()
    assert jnp.isnan(relevance[1]).all()
    checked = checkify.checkify(lambda t: explain(X, target=t))
    error, _ = checked(jnp.array([1, 3]))
    assert "target is out of range: the output has 3 classes" in error.get()
    error, found = checked(jnp.array([1, 2]))
    assert error.get() is None
    assert_close(found, lrp.explain(net, lrp.Epsilon())(X, target=[1, 2]))


def test_traced_classes_under_other_transformations():
    """The check for `checkify` is in nobody's way."""
    explain = lrp.explain(net, lrp.Epsilon(0.0))
    expected = np.stack([explain(X, target=c) for c in range(3)])
    each = jnp.arange(3)
    assert_close(jax.vmap(lambda c: explain(X, target=c))(each), expected)
    assert_close(jax.lax.map(lambda c: explain(X, target=c), each), expected)
    total = jax.jit(jax.grad(jax.checkpoint(lambda x, c: explain(x, target=c).sum())))(X, 1)
    assert_close(total, jax.grad(lambda x: explain(x, target=1).sum())(X))


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (np.array([0, 1, 2]), r"target of shape \(3,\).*integers of shape \(2,\)"),
        (np.ones((2, 4)), r"weights of shape \(2, 4\).*output of shape \(2, 3\)"),
        (np.ones(3), r"weights of shape \(3,\)"),
        (0.5, r"weights of shape \(\)"),
        (2.0, r"2.0 is a float; a class is an integer: write target=2"),
        (True, "boolean"),
        (np.array([True, False]), "boolean"),
        ("cat", r"'cat' of type str was given; expected one integer or integers of shape \(2,\)"),
        (["cat", "dog"], r"'cat' of type str.*names.index"),
        (np.eye(3, dtype=int)[[0, 1]], r"a one-hot row is one\), give them as floats"),
        ([[1, 2], [3]], "rows differ in length"),
        ({"a": 0}, "of type dict was given; expected one integer"),
        (object(), "of type object was given; expected"),
        (1j, r"dtype complex.*floats of shape \(2, 3\)"),
    ],
)
def test_a_target_that_does_not_fit(target, message):
    with pytest.raises(lrp.TargetError, match=message):
        lrp.explain(net, lrp.Epsilon())(X, target=target)


def test_a_class_of_a_scalar_output():
    with pytest.raises(lrp.TargetError, match="scalar; leave"):
        lrp.explain(lambda x: net(x).sum(), lrp.Epsilon())(X, target=0)


def looped(x):
    """A network that sees its examples, the second axis, through a scan over time."""
    h, _ = jax.lax.scan(lambda h, u: (jnp.tanh(u @ W + h), None), jnp.zeros((2, 3)), x)
    return h.sum(-1)


@pytest.mark.parametrize(
    ("fn", "x"),
    [
        (lambda x: net(x).sum(-1), X),
        (lambda x: (jax.nn.softmax(x @ W) @ np.ones((3, 1)))[:, 0], X),
        (lambda x: net(x.reshape(2, 4)).max(-1), X.reshape(2, 2, 2)),
        (lambda x: jnp.concatenate([x, x[:, ::-1]], 1).sum(1), X),
        (lambda x: jnp.sort(x, 1)[:, -1], X),
        (looped, np.stack([X, X, X])),
        # the elements of each example among those of all, and apart again
        (lambda x: net(x.reshape(6, 4)).reshape(2, 3, -1).sum((1, 2)), np.stack([X, X, X], 1)),
    ],
)
def test_an_integer_for_one_number_per_example(fn, x):
    with pytest.raises(lrp.TargetError, match=r"only axis is one of examples.*every example") as e:
        lrp.explain(fn, lrp.Epsilon())(x, target=0)
    assert "target=jax.nn.one_hot(example, 2)" in str(e.value)
    explain = lrp.explain(fn, lrp.Epsilon())
    assert jnp.isfinite(explain(x)).all()
    assert jnp.isfinite(explain(x, target=jax.nn.one_hot(0, 2))).all()


@pytest.mark.parametrize(
    ("fn", "x"),
    [
        (net, X[0]),
        (lambda x: x * W[:, 0], X[0]),  # elements of a vector are no examples
        (lambda x: net(x).sum(0), X),  # classes of a bag
        (lambda x: net(x[::-1]).sum(1), X),  # in another order: not proven
        (lambda x: jnp.sort(x, 0).sum(1), X),
        (lambda x: jnp.cumsum(x, 0).sum(1), X),
        (lambda x: jax.lax.cummax(x, axis=0).sum(1), X),
        (lambda x: (jax.nn.softmax(x @ x.T) @ x).sum(1), X),
        (lambda x: (x - x.mean(0)).sum(1), X),
        (lambda x: (x + x[:1]).sum(1), X),
        (lambda x: (x[:, :2] + x[:, :2].T).sum(0), X),
        (lambda x: (x[:, :2].T + x[:, :2]).sum(0), X),
        (lambda x: net(x.reshape(6, 4)).reshape(3, 2, -1).sum((0, 2)), np.stack([X, X, X], 1)),
    ],
)
def test_an_integer_where_the_axis_is_not_known_to_be_of_examples(fn, x):
    explain = lrp.explain(fn, lrp.Epsilon(0.0))
    hot = jax.nn.one_hot(1, jax.eval_shape(fn, x).shape[0])
    assert_close(explain(x, target=1), explain(x, target=hot))


def test_single_examples_under_vmap():
    explain = lrp.explain(net, lrp.Epsilon(0.0))
    expected = explain(X, target=[1, 2])
    assert_close(jax.vmap(lambda x, t: explain(x, target=t))(X, np.array([1, 2])), expected)
    assert_close(jax.vmap(lambda x: explain(x, target=1))(X), explain(X, target=1))


def test_check_finite_says_what_it_does_under_jit():
    assert "under `jit` and other transformations it does nothing" in lrp.explain.__doc__
