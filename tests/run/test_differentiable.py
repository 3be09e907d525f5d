"""Relevance is differentiable: grad, jvp and Hessian-vector products against finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxlrp as lrp
from tests.common import draw, layer_norm
from tests.numpy_jaxpr import in_numpy

# Differences over four points, as far as the step: its fourth power times a fifth derivative, which
# small denominators make as large as 1e12, against rounding at 2e-16 over the step.
STEP, TOLERANCE = 2e-5, 1e-7
POINTS = {2: -1 / 12, 1: 2 / 3, -1: -2 / 3, -2: 1 / 12}


def convolve(x, kernel):
    numbers = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=numbers)


def pool(x):
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")


def dense(p, x):
    return jax.nn.relu(x @ p["w"] + p["b"]) @ p["v"] + p["c"]


def conv(p, x):
    x = jax.nn.relu(convolve(x, p["k"]) * p["scale"] + p["b"])
    x = jax.nn.gelu(convolve(pool(x), p["l"]))
    return x.mean((1, 2)) @ p["v"]


def attention(p, x):
    y = layer_norm(x) * p["scale"] + p["shift"]
    q, k, v = (y @ p[name] for name in "qkv")
    x = x + jax.nn.softmax(q @ k.swapaxes(-1, -2) / 2.0) @ v @ p["o"]
    x = x + jax.nn.gelu(x @ p["up"] + p["b"]) @ p["down"]
    return (layer_norm(x) * p["scale"] + p["shift"]).mean(1) @ p["v_out"]


def lstm(p, x):
    def step(carry, x):
        h, c = carry
        i, f, g, o = jnp.split(x @ p["w"] + h @ p["u"] + p["b"], 4, -1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (h, c), h

    start = (jnp.zeros((len(x), 3)),) * 2
    (h, _), hs = lax.scan(step, start, x.swapaxes(0, 1))
    return (h + hs.mean(0)) @ p["v"]


def branching(p, x):
    def one(x):
        return jax.nn.relu(x @ p["w"] + p["b"])

    def other(x):
        return jnp.tanh(x @ p["u"])

    def some(x):  # the predicate is of the parameters, and of the input
        return lax.cond(x.sum() * p["b"].sum() > 0, one, other, x) @ p["v"]

    return lax.map(some, x)


DENSE = {"w": draw(4, 5), "b": draw(5), "v": draw(5, 3), "c": draw(3)}
CONV = {
    "k": draw(3, 3, 2, 3),
    "scale": draw(3, seed=1),
    "b": draw(3),
    "l": draw(3, 3, 3, 2),
    "v": draw(2, 3),
}
ATTENTION = {name: draw(4, 4, seed=i, scale=0.7) for i, name in enumerate("qkvo")} | {
    "scale": draw(4),
    "shift": draw(4, seed=1),
    "up": draw(4, 5),
    "b": draw(5),
    "down": draw(5, 4),
    "v_out": draw(4, 3),
}
LSTM = {"w": draw(4, 12), "u": draw(3, 12), "b": draw(12), "v": draw(3, 3)}
BRANCHING = {"w": draw(4, 5), "b": draw(5), "u": draw(4, 5, seed=1), "v": draw(5, 3)}
NETS = {
    "dense": (dense, DENSE, draw(2, 4, seed=9)),
    "conv": (conv, CONV, draw(2, 4, 4, 2, seed=9)),
    "attention": (attention, ATTENTION, draw(2, 3, 4, seed=9)),
    "lstm": (lstm, LSTM, draw(2, 4, 4, seed=9)),
    "branching": (branching, BRANCHING, draw(4, 4, seed=9)),
}

# A wide stabiliser, so that its own derivative is seen.
RULES = {
    "epsilon": lrp.Epsilon(0.1),
    "relative": lrp.Epsilon(0.1, relative=True),
    "distribute": lrp.Epsilon(bias="distribute"),
    "zplus": lrp.RuleMap({"dense": lrp.ZPlus(), "conv": lrp.ZPlus()}),
    "alpha_beta": lrp.composites.epsilon_alpha2_beta1(),
    "gamma": lrp.RuleMap({"dense": lrp.Gamma(0.3), "conv": lrp.Gamma(0.3)}),
    "flat": lrp.composites.epsilon_plus_flat(),
    "wsquare": lrp.composites.deep_taylor(),
    "zbox": lrp.composites.epsilon_gamma_box(low=-4.0, high=4.0),
    "attn": lrp.composites.attn_lrp(),
    "cp": lrp.composites.cp_lrp(),
    "lstm": lrp.composites.lstm_lrp_all(0.1),
    "lstm_half": lrp.composites.lstm_lrp_all(0.1, product=lrp.Uniform()),
    "lstm_prop": lrp.composites.lstm_lrp_all(0.1, product=lrp.Proportional(epsilon=0.1)),
}
CASES = [
    *(("dense", rules) for rules in list(RULES)[:9]),
    *(("conv", rules) for rules in ("alpha_beta", "zbox")),
    *(("attention", rules) for rules in ("attn", "cp")),
    *(("lstm", rules) for rules in ("lstm", "lstm_prop")),
    ("branching", "zplus"),
]


def dot(a, b):
    return sum(jnp.vdot(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def directions(at):
    """One along the parameters alone, one along the input alone, if there is one."""
    leaves, tree = jax.tree.flatten(at)
    full = jax.tree.unflatten(tree, [draw(*np.shape(a), seed=i) for i, a in enumerate(leaves)])
    zero = jax.tree.map(jnp.zeros_like, at)
    if len(at) == 1:
        return {"parameters": full}
    return {"parameters": (full[0], zero[1]), "input": (zero[0], full[1])}


def check(loss, at):
    """grad, jvp and jvp of grad of `loss(at)` against differences of `loss` and of grad."""

    def derivatives(at, along):
        return jax.jvp(jax.value_and_grad(loss), (at,), (along,))

    run = in_numpy(derivatives)

    def difference(at, along):
        parts = [
            jax.tree.map(
                lambda y, w=w: w / STEP * y,
                run(jax.tree.map(lambda a, d, s=s: a + s * STEP * d, at, along), along)[0],
            )
            for s, w in POINTS.items()
        ]
        return jax.tree.map(lambda *ys: sum(ys), *parts)

    for what, along in directions(at).items():
        (_, gradient), (slope, second) = run(at, along)
        wanted, wanted_second = difference(at, along)
        assert abs(wanted) > 1e-3, "a derivative that vanishes tests nothing"
        np.testing.assert_allclose(dot(gradient, along), wanted, rtol=TOLERANCE, err_msg=what)
        np.testing.assert_allclose(slope, wanted, rtol=TOLERANCE, err_msg=what)
        error = jax.tree.map(jnp.subtract, second, wanted_second)
        size = np.sqrt(dot(wanted_second, wanted_second))
        assert size > 1e-3, "a second derivative that vanishes tests nothing"
        assert np.sqrt(dot(error, error)) <= TOLERANCE * size, what


@pytest.mark.parametrize(("net", "rules"), CASES, ids=["-".join(case) for case in CASES])
def test_derivatives_are_those_of_finite_differences(net, rules):
    fn, params, x = NETS[net]
    explain = lrp.explain(fn, RULES[rules], argnums=1)
    weights = draw(*x.shape, seed=5)

    def loss(at):
        return jnp.vdot(weights, explain(*at, target=1))

    check(loss, (params, x))


@pytest.mark.parametrize(("net", "rules"), [("conv", "flat"), ("lstm", "lstm")], ids=lambda i: i)
def test_forward_and_backward_derivatives_of_the_whole_map_agree(net, rules):
    fn, params, x = NETS[net]
    relevance = lambda p, x: lrp.explain(fn, RULES[rules], argnums=1)(p, x, target=1)  # noqa: E731
    along = directions((params, x))["parameters"]
    tangent = in_numpy(lambda: jax.jvp(relevance, (params, x), along)[1])()
    weights = draw(*x.shape, seed=5)
    gradient = in_numpy(jax.grad(lambda at: jnp.vdot(weights, relevance(*at))))((params, x))
    np.testing.assert_allclose(jnp.vdot(weights, tangent), dot(gradient, along), rtol=1e-10)


def test_derivatives_through_the_relevance_of_embeddings():
    tokens = jnp.array([[0, 2, 2], [3, 1, 0]])
    params = {"table": draw(5, 4), "places": draw(3, 4, seed=2), **ATTENTION}
    weights = draw(2, 3, 4, seed=5)

    def fn(p, tokens):
        return attention(p, p["table"][tokens] + p["places"])

    explain = lrp.explain(fn, lrp.composites.attn_lrp(), wrt="embed")

    def loss(at):
        found = explain(*at, tokens, target=1)
        assert len(found) == 2
        return sum(jnp.vdot(weights + i, found[name]) for i, name in enumerate(sorted(found)))

    check(loss, (params,))
    (gradient,) = in_numpy(jax.grad(loss))((params,))
    np.testing.assert_array_equal(jnp.abs(gradient["table"]).max(1) > 0, [1, 1, 1, 1, 0])
