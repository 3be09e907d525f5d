"""DeepLIFT conserves the difference from the reference, through every kind of layer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp as lrp
from jaxlrp import methods
from tests.methods_networks import STORED, cnn, mlp

KEYS = jax.random.split(jax.random.key(0), 8)
X, BASELINE, TARGET = (jnp.asarray(STORED[f"mlp.{k}"]) for k in ("x", "baseline", "target"))
W = jax.random.normal(KEYS[0], (6, 6)) / 2
V = jax.random.normal(KEYS[1], (6, 6)) / 2


def gated(x):
    return jax.nn.silu(x @ W) * (x @ V)


def attention(x):
    q, k = x @ W, x @ V
    return jax.nn.softmax(q @ k.T) @ x


def normalised(x):
    h = x @ W
    h = (h - h.mean(-1, keepdims=True)) / jnp.sqrt(h.var(-1, keepdims=True) + 1e-2)
    return jax.nn.gelu(h) @ V


def pooled(x):
    return jnp.max((x @ W).reshape(-1, 3, 2), axis=-1)


EXACT = {"gated": gated, "pooled": pooled, "relu": mlp("relu"), "tanh": mlp("tanh")}


@pytest.mark.parametrize("name", EXACT)
def test_it_conserves_the_difference(name):
    f = EXACT[name]
    R, gap = jax.jit(methods.deep_lift(f, baseline=BASELINE, gap=True, examples=1))(X)
    np.testing.assert_allclose(gap, np.zeros(len(X)), atol=1e-12)
    x0 = jnp.broadcast_to(BASELINE, X.shape)
    difference = jax.jit(lambda x, x0: (f(x) - f(x0)).sum(-1))(X, x0)
    np.testing.assert_allclose(R.sum(-1), difference, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("f", "tolerance"), [(attention, 1e-5), (normalised, 1e-3)])
def test_softmax_and_norms_conserve_up_to_their_quadrature(f, tolerance):
    R, gap = jax.jit(methods.deep_lift(f, baseline=0.5 * X[::-1], gap=True))(X)
    assert abs(gap) < tolerance * np.abs(R).sum()


def test_where_the_gradient_is_0_it_is_not():
    """The paper's example: 1 - relu(1 - x1 - x2) is flat at (1, 1)."""

    def f(x):
        return 1 - jax.nn.relu(1 - x.sum())

    x = jnp.array([1.0, 1.0])
    np.testing.assert_array_equal(jax.jit(methods.gradient(f))(x), [0.0, 0.0])
    np.testing.assert_allclose(jax.jit(methods.deep_lift(f))(x), [0.5, 0.5])


class TestRevealCancel:
    def test_the_minimum_of_two_is_shared(self):
        """The paper's example: x1 - relu(x1 - x2) is the minimum; rescale gives all to one."""
        A = jnp.array([[1.0, 1.0], [0.0, -1.0]])

        def f(x):
            h = x @ A
            return h[0] - jax.nn.relu(x @ A[:, 1])

        x = jnp.array([3.0, 2.0])
        np.testing.assert_allclose(jax.jit(methods.deep_lift(f))(x), [0.0, 2.0], atol=1e-12)
        R = jax.jit(methods.deep_lift(f, rule="reveal_cancel"))(x)
        np.testing.assert_allclose(R, [1.0, 1.0])

    def test_it_conserves_in_networks(self):
        method = methods.deep_lift(
            cnn, baseline=STORED["cnn.baseline"], rule="reveal_cancel", gap=True, examples=1
        )
        R, gap = jax.jit(method)(STORED["cnn.x"], target=STORED["cnn.target"])
        np.testing.assert_allclose(gap, np.zeros(2), atol=1e-12)
        rescaled = jax.jit(methods.deep_lift(cnn, baseline=STORED["cnn.baseline"]))
        assert np.abs(R - rescaled(STORED["cnn.x"], target=STORED["cnn.target"])).max() > 1e-3

    def test_one_relu_by_hand(self):
        w, c, x, x0 = np.array([2.0, -1.0, 0.5]), -0.2, np.array([1.0, 1.5, -1.0]), np.zeros(3)
        products = w * (x - x0)
        p, q = products[products > 0].sum(), products[products < 0].sum()

        def f(z):
            return max(z, 0.0)

        plus = (f(c + p) - f(c) + f(c + p + q) - f(c + q)) / 2
        minus = (f(c + q) - f(c) + f(c + p + q) - f(c + p)) / 2
        expected = np.where(products > 0, products * plus / p, products * minus / q)
        # A matrix of one column, so that the layer is dense; an array, so that c is its bias.
        matrix, bias = jnp.asarray(w)[:, None], jnp.array([c])

        def layer(x):
            return jax.nn.relu(x @ matrix + bias)

        R = jax.jit(methods.deep_lift(layer, rule="reveal_cancel"))(jnp.asarray(x))
        np.testing.assert_allclose(R, expected)


class TestDeepShap:
    def test_it_is_the_mean_over_references(self):
        f = mlp("relu")
        references = jnp.asarray(STORED["mlp.references"])

        @jax.jit
        def one(reference):
            return methods.deep_lift(f, baseline=reference)(X, target=TARGET)

        R = jax.jit(methods.deep_shap(f, references=references[:2], batch=1))(X, target=TARGET)
        np.testing.assert_allclose(R, np.mean([one(r) for r in references[:2]], 0), rtol=1e-9)


class TestErrors:
    def test_an_unknown_rule(self):
        with pytest.raises(lrp.InputError, match="rule='linear': expected 'rescale'"):
            methods.deep_lift(gated, rule="linear")

    def test_a_layer_inside_a_loop(self):
        def looped(x):
            return jax.lax.scan(lambda h, _: (jnp.tanh(h @ W), None), x, None, length=2)[0]

        with pytest.raises(lrp.InputError, match="is inside a loop or a branch"):
            jax.eval_shape(methods.deep_lift(looped), X)

    def test_a_layer_inside_a_branch(self):
        """The reference might take the other branch."""

        def branched(x):
            return jax.lax.cond(x.sum() > 0, jnp.tanh, lambda x: x, x)

        with pytest.raises(lrp.InputError, match="is inside a loop or a branch"):
            jax.eval_shape(methods.deep_lift(branched), X)

    def test_references_that_do_not_fit(self):
        with pytest.raises(lrp.InputError, match=r"references of shape \(4, 5\)"):
            jax.eval_shape(methods.deep_shap(gated, references=np.ones((4, 5))), X)
