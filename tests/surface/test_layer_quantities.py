"""`what=`: relevance, value, density, inputs, bias of layers; functions of explained values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp as lrp

KEYS = jax.random.split(jax.random.key(0), 4)
W = jax.random.normal(KEYS[0], (5, 7))
V = jax.random.normal(KEYS[1], (7, 3))
b = jax.random.normal(KEYS[2], (7,))
x = jax.random.normal(KEYS[3], (2, 5))
WORDS = ("relevance", "value", "density", "inputs", "bias")


def network(x):
    return jax.nn.relu(x @ W + b) @ V


@pytest.mark.parametrize("jit", [False, True])
def test_each_word_says_what_it_is(jit):
    asked = lrp.explain(
        network, lrp.composites.lrp_zero(), layers=["dense", "activation"], what=WORDS
    )
    _, layers = (jax.jit(asked) if jit else asked)(x, target=1)
    first, relu = layers["dense_0"], layers["activation_0"]
    np.testing.assert_allclose(first["value"], x @ W + b)
    np.testing.assert_allclose(first["inputs"][0], x)
    np.testing.assert_allclose(first["bias"], np.broadcast_to(b, (2, 7)))
    np.testing.assert_allclose(relu["value"], jax.nn.relu(x @ W + b))
    np.testing.assert_allclose(relu["inputs"][0], x @ W + b)
    np.testing.assert_allclose(relu["bias"], np.zeros((2, 7)), atol=1e-15)
    np.testing.assert_allclose(relu["density"], np.broadcast_to(V[:, 1], (2, 7)))
    for quantities in layers.values():
        together = quantities["density"] * quantities["value"]
        np.testing.assert_allclose(together, quantities["relevance"], rtol=1e-12, atol=1e-12)


def test_one_word_returns_arrays_and_relevance_is_the_default():
    rules = lrp.composites.epsilon_plus_flat()
    _, by_default = lrp.explain(network, rules, layers=["dense"])(x, target=1)
    _, by_word = lrp.explain(network, rules, layers=["dense"], what="relevance")(x, target=1)
    assert sorted(by_default) == ["dense_0", "dense_1"]
    for name, R in by_default.items():
        np.testing.assert_array_equal(R, by_word[name])
    _, (_, values) = lrp.value_and_relevance(network, rules, layers=["dense_1"], what="value")(x)
    np.testing.assert_allclose(values["dense_1"], network(x))


def test_density_where_relevance_is_carried():
    """Flat below: relevance on the edge, and a density of 0 where the value is 0."""
    rules = lrp.RuleMap({"dense_1": lrp.Flat()})
    asked = lrp.explain(network, rules, layers=["activation"], what=("density", "relevance"))
    _, layers = asked(x, target=0)
    value = jax.nn.relu(x @ W + b)
    R, density = layers["activation_0"]["relevance"], layers["activation_0"]["density"]
    assert np.any(np.asarray(value) == 0)
    assert np.all(np.asarray(R) != 0)
    np.testing.assert_allclose(
        density, np.where(value == 0, 0, R / jnp.where(value == 0, 1, value))
    )


def test_asking_changes_no_relevance():
    rules = lrp.composites.epsilon_plus()
    plain = lrp.explain(network, rules)(x, target=1)
    asked, _ = lrp.explain(network, rules, layers=["**"], what=WORDS)(x, target=1)
    np.testing.assert_allclose(plain, asked, rtol=1e-12)


def test_curved_layers_have_a_bias_too():
    _, layers = lrp.explain(
        jnp.tanh, lrp.composites.gradient(), layers=["activation"], what="bias"
    )(x)
    expected = jnp.tanh(x) - x * (1 - jnp.tanh(x) ** 2)
    np.testing.assert_allclose(layers["activation_0"], expected, rtol=1e-12, atol=1e-14)


def test_in_a_scan_every_iteration_has_its_own():
    square = W @ W.T

    def looped(x):
        return jax.lax.scan(lambda h, _: (jnp.tanh(h @ square), None), x, None, length=3)[0]

    _, layers = lrp.explain(
        looped, lrp.composites.lrp_zero(), layers=["activation"], what=("value", "inputs")
    )(x)
    (found,) = layers.values()
    h = x
    for step in range(3):
        np.testing.assert_allclose(found["inputs"][0][step], h @ square)
        h = jnp.tanh(h @ square)
        np.testing.assert_allclose(found["value"][step], h)


def test_layer_values_vmap_and_differentiate():
    asked = lrp.explain(network, lrp.composites.lrp_zero(), layers=["activation"], what="value")
    mapped = jax.vmap(lambda x: asked(x)[1]["activation_0"])(x)
    np.testing.assert_allclose(mapped, asked(x)[1]["activation_0"])
    slope = jax.grad(lambda x: asked(x)[1]["activation_0"].sum())(x)
    np.testing.assert_allclose(slope, jax.grad(lambda x: jax.nn.relu(x @ W + b).sum())(x))


def test_an_unknown_word():
    with pytest.raises(lrp.InputError, match="what: 'values' was given; expected one of"):
        lrp.explain(network, lrp.Epsilon(), layers=["dense"], what="values")
    with pytest.raises(lrp.InputError, match="an empty tuple"):
        lrp.explain(network, lrp.Epsilon(), layers=["dense"], what=())


class TestGradient:
    """`composites.gradient` is the gradient, inside too."""

    def test_it_is_the_gradient(self):
        found = lrp.explain(network, lrp.composites.gradient())(x, target=2)
        np.testing.assert_allclose(found, jax.grad(lambda x: network(x)[:, 2].sum())(x))

    @pytest.mark.parametrize(
        "relu", [jax.nn.relu, lambda h: jnp.maximum(h, 0), lambda h: jnp.where(h > 0, h, 0)]
    )
    def test_a_relu_at_0_has_the_derivative_0_in_every_spelling(self, relu):
        zeros = jnp.zeros(3)
        rules = lrp.composites.gradient()
        np.testing.assert_array_equal(lrp.explain(relu, rules)(zeros), zeros)
        guided = lrp.composites.guided_backprop()
        np.testing.assert_array_equal(lrp.explain(relu, guided)(zeros), zeros)


class TestAsFunctionOf:
    def test_an_argument(self):
        value, run = lrp.as_function_of(lambda p, x: p["w"] * x)({"w": 2.0}, 3.0)
        assert value == {"w": 2.0}
        assert run({"w": 5.0}) == 15.0

    def test_several_arguments_with_aux(self):
        f = lrp.as_function_of(lambda a, b, c: (a * b * c, "aux"), argnums=(2, 0), has_aux=True)
        value, run = f(1.0, 2.0, 3.0)
        assert value == (3.0, 1.0)
        assert run((5.0, 7.0)) == (70.0, "aux")

    def test_values_inside(self):
        table = jax.random.normal(KEYS[0], (4, 5))
        tokens = jnp.array([1, 3])
        value, run = lrp.as_function_of(lambda t: network(table[t]), wrt="embed")(tokens)
        ((name, found),) = value.items()
        np.testing.assert_allclose(found, table[tokens])
        np.testing.assert_allclose(run(value), network(table[tokens]))
        np.testing.assert_allclose(run({name: x}), network(x), rtol=1e-12)
        slope = jax.grad(lambda v: run(v).sum())({name: x})[name]
        np.testing.assert_allclose(slope, jax.grad(lambda x: network(x).sum())(x), rtol=1e-12)

    def test_what_cannot_be_explained(self):
        with pytest.raises(lrp.InputError, match="has dtype int"):
            lrp.as_function_of(network)(jnp.arange(5))
        with pytest.raises(lrp.InputError, match="selects argument 1"):
            lrp.as_function_of(network, argnums=1)(x)
        _, run = lrp.as_function_of(lambda x: x, has_aux=True)(x)
        with pytest.raises(lrp.InputError, match="expected a pair"):
            run(x)


class TestOutputWeights:
    def test_classes_floats_and_none(self):
        out = jax.ShapeDtypeStruct((2, 3), jnp.float32)
        np.testing.assert_array_equal(lrp.output_weights(None, out), np.ones((2, 3)))
        hot = lrp.output_weights(jnp.array([2, 0]), out)
        np.testing.assert_array_equal(hot, [[0, 0, 1], [1, 0, 0]])
        np.testing.assert_array_equal(lrp.output_weights(np.eye(2, 3), out), np.eye(2, 3))

    def test_a_target_that_does_not_fit(self):
        with pytest.raises(lrp.TargetError, match="out of range"):
            lrp.output_weights(3, jnp.zeros((2, 3)))
