"""Loops that run until they have converged, implicit derivatives, derivatives of a user's own."""

from __future__ import annotations

import equinox.internal as eqxi
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxlrp as lrp
from tests.compare import assert_close

RNG = np.random.default_rng(0)
W, U = 0.1 * RNG.normal(size=(3, 3)), RNG.normal(size=(4, 3))
X = RNG.normal(size=(2, 4))
RULE = lrp.Epsilon(0.0)


def step(z, x):
    return jnp.tanh(z @ W + x @ U)


def moving(state):
    z, before = state
    return jnp.abs(z - before).max() > 1e-14


def looped(x, kind):
    start = jnp.zeros((*x.shape[:-1], 3))
    return eqxi.while_loop(
        moving,
        lambda s: (step(s[0], x), s[0]),
        (step(start, x), start),
        max_steps=64,
        kind=kind,
    )[0]


def solved(x):
    return looped(x, "lax")


def tangent(g, y):
    return jnp.linalg.solve(jax.jacobian(g)(y), y)


def by_root(x):
    start = jnp.zeros(3)
    return lax.custom_root(lambda z: step(z, x) - z, start, lambda f, z: solved(x), tangent)


@pytest.mark.parametrize(
    ("fn", "x"),
    [(solved, X), (lambda x: looped(x, "checkpointed"), X), (by_root, X[0])],
)
def test_the_error_names_the_ways_out(fn, x):
    with pytest.raises(lrp.UnsupportedPrimitiveError, match=r"`while` .*test_solvers") as found:
        lrp.plan(fn, RULE)(x)
    for way in ("lax.scan", 'kind="bounded"', "f(jax.lax.stop_gradient(z), x)"):
        assert way in str(found.value)


def test_a_root_by_known_steps():
    """Whether JAX calls it a primitive of its own (0.12) or inlines it: its steps count."""

    def steps(f, z):
        for _ in range(5):
            z = z + f(z)
        return z

    def root(x):
        return lax.custom_root(lambda z: step(z, x) - z, jnp.zeros(3), steps, tangent)

    def unrolled(x):
        return steps(lambda z: step(z, x) - z, jnp.zeros(3))

    for fn in (root, jax.jit(root)):
        assert_close(lrp.explain(fn, RULE)(X[0]), lrp.explain(unrolled, RULE)(X[0]))


def test_a_bounded_loop():
    """The same as the steps written out: more of them change nothing."""

    def unrolled(x):
        z = jnp.zeros((2, 3))
        for _ in range(30):
            z = step(z, x)
        return z

    found = lrp.explain(lambda x: looped(x, "bounded"), RULE)(X, target=0)
    np.testing.assert_allclose(
        found, lrp.explain(unrolled, RULE)(X, target=0), rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize("solve", [solved, jax.vmap(by_root)])
def test_the_last_step(solve):
    """All relevance of the step goes to its x: the solution is held, and no bias."""
    explain = lrp.explain(lambda x: step(lax.stop_gradient(solve(x)), x), RULE)
    z = solved(X)
    assert_close(z, step(z, X))
    value = np.asarray(step(z, X))[:, 1:2]
    shares = X * U[:, 1] / (X @ U[:, 1:2])
    assert_close(explain(X, target=1), value * shares)
    why = [y.why for y in lrp.plan(lambda x: step(lax.stop_gradient(solve(x)), x), RULE)(X).layers]
    assert any("depends on the input" in one for one in why), why


def test_derivatives_of_a_users_own_are_not_used():
    def forward(x):
        return jnp.tanh(x @ U)

    by_vjp = jax.custom_vjp(forward)
    by_vjp.defvjp(lambda x: (forward(x), None), lambda kept, g: (jnp.full((2, 4), 100.0),))
    by_jvp = jax.custom_jvp(forward)
    by_jvp.defjvp(lambda x, t: (forward(*x), 100.0 * jnp.ones((2, 3))))
    expected = lrp.explain(forward, RULE)(X)
    for fn in (by_vjp, by_jvp, jax.jit(by_vjp), jax.checkpoint(by_vjp)):
        assert_close(lrp.explain(fn, RULE)(X), expected)
