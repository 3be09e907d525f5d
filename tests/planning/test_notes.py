"""Notes of a plan: a network in training mode is seen, in every spelling; nothing else is."""

from __future__ import annotations

import warnings

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxlrp as lrp

RNG = np.random.default_rng(0)
W, V = RNG.normal(size=(4, 3)), RNG.normal(size=(3, 2))
X = RNG.normal(size=(5, 4))
KEY = jax.random.key(0)


def kinds(fn, *args, **options):
    return [note.kind for note in lrp.plan(fn, lrp.Epsilon(), **options)(*args).notes]


class Net(nnx.Module):
    def __init__(self):
        rngs = nnx.Rngs(0)
        self.conv = nnx.Conv(3, 4, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.head = nnx.Linear(4, 2, rngs=rngs)

    def __call__(self, x):
        return self.head(self.drop(nnx.relu(self.norm(self.conv(x))).mean((1, 2))))


PICTURES = jnp.asarray(RNG.normal(size=(2, 6, 6, 3)), jnp.float32)


@pytest.mark.parametrize("count", [1, 2])
def test_a_module_that_starts_in_training(count):
    net, x = Net(), PICTURES[:count]
    plan = lrp.plan(net, lrp.Epsilon())(x)
    assert [note.kind for note in plan.notes] == ["random", "batch statistics"]
    assert plan.notes[1].layers == ("norm",)
    assert "note: Random numbers reach 'head'" in str(plan)
    explain = lrp.explain(net, lrp.Epsilon())
    with pytest.warns(lrp.TrainingModeWarning, match=r"training mode\? .*model.eval\(\)") as seen:
        [explain(x, target=target) for target in (0, 1)]
    assert len(seen) == 1
    assert seen[0].filename == __file__
    net.eval()
    assert lrp.plan(net, lrp.Epsilon())(x).notes == ()
    lrp.explain(net, lrp.Epsilon())(x, target=0)  # a warning would be an error


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        x = nn.BatchNorm(use_running_average=not train)(nn.Dense(4)(x))
        return nn.Dense(2)(nn.Dropout(0.3, deterministic=not train)(nn.relu(x)))


def test_statistics_that_are_updated():
    net = Linen()
    variables = net.init(KEY, X, False)

    def fn(x, train):
        out, _ = net.apply(variables, x, train, mutable=["batch_stats"], rngs={"dropout": KEY})
        return out

    assert kinds(fn, X, True) == ["random", "batch statistics"]
    assert kinds(fn, X, False) == []
    with pytest.warns(lrp.TrainingModeWarning) as seen:
        jax.jit(lrp.explain(fn, lrp.Epsilon()), static_argnums=1)(X, True)
    assert seen[0].filename == __file__


def moments(h):
    return h.mean(0), ((h - h.mean(0)) ** 2).mean(0)


def by_squares(h):
    m = jnp.mean(h, 0, keepdims=True)
    return m, jnp.mean(h * h, 0, keepdims=True) - m * m


@pytest.mark.parametrize("spelling", [moments, by_squares, lambda h: (h.mean(0), h.var(0))])
@pytest.mark.parametrize("scale", [jax.lax.rsqrt, lambda v: 1 / jnp.sqrt(v)])
def test_norms_over_examples_in_other_spellings(spelling, scale):
    def fn(x):
        h = x @ W
        m, v = spelling(h)
        return jax.nn.relu((h - m) * scale(v + 1e-5)) @ V

    assert kinds(fn, X) == ["batch statistics"]
    assert kinds(jax.checkpoint(fn), X) == ["batch statistics"]


def test_norms_in_a_loop():
    def step(h, w):
        h = h @ w
        return (h - h.mean(0)) / jnp.sqrt(h.var(0) + 1e-5), None

    square = RNG.normal(size=(3, 4, 4))
    assert kinds(lambda x: jax.lax.scan(step, x, square)[0], X) == ["batch statistics"]


def test_another_statistic_over_examples_is_noted_without_a_warning():
    def fn(x):
        h = x @ W
        return h - h.mean(0)

    assert kinds(fn, X) == ["mixed examples"]
    lrp.explain(fn, lrp.Epsilon())(X)


def layer_norm(h):
    return (h - h.mean(-1, keepdims=True)) / jnp.sqrt(h.var(-1, keepdims=True) + 1e-5)


@pytest.mark.parametrize(
    "fn",
    [
        lambda x: layer_norm(x @ W) @ V,
        lambda x: layer_norm(x.T).T.sum(0),  # features of a bag, without examples in the output
        lambda x: jax.nn.softmax(x @ W),
        lambda x: jax.nn.softmax(x @ x.T) @ x @ W,
        lambda x: (x @ W).mean(0),
        lambda x: ((x @ W) ** 2).mean(),
        lambda x: layer_norm((x @ W).reshape(5, 3, 1).mean(-1)),
    ],
)
def test_what_is_no_statistic_over_examples(fn):
    assert kinds(fn, X) == []


def test_columns_of_as_many_rows():
    assert kinds(lambda x: layer_norm(x.T).T.sum(0), X[:4]) == []


def test_one_example():
    assert kinds(lambda x: layer_norm(x @ W) @ V, X[0]) == []
    assert kinds(lambda x: layer_norm(x), X[0]) == []


def dropped(x, key):
    keep = jax.random.bernoulli(key, 0.5, x.shape)
    return jnp.where(keep, x / 0.5, 0.0)


@pytest.mark.parametrize(
    "fn",
    [
        lambda x, key: dropped(jax.nn.relu(x @ W), key) @ V,
        lambda x, key: x @ (W + jax.random.normal(key, W.shape)),
        lambda x, key: jax.nn.relu(x @ W + jax.random.uniform(key, (3,))),
        lambda x, key: jax.lax.scan(
            lambda h, k: (dropped(jnp.tanh(h), k), None), x, jax.random.split(key, 2)
        )[0],
        lambda x, key: jax.lax.cond(
            jax.random.bernoulli(key), lambda x: x @ W, lambda x: 2 * x @ W, x
        ),
    ],
)
def test_random_numbers_that_reach_a_layer(fn):
    assert kinds(fn, X, KEY) == ["random"]
    old = jax.random.PRNGKey(0)
    assert kinds(fn, X, old) == ["random"]


@pytest.mark.parametrize(
    "fn",
    [
        lambda x, key: x @ W + 0.0 * jax.random.split(key).shape[0],
        lambda x, key: (x @ W, jax.random.normal(key, (2,)))[0],
        lambda x, key: x @ jax.lax.stop_gradient(W),
    ],
)
def test_random_numbers_that_reach_none(fn):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert kinds(fn, X, KEY) == []
        lrp.explain(fn, lrp.Epsilon())(X, KEY)


def test_notes_are_data():
    note = lrp.plan(lambda x: dropped(x @ W, KEY), lrp.Epsilon())(X).notes[0]
    assert note == lrp.Note("random", note.text, note.layers)
    assert "so relevance depends on the key" in note.text


# -- shifts of the explained input -----------------------------------------------------------------

MEAN, SCALE = np.array([40.0, 5e4, 1.0, 0.2]), np.array([12.0, 2e4, 0.5, 0.1])
ROWS = MEAN + SCALE * RNG.normal(size=(6, 4))
ZERO = lrp.Epsilon(0.0)


def network(h):
    return jax.nn.relu(h @ W) @ V


def standardised(x):
    return network((x - MEAN) / SCALE)


@pytest.mark.parametrize(
    "fn",
    [
        standardised,
        jax.jit(standardised),
        lambda x: network(x / SCALE - MEAN / SCALE),
        lambda x: network(((x[:, ::-1] - MEAN[::-1]) / SCALE)[:, ::-1]),
        lambda x: network(x / 127.5 - 1.0),
        lambda x: jax.nn.relu((x - MEAN) / SCALE) @ W,
    ],
)
def test_a_shift_of_the_explained_input(fn):
    (note,) = lrp.plan(fn, ZERO)(ROWS).notes
    assert note.kind == "shifted input"
    assert note.layers == (lrp.plan(fn, ZERO)(ROWS).layers[0].name,)
    assert "shifted at test_notes.py" in note.text


def test_the_shift_takes_relevance_and_each_remedy_keeps_it():
    value = standardised(ROWS)[:, 0]

    def arrived(fn, rules, x=ROWS):
        return lrp.explain(fn, rules)(x, target=0).sum(1)

    opened = (ROWS - MEAN) / SCALE @ W > 0
    taken = -(opened * (MEAN / SCALE @ W)) @ V[:, 0]  # by the bias of open units
    np.testing.assert_allclose(arrived(standardised, ZERO) + taken, value, rtol=1e-9, atol=1e-9)
    assert np.abs(taken).max() > 0.5 * np.abs(value).max()
    box = lrp.ZBox(ROWS.min(0) - 1.0, ROWS.max(0) + 1.0)
    for rules in (
        {"dense": lrp.Epsilon(0.0, bias="ignore")},
        {"dense": lrp.Epsilon(0.0, bias="distribute")},
        {"dense": ZERO, lrp.first("dense"): box},
        {"dense": ZERO, lrp.first("dense"): lrp.Flat()},
        {"dense": ZERO, lrp.first("dense"): lrp.WSquare()},
    ):
        assert lrp.plan(standardised, rules)(ROWS).notes == ()
        np.testing.assert_allclose(arrived(standardised, rules), value, rtol=1e-5)
    outside = (ROWS - MEAN) / SCALE
    assert lrp.plan(network, ZERO)(outside).notes == ()
    np.testing.assert_allclose(arrived(network, ZERO, outside), value, rtol=1e-9)


@pytest.mark.parametrize(
    "fn",
    [
        lambda x: jax.nn.relu(x @ W + RNG.normal(size=3)) @ V,  # a bias after the weights
        lambda x: jax.nn.relu(x / SCALE) @ W,
        lambda x: jax.nn.relu(x @ W + 1.0) @ V,
        lambda x: jnp.tanh(jax.nn.relu(x @ W) - MEAN[:3]) @ V,  # of hidden values
        lambda x: jax.nn.sigmoid(x - 3.0) @ W,  # part of an activation
    ],
)
def test_what_is_no_shift_of_the_explained_input(fn):
    assert lrp.plan(fn, ZERO)(ROWS).notes == ()


def test_a_shift_of_explained_embeddings_is_not_noted():
    table = jnp.asarray(RNG.normal(size=(7, 4)))
    plan = lrp.plan(lambda i: network(table[i] - MEAN), ZERO, wrt="embed")(np.arange(3))
    assert plan.notes == ()


def test_a_module_that_is_closed_over_leaves_layers_without_names():
    model = Net()
    model.eval()
    plan = lrp.plan(lambda x: model(x), lrp.Epsilon())(PICTURES)
    (note,) = plan.notes
    assert note.kind == "unnamed layers"
    assert note.layers == ("conv_0", "dense_0")
    assert "explain(model, rules)(x)" in note.text
    named = lrp.plan(model, lrp.Epsilon())(PICTURES)
    assert not named.notes
    assert [y.name for y in named.layers if y.kind in ("conv", "dense")] == ["conv", "head"]
    by_argument = lrp.plan(lambda model, x: model(x), lrp.Epsilon(), argnums=1)(model, PICTURES)
    assert not by_argument.notes
    assert kinds(lambda x: x @ W, X) == []  # an array is no module, and has no names to give

    def scoped(x):
        with jax.named_scope("net"):
            return model(x)

    assert "unnamed layers" not in kinds(scoped, PICTURES)
