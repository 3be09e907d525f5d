"""Parameters that are prepared: the same relevance, and nothing is computed of them twice."""

import copy
import functools
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp as lrp
from jaxlrp.errors import InputError
from tests import networks
from tests.common import checking_leaks, draw
from tests.compare import assert_leaves_close
from tests.numpy_jaxpr import in_numpy
from tests.prepared_networks import NETWORKS, perceptron

COMPOSITES = lrp.composites
RULES = {
    "epsilon": lrp.Epsilon(0.1),
    "zplus": lrp.ZPlus(),
    "alpha_beta": lrp.AlphaBeta(),
    "gamma": lrp.Gamma(),
    "flat": lrp.Flat(),
    "w_square": lrp.WSquare(),
    "ignore": lrp.Gamma(bias="ignore"),
    "distribute": lrp.ZPlus(bias="distribute"),
    "zbox": COMPOSITES.epsilon_gamma_box(low=-9.0, high=9.0),
    "plus_flat": COMPOSITES.epsilon_plus_flat(),
    "alpha2_beta1": COMPOSITES.epsilon_alpha2_beta1(),
    "attn": COMPOSITES.attn_lrp() | {lrp.kind("dense"): lrp.Gamma()},
    "guided": COMPOSITES.guided_backprop(),
    "deconvnet": COMPOSITES.deconvnet(),
}
FN, P, X = NETWORKS["perceptron"]


def shape_of(x):
    return jax.ShapeDtypeStruct(x.shape, x.dtype)


def prepared_for(name, rules, **options):
    fn, p, x = NETWORKS[name]
    prepare = lrp.prepare(fn, rules, argnums=1, **options)
    return in_numpy(lambda p: prepare(p, shape_of(x)))(p)


# Every rule on layers, and in every sort of program a rule that splits and one that adds.
CASES = [(name, rules) for name in ("perceptron", "convolutions") for rules in RULES]
CASES += [(name, rules) for name in NETWORKS for rules in ("gamma", "alpha2_beta1")]


@pytest.mark.parametrize(("name", "rules"), sorted(set(CASES)))
def test_relevance_is_the_same(name, rules):
    fn, p, x = NETWORKS[name]
    explain = lrp.value_and_relevance(fn, RULES[rules], argnums=1)
    prepared = prepared_for(name, RULES[rules])

    def both(p, prepared, x):
        return explain(p, x, target=1), explain(prepared, x, target=1)

    plain, found = in_numpy(both)(p, prepared, x)
    assert_leaves_close(found, plain)


@pytest.mark.parametrize("name", ["convolutions", "remat", "called", "nested"])
def test_an_eager_call_gives_the_same(name):
    fn, p, x = NETWORKS[name]
    explain = lrp.explain(fn, lrp.AlphaBeta(), argnums=1)
    prepared = prepared_for(name, lrp.AlphaBeta())
    for _ in range(2):  # the second call runs what is kept
        assert_leaves_close(explain(prepared, x), explain(p, x))


# -- what is held ---------------------------------------------------------------------------------


def made_of(jaxpr, known):
    """The equations of a program that read nothing but known inputs and numbers, calls within."""
    found = []
    known = {v for v, one in zip(jaxpr.invars, known, strict=True) if one}
    for eqn in jaxpr.eqns:
        variables = [x for x in eqn.invars if not hasattr(x, "val")]
        inner = [getattr(p, "jaxpr", p) for p in eqn.params.values()]
        inner = [p for p in inner if hasattr(p, "eqns")]
        if variables and all(x in known for x in variables):
            known.update(eqn.outvars)
            found.append(eqn)
        elif len(inner) == 1 and len(inner[0].invars) == len(eqn.invars):
            found += made_of(inner[0], [not hasattr(x, "val") and x in known for x in eqn.invars])
    return found


SPLITS = {"max", "min", "abs", "mul", "add", "integer_pow", "square", "dot_general"}


def splits_in(name, rules, params):
    """The shapes of what the explanation computes of its parameters alone."""
    fn, _, x = NETWORKS[name]
    explain = lrp.explain(fn, rules, argnums=1)
    jaxpr = jax.make_jaxpr(explain)(params, x).jaxpr
    own = len(jax.tree.leaves(params))
    eqns = made_of(jaxpr, [n < own for n in range(len(jaxpr.invars))])
    return [eqn.outvars[0].aval.shape for eqn in eqns if eqn.primitive.name in SPLITS]


@pytest.mark.parametrize("rule", [lrp.AlphaBeta(), lrp.Gamma(), lrp.WSquare()], ids=str)
@pytest.mark.parametrize("name", [n for n in NETWORKS if n != "branches"])
def test_no_split_is_left_in_the_program(name, rule):
    assert splits_in(name, rule, NETWORKS[name][1])
    assert not splits_in(name, rule, prepared_for(name, rule))


@pytest.mark.parametrize("name", NETWORKS)
def test_at_most_twice_the_split_kernels_are_held(name):
    fn, p, x = NETWORKS[name]
    prepared = prepared_for(name, lrp.AlphaBeta())
    layers = lrp.plan(fn, lrp.AlphaBeta(), argnums=1)(p, x).layers
    assert any(layer.rule == lrp.AlphaBeta() for layer in layers)
    held, own = (sum(a.nbytes for a in jax.tree.leaves(t)) for t in (prepared.values, p))
    # W+ and W-, in two orders for a transposed convolution; and W where it is made of others.
    assert held <= (5 if name == "convolutions" else 3) * own


def test_a_kernel_for_a_transposed_convolution_is_held_in_the_order_in_which_it_is_read():
    """A compiler would reverse and transpose it at every call, and keep all such copies at once."""
    _, _, x = NETWORKS["convolutions"]
    kernel = draw(3, 3, 2, 4)
    fn = lambda w, x: networks.conv(x, w, 1, networks.SAME_3X3).mean((1, 2))  # noqa: E731
    prepared = lrp.prepare(fn, lrp.ZPlus(), argnums=1)(kernel, x)
    shapes = [a.shape for a in prepared.values]
    assert sorted(shapes) == [(3, 3, 2, 4)] * 2 + [(3, 3, 4, 2)] * 2
    explain = lrp.explain(fn, lrp.ZPlus(), argnums=1)
    assert_leaves_close(explain(prepared, x, target=1), explain(kernel, x, target=1))
    jaxpr = jax.make_jaxpr(explain)(prepared, x).jaxpr
    names = [e.primitive.name for e in jaxpr.eqns if e.invars and e.invars[0] in jaxpr.invars]
    assert "conv_general_dilated" in names
    assert not {"rev", "transpose"}.intersection(names)


@pytest.mark.parametrize("rules", [COMPOSITES.lrp_zero(), lrp.Epsilon(), COMPOSITES.attn_lrp()])
def test_nothing_is_held_where_weights_are_used_as_they_are(rules):
    for name in ("perceptron", "attention", "recurrent"):
        assert not prepared_for(name, rules).values


def test_views_are_not_held_and_neither_is_what_grows():
    def fn(p, x):
        table = jnp.exp(p["row"][:, None] + p["column"])  # 8 x 8, from 16 numbers
        return (jnp.tanh(x) * table).sum(-1) @ p["w"].reshape(2, 8).T[:, ::-1]

    p = {"row": draw(8), "column": draw(8, seed=1), "w": draw(16)}
    x = draw(3, 8, 8)
    rules = {lrp.last("dense"): lrp.WSquare()}
    assert not lrp.prepare(fn, lrp.Epsilon(), argnums=1)(p, x).values
    prepared = lrp.prepare(fn, rules, argnums=1)(p, x)
    assert [a.size for a in prepared.values] == [2, 16]  # the layer's denominator, and w squared
    explain = lrp.explain(fn, rules, argnums=1)
    assert_leaves_close(explain(prepared, x, target=0), explain(p, x, target=0))


def test_what_is_held_is_printed():
    text = str(prepared_for("perceptron", lrp.ZPlus()))
    assert text.startswith("Prepared for 5 layers: ")
    assert "float64[8,8]" in text
    assert "512 B  max(w/1, 0)" in text
    assert "beside parameters of" in repr(prepared_for("perceptron", lrp.ZPlus()))
    assert "No value that is computed" not in text
    assert "within `cond`" in str(prepared_for("branches", lrp.ZPlus()))
    text = str(prepared_for("perceptron", COMPOSITES.lrp_zero()))
    assert text == "Prepared for 5 layers: 0 arrays of 0 B beside parameters of 1.24 kB."


# -- refusals -------------------------------------------------------------------------------------


def refused(match, prepared, fn=FN, rules=RULES["zplus"], **options):
    with pytest.raises(InputError, match=match):
        lrp.explain(fn, rules, **{"argnums": 1, **options})(prepared, X, target=1)


def test_other_rules_are_refused():
    prepared = prepared_for("perceptron", lrp.ZPlus())
    refused(r"'w' has Gamma\(\), but .* prepared for ZPlus\(\)", prepared, rules=lrp.Gamma())
    one = {"dense": lrp.ZPlus(), lrp.last("dense"): lrp.ZPlus(epsilon=0.1)}
    refused(r"has ZPlus\(epsilon=0.1\), but", prepared, rules=one)


def test_other_shapes_and_types_are_refused():
    prepared = prepared_for("perceptron", lrp.ZPlus())
    half = jax.tree.map(lambda a: a.astype(jnp.float32), prepared)
    refused(r"'b/0' is float32\[8\], but it was float64\[8\]", half)
    wide = {**P, "b": [P["b"][0][None], *P["b"][1:]]}
    other = type(prepared)(wide, prepared.values, prepared.facts)
    refused(r"'b/0' is float64\[1,8\], but it was float64\[8\]", other)


def test_numbers_among_the_parameters():
    def fn(p, x):
        return jax.nn.relu(p["factor"] * x) @ p["w"]

    p = {"factor": 0.5, "w": draw(6, 3)}
    prepare = lrp.prepare(fn, lrp.ZPlus(), argnums=1)
    explain = lrp.explain(fn, lrp.ZPlus(), argnums=1)
    assert_leaves_close(explain(prepare(p, X), X), explain(p, X))
    with pytest.raises(InputError, match="2 of the parameters are arrays here, and 1 were"):
        jax.jit(explain)(prepare(p, X), X)
    assert_leaves_close(jax.jit(explain)(jax.jit(prepare)(p, X), X), jax.jit(explain)(p, X))


def test_another_function_is_refused():
    prepared = prepared_for("perceptron", lrp.ZPlus())
    refused("with 5 layers, and this one has 1", prepared, fn=lambda p, x: x @ p["w"][0])

    def turned(p, x):
        """The same layers of other weights."""
        return perceptron(jax.tree.map(lambda a: a * 2.0, p), x)

    refused("hold no value that this function computes|has .*, but", prepared, fn=turned)


def test_misplaced_arguments_are_refused():
    with pytest.raises(InputError, match="argument 0 is explained"):
        lrp.prepare(FN, lrp.ZPlus())(P, X)
    with pytest.raises(InputError, match="params=5 selects argument 5, but 2"):
        lrp.prepare(FN, lrp.ZPlus(), argnums=1, params=5)(P, X)
    with pytest.raises(InputError, match="params='w' was given"):
        lrp.prepare(FN, lrp.ZPlus(), argnums=1, params="w")(P, X)
    with pytest.raises(InputError, match="ShapeDtypeStruct in it has no values"):
        lrp.prepare(FN, lrp.ZPlus(), argnums=1)(jax.tree.map(shape_of, P), X)
    prepared = prepared_for("perceptron", lrp.ZPlus())
    refused("argument 0 is explained", prepared, argnums=(0, 1))
    with pytest.raises(InputError, match="by keyword"):
        lrp.explain(lambda x, p: FN(p, x), lrp.ZPlus())(X, p=prepared)
    with pytest.raises(InputError, match="within another argument"):
        lrp.explain(lambda p, x: FN(p["a"], x), lrp.ZPlus(), argnums=1)({"a": prepared}, X)


# -- transformations, and other calls of the same -------------------------------------------------


def test_other_batches_targets_and_probes():
    prepared = prepared_for("perceptron", lrp.AlphaBeta())
    options = {"layers": "dense", "what": ("relevance", "value")}
    explain = lrp.explain(FN, lrp.AlphaBeta(), argnums=1, **options)
    for x in (draw(1, 6), draw(5, 6), draw(2, 3, 6), draw(6)):
        for target in (2, None):
            assert_leaves_close(explain(prepared, x, target=target), explain(P, x, target=target))
    mask = {lrp.first("dense"): jnp.arange(8) > 3}
    assert_leaves_close(
        explain(prepared, X, target=1, condition=mask), explain(P, X, target=1, condition=mask)
    )


def test_the_argument_may_be_anywhere():
    def fn(x, *, shift, p):
        return FN(p, x + shift)

    def by_place(x, p, shift):
        return fn(x, shift=shift, p=p)

    prepared = lrp.prepare(by_place, lrp.ZPlus(), params=1)(X, P, 0.5)
    explain = lrp.explain(by_place, lrp.ZPlus())
    assert prepared.values
    assert_leaves_close(explain(X, prepared, 0.5, target=0), explain(X, P, 0.5, target=0))
    last = lrp.prepare(by_place, lrp.ZPlus(), params=-2)(X, P, 0.5)
    assert last.facts == prepared.facts


@pytest.mark.parametrize("name", ["perceptron", "scanned", "called", "remat"])
def test_under_transformations(name):
    fn, p, x = NETWORKS[name]
    prepare = lrp.prepare(fn, lrp.AlphaBeta(), argnums=1)
    explain = lrp.explain(fn, lrp.AlphaBeta(), argnums=1)
    run = in_numpy if name in ("called", "remat") else lambda fn: fn  # or operation by operation
    prepared = prepare(p, shape_of(x))
    expected = explain(p, x, target=1)
    assert_leaves_close(jax.jit(prepare)(p, x), prepared)
    targets = run(jax.vmap(lambda t: explain(prepared, x, target=t)))(jnp.arange(3))
    assert_leaves_close(targets[1], expected)
    many = jax.tree.map(lambda a: jnp.stack([a, 2 * a]), p)
    members = run(jax.vmap(prepare, (0, None)))(many, x)
    found = run(jax.vmap(lambda m: explain(m, x, target=1)))(members)
    assert_leaves_close(found[0], expected)

    def loss(p, through):
        return jnp.sum(explain(prepare(p, x) if through else p, x, target=1) ** 2)

    through, plain = (run(jax.grad(functools.partial(loss, through=t))) for t in (True, False))
    assert_leaves_close(through(p), plain(p), 1e-9)
    with checking_leaks():
        jax.jit(lambda m, x: explain(m, x, target=1))(prepared, x)


def test_it_is_a_pytree_that_can_be_copied_placed_and_written():
    prepared = prepared_for("perceptron", lrp.ZPlus())
    explain = lrp.explain(FN, lrp.ZPlus(), argnums=1)
    placed = jax.device_put(prepared, jax.devices()[0])
    for other in (placed, copy.deepcopy(prepared), pickle.loads(pickle.dumps(prepared))):
        assert_leaves_close(explain(other, X, target=1), explain(P, X, target=1))
    again = lrp.prepare(FN, lrp.ZPlus(), argnums=1)(prepared, X)
    assert again.facts == prepared.facts


def test_the_other_transformations_read_the_parameters():
    prepared = prepared_for("perceptron", lrp.ZPlus())
    plans = (lrp.plan(FN, lrp.ZPlus(), argnums=1)(p, X) for p in (P, prepared))
    assert len({len(plan.layers) for plan in plans}) == 1
    ledgers = [lrp.ledger(FN, lrp.ZPlus(), argnums=1)(p, X, target=1) for p in (P, prepared)]
    np.testing.assert_allclose(ledgers[0].relevance_in, ledgers[1].relevance_in, rtol=1e-12)


def test_explained_values_inside():
    def fn(p, tokens):
        return jax.nn.relu(p["table"][tokens] @ p["w"]).sum(0) @ p["v"]

    p, tokens = {"table": draw(9, 4), "w": draw(4, 5), "v": draw(5, 3)}, jnp.array([3, 1, 8])
    prepared = lrp.prepare(fn, lrp.ZPlus(), wrt="embed", params=0)(p, tokens)
    explain = lrp.explain(fn, lrp.ZPlus(), wrt="embed")
    assert prepared.values
    assert_leaves_close(explain(prepared, tokens, target=1), explain(p, tokens, target=1))


class Own(lrp.LinearRule):
    """A rule of a user's own, with a number that may be traced."""

    def __init__(self, factor):
        self.factor = factor

    def propagate(self, layer):
        s = layer.over(layer.map(absolute=1)(abs(layer.x)))
        return self.factor * abs(layer.map(absolute=1).T(s))


def test_rules_of_a_users_own_and_traced_numbers():
    prepared = lrp.prepare(FN, Own(2.0), argnums=1)(P, X)
    assert prepared.values
    explain = lrp.explain(FN, Own(2.0), argnums=1)
    assert_leaves_close(explain(prepared, X, target=1), explain(P, X, target=1))

    @jax.jit
    def swept(gamma):
        rule = lrp.Gamma(gamma)
        prepared = lrp.prepare(FN, rule, argnums=1)(P, X)
        explain = lrp.explain(FN, rule, argnums=1)
        return explain(prepared, X, target=1), explain(P, X, target=1)

    assert_leaves_close(*swept(0.3))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_narrow_parameters(dtype):
    p = jax.tree.map(lambda a: a.astype(dtype), P)
    x = X.astype(dtype)
    prepared = lrp.prepare(FN, lrp.AlphaBeta(), argnums=1)(p, x)
    explain = jax.jit(lrp.explain(FN, lrp.AlphaBeta(), argnums=1))
    assert {a.dtype for a in prepared.values} == {jnp.dtype(jnp.float32)}
    assert_leaves_close(explain(prepared, x, target=1), explain(p, x, target=1), 1e-5)
