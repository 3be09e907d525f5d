"""Integers that carry a value or choose, casts and roundings, detached terms in sums."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxlrp as lrp
from tests.compare import assert_close
from tests.numpy_jaxpr import in_numpy

E0 = lrp.Epsilon(0.0)
RULES = [
    E0,
    lrp.Epsilon(0.1),
    lrp.ZPlus(),
    lrp.Gamma(0.3),
    lrp.AlphaBeta(),
    lrp.Flat(),
    lrp.WSquare(),
    lrp.ZBox(-3.0, 3.0),
    lrp.Epsilon(0.1, bias="distribute"),
]
rng = np.random.default_rng(0)
WHOLE = jnp.asarray(rng.integers(-100, 100, (4, 3)), jnp.int8)
BIAS = jnp.asarray(rng.integers(-300, 300, (3,)), jnp.int32)
X = jnp.asarray(rng.normal(size=(2, 4)) * 3)
S = 0.05
relu = jax.nn.relu


def quantised(x):
    return jnp.clip(jnp.round(x / S), -127, 127).astype(jnp.int8)


def product_of_integers(x):
    z = lax.dot(quantised(x), WHOLE, preferred_element_type=jnp.int32) + BIAS
    return z.astype(x.dtype) * S


def product_of_floats(x):
    q = jnp.clip(jnp.round(x / S), -127, 127)
    return (q @ WHOLE.astype(x.dtype) + BIAS.astype(x.dtype)) * S


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_an_integer_product_is_a_dense_layer(rule):
    rules = {"dense": rule}
    kinds = [y.kind for y in lrp.plan(product_of_integers, rules)(X).layers]
    assert kinds.count("dense") == 1
    # In one spelling the last scale is the layer's, in the other a layer's own behind a cast: two
    # stabilisers of 1e-6 of outputs of some hundreds.
    found, expected = (
        in_numpy(lrp.explain(f, rules))(X) for f in (product_of_integers, product_of_floats)
    )
    assert_close(found, expected, 1e-8)


def test_relevance_is_that_of_the_layer_at_the_rounded_number():
    w = WHOLE.astype(X.dtype)
    rounded = S * jnp.round(X / S)
    expected = rounded * (jnp.ones((2, 3)) @ w.T)

    def fn(x):
        q = jnp.round(x / lax.stop_gradient(jnp.full((), S))).astype(jnp.int32)
        return lax.dot(q, WHOLE.astype(jnp.int32)).astype(x.dtype) * S

    assert_close(in_numpy(lrp.explain(fn, E0))(X), expected)


def test_sums_above_24_bits_are_exact(x32):
    w = jnp.asarray([[9176263, -3], [5, 7654321]], jnp.int32)
    x = jnp.asarray([3.2, 5.9], jnp.float32)

    def fn(x):
        z = lax.dot(x.astype(jnp.int32), w)
        return jnp.stack([lax.rem(z, 1000).astype(x.dtype), (z & 0).astype(x.dtype)])[0]

    def kept(x):
        return lax.rem(lax.dot(x.astype(jnp.int32), w), 1000).astype(x.dtype)

    value, R = in_numpy(lrp.value_and_relevance(kept, E0))(x)
    assert value.tolist() == kept(x).tolist() == fn(x).tolist()
    assert value.tolist() == [(3 * 9176263 + 25) % 1000, (-9 + 5 * 7654321) % 1000]
    assert np.isfinite(R).all()


def wrapped(how):
    def scanned(x):
        def step(c, w):
            return lax.dot(c, w), c.astype(jnp.int16)

        w = jnp.broadcast_to(WHOLE.astype(jnp.int32)[:3], (2, 3, 3))
        z, ys = lax.scan(step, quantised(x)[:, :3].astype(jnp.int32), w)
        return z.astype(x.dtype) * 1e-3 + ys.sum(0).astype(x.dtype)

    def unrolled(x):
        q = quantised(x)[:, :3].astype(jnp.int32)
        w = WHOLE.astype(jnp.int32)[:3]
        first = lax.dot(q, w)
        ys = jnp.stack([q.astype(jnp.int16), first.astype(jnp.int16)])
        return lax.dot(first, w).astype(x.dtype) * 1e-3 + ys.sum(0).astype(x.dtype)

    def branched(x):
        q = quantised(x)
        q = lax.cond(x[0, 0] > 1e9, lambda q: q * 2, lambda q: q + 0, q)
        z = lax.dot(q, WHOLE, preferred_element_type=jnp.int32) + BIAS
        return z.astype(x.dtype) * S

    return {
        "jit": (jax.jit(product_of_integers), product_of_floats),
        "remat": (jax.checkpoint(product_of_integers), product_of_floats),
        "vmap": (jax.vmap(product_of_integers), product_of_floats),
        "cond": (branched, product_of_floats),
        "scan": (scanned, unrolled),
    }[how]


@pytest.mark.parametrize("how", ["jit", "remat", "vmap", "cond", "scan"])
def test_integers_through_calls_and_loops(how):
    fn, expected = wrapped(how)
    for rule in (E0, lrp.ZPlus(epsilon=0.0)):
        R = in_numpy(lrp.explain(fn, rule))(X)
        assert_close(R, in_numpy(lrp.explain(expected, rule))(X))
        assert_close(jax.jit(lrp.explain(fn, rule))(X), R)


@pytest.mark.parametrize(
    "move",
    [
        lambda q: q[:, ::-1],
        lambda q: jnp.concatenate([q, jnp.ones((2, 1), q.dtype)], 1)[:, 1:],
        lambda q: jnp.pad(q, ((0, 0), (1, 0)), constant_values=2)[:, :4],
        lambda q: jnp.take(q, jnp.array([0, 2, 2, 1]), 1),
        lambda q: jnp.where(jnp.array([True, False, True, True]), q, 5),
        lambda q: jnp.maximum(q, 0),
        lambda q: jnp.max(q.reshape(2, 2, 2), 1).repeat(2, 1),
        lambda q: jnp.cumsum(q, 1, dtype=q.dtype),
        lambda q: q * q,
        lambda q: q + q[:, ::-1],
        lambda q: q * q[:, ::-1],
        lambda q: jnp.sort(q, 1),
        lambda q: lax.top_k(q, 4)[0],
        lambda q: q.at[:, 1].add(3),
        lambda q: q.at[0].set(1),
        lambda q: lax.dynamic_slice(jnp.tile(q, (1, 2)), (0, 1), (2, 4)),
        lambda q: -q * 3 - 4,
        lambda q: jnp.abs(q),
    ],
)
def test_integers_pass_relevance_as_floats_do(move):
    """The same network with the rounded number as a float."""

    def fn(x, dtype):
        q = move(jnp.round(x / S).astype(dtype))
        return q.astype(x.dtype) @ WHOLE.astype(x.dtype)

    for rule in (E0, lrp.ZPlus()):
        found = in_numpy(lrp.explain(lambda x: fn(x, jnp.int32), rule))(X)
        assert_close(found, in_numpy(lrp.explain(lambda x: fn(x, x.dtype), rule))(X))


def test_division_of_integers_rounds():
    """What is left of 7 after // 2 has all relevance of it."""
    R = in_numpy(
        lrp.explain(lambda x: lax.div(x.astype(jnp.int32), jnp.int32(2)).astype(x.dtype), E0)
    )(jnp.array([7.4, -3.0]))
    np.testing.assert_allclose(R, [3.0, -1.0])


def test_probes_masks_and_accounts_of_integer_layers():
    fn = product_of_integers
    R, layers = in_numpy(lrp.explain(fn, E0, layers=["activation", "dense"]))(X)
    assert {str(v.dtype) for v in layers.values()} == {"float64"}
    q = next(v for k, v in layers.items() if v.shape == (2, 4))
    assert_close(q, R)
    name = lrp.plan(fn, E0)(X).select("activation")[-1].name
    mask = jnp.array([1.0, 0.0, 1.0, 0.0])
    assert_close(in_numpy(lrp.explain(fn, E0))(X, condition={name: mask}), R * mask)
    ledger = lrp.ledger(fn, E0)(X)
    assert "nan" not in str(ledger)


def test_a_value_that_is_an_argument_of_arithmetic_and_of_a_lookup():
    table = jnp.asarray(rng.normal(size=(9, 2)))

    def fn(x):
        i = jnp.round(x).astype(jnp.int32)
        return table[i] * i[:, None].astype(x.dtype)

    x = jnp.array([2.2, 3.7])
    found = lrp.plan(fn, E0)(x)
    R = in_numpy(lrp.explain(fn, E0))(x)
    assert_close(R, fn(x).sum(-1))
    assert "through integers at test_integers.py" in " ".join(y.why for y in found.layers)


@pytest.mark.parametrize(
    "choose",
    [
        lambda x: jnp.argmax(x, -1),
        lambda x: jnp.argsort(x, -1)[:, 0],
        lambda x: lax.top_k(x, 2)[1][:, 1],
        lambda x: jnp.clip(x[:, 0], 0, 3).astype(jnp.int32),
        lambda x: jnp.searchsorted(jnp.arange(3.0), x[:, 0]),
        lambda x: (x > 0).astype(jnp.int32).sum(-1) // 2,
    ],
)
def test_what_chooses_is_static_and_the_plan_says_so(choose):
    table = jnp.asarray(rng.normal(size=(5, 3)))

    def fn(x, held):
        i = lax.stop_gradient(choose(x)) if held else choose(x)
        return x[:, :3] * table[i]

    found = lrp.plan(lambda x: fn(x, False), E0)(X)
    assert "depends on the input through integers at test_integers.py" in str(found) + " ".join(
        y.why for y in found.layers
    )
    expected = X.at[:, 3].set(0) * jnp.pad(table[choose(X)], ((0, 0), (0, 1)))
    assert_close(in_numpy(lrp.explain(lambda x: fn(x, False), E0))(X), expected)


def test_a_place_is_no_value():
    """A product with it has one factor that relevance goes to."""

    def fn(x):
        return x * (1.0 + jnp.argmax(x, -1, keepdims=True))

    assert_close(in_numpy(lrp.explain(fn, E0))(X), fn(X))


@pytest.mark.parametrize(
    "bits",
    [
        lambda i: i & 3,
        lambda i: i | 1,
        lambda i: i ^ 5,
        lambda i: ~i,
        lambda i: i << 1,
        lambda i: i >> 1,
        lambda i: lax.population_count(i),
    ],
)
def test_bits_of_a_carried_value_are_an_error(bits):
    def fn(x):
        return bits(x.astype(jnp.int32)).astype(x.dtype) * 2.0

    with pytest.raises(lrp.UnsupportedPrimitiveError, match="Relevance must pass"):
        lrp.explain(fn, E0)(X)
    # As an index they choose.
    table = jnp.arange(8.0)
    in_numpy(lrp.explain(lambda x: x * table[bits(x.astype(jnp.int32)) & 7], E0))(X)


def test_bits_as_floats_are_an_error_too():
    def fn(x):
        i = lax.bitcast_convert_type(x.astype(jnp.float32), jnp.int32)
        return lax.bitcast_convert_type(i + 1, jnp.float32)

    with pytest.raises(lrp.UnsupportedPrimitiveError, match="bitcast_convert_type"):
        lrp.explain(fn, E0)(X)


# -- casts, roundings, straight through ----------------------------------------------------------

H = jnp.array([0.6, 1.3])


@pytest.mark.parametrize(
    "fn",
    [
        lambda x: jnp.round(relu(x)),
        lambda x: relu(x) + lax.stop_gradient(jnp.round(relu(x)) - relu(x)),
        lambda x: (lambda h: h + lax.stop_gradient(jnp.round(h) - h))(relu(x)),
        lambda x: (lambda h: lax.stop_gradient(jnp.round(h) - h) + h)(relu(x)),
        lambda x: (lambda h: h - lax.stop_gradient(h - jnp.round(h)))(relu(x)),
        lambda x: x + lax.stop_gradient(jnp.round(x) - x),
        lambda x: jnp.round(x).astype(jnp.int8).astype(x.dtype),
        lambda x: (x + 0.5).astype(jnp.int32).astype(x.dtype),
    ],
)
def test_a_rounded_number_passes_all_relevance(fn):
    R = in_numpy(lrp.explain(fn, E0))(H)
    np.testing.assert_allclose(R, [1.0, 1.0], atol=1e-12)


def test_a_round_after_a_layer():
    w = jnp.asarray(rng.normal(size=(2, 3)))
    v = jnp.asarray(rng.normal(size=(3, 2)))

    def straight(x):
        h = x @ w
        return (h + lax.stop_gradient(jnp.round(3 * h) / 3 - h)) @ v

    R = in_numpy(lrp.explain(straight, E0))(H)
    assert_close(R, in_numpy(lrp.explain(lambda x: (jnp.round(3 * (x @ w)) / 3) @ v, E0))(H))
    assert_close(R.sum(), straight(H).sum())


def test_a_cast_between_scales_ends_a_layer():
    w, s = jnp.asarray(rng.normal(size=(4, 3))), jnp.asarray(rng.normal(size=4) + 2)

    def whole(x):
        return x.astype(jnp.int32).astype(x.dtype)

    assert_close(in_numpy(lrp.explain(lambda x: whole(x * s) @ w, E0))(X), whole(X * s) * w.sum(1))
    z = X @ w
    found = in_numpy(lrp.explain(lambda x: whole(x @ w) * s[1:], E0))(X)
    assert_close(found, X * ((whole(z) * s[1:] / z) @ w.T))


def test_a_detached_term_takes_nothing():
    """A codebook beside a skip: the sum hands its relevance to the active term, and says so."""
    book = jnp.asarray(rng.normal(size=(5, 2)))

    def fn(x):
        nearest = book[jnp.argmin(((x - book) ** 2).sum(-1))]
        return x + lax.stop_gradient(nearest)

    assert_close(in_numpy(lrp.explain(fn, E0))(H), fn(H))
    why = " ".join(y.why for y in lrp.plan(fn, E0)(H).layers)
    assert "without being active" in why
    assert "through integers at test_integers.py" in why


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float8_e4m3fn", "float8_e5m2", "int8"])
def test_a_cast_inside_conserves(dtype):
    w = jnp.asarray(rng.normal(size=(4, 3)), jnp.float32)
    x = X.astype(jnp.float32)

    def fn(x):
        h = relu(x.astype(dtype).astype(jnp.float32) @ w)
        return h.astype(dtype).astype(jnp.float32) @ w[:3]

    value, R = lrp.value_and_relevance(fn, lrp.composites.lrp_zero())(x)
    assert value.tolist() == fn(x).tolist()  # to the last bit
    np.testing.assert_allclose(R.sum(), value.sum(), rtol=1e-5)
    rounded = x.astype(dtype).astype(jnp.float32)
    if dtype != "int8":
        assert_close(R, rounded * jax.grad(lambda x: (relu(x @ w) @ w[:3]).sum())(rounded), 0.2)


def test_reduced_precision_passes_all_relevance():
    def fn(x):
        return lax.reduce_precision(x, 5, 3) * 2.0

    assert_close(in_numpy(lrp.explain(fn, E0))(H), fn(H))


def test_an_exact_cast_is_no_layer():
    found = lrp.plan(lambda x: x.astype(jnp.float64) * 2.0, E0)(H.astype(jnp.float32))
    assert all(y.kind == "structural" for y in found.layers)


def test_a_dynamic_scale_is_held():
    """The scale that divides is detached where it multiplies what it divided."""

    def fn(x):
        s = jnp.max(jnp.abs(x), -1, keepdims=True) / 127
        q = jnp.round(x / s).astype(jnp.int8)
        return lax.dot(q, WHOLE, preferred_element_type=jnp.int32).astype(x.dtype) * s

    def held(x):
        s = lax.stop_gradient(jnp.max(jnp.abs(x), -1, keepdims=True) / 127)
        return (s * jnp.round(x / s)) @ WHOLE.astype(x.dtype)

    assert_close(in_numpy(lrp.explain(fn, E0))(X), in_numpy(lrp.explain(held, E0))(X))
    assert_close(in_numpy(lrp.explain(fn, E0))(X).sum(), fn(X).sum())


RNG_BIAS = np.random.default_rng(3)
BIAS, SIZES = RNG_BIAS.normal(size=3), 0.1 + RNG_BIAS.random(3)
AROUND = {
    "as it is": lambda f: f,
    "called twice": lambda f: lambda x: (lambda g: g(x) * g(x[::-1]))(jax.jit(f)),
    "remat": jax.checkpoint,
    "scan": lambda f: lambda x: lax.scan(lambda c, t: (c, f(t[None])[0]), 0.0, x)[1],
    "vmap": lambda f: jax.vmap(lambda t: f(t[None])[0]),
}
AFTER = {
    "scales apart": lambda y, s: y * s * SIZES + BIAS,
    "scales together": lambda y, s: y * (s * SIZES) + BIAS,
    "a scale of the weights first": lambda y, s: y * SIZES * s + BIAS,
    "a divisor": lambda y, s: y * SIZES / (1 / s) + BIAS,
}


@pytest.mark.parametrize("after", AFTER)
@pytest.mark.parametrize("how", [*AROUND])
@pytest.mark.parametrize(
    "rule",
    [lrp.Epsilon(0.0), lrp.Epsilon(0.1), lrp.ZPlus(), lrp.AlphaBeta(2.0, 1.0), lrp.Gamma(0.25)],
    ids=str,
)
def test_a_dynamic_scale_and_a_bias_are_one_layer(after, how, rule):
    def fn(x):
        s = jnp.max(jnp.abs(x), -1, keepdims=True) / 127
        q = jnp.round(x / s).astype(jnp.int8)
        y = lax.dot(q, WHOLE, preferred_element_type=jnp.int32).astype(x.dtype)
        return AFTER[after](y, s)

    def dense(x):
        s = lax.stop_gradient(jnp.max(jnp.abs(x), -1, keepdims=True) / 127)
        rounded = x + lax.stop_gradient(s * jnp.round(x / s) - x)
        return rounded @ (WHOLE.astype(x.dtype) * SIZES) + BIAS

    rules = {"dense": rule}
    expected = in_numpy(lrp.explain(lambda x: jnp.tanh(AROUND[how](dense)(x)), rules))(X)
    found = in_numpy(lrp.explain(lambda x: jnp.tanh(AROUND[how](fn)(x)), rules))(X)
    # A loop hands on relevance, divided by a value and its stabiliser: here x / s, there x.
    assert_close(found, expected, 1e-7 if how == "scan" else 1e-9)


def test_a_divisor_is_held_though_no_linear_layer_takes_it():
    """Another reader stands between the product and the scale that undoes its divisor."""

    def fn(x, hold):
        s = hold(jnp.std(x, -1, keepdims=True))
        y = (x / s) @ WHOLE.astype(x.dtype)
        return jnp.tanh(y * s + BIAS) + y

    def of_a_part(x, hold):
        s = hold(jnp.std(x, -1, keepdims=True))
        first, others = jnp.split((x / s) @ WHOLE.astype(x.dtype), [1], -1)
        return jnp.tanh(first * s) + jnp.sin(others)

    for f in (fn, of_a_part):
        found = in_numpy(lrp.explain(lambda x, f=f: f(x, lambda s: s), E0))(X)
        assert_close(found, in_numpy(lrp.explain(lambda x, f=f: f(x, lax.stop_gradient), E0))(X))


def test_a_divisor_that_is_undone_after_layers_were_joined_is_held():
    def joined(divide):
        def fn(x):
            s = jnp.std(x, -1, keepdims=True) if divide else 1.0
            parts = [(x / s) @ WHOLE.astype(x.dtype), (x / s) @ (SIZES * WHOLE)]
            return jnp.tanh(jnp.concatenate(parts, -1) * s)

        return fn

    assert_close(
        *(in_numpy(lrp.explain(joined(divide), {"dense": E0}))(X) for divide in (True, False))
    )


def test_integers_beside_the_output_keep_their_type():
    def fn(x):
        q = jnp.round(x).astype(jnp.int32)
        return q.astype(x.dtype) @ WHOLE.astype(x.dtype), q

    (_, aux), R = in_numpy(lrp.value_and_relevance(fn, E0, has_aux=True))(X)
    assert aux.dtype == jnp.int32
    assert aux.tolist() == jnp.round(X).astype(int).tolist()
    assert_close(R.sum(), fn(X)[0].sum())


def test_the_gradient_by_weights_behind_integers():
    w = WHOLE.astype(X.dtype)

    def total(w):
        def fn(x):
            return jnp.round(x * 9).astype(jnp.int8).astype(x.dtype) @ w

        return (lrp.explain(fn, E0)(X) ** 2).sum()

    step = np.zeros_like(w)
    step[1, 2] = 1e-4
    value = in_numpy(total)
    slope = (value(w + step) - value(w - step)) / 2e-4
    np.testing.assert_allclose(in_numpy(jax.grad(total))(w)[1, 2], slope, rtol=1e-6)
