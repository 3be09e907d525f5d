"""Plans kept between calls: made once for what is the same, never stale, and holding no arrays."""

import gc
import inspect
import types
import weakref
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxlrp as lrp
from jaxlrp import arguments
from jaxlrp.errors import LRPError
from jaxlrp.graph.contents import Unknown, content
from jaxlrp.planning.coefficients import SignalIs
from jaxlrp.run import replay, reuse
from tests.common import checking_leaks

RNG = np.random.default_rng(9)
X, W, V = RNG.normal(size=(3, 4)), RNG.normal(size=(4, 4)), RNG.normal(size=(4, 3))
PLUS = lrp.composites.epsilon_plus()


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch):
    monkeypatch.setattr(reuse, "_plans", type(reuse._plans)())


@pytest.fixture
def counts(monkeypatch):
    """How often was planned, and how often the equations of a run were traced."""
    found = types.SimpleNamespace(plans=0, runs=0)
    make_plan, equations = arguments.make_plan, replay._Equations

    def counted(*args):
        found.plans += 1
        return make_plan(*args)

    def traced(*args):
        found.runs += 1
        return equations(*args)

    monkeypatch.setattr(arguments, "make_plan", counted)
    monkeypatch.setattr(replay, "_Equations", traced)
    return found


def mlp(x, w=W):
    return jax.nn.relu(x @ w + 0.5) @ V


def planned_anew(monkeypatch, run):
    """The result where no plan is kept."""
    with monkeypatch.context() as patch:
        patch.setattr(arguments, "planned", lambda graph, rules, call, make: make())
        return run()


# -- once ---------------------------------------------------------------------------------------


def test_a_second_call_plans_nothing(counts):
    for _ in range(3):
        lrp.explain(mlp, PLUS)(X, target=0)
        lrp.plan(mlp, PLUS)(X)
        lrp.ledger(mlp, PLUS)(X)
        lrp.value_and_relevance(mlp, PLUS)(X)
        lrp.relevance_vjp(mlp, PLUS, X[:2])
    assert counts.plans == 2  # a call with a seed of relevance is planned in its own way
    assert counts.runs == 1
    lrp.explain(mlp, PLUS)(X, target=jnp.array([0, 1, 2]))  # other weights of the same shape
    lrp.explain(mlp, PLUS, layers="dense")(X)
    lrp.explain(mlp, PLUS, layers="dense", what="value")(X)
    lrp.explain(mlp, PLUS)(X, condition={"activation": np.ones(4)})
    assert (counts.plans, counts.runs) == (2, 4)


@pytest.mark.parametrize("name", lrp.composites.__all__)
def test_every_composite_has_plans_that_are_kept(counts, name):
    """Selectors by the part that a layer plays can be compared as well as words."""
    composite = getattr(lrp.composites, name)
    takes = inspect.signature(composite).parameters
    bounds = {n: v for n, v in (("low", -4.0), ("high", 4.0)) if n in takes}
    for _ in range(2):
        lrp.explain(mlp, composite(**bounds))(X)
    assert counts.plans == 1


def test_selectors_are_told_apart_by_what_they_hold(counts):
    selectors = [
        lrp.first("dense"),
        lrp.first("dense", "conv"),
        lrp.last("dense"),
        lrp.all_of("dense"),
    ]
    selectors += [SignalIs(0), SignalIs(1)]
    for selector in selectors:
        lrp.explain(mlp, {selector: lrp.Flat()})(X)
    assert counts.plans == len(selectors)


def test_shapes_types_and_rules_have_plans_of_their_own(counts):
    calls = [
        lambda: lrp.explain(mlp, PLUS)(X),
        lambda: lrp.explain(mlp, PLUS)(X[:2]),
        lambda: lrp.explain(mlp, PLUS)(X.astype(np.float32)),
        lambda: lrp.explain(mlp, lrp.Epsilon(0.1))(X),
        lambda: lrp.explain(mlp, lrp.Epsilon(0.2))(X),
        lambda: lrp.explain(mlp, {"dense": lrp.Epsilon(0.2)})(X),
        lambda: lrp.explain(mlp, PLUS, argnums=1)(X, W),
        lambda: lrp.explain(mlp, PLUS, argnums=(0, 1))(X, W),
        lambda: lrp.explain(mlp, PLUS, wrt="activation")(X),
        lambda: lrp.explain(lambda x: mlp(2.0 * x), PLUS)(X),
    ]
    first = [call() for call in calls]
    assert counts.plans == len(calls)
    again = [call() for call in calls]
    assert counts.plans == len(calls)
    jax.tree.map(np.testing.assert_array_equal, first, again)


def test_the_number_of_plans_and_programs_is_bounded(monkeypatch):
    monkeypatch.setattr(reuse, "_KEPT", 3)
    monkeypatch.setattr(reuse, "_KEPT_PROGRAMS", 2)
    for n in range(5):
        lrp.explain(lambda x, n=n: x * (n + 2.0), lrp.Epsilon())(X)
    assert len(reuse._plans) == 3
    for what in ("value", "density", "relevance", "inputs"):
        lrp.explain(mlp, PLUS, layers="dense", what=what)(X)
    assert max(len(planned.programs) for _, planned in reuse._plans.values()) == 2


# -- never stale ----------------------------------------------------------------------------------


class Model:
    def __init__(self):
        self.w, self.scale, self.places, self.deep = W, 1.0, (0, 1), False

    def __call__(self, x):
        y = jax.nn.relu(x @ self.w * self.scale)
        y = jnp.tanh(y @ self.w) if self.deep else y
        return y[:, jnp.array(self.places)] @ np.ones((2, 2))


@pytest.mark.parametrize(
    "change",
    [
        {"w": 2 * W},
        {"w": RNG.normal(size=(4, 4))},
        {"w": W.astype(np.float32)},
        {"scale": 3.0},
        {"scale": np.array([1.0, 2.0, 3.0, 4.0])},
        {"places": (2, 3)},
        {"places": (1, 1)},
        {"deep": True},
    ],
    ids=str,
)
def test_an_eager_call_sees_what_has_changed(monkeypatch, change):
    model = Model()
    explain = lrp.explain(model, PLUS)
    before = explain(X, target=0)
    vars(model).update(change)
    expected = planned_anew(monkeypatch, lambda: lrp.explain(model, PLUS)(X, target=0))
    np.testing.assert_array_equal(explain(X, target=0), expected)
    assert not np.array_equal(before, expected)
    vars(model).update(vars(Model()))
    np.testing.assert_array_equal(explain(X, target=0), before)


def test_arrays_changed_in_place_are_seen(monkeypatch):
    w, places, low = W.copy(), np.array([0, 1]), np.full(4, -9.0)

    def fn(x):
        return ((x @ w)[:, places]) @ np.ones((2, 2))

    rules = {"dense": lrp.Epsilon(), lrp.first("dense"): lrp.ZBox(low, np.full(4, 9.0))}
    explain = lrp.explain(fn, rules)
    found = [explain(X)]

    def changed():
        found.append(explain(X))
        expected = planned_anew(monkeypatch, lambda: lrp.explain(fn, rules)(X))
        # The programs of the two plans are compiled apart, and may round otherwise by one unit.
        np.testing.assert_allclose(found[-1], expected, rtol=1e-13)
        assert not np.array_equal(*found[-2:])

    w *= np.arange(1.0, 5.0)
    changed()
    places[:] = 3, 2
    changed()
    low[:] = -5.0
    changed()
    # A rule that had the old numbers elsewhere must not meet the plan that was changed.
    old = {**rules, lrp.first("dense"): lrp.ZBox(np.full(4, -9.0), np.full(4, 9.0))}
    expected = planned_anew(monkeypatch, lambda: lrp.explain(fn, old)(X))
    np.testing.assert_allclose(lrp.explain(fn, old)(X), expected, rtol=1e-13)


def test_positions_that_the_plan_knows_are_seen():
    there = np.array([1, 2, 3, 0])

    def made(back):
        return lambda x: x[:, there][:, back] * np.arange(1.0, 5.0)

    same = lrp.explain(made(np.argsort(there)), PLUS)(X)  # the moves cancel, and are dropped
    np.testing.assert_allclose(same, X * np.arange(1.0, 5.0), rtol=1e-4)
    other = lrp.explain(made(np.array([1, 0, 3, 2])), PLUS)(X)
    np.testing.assert_allclose(other, X * np.array([3.0, 2.0, 1.0, 4.0]), rtol=1e-4)


def test_ties_between_closed_over_arrays_are_seen():
    def made(a, b):
        return lambda x: jnp.einsum("ni,ni->n", (x * a) @ W, (x * a) @ b)[:, None] + x * b[0]

    a, same = np.ones(4), W.copy()
    apart = lrp.explain(made(a, same), PLUS)(X)
    np.testing.assert_allclose(lrp.explain(made(a, W), PLUS)(X), apart, rtol=1e-12)


def test_settings_of_jax_are_seen(counts):
    x = X.astype(np.float32)
    plain = lrp.explain(mlp, PLUS)(x)
    with jax.default_matmul_precision("highest"):
        lrp.explain(mlp, PLUS)(x)
    with jax.enable_x64(not jax.config.jax_enable_x64):
        other = lrp.explain(mlp, PLUS)(x)
    assert counts.plans == 3
    assert plain.dtype == other.dtype or jax.config.jax_enable_x64
    np.testing.assert_array_equal(lrp.explain(mlp, PLUS)(x), plain)


SCALE = 1.0


@dataclass(frozen=True)
class Outside(lrp.LinearRule):
    """A rule that reads a global, and looks at numbers."""

    def propagate(self, layer):
        assert float(jnp.sum(layer.x)) == float(jnp.sum(layer.x))
        return layer.map(signed=SCALE).T(layer.density)


def test_rules_and_selectors_of_the_users_own_are_asked_each_time(monkeypatch, counts):
    rules = {"dense": Outside()}
    first = lrp.explain(lambda x: x @ W, rules)(X)
    monkeypatch.setitem(globals(), "SCALE", 3.0)
    np.testing.assert_allclose(lrp.explain(lambda x: x @ W, rules)(X), 3 * first, rtol=1e-12)
    assert counts.runs == 0

    chosen = [lrp.Epsilon(0.0), lambda layer: layer.shape == (3, 4)]
    rules = {"dense": lrp.Epsilon(1.0), (lambda layer: chosen[1](layer)): lrp.Stop()}
    cut = lrp.explain(mlp, rules)(X)
    chosen[1] = lambda layer: layer.shape == (3, 3)
    assert not cut.any()
    assert str(lrp.plan(mlp, rules)(X).layers[0].rule) == "Epsilon(epsilon=1)"


def test_a_local_rule_is_not_kept(counts):
    def made(factor):
        @dataclass(frozen=True)
        class Local(lrp.LinearRule):
            def propagate(self, layer):
                return layer.map(signed=factor).T(layer.density)

        return {"dense": Local()}

    one, two = (lrp.explain(lambda x: x @ W, made(f))(X) for f in (1.0, 2.0))
    np.testing.assert_allclose(two, 2 * one, rtol=1e-12)
    assert not reuse._plans


def test_errors_come_again():
    for _ in range(2):
        with pytest.raises(LRPError, match="does not depend"):
            lrp.explain(lambda x: jnp.round(lax.stop_gradient(x)), PLUS)(X)


# -- the same numbers -----------------------------------------------------------------------------


def scanned(x):
    def step(h, a):
        h = jnp.tanh(a @ W + h @ W)
        return h, h

    h, hs = lax.scan(step, jnp.ones((len(x), 4)), jnp.stack([x, 2 * x, -x]))
    return (h + hs.mean(0)) @ V


def with_remat(x):
    block = jax.checkpoint(lambda x: jax.nn.gelu(x @ W) + x)
    return block(block(x)) @ V


def attention(x):
    h = x[None]
    a = jax.nn.softmax(jnp.einsum("bid,bjd->bij", h @ W, h) / 2.0)
    h = h + jnp.einsum("bij,bjd->bid", a, h @ W)
    return ((h - h.mean(-1, keepdims=True)) / jnp.sqrt(h.var(-1, keepdims=True) + 1e-6))[0] @ V


def low(x):
    return jnp.tanh(x.astype(jnp.bfloat16) @ W.astype(jnp.bfloat16)) @ V.astype(jnp.bfloat16)


def random(x):
    keep = jax.random.bernoulli(jax.random.key(3), 0.5, (4,))
    return jnp.where(keep, x @ W, 0.0) @ V


def branches(x):
    y = lax.cond(jnp.asarray(True), lambda x: x @ W, lambda x: -x, x)
    return jnp.maximum(y, 0) @ V


@jax.custom_jvp
def cut_off(x):
    return jnp.clip(x, 0.0, 1.0)


cut_off.defjvp(lambda primals, tangents: (cut_off(*primals), tangents[0]))

PROGRAMS = {
    **{f.__name__: f for f in (mlp, scanned, with_remat, attention, low, random, branches)},
    "jitted": jax.jit(mlp),
    "custom": lambda x: cut_off(x @ W) @ V,
}


@pytest.mark.filterwarnings("ignore::jaxlrp.errors.TrainingModeWarning")
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_kept_run_gives_the_same_numbers(monkeypatch, counts, name):
    fn, rules = PROGRAMS[name], PLUS | {"softmax": lrp.Taylor()}
    options = {"layers": ["dense", "activation"], "what": ("relevance", "value", "inputs")}
    if name in ("attention", "random", "branches"):
        options["layers"] = "dense"

    def run(fn):
        explain = lrp.value_and_relevance(lambda x: (fn(x), {"x": x}), rules, has_aux=True)
        more = lrp.explain(fn, rules, **options)
        return explain(X, target=1), more(X, target=1), lrp.explain(fn, rules)(X)

    expected = planned_anew(monkeypatch, lambda: run(fn))
    assert counts.runs == 0
    first, again = run(fn), run(fn)
    assert counts.runs == 3
    jax.tree.map(np.testing.assert_array_equal, first, again)
    tolerance = 1e-2 if name == "low" else 1e-12

    def close(a, b):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(
            np.asarray(a, float), np.asarray(b, float), rtol=tolerance, atol=tolerance
        )

    jax.tree.map(close, first, expected)


def test_transformations_still_work():
    explain = lrp.explain(mlp, PLUS)
    eager = explain(X)
    np.testing.assert_allclose(jax.jit(explain)(X), eager, rtol=1e-9)
    np.testing.assert_allclose(jax.vmap(explain)(X), eager, rtol=1e-9)
    with checking_leaks():
        jax.jit(lambda x, w: lrp.explain(lambda x: mlp(x, w), PLUS)(x))(X, W)
        jax.grad(lambda x: lrp.explain(lambda y: mlp(y * x.sum()), PLUS)(x).sum())(X)
    np.testing.assert_allclose(explain(X), eager, rtol=1e-12)


# -- nothing kept alive ---------------------------------------------------------------------------


def closing_over(w):
    def jvp(primals, tangents):
        return primals[0] @ w, tangents[0] @ w

    layer = jax.custom_jvp(lambda x: x @ w)
    layer.defjvp(jvp)
    inner = jax.jit(lambda x: jnp.tanh(x @ w))
    return {
        "plain": lambda x: jnp.tanh(x @ w),
        "custom": lambda x: layer(x),
        "jit": lambda x: inner(inner(x)),
        "scan": lambda x: lax.scan(lambda c, _: (inner(c) @ w, None), x, None, length=2)[0],
        "custom in scan": lambda x: lax.scan(lambda c, _: (layer(c), None), x, None, length=2)[0],
        "static scan": lambda x: (
            x * lax.scan(lambda c, _: (inner(c), None), w[0], None, length=2)[0]
        ),
        "remat": lambda x: jax.checkpoint(lambda x: inner(x) * w[0])(x),
        "while": lambda x: x * lax.while_loop(lambda c: c.sum() < 9, lambda c: inner(c) + 9, w[0]),
        "callback": lambda x: (
            x * jax.pure_callback(lambda: np.asarray(w[0]), jax.ShapeDtypeStruct((4,), w.dtype))
        ),
    }


@pytest.mark.parametrize("name", list(closing_over(W)))
def test_no_array_of_the_users_is_kept(name):
    w, x = jnp.asarray(W) + 1, jnp.asarray(X) + 1
    fn = closing_over(w)[name]
    watched = [weakref.ref(w), weakref.ref(x)]
    lrp.explain(fn, PLUS)(x)
    lrp.plan(fn, PLUS)(x)
    del fn, w, x
    jax.clear_caches()
    gc.collect()
    assert [ref() for ref in watched] == [None, None]


def test_parameters_and_modules_are_not_kept(counts):
    class Module:
        pass

    module, params = Module(), {"w": jnp.asarray(W) + 2}
    module.w = jnp.asarray(V) + 2

    def made(module):
        return lambda params, x: jnp.tanh(x @ params["w"]) @ module.w

    fn = made(module)
    explain = lrp.explain(fn, PLUS, argnums=1)
    watched = [weakref.ref(module), weakref.ref(module.w), weakref.ref(params["w"])]
    explain(params, X)
    explain(params, X)
    assert len(reuse._plans) == counts.plans == 1
    del module, params, fn, explain
    gc.collect()
    assert [ref() for ref in watched] == [None, None, None]


def test_what_cannot_be_compared_is_not_kept():
    held = jnp.ones(3)
    with pytest.raises(Unknown):
        content({"a": lambda: held})
    with pytest.raises(Unknown):
        jax.jit(lambda x: content((x,)) and x)(1.0)
    assert content({"a": jax.lax.add}) == content({"a": jax.lax.add})


SHARE = {"of": 1.0}


class SharedRule(lrp.Rule):
    """A rule of a user's own that reads a global number."""

    def propagate(self, layer):
        (back,) = jax.vjp(layer.function, layer.x)[1](SHARE["of"] * layer.over(layer.z))
        return back


def test_a_ledger_sees_what_a_rule_of_the_users_own_reads(monkeypatch):
    rules = {"dense": SharedRule()}
    before = lrp.ledger(mlp, rules)(X).relevance_in
    monkeypatch.setitem(SHARE, "of", 0.5)
    after = lrp.ledger(mlp, rules)(X).relevance_in
    assert abs(np.sum(after)) < 0.6 * abs(np.sum(before))
    np.testing.assert_allclose(np.sum(after), np.sum(lrp.explain(mlp, rules)(X)), rtol=1e-6)
