"""Axes along which a value may vary, and the parameters that it is made from, by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from tests.facts_check import claims

ROW, COLUMN = np.arange(3.0), np.arange(2.0)[:, None]
KEY = jax.random.key(0)


def axes_of(fn, *args):
    graph, _, _, statics = claims(fn, *args)
    return set(statics.varying_axes(graph.outputs[0]))


@pytest.mark.parametrize(
    ("fn", "args", "expected"),
    [
        (lambda r: r, [ROW], {0}),
        (lambda r: r[None] * 2.0, [ROW], {1}),  # an axis of size 1 varies along nothing
        (lambda r: jnp.broadcast_to(r, (2, 3)), [ROW], {1}),
        (lambda r: jnp.broadcast_to(r, (2, 3)).T, [ROW], {0}),
        (lambda r, c: r + c, [ROW, COLUMN], {0, 1}),
        (lambda r, c: (r + c).sum(0), [ROW, COLUMN], {0}),
        (lambda r, c: (r + 0 * c).sum(1), [ROW, COLUMN], {0}),
        (lambda r: jnp.broadcast_to(r, (2, 3)).sum(1), [ROW], set()),
        (lambda r: jnp.broadcast_to(r, (2, 3)).reshape(6), [ROW], {0}),
        (lambda r: jnp.broadcast_to(r, (4, 3)).reshape(2, 2, 3), [ROW], {2}),
        (lambda r: jnp.broadcast_to(r, (2, 3))[:, :1], [ROW], set()),
        (lambda r: jnp.concatenate([jnp.broadcast_to(r, (2, 3)), jnp.ones((1, 3))]), [ROW], {0, 1}),
        (lambda r: jnp.flip(jnp.broadcast_to(r, (2, 3)), 0), [ROW], {1}),
        (lambda r: jnp.pad(jnp.broadcast_to(r, (2, 3)), ((0, 1), (0, 0))), [ROW], {0, 1}),
        (lambda r: jnp.arange(3.0) + 0 * r[0], [ROW], {0}),
        (lambda r: jnp.ones((2, 3)) * r[0], [ROW], set()),
        (lambda r, c: (c * jnp.ones((2, 3))) @ jnp.ones((3, 4)), [ROW, COLUMN], {0}),
    ],
)
def test_axes(fn, args, expected):
    assert axes_of(fn, *args) == expected


def test_branches_vary_where_one_of_them_does():
    def fn(r, c):
        wide = (2, 3)
        return lax.cond(
            r[0] > 0, lambda: jnp.broadcast_to(r, wide), lambda: jnp.broadcast_to(c, wide)
        )

    assert axes_of(fn, ROW, COLUMN) == {0, 1}


def test_a_carry_varies_as_it_does_after_some_steps():
    def fn(r, c):
        start = jnp.zeros((2, 3))
        return lax.scan(lambda a, _: (a * 2 + r, None), start, None, length=2)[0]

    assert axes_of(fn, ROW, COLUMN) == {1}


def test_what_a_loop_stacks_varies_along_the_steps():
    def fn(r):
        return lax.scan(lambda a, _: (a + 1, jnp.full(3, 2.0) * a), r[0], None, length=4)[1]

    assert axes_of(fn, ROW) == {0}


def parameters_of(fn, *args):
    """The positions of the arguments that the result is computed from."""
    graph, _, _, statics = claims(fn, *args)
    found = statics.parameters(graph.outputs[0])
    return [graph.inputs.index(v) for v in found if v in graph.inputs], len(found)


@pytest.mark.parametrize(
    ("fn", "expected"),
    [
        (lambda a, b, i: a * 2, [0]),
        (lambda a, b, i: b - a, [0, 1]),
        (lambda a, b, i: jnp.ones(3), []),
        (lambda a, b, i: a.at[i].set(b[0]), [0, 1]),  # a place is no part of a value
        (lambda a, b, i: a[i] + b, [0, 1, 2]),
        (lambda a, b, i: lax.scan(lambda c, s: (c + s, None), a[0], b)[0], [0, 1]),
    ],
    ids=["scale", "difference", "written", "scatter", "gather", "scan"],
)
def test_parameters(fn, expected):
    found, count = parameters_of(fn, ROW, ROW + 1, np.array([2, 0, 1]))
    assert sorted(found) == expected and count == len(expected)


def test_a_random_draw_is_a_parameter_of_its_own():
    found, count = parameters_of(lambda k, a: a * jax.random.bits(k, (3,)), KEY, ROW)
    assert found == [1] and count == 2
