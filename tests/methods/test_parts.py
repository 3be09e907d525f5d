"""Methods that replace parts of the input: occlusion, RISE, KernelSHAP, LIME."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp as lrp
from jaxlrp import methods
from jaxlrp.methods.least_squares import fit

KEY = jax.random.key(0)


def f(x):
    """Two scores of six numbers, with products, so that parts depend on one another."""
    return jnp.stack([x[0] * x[1] + x[2] * x[3] * x[4], x.sum() * x[5]])


x = jnp.array([1.0, -2.0, 0.5, 3.0, 2.0, -1.0])
batch = jnp.stack([x, x[::-1], 2 * x])
many = jax.vmap(f)
score = jax.jit(f)  # for the tests' own evaluations


def shapley(score, x, x0, segments):
    """By the definition, over all orders."""
    score = jax.jit(score)
    count = segments.max() + 1
    values = np.zeros(count)
    for order in itertools.permutations(range(count)):
        there = np.zeros(count, bool)
        before = score(x0)
        for player in order:
            there[player] = True
            after = score(jnp.where(there[segments], x, x0))
            values[player] += after - before
            before = after
    return (values / math.factorial(count))[segments]


class TestKernelShap:
    segments = np.array([0, 1, 1, 2, 3, 3])

    def test_all_coalitions_give_the_definition(self):
        x0 = jnp.full(6, 0.25)
        method = methods.kernel_shap(f, segments=self.segments, baseline=x0)
        R = jax.jit(method)(x, target=0, key=KEY)
        expected = shapley(lambda v: f(v)[0], x, x0, self.segments)
        np.testing.assert_allclose(R, expected, rtol=1e-9)

    def test_samples_sum_up_and_come_near(self):
        segments = np.arange(6)
        exact = jax.jit(methods.kernel_shap(f, segments=segments))(x, target=1, key=KEY)
        sampled = jax.jit(methods.kernel_shap(f, segments=segments, samples=40, batch=64))
        R = sampled(x, target=1, key=KEY)
        np.testing.assert_allclose(R.sum(), score(x)[1] - score(0 * x)[1], rtol=1e-9)
        assert np.linalg.norm(R - exact) < 0.3 * np.linalg.norm(exact)

    def test_each_example_has_values_of_its_own(self):
        options = {"segments": self.segments, "samples": 14}
        R = jax.jit(methods.kernel_shap(many, **options, examples=1))(batch, target=1, key=KEY)
        one = jax.jit(methods.kernel_shap(f, **options))
        for n in range(3):
            np.testing.assert_allclose(R[n], one(batch[n], target=1, key=KEY), rtol=1e-8)

    def test_one_segment_has_it_all(self):
        R = jax.jit(methods.kernel_shap(f, segments=np.zeros(6, int)))(x, target=0, key=KEY)
        np.testing.assert_allclose(R, np.full(6, score(x)[0]))


class TestLime:
    def test_a_linear_function_is_found(self):
        w = jnp.arange(1.0, 7.0)
        method = methods.lime(lambda x: w @ x + 3, segments=np.arange(6), samples=64)
        R = jax.jit(method)(x, key=KEY)
        np.testing.assert_allclose(R, w * x, rtol=1e-8)

    def test_a_ridge_shrinks_it_but_not_the_intercept(self):
        options = {"segments": np.arange(6), "samples": 64}
        R = jax.jit(methods.lime(lambda x: x.sum() + 100, **options, ridge=1e3))(x, key=KEY)
        np.testing.assert_allclose(R, np.zeros(6), atol=1e-2)


class TestLeastSquares:
    def test_it_is_numpys(self):
        rng = np.random.default_rng(0)
        A, y, w = rng.normal(size=(20, 4)), rng.normal(size=(20, 3)), rng.uniform(size=20)
        root = np.sqrt(w)[:, None]
        expected = np.linalg.lstsq(root * A, root * y, rcond=None)[0]
        np.testing.assert_allclose(jax.jit(fit)(A, y, w), expected, rtol=1e-9)

    def test_a_column_of_zeros_has_the_coefficient_0(self):
        A = np.array([[1.0, 0.0], [2.0, 0.0]])
        found = jax.jit(fit)(A, np.array([2.0, 4.0]), np.ones(2))
        np.testing.assert_allclose(found, [2.0, 0.0])


class TestOcclusion:
    def test_every_window_is_counted_once(self):
        R = jax.jit(methods.occlusion(f, window=(2,)))(x, target=0)
        without = np.array(
            [np.where((i <= np.arange(6)) & (np.arange(6) < i + 2), 0, x) for i in range(5)]
        )
        lost = np.asarray(score(x)[0] - jax.jit(many)(without)[:, 0])
        expected = [np.mean(lost[max(0, i - 1) : i + 1]) for i in range(6)]
        np.testing.assert_allclose(R, expected)

    def test_the_last_window_reaches_over_the_border(self):
        R = jax.jit(methods.occlusion(lambda x: x.sum(), window=(4,), stride=4))(x)
        np.testing.assert_allclose(R, [x[:4].sum()] * 4 + [x[4:].sum()] * 2)

    def test_examples(self):
        R = jax.jit(methods.occlusion(many, window=(1,), examples=1))(batch, target=0)
        one = jax.jit(methods.occlusion(f, window=(1,)))
        np.testing.assert_allclose(R, [one(row, target=0) for row in batch])

    def test_segments_of_each_example(self):
        segments = np.array([[0, 0, 0, 1, 1, 1], [0, 1, 0, 1, 0, 1], [0, 0, 0, 0, 0, 1]])

        @jax.jit
        def one(segments, x):
            return methods.occlusion(f, segments=segments, n_segments=2)(x, target=0)

        R = jax.jit(methods.occlusion(many, segments=segments, examples=1))(batch, target=0)
        for n in range(3):
            np.testing.assert_allclose(R[n], one(segments[n], batch[n]))


class TestRise:
    def test_what_counts_is_seen(self):
        picture = jnp.ones((12, 12, 1))

        def corner(x):
            return x[:4, :4].sum() / 16

        R = jax.jit(methods.rise(corner, cells=4, samples=600, batch=100))(picture, key=KEY)
        assert R.shape == picture.shape
        # Within the corner the expected score is that of masks that show it.
        assert R[1:3, 1:3].mean() > R[6:, 6:].mean() + 0.15
        np.testing.assert_allclose(R[6:, 6:].mean(), 0.5, atol=0.1)

    def test_a_constant_score_gives_a_constant_map(self):
        method = methods.rise(lambda x: 2.0 + 0 * x.sum(), samples=20)
        R = jax.jit(method)(jnp.ones((6, 6)), key=KEY)
        np.testing.assert_allclose(R, np.full((6, 6), 2.0))


class TestErrors:
    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: methods.occlusion(f), "needs a window or segments"),
            (lambda: methods.occlusion(f, window=(2, 2))(x), "one number for each axis"),
            (lambda: methods.occlusion(f, window=(2,), stride=3)(x), "it leaves gaps"),
            (lambda: methods.occlusion(many, window=(1, 1))(jnp.ones((3, 6))), "say examples=1"),
            (lambda: methods.occlusion(f, segments=np.ones(5, int))(x), "must broadcast"),
            (lambda: methods.occlusion(f, segments=np.ones(6))(x), "expected integers"),
            (lambda: methods.occlusion(f, segments=np.full(6, -1))(x), "expected 0 or more"),
            (
                lambda: methods.lime(f, segments=np.arange(6), n_segments=3)(x, key=KEY),
                "less than n_segments=3",
            ),
            (
                lambda: jax.jit(lambda s: methods.lime(f, segments=s)(x, key=KEY))(np.arange(6)),
                "say how many there are with n_segments",
            ),
            (lambda: methods.lime(f, segments=np.arange(6))(x), "lime draws random numbers"),
            (lambda: methods.lime(f, segments=np.arange(6), width=0.0), "width=0.0"),
            (
                lambda: methods.kernel_shap(
                    lambda p: p["a"] + p["b"], segments=np.arange(6)
                )({"a": x, "b": x}, key=KEY),
                "needs one explained array",
            ),
            (lambda: methods.rise(f, keep=1.0), "keep=1.0: expected a probability"),
            (lambda: methods.rise(f)(x, key=KEY), "rise: layout=None for an input"),
        ],
    )  # fmt: skip
    def test_refused(self, make, message):
        with pytest.raises(lrp.InputError, match=message):
            jax.eval_shape(make)
