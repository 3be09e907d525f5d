"""Selective state spaces under MambaLRP: the reference of the mamba pack, in several spellings."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxlrp as lrp
from tests import networks
from tests.compare import assert_close
from tests.numpy_jaxpr import in_numpy

DT_RANK, STATE = 2, 4


def by_scan(a, b, c):
    """y_t = sum over the state of h_t c_t, with h_t = a_t h_{t-1} + b_t, one step at a time."""

    def step(h, abc):
        a, b, c = abc
        h = a * h + b
        return h, jnp.sum(h * c[:, None], -1)

    start = jnp.zeros_like(b[:, 0])
    _, y = lax.scan(step, start, jax.tree.map(lambda v: v.swapaxes(0, 1), (a, b, c)))
    return y.swapaxes(0, 1)


def by_associative_scan(a, b, c):
    def combine(left, right):
        return left[0] * right[0], right[0] * left[1] + right[1]

    _, h = lax.associative_scan(combine, (a, b), axis=1)
    return jnp.einsum("btds,bts->btd", h, c)


def unrolled(a, b, c):
    h, ys = jnp.zeros_like(b[:, 0]), []
    for t in range(a.shape[1]):
        h = a[:, t] * h + b[:, t]
        ys.append(h @ c[:, t, :, None])
    return jnp.stack(ys, 1)[..., 0]


def scan_then_read(a, b, c):
    def step(h, ab):
        h = ab[0] * h + ab[1]
        return h, h

    _, h = lax.scan(step, jnp.zeros_like(b[:, 0]), (a.swapaxes(0, 1), b.swapaxes(0, 1)))
    return jnp.einsum("tbds,bts->btd", h, c)


# The order in which dt, B and u are multiplied is the author's choice.
def dt_b_first(dt, b, u):
    return (dt[..., None] * b[:, :, None]) * u[..., None]


def dt_u_first(dt, b, u):
    return (dt * u)[..., None] * b[:, :, None]


def one_einsum(dt, b, u):
    return jnp.einsum("btd,bts,btd->btds", dt, b, u)


SCANS = {f.__name__: f for f in (by_scan, by_associative_scan, unrolled, scan_then_read)}
INPUTS = {f.__name__: f for f in (dt_b_first, dt_u_first, one_einsum)}


def block(p, x, states, enter, name):
    n = x * lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-6)
    u, z = jnp.split(n @ p["in_proj"]["kernel"], 2, -1)
    u = lax.conv_general_dilated(
        u,
        p["conv"]["kernel"],
        (1,),
        [(3, 0)],
        dimension_numbers=("NWC", "WIO", "NWC"),
        feature_group_count=u.shape[-1],
    )
    u = jax.nn.silu(u)
    dt, b, c = jnp.split(u @ p["x_proj"]["kernel"], [DT_RANK, DT_RANK + STATE], -1)
    dt = jax.nn.softplus(dt @ p["dt_proj"]["kernel"] + p["dt_proj"]["bias"])
    y = states(jnp.exp(dt[..., None] * p["A"]), enter(dt, b, u), c) + p["D"] * u
    y = (y * jax.nn.silu(z)) @ p["out_proj"]["kernel"]
    with jax.named_scope(name):
        return x + y


def network(params, x, states=by_scan, enter=dt_b_first):
    for name in ("block0", "block1", "block2"):
        x = block(params[name], x, states, enter, name)
    n = x[:, -1]
    n = n * lax.rsqrt(jnp.mean(n * n, -1, keepdims=True) + 1e-6)
    return n @ params["head"]["kernel"]


@functools.cache
def load():
    pack = networks.load("mamba")
    return pack, networks.tree(pack, "params/")


@pytest.mark.parametrize("enter", INPUTS)
@pytest.mark.parametrize("states", SCANS)
def test_input(states, enter):
    pack, params = load()
    fn = functools.partial(network, params, states=SCANS[states], enter=INPUTS[enter])
    np.testing.assert_allclose(in_numpy(fn)(pack["input"]), pack["logits"], rtol=1e-10)
    run = jax.jit if enter == "dt_b_first" else in_numpy
    explain = run(lrp.value_and_relevance(fn, lrp.composites.mamba_lrp()))
    value, relevance = explain(jnp.asarray(pack["input"]), target=pack["target"])
    assert_close(relevance, pack["mambalrp/input"], 1e-8)
    logit = np.take_along_axis(np.asarray(value), pack["target"][:, None], 1).sum()
    np.testing.assert_allclose(relevance.sum(), logit, rtol=1e-6)


def test_the_residual_stream():
    pack, params = load()
    fn = functools.partial(network, params)
    names = ["block0", "block1", "block2"]
    explain = in_numpy(lrp.explain(fn, lrp.composites.mamba_lrp(), layers=names))
    _, layers = explain(jnp.asarray(pack["input"]), target=pack["target"])
    for name in names:
        assert_close(layers[name], pack[f"mambalrp/layer/{name}"], 1e-8)


def test_without_its_rules_nothing_is_conserved():
    """The reference's own baseline: input times gradient."""
    pack, params = load()
    fn = functools.partial(network, params)
    rules = lrp.composites.mamba_lrp() | {kind: lrp.Gradient() for kind in ("norm", "activation")}
    found = in_numpy(lrp.explain(fn, rules))(jnp.asarray(pack["input"]), target=pack["target"])
    assert abs(found.sum() / pack["R_out"].sum() - 1) > 0.1
