"""Splits of kernels that wait for relevance: the same numbers, and less memory at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp as lrp
from jaxlrp.run import late_splits

WIDTH, DEPTH, BATCH = 128, 6, 3
RNG = np.random.default_rng(0)
PARAMS = [jnp.asarray(RNG.normal(size=(WIDTH, WIDTH)) / WIDTH**0.5) for _ in range(DEPTH)]
X = jnp.asarray(RNG.normal(size=(BATCH, WIDTH)))
RULES = {"zplus": lrp.ZPlus(), "alpha_beta": lrp.AlphaBeta(2.0, 1.0), "gamma": lrp.Gamma(0.25)}


def perceptron(params, x):
    for w in params:
        x = jax.nn.relu(x @ w)
    return x


def late(rule, params=PARAMS, x=X):
    return lrp.explain(perceptron, rule, argnums=1)(params, x, target=1)


def early(rule, params=PARAMS, x=X):
    with late_splits.wait(None):
        return late(rule, params, x)


@pytest.mark.parametrize("rule", RULES)
def test_not_a_bit_changes(rule):
    found = [jax.jit(lambda p, x, f=f: f(RULES[rule], p, x))(PARAMS, X) for f in (late, early)]
    np.testing.assert_array_equal(*found)


def test_memory():
    def temporaries(explanation):
        compiled = jax.jit(lambda p, x: explanation(RULES["alpha_beta"], p, x)).lower(PARAMS, X)
        return compiled.compile().memory_analysis().temp_size_in_bytes

    # Early, W+ and W- of all layers are there at once: 12 kernels. Late, those of a layer or two.
    size = PARAMS[0].nbytes
    assert temporaries(early) > 8 * size
    assert temporaries(late) < 6 * size


@pytest.mark.parametrize("rule", ["zplus", "alpha_beta"])
def test_products_with_prepared_splits(rule, monkeypatch):
    """The splits are there from the start; the products with them are late."""
    x = jnp.asarray(RNG.normal(size=(64, WIDTH)))
    explain = lrp.explain(perceptron, RULES[rule], argnums=1)
    prepared = lrp.prepare(perceptron, RULES[rule], argnums=1)(PARAMS, x)

    def compiled():
        return jax.jit(lambda p, x: explain(p, x, target=1)).lower(prepared, x).compile()

    waiting = compiled()
    monkeypatch.setattr(late_splits, "_SMALLEST", 2**30)
    at_once = compiled()
    np.testing.assert_array_equal(waiting(prepared, x), at_once(prepared, x))
    sizes = [c.memory_analysis().temp_size_in_bytes for c in (waiting, at_once)]
    assert sizes[0] < 0.8 * sizes[1]


def test_prepared_for_many_targets_and_inputs():
    x = jnp.asarray(RNG.normal(size=(4, 64, WIDTH)))
    explain = lrp.explain(perceptron, RULES["alpha_beta"], argnums=1)
    prepared = lrp.prepare(perceptron, RULES["alpha_beta"], argnums=1)(PARAMS, x[0])

    @jax.jit
    def many(params):
        each = jax.vmap(lambda t: jax.vmap(lambda x: explain(params, x, target=t))(x))
        return each(jnp.arange(3))

    np.testing.assert_allclose(many(prepared), many(PARAMS), rtol=1e-12)
    jacobians = [
        jax.jit(jax.jacfwd(lambda x, p=p: explain(p, x, target=1).sum(0)))(x[0, :1])
        for p in (prepared, PARAMS)
    ]
    np.testing.assert_allclose(*jacobians, rtol=1e-12, atol=1e-12 * abs(jacobians[1]).max())


def test_a_kernel_for_all_targets():
    """A factor for each target would make a kernel, and a product with it, for each."""
    explain = lrp.explain(perceptron, RULES["zplus"], argnums=1)
    many = jax.vmap(lambda t: explain(PARAMS, X, target=t))
    targets = jnp.arange(5)
    assert f"[5,{WIDTH},{WIDTH}]" not in str(jax.make_jaxpr(many)(targets))
    expected = [explain(PARAMS, X, target=int(t)) for t in targets]
    np.testing.assert_allclose(jax.jit(many)(targets), np.stack(expected), rtol=1e-12)
    twice = jax.jit(jax.vmap(jax.vmap(lambda t: explain(PARAMS, X, target=t))))
    np.testing.assert_allclose(twice(targets[None]), np.stack(expected)[None], rtol=1e-12)


def test_loops_split_once():
    """In a loop, a split of what all steps share would be made anew at each."""

    def fn(w, x):
        return jax.lax.scan(lambda h, _: (jax.nn.relu(h @ w), None), x, None, length=3)[0]

    def explanation(w, x):
        return lrp.explain(fn, RULES["zplus"], argnums=1)(w, x, target=1)

    traced = str(jax.make_jaxpr(explanation)(PARAMS[0], X))
    assert "custom_vmap" not in traced
    assert "custom_vmap" in str(jax.make_jaxpr(lambda p, x: late(RULES["zplus"], p, x))(PARAMS, X))


class OfAUser(lrp.ZPlus):
    pass


@pytest.mark.parametrize("rule", [lrp.ZPlus(), OfAUser()])
def test_nothing_waits_outside_jit(rule, monkeypatch):
    expected = jax.jit(lambda p, x: late(rule, p, x))(PARAMS, X)
    monkeypatch.setattr(late_splits, "after", None)
    prepared = lrp.prepare(perceptron, rule, argnums=1)(PARAMS, X)
    for params in (PARAMS, prepared):
        np.testing.assert_allclose(late(rule, params), expected, rtol=1e-12)
        found = jax.vmap(lambda x: late(rule, params, x[None])[0])(X)
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_relevance_in_a_loss():
    def loss(explanation):
        return lambda p: (explanation(RULES["zplus"], p) ** 2).sum()

    found, expected = (jax.jit(jax.grad(loss(f)))(PARAMS) for f in (late, early))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12 * abs(other).max())
