"""Integers and booleans beside floating leaves of an explained argument: static, relevance 0."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp as lrp
from tests.compare import assert_close

RNG = np.random.default_rng(0)
W, SITES = RNG.normal(size=(4, 3)), jnp.asarray(RNG.normal(size=(5, 3)))
X = RNG.uniform(0.5, 1.5, size=(2, 4))
RULE = lrp.Epsilon(0.0)


def by_site(d):
    return jax.nn.relu(d["image"] @ W + SITES[d["site"]]) * jnp.where(d["mask"], 1.0, 0.5)


SITE, MASK = np.array([1, 3]), np.array([True, False, True])


def alone(x):
    return by_site({"image": x, "site": SITE, "mask": MASK})


def check(found, expected):
    assert_close(found["image"], expected)
    for name, leaf in (("site", SITE), ("mask", MASK)):
        assert found[name].dtype == jax.dtypes.float0
        assert found[name].shape == leaf.shape


def test_a_dict_of_an_image_and_a_site():
    d = {"image": X, "site": SITE, "mask": MASK}
    expected = lrp.explain(alone, RULE)(X, target=1)
    explain = lrp.explain(by_site, RULE, check_finite=True)
    check(explain(d, target=1), expected)
    check(jax.jit(explain)(d, target=1), expected)
    same = jax.grad(lambda d: by_site(d).sum(), allow_int=True)(d)
    assert jax.tree.structure(same) == jax.tree.structure(explain(d, target=1))
    value, found = lrp.value_and_relevance(by_site, RULE)(d)
    assert_close(value, by_site(d))
    assert found["site"].dtype == same["site"].dtype
    _, back = lrp.relevance_vjp(by_site, RULE, d)
    check(back(value)[0], lrp.explain(alone, RULE)(X))
    ledger = lrp.ledger(by_site, RULE)(d, target=1)
    assert_close(ledger.relevance_in, expected.sum())
    (note,) = lrp.plan(by_site, RULE)(d).notes
    assert note.kind == "static leaves"
    assert "argument 0['site'] (int64)" in note.text
    assert "argument 0['mask'] (bool)" in note.text


def test_under_vmap():
    d = {"image": np.stack([X, 2 * X]), "site": SITE, "mask": MASK}
    axes = {"image": 0, "site": None, "mask": None}
    found = jax.vmap(lrp.explain(by_site, RULE), in_axes=(axes,))(d)
    assert_close(found["image"][1], lrp.explain(alone, RULE)(2 * X))


class GraphTuple(NamedTuple):
    nodes: jax.Array
    senders: jax.Array
    receivers: jax.Array
    n_node: int
    globals: None = None


def test_a_graph_tuple():
    graph = GraphTuple(X, np.array([0, 1, 1]), np.array([1, 0, 1]), 2)

    def fn(g):
        sent = (g.nodes @ W)[g.senders]
        return jax.ops.segment_sum(sent, g.receivers, g.n_node)

    found = lrp.explain(fn, RULE)(graph, target=0)
    assert isinstance(found, GraphTuple)
    expected = lrp.explain(lambda x: fn(graph._replace(nodes=x)), RULE)(X, target=0)
    assert_close(found.nodes, expected)
    assert found.senders.dtype == found.n_node.dtype == jax.dtypes.float0
    assert found.n_node.shape == ()


def test_a_random_key_beside_an_array():
    found = lrp.explain(lambda d: d["x"] @ W, RULE)({"x": X, "key": jax.random.key(0)})
    assert_close(found["x"], lrp.explain(lambda x: x @ W, RULE)(X))
    assert found["key"].dtype == jax.dtypes.float0


def test_several_arguments():
    found = lrp.explain(lambda a, b: by_site(a | b), RULE, argnums=(1, 0))(
        {"site": SITE, "image": X}, {"image": X, "mask": MASK}, target=0
    )
    assert_close(found[0]["image"], lrp.explain(alone, RULE)(X, target=0))
    assert_close(found[1]["image"], 0 * X)


@pytest.mark.parametrize(
    ("argument", "dtype"),
    [
        ({"site": SITE}, "int64"),
        (SITE, "int64"),
        (3, "int64"),
        ([SITE, MASK], "int64, bool"),
        (np.zeros((2, 4), np.uint8), "uint8"),
    ],
)
def test_no_floating_leaf(argument, dtype):
    with pytest.raises(lrp.InputError, match=rf"it has dtype {dtype}; .*uint8 picture.*wrt="):
        lrp.explain(lambda a: X @ W, RULE)(argument)


def test_complex_leaves():
    with pytest.raises(lrp.InputError, match=r"argument 0\['z'\].*dtype complex128.*real"):
        lrp.explain(lambda d: d["x"] @ W, RULE)({"x": X, "z": 1j * X})


def test_companion_methods_say_what_they_take():
    d = {"image": X, "site": SITE, "mask": MASK}
    with pytest.raises(lrp.InputError, match="argument 0 holds integers or booleans beside"):
        lrp.methods.gradient(by_site)(d, target=0)
