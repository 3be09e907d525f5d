"""Errors are part of the surface: raised while planning, with what was given and what to do."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxlrp as lrp

W = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)))
X = jnp.ones((2, 4))


def net(x):
    return jax.nn.relu(x @ W)


@pytest.mark.parametrize("dtype", [jnp.int32, jnp.uint8, bool])
def test_integers_and_booleans_cannot_be_explained(dtype):
    with pytest.raises(lrp.InputError, match=r'dtype (int32|uint8|bool).*wrt="embed"'):
        lrp.explain(lambda x: net(x.astype(float)), lrp.Epsilon())(X.astype(dtype))


def test_a_leaf_that_is_no_array_is_named():
    with pytest.raises(lrp.InputError, match=r"argument 0\['b'\].*'words' of type str"):
        lrp.explain(lambda d: net(d["a"]), lrp.Epsilon())({"a": X, "b": "words"})


@pytest.mark.parametrize("argument", [None, (), {}])
def test_an_argument_without_arrays(argument):
    with pytest.raises(lrp.InputError, match="holds no arrays"):
        lrp.explain(lambda d, x: net(x), lrp.Epsilon())(argument, X)


@pytest.mark.parametrize("argnums", [2, -3])
def test_argnums_out_of_range(argnums):
    with pytest.raises(lrp.InputError, match="2 positional arguments were given"):
        lrp.explain(lambda x, y: net(x) * y, lrp.Epsilon(), argnums=argnums)(X, 1.0)


@pytest.mark.parametrize("argnums", [1.5, "x", (), True])
def test_argnums_of_the_wrong_type(argnums):
    with pytest.raises(lrp.InputError, match="expected an int or a non-empty tuple"):
        lrp.explain(net, lrp.Epsilon(), argnums=argnums)


def test_the_seed_of_relevance_vjp_must_fit():
    _, back = lrp.relevance_vjp(net, lrp.Epsilon(), X)
    with pytest.raises(lrp.TargetError, match=r"\(2, 4\)"):
        back(jnp.ones((2, 4)))


def test_a_rule_that_does_not_fit_its_layer():
    with pytest.raises(lrp.RuleError, match=r"ZPlus\(\).*activation layer.*it fits layers of kind"):
        lrp.plan(net, {"activation": lrp.ZPlus()})(X)
    with pytest.raises(lrp.RuleError, match=r"Uniform\(\).*dense layer"):
        lrp.plan(net, {"dense": lrp.Uniform()})(X)


def test_pass_where_shapes_differ():
    with pytest.raises(lrp.RuleError, match=r"\[8\] elements and whose output has 6"):
        lrp.plan(net, {"dense": lrp.Pass()})(X)


@pytest.mark.parametrize("bounds", [(1.0, 0.0), (0.5, 0.5), (np.zeros(4), np.array([1, 1, 0, 1]))])
def test_a_box_with_low_not_below_high(bounds):
    with pytest.raises(lrp.RuleError, match="low must be below high"):
        lrp.ZBox(*bounds)


def test_alpha_minus_beta_must_be_one():
    with pytest.raises(lrp.RuleError, match=r"alpha - beta is 1.5"):
        lrp.AlphaBeta(2.0, 0.5)
    assert lrp.AlphaBeta(1.4, 0.4).alpha == 1.4  # 1.4 - 0.4 != 1 in floating point


@pytest.mark.parametrize(
    "make",
    [
        lambda: lrp.Epsilon(-1.0),
        lambda: lrp.Epsilon(float("nan")),
        lambda: lrp.Gamma(-0.1),
        lambda: lrp.ZPlus(epsilon=-1e-6),
        lambda: lrp.AlphaBeta(0.5, -0.5),
        lambda: lrp.Flat(epsilon="small"),
        lambda: lrp.BetaSmooth(-1.0),
    ],
)
def test_negative_parameters(make):
    with pytest.raises(lrp.RuleError, match="expected a finite number >= 0"):
        make()


def test_an_unknown_bias_policy():
    with pytest.raises(lrp.RuleError, match="'absorb', 'ignore' or 'distribute'"):
        lrp.Epsilon(bias="drop")


def test_what_is_no_rule_and_no_rule_map():
    with pytest.raises(lrp.RuleError, match="give an instance"):
        lrp.explain(net, {"dense": lrp.Epsilon})
    with pytest.raises(lrp.RuleError, match="is not a rule map"):
        lrp.explain(net, "epsilon")


def test_an_unknown_selector_names_near_misses():
    def named(x):
        with jax.named_scope("head"):
            return x @ W

    with pytest.raises(lrp.SelectorError, match=r"'haed' matches no layer.*Did you mean 'head'"):
        lrp.plan(named, {"haed": lrp.Epsilon()})(X)
    with pytest.raises(lrp.SelectorError, match="Did you mean 'conv'"):
        lrp.plan(named, {"convv": lrp.Epsilon()})(X)
    with pytest.raises(lrp.SelectorError, match="conv_general_dilated"):
        lrp.plan(named, {lax.conv_general_dilated_p: lrp.Epsilon()})(X)
    with pytest.raises(lrp.SelectorError, match="is false for all"):
        lrp.plan(named, {lambda layer: layer.shape == (9,): lrp.Epsilon()})(X)
    with pytest.raises(lrp.SelectorError, match="is not a selector"):
        lrp.plan(named, {3: lrp.Epsilon()})(X)
    with pytest.raises(lrp.SelectorError, match="'haed' matches no layer"):
        lrp.explain(named, lrp.Epsilon(), layers=["haed"])(X)


def test_an_ambiguous_selector():
    def named(x):
        with jax.named_scope("dense"):
            x = x @ W
        return x @ W.T

    with pytest.raises(lrp.SelectorError, match=r"'dense' is ambiguous.*kind\('dense'\)"):
        lrp.plan(named, {"dense": lrp.Epsilon()})(X)
    plan = lrp.plan(named, {lrp.kind("dense"): lrp.Gamma()})(X)
    assert [str(layer.rule) for layer in plan.layers] == ["Gamma()", "Gamma()"]


def test_a_primitive_without_a_rule():
    def fn(x):
        return lax.cumlogsumexp(x @ W, 1)

    with pytest.raises(lrp.UnsupportedPrimitiveError, match=r"`cumlogsumexp`.*test_bad_input"):
        lrp.plan(fn, lrp.Epsilon())(X)
    # The line that the message offers works.
    rules = lrp.RuleMap({"dense": lrp.Epsilon(0.0)}) | {"cumlogsumexp": lrp.Taylor()}
    assert jnp.isfinite(lrp.explain(fn, rules)(X)).all()


def test_no_error_off_the_path_of_relevance():
    def fn(x):
        scale = lax.stop_gradient(lax.reduce_prod(x, (1,)))
        return x @ W * scale[:, None], lax.reduce_prod(x, (1,))

    relevance, aux = lrp.explain(fn, lrp.Epsilon(0.0), has_aux=True)(X)
    assert relevance.shape == X.shape
    assert aux.shape == (2,)


@pytest.mark.parametrize(
    "fn",
    [
        lambda x: jnp.ones((2, 3)),
        lambda x: lax.stop_gradient(net(x)),
        lambda x: (x > 0) @ W,
    ],
)
def test_an_output_that_does_not_depend_on_the_input(fn):
    with pytest.raises(lrp.InputError, match="does not depend on the explained argument"):
        lrp.explain(fn, lrp.Epsilon())(X)


def test_outputs_that_relevance_cannot_start_from():
    with pytest.raises(lrp.InputError, match="dtype int"):
        lrp.explain(lambda x: net(x).argmax(-1), lrp.Epsilon())(X)
    with pytest.raises(lrp.InputError, match="returns no arrays"):
        lrp.explain(lambda x: None, lrp.Epsilon())(X)
    with pytest.raises(lrp.InputError, match="expected a pair"):
        lrp.explain(net, lrp.Epsilon(), has_aux=True)(X)


def test_an_empty_batch():
    with pytest.raises(lrp.InputError, match=r"shape \(0, 4\) and holds no numbers"):
        lrp.explain(net, lrp.Epsilon())(X[:0])


def test_nan_is_an_error_when_asked_for():
    bad = X.at[0, 0].set(jnp.nan)
    with pytest.raises(lrp.NonFiniteError, match="the output has NaN"):
        lrp.explain(net, lrp.Epsilon(), check_finite=True)(bad)
    assert jnp.isnan(lrp.explain(net, lrp.Epsilon())(bad)).any()
    assert jnp.isfinite(lrp.explain(net, lrp.Epsilon(), check_finite=True)(X)).all()


def test_a_mask_that_does_not_fit():
    with pytest.raises(
        lrp.InputError, match=r"shape \(5,\).*broadcast to the layer's output, \(2, 3\)"
    ):
        lrp.explain(net, lrp.Epsilon())(X, condition={"dense_0": jnp.ones(5)})


def test_errors_come_while_planning_and_leave_nothing_behind():
    """A failed call changes nothing: there is no global state."""
    before = lrp.explain(net, lrp.Epsilon())(X)
    wrong = {"haed": lrp.Epsilon()}, {"activation": lrp.ZPlus()}
    for rules, said in zip(wrong, ("haed.*matches no layer", "ZPlus.*activation"), strict=True):
        with pytest.raises(lrp.LRPError, match=said):
            jax.eval_shape(lrp.explain(net, rules), X)  # nothing runs under eval_shape
    np.testing.assert_array_equal(lrp.explain(net, lrp.Epsilon())(X), before)
