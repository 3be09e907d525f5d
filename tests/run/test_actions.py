"""Prints, callbacks and checks in a function: once for each evaluation, wherever they stand."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.experimental import checkify, io_callback
from jax.sharding import PartitionSpec as P

import jaxlrp as lrp
from tests.compare import assert_close

RNG = np.random.default_rng(0)
W, V = RNG.normal(size=(4, 4)), RNG.normal(size=(4, 3))
B = RNG.normal(size=4)
X = RNG.normal(size=(2, 4))
RULES = lrp.composites.epsilon_plus()


def printed(capfd):
    jax.effects_barrier()
    return capfd.readouterr().out.split()


def between(x, say):
    """A print between a product and its bias, which are one layer."""
    z = x @ W
    say("z", z)
    return jax.nn.relu(z + B) @ V


def in_a_scan(x, say):
    def step(h, w):
        z = h @ w
        say("step", z)
        return jnp.tanh(z + B), None

    return lax.scan(step, x, jnp.stack([W, W]))[0] @ V


def in_a_static_loop(x, say):
    def body(s):
        say("turn", s)
        return s + 1.0

    return x @ V * lax.while_loop(lambda s: s < 2.5, body, jnp.asarray(0.5))


def in_a_branch(x, say):
    def yes(h):
        say("yes", h)
        return h @ W

    return lax.cond(x.sum() < 100, yes, lambda h: h, x) @ V


def in_a_checkpoint(x, say):
    @jax.checkpoint
    def block(h):
        say("block", h)
        return jnp.tanh(h @ W)

    return block(x) @ V


def in_a_call(x, say):
    @jax.jit
    def layer(h):
        say("call", h)
        return jnp.tanh(h @ W + B)

    return layer(layer(x)) @ V


def in_a_shard_map(x, say):
    def local(h):
        say("local", h)
        return jnp.tanh(h @ W)

    mesh = jax.sharding.Mesh(np.asarray(jax.devices()[:1]), "i")
    return jax.shard_map(local, mesh=mesh, in_specs=P("i"), out_specs=P("i"))(x) @ V


FUNCTIONS = {
    between: ["z"],
    in_a_scan: ["step"] * 2,
    in_a_static_loop: ["turn"] * 2,
    in_a_branch: ["yes"],
    in_a_checkpoint: ["block"],
    in_a_call: ["call"] * 2,
    in_a_shard_map: ["local"],
}


def saying(fn, say=None):
    """The function that prints a word and the sum of a value, or nothing."""

    def say_sum(word, value):
        jax.debug.print(word + "={}", jnp.round(value.sum(), 6))

    return lambda x: fn(x, say or say_sum)


@pytest.mark.parametrize("fn", FUNCTIONS, ids=lambda fn: fn.__name__)
def test_what_is_printed_is_what_the_function_prints(fn, capfd):
    loud, quiet = saying(fn), saying(fn, lambda word, value: None)
    loud(X)
    expected = printed(capfd)
    assert [line.split("=")[0] for line in expected] == FUNCTIONS[fn]
    wanted = lrp.explain(quiet, RULES)(X, target=1)
    explain = lrp.explain(loud, RULES)
    for call in (explain, explain, jax.jit(explain, static_argnames="target")):
        R = call(X, target=1)
        assert printed(capfd) == expected
        assert_close(R, wanted, tolerance=1e-12)  # a print has no part in what is recognised


def test_every_transformation_that_evaluates(capfd):
    fn = saying(between)
    lrp.plan(fn, RULES)(X)
    assert printed(capfd) == []
    once = FUNCTIONS[between]
    for call in (
        lambda: lrp.value_and_relevance(fn, RULES)(X, target=0),
        lambda: lrp.relevance_vjp(fn, RULES, X)[1](jnp.ones((2, 3))),
        lambda: lrp.ledger(fn, RULES)(X, target=0),
        lambda: lrp.ledger(fn, RULES)(X, target=0),
        lambda: lrp.explain(fn, RULES, wrt="dense_0")(X, target=0),
        lambda: jax.grad(lambda x: lrp.explain(fn, RULES)(x, target=0).sum())(X),
    ):
        call()
        assert [line.split("=")[0] for line in printed(capfd)] == once
    jax.vmap(lrp.explain(fn, RULES))(X[:, None])
    assert len(printed(capfd)) == len(X)


def test_each_call_has_its_own_callback():
    """The plan of the first call is used again; what is called back is not."""
    first, second = [], []
    explain = [lrp.explain(recording(seen), RULES) for seen in (first, second)]
    for n, one in enumerate((explain[0], explain[1], explain[0])):
        one(X + n, target=0)
        jax.effects_barrier()
    assert [round(float(v), 9) for v in first] == [round((X + n).sum(), 9) for n in (0, 2)]
    assert len(second) == 1


def recording(seen):
    def fn(x):
        jax.debug.callback(lambda v: seen.append(v), x.sum())
        return jax.nn.relu(x @ W) @ V

    return fn


def test_a_callback_whose_result_is_used_is_made_once():
    calls = []

    def scale():
        calls.append(1)
        return np.asarray(2.0)

    def fn(x):
        jax.debug.callback(lambda v: None, x.sum())
        return x @ V * io_callback(scale, jax.ShapeDtypeStruct((), X.dtype))

    R = lrp.explain(fn, lrp.Epsilon(0.0))(X, target=0)
    assert len(calls) == 1
    assert_close(R, 2 * X * V[:, 0])


def test_a_callback_without_a_result_is_made_in_order():
    seen = []

    def fn(x):
        io_callback(lambda v: seen.append(("first", float(v))), None, x.sum(), ordered=True)
        h = x @ W
        io_callback(lambda v: seen.append(("second", float(v))), None, h.sum(), ordered=True)
        return h @ V

    for call in (lrp.explain(fn, RULES), jax.jit(lrp.explain(fn, RULES))):
        seen.clear()
        jax.block_until_ready(call(X))
        jax.effects_barrier()
        assert [word for word, _ in seen] == ["first", "second"]


def test_checks_are_made_under_checkify():
    def fn(x):
        checkify.debug_check(x.sum() < 50, "too large")
        return x @ V

    checked = checkify.checkify(lrp.explain(fn, RULES))
    assert checked(X)[0].get() is None
    assert "too large" in checked(X + 100)[0].get()
    lrp.explain(fn, RULES)(X + 100)  # as the function alone


def test_writes_to_references_are_an_error():
    ref = jax.new_ref(jnp.zeros(X.shape))

    def fn(x):
        ref[...] = lax.stop_gradient(x)
        return x @ V

    with pytest.raises(lrp.InputError, match=r"writes to a jax.Ref .* has_aux=True"):
        lrp.explain(fn, RULES)(X)
