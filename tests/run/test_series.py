"""Blocks that follow one another run by one function, and give what each step gives by itself."""

from __future__ import annotations

import gc
import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp as lrp
from jaxlrp.run import interpreter, reuse, series
from tests.compare import assert_leaves_close
from tests.graph.test_repeated_random import PIECES, RULES, chain

RNG = np.random.default_rng(0)
W, V = RNG.normal(size=(2, 4, 4)) / 2
B = RNG.normal(size=4)
X = RNG.normal(size=(3, 4))
WEIGHTS = RNG.normal(size=(20, 4, 4)) / 2


def tanhs(x):
    for w in WEIGHTS:
        x = jnp.tanh(x @ w)
    return x


def relus(x):
    for w in WEIGHTS:
        x = jax.nn.relu(x @ w + B)
    return x


def residual(x):
    for w in WEIGHTS:
        x = x + jax.nn.relu(x @ w + B) @ V
    return x


def tied(x):
    for _ in WEIGHTS:
        x = x + jnp.tanh(x @ W)
    return x


def normed(x):
    for w in WEIGHTS:
        h = (x - B) * jax.lax.rsqrt(jnp.square(B) + 1e-3)
        x = x + jax.nn.relu(h @ w)
    return x


def read_by_all(x):
    context = jnp.tanh(x @ V)
    for w in WEIGHTS:
        x = jnp.tanh(x @ w) + context * jax.nn.sigmoid(context @ w)
    return x, context


def rematerialised(x):
    def stretch(x):
        return tanhs(x) + x

    return residual(jax.checkpoint(stretch)(x))


def scanned(x):
    return jax.lax.scan(lambda x, _: (residual(x), None), x, length=2)[0]


def low(x):
    x = x.astype(jnp.bfloat16)
    for w in WEIGHTS:
        x = jax.nn.gelu(x @ jnp.asarray(w, jnp.bfloat16))
    return x.astype(jnp.float32)


def other_loops(x):
    """Weights are made by loops, the bodies of which hold another number in the last two blocks."""
    for number, w in enumerate(WEIGHTS):
        k = 0.8 if number < len(WEIGHTS) - 2 else 0.2
        w, _ = jax.lax.scan(lambda c, _: (c * k, None), jnp.asarray(w), length=2)
        x = jnp.tanh(x @ w)
    return x


def other_branches(x):
    for number, w in enumerate(WEIGHTS):
        k = 1.0 if number < len(WEIGHTS) - 2 else -0.5
        w = jax.lax.cond(B[0] < 5, lambda w: w * k, jnp.sin, jnp.asarray(w))
        x = jnp.tanh(x @ w)
    return x


def before_activation(x):
    """The first ReLU runs with the layer before the blocks, each of which begins with one."""
    x = x @ V
    for w in WEIGHTS:
        h = jax.nn.relu(x) @ (w + 0.1)
        h = h - h.mean(-1, keepdims=True)
        x = h * jax.lax.rsqrt(jnp.square(h).mean(-1, keepdims=True) + 1e-3)
    return x


def parts_of_a_norm(x):
    """Each of two equal layers has its own part of the norm after both: a part of a split."""
    left, right = V[:, :1], V[:, 1:2]
    z = jnp.concatenate([x @ left, x @ right], -1)
    m, v, g, b = (w[0, :2] for w in (*WEIGHTS, *WEIGHTS)[:4])
    return (z - m) * (g * jax.lax.rsqrt(v * v + 1e-3)) + b


NETWORKS = [
    parts_of_a_norm,
    tanhs,
    relus,
    residual,
    tied,
    normed,
    read_by_all,
    rematerialised,
    scanned,
    low,
    other_loops,
    other_branches,
    before_activation,
]
MAPS = {name: getattr(lrp.composites, name)() for name in ("lrp_zero", "epsilon_plus", "attn_lrp")}


@pytest.fixture
def alone(monkeypatch):
    """A function that has every step run by itself from now on."""

    def change():
        monkeypatch.setattr(series, "parts", lambda *_: {})
        monkeypatch.setattr(interpreter, "alike", lambda plan: {})

    return change


@pytest.mark.parametrize("rules", MAPS)
@pytest.mark.parametrize("fn", NETWORKS, ids=lambda f: f.__name__)
def test_a_series_gives_what_its_steps_give(fn, rules, alone):
    both = lrp.value_and_relevance(fn, MAPS[rules])
    shared, found = jax.make_jaxpr(both)(X), jax.jit(both)(X)
    alone()
    apart = jax.make_jaxpr(both)(X)
    assert words(shared.jaxpr) == words(apart.jaxpr)
    assert_leaves_close(found, jax.jit(lambda x: both(x))(X))


def words(jaxpr):
    """The names of all equations, those of calls and bodies too."""
    names = []
    for eqn in jaxpr.eqns:
        names.append(eqn.primitive.name)
        for inner in eqn.params.values():
            if hasattr(inner, "jaxpr") or hasattr(inner, "eqns"):
                names += words(getattr(inner, "jaxpr", inner))
    return sorted(names)


@pytest.mark.parametrize("fn", [tanhs, residual, normed, scanned], ids=lambda f: f.__name__)
def test_a_rule_is_asked_for_few_of_many_blocks(fn, monkeypatch):
    asked = []
    run_step = interpreter.run_step
    monkeypatch.setattr(interpreter, "run_step", lambda *given: asked.append(run_step(*given)))
    jax.make_jaxpr(lrp.explain(fn, MAPS["epsilon_plus"]))(X)
    few = len(asked)
    monkeypatch.setattr(series, "parts", lambda *_: {})
    asked.clear()
    jax.make_jaxpr(lrp.explain(fn, MAPS["epsilon_plus"]))(X)
    assert few < 0.8 * len(asked)


@pytest.mark.parametrize("fn", [relus, residual, tied], ids=lambda f: f.__name__)
def test_probes_and_masks_within_a_series(fn, alone):
    names = [y.name for y in lrp.plan(fn, MAPS["epsilon_plus"])(X).layers]
    explain = lrp.explain(fn, MAPS["epsilon_plus"], layers=[names[9], names[-1]])

    def masked(x):
        return explain(x, condition={names[11]: jnp.arange(4) % 2})

    found = jax.jit(masked)(X)
    alone()
    assert_leaves_close(found, jax.jit(lambda x: masked(x))(X))


@pytest.mark.parametrize("fn", [relus, residual, normed], ids=lambda f: f.__name__)
def test_derivatives_and_batches_of_a_series(fn, alone):
    def loss(x, b):
        def shifted(x):
            return fn(x + b) * b

        return jnp.square(lrp.explain(shifted, MAPS["epsilon_plus"])(x)).sum()

    def all_of(x, b):
        return (
            jax.grad(loss, argnums=(0, 1))(x, b),
            jax.jvp(loss, (x, b), (x, b)),
            jax.vmap(lrp.explain(fn, MAPS["attn_lrp"]))(jnp.stack([x, 2 * x])),
        )

    found = jax.jit(all_of)(X, B)
    alone()
    assert_leaves_close(found, jax.jit(lambda x, b: all_of(x, b))(X, B))


@pytest.mark.parametrize("fn", [residual, read_by_all], ids=lambda f: f.__name__)
def test_relevance_is_added_in_the_order_of_the_program(fn, monkeypatch):
    both = lrp.value_and_relevance(fn, MAPS["lrp_zero"])
    reuse._plans.clear()  # outside `jit` the equations that were traced are kept with the plan
    found = both(X)
    monkeypatch.setattr(series, "parts", lambda *_: {})
    reuse._plans.clear()
    jax.tree.map(np.testing.assert_array_equal, found, both(X))


@pytest.mark.parametrize("seed", range(16))
def test_random_blocks(seed, alone):
    rng = random.Random(seed)
    kinds = [PIECES[rng.choice(list(PIECES))] for _ in range(rng.randint(1, 3))]
    fn = chain(kinds * 5 + [PIECES[rng.choice(list(PIECES))]])
    both = lrp.value_and_relevance(fn, RULES[seed % len(RULES)])
    shared, found = jax.make_jaxpr(both)(X), jax.jit(both)(X)
    alone()
    assert words(shared.jaxpr) == words(jax.make_jaxpr(both)(X).jaxpr)
    again = jax.jit(lambda x: both(x))(X)
    assert_leaves_close(*(jax.tree.map(jnp.nan_to_num, tree) for tree in (found, again)))


def symbols(text):
    return [None if c == "-" else ord(c) for c in text]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("xabababy", [(1, 2, 3)]),
        ("aaaa", [(0, 1, 4)]),
        ("abcabcab", [(0, 3, 2)]),
        ("ab-ab", []),
        ("aabaab", [(0, 3, 2)]),
        ("abcxyxyxyz", [(3, 2, 3)]),
        ("abacabac", [(0, 4, 2)]),
    ],
)
def test_repetitions(text, found):
    assert list(series._repetitions(symbols(text))) == found


def test_few_blocks_run_by_themselves():
    assert series._blocks_at_once(2, 3) == 0
    assert series._blocks_at_once(40, 12) == 1
    assert 10 <= series._blocks_at_once(2, 300) <= 30


def test_plans_of_series_are_let_go(monkeypatch):
    monkeypatch.setattr(series, "_FIXED", 0.2)

    def fn(x):
        for w in WEIGHTS[:4]:
            x = jnp.tanh(x @ w)
        return x

    before = _plans()
    for number in range(reuse._KEPT + 20):
        jax.make_jaxpr(lrp.explain(fn, lrp.Epsilon(0.1 + number)))(X)
    assert _plans() - before <= reuse._KEPT


def _plans():
    gc.collect()
    return sum(isinstance(kept, lrp.Plan) for kept in gc.get_objects())
