"""A product of two active values that is summed: an activation among the factors stays whole."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxlrp as lrp
from tests.compare import assert_close
from tests.numpy_jaxpr import in_numpy

RNG = np.random.default_rng(0)
X, W, V = RNG.normal(size=(2, 3, 4)), RNG.normal(size=(4, 4)), RNG.normal(size=(4, 4))
RULES = {
    "cp": lrp.composites.cp_lrp(),
    "attn": lrp.composites.attn_lrp(),
    "gamma": lrp.Gamma(0.25),
    "zplus": lrp.ZPlus(),
}
SPELLINGS = {
    "sigmoid": [
        jax.nn.sigmoid,
        lambda u: 0.5 * (jnp.tanh(0.5 * u) + 1),
        lambda u: (jnp.tanh(u / 2) + 1) / 2,
        lambda u: 0.5 * jnp.tanh(0.5 * u) + 0.5,
    ],
    "silu": [
        jax.nn.silu,
        lambda u: 0.5 * u * (jnp.tanh(0.5 * u) + 1),
        lambda u: u * (0.5 * (jnp.tanh(0.5 * u) + 1)),
        lambda u: 0.5 * u + 0.5 * u * jnp.tanh(0.5 * u),
    ],
    "gelu": [
        lambda u: jax.nn.gelu(u, approximate=False),
        lambda u: 0.5 * u * (1 + lax.erf(u / 2**0.5)),
        lambda u: u * (1 + lax.erf(u / 2**0.5)) / 2,
    ],
}


@pytest.mark.parametrize("rules", RULES.values(), ids=RULES.keys())
@pytest.mark.parametrize("name", SPELLINGS)
def test_the_last_number_of_an_activation_is_no_factor(name, rules):
    def relevance(f, total):
        return in_numpy(lrp.explain(lambda x: total(f(x @ W), x @ V), rules))(X)

    totals = [
        lambda a, b: (a * b).mean(1),
        lambda a, b: jnp.einsum("bti,bti->bi", b, a) / 3,
    ]
    plain, *others = SPELLINGS[name]
    expected = relevance(plain, totals[0])
    for total in totals:
        for other in (plain, *others):
            assert_close(relevance(other, total), expected)
