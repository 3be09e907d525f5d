"""Bounds, numbers and axes that are claimed hold on numbers, for single equations and programs."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxlrp as lrp
from tests.facts_check import check, claims

E0 = lrp.Epsilon(0.0)
relu = jax.nn.relu


def bounds_of(fn, *args):
    graph, _, bounds, _ = claims(fn, *args)
    return bounds[graph.outputs[0]]


def axes_of(fn, *args):
    graph, _, _, statics = claims(fn, *args)
    return statics.varying_axes(graph.outputs[0])


def by_its_row(v):
    return jnp.where(v[:, None] > 0, v[:, None], jnp.zeros((3, 3)))


def by_channel(x, kernel, groups):
    """A convolution over one place of an example: of channels, all with all or each with itself."""
    numbers = ("NWC", "WIO", "NWC")
    y = lax.conv_general_dilated(
        x[:, None], kernel, (1,), "VALID", dimension_numbers=numbers, feature_group_count=groups
    )
    return y[:, 0]


X = jnp.array([[0.3, -1.2, 2.0], [0.7, -0.0, -5.5]])


@pytest.mark.parametrize(
    ("fn", "expected"),
    [
        (lambda x: lax.top_k(x, 2)[1], (0, 2)),
        (lambda x: lax.top_k(jnp.tanh(x), 2)[0], (-1, 1)),
        (lambda x: jnp.argmax(x, 1), (0, 2)),
        (lambda x: jnp.argmin(x), (0, 5)),
        (lambda x: jnp.argsort(x, 0), (0, 1)),
        (lambda x: lax.sort([jnp.tanh(x), relu(x)], num_keys=1)[1], (0, math.inf)),
        (lambda x: lax.sort([relu(x), jnp.tanh(x)], num_keys=1)[1], (-1, 1)),
        (lambda x: x.astype(bool), (0, 1)),
        (lambda x: relu(x).astype(bool), (0, 1)),
        (lambda x: (x * 0 + 3.7).astype(bool), (1, 1)),
        (lambda x: (jnp.tanh(x) * 100).astype(jnp.int8), (-100, 100)),
        (lambda x: (jnp.tanh(x) * 200).astype(jnp.int8), (-128, 127)),
        (lambda x: (jnp.tanh(x) * 2.7).astype(jnp.int32), (-2, 2)),
        (lambda x: jnp.tanh(x).astype(jnp.uint8), (0, 255)),
        (lambda x: (jax.nn.sigmoid(x) * 9.5).astype(jnp.uint8), (0, 9)),
        (lambda x: x.astype(jnp.int32), (-(2.0**31), 2.0**31 - 1)),
        (lambda x: x.at[jnp.array([0, 7])].get(mode="fill", fill_value=-1), (-math.inf, math.inf)),
        (lambda x: relu(x).at[jnp.array([0, 7])].get(mode="fill", fill_value=-1), (-1, math.inf)),
        (lambda x: relu(x).at[jnp.array([0, 7])].get(mode="fill"), (0, math.inf)),
        (lambda x: relu(x).at[jnp.array([0, 7])].get(mode="clip"), (0, math.inf)),
        (lambda x: jnp.argmax(x, 1)[jnp.array([0, 7])], (0, 2)),
        (lambda x: jnp.pad(relu(x), 1, constant_values=-2.0), (-2, math.inf)),
        (lambda x: jnp.pad(relu(x), 1), (0, math.inf)),
        (lambda x: lax.dynamic_update_slice(relu(x), -jnp.ones((1, 1)), (0, 0)), (-1, math.inf)),
        (lambda x: relu(x).at[0].set(-3.0), (-3, math.inf)),
        (lambda x: relu(x).at[0].add(-3.0), (-math.inf, math.inf)),
        (lambda x: relu(x).at[0].add(3.0), (0, math.inf)),
        (lambda x: relu(x).at[0].multiply(-3.0), (-math.inf, math.inf)),
        (lambda x: jax.nn.sigmoid(x).at[0].multiply(0.5), (0, 1)),
        (lambda x: jax.nn.sigmoid(x).at[0].min(-0.5), (-0.5, 1)),
        (lambda x: lax.clamp(-1.0, x, 2.0), (-1, 2)),
        (lambda x: lax.clamp(jnp.tanh(x), x, 2.0), (-1, 2)),
        (lambda x: lax.rem(x, 3.0), (-3, 3)),
        (lambda x: lax.rem(relu(x), -3.0), (0, 3)),
        (lambda x: jnp.sign(x), (-1, 1)),
        (lambda x: jnp.sign(relu(x)), (0, 1)),
        (lambda x: jnp.round(jnp.tanh(x) * 2.5), (-2, 2)),
        (lambda x: lax.round(jnp.tanh(x) * 2.5, lax.RoundingMethod.AWAY_FROM_ZERO), (-3, 3)),
        (lambda x: jnp.floor(jax.nn.sigmoid(x) * 2.5), (0, 2)),
        (lambda x: jnp.ceil(jnp.tanh(x) * 2.5), (-2, 3)),
        (lambda x: jnp.abs(x).astype(jnp.int32) * 2**30, (-(2.0**31), 2.0**31 - 1)),
        (lambda x: jnp.cumsum(relu(x), 1), (0, math.inf)),
        (lambda x: jnp.cumsum((x > 0).astype(jnp.int32), 1), (0, 3)),
        (lambda x: (x > 0).astype(jnp.int8).sum(1, dtype=jnp.int8), (0, 3)),
        (lambda x: jnp.cumprod(jnp.tanh(x), 1), (-1, 1)),
        (lambda x: jnp.prod(jax.nn.sigmoid(x)), (0, 1)),
        (lambda x: jnp.exp(-jnp.abs(x)), (0, 1)),
        (lambda x: jnp.exp(x) * 1e300 * 1e300, (0, math.inf)),
        (lambda x: relu(x) ** 4, (0, math.inf)),
        (lambda x: jax.nn.sigmoid(x) ** jax.nn.sigmoid(x), (0, 1)),
        (lambda x: jnp.arctan2(relu(x), x), None),
        (lambda x: jnp.abs(jnp.fft.rfft(x)), (0, math.inf)),
        (lambda x: jnp.isfinite(x), (0, 1)),
        (lambda x: relu(x) > 0, (0, 1)),
        (lambda x: relu(x) >= 0, (1, 1)),
        (lambda x: jnp.where(x > 0, x, 0), (0, math.inf)),
        (lambda x: jnp.where(x == 2.0, x, 0), (0, 2)),
        (lambda x: jnp.where((x > 0)[:, :, None], x[:, :, None], 0), (0, math.inf)),
        (lambda x: jnp.where(x[0][:, None] > 0, x[0][None, :], 0), (-math.inf, math.inf)),
        (lambda x: by_its_row(x[0]), (0, math.inf)),
        (lambda x: jnp.where(x[0, 0] > 0, x, 0), (-math.inf, math.inf)),
        (lambda x: jnp.where(x.astype(jnp.int32) >= 0, x, 0), (-math.inf, math.inf)),
        (lambda x: jnp.where(x.astype(jnp.bfloat16) >= 0, x, 0), (-math.inf, math.inf)),
        (lambda x: jnp.where(x[::-1] >= 0, x, 0), (-math.inf, math.inf)),
        (lambda x: jnp.where(x.T[:2, :2] >= 0, x[:2, :2], 0), (-math.inf, math.inf)),
        (
            lambda x: lax.reduce_window(
                relu(x), -jnp.inf, lax.max, (2, 2), (1, 1), [(1, 1), (1, 1)]
            ),
            (0, math.inf),
        ),
        (
            lambda x: lax.reduce_window(
                relu(x), -jnp.inf, lax.max, (1, 2), (1, 1), [(0, 0), (2, 0)]
            ),
            (-math.inf, math.inf),
        ),
    ],
)
def test_bounds_of_one_equation(fn, expected):
    assert check(fn, (X,), (-3 * X,), (1e3 * X,)) >= 0
    if expected is not None:
        low, high = bounds_of(fn, X)
        assert low == pytest.approx(expected[0], rel=1e-9)
        assert high == pytest.approx(expected[1], rel=1e-9)


def test_a_sum_of_float32_numbers_is_not_bounded_as_in_float64():
    """0.1 + 0.2 in float32 lies above 0.1 + 0.2 in float64."""

    def fn(x):
        a, b = jnp.clip(x, 0, jnp.float32(0.1)), jnp.clip(x, 0, jnp.float32(0.2))
        total = (a + b) * jnp.float32(3.3) / jnp.float32(0.7)
        return total - jnp.float32(1.4142857)

    x = jnp.linspace(-1, 1, 41, dtype=jnp.float32)
    check(fn, (x,))


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32, jnp.float64])
def test_what_overflows_or_vanishes(dtype):
    x = jnp.asarray([0.0, 1e-3, 0.5, 1.0, 3.0], dtype)

    def fn(x):
        big = jnp.clip(x, 0.25, 2.0) * jnp.asarray(6e4, dtype) * jnp.asarray(6e4, dtype)
        small = jnp.clip(x, 1e-3, 2.0)
        for _ in range(10):
            small = small * small
        return big * big * big, 1 / small, jnp.exp(x * 1000) - 1, jnp.log(small)

    check(fn, (x,))


FUNCTIONS = """exp exp2 expm1 log log1p tanh logistic erf erfc sqrt cbrt rsqrt atan asinh sinh cosh
sin cos floor ceil round sign abs square neg acos acosh""".split()


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32, jnp.float64])
def test_functions_keep_to_their_bounds(name, dtype):
    f = getattr(lax, name)
    rng = np.random.default_rng(0)
    for low, high in [(-1, 1), (0, 1), (-90, 90), (1, 1), (0, 1e-4), (-1e-4, 0), (0.3, 7.7)]:
        points = np.concatenate([[low, high], rng.uniform(low, high, 500)])
        x = jnp.asarray(points, dtype)

        def bounded(x, low=low, high=high):
            return f(lax.clamp(jnp.asarray(low, dtype), x, jnp.asarray(high, dtype)))

        check(bounded, (x,))


@pytest.mark.parametrize(
    ("fn", "expected"),
    [
        (lambda x: jnp.broadcast_to(x[0], (2, 3)), {1}),
        (lambda x: jnp.broadcast_to(x[0], (2, 3)).T, {0}),
        (lambda x: jnp.broadcast_to(x[0], (2, 3)).reshape(1, 2, 1, 3), {3}),
        (lambda x: jnp.broadcast_to(x[0], (2, 3)).reshape(6), {0}),
        (lambda x: jnp.broadcast_to(x[0][:, None], (3, 4)).reshape(3, 2, 2), {0}),
        (lambda x: jnp.broadcast_to(x.reshape(6)[:4], (2, 4)).reshape(2, 2, 2), {1, 2}),
        (lambda x: jnp.broadcast_to(x[:, :1], (2, 3)) + x[0], {0, 1}),
        (lambda x: jnp.broadcast_to(x[0], (2, 3)).sum(0), {0}),
        (lambda x: jnp.broadcast_to(x[0], (2, 3)).sum(1), set()),
        (lambda x: jnp.cumsum(jnp.ones((2, 3)) * x[0, 0], 1), {1}),
        (lambda x: jnp.pad(jnp.ones((2, 3)), ((0, 0), (1, 0))) * x[0, 0], {1}),
        (lambda x: jnp.ones((2, 3)).at[0].set(x[0, 0]), {0, 1}),
        (lambda x: jnp.concatenate([jnp.ones((2, 3)), x[:, :1] * 0 + 2], 1)[:1], {1}),
        (lambda x: jnp.broadcast_to(x[0], (2, 3)) @ jnp.ones((3, 4)), set()),
        (lambda x: jnp.broadcast_to(x[0], (2, 3)) @ x.T, {1}),
        (lambda x: x @ jnp.ones((3, 4)), {0}),
        (lambda x: by_channel(x[:1, :2], jnp.ones((1, 1, 2)), 2), {1}),
        (lambda x: by_channel(x[:1, :2], jnp.ones((1, 2, 2)), 1), set()),
        (lambda x: by_channel(jnp.ones((1, 2)), x[:, :2].reshape(1, 2, 2), 1), {1}),
        (lambda x: jnp.broadcast_to(x[0], (2, 3))[jnp.array([0, 1, 1])], {0, 1}),
        (lambda x: jnp.sort(jnp.broadcast_to(x[0], (2, 3)), 1), {1}),
        (lambda x: lax.iota(jnp.float64, 3) * x[0, 0], {0}),
    ],
)
def test_axes_along_which_a_value_varies(fn, expected):
    check(fn, (X,))
    assert axes_of(fn, X) == expected


def loops():
    s = jnp.array([[1.0, 1.0], [5.0, 3.0]])

    def product_of_scales(x):
        def step(c, _):
            return (c[0] * c[1], c[1] * s), c[1]

        return lax.scan(step, (x[:, :2], jnp.ones((2, 2))), None, length=3)

    def late_growth(x):
        """c3 moves first in the third iteration, c4 in the fourth."""

        def step(c, _):
            a, b, d, e = c
            return (a - 1.0, jnp.minimum(a, b), jnp.minimum(b, d), jnp.minimum(d, e)), e

        ones = jnp.ones((2,))
        return lax.scan(step, (ones, ones, ones, ones), None, length=9)

    def decay(x):
        def step(c, v):
            return c * 0.9 + 0.1 * jax.nn.sigmoid(v), c

        return lax.scan(step, jnp.zeros(3), x)

    def nested(x):
        def outer(c, v):
            def inner(d, _):
                return jnp.where(v > 0, d * 2, d - 1.0), d

            d, ys = lax.scan(inner, c, None, length=2)
            return d, ys.sum(0)

        return lax.scan(outer, jnp.ones(3), x)

    def branches(x):
        return lax.cond(x[0, 0] > 0, lambda v: relu(v), lambda v: -relu(v) - 1.0, x)

    def branch_in_loop(x):
        def step(c, v):
            c = lax.cond(v[0] > 0, lambda c: c + 1, lambda c: c * 2, c)
            return c, c.astype(jnp.int8)

        return lax.scan(step, jnp.zeros((), jnp.int32), x, reverse=True)

    def one_or_zero(x):
        return lax.cond(x[0, 0] > 0, lambda: jnp.ones(3), lambda: jnp.zeros(3))

    def rows_in_turn(x):
        return lax.scan(lambda c, v: (c + v, v * 2), x, jnp.broadcast_to(x, (4, 2, 3)))

    def never(x):
        return lax.scan(lambda c, _: (c * 0.0 + 2.0, c), x, None, length=0)

    def countdown(x):
        def step(c, _):
            return (c[0] - 1, relu(c[1])), c[0]

        return lax.scan(step, (jnp.int32(3), x), None, length=6)

    def unrolled_while(x):
        return lax.fori_loop(0, 3, lambda i, c: c * (i + 1), jnp.abs(x))

    def condition(x):
        return lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, c[1] - 1.0), (0, relu(x)))

    return [v for k, v in sorted(locals().items()) if callable(v) and k != "s"]


@pytest.mark.parametrize("fn", loops(), ids=lambda f: f.__name__)
def test_facts_hold_in_every_iteration(fn):
    check(fn, (X,), (-X,), (X * 1e3,))


# -- random programs -----------------------------------------------------------------------------


def program(seed, steps=14):
    """A random function of one array, made of equations of all sorts."""

    def fn(x):
        rng = np.random.default_rng(seed)
        n = x.shape[0]
        table = jnp.asarray(rng.normal(size=(n, n)), x.dtype)
        pool = [
            x,
            table,
            jnp.ones((n, n), x.dtype) * x[0, 0],
            jnp.arange(n, dtype=x.dtype)[:, None] * x[:1],
        ]

        def draw():
            return pool[rng.integers(len(pool))]

        def unary(f):
            return lambda: f(draw())

        def index(v):
            return jnp.clip(v, -9, 9).astype(jnp.int32)

        def looped():
            a, b = draw(), draw()
            kind = rng.integers(3)

            def step(c, row):
                c0, c1 = c
                new = (c0 * 0.5 + c1, jnp.minimum(c1, row), jnp.maximum(c0, 0))
                return (new[kind], jnp.tanh(c1 + c0)), c0 * c1

            (c, d), ys = lax.scan(step, (a, b), draw(), reverse=bool(rng.integers(2)))
            return [c, d, ys[0]][rng.integers(3)]

        def branch():
            a, b = draw(), draw()
            return lax.cond(a[0, 0] > b[0, 0], lambda a, b: relu(a) * b, lambda a, b: b - 1, a, b)

        makers = [
            lambda: draw() + draw(),
            lambda: draw() * draw(),
            lambda: draw() - draw(),
            lambda: draw() / (1 + jnp.abs(draw())),
            lambda: jnp.maximum(draw(), draw()),
            lambda: jnp.minimum(draw(), 0.3),
            unary(jnp.tanh),
            unary(jax.nn.sigmoid),
            unary(relu),
            unary(jnp.floor),
            unary(jnp.round),
            unary(lambda v: jnp.exp(-jnp.abs(v))),
            unary(lambda v: v * v),
            unary(jnp.sqrt),
            unary(lambda v: jnp.cumsum(v, 1)),
            unary(lambda v: jnp.sort(v, 0)),
            unary(lambda v: v[::-1]),
            unary(lambda v: v.T),
            unary(lambda v: jnp.broadcast_to(v.sum(0), v.shape)),
            unary(lambda v: jnp.broadcast_to(v.max(1, keepdims=True), v.shape)),
            unary(lambda v: lax.top_k(v, n)[rng.integers(2)].astype(x.dtype)),
            unary(lambda v: jnp.argsort(v).astype(x.dtype)),
            unary(lambda v: index(v).astype(x.dtype)),
            unary(lambda v: (jnp.clip(v, -500, 500).astype(jnp.int8)).astype(x.dtype)),
            unary(lambda v: v.astype(bool).astype(x.dtype)),
            unary(lambda v: v.astype(jnp.bfloat16).astype(x.dtype)),
            unary(lambda v: jnp.pad(v[:-1, 1:], ((1, 0), (0, 1)), constant_values=0.5)),
            unary(lambda v: v.reshape(n // 2, 2, n).transpose(1, 0, 2).reshape(n, n)),
            unary(lambda v: v.at[1].set(draw()[0])),
            unary(lambda v: v.at[:, 1].add(draw()[0])),
            unary(lambda v: v.at[index(draw()[0])].get(mode="fill", fill_value=-1)),
            unary(lambda v: v[jnp.argmax(draw(), 0)]),
            lambda: lax.dynamic_slice(jnp.tile(draw(), (2, 2)), index(draw()[0, :2]), (n, n)),
            lambda: lax.dynamic_update_slice(draw(), draw()[:2, :1], index(draw()[0, :2])),
            lambda: jnp.where(draw() > draw(), draw(), draw()),
            unary(lambda v: jnp.where(v > 0, v, draw())),
            unary(lambda v: jnp.where(v[0][:, None] > 0, v[0][None, :], 0)),
            unary(lambda v: jnp.where(index(v) >= 0, v, 0)),
            unary(lambda v: jnp.where(v[:1] <= 0.5, v, 0.5)),
            lambda: draw() @ draw(),
            lambda: lax.clamp(draw(), draw(), draw()),
            lambda: lax.rem(draw(), draw()),
            looped,
            looped,
            branch,
        ]
        for maker in rng.integers(len(makers), size=steps):
            made = makers[maker]()
            pool.append(made)
        return pool[4:]

    return fn


@pytest.mark.parametrize("seed", range(60))
def test_facts_about_random_programs(seed):
    rng = np.random.default_rng(seed + 1000)
    dtype = [jnp.float64, jnp.float32][seed % 2]
    samples = [(jnp.asarray(rng.normal(size=(4, 4)) * s, dtype),) for s in (1.0, 30.0)]
    samples.append((jnp.asarray(rng.integers(-2, 3, (4, 4)), dtype),))
    check(program(seed), *samples)


# -- what false facts did ------------------------------------------------------------------------


def test_a_select_by_another_axis_proves_nothing():
    ones = jnp.ones(2)

    def fn(v):
        return jnp.where(v[:, None] > 0, v[None, :], 0) @ ones

    R = lrp.explain(fn, lrp.ZPlus(epsilon=0.0))(jnp.array([2.0, -1.0]))
    np.testing.assert_allclose(R, [1.0, 0.0], atol=1e-12)


def test_a_select_by_a_cast_is_no_relu():
    x = jnp.array([-0.5, 0.5])
    R = lrp.explain(lambda x: jnp.where(x.astype(jnp.int32) >= 0, x, 0), E0)(x)
    np.testing.assert_allclose(R, x, atol=1e-12)


def test_a_carried_scale_varies_as_it_does_later():
    m, s = jnp.array([[1.0, 2], [1, -1]]), jnp.array([[1.0, 1], [5, 3]])

    def scanned(x):
        def step(c, _):
            return ((c[0] @ m) * c[1], c[1] * s), None

        return lax.scan(step, (x, jnp.ones((2, 2))), None, length=2)[0][0]

    R = lrp.explain(scanned, lrp.ZPlus())(jnp.array([[2.0, 1], [2, 1]]))
    np.testing.assert_allclose(R[1], [31.0, 8.0], atol=1e-4)


@pytest.mark.parametrize("start", ["eye", "weights", "both"])
def test_carried_weights_have_the_rule_of_the_unrolled_network(start):
    rng = np.random.default_rng(0)
    w, x = jnp.asarray(rng.normal(size=(3, 3))), jnp.asarray(rng.normal(size=(2, 3)))
    begin = {"eye": jnp.eye(3), "weights": w, "both": jnp.eye(3) + w}[start]

    def step(c, _):
        return (c[0] @ c[1], c[1] @ w if start != "weights" else c[1]), None

    def scanned(x):
        first = jnp.eye(3) if start == "eye" else begin
        return lax.scan(step, (x, first), None, length=3)[0][0]

    def unrolled(x):
        c = (x, begin)
        for _ in range(3):
            c, _ = step(c, None)
        return c[0]

    rule = lrp.ZPlus(epsilon=0.0)
    expected = lrp.explain(unrolled, rule)(x)
    np.testing.assert_allclose(lrp.explain(scanned, rule)(x), expected, rtol=1e-9)
