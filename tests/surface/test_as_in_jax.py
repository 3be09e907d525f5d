"""Small things that work as they do with JAX's own transformations, or say why they cannot."""

from __future__ import annotations

import dataclasses
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp as lrp
from tests.common import checking_leaks
from tests.compare import assert_close

RNG = np.random.default_rng(0)
W, V = RNG.normal(size=(4, 3)), RNG.normal(size=(3, 2))
X = RNG.uniform(0.5, 1.5, size=(2, 4))
RULE = lrp.Epsilon(0.0)


def net(x):
    return jax.nn.relu(x @ W)


def test_outputs_that_are_numbers():
    expected = lrp.explain(net, RULE)(X, target=1)
    for number in (3.0, np.float64(3.0)):
        fn = {"y": net, "n": lambda x: number}
        both = lrp.value_and_relevance(lambda x: {k: f(x) for k, f in fn.items()}, RULE)
        value, found = both(X, target={"y": 1, "n": None})
        assert_close(found, expected)
        assert_close(value["n"], 3.0)
        assert_close(both(X)[1], lrp.explain(net, RULE)(X))
    value, back = lrp.relevance_vjp(lambda x: (net(x), 3.0), RULE, X)
    assert_close(back((value[0], 1.0))[0], lrp.explain(net, RULE)(X))
    ledger = lrp.ledger(lambda x: (net(x), 3.0), RULE)(X, target=(1, None))
    assert_close(ledger.relevance_in, expected.sum())
    with pytest.raises(lrp.InputError, match="has_aux=True"):
        lrp.explain(lambda x: (net(x), 3), RULE)(X)


def test_aux_of_any_type():
    def fn(x):
        h = x @ W
        aux = {"name": "text", "n": 3, "h": h, "none": None, "call": len, "np": np.arange(3)}
        return jax.nn.relu(h), aux

    relevance, aux = lrp.explain(fn, RULE, has_aux=True)(X)
    assert_close(relevance, lrp.explain(net, RULE)(X))
    assert (aux["name"], aux["n"], aux["none"], aux["call"]) == ("text", 3, None, len)
    assert type(aux["n"]) is int
    assert_close(aux["h"], X @ W)
    np.testing.assert_array_equal(aux["np"], np.arange(3))
    (_, aux), _ = lrp.value_and_relevance(fn, RULE, has_aux=True)(X)
    assert aux["name"] == "text"
    assert lrp.relevance_vjp(fn, RULE, X, has_aux=True)[2]["n"] == 3
    assert lrp.as_function_of(fn, has_aux=True)(X)[1](X)[1]["n"] == 3


def test_integers_of_numpy_are_static():
    def fn(x, n, *, last=False):
        h = sum(net(x) for _ in range(n))
        return h if last else 2 * h

    explain = lrp.explain(fn, RULE)
    assert_close(explain(X, np.int64(2)), explain(X, 2))
    assert_close(explain(X, np.uint8(2), last=np.bool_(True)), explain(X, 1))
    found = lrp.explain(lambda d: sum(net(d["x"]) for _ in range(d["n"])), RULE)(
        {"x": X, "n": np.int64(2)}
    )
    assert_close(found["x"], 2 * lrp.explain(net, RULE)(X))
    # A floating one is a parameter, as an array is.
    plan = lrp.plan(lambda x, b: x @ W + b, RULE)
    assert plan(X, np.float64(1.0)).to_dicts() == plan(X, jnp.array(1.0)).to_dicts()


def test_argnums_of_numpy():
    explain = lrp.explain(lambda w, x: x @ w, RULE, argnums=np.int64(1))
    assert_close(explain(W, X), lrp.explain(lambda x: x @ W, RULE)(X))
    several = lrp.explain(lambda w, x: x @ w, RULE, argnums=list(np.array([1])))
    assert_close(several(W, X)[0], explain(W, X))


@pytest.mark.parametrize("rules", [RULE, lrp.composites.epsilon_plus()])
def test_no_tracer_leaks(rules):
    def fn(x):
        def step(h, w):
            with jax.named_scope("cell"):
                return jnp.tanh(h @ w), None

        return jax.lax.scan(step, x, weights)[0]

    weights = jnp.asarray(RNG.normal(size=(3, 4, 4)))
    explain = lrp.explain(fn, rules, layers=["dense"])
    _, expected = explain(X)
    with checking_leaks():
        for run in (explain, jax.jit(explain)):
            _, found = run(X)
            assert found.keys() == {"cell"}
            assert_close(found["cell"], expected["cell"])


def test_shapes_in_place_of_values():
    shape = jax.ShapeDtypeStruct(X.shape, X.dtype)
    explain = lrp.explain(lambda x, w: x["x"] @ w, RULE)
    weights = jax.ShapeDtypeStruct(W.shape, W.dtype)
    for args, number in ((({"x": shape}, W), 0), (({"x": X}, weights), 1)):
        with pytest.raises(lrp.InputError, match=rf"argument {number} .*eval_shape\(explain"):
            explain(*args)
    for call in (lambda: lrp.ledger(net, RULE)(shape), lambda: lrp.relevance_vjp(net, RULE, shape)):
        with pytest.raises(lrp.InputError, match="which has no values"):
            call()
    assert jax.eval_shape(lrp.explain(net, RULE), shape).shape == X.shape
    assert lrp.plan(net, RULE)(shape).count("dense") == 1


# -- rules and rule maps as values -----------------------------------------------------------------


def box(high=1.0, make=np.array):
    return lrp.ZBox(make([0.0] * 4), make([high] * 4))


def test_rules_compare_by_content():
    assert box() == box()
    assert hash(box()) == hash(box())
    assert box() == box(make=jnp.array)
    assert box() != box(2.0)
    assert box() != lrp.ZBox(0.0, 1.0)
    assert lrp.Epsilon(0.1) != lrp.ZPlus(epsilon=0.1)
    assert lrp.Epsilon(0.1) == lrp.Epsilon(0.1)
    assert len({box(), box(), box(2.0), lrp.Epsilon(), lrp.Epsilon()}) == 3
    traced = jax.make_jaxpr(lambda h: jnp.array(lrp.ZBox(0.0, h) == lrp.ZBox(0.0, h)))(1.0)
    assert traced.consts or traced.jaxpr.outvars  # it compared, without looking at values


def test_own_rules_compare_by_content():
    @dataclasses.dataclass(frozen=True)
    class Own(lrp.Rule):
        reference: dict

    @dataclasses.dataclass(frozen=True)
    class Other(Own):
        more: float = 0.0

    class Plain(lrp.Rule):
        def __init__(self, array):
            object.__setattr__(self, "array", array)

    a, b = {"x": np.arange(3), "n": "a"}, {"x": np.arange(3) + 1, "n": "a"}
    for make in (Own, Other, Plain):
        assert make(a) == make(dict(a, x=np.arange(3)))
        assert hash(make(a)) == hash(make(dict(a, x=np.arange(3))))
        assert make(a) != make(b)
        assert make(a) != make(dict(a, n="b"))
    assert Own(a) != Other(a)


def test_rule_maps_compare_by_content_and_order():
    def make():
        return lrp.RuleMap({lrp.first("dense"): box(), "conv": lrp.ZPlus()})

    assert make() == make()
    assert hash(make()) == hash(make())
    turned = lrp.RuleMap(dict(reversed(list(make().items()))))
    assert make() != turned  # the last entry that matches wins
    assert make() == dict(turned)
    assert make() != 3


@pytest.mark.parametrize("name", lrp.composites.__all__)
def test_composites_are_static_arguments_and_are_pickled(name):
    make = getattr(lrp.composites, name)
    bounds = (-2.0, 2.0) if name in ("epsilon_gamma_box", "deep_taylor_bounded") else ()
    rules = make(*bounds)
    again = pickle.loads(pickle.dumps(rules))
    assert rules == again == make(*bounds)
    assert hash(rules) == hash(again)
    assert str(rules) == str(again)


def test_rules_as_static_arguments():
    traces = []

    def run(x, rules):
        traces.append(rules)
        return lrp.explain(net, rules)(x)

    jitted = jax.jit(run, static_argnums=1)
    for _ in range(2):
        rules = lrp.RuleMap({"dense": box(2.0)})
        assert_close(jitted(X, rules), lrp.explain(net, rules)(X))
        assert_close(jitted(X, box(2.0)), lrp.explain(net, rules)(X))
    jitted(X, box(3.0))
    assert len(traces) == 3


def test_plans_say_why_they_are_not_pickled():
    plan = lrp.plan(net, RULE)(X)
    with pytest.raises(TypeError, match=r"cannot be pickled.*plan.to_dicts\(\)"):
        pickle.dumps(plan)
    with pytest.raises(TypeError, match=r"A Layer holds.*cannot be pickled"):
        pickle.dumps(plan.layers[0])
    assert pickle.loads(pickle.dumps(plan.to_dicts())) == plan.to_dicts()
    assert pickle.loads(pickle.dumps(plan.notes)) == plan.notes


# -- one selector or several -----------------------------------------------------------------------

TABLE = RNG.normal(size=(7, 4))


def words(tokens, more):
    with jax.named_scope("a"):
        a = jnp.asarray(TABLE)[tokens]
    with jax.named_scope("b"):
        b = jnp.asarray(TABLE + 1)[more]
    return jax.nn.relu((a + b) @ W) @ V


TOKENS = (np.array([1, 2]), np.array([3, 4]))


def test_wrt_takes_a_selector_or_a_list():
    both = lrp.explain(words, RULE, wrt="embed")(*TOKENS)
    assert both.keys() == {"a", "b"}
    for wrt in (["a", "b"], ("a", "b"), ["embed"], [lambda y: y.name == "a", "b"]):
        found = lrp.explain(words, RULE, wrt=wrt)(*TOKENS)
        assert found.keys() == both.keys()
        for name in both:
            assert_close(found[name], both[name])
    assert lrp.explain(words, RULE, wrt=["a"])(*TOKENS).keys() == {"a"}
    for wrt, error in (([], lrp.InputError), (3, lrp.SelectorError), (["c"], lrp.SelectorError)):
        with pytest.raises(error, match=r"empty|not a selector|'c' matches no layer"):
            lrp.explain(words, RULE, wrt=wrt)(*TOKENS)


@pytest.mark.parametrize(
    "selector",
    ["dense", lrp.kind("dense"), jax.lax.dot_general_p, lambda y: y.kind == "dense"],
)
def test_layers_takes_a_selector_or_a_list(selector):
    options = {"wrt": "embed"}
    expected = lrp.explain(words, RULE, layers=["dense"], **options)(*TOKENS)[1]
    assert len(expected) == 2
    for layers in (selector, [selector], (selector,)):
        found = lrp.explain(words, RULE, layers=layers, **options)(*TOKENS)[1]
        assert found.keys() == expected.keys()
        assert len(lrp.ledger(words, RULE, layers=layers, **options)(*TOKENS).layers) == 2
    with pytest.raises(lrp.SelectorError, match="3 of type int is not a selector"):
        lrp.explain(words, RULE, layers=3, **options)(*TOKENS)


def test_rule_maps_and_conditions_take_tuples():
    plan = lrp.plan(lambda x: jax.nn.relu(x * W[:, 0]), {("affine", "activation"): lrp.Pass()})(X)
    assert [str(y.rule) for y in plan.layers] == ["Pass()", "Pass()"]
    assert plan.layers[0].why == "rule map: ('affine', 'activation')"
    explain = lrp.explain(net, RULE)
    assert_close(explain(X, condition={("dense", "activation"): 0.5}), explain(X) / 4)
    assert len(plan.select(["affine", "activation"])) == 2
    with pytest.raises(lrp.InputError, match="condition is of type list; expected a mapping"):
        explain(X, condition=[("dense", 0.5)])
