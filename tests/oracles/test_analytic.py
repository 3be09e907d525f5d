"""Cases small enough for a pencil, without a stabiliser: exact to rounding."""

import json
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp as lrp
from tests import networks
from tests.common import pull_back

CASES = {
    case["rule"]: case
    for case in json.loads((networks.DATA / "relevancepropagation_jl_analytic.json").read_text())[
        "cases"
    ]
}
# The fractions are not all binary, so the last digit may round: four units of it.
EXACT = 4 * np.finfo(np.float64).eps


def numbers(values):
    return np.array([float(Fraction(v)) for v in values])


def dense(case):
    matrix, bias = np.array(case["W"], float).T, np.array(case["b"], float)
    return lambda x: x @ matrix + bias


def test_lrp_zero_on_a_dense_layer():
    case = CASES["zero"]
    actual = pull_back(dense(case), lrp.Epsilon(0.0), case["a"], numbers(case["R_out"]))
    np.testing.assert_allclose(actual, numbers(case["R"]), rtol=EXACT)


def test_overlapping_max_pooling():
    case = CASES["zero maxpool 2x2 stride1"]

    def pool(x):
        return networks.max_pool(x[None, :, :, None], 2, stride=1)[0, :, :, 0]

    actual = pull_back(pool, {}, case["a"], case["R_out_over30"])
    np.testing.assert_array_equal(actual, case["R_over30"])


def test_lrp_zero_on_a_scale():
    case = CASES["zero scale"]
    scale, shift = np.array(case["w"], float), np.array(case["b"], float)
    rules = lrp.Epsilon(0.0)
    actual = pull_back(lambda x: x * scale + shift, rules, case["a"], numbers(case["R_out"]))
    np.testing.assert_allclose(actual, numbers(case["R"]), rtol=EXACT)


@pytest.mark.parametrize("output", [0, 1])
def test_lrp_zero_over_a_skip_connection(output):
    case = CASES["zero on x + relu(Wx+b)"]
    branch = dense(case)
    actual = pull_back(
        lambda x: x + jnp.maximum(branch(x), 0), lrp.Epsilon(0.0), case["a"], np.eye(2)[output]
    )
    np.testing.assert_allclose(actual, numbers(case[f"R_out_onehot{output}"]), rtol=EXACT)


@pytest.mark.parametrize(("alpha", "beta"), [(1, 0), (2, 1)])
def test_alpha_beta_with_a_negative_output(alpha, beta):
    # iNNvestigate answers -1e7 here: its stabiliser meets a denominator that is only a bias.
    case = CASES["alphabeta (also innvestigate#273, zennit#107)"]
    rule = lrp.AlphaBeta(alpha, beta, epsilon=0.0)
    actual = pull_back(dense(case), rule, case["a"], case["R_out"])
    np.testing.assert_array_equal(actual, case[f"a{alpha}b{beta}"])


def test_generalised_gamma_under_a_leaky_relu():
    case = CASES["generalized gamma .25 leakyrelu .01"]
    linear = dense(case)

    def fn(x):
        return jax.nn.leaky_relu(linear(x), 0.01)

    np.testing.assert_allclose(fn(np.array(case["a"], float)), case["R_out"], rtol=EXACT)
    actual = pull_back(fn, lrp.Gamma(0.25, epsilon=0.0), case["a"], case["R_out"])
    np.testing.assert_allclose(actual, numbers(case["R"]), rtol=EXACT)


def test_relevance_through_one_hidden_unit_by_two_steps():
    case = CASES["CRP top-1 at hidden, zero rules"]
    first = dense({"W": case["W1"], "b": case["b1"]})
    second = dense({"W": case["W2"], "b": case["b2"]})
    x, rule = np.array(case["x"], float), lrp.Epsilon(0.0)
    hidden = pull_back(second, rule, first(x), [1.0, 0.0])
    chosen = np.where(hidden == hidden.max(), hidden, 0)
    actual = pull_back(first, rule, x, chosen)
    np.testing.assert_allclose(actual, numbers(case["R"]), rtol=EXACT)


def test_relevance_through_one_chosen_hidden_unit():
    case = CASES["CRP top-1 at hidden, zero rules"]
    first = dense({"W": case["W1"], "b": case["b1"]})
    second = dense({"W": case["W2"], "b": case["b2"]})

    def fn(x):
        with jax.named_scope("hidden"):
            h = first(x)
        with jax.named_scope("out"):
            return second(h)

    x, explain = np.array(case["x"], float), lrp.explain(fn, lrp.Epsilon(0.0), layers=["hidden"])
    # The seed is the logit, 51; the stored case starts from 1.
    _, layers = explain(x, target=0)
    assert np.argmax(layers["hidden"]) == 1
    actual, _ = explain(x, target=0, condition={"hidden": np.array([0.0, 1.0])})
    np.testing.assert_allclose(np.asarray(actual) / 51, numbers(case["R"]), rtol=EXACT)
