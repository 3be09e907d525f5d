"""Rules that return something else than a share for each input, and bounds that fit nowhere."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp as lrp
from tests.compare import assert_close

RNG = np.random.default_rng(0)
W, V = RNG.normal(size=(4, 3)), RNG.normal(size=(3, 2))
X = RNG.uniform(0.5, 1.5, size=(2, 4))


def net(x):
    with jax.named_scope("head"):
        return x @ W


def returning(make, base=lrp.Rule):
    @dataclasses.dataclass(frozen=True)
    class Own(base):
        carries = "relevance"

        def propagate(self, layer):
            return make(layer)

    return Own()


@pytest.mark.parametrize(
    ("make", "came"),
    [
        (lambda y: None, "None of type NoneType"),
        (lambda y: [y.x], r".* of type list"),
        (lambda y: "R", "'R' of type str"),
        (lambda y: True, "True of type bool"),
        (lambda y: y.x[:, :3], r"an array of shape \(2, 3\)"),
        (lambda y: y.x[0], r"an array of shape \(4,\)"),  # would be spread over examples
        (lambda y: y.relevance, r"an array of shape \(2, 3\)"),
        (lambda y: y.x + 0j, "an array of dtype complex128"),
        (lambda y: y.x > 0, "an array of dtype bool"),
        (lambda y: (y.x, y.x), "2 entries"),
        (lambda y: (), "0 entries"),
    ],
)
@pytest.mark.parametrize("transform", [lrp.explain, lrp.ledger])
def test_what_a_rule_returns(make, came, transform):
    said = rf"Own\(\) returned {came} for the dense layer 'head' \(test_wrong_rules.*expected an "
    said += r"array float64\[2, 4\], the relevance at its active input\."
    with pytest.raises(lrp.RuleError, match=said):
        transform(net, {"dense": returning(make)})(X)
    with pytest.raises(lrp.RuleError, match=said):  # nothing needs to run
        jax.eval_shape(lrp.explain(net, {"dense": returning(make)}), X)


def test_what_a_rule_for_several_inputs_returns():
    def fn(d):
        return d["a"] @ d["b"]

    d = {"a": X, "b": W}
    for make, came in (
        (lambda y: y.x[0], "one entry"),
        (lambda y: (y.x[0],), "one entry"),
        (lambda y: (y.x[0], y.x[0]), r"an array of shape \(2, 4\) in place 1"),
        (lambda y: (None, y.x[1]), "None of type NoneType in place 0"),
    ):
        said = rf"returned {came} for the matmul layer.*a tuple of float64\[2, 4\], float64\[4, 3\]"
        with pytest.raises(lrp.RuleError, match=said):
            lrp.explain(fn, {"matmul": returning(make)})(d)
    found = lrp.explain(fn, {"matmul": returning(lambda y: (y.x[0], 0.0))})(d)
    assert_close(found["a"], X)
    assert_close(found["b"], 0 * W)


def test_numbers_and_other_precisions_are_taken():
    for make, expected in (
        (lambda y: 2.0, np.full(X.shape, 2.0)),
        (lambda y: (jnp.ones(X.shape, jnp.float32),), np.ones(X.shape)),
        (lambda y: np.ones(X.shape, int), np.ones(X.shape)),
    ):
        assert_close(lrp.explain(net, {"dense": returning(make)})(X), expected)


def test_an_error_inside_a_rule_names_the_layer():
    with pytest.raises(TypeError) as found:
        lrp.explain(net, {"dense": returning(lambda y: y.x @ jnp.ones((7, 7)))})(X)
    assert "while Own() was applied to the dense layer 'head'" in "".join(found.value.__notes__)


def test_carries():
    with pytest.raises(lrp.RuleError, match="Typo: carries is 'densitiy'; expected one of 'densi"):

        class Typo(lrp.Rule):
            carries = "densitiy"

    class ByLayer(lrp.Rule):
        def what_it_carries(self, arriving, layer):
            return "relevence"

        def propagate(self, layer):
            return layer.x

    with pytest.raises(lrp.RuleError, match=r"ByLayer\(\): carries is 'relevence'"):
        lrp.plan(net, {"dense": ByLayer()})(X)


def test_fits():
    for fits in ("dense", ["dense"], 3):
        with pytest.raises(lrp.RuleError, match=r"Narrow: fits is .*expected a set of kinds"):
            type("Narrow", (lrp.Rule,), {"fits": fits})
    narrow = type("Narrow", (lrp.Rule,), {"fits": {"dense", "convv"}})
    with pytest.raises(lrp.RuleError, match=r"fits has 'convv', which is not a kind.*dense, conv"):
        lrp.plan(net, {"dense": narrow()})(X)


@pytest.mark.parametrize(
    "bounds",
    [
        (float("-inf"), 1.0),
        (0.0, np.array([1.0, np.inf])),
        (float("nan"), 1.0),
        ("low", "high"),
        (0.0, True),
        (0.0, 1j),
        ([0.0, float("nan")], 1.0),
        (np.array(["a"]), 1.0),
    ],
)
def test_bounds_that_are_no_finite_numbers(bounds):
    with pytest.raises(lrp.RuleError, match=r"ZBox: (low|high)=.* expected a finite number"):
        lrp.ZBox(*bounds)


def test_bounds_of_shapes_that_fit_nowhere():
    with pytest.raises(lrp.RuleError, match=r"low of shape \(3,\) and high of shape \(4,\)"):
        lrp.ZBox(np.zeros(3), np.ones(4))
    said = (
        r"ZBox: high of shape \(3,\) was given for the dense layer 'head'.*input has shape \(2, 4"
    )
    with pytest.raises(lrp.RuleError, match=said):
        lrp.plan(net, {"dense": lrp.ZBox(0.0, np.ones(3))})(X)
    with pytest.raises(lrp.RuleError, match=r"low of shape \(1, 2, 4\)"):
        lrp.plan(net, {"dense": lrp.ZBox(np.zeros((1, 2, 4)), 1.0)})(X)
    with pytest.raises(lrp.RuleError, match="low=None was given for the dense layer 'head'"):
        lrp.plan(net, {"dense": lrp.ZBox(None, 1.0)})(X)


def test_bounds_of_every_shape_that_fits():
    expected = lrp.explain(net, {"dense": lrp.ZBox(0.0, 2.0)})(X)
    for shape in ((4,), (1, 4), (2, 4), (1,), (2, 1)):
        for bounds in ((np.zeros(shape), 2.0), (0.0, jnp.full(shape, 2.0))):
            assert_close(lrp.explain(net, {"dense": lrp.ZBox(*bounds)})(X), expected)
    listed = lrp.ZBox([0.0] * 4, (2.0,) * 4)
    assert_close(lrp.explain(net, {"dense": listed})(X), expected)
    traced = jax.jit(lambda low: lrp.explain(net, {"dense": lrp.ZBox(low, 2.0)})(X))
    assert_close(traced(jnp.zeros(4)), expected)
    with pytest.raises(lrp.RuleError, match=r"low of shape \(3,\) was given for"):
        traced(jnp.zeros(3))
