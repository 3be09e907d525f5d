"""bfloat16 and float16 networks get float32 relevance; their own numbers stay as they are."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp as lrp
from tests import networks

LOW = [jnp.bfloat16, jnp.float16]
RULES = ["lrp_zero", "epsilon_plus_flat", "epsilon_alpha2_beta1"]


class Net(nn.Module):
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x):
        kw = {"dtype": self.dtype, "param_dtype": self.dtype}
        x = nn.relu(nn.Conv(8, (3, 3), **kw)(x))
        x = nn.max_pool(x, (2, 2), (2, 2))
        x = x + nn.gelu(nn.Conv(8, (3, 3), **kw)(x))
        x = nn.LayerNorm(**kw)(x)
        return nn.Dense(3, **kw)(x.mean((1, 2)))


def cast(tree, dtype):
    return jax.tree.map(lambda a: a.astype(dtype), tree)


def setup(dtype):
    x = jax.random.normal(jax.random.key(1), (2, 8, 8, 3), jnp.float32).astype(dtype)
    params = cast(Net(dtype).init(jax.random.key(0), x), dtype)
    return params, x


def cosine(a, b):
    a, b = np.asarray(a, float).ravel(), np.asarray(b, float).ravel()
    return a @ b / np.sqrt((a @ a) * (b @ b))


@pytest.mark.usefixtures("x32")
@pytest.mark.parametrize("dtype", LOW)
@pytest.mark.parametrize("composite", RULES)
def test_low_precision_networks(dtype, composite):
    params, x = setup(dtype)
    rules = getattr(lrp.composites, composite)()
    fn = lambda p, x: Net(dtype).apply(p, x)  # noqa: E731
    both = jax.jit(lrp.value_and_relevance(fn, rules, argnums=1))
    value, relevance = both(params, x, target=1)
    assert value.dtype == dtype
    assert relevance.dtype == jnp.float32
    # The network's own numbers; XLA may leave out a rounding in a fusion, one way or the other.
    own = np.asarray(jax.jit(fn)(params, x), float)
    np.testing.assert_allclose(np.asarray(value, float), own, rtol=4 * float(jnp.finfo(dtype).eps))
    wide = lambda p, x: Net(jnp.float32).apply(p, x)  # noqa: E731
    exact = jax.jit(lrp.explain(wide, rules, argnums=1))(
        cast(params, jnp.float32), x.astype(jnp.float32), target=1
    )
    # The activations are rounded to 8 (11) bits, so the relevance differs by that, no more.
    assert cosine(relevance, exact) > (0.98 if dtype == jnp.bfloat16 else 0.999)


@pytest.mark.usefixtures("x32")
@pytest.mark.parametrize("dtype", LOW)
def test_conservation_in_low_precision(dtype):
    """Sums of relevance keep float32's accuracy: nothing on the way back is rounded to 8 bits."""
    w = jax.random.normal(jax.random.key(0), (64, 32), jnp.float32).astype(dtype)
    v = jax.random.normal(jax.random.key(1), (32, 4), jnp.float32).astype(dtype)
    x = jax.random.normal(jax.random.key(2), (5, 64), jnp.float32).astype(dtype)

    def fn(x):
        return jax.nn.relu(x @ w) @ v

    ledger = lrp.ledger(fn, lrp.Epsilon(1e-3))(x)
    # One product's output is rounded to its dtype; R is split by the unrounded contributions.
    unit = float(jnp.finfo(dtype).eps)
    assert abs(ledger.conservation - 1) < 8 * unit


@pytest.mark.usefixtures("x32")
def test_float16_does_not_overflow_on_the_way_back():
    w = jnp.full((4, 4), 1e-4, jnp.float16)
    x = jnp.full((1, 4), 1e-3, jnp.float16)
    relevance = lrp.explain(lambda x: jnp.tanh(x @ w) * 1e4, lrp.Epsilon(0.0))(x)
    assert jnp.isfinite(relevance).all()
    assert relevance.sum() > 0


@pytest.mark.usefixtures("x32")
def test_float32_agrees_with_float64():
    pack = networks.load("zennit_cnn")
    params = networks.tree(pack, "params/")
    single = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), params)
    rules = lrp.composites.epsilon_gamma_box(-3.0, 3.0)
    fn = jax.jit(lrp.explain(networks.cnn, rules, argnums=1))
    relevance = fn(single, jnp.asarray(pack["input"], jnp.float32), target=pack["target"])
    stored = pack["composite/epsilon_gamma_box/none/input"]
    distance = np.linalg.norm(relevance - stored) / np.linalg.norm(stored)
    assert relevance.dtype == jnp.float32
    assert distance < 1e-3  # near-cancelling denominators amplify float32's 6e-8
