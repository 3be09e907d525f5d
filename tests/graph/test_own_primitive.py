"""Primitives that a user defines, and says the meaning of."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import Primitive
from jax.interpreters import ad, mlir

import jaxlrp as lrp
from jaxlrp.graph.primitives import ELEMENTWISE, MOVES, changes
from tests.numpy_jaxpr import in_numpy

E0 = lrp.Epsilon(0.0)
W = jnp.array([[1.0, -2.0, 0.5], [0.5, 1.0, -1.5]])
X = jnp.array([0.3, -1.2])


def primitive(name, function, transpose=None):
    made = Primitive(name)
    made.def_impl(function)
    made.def_abstract_eval(
        lambda *xs: jax.core.ShapedArray(jax.eval_shape(function, *xs).shape, xs[0].dtype)
    )
    mlir.register_lowering(made, mlir.lower_fun(function, multiple_results=False))
    if transpose is not None:
        ad.deflinear2(made, transpose)
    return made


def test_an_unknown_primitive_names_what_to_call():
    p = primitive("own_unknown", jnp.tanh)
    with pytest.raises(lrp.UnsupportedPrimitiveError) as error:
        lrp.explain(lambda x: p.bind(x) @ W, E0)(X)
    assert 'register_primitive("own_unknown"' in str(error.value)
    assert "elementwise=True" in str(error.value)


@pytest.mark.parametrize(
    "said", [{"elementwise": True}, {"like": "tanh"}, {"like": jax.lax.tanh_p}]
)
def test_an_elementwise_one_is_an_activation(said):
    p = primitive(f"own_tanh_{said}", jnp.tanh)
    before = changes()
    lrp.register_primitive(p, **said)
    assert changes() > before
    assert p.name in ELEMENTWISE
    R = in_numpy(lrp.explain(lambda x: p.bind(x) @ W, lrp.ZPlus()))(X)
    np.testing.assert_allclose(
        R, in_numpy(lrp.explain(lambda x: jnp.tanh(x) @ W, lrp.ZPlus()))(X), 1e-9
    )


def test_a_plan_made_before_is_made_anew():
    p = primitive("own_late", jnp.tanh)

    def fn(x):
        return p.bind(x) @ W

    explained = lrp.explain(fn, E0)
    with pytest.raises(lrp.UnsupportedPrimitiveError, match="own_late"):
        explained(X)
    lrp.register_primitive(p, elementwise=True)
    explained(X)


def test_one_that_moves():
    p = primitive("own_rev", lambda x: x[::-1], lambda t, x: [t[::-1]])
    lrp.register_primitive(p, moves=True)
    assert p.name in MOVES
    R = in_numpy(lrp.explain(lambda x: p.bind(x) @ W, lrp.Flat()))(X)
    np.testing.assert_allclose(R, in_numpy(lrp.explain(lambda x: x[::-1] @ W, lrp.Flat()))(X), 1e-9)


@pytest.mark.parametrize(
    "rule",
    [lrp.Epsilon(1e-3), lrp.ZPlus(), lrp.AlphaBeta(), lrp.Gamma(0.3), lrp.Flat(), lrp.WSquare()],
    ids=str,
)
def test_one_that_is_linear_is_a_dense_layer(rule):
    def multiply(x, w):
        return x @ w

    p = Primitive("own_matmul")
    p.def_impl(multiply)
    p.def_abstract_eval(lambda x, w: jax.core.ShapedArray((*x.shape[:-1], w.shape[1]), x.dtype))
    mlir.register_lowering(p, mlir.lower_fun(multiply, multiple_results=False))

    def transpose(t, x, w):
        return (t @ w.T, None) if ad.is_undefined_primal(x) else (None, x.T @ t)

    ad.primitive_transposes[p] = transpose
    ad.primitive_jvps[p] = lambda primals, tangents: (
        p.bind(*primals),
        sum(
            p.bind(*(t if i == j else primals[j] for j in (0, 1)))
            for i, t in enumerate(tangents)
            if type(t) is not ad.Zero
        ),
    )
    lrp.register_primitive(p, linear=True)
    b = jnp.array([0.1, -0.2, 0.3])
    found = lrp.plan(lambda x: p.bind(x, W) + b, rule)(X[None])
    assert [layer.kind for layer in found.layers] == ["dense"]
    R = in_numpy(lrp.explain(lambda x: p.bind(x, W) + b, rule))(X[None])
    np.testing.assert_allclose(R, in_numpy(lrp.explain(lambda x: x @ W + b, rule))(X[None]), 1e-9)


def test_bounds_make_a_gate():
    p = primitive("own_gate", lambda x: jnp.clip(x, 0, 1))
    lrp.register_primitive(p, elementwise=True, bounds=(0, 1))

    def fn(x):
        return (x @ W) * p.bind(x @ W + 1)

    (product,) = lrp.plan(fn, lrp.composites.lrp_zero())(X).select("product")
    assert product.gate == (1, "bounds")


def test_signs_are_kept_if_said():
    for keeps, nonnegative in ((True, True), (None, False)):
        p = primitive(f"own_scale_{keeps}", lambda x: 2 * x)
        lrp.register_primitive(p, elementwise=True, keeps_sign=keeps)
        found = lrp.plan(lambda x, p=p: p.bind(jax.nn.relu(x)) @ W, E0)(X)
        assert found.layers[-1].nonnegative is nonnegative


def test_bounds_may_be_a_function():
    p = primitive("own_double", lambda x: 2 * x)
    lrp.register_primitive(p, elementwise=True, bounds=lambda x: (2 * x[0], 2 * x[1]))
    found = lrp.plan(lambda x: p.bind(jnp.abs(x)) @ W, E0)(X)
    assert found.layers[-1].nonnegative


@pytest.mark.parametrize(
    ("primitive", "said", "error"),
    [
        ("own_nothing", {}, "'own_nothing'.* was given no meaning"),
        ("own_both", {"moves": True, "linear": True}, "moves and linear exclude each other"),
        (
            "own_like",
            {"like": "no_such_primitive"},
            "like='no_such_primitive' is not a known primitive",
        ),
        ("own_bounds", {"bounds": (1, 0)}, r"bounds=\(1, 0\); expected a pair"),
        (3, {"moves": True}, "3 is not a primitive"),
        (jnp.tanh, {"moves": True}, "tanh.* is not a primitive"),
    ],
)
def test_what_says_nothing_is_an_error(primitive, said, error):
    with pytest.raises(lrp.InputError, match=error):
        lrp.register_primitive(primitive, **said)
