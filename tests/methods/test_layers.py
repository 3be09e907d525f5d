"""Methods that look at layers: class activation maps, FullGrad, attention rollout."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp as lrp
from jaxlrp import methods
from tests.methods_networks import STORED, cnn

PICTURES, CLASSES = jnp.asarray(STORED["cnn.x"]), jnp.asarray(STORED["cnn.target"])
LAST = lrp.last("activation")


@pytest.fixture(scope="module")
def last_layer():
    """Values and gradients of the last activation, from the stored weights alone."""
    A = STORED["cnn.layer_values"]
    head = STORED["cnn.head.weight"].reshape(3, 5, 4, 4)
    return A, head[np.asarray(CLASSES)]


class TestCams:
    def test_grad_cam_plus_plus(self, last_layer):
        A, g = last_layer
        below = 2 * g**2 + g**3 * A.sum((2, 3), keepdims=True)
        weights = (g**2 / below * np.maximum(g, 0)).sum((2, 3), keepdims=True)
        expected = np.maximum((weights * A).sum(1), 0)
        R = jax.jit(methods.grad_cam_plus_plus(cnn, LAST, layout="NCHW"))(PICTURES, target=CLASSES)
        np.testing.assert_allclose(R, expected, rtol=1e-9, atol=1e-12)

    def test_layer_cam(self, last_layer):
        A, g = last_layer
        R = jax.jit(methods.layer_cam(cnn, LAST, layout="NCHW"))(PICTURES, target=CLASSES)
        expected = np.maximum((np.maximum(g, 0) * A).sum(1), 0)
        np.testing.assert_allclose(R, expected, rtol=1e-9, atol=1e-12)

    def test_size_aux_and_both_signs(self, last_layer):
        A, g = last_layer
        method = methods.grad_cam(
            lambda x: (cnn(x), x[0, 0, 0, 0]),
            LAST,
            has_aux=True,
            layout="NCHW",
            relu=False,
            size=(8, 8),
        )
        R, aux = jax.jit(method)(PICTURES, target=CLASSES)
        assert aux == PICTURES[0, 0, 0, 0]
        coarse = (g.mean((2, 3), keepdims=True) * A).sum(1)
        np.testing.assert_allclose(R, jax.image.resize(coarse, (2, 8, 8), "bilinear"), atol=1e-12)
        assert R.min() < 0

    def test_one_example_without_a_batch(self, last_layer):
        R = methods.layer_cam(lambda x: cnn(x[None])[0], LAST, layout="NCHW")
        assert jax.eval_shape(lambda x: R(x, target=1), PICTURES[0]).shape == (1, 4, 4)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"layer": "activation"}, "matches 2 layers"),
            ({"layout": "NHW"}, "with H, W and C"),
            ({"layout": "HWC"}, "names 3 axes"),
            ({"size": (8,)}, "a height and a width"),
        ],
    )
    def test_refused(self, change, message):
        options = {"layer": LAST, "layout": "NCHW", **change}
        with pytest.raises(lrp.InputError, match=message):
            jax.eval_shape(lambda x: methods.grad_cam(cnn, **options)(x, target=CLASSES), PICTURES)

    def test_guided_grad_cam_needs_a_picture_of_the_layout(self):
        with pytest.raises(lrp.InputError, match="must name the axes of the explained picture"):
            jax.eval_shape(methods.guided_grad_cam(cnn, LAST, layout="HWC"), PICTURES)


class TestFullGrad:
    def test_the_parts_sum_to_the_score(self):
        def curved(x):
            return jnp.tanh(cnn(x)) * cnn(x)[:, ::-1]

        def parts(x):
            return methods.full_grad(curved, parts=True)(x, target=CLASSES)

        of_input, of_layers = jax.jit(parts)(PICTURES)
        total = of_input.sum() + sum(b.sum() for b in of_layers.values())
        score = np.asarray(jax.jit(curved)(PICTURES))[np.arange(2), np.asarray(CLASSES)].sum()
        np.testing.assert_allclose(total, score, rtol=1e-10)

    def test_the_map(self):
        R = jax.jit(methods.full_grad(cnn, layout="NCHW"))(PICTURES, target=CLASSES)
        assert R.shape == (2, 8, 8)
        assert np.all(R >= 0)

        def picture(term):
            term = np.abs(term)
            low, high = (g(term, axis=(1, 2, 3), keepdims=True) for g in (np.min, np.max))
            term = (term - low) / np.where(high > low, high - low, 1)
            return np.asarray(jax.image.resize(term, (*term.shape[:2], 8, 8), "bilinear")).sum(1)

        of_input, of_layers = jax.jit(methods.full_grad(cnn, parts=True))(PICTURES, target=CLASSES)
        maps = [picture(of_input), *(picture(b) for b in of_layers.values() if b.ndim == 4)]
        np.testing.assert_allclose(R, sum(maps), rtol=1e-9, atol=1e-12)

    def test_refused(self):
        with pytest.raises(lrp.InputError, match="expected one array with these axes"):
            jax.eval_shape(methods.full_grad(lambda x: x.sum(0)), jnp.ones((3, 2)))


def attend(x, W):
    scores = jnp.einsum("tid,sid->its", (x @ W).reshape(5, 2, 2), x.reshape(5, 2, 2))
    A = jax.nn.softmax(scores)
    return A, x + jnp.einsum("its,sid->tid", A, x.reshape(5, 2, 2)).reshape(5, 4)


class TestRollout:
    W = jax.random.normal(jax.random.key(0), (3, 4, 4))
    x = jax.random.normal(jax.random.key(1), (5, 4))

    def expected(self):
        h, rollout = self.x, jnp.eye(5)
        for W in self.W:
            A, h = attend(h, W)
            rollout = (0.5 * np.eye(5) + 0.5 * A.mean(0)) @ rollout
        return rollout

    def test_written_out_or_scanned(self):
        def unrolled(x):
            for W in self.W:
                x = attend(x, W)[1]
            return x

        def scanned(x):
            return jax.lax.scan(lambda h, W: (attend(h, W)[1], None), x, self.W)[0]

        for f in (unrolled, scanned):
            R = jax.jit(methods.attention_rollout(f))(self.x)
            np.testing.assert_allclose(R, jax.jit(self.expected)(), rtol=1e-9)
            np.testing.assert_allclose(R.sum(-1), np.ones(5), rtol=1e-9)

    def test_refused(self):
        with pytest.raises(lrp.InputError, match="no softmax layer with square matrices"):
            jax.eval_shape(methods.attention_rollout(lambda x: x * 2), self.x)
        without_heads = methods.attention_rollout(lambda x: jax.nn.softmax(x @ x.T) @ x)
        with pytest.raises(lrp.InputError, match="give heads=None"):
            jax.eval_shape(without_heads, self.x)
        with pytest.raises(lrp.InputError, match="residual=2"):
            methods.attention_rollout(lambda x: x, residual=2)
