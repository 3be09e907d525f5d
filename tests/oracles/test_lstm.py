"""LSTMs under LRP-all: the reference of the lstm pack, scanned, unrolled and as Flax writes it."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax

import jaxlrp as lrp
from tests import networks
from tests.compare import assert_close
from tests.numpy_jaxpr import in_numpy

CASES = ["uni", "bidir", "uni_nobias", "bidir_nobias"]
EPSILONS = {"eps1e-3": 1e-3, "eps1e-12": 1e-12}
HIDDEN = 8


def cell(p, carry, x):
    """One step as it stands in the textbook; the scopes name what `layers=` asks for."""
    h, c = carry

    def gate(name):
        z = x @ p[f"i{name}"]["kernel"] + h @ p[f"h{name}"]["kernel"]
        return z + p[f"h{name}"]["bias"] if "bias" in p[f"h{name}"] else z

    i, f, g, o = jax.nn.sigmoid(gate("i")), jax.nn.sigmoid(gate("f")), gate("g"), gate("o")
    with jax.named_scope("c"):
        c = f * c + i * jnp.tanh(g)
    with jax.named_scope("h"):
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
    return (h, c), h


def scanned(p, x):
    start = (jnp.zeros((len(x), HIDDEN)),) * 2
    (h, _), _ = lax.scan(functools.partial(cell, p), start, x.swapaxes(0, 1))
    return h


def unrolled(p, x):
    carry = (jnp.zeros((len(x), HIDDEN)),) * 2
    for t in range(x.shape[1]):
        carry, _ = cell(p, carry, x[:, t])
    return carry[0]


class Cell(nn.Module):
    """Flax's own LSTMCell under Flax's own scan."""

    @nn.compact
    def __call__(self, x):
        dtypes = {"dtype": jnp.float64, "param_dtype": jnp.float64}
        step = nn.scan(
            nn.LSTMCell, variable_broadcast="params", split_rngs={"params": False}, in_axes=1
        )(HIDDEN, name="cell", **dtypes)
        start = (jnp.zeros((len(x), HIDDEN), jnp.float64),) * 2
        (_, h), _ = step(start, x)
        return h


def flax(p, x):
    params = {k: {**v} for k, v in p.items()}
    for name in ("hi", "hf", "hg", "ho"):
        params[name].setdefault("bias", jnp.zeros(HIDDEN))
    return Cell().apply({"params": {"cell": params}}, x)


WRITTEN = {"scan": scanned, "unrolled": unrolled, "flax": flax}


@functools.cache
def load(case):
    pack = networks.load("lstm")
    arrays = {k.removeprefix(f"{case}/"): v for k, v in pack.items() if k.startswith(f"{case}/")}
    return arrays, networks.tree(arrays, "params/")


def network(rnn, params, x):
    h = rnn(params["fwd"], x)
    if "bwd" in params:
        h = jnp.concatenate([h, rnn(params["bwd"], x[:, ::-1])], -1)
    z = h @ params["out"]["kernel"]
    return z + params["out"]["bias"] if "bias" in params["out"] else z


# Unrolled, the first sums have one active summand and are no sums, so that a large epsilon stands
# elsewhere than in the reference.
SPELLED = [
    (written, epsilon)
    for written in WRITTEN
    for epsilon in EPSILONS
    if (written, epsilon) != ("unrolled", "eps1e-3")
]


@pytest.mark.parametrize(("written", "epsilon"), SPELLED)
@pytest.mark.parametrize("case", CASES)
def test_input(case, epsilon, written):
    pack, params = load(case)
    fn = functools.partial(network, WRITTEN[written], params)
    np.testing.assert_allclose(in_numpy(fn)(pack["input"]), pack["logits"], rtol=1e-10)
    explain = lrp.explain(fn, lrp.composites.lstm_lrp_all(EPSILONS[epsilon]))
    run = jax.jit if written == "scan" else in_numpy
    relevance = run(explain)(jnp.asarray(pack["input"]), target=pack["target"])
    assert_close(relevance, pack[f"{epsilon}/input"], 1e-8)


@pytest.mark.parametrize("epsilon", EPSILONS)
def test_hidden_states_come_with_the_scan_axis_first(epsilon):
    pack, params = load("uni")
    fn = functools.partial(network, scanned, params)
    rules = lrp.composites.lstm_lrp_all(EPSILONS[epsilon])
    plan = lrp.plan(fn, rules)(pack["input"])
    (c,) = (y.name for y in plan.layers if y.name == "c/add")
    (h,) = (y.name for y in plan.layers if y.name == "h/product")
    explain = in_numpy(lrp.explain(fn, rules, layers=[c, h]))
    _, layers = explain(pack["input"], target=pack["target"])
    assert layers[c].shape == (6, 2, HIDDEN)
    assert_close(layers[c].swapaxes(0, 1), pack[f"{epsilon}/layer/fwd/c"], 1e-8)
    assert_close(layers[h].swapaxes(0, 1), pack[f"{epsilon}/layer/fwd/h"], 1e-8)


@pytest.mark.parametrize("case", ["uni_nobias", "bidir_nobias"])
def test_conserves_without_biases_and_epsilon(case):
    pack, params = load(case)
    fn = functools.partial(network, scanned, params)
    ledger = in_numpy(lrp.ledger(fn, lrp.composites.lstm_lrp_all(0.0)))
    found = ledger(pack["input"], target=pack["target"])
    np.testing.assert_allclose(found.conservation, 1.0, atol=1e-10)


@pytest.mark.parametrize("written", WRITTEN)
def test_every_gate_is_found_by_its_bounds(written):
    pack, params = load("uni")
    fn = functools.partial(network, WRITTEN[written], params)
    plan = lrp.plan(fn, lrp.composites.lstm_lrp_all())(pack["input"])
    products = [y for y in plan.layers if y.kind == "product"]
    # at the first step of an unrolled cell f * c is no product: c is a constant 0
    assert len(products) == (3 * 6 - 1 if written == "unrolled" else 3)
    assert all("lies in [0, 1]" in y.why for y in products)


def by_hand(rule, a, b, R):
    if rule == "half":
        return R / 2, R / 2
    if rule == "prop":
        return a / (a + b) * R, b / (a + b) * R
    return abs(a) / (abs(a) + abs(b)) * R, abs(b) / (abs(a) + abs(b)) * R


@pytest.mark.parametrize("rule", ["half", "prop", "abs"])
def test_variants_for_products(rule):
    product = {
        "half": lrp.Uniform(),
        "prop": lrp.Proportional(epsilon=0.0),
        "abs": lrp.Proportional(absolute=True, epsilon=0.0),
    }[rule]
    a, b = jnp.array([[0.5, -2.0]]), jnp.array([[3.0, 0.25]])
    rules = lrp.composites.lstm_lrp_all(0.0, product=product)
    back = lrp.relevance_vjp(lambda a, b: a * b, rules, a, b)[1]
    R = jnp.array([[0.7, -1.1]])
    for found, want in zip(back(R), by_hand(rule, a, b, R), strict=True):
        np.testing.assert_allclose(found, want, rtol=1e-12)
