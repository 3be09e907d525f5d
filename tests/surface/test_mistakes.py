"""Mistakes of the first hour: each is right, or an error that says what to write."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp as lrp
from tests.compare import assert_close

RNG = np.random.default_rng(0)
W, V = RNG.normal(size=(4, 3)), RNG.normal(size=(3, 2))
X = RNG.uniform(0.5, 1.5, size=(2, 4))
RULE = lrp.Epsilon(0.0)


class Dense:
    """A class of a user's own, as those of frameworks."""

    def __call__(self, x):
        return x @ W


def net(x):
    return jax.nn.relu(x @ W)


def two_layers(params, x):
    return jax.nn.relu(x @ params["W"]) @ params["V"]


PARAMS = {"W": jnp.asarray(W), "V": jnp.asarray(V)}


@pytest.mark.parametrize("x", [X, X[:1]])
def test_argnums_forgotten(x):
    (note,) = lrp.plan(two_layers, RULE)(PARAMS, x).notes
    assert note.kind == "other examples"
    assert "examples are in argument 1" in note.text
    explain = lrp.explain(two_layers, RULE)
    with pytest.warns(lrp.ArgnumsWarning, match="write argnums=1") as seen:
        [explain(PARAMS, x, target=target) for target in (0, 1)]
    assert [w.filename for w in seen] == [__file__]


@pytest.mark.parametrize(
    ("fn", "args", "argnums"),
    [
        (two_layers, (PARAMS, X), 1),
        (two_layers, (PARAMS, X), (0,)),  # said in so many words
        (two_layers, (PARAMS, X[0]), 0),  # nothing says which the example is
        (lambda x, params: two_layers(params, x), (X, PARAMS), 0),
        (lambda a, b: (a @ W) * b, (X, X[:, :3]), 0),
        (lambda a, b: a @ W + b.sum(), (X, X), 0),
        (lambda w, x: (x @ w).sum(0), (W, X), 0),
    ],
)
def test_argnums_that_are_right(fn, args, argnums):
    assert lrp.plan(fn, RULE, argnums)(*args).notes == ()


@pytest.mark.parametrize("transform", [lrp.explain, lrp.plan, lrp.ledger, lrp.value_and_relevance])
def test_arguments_given_to_the_transformation(transform):
    for args in ((X,), (PARAMS, X), (X, 0), (0, X)):
        with pytest.raises(lrp.InputError, match=r"explain\(fn, rules\)\(\*args\)") as found:
            transform(two_layers, RULE, *args)
        assert len(str(found.value)) < 250


@pytest.mark.parametrize(
    ("fn", "rules", "message"),
    [
        (net, X, r"array of shape \(2, 4\) is not a rule map.*explain\(fn, rules\)\(\*args\)"),
        (net, lrp.Epsilon, r"is not a rule map.*This is the class: write Epsilon\(\)"),
        (net, lrp.composites.epsilon_plus, r"call it: epsilon_plus\(\)"),
        (net, net, "it comes first"),
        (RULE, net, "fn=Epsilon.*is not callable"),
        (net(X), RULE, r"fn=float64\[2, 3\] was given.*give the function itself"),
        (Dense, RULE, "fn is the class Dense; give a function from arrays to arrays that calls"),
        (None, RULE, "fn=None was given, which is not callable"),
    ],
)
def test_what_is_no_function_or_no_rule_map(fn, rules, message):
    with pytest.raises(lrp.LRPError, match=message):
        lrp.explain(fn, rules)
    assert_close(lrp.explain(Dense(), RULE)(X), lrp.explain(lambda x: x @ W, RULE)(X))


def test_arguments_by_keyword():
    with pytest.raises(lrp.InputError, match=r"and x by keyword.*explain\(fn, rules\)\(x\)"):
        lrp.explain(net, RULE)(x=X)
    with pytest.raises(lrp.InputError, match=r"argnums=1 selects.*1 positional.*and x by keyword"):
        lrp.explain(two_layers, RULE, argnums=1)(PARAMS, x=X)
    scaled = lrp.explain(lambda x, *, scale: net(x) * scale, RULE)
    assert_close(scaled(X, scale=2.0), 2 * lrp.explain(net, RULE)(X))


@pytest.mark.parametrize("name", ["target", "condition"])
def test_keywords_of_the_functions_own(name):
    def loss(x, own):
        return jnp.square(net(x) - own).sum(-1)

    spaces = {"loss": loss}
    exec(f"def fn(x, {name}): return loss(x, {name})", spaces)
    exec(f"def only(x, *, {name}=2.0): return loss(x, {name})", spaces)
    fn, only = spaces["fn"], spaces["only"]
    expected = lrp.explain(lambda x: loss(x, 2.0), RULE)(X)
    assert_close(lrp.explain(fn, RULE)(X, 2.0), expected)
    assert_close(lrp.explain(functools.partial(fn, **{name: 2.0}), RULE)(X), expected)
    assert_close(lrp.explain(only, RULE)(X), expected)  # its own default
    said = rf"parameter `{name}` of its own.*fn\(x, {name}=own\)"
    for own in (fn, only):
        with pytest.raises(lrp.InputError, match=said):
            lrp.explain(own, RULE)(X, **{name: 2.0})
    with pytest.raises(lrp.InputError, match=said):
        lrp.explain(fn, RULE)(X)


def test_a_target_of_the_functions_own_beside_plan_and_ledger():
    for transform in (lrp.plan, lrp.ledger):
        with pytest.raises(lrp.InputError, match="parameter `target` of its own"):
            transform(lambda x, target: net(x) * target, RULE)(X, target=2.0)


def test_any_keywords():
    """A function that takes all keywords says nothing about one of them."""
    assert_close(
        lrp.explain(lambda x, **options: net(x), RULE)(X, target=1),
        lrp.explain(net, RULE)(X, target=1),
    )


@pytest.mark.parametrize("selector", [Dense, int])
@pytest.mark.parametrize("place", ["rules", "layers", "condition"])
def test_a_class_as_a_selector(selector, place):
    name = selector.__name__
    rules = {selector: RULE} if place == "rules" else RULE
    options = {"layers": [selector]} if place == "layers" else {}
    call = {"condition": {selector: 1.0}} if place == "condition" else {}
    with pytest.raises(
        lrp.SelectorError, match=rf"class {name}.*does not record classes.*'\*\*/{name}\*'"
    ):
        lrp.explain(net, rules, **options)(X, **call)


@pytest.mark.parametrize("selector", [jax.nn.relu, jax.lax.dot_general, jnp.matmul])
def test_a_function_of_arrays_as_a_selector(selector):
    with pytest.raises(lrp.SelectorError, match=r"failed on a layer.*called with each Layer"):
        lrp.plan(net, {selector: RULE})(X)


def test_numbers_and_lists():
    assert_close(lrp.explain(lambda x: 2 * x, RULE)(3.0), 6.0)
    assert_close(lrp.explain(lambda x: 2 * x, RULE)(np.float64(3.0)), 6.0)
    expected = lrp.explain(lambda x: x @ W, RULE)(X[0])
    listed = lrp.explain(lambda x: jnp.array(x) @ W, RULE)
    assert_close(jnp.array(listed(X[0].tolist())), expected)
    with pytest.raises(Exception, match="traced array") as found:
        lrp.explain(lambda x: np.array(x) @ W, RULE)(X[0].tolist())
    assert "argument 0 is a list of numbers" in "".join(found.value.__notes__)
    with pytest.raises(Exception, match="traced array") as found:
        lrp.explain(lambda x: np.array(x) @ W, RULE)(X[0])
    assert "argument 0" not in "".join(found.value.__notes__)


@pytest.mark.parametrize("x", [X.astype(object), np.array(["a", "b"]), np.array(["2020"], "M8")])
def test_arrays_of_other_things(x):
    with pytest.raises(lrp.InputError, match=r"NumPy array of dtype .*x.astype\(np.float32\)"):
        lrp.explain(net, RULE)(x)


def test_arrays_in_the_other_byte_order():
    other = X.astype(X.dtype.newbyteorder(">" if np.little_endian else "<"))
    assert_close(lrp.explain(net, RULE)(other, target=1), lrp.explain(net, RULE)(X, target=1))
    kernel = W.astype(W.dtype.newbyteorder(">" if np.little_endian else "<"))
    found = lrp.explain(lambda x, w: x @ w, RULE)(X, kernel)
    assert_close(found, lrp.explain(lambda x: x @ W, RULE)(X))
