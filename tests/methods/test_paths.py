"""Gradients, integrated and expected gradients, Taylor decomposition, noise."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp as lrp
from jaxlrp import methods
from tests.methods_networks import STORED, mlp

X, BASELINE, TARGET = (jnp.asarray(STORED[f"mlp.{k}"]) for k in ("x", "baseline", "target"))
smooth, hard = mlp("tanh"), mlp("relu")


def chosen(f, x=X):
    return np.asarray(jax.jit(f)(x))[np.arange(len(x)), np.asarray(TARGET)]


class TestSensitivity:
    def test_it_sums_to_the_squared_norm_of_the_gradient(self):
        R = jax.jit(methods.sensitivity(smooth))(X, target=TARGET)
        gradient = jax.jit(jax.vmap(jax.grad(lambda x, n: smooth(x)[n])))(X, TARGET)
        np.testing.assert_allclose(R.sum(-1), (np.asarray(gradient) ** 2).sum(-1), rtol=1e-12)
        assert np.all(R >= 0)


class TestIntegratedGradients:
    def test_complete_to_1e_5_on_a_smooth_network_with_64_nodes(self):
        f = methods.integrated_gradients(smooth, baseline=BASELINE, steps=64, gap=True, examples=1)
        R, gap = jax.jit(f)(X, target=TARGET)
        difference = chosen(smooth) - chosen(smooth, jnp.broadcast_to(BASELINE, X.shape))
        np.testing.assert_allclose(R.sum(-1), difference, atol=1e-5)
        np.testing.assert_allclose(gap, difference - R.sum(-1), atol=1e-14)
        assert np.abs(gap).max() < 1e-10

    @pytest.mark.parametrize("rule", ["gauss_legendre", "riemann_middle"])
    def test_the_gap_of_a_relu_network_closes_with_the_steps(self, rule):
        gaps = []
        for steps in (8, 64, 512):
            f = methods.integrated_gradients(
                hard, baseline=BASELINE, steps=steps, rule=rule, gap=True, examples=1, batch=64
            )
            gaps.append(np.abs(jax.jit(f)(X, target=TARGET)[1]).max())
        assert gaps[1] < gaps[0] / 2
        assert gaps[2] < gaps[1] / 2
        assert gaps[2] < 1e-3

    @pytest.mark.parametrize("steps", [1, 4, 64])
    def test_peer_mistake_the_baseline_itself_is_no_node(self, steps):
        """A ReLU layer from zero is homogeneous: R is exact, not (steps - 1) / steps of it."""

        def layer(x):
            return jax.nn.relu(2 * x)

        @jax.jit
        def three(x):
            # The rule that asks for that node does lose it, and says so by its gap.
            return [
                methods.integrated_gradients(layer, steps=n, rule=rule, gap=True)(x)
                for rule, n in (
                    ("gauss_legendre", steps),
                    ("riemann_middle", steps),
                    ("riemann_left", 64),
                )
            ]

        x = jnp.array([1.0, 3.0])
        *exact, (R, gap) = three(x)
        for found, _ in exact:
            np.testing.assert_allclose(found, 2 * x, rtol=1e-12)
        np.testing.assert_allclose(R, 2 * x * 63 / 64, rtol=1e-12)
        np.testing.assert_allclose(gap, 2 * x.sum() / 64, rtol=1e-12)

    def test_peer_mistake_the_baseline_is_not_changed_and_the_sign_is_right(self):
        baseline = np.full((1, 6), 0.5)
        f = jax.jit(methods.integrated_gradients(smooth, baseline=baseline))
        first, second = f(X, target=TARGET), f(X, target=TARGET)
        np.testing.assert_array_equal(baseline, np.full((1, 6), 0.5))
        np.testing.assert_array_equal(first, second)
        linear = jax.jit(methods.integrated_gradients(lambda x: 3 * x, baseline=1.0))
        np.testing.assert_allclose(linear(jnp.array([3.0, 0.0])), [6.0, -3.0], rtol=1e-12)

    def test_several_baselines_are_averaged(self):
        starts = STORED["mlp.references"]
        several = methods.integrated_gradients(smooth, baselines=starts, gap=True, examples=1)

        @jax.jit
        def one(start):
            return methods.integrated_gradients(smooth, baseline=start)(X, target=TARGET)

        R, gap = jax.jit(several)(X, target=TARGET)
        np.testing.assert_allclose(R, np.mean([one(b) for b in starts], 0), rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(gap, np.zeros(4), atol=1e-10)

    def test_a_path_of_ones_own(self):
        def curve(x, x0, a):
            return x0 + a**2 * (x - x0) + 0.1 * jnp.sin(jnp.pi * a)

        def line(x, x0, a):
            return x0 + a * (x - x0)

        @jax.jit
        def three(x):
            f = methods.integrated_gradients(smooth, path=curve, gap=True, examples=1)
            straight = methods.integrated_gradients(smooth)(x, target=TARGET)
            same = methods.integrated_gradients(smooth, path=line)(x, target=TARGET)
            return f(x, target=TARGET), straight, same

        (R, gap), straight, same = three(X)
        np.testing.assert_allclose(gap, np.zeros(4), atol=1e-10)
        assert np.abs(R - straight).max() > 1e-3
        np.testing.assert_allclose(same, straight, rtol=1e-12)

    @pytest.mark.parametrize("batch", [1, 3, 7, 64, 100])
    def test_the_batch_changes_nothing(self, batch):
        def explained(batch):
            f = methods.integrated_gradients(smooth, steps=20, batch=batch)
            return f(X, target=TARGET)

        R, expected = jax.jit(lambda: (explained(batch), explained(20)))()
        np.testing.assert_allclose(R, expected, rtol=1e-11, atol=1e-14)

    def test_no_more_than_a_batch_is_evaluated_at_a_time(self):
        f = methods.integrated_gradients(lambda x: (x**2).sum(), steps=10, batch=4)
        traced = jax.make_jaxpr(f)(jnp.ones(3))
        rounds = {e.params["length"] for e in traced.eqns if e.primitive.name == "scan"}
        assert rounds == {3}
        widest = max(map(int, re.findall(r"f\d+\[(\d+),3\]", str(traced))))
        assert widest == 4

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"steps": 0}, "steps=0: expected an integer of at least 1"),
            ({"steps": 2.5}, "steps=2.5: expected an integer"),
            ({"batch": 0}, "batch=0"),
            ({"rule": "simpson"}, "rule='simpson': expected one of 'gauss_legendre'"),
            ({"baseline": np.ones(5)}, r"baseline of shape \(5,\) was given for values of shape"),
            ({"baseline": {"a": 1}}, "baseline has the structure"),
            ({"baselines": np.ones((3, 5))}, r"baselines of shape \(3, 5\)"),
            ({"baseline": 1.0, "baselines": np.ones((3, 6))}, "give one of them"),
            ({"gap": True, "examples": 3}, "examples=3: the first 3 axes"),
            ({"gap": True, "examples": -1}, "examples=-1: expected the number of leading axes"),
        ],
    )
    def test_refused(self, change, message):
        with pytest.raises(lrp.InputError, match=message):
            jax.eval_shape(lambda: methods.integrated_gradients(smooth, **change)(X, target=TARGET))


class TestExpectedGradients:
    def test_it_comes_near_the_mean_of_integrated_gradients(self):
        references = STORED["mlp.references"]
        exact = methods.integrated_gradients(smooth, baselines=references, batch=100)
        exact = jax.jit(exact)(X, target=TARGET)
        f = methods.expected_gradients(smooth, references=references, samples=2000, batch=100)
        R = jax.jit(f)(X, target=TARGET, key=jax.random.key(0))
        assert np.linalg.norm(R - exact) < 0.02 * np.linalg.norm(exact)

    def test_linear_functions_are_exact_where_every_reference_counts_alike(self):
        references = jnp.arange(8.0).reshape(4, 2)
        f = methods.expected_gradients(lambda x: 3 * x, references=references, samples=8)
        R = jax.jit(f)(jnp.array([1.0, 2.0]), key=jax.random.key(1))
        np.testing.assert_allclose(R, 3 * (np.array([1.0, 2.0]) - np.asarray(references).mean(0)))

    def test_without_a_key(self):
        f = methods.expected_gradients(smooth, references=STORED["mlp.references"])
        with pytest.raises(lrp.InputError, match=r"give key=jax.random.key\(0\)"):
            jax.eval_shape(f, X)


class TestTaylor:
    @staticmethod
    def f(x):
        return (x**2).sum(-1, keepdims=True) - 1

    x = jnp.array([[2.0, 0.0], [1.0, 2.0]])

    @pytest.mark.parametrize("search", ["ray", "steps"])
    def test_each_example_has_its_root(self, search):
        method = methods.simple_taylor(self.f, search=search, expansion=True, examples=1)
        R, found = jax.jit(method)(self.x)
        np.testing.assert_allclose(found.value, np.zeros(2), atol=1e-8)
        # The nearest point of the unit circle, and the remainder |x - x0|^2 of a square.
        x = np.asarray(self.x)
        nearest = x / np.linalg.norm(x, axis=-1, keepdims=True)
        np.testing.assert_allclose(found.root, nearest, atol=1e-8)
        np.testing.assert_allclose(R, (x - nearest) * 2 * nearest, atol=1e-7)
        rest = ((x - nearest) ** 2).sum(-1)
        np.testing.assert_allclose(found.remainder, rest, atol=1e-7)

    def test_a_root_that_is_given(self):
        method = methods.simple_taylor(self.f, root=np.array([[1.0, 0.0]]), expansion=True)
        R, found = jax.jit(method)(self.x[:1])
        np.testing.assert_allclose(R, [[2.0, 0.0]])
        np.testing.assert_allclose(found.remainder, 1.0)

    def test_where_there_is_no_root_the_value_says_so(self):
        method = methods.simple_taylor(lambda x: (x**2).sum() + 1, expansion=True)
        _, found = jax.jit(method)(jnp.array([2.0, 1.0]))
        np.testing.assert_allclose(found.value, 1.0)
        np.testing.assert_allclose(found.root, np.zeros(2))

    def test_of_several_roots_the_nearest(self):
        method = methods.simple_taylor(lambda x: jnp.sin(x), expansion=True)
        _, found = jax.jit(method)(jnp.array(7.0))
        np.testing.assert_allclose(found.root, 2 * np.pi, rtol=1e-8)

    def test_refused(self):
        with pytest.raises(lrp.InputError, match="search='line': expected 'ray' or 'steps'"):
            methods.simple_taylor(self.f, search="line")


class TestNoise:
    def test_smooth_grad_of_a_square_is_the_gradient_at_the_mean(self):
        x = jnp.array([1.0, -2.0])
        f = methods.smooth_grad(
            methods.gradient(lambda x: x**2), samples=4000, noise=0.5, relative=False, batch=1000
        )
        np.testing.assert_allclose(jax.jit(f)(x, key=jax.random.key(0)), 2 * x, atol=0.05)

    def test_var_grad_of_a_square_is_four_variances(self):
        x = jnp.array([1.0, -2.0])
        f = methods.var_grad(
            methods.gradient(lambda x: x**2), samples=4000, noise=0.5, relative=False, batch=1000
        )
        np.testing.assert_allclose(jax.jit(f)(x, key=jax.random.key(0)), [1.0, 1.0], rtol=0.1)

    def test_both_see_the_same_samples(self):
        calls = methods.gradient(lambda x: x**3)
        options = {"samples": 5, "noise": 0.3, "relative": False, "batch": 2}
        key, x = jax.random.key(3), jnp.array([0.5, 1.0])

        def drawn(key):
            """The draw of one sample, as the methods make it for one array."""
            (key,) = jax.random.split(key, 1)
            (key,) = jax.random.split(key, 1)
            return x + 0.3 * jax.random.normal(key, (2,))

        @jax.jit
        def both_and_draws(key):
            smooth, var = (m(calls, **options) for m in (methods.smooth_grad, methods.var_grad))
            return smooth(x, key=key), var(x, key=key), jax.vmap(drawn)(jax.random.split(key, 5))

        mean, variance, noisy = both_and_draws(key)
        gradients = 3 * np.asarray(noisy) ** 2
        np.testing.assert_allclose(mean, gradients.mean(0))
        np.testing.assert_allclose(variance, gradients.var(0))

    def test_around_lrp_without_noise_it_is_lrp(self):
        explained = lrp.explain(hard, lrp.composites.epsilon_plus())
        f = methods.smooth_grad(explained, samples=3, noise=0.0)
        R = jax.jit(f)(X, target=TARGET, key=jax.random.key(0))
        np.testing.assert_allclose(R, jax.jit(explained)(X, target=TARGET), rtol=1e-9)

    def test_noise_is_a_share_of_each_examples_range(self):
        x = jnp.array([[0.0, 1.0], [0.0, 100.0]])

        def moved(x):
            return x

        options = {"samples": 500, "noise": 0.1, "batch": 500}
        R = jax.jit(methods.var_grad(moved, **options, examples=1))(x, key=jax.random.key(0))
        np.testing.assert_allclose(np.sqrt(R[:, 0]), [0.1, 10.0], rtol=0.15)

    def test_refused(self):
        f = methods.smooth_grad(methods.gradient(hard))
        with pytest.raises(lrp.InputError, match="smooth_grad draws random numbers"):
            f(X)
        with pytest.raises(lrp.InputError, match="noise=-1"):
            methods.smooth_grad(methods.gradient(hard), noise=-1)
        with pytest.raises(lrp.InputError, match="selects argument 3"):
            methods.smooth_grad(methods.gradient(hard), argnums=3)(X, key=jax.random.key(0))
