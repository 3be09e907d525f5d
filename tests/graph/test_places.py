"""Moves that come to nothing are nothing, and those that do not are left as they are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxlrp as lrp
from jaxlrp.graph.trace import trace

EVENS = np.array([True, False, True, False])
DIAGONAL = np.eye(2, 4, dtype=bool)
ORDER = np.array([2, 0, 3, 1])

ARRAYS = np.random.default_rng(1).normal(size=(2, 2, 2)).astype(np.float32)

UNDONE = {
    "turned twice": lambda x: x.T.T[::-1][::-1],
    "halves put together": lambda x: jnp.concatenate(jnp.split(x, 2, -1), -1),
    "every second and the rest": lambda x: jnp.stack([x[:, ::2], x[:, 1::2]], -1).reshape(x.shape),
    "an order and its inverse": lambda x: x[:, ORDER][:, np.argsort(ORDER)],
    "an order that is counted": lambda x: x[:, 3 - jnp.arange(4)][:, ::-1],
    "rolled around": lambda x: jnp.roll(jnp.roll(x, 3, -1), 1, -1),
    "padded with a one and cropped": lambda x: jnp.pad(x, 1, constant_values=1.0)[1:-1, 1:-1],
    "dilated and thinned": lambda x: lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), (0, 0, 2)])[
        :, ::3
    ],
    "beside another": lambda x: jnp.concatenate([jnp.sin(x), x, x], -1)[:, 4:8],
    "put where it was": lambda x: x.at[:, 1:3].set(x[:, 1:3]),
    "put over what is cut off": lambda x: lax.dynamic_update_slice(jnp.ones_like(x), x, (0, 0)),
    "masks apart": lambda x: jnp.where(EVENS, x, 0.0) + jnp.where(EVENS, 0.0, x),
    "three parts": lambda x: (
        jnp.pad(x[:, :1], [(0, 0), (0, 3)])
        + (jnp.pad(x[:, 1:2], [(0, 0), (1, 2)]) + jnp.pad(x[:, 2:], [(0, 0), (2, 0)]))
    ),
    "a triangle and the rest": lambda x: jnp.triu(x) + jnp.tril(x, -1),
    "a diagonal": lambda x: jnp.where(DIAGONAL, x, jnp.where(DIAGONAL, 3.0, x)),
    "tiled and cut": lambda x: jnp.broadcast_to(x[None], (3, 2, 4)).reshape(6, 4)[2:4],
}

NEUTRAL = {
    "1 * x": lambda x: 1.0 * x,
    "x * 1": lambda x: x * 1.0,
    "x / 1": lambda x: x / 1.0,
    "0 + x": lambda x: 0.0 + x,
    "x + 0": lambda x: x + 0.0,
    "x - 0": lambda x: x - 0.0,
    "Python's sum": lambda x: sum([x]),
    "twice": lambda x: 1.0 * (0.0 + 1.0 * x),
}

LEFT = {
    "flipped": lambda x: x[:, ::-1],
    "1 / x": lambda x: 1.0 / x,
    "0 - x": lambda x: 0.0 - x,
    "once around": lambda x: jnp.roll(x, 1, -1),
    "masks that overlap": lambda x: jnp.where(EVENS, x, 0.0) + x,
    "a mask with a hole": lambda x: jnp.where(EVENS, x, 0.0),
    "a part lost": lambda x: jnp.pad(x[:, :3], [(0, 0), (0, 1)]),
    "a one beside": lambda x: jnp.where(EVENS, x, 1.0) + jnp.where(EVENS, 0.0, x),
    "two in one place": lambda x: jnp.concatenate([x[:, :1], x[:, :1], x[:, 2:]], -1),
    "another's part": lambda x: jnp.concatenate([x[:, :2], jnp.sin(x)[:, 2:]], -1),
    "a choice by the input": lambda x: jnp.where(x > 0, x, 0.0) + jnp.where(x > 0, 0.0, x),
    "rounded between": lambda x: x[:, ::-1].astype(jnp.bfloat16).astype(x.dtype)[:, ::-1],
    "an overlap that adds up": lambda x: (
        jnp.concatenate([jnp.concatenate([x[:1, :2], x[:1, :1], x[:1, 3:]], 1), x[1:]], 0)
        + lax.pad(x[:1, 1:2], jnp.zeros((), x.dtype), [(0, 1, 0), (2, 1, 0)])
    ),
    "another array in the place of one": lambda x: lax.dynamic_update_slice(
        jnp.concatenate([x[:, :2], ARRAYS[0]], -1), ARRAYS[1], (0, 2)
    ),
    "stopped between": lambda x: lax.stop_gradient(x[:, ::-1])[:, ::-1],
}


def graph_of(fn):
    return trace(fn, [jax.ShapeDtypeStruct((2, 4), np.float32)], [()])[0]


@pytest.mark.parametrize("name", UNDONE)
def test_moves_that_come_to_nothing_are_gone(name):
    graph = graph_of(UNDONE[name])
    assert graph.outputs == graph.inputs


@pytest.mark.parametrize("name", NEUTRAL)
def test_numbers_that_change_nothing_are_gone(name):
    graph = graph_of(NEUTRAL[name])
    assert graph.outputs == graph.inputs


@pytest.mark.parametrize("name", LEFT)
def test_what_changes_something_stays(name):
    graph = graph_of(LEFT[name])
    assert graph.outputs != graph.inputs
    if name == "stopped between":
        return
    x = np.random.default_rng(0).normal(size=(2, 4)).astype(np.float32)
    value, _ = lrp.value_and_relevance(lambda x: jnp.sin(LEFT[name](x)), {})(x)
    np.testing.assert_allclose(value, jnp.sin(LEFT[name](x)))


BODIES = {
    "a branch": lambda fn: lambda x: lax.cond(x.sum() > 0, fn, jnp.sin, x),
    "a loop": lambda fn: lambda x: lax.scan(lambda c, _: (fn(c), None), x, None, length=3)[0],
}


@pytest.mark.parametrize("around", BODIES)
def test_masks_that_a_body_is_given_are_read(around):
    for fn in UNDONE.values():
        (*_, eqn) = graph_of(BODIES[around](fn)).eqns
        body = eqn.bodies[-1]
        assert body.outputs[0] in body.inputs


def test_masks_that_change_from_step_to_step_are_not_read():
    def fn(x):
        def step(carry, mask):
            x, evens = carry
            x = jnp.where(evens, x, 0.0) + jnp.where(jnp.asarray(EVENS), 0.0, x)
            return (x + jnp.where(mask, x, 0.0) + jnp.where(EVENS, 0.0, x), ~evens), None

        return lax.scan(step, (x, jnp.asarray(EVENS)), jnp.stack([EVENS, ~EVENS]))[0][0]

    (*_, eqn) = graph_of(fn).eqns
    names = [e.name for e in eqn.bodies[0].eqns]
    assert names.count("select_n") == 4


def test_indices_and_masks_of_the_caller_are_not_read():
    def fn(x, mask, order):
        whole = jnp.where(mask, x, 0.0) + jnp.where(mask, 0.0, x)
        return whole[:, order]

    avals = [jax.ShapeDtypeStruct((2, 4), np.float32)]
    avals += [jax.ShapeDtypeStruct((4,), bool), jax.ShapeDtypeStruct((4,), np.int32)]
    graph, _, _ = trace(fn, avals, [(), (), ()], varying=[0])
    assert [e.name for e in graph.eqns if e.name in ("select_n", "add", "gather")]


def test_a_value_inside_is_found_again():
    graph = graph_of(lambda x: jnp.tanh(jnp.pad(x[:, ::-1], 1)[1:-1, 1:-1]))
    assert [e.name for e in graph.eqns] == ["rev", "tanh"]


def test_a_rectified_picture_turned_around_is_still_one():
    w = np.random.default_rng(1).normal(size=(4, 3))
    x = np.random.default_rng(2).normal(size=(2, 4))
    one = lrp.explain(lambda x: jax.nn.relu(x @ w), lrp.ZPlus())(x)
    other = lrp.explain(lambda x: jax.nn.relu(jnp.fliplr(jnp.fliplr(x @ w))), lrp.ZPlus())(x)
    np.testing.assert_array_equal(one, other)
