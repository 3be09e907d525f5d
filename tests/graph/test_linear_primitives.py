"""Linear maps and products in further primitives: complex values, experts, scatters, solvers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxlrp as lrp
from tests.compare import assert_close
from tests.numpy_jaxpr import in_numpy

E0 = lrp.Epsilon(0.0)
rng = np.random.default_rng(0)
X = jnp.array([0.3, -1.2, 2.0, 0.7])
RULES = [
    E0,
    lrp.Epsilon(0.1),
    lrp.ZPlus(),
    lrp.AlphaBeta(),
    lrp.Gamma(0.3),
    lrp.Flat(),
    lrp.WSquare(),
    lrp.ZBox(-3.0, 3.0),
    lrp.ZPlus(bias="distribute"),
]


def rfft(x):
    return jnp.fft.rfft(x)


def of_spectrum(f):
    return lambda x: f(rfft(x))


@pytest.mark.parametrize(
    "fn",
    [
        lambda x: jnp.abs(rfft(x)),
        lambda x: jnp.sqrt(jnp.real(rfft(x)) ** 2 + jnp.imag(rfft(x)) ** 2),
        lambda x: jnp.abs(-rfft(x)),
        lambda x: jnp.abs(jnp.conj(rfft(x))),
        lambda x: jnp.abs(rfft(x) * jnp.exp(0.7j)),
        lambda x: jnp.abs(jnp.fft.fft(x))[:3],
    ],
)
def test_modulus_of_a_spectrum(fn):
    """The modulus is linear along a ray: relevance is gradient times input."""
    np.testing.assert_allclose(
        in_numpy(lrp.explain(fn, E0))(X), X * jax.grad(lambda x: fn(x).sum())(X)
    )
    np.testing.assert_allclose(
        in_numpy(lrp.explain(fn, E0))(X),
        [0.39996154, 0.89428958, 5.33358972, 0.52166892],
        atol=1e-8,
    )


@pytest.mark.parametrize(
    "fn",
    [
        lambda x: jnp.abs(rfft(x)) ** 2,
        lambda x: jnp.square(jnp.abs(rfft(x))),
        lambda x: jnp.abs(rfft(x)) * jnp.abs(rfft(x)),
        lambda x: jnp.real(rfft(x)) ** 2 + jnp.imag(rfft(x)) ** 2,
        of_spectrum(lambda z: jnp.real(z) ** 2 + jnp.imag(z) ** 2),
        of_spectrum(lambda z: jnp.real(z) * jnp.real(z) + jnp.imag(z) * jnp.imag(z)),
        lambda x: jnp.real(rfft(x) * jnp.conj(rfft(x))),
        of_spectrum(lambda z: jnp.real(z * jnp.conj(z))),
        of_spectrum(lambda z: jnp.real(jnp.conj(z) * z)),
        lambda x: jax.vmap(lambda x: jnp.abs(rfft(x)) ** 2)(x[None])[0],
    ],
)
def test_power_of_a_spectrum(fn):
    """A square passes relevance whole: half of gradient times input."""
    np.testing.assert_allclose(
        in_numpy(lrp.explain(fn, E0))(X), [0.87, 3.48, 12.6, 0.63], atol=1e-9
    )


def test_an_angle_is_a_clear_error():
    for fn in (lambda x: jnp.angle(rfft(x)), lambda x: jnp.arctan2(x, x[::-1])):
        with pytest.raises(lrp.UnsupportedPrimitiveError, match="atan2"):
            lrp.explain(fn, E0)(X)
    # Of one value it is an activation.
    R = in_numpy(lrp.explain(lambda x: jnp.arctan2(x, 2.0), E0))(X)
    np.testing.assert_allclose(R, jnp.arctan2(X, 2.0))


# -- experts -------------------------------------------------------------------------------------

TOKENS = jnp.asarray(rng.normal(size=(7, 4)))
EXPERTS = jnp.asarray(rng.normal(size=(3, 4, 5)))
SIZES = jnp.array([2, 0, 5], jnp.int32)
OWNER = jnp.repeat(jnp.arange(3), np.array([2, 0, 5]), total_repeat_length=7)
BIAS = jnp.asarray(rng.normal(size=(5,)))


def experts(x):
    return lax.ragged_dot(x, EXPERTS, SIZES) + BIAS


def dense_experts(x):
    return jnp.einsum("ti,tij->tj", x, EXPERTS[OWNER]) + BIAS


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_a_ragged_product_is_a_dense_layer(rule):
    found = lrp.plan(experts, rule)(TOKENS)
    assert [y.kind for y in found.layers] == ["dense"]
    assert_close(
        in_numpy(lrp.explain(experts, rule))(TOKENS),
        in_numpy(lrp.explain(dense_experts, rule))(TOKENS),
    )


def test_a_ragged_product_of_two_explained_values():
    rules = lrp.composites.lrp_zero()

    def fn(x, w):
        return lax.ragged_dot(x, w, SIZES)

    found = lrp.plan(fn, rules, argnums=(0, 1))(TOKENS, EXPERTS)
    assert [y.kind for y in found.layers] == ["matmul"]
    of_x, of_w = in_numpy(lrp.explain(fn, rules, argnums=(0, 1)))(TOKENS, EXPERTS)
    assert_close(of_x.sum() + of_w.sum(), fn(TOKENS, EXPERTS).sum())
    assert_close(of_x, 0.5 * in_numpy(lrp.explain(lambda x: fn(x, EXPERTS), rules))(TOKENS))


def test_experts_chosen_by_a_router():
    """Who goes where is static, and the plan says so; the layer is the dense one."""
    router = jnp.asarray(rng.normal(size=(4, 3)))

    def fn(x, dense):
        expert = jnp.argmax(x @ router, -1)
        order = jnp.argsort(expert)
        sizes = jnp.bincount(expert, length=3)
        if dense:
            return jax.nn.relu(jnp.einsum("ti,tij->tj", x, EXPERTS[expert]))
        y = lax.ragged_dot(x[order], EXPERTS, sizes.astype(jnp.int32))
        return jax.nn.relu(y)[jnp.argsort(order)]

    for rule in (E0, lrp.ZPlus()):
        R = in_numpy(lrp.explain(lambda x: fn(x, False), rule))(TOKENS)
        assert_close(R, in_numpy(lrp.explain(lambda x: fn(x, True), rule))(TOKENS))
    why = " ".join(y.why for y in lrp.plan(lambda x: fn(x, False), E0)(TOKENS).layers)
    assert "through integers at test_linear_primitives.py" in why


# -- scatters, running products, solvers ---------------------------------------------------------

PLACES = jnp.array([0, 2])
SCALE = jnp.array([2.0, -1.5])


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_some_elements_scaled_are_all_scaled_by_an_array(rule):
    scale = jnp.ones(4).at[PLACES].multiply(SCALE)
    R = in_numpy(lrp.explain(lambda x: x.at[PLACES].multiply(SCALE), rule))(X)
    assert_close(R, in_numpy(lrp.explain(lambda x: x * scale, rule))(X))


def test_numbers_that_scale_some_elements_are_no_weights():
    R = in_numpy(lrp.explain(lambda x: x.at[PLACES].multiply(-3.0), lrp.ZPlus()))(X)
    assert_close(R, X * jnp.array([-3.0, 1.0, -3.0, 1.0]))


@pytest.mark.parametrize("reverse", [False, True])
def test_each_factor_of_a_running_product_gets_an_equal_part(reverse):
    x = X.reshape(2, 2).repeat(2, 1)
    R = in_numpy(lrp.explain(lambda x: lax.cumprod(x, axis=1, reverse=reverse), E0))(x)
    expected = np.zeros(x.shape)
    for row in range(2):
        for end in range(4):
            places = range(end, 4) if reverse else range(end + 1)
            value = np.prod([x[row, i] for i in places])
            for i in places:
                expected[row, i] += value / len(places)
    assert_close(R, expected)


def test_a_running_product_with_zeros_conserves():
    x = jnp.array([2.0, 0.0, 3.0])
    R = in_numpy(lrp.explain(jnp.cumprod, E0))(x)
    np.testing.assert_allclose(R, [2.0, 0.0, 0.0], atol=1e-12)


def test_a_solver_with_static_coefficients_is_linear():
    a = jnp.asarray(rng.normal(size=(4, 4))) + 3 * jnp.eye(4)
    b = jnp.asarray(rng.normal(size=(4, 3)))
    spd = a @ a.T + jnp.eye(4)
    for fn in (
        lambda x: jnp.linalg.solve(a, x),
        lambda x: jnp.linalg.solve(a, x[:, None] * b),
        lambda x: jax.scipy.linalg.cho_solve(jax.scipy.linalg.cho_factor(spd), x),
        lambda x: jax.scipy.linalg.solve_triangular(jnp.tril(a), x, lower=True),
        lambda x: jax.scipy.linalg.solve(spd, x, assume_a="pos"),
    ):
        R = in_numpy(lrp.explain(fn, lrp.ZPlus()))(X)
        if fn(X).ndim == 1:
            assert_close(R, X * jax.grad(lambda x, fn=fn: fn(x).sum())(X))
        assert np.isfinite(R).all()


@pytest.mark.parametrize(
    ("fn", "primitive"),
    [
        (
            lambda x: jnp.linalg.solve(jnp.diag(x) + 3 * jnp.eye(4), jnp.ones(4)),
            "custom_linear_solve",
        ),
        (lambda x: jnp.linalg.inv(jnp.diag(x) + 3 * jnp.eye(4)), "custom_linear_solve"),
        (lambda x: jnp.linalg.cholesky(jnp.diag(x * x) + 3 * jnp.eye(4)), "cholesky"),
        (lambda x: jnp.linalg.eigh(jnp.diag(x))[0], "eigh"),
    ],
)
def test_a_solver_whose_coefficients_depend_on_the_input_is_an_error(fn, primitive):
    with pytest.raises(lrp.UnsupportedPrimitiveError, match=primitive):
        lrp.explain(fn, E0)(X)


@pytest.mark.parametrize(
    "linear",
    [
        rfft,
        lambda x: jnp.cumsum(x, -1),
        lambda x: lax.reduce_window(x, 0.0, lax.add, (2,), (2,), "VALID"),
    ],
    ids=["fft", "cumsum", "sums of windows"],
)
def test_a_layer_without_weights_that_is_written_twice_is_one(linear):
    def power(x):
        return jnp.real(linear(x)) ** 2 + jnp.imag(linear(x)) ** 2

    def once(x):
        spectrum = power(x)
        return spectrum + jnp.tanh(spectrum)

    def twice(x):
        return power(x) + jnp.tanh(power(x))

    rules = {"add": lrp.Epsilon(0.1)}
    assert_close(lrp.explain(twice, rules)(X), lrp.explain(once, rules)(X), 1e-12)


@pytest.mark.parametrize(
    "kernel", [lambda: jnp.full((4, 4), 0.5), lambda: jnp.arange(16.0).reshape(4, 4) % 5]
)
def test_a_product_with_written_numbers_that_is_written_twice_is_one(kernel):
    def once(x):
        y = x @ kernel()
        return y * jax.nn.sigmoid(y)

    def twice(x):
        return (x @ kernel()) * jax.nn.sigmoid(x @ kernel())

    kinds = [[y.kind for y in lrp.plan(fn, {})(X).layers] for fn in (once, twice)]
    assert kinds[0] == kinds[1] and "product" not in kinds[0]
    assert_close(lrp.explain(twice, {})(X), lrp.explain(once, {})(X), 1e-12)


def test_a_product_with_weights_that_is_written_twice_is_two():
    def fn(x, w):
        return (x @ w) * jax.nn.sigmoid(x @ w)

    kinds = [y.kind for y in lrp.plan(fn, {})(X, jnp.eye(4)).layers]
    assert kinds.count("dense") == 2 and "product" in kinds
