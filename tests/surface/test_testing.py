"""What the library offers for testing: it passes what is right, and says what is wrong."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp as lrp
from jaxlrp.testing import assert_same_relevance, check_rule


def zplus(x, w, b, r):
    contributions = np.maximum(x[:, None] * w, 0)
    z = contributions.sum(0) + np.maximum(b, 0)
    return (contributions / (z + 1e-6) * r).sum(1)


@pytest.mark.parametrize(
    "rule",
    [
        lrp.Epsilon(0.1),
        lrp.Epsilon(0.1, bias="distribute"),
        lrp.AlphaBeta(),
        lrp.Gamma(),
        lrp.Flat(),
        lrp.WSquare(),
        lrp.ZBox(-9.0, 9.0),
    ],
    ids=str,
)
def test_shipped_rules_pass(rule):
    check_rule(rule)


def test_a_definition_is_compared():
    check_rule(lrp.ZPlus(), dense=zplus)
    with pytest.raises(AssertionError, match="its definition differ by"):
        check_rule(lrp.Epsilon(), dense=zplus)


@dataclasses.dataclass(frozen=True)
class OverTheBatch(lrp.LinearRule):
    """Divides by what other examples have as well."""

    def propagate(self, layer):
        return layer.vjp(layer.over(layer.z + layer.z.mean(0, keepdims=True)))


@dataclasses.dataclass(frozen=True)
class Unstable(lrp.LinearRule):
    """A difference of large numbers."""

    def propagate(self, layer):
        s = layer.over(layer.z)
        return (layer.vjp(s * 1e5 + s) - layer.vjp(s * 1e5)) * 1.0


@dataclasses.dataclass(frozen=True)
class NotANumber(lrp.LinearRule):
    def propagate(self, layer):
        return layer.x * jnp.nan


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (OverTheBatch(), "vmap and the batch"),
        (Unstable(), "float32 and float64"),
        (NotANumber(), "not finite"),
    ],
)
def test_faults_are_found(rule, message):
    with pytest.raises(AssertionError, match=message):
        check_rule(rule)


def test_what_is_no_rule_for_weights_is_an_error():
    with pytest.raises(lrp.InputError, match="fits layers of kind matmul, product"):
        check_rule(lrp.Uniform())
    with pytest.raises(lrp.InputError, match="an instance of a rule"):
        check_rule(lrp.Epsilon)


def test_two_spellings():
    w, x = jnp.arange(6.0).reshape(3, 2) - 2, jnp.array([1.0, -2.0, 3.0])
    rules = lrp.composites.epsilon_plus()
    assert_same_relevance(lambda x: x @ w, lambda x: (w.T * x).sum(-1), rules, x, target=1)
    with pytest.raises(AssertionError, match="the values of the two functions differ by"):
        assert_same_relevance(jnp.tanh, jax.nn.relu, rules, x)
    with pytest.raises(AssertionError, match="the relevance of the two functions differ by"):
        assert_same_relevance(lambda x: x @ (w + w), lambda x: x @ w + x @ w, lrp.ZPlus(), x * 2)


W = np.random.default_rng(0).normal(size=(1000, 8))
ROWS = np.random.default_rng(1).normal(size=(4, 1000))


def spellings(dtype):
    """One layer of a thousand terms, summed in two orders, and a function that is another one."""
    w, v = jnp.asarray(W, dtype), jnp.asarray(W[::-1].copy(), dtype)

    def one(x):
        return jax.nn.relu(x @ w)

    def other(x):
        return jax.nn.relu(x[:, ::-1] @ v)

    def another(x):
        return jax.nn.relu(x @ (w * jnp.asarray(1 + 3 * WRONG[dtype], dtype)))

    return one, other, another


WRONG = {"float64": 1e-9, "float32": 1e-4, "bfloat16": 8 * 2**-7, "float16": 8 * 2**-10}


@pytest.mark.parametrize("dtype", WRONG)
def test_the_tolerance_is_that_of_the_dtype(dtype):
    one, other, another = spellings(dtype)
    x = jnp.asarray(ROWS, dtype)
    assert_same_relevance(one, other, lrp.Epsilon(0.0), x)
    with pytest.raises(AssertionError, match="the values of the two functions differ by"):
        assert_same_relevance(one, another, lrp.Epsilon(0.0), x)


def test_a_tolerance_that_is_given_holds():
    one, other, _ = spellings("float32")
    x = jnp.asarray(ROWS, "float32")
    with pytest.raises(AssertionError, match="at most 1e-09 was allowed"):
        assert_same_relevance(one, other, lrp.Epsilon(), x, tolerance=1e-9)
