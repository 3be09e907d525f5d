"""Numbers that are added before or after an activation are no biases, whatever stands between."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxlrp as lrp
from tests.compare import assert_close
from tests.numpy_jaxpr import in_numpy

DRAW = np.random.default_rng(0)
X = DRAW.normal(size=(3, 4))
W, U, V = DRAW.normal(size=(4, 4)), DRAW.normal(size=(4, 4)), DRAW.normal(size=(2, 3))
sigmoid = jax.nn.sigmoid

# What moves elements, written after and before an elementwise function.
MOVED = {
    "a slice": lambda q: q[:, :2],
    "a split": lambda q: jnp.split(q, 2, -1)[1],
    "a transpose": lambda q: q.T[:2].T,
    "a flip": lambda q: q[:, ::-1][:, 2:],
    "a gather": lambda q: q[:, jnp.array([3, 1])],
    "a reshape": lambda q: q.reshape(6, 2)[:3],
    "a stack": lambda q: jnp.stack([q[:, 0], q[:, 2]], -1),
    "a concatenation": lambda q: jnp.concatenate([q[:, 3:], q[:, :1]], -1),
}
SHIFTED = {
    "1 - q": lambda move, h: (1 - move(sigmoid(h)), 1 - sigmoid(move(h))),
    "tanh": lambda move, h: (2 * move(sigmoid(2 * h)) - 1, jnp.tanh(move(h))),
    "softplus": lambda move, h: (
        move(jax.nn.softplus(h)) - np.log(2),
        jax.nn.softplus(move(h)) - np.log(2),
    ),
    "a relu after": lambda move, h: (jax.nn.relu(move(h + 3)), jax.nn.relu(move(h) + 3)),
}
AFTER = {
    "a product": lambda q, h: q * h[:, 2:],
    "a layer": lambda q, h: q @ V,
    "a scaled layer": lambda q, h: (q * V[:, 0]) @ V,
    "the output": lambda q, h: q,
}


@pytest.mark.parametrize("move", MOVED)
@pytest.mark.parametrize("shifted", SHIFTED)
@pytest.mark.parametrize("after", AFTER)
def test_a_written_shift_beside_an_activation_is_no_bias(shifted, move, after):
    def network(which):
        def fn(x):
            h = x @ W
            return AFTER[after](SHIFTED[shifted](MOVED[move], h)[which], h)

        return fn

    for rules in (lrp.composites.lrp_zero(), lrp.composites.cp_lrp()):
        a, b = (in_numpy(lrp.explain(network(i), rules))(X) for i in range(2))
        assert_close(a, b, 1e-9)


def test_a_gate_and_the_rest_of_it():
    """The number in 1 - t takes nothing, where t is read beside it."""

    def fn(x):
        t, h = sigmoid(x @ W), x @ U
        return jnp.concatenate([t * h, (1 - t) * h], -1)

    def apart(x):
        t, h = x @ W, x @ U
        return jnp.concatenate([sigmoid(t) * h, sigmoid(-t) * h], -1)

    rules = lrp.composites.lrp_zero()
    assert "affine" not in [layer.kind for layer in lrp.plan(fn, rules)(X).layers]
    assert_close(in_numpy(lrp.explain(fn, rules))(X), in_numpy(lrp.explain(apart, rules))(X), 1e-9)


def gru(gates, x):
    h = jnp.zeros((2, 2))
    for t in range(3):
        a, c = x[:, t] @ W, h @ V @ U[:3]
        r, z = gates(a + c)
        n = jnp.tanh(x[:, t] @ U[:, :2] + r * (h @ U[:2, :2]))
        h = (1 - z) * n + z * h
    return h


def test_gates_of_a_gru_that_are_split_after_their_sigmoid():
    x = DRAW.normal(size=(2, 3, 4))
    for rules in (lrp.composites.lrp_zero(), lrp.composites.lstm_lrp_all(), lrp.ZPlus()):
        first = in_numpy(
            lrp.explain(lambda x: gru(lambda g: jnp.split(sigmoid(g), 2, -1), x), rules)
        )(x)
        last = in_numpy(
            lrp.explain(lambda x: gru(lambda g: map(sigmoid, jnp.split(g, 2, -1)), x), rules)
        )(x)
        assert_close(first, last, 1e-9)


ZERO = {
    "zeros": lambda v, u: v + jnp.zeros_like(u) * u,
    "zeros first": lambda v, u: 0.0 * u + v,
    "subtracted": lambda v, u: v - u * np.zeros((3, 4)),
    "a product with zeros": lambda v, u: jnp.zeros((3, 4)) @ U * u + v,
}


@pytest.mark.parametrize("rule", [lrp.ZPlus(), lrp.AlphaBeta(2.0, 1.0), lrp.Gamma(0.25)], ids=str)
@pytest.mark.parametrize("zero", ZERO)
def test_a_term_that_is_zero_is_not_there(zero, rule):
    def network(join):
        return lambda x: join(jnp.tanh(x @ W), x @ U) @ U

    plain = in_numpy(lrp.explain(network(lambda v, u: v), rule))(X)
    assert_close(in_numpy(lrp.explain(network(ZERO[zero]), rule))(X), plain, 1e-12)


@pytest.mark.parametrize("rule", [lrp.ZPlus(), lrp.AlphaBeta(2.0, 1.0), lrp.Epsilon(0.0)], ids=str)
def test_an_lstm_unrolled_from_zeros(rule):
    wi, wh = DRAW.normal(size=(3, 16)), DRAW.normal(size=(4, 16))
    x = DRAW.normal(size=(3, 2, 3))

    def step(carry, x):
        h, c = carry
        i, f, o, g = jnp.split(x @ wi + h @ wh, 4, -1)
        c = sigmoid(f) * c + sigmoid(i) * jnp.tanh(g)
        h = sigmoid(o) * jnp.tanh(c)
        return (h, c), None

    def unrolled(x):
        carry = (jnp.zeros((2, 4)),) * 2
        for t in range(3):
            carry, _ = step(carry, x[t])
        return carry[0]

    def scanned(x):
        return lax.scan(step, (jnp.zeros((2, 4)),) * 2, x)[0][0]

    assert_close(
        in_numpy(lrp.explain(unrolled, rule))(x), in_numpy(lrp.explain(scanned, rule))(x), 1e-5
    )
