"""LibraGrad and GIM: rule maps, compared with gradients in which constants are written by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.lax import stop_gradient as constant

import jaxlrp as lrp
from jaxlrp import composites

TOKENS, WIDTH, HEADS = 4, 6, 2
KEYS = iter(jax.random.split(jax.random.key(0), 16))
W = {n: jax.random.normal(next(KEYS), (WIDTH, WIDTH)) for n in "qkvogudw"}
BIAS = {n: jax.random.normal(next(KEYS), (WIDTH,)) for n in ("scale", "shift", "up")}
FAR = 3 * jax.random.normal(next(KEYS), (TOKENS, TOKENS))  # a bias of attention
CAUSAL = jnp.tril(jnp.ones((TOKENS, TOKENS), bool))
X = jax.random.normal(next(KEYS), (TOKENS, WIDTH))


def same(x):
    return x


def half(x):
    return constant(x / 2) + x / 2


class Plain:
    """The network's own parts."""

    divisor = weights = gate = factor = branch = staticmethod(same)
    softmax = staticmethod(jax.nn.softmax)


class Libra(Plain):
    divisor = weights = gate = staticmethod(constant)
    branch = staticmethod(half)


class Gim(Plain):
    divisor = staticmethod(constant)
    factor = branch = staticmethod(half)
    temperature = 2.0

    @classmethod
    def softmax(cls, scores):
        """The value of a softmax, the derivative of one at scores / temperature."""
        shifted = constant(scores / cls.temperature) + scores - constant(scores)
        softer = jax.nn.softmax(jnp.where(jnp.isfinite(scores), shifted, -jnp.inf))
        return constant(jax.nn.softmax(scores)) + softer - constant(softer)


def network(parts, biases=True):
    """A block of attention, a gated MLP and an MLP of GELUs, each behind a norm."""
    on = 1.0 if biases else 0.0

    def norm(x):
        centred = x - x.mean(-1, keepdims=True)
        root = jnp.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
        return centred / parts.divisor(root) * BIAS["scale"] + on * BIAS["shift"]

    def heads(x):
        return parts.factor(x.reshape(TOKENS, HEADS, WIDTH // HEADS))

    def gated(x, gate):
        return x * parts.gate(gate(x))

    def fn(x):
        h = norm(x)
        q, k, v = (heads(h @ W[n]) for n in "qkv")
        scores = jnp.einsum("qhd,khd->hqk", q, k) + FAR
        a = parts.weights(parts.softmax(jnp.where(CAUSAL, scores, -jnp.inf)))
        x = x + jnp.einsum("hqk,khd->qhd", parts.factor(a), v).reshape(TOKENS, WIDTH) @ W["o"]
        h = norm(x)
        left, right = gated(h @ W["g"], jax.nn.sigmoid), h @ W["u"] + on * BIAS["up"]
        x = x + (parts.branch(left) * parts.branch(right)) @ W["d"]
        h = norm(x) @ W["u"] + on * BIAS["up"]
        return (x + gated(h, jax.scipy.stats.norm.cdf) @ W["w"]).mean(0)

    return fn


RULES = {Libra: composites.libra_grad(), Gim: composites.gim()}


@pytest.mark.parametrize("parts", [Libra, Gim])
def test_input_times_the_modified_gradient(parts):
    R = jax.jit(lrp.explain(network(Plain), RULES[parts]))(X, target=2)
    modified = jax.jit(jax.grad(lambda x: network(parts)(x)[2]))(X)
    np.testing.assert_allclose(network(parts)(X), network(Plain)(X), rtol=1e-12)
    np.testing.assert_allclose(R, X * modified, rtol=1e-8, atol=1e-10)
    plain = jax.grad(lambda x: network(Plain)(x)[2])(X)
    assert np.abs(modified - plain).max() > 0.1 * np.abs(plain).max()


def test_the_gradient_itself_at_a_layer():
    fn = network(Plain)
    rules, layers = RULES[Libra], ["norm_1"]
    _, found = jax.jit(lrp.explain(fn, rules, layers=layers, what=("density", "relevance")))(X)
    ((_, asked),) = found.items()
    h = lrp.explain(fn, rules, layers=layers, what="value")(X)[1].popitem()[1]
    np.testing.assert_allclose(asked["density"] * h, asked["relevance"], rtol=1e-10, atol=1e-12)


def test_without_biases_libra_grad_has_the_whole_output():
    """Completeness, which the paper proves; the plain gradient x input misses it."""
    fn = network(Plain, biases=False)
    y = fn(X)
    R = jax.jit(lrp.explain(fn, RULES[Libra]))(X, target=1)
    np.testing.assert_allclose(R.sum(), y[1], rtol=1e-10)
    plain = lrp.methods.gradient_x_input(fn)(X, target=1)
    assert abs(plain.sum() - y[1]) > 0.1 * abs(y[1])


def test_differences_from_a_baseline():
    fn, x0 = network(Plain), 0.5 * X[::-1]
    R = jax.jit(lrp.explain(lambda d: fn(x0 + d), RULES[Gim]))(X - x0, target=0)
    modified = jax.grad(lambda x: network(Gim)(x)[0])(X)
    np.testing.assert_allclose(R, (X - x0) * modified, rtol=1e-8, atol=1e-10)


class TestTempered:
    x = jnp.array([3.0, -1.0, -jnp.inf, 0.5])

    @pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 5.0])
    def test_by_the_definition(self, temperature):
        finite = self.x[jnp.array([0, 1, 3])]
        weights = jnp.array([0.3, -1.0, 2.0])
        R = lrp.explain(jax.nn.softmax, {"softmax": lrp.Tempered(temperature)})(
            finite, target=weights
        )
        p = np.exp(finite / temperature) / np.exp(finite / temperature).sum()
        J = np.diag(p) - np.outer(p, p)
        np.testing.assert_allclose(R, finite * (J @ weights), rtol=1e-9)

    def test_what_is_masked_gets_nothing(self):
        R = lrp.explain(jax.nn.softmax, {"softmax": lrp.Tempered()})(self.x, target=0)
        assert R[2] == 0
        assert np.all(np.isfinite(R))

    @pytest.mark.parametrize("temperature", [0, 0.0, -1.0, float("nan"), "2"])
    def test_refused(self, temperature):
        with pytest.raises(lrp.RuleError, match="temperature="):
            lrp.Tempered(temperature)

    def test_it_fits_a_softmax_alone(self):
        with pytest.raises(lrp.RuleError, match="Tempered"):
            lrp.explain(jnp.tanh, {"activation": lrp.Tempered()})(self.x)
