"""A change of sign that cancels one within a layer is not there, wherever it stands."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxlrp as lrp
from tests.compare import assert_close
from tests.numpy_jaxpr import in_numpy

jax.config.update("jax_enable_x64", True)

RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 4))
W, V, B = RNG.normal(size=(4, 4)), RNG.normal(size=(4, 4)), RNG.normal(size=4)
S = RNG.uniform(0.5, 2.0, size=4)
P = {"w": W, "v": V, "b": B, "s": S}
RULES = {
    "epsilon": lrp.Epsilon(0.1),
    "zplus": lrp.ZPlus(),
    "alpha beta": lrp.AlphaBeta(2.0, 1.0),
    "gamma": lrp.Gamma(0.25),
}


def leaky(x, p):
    return jax.nn.leaky_relu(x @ p["v"], 0.1)


def hidden(x, p):
    return jnp.tanh(x @ p["v"])


def _shifted(source):
    """A scale and a shift of a value that is no linear layer's, or between two of these."""
    return [
        lambda x, p: jax.nn.sigmoid(source(x, p) * p["s"] + p["b"]),
        lambda x, p: jax.nn.sigmoid(-(-source(x, p) * p["s"] - p["b"])),
        lambda x, p: jax.nn.sigmoid(-((-source(x, p)) * p["s"] - p["b"])),
        lambda x, p: jax.nn.sigmoid(-(source(x, p) * -p["s"] - p["b"])),
        lambda x, p: jax.nn.sigmoid(-(-p["b"] - source(x, p) * p["s"])),
        lambda x, p: jax.nn.sigmoid(-(-source(x, p) * p["s"] + -p["b"])),
        lambda x, p: jax.nn.sigmoid(-(-p["b"] + source(x, p) * -p["s"])),
        lambda x, p: jax.nn.sigmoid((-source(x, p) * p["s"] - p["b"]) * -1.0),
        lambda x, p: jax.nn.sigmoid((-source(x, p) * p["s"] - p["b"]) / -2.0 * 2.0),
        lambda x, p: jax.nn.sigmoid(p["b"] - source(x, p) * -p["s"]),
        lambda x, p: jax.nn.sigmoid(
            -(-source(x, p)[:, ::-1] * p["s"][::-1] - p["b"][::-1])[:, ::-1]
        ),
    ]


# The first of each is the plain spelling.
ALIKE = {
    "a scale and shift of the input": _shifted(lambda x, p: x),
    "a scale and shift of an activation": _shifted(hidden),
    "a scale and shift of a mean": _shifted(
        lambda x, p: hidden(x, p).reshape(2, 2, 2).mean(2).repeat(2, 1)
    ),
    "a scale and shift of a sum": _shifted(lambda x, p: hidden(x, p) + x),
    "a scale and shift of a product": _shifted(lambda x, p: jax.nn.sigmoid(x @ p["v"]) * x),
    "a scale and shift of a layer": _shifted(lambda x, p: x @ p["w"]),
    "a term": [
        lambda x, p: x + hidden(x, p) @ p["w"],
        lambda x, p: x - hidden(x, p) @ -p["w"],
        lambda x, p: -(hidden(x, p) @ -p["w"]) + x,
        lambda x, p: x - (-hidden(x, p)) @ p["w"],
        lambda x, p: x - (hidden(x, p)[:, :, None] * -p["w"]).sum(1),
        lambda x, p: -((hidden(x, p) @ -p["w"]) - x),
    ],
    "a term with a bias": [
        lambda x, p: x + (hidden(x, p) @ p["w"] + p["b"]),
        lambda x, p: x - (hidden(x, p) @ -p["w"] - p["b"]),
        lambda x, p: x + (p["b"] - hidden(x, p) @ -p["w"]),
        lambda x, p: x - hidden(x, p) @ -p["w"] + p["b"],
        lambda x, p: (x + p["b"]) - hidden(x, p) @ -p["w"],
    ],
    "a term with a bias, the sum scaled": [
        lambda x, p: (x + (leaky(x, p) @ p["w"] + p["b"])) * p["s"] + p["b"],
        lambda x, p: (x + (-(leaky(x, p) @ -p["w"]) + p["b"])) * p["s"] + p["b"],
        lambda x, p: (x + (p["b"] - (leaky(x, p) @ -p["w"]))) * p["s"] + p["b"],
        lambda x, p: (x - ((leaky(x, p) @ -p["w"]) - p["b"])) * p["s"] + p["b"],
    ],
    "a layer that reads a quotient": [
        lambda x, p: (1 / (1 + jnp.exp(-x))) @ p["w"] + p["b"],
        lambda x, p: -(-((1 / (1 + jnp.exp(-x))) @ p["w"]) - p["b"]),
        lambda x, p: (
            -(
                -jnp.concatenate([(1 / (1 + jnp.exp(-x))) @ v for v in jnp.split(p["w"], 2, 1)], 1)
                - p["b"]
            )
        ),
    ],
    "parts": [
        lambda x, p: x @ p["w"],
        lambda x, p: -jnp.concatenate([-x @ p["w"][:, :1], -x @ p["w"][:, 1:]], -1),
        lambda x, p: -jnp.concatenate([x @ -p["w"][:, :1], x @ -p["w"][:, 1:]], -1),
        lambda x, p: (
            -jnp.stack([-x @ p["w"][:, 0], x @ -p["w"][:, 1], *(x @ p["w"][:, 2:] * -1).T]).T
        ),
    ],
    "a part": [
        lambda x, p: jnp.concatenate([x @ p["w"], -(hidden(x, p) @ p["v"])], -1),
        lambda x, p: -jnp.concatenate([-x @ p["w"], hidden(x, p) @ p["v"]], -1),
        lambda x, p: jnp.concatenate([x @ -p["w"], hidden(x, p) @ p["v"]], -1) * -1.0,
    ],
    "two terms": [
        lambda x, p: x @ p["v"] + hidden(x, p) @ p["w"],
        lambda x, p: x @ p["v"] - hidden(x, p) @ -p["w"],
        lambda x, p: -(x @ -p["v"]) - hidden(x, p) @ -p["w"],
        lambda x, p: -(x @ -p["v"] + hidden(x, p) @ -p["w"]),
        lambda x, p: -(-(x @ p["v"]) + hidden(x, p) @ -p["w"]),
    ],
    "three terms": [
        lambda x, p: x @ p["v"] + hidden(x, p) @ p["w"] + x,
        lambda x, p: -(x @ -p["v"] + hidden(x, p) @ -p["w"] - x),
        lambda x, p: -((x @ -p["v"] - x) + hidden(x, p) @ -p["w"]),
        lambda x, p: x - (x @ -p["v"]) - hidden(x, p) @ -p["w"],
    ],
    "behind a move": [
        lambda x, p: x + (hidden(x, p) @ p["w"])[:, ::-1],
        lambda x, p: x - (hidden(x, p) @ -p["w"])[:, ::-1],
        lambda x, p: x - (hidden(x, p) @ -p["w"])[:, ::-1] - 0.0,
    ],
    "behind a number": [
        lambda x, p: x + 0.5 * (hidden(x, p) @ p["w"]),
        lambda x, p: x - 0.5 * (hidden(x, p) @ -p["w"]),
        lambda x, p: x - (hidden(x, p) @ -p["w"]) / 2,
    ],
    "read twice": [
        lambda x, p: (lambda z: (x + z) * z)(hidden(x, p) @ p["w"]),
        lambda x, p: (lambda z: (x - z) * -z)(hidden(x, p) @ -p["w"]),
    ],
    "in a loop": [
        lambda x, p: lax.scan(lambda c, _: (c + jnp.tanh(c) @ p["w"], None), x, None, 3)[0],
        lambda x, p: lax.scan(lambda c, _: (c - jnp.tanh(c) @ -p["w"], None), x, None, 3)[0],
        lambda x, p: lax.fori_loop(0, 3, lambda i, c: c - jnp.tanh(c) @ -p["w"], x),
    ],
    "behind a function that falls": [
        lambda x, p: lax.erfc(x @ p["v"]) @ p["w"],
        lambda x, p: (1 - lax.erf(x @ p["v"])) @ p["w"],
        lambda x, p: -(lax.erfc(x @ p["v"]) @ -p["w"]),
        lambda x, p: -((1 - lax.erf(x @ p["v"])) @ -p["w"]),
        lambda x, p: -((-lax.erfc(x @ p["v"])) @ p["w"]),
        lambda x, p: (-lax.erfc(x @ p["v"])) @ -p["w"],
    ],
    "a sign behind a function that falls": [
        lambda x, p: lax.erfc(x @ p["v"]) @ -p["w"],
        lambda x, p: -(lax.erfc(x @ p["v"]) @ p["w"]),
        lambda x, p: -((1 - lax.erf(x @ p["v"])) @ p["w"]),
    ],
    "a term behind a function that falls": [
        lambda x, p: x + lax.erfc(x @ p["v"]) @ p["w"],
        lambda x, p: x - lax.erfc(x @ p["v"]) @ -p["w"],
        lambda x, p: x - (1 - lax.erf(x @ p["v"])) @ -p["w"],
    ],
    "two layers": [
        lambda x, p: jax.nn.silu((x @ p["v"]) @ p["w"]),
        lambda x, p: jax.nn.silu(-((x @ p["v"]) @ -p["w"])),
        lambda x, p: jax.nn.silu((-(x @ -p["v"])) @ p["w"]),
        lambda x, p: jax.nn.silu(-((-(x @ -p["v"])) @ -p["w"])),
    ],
    "behind an odd function": [
        lambda x, p: jnp.tanh(x @ p["v"]) @ p["w"],
        lambda x, p: -(jnp.tanh(-(x @ p["v"])) @ p["w"]),
        lambda x, p: -(jnp.tanh(x @ p["v"]) @ -p["w"]),
    ],
}


@pytest.mark.parametrize("rules", RULES.values(), ids=RULES.keys())
@pytest.mark.parametrize("name", ALIKE)
def test_signs_that_cancel(name, rules):
    plain, *others = ALIKE[name]
    expected = in_numpy(lrp.explain(plain, rules))(X, P)
    for number, other in enumerate(others, 1):
        found = in_numpy(lrp.explain(other, rules))(X, P)
        np.testing.assert_allclose(
            found, expected, rtol=1e-9, atol=1e-11, err_msg=f"spelling {number}"
        )


@pytest.mark.parametrize("name", ALIKE)
def test_values_stay_those_of_the_network(name):
    for fn in ALIKE[name]:
        value, _ = in_numpy(lrp.value_and_relevance(fn, RULES["zplus"]))(X, P)
        np.testing.assert_allclose(value, in_numpy(fn)(X, P), rtol=1e-14, atol=1e-15)


def test_a_relu_by_a_minimum_keeps_its_sign_in_products():
    """In x s + (b - mean s) the sign of -min(-x, 0) would leave the product with s."""

    def spread(relu):
        def fn(x, p):
            h = relu(jnp.concatenate([x, x @ p["w"]], -1))
            s = lax.rsqrt(h.var(-1, keepdims=True) + 1e-3)
            return h * s + (p["b"].repeat(2) - h.mean(-1, keepdims=True) * s)

        return fn

    for rules in RULES.values():
        expected = in_numpy(lrp.explain(spread(jax.nn.relu), rules))(X, P)
        found = in_numpy(lrp.explain(spread(lambda h: -jnp.minimum(-h, 0.0)), rules))(X, P)
        assert_close(found, expected)


@pytest.mark.parametrize(
    "gate", [jax.nn.sigmoid, lambda h: 1 - jax.nn.sigmoid(h), lambda h: jax.nn.sigmoid(-h)]
)
def test_a_gate_keeps_its_bounds(gate):
    """The sign leaves a product with a gate, which would not lie in [0, 1] with it."""

    def fn(sign):
        return lambda x, p: sign(gate(x @ p["v"]), x @ p["w"])

    rules = lrp.composites.cp_lrp()
    expected = in_numpy(lrp.explain(fn(lambda g, h: -(g * h)), rules))(X, P)
    (layer,) = lrp.plan(fn(lambda g, h: (-g) * h), rules)(X, P).select("product")
    assert "lies in [0, 1]" in layer.why
    assert_close(in_numpy(lrp.explain(fn(lambda g, h: (-g) * h), rules))(X, P), expected)


def test_a_shifted_value_with_two_readers_is_one_layer():
    """Its opposite is that layer with a sign, not a second one with its own scale and shift."""

    def fn(turned):
        def both(x, p):
            s = -jnp.tanh(x) * p["s"] - p["b"]
            return jax.nn.sigmoid(turned(s)) @ p["w"] + jax.nn.sigmoid(s) @ p["v"]

        return both

    (layer,) = lrp.plan(fn(lambda s: -s), lrp.ZPlus())(X, P).select("affine")
    assert layer.name
    expected = in_numpy(lrp.explain(fn(lambda s: s * -1.0), lrp.ZPlus()))(X, P)
    assert_close(in_numpy(lrp.explain(fn(lambda s: -s), lrp.ZPlus()))(X, P), expected)


@pytest.mark.parametrize("output", [True, False])
def test_what_reads_a_shared_value_with_two_signs_is_a_function_of_it(output):
    def fn(relu):
        def both(x):
            h = relu(x)
            leaky = jax.nn.relu(h) - 0.1 * jax.nn.relu(-h)
            return (h, leaky) if output else (h + leaky, leaky)

        return lrp.explain(both, {"add": lrp.Epsilon(0.1)})

    expected = fn(jax.nn.relu)(X)
    assert_close(fn(lambda x: -jnp.minimum(-x, 0.0))(X), expected)
