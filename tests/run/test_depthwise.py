"""Depthwise convolutions as shifted products: the same numbers, and no convolution."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp as lrp
from jaxlrp.run import depthwise

RNG = np.random.default_rng(0)


def draw(*shape):
    return jnp.asarray(RNG.normal(size=shape))


NHWC = ("NHWC", "HWIO", "NHWC")
# The input, the kernel, the layout, and further arguments of the convolution.
CASES = {
    "same": ((2, 6, 7, 4), (3, 3, 1, 4), NHWC, {"padding": "SAME"}),
    "valid": ((2, 6, 7, 4), (3, 2, 1, 4), NHWC, {"padding": "VALID"}),
    "stride": ((1, 7, 8, 4), (3, 3, 1, 4), NHWC, {"padding": "SAME", "window_strides": (2, 3)}),
    "uneven": ((1, 6, 6, 3), (3, 3, 1, 3), NHWC, {"padding": [(0, 3), (2, 1)]}),
    "cropped": ((1, 6, 6, 3), (3, 3, 1, 3), NHWC, {"padding": [(-1, 2), (1, -2)]}),
    "dilated": ((1, 9, 8, 3), (3, 2, 1, 3), NHWC, {"padding": "SAME", "rhs_dilation": (2, 3)}),
    "transposed": (
        (1, 4, 5, 3),
        (3, 3, 1, 3),
        NHWC,
        {"padding": [(2, 1), (1, 2)], "lhs_dilation": (2, 3)},
    ),
    "multiplied": ((2, 5, 5, 3), (3, 3, 1, 6), NHWC, {"padding": "SAME"}),
    "channels first": ((2, 3, 5, 6), (6, 1, 3, 3), ("NCHW", "OIHW", "NCHW"), {"padding": "SAME"}),
    "turned": ((2, 3, 5, 6), (3, 3, 6, 1), ("NCHW", "WHOI", "CWNH"), {"padding": "SAME"}),
    "causal": ((2, 7, 4), (4, 1, 4), ("NWC", "WIO", "NWC"), {"padding": [(3, 0)]}),
    "solid": ((1, 4, 5, 3, 2), (2, 3, 2, 1, 2), ("NDHWC", "DHWIO", "NDHWC"), {"padding": "SAME"}),
    "no example": ((0, 4, 4, 3), (3, 3, 1, 3), NHWC, {"padding": "SAME"}),
    "far too small": ((2, 2, 2, 3), (5, 5, 1, 3), NHWC, {"padding": "VALID"}),
    "too small in steps": (
        (2, 2, 2, 3),
        (3, 3, 1, 3),
        NHWC,
        {"padding": "VALID", "window_strides": (2, 2)},
    ),
    "nothing": ((1, 2, 2, 3), (3, 3, 1, 3), NHWC, {"padding": "VALID"}),
}


def convolution(case):
    shape, kernel, names, arguments = CASES[case]
    arguments = {"window_strides": (1,) * (len(shape) - 2), **arguments}
    numbers = jax.lax.conv_dimension_numbers(shape, kernel, names)
    groups = shape[numbers.lhs_spec[1]]

    def convolve(x, k):
        return jax.lax.conv_general_dilated(
            x, k, dimension_numbers=numbers, feature_group_count=groups, **arguments
        )

    return convolve, draw(*shape), draw(*kernel)


def shifted(convolve):
    """The same function with its convolution as `depthwise` writes it, compiled."""

    @jax.jit
    def function(x, k):
        (eqn,) = jax.make_jaxpr(convolve)(x, k).jaxpr.eqns
        return depthwise.bind(eqn.primitive, eqn.params, (x, k))[0]

    return function


def convolutions(function, *args):
    text = jax.jit(function).lower(*args).as_text()
    return len(re.findall(r"stablehlo\.convolution", text))


@pytest.mark.parametrize("case", CASES)
def test_value_and_both_transposes(case):
    convolve, x, k = convolution(case)
    function = shifted(convolve)
    expected, back = jax.vjp(convolve, x, k)
    found, found_back = jax.vjp(function, x, k)
    arrived = draw(*expected.shape)
    pairs = zip((found, *found_back(arrived)), (expected, *back(arrived)), strict=True)
    for mine, theirs in pairs:
        np.testing.assert_allclose(mine, theirs, atol=1e-12)
    if expected.size:
        assert convolutions(function, x, k) == 0
        assert convolutions(lambda x: jax.vjp(lambda x: function(x, k), x)[1](arrived), x) == 0


def test_a_batch_of_targets():
    convolve, x, k = convolution("stride")
    back = jax.linear_transpose(lambda x: shifted(convolve)(x, k), x)
    expected = jax.linear_transpose(lambda x: convolve(x, k), x)
    arrived = draw(5, *convolve(x, k).shape)
    np.testing.assert_allclose(
        jax.vmap(back)(arrived)[0], jax.vmap(expected)(arrived)[0], atol=1e-12
    )


@pytest.mark.parametrize("mapped", [(0, None), (None, 0), (0, 0), (1, -1)])
@pytest.mark.parametrize("case", ["same", "stride", "multiplied", "turned", "transposed"])
def test_mapped_inputs_and_kernels(case, mapped):
    convolve, x, k = convolution(case)

    def several(array, axis):
        return array if axis is None else jnp.stack([array, draw(*array.shape)], axis)

    args = several(x, mapped[0]), several(k, mapped[1])
    found, expected = (jax.vmap(f, mapped) for f in (shifted(convolve), convolve))
    np.testing.assert_allclose(found(*args), expected(*args), atol=1e-12)
    found, expected = (
        jax.grad(lambda *a: (jax.vmap(f, mapped)(*a) ** 2).sum(), (0, 1))
        for f in (shifted(convolve), convolve)
    )
    for mine, theirs in zip(found(*args), expected(*args), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-11)


def test_second_derivatives_in_both_orders():
    convolve, x, k = convolution("stride")
    functions = [lambda x, k, f=f: (f(x, k) ** 3).sum() for f in (shifted(convolve), convolve)]
    for first, second in ((jax.jacfwd, jax.jacrev), (jax.jacrev, jax.jacfwd)):
        found, expected = (first(second(f, (0, 1)), (0, 1))(x, k) for f in functions)
        for mine, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(mine, theirs, atol=1e-10)


def separable(params, x):
    """A stem, then a depthwise and a pointwise convolution with a norm, and a reading."""

    def convolve(x, k, stride=1, groups=1):
        return jax.lax.conv_general_dilated(
            x, k, (stride, stride), "SAME", dimension_numbers=NHWC, feature_group_count=groups
        )

    x = jax.nn.relu(convolve(x, params["stem"]) + params["shift"])
    scaled = convolve(x, params["depth"], 2, x.shape[-1]) * params["scale"] + params["shift"]
    x = jnp.clip(scaled, 0.0, 6.0)
    x = jax.nn.relu(convolve(x, params["point"]))
    return x.mean((1, 2)) @ params["head"]


PARAMS = {
    "stem": draw(3, 3, 3, 5),
    "depth": draw(3, 3, 1, 5),
    "shift": draw(5),
    "scale": draw(5),
    "point": draw(1, 1, 5, 4),
    "head": draw(4, 3),
}
X = draw(2, 7, 6, 3)
RULES = {
    "epsilon": lrp.Epsilon(),
    "zplus": lrp.ZPlus(),
    "gamma": lrp.Gamma(0.25),
    "alpha_beta": lrp.AlphaBeta(2.0, 1.0),
    "flat": lrp.Flat(),
    "w_square": lrp.WSquare(),
    "box": lrp.ZBox(-4.0, 4.0),
    "no bias": lrp.Epsilon(bias="ignore"),
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("first", [False, True])
def test_relevance_does_not_depend_on_it(rule, first, monkeypatch):
    params, x = (PARAMS, X) if not first else (PARAMS | {"stem": draw(3, 3, 1, 3)}, X)

    def network(params, x):
        if not first:
            return separable(params, x)
        y = jax.lax.conv_general_dilated(
            x, params["stem"], (1, 1), "SAME", dimension_numbers=NHWC, feature_group_count=3
        )
        return jax.nn.relu(y).sum((1, 2))

    def relevance():
        def step(params, x):
            return lrp.explain(network, RULES[rule], argnums=1)(params, x, target=1)

        return jax.jit(step)(params, x), convolutions(step, params, x)

    found, few = relevance()
    monkeypatch.setattr(depthwise, "_MOST_PLACES", 0)
    expected, many = relevance()
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12 * abs(expected).max())
    assert few < many


@pytest.mark.parametrize("rule", [*RULES, "gradient"])
def test_the_forward_pass_too(rule):
    rules = lrp.Gradient() if rule == "gradient" else RULES[rule]

    def step(params, x):
        return lrp.value_and_relevance(separable, rules, argnums=1)(params, x, target=1)

    text = jax.jit(step).lower(PARAMS, X).as_text()
    groups = re.findall(r"feature_group_count = (\d+)", text)
    assert groups and set(groups) == {"1"}
    value, _ = jax.jit(step)(PARAMS, X)
    np.testing.assert_allclose(value, separable(PARAMS, X), rtol=1e-12)
    found, expected = (
        jax.jacrev(f)(X) for f in (lambda x: step(PARAMS, x)[0], lambda x: separable(PARAMS, x))
    )
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-12 * abs(expected).max())


class OfAUser(lrp.ZPlus):
    pass


@pytest.mark.parametrize("rule", [lrp.ZPlus(), OfAUser()])
def test_values_outside_jit_are_the_functions_own(rule, monkeypatch):
    """No equation is even asked: each shifted copy would be compiled by itself."""
    monkeypatch.setattr(depthwise, "_is_shifted", None)
    convolve, x, kernel = convolution("same")
    x, kernel = jnp.asarray(x, jnp.float32), jnp.asarray(kernel, jnp.float32)

    def network(kernel, x):
        x, _ = jax.lax.scan(lambda x, k: (jax.nn.relu(convolve(x, k)), None), x, kernel[None])
        return jax.nn.relu(convolve(x, kernel)).reshape(len(x), -1)

    def value(params, x):
        return lrp.value_and_relevance(network, rule, argnums=1)(params, x, target=1)[0]

    prepared = lrp.prepare(network, rule, argnums=1)(kernel, x)
    for params in (kernel, kernel, prepared):  # the second call runs equations that were kept
        np.testing.assert_array_equal(value(params, x), network(kernel, x))
        found = jax.vmap(lambda x: value(params, x))(x[:, None])
        expected = jax.vmap(lambda x: network(kernel, x))(x[:, None])
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("rule", [lrp.ZPlus(), lrp.AlphaBeta(), lrp.Gamma(0.25)])
@pytest.mark.parametrize("case", ["stride", "multiplied", "channels first", "turned"])
def test_prepared_kernels_serve_compiled_and_eager_calls(case, rule):
    convolve, x, kernel = convolution(case)
    batch = CASES[case][2][2].index("N")

    def network(kernel, x):
        y = jax.nn.relu(convolve(x, -2 * kernel))
        return jnp.moveaxis(y, batch, 0).reshape(len(x), -1)

    def relevance(kernel, x):
        return lrp.explain(network, rule, argnums=1)(kernel, x, target=1)

    def by_rows(kernel, x, several):
        return several(lambda row: relevance(kernel, row[None])[0], x)

    prepared, expected = lrp.prepare(network, rule, argnums=1)(kernel, x), relevance(kernel, x)
    for found in (
        relevance(prepared, x),
        jax.jit(relevance)(prepared, x),
        by_rows(prepared, x, lambda f, x: jax.vmap(f)(x)),
        by_rows(prepared, x, jax.lax.map),
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12 * abs(expected).max())


def test_prepared_kernels_are_shifted():
    prepared = lrp.prepare(separable, lrp.ZPlus(), argnums=1)(PARAMS, X)

    def step(params, x):
        return lrp.explain(separable, lrp.ZPlus(), argnums=1)(params, x, target=1)

    groups = re.findall(r"feature_group_count = (\d+)", jax.jit(step).lower(prepared, X).as_text())
    assert groups and set(groups) == {"1"}


def test_an_array_that_differs_by_device():
    """A manual axis stands in the type of an array, and the compiler keeps the convolution."""
    mesh = jax.make_mesh((1,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    spec, whole = jax.P("d"), jax.P()

    def relevance(params, x):
        return lrp.explain(separable, lrp.ZPlus(), argnums=1)(params, x, target=1)

    mapped = jax.shard_map(relevance, mesh=mesh, in_specs=(whole, spec), out_specs=spec)
    expected = jax.jit(relevance)(PARAMS, X)
    np.testing.assert_allclose(jax.jit(mapped)(PARAMS, X), expected, rtol=1e-10, atol=1e-12)


def test_a_prepared_kernel_stays_small():
    prepared = lrp.prepare(separable, lrp.ZPlus(), argnums=1)(PARAMS, X)
    given, held = (sum(x.size for x in jax.tree.leaves(p)) for p in (PARAMS, prepared))
    assert held <= 5 * given
    found = lrp.explain(separable, lrp.ZPlus(), argnums=1)(prepared, X, target=1)
    expected = lrp.explain(separable, lrp.ZPlus(), argnums=1)(PARAMS, X, target=1)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_narrow_numbers(dtype, monkeypatch):
    """The rule computes in float32 either way; only the order of sums differs."""
    cast = jax.tree.map(lambda v: v.astype(dtype), (PARAMS, X))
    explain = lrp.explain(separable, lrp.ZPlus(), argnums=1)
    found = jax.jit(lambda *args: explain(*args, target=1))(*cast)
    monkeypatch.setattr(depthwise, "_MOST_PLACES", 0)
    expected = jax.jit(lambda *args: explain(*args, target=1))(*cast)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6 * abs(expected).max())


@pytest.mark.parametrize("derivative", [False, True])
def test_memory(derivative, monkeypatch):
    """Shifted copies are not held: neither by a transpose nor for a derivative of the kernels."""
    stem, kernels = draw(3, 3, 3, 16), [draw(5, 5, 1, 16) for _ in range(3)]
    x = draw(1, 32, 32, 3)

    def network(kernels, x):
        def convolve(x, k, stride, groups):
            return jax.lax.conv_general_dilated(
                x, k, (stride, stride), "SAME", dimension_numbers=NHWC, feature_group_count=groups
            )

        x = jax.nn.relu(convolve(x, stem, 1, 1))
        for k in kernels:
            x = jax.nn.relu(convolve(x, k, 2, 16))
        return x.sum((1, 2))

    def bytes_of():
        def step(kernels, x):
            found = lrp.explain(network, lrp.AlphaBeta(), argnums=1)(kernels, x, target=1)
            return (found**2).sum() if derivative else found

        step = jax.grad(step) if derivative else step
        return jax.jit(step).lower(kernels, x).compile().memory_analysis().temp_size_in_bytes

    taken = bytes_of()
    monkeypatch.setattr(depthwise, "_MOST_PLACES", 0)
    assert taken < 1.5 * bytes_of()  # seven times while each transpose padded every copy


def test_an_explanation_that_is_explained(monkeypatch):
    """It is the convolution to another explanation."""

    def explained():
        @jax.jit
        def inner(x):
            found = lrp.explain(separable, lrp.Epsilon(1e-2), argnums=1)(PARAMS, x, target=1)
            return jnp.tanh(found).sum()

        return lrp.explain(inner, lrp.composites.gradient())(X[:1])

    found = explained()
    monkeypatch.setattr(depthwise, "_MOST_PLACES", 0)
    np.testing.assert_allclose(found, explained(), rtol=1e-9, atol=1e-13)
