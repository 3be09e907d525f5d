"""x + f(x) is a sum of two branches, wherever in a chain of elementwise functions it stands.

The slow reference is the same function with f in a `scan` of one step: nothing grows through it.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxlrp as lrp
from tests.numpy_jaxpr import in_numpy

jax.config.update("jax_enable_x64", True)


def array(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).normal(size=shape)


W, V, X = array(4, 5), array(5, 3, seed=1), array(6, 4, seed=2)


def kinds(fn):
    return [layer.kind for layer in lrp.plan(fn, lrp.Epsilon(0.0))(X).layers]


def apart(f):
    """A function that runs as a loop of one step."""
    return lambda x: lax.scan(lambda c, _: (f(c), None), x, None, length=1)[0]


def three(h, g):
    return (h + g) + 0.3 * g * g


def residual(s):
    return s + jnp.tanh(s)


FUNCTIONS = {
    "square": lambda h: h * h,
    "square of the negative": lambda h: (-h) * (-h),
    "gelu": lambda h: jax.nn.gelu(h, approximate=False),
    "approximate gelu": jax.nn.gelu,
    "leaky relu": lambda h: jax.nn.leaky_relu(h, 0.1),
    "tanh": jnp.tanh,
    "softplus by its parts": lambda h: jnp.maximum(h, 0.0) + jnp.log1p(jnp.exp(-jnp.abs(h))),
}
# What joins h and f(h), h being `before` of a dense layer, and what stands behind the sum.
JOINED = {
    "the sum": lambda h, f: h + f(h),
    "the other order": lambda h, f: f(h) + h,
    "the difference": lambda h, f: h - f(h),
    "twice the sum": lambda h, f: 2 * (h + f(h)),
    "the sum, turned": lambda h, f: -(h + f(h)),
    "three terms": lambda h, f: three(h, f(h)),
    "a residual of a residual": lambda h, f: residual(h + f(h)),
}
BEHIND = {
    "nothing": lambda s: s,
    "softplus": jax.nn.softplus,
    "log1p of exp": lambda s: jnp.log1p(jnp.exp(s)),
    "tanh of a scale": lambda s: jnp.tanh(0.4 * s),
    "gelu": lambda s: jax.nn.gelu(s),
    "a literal scale": lambda s: 0.3 * s,
}
RULES = {
    "excitation": lrp.composites.excitation_backprop(),
    "a stabilised sum": lrp.RuleMap({"add": lrp.Epsilon(0.3), "dense": lrp.Epsilon(0.1)}),
    "positive sums": lrp.RuleMap({"add": lrp.ZPlus(), "dense": lrp.Epsilon(0.1)}),
}


CASES = [
    *((join, "gelu", "softplus", "sine") for join in JOINED),
    *(("the sum", "gelu", behind, "dense") for behind in BEHIND),
    *(("three terms", "square", behind, "sine") for behind in BEHIND),
    *(("the sum", f, "log1p of exp", "sine") for f in FUNCTIONS),
]


@pytest.mark.parametrize(("join", "f", "behind", "before"), CASES)
def test_a_sum_of_branches_is_a_sum_wherever_it_stands(join, f, behind, before):
    def network(f, x):
        h = x @ W if before == "dense" else jnp.sin(x @ W)
        return BEHIND[behind](JOINED[join](h, f)) @ V

    for name, rules in RULES.items():
        fn = lrp.explain(functools.partial(network, FUNCTIONS[f]), rules)
        reference = lrp.explain(functools.partial(network, apart(FUNCTIONS[f])), rules)
        a, b = in_numpy(lambda x: (fn(x), reference(x)))(X)
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-9 * np.abs(b).max(), err_msg=name)


def test_the_plan_has_a_row_for_the_sum():
    def fn(x):
        h = x @ W
        return jax.nn.softplus(h + jax.nn.gelu(h)) @ V

    assert kinds(fn) == ["dense", "activation", "add", "activation", "dense"]
    assert kinds(lambda x: (x @ W + jax.nn.gelu(x @ W)) @ V)[-2:] == ["add", "dense"]


ADDED = {
    "what vanishes far out": lambda h: h + jnp.exp(-h * h),
    "scaled branches": lambda h: 0.5 * h + jnp.tanh(h),
    "scaled branches, scaled": lambda h: 0.7 * (0.5 * h + 3 * jnp.tanh(h)),
}


@pytest.mark.parametrize("name", ADDED)
def test_what_is_plainly_added_is_a_sum(name):
    assert kinds(lambda x: jax.nn.softplus(ADDED[name](x @ W)) @ V).count("add") == 1


@pytest.mark.parametrize("f", [jax.nn.silu, lambda h: 0.5 * h * (1 + jnp.tanh(0.5 * h))])
def test_a_scale_makes_no_activation_of_a_plain_sum(f):
    """0.5 * (h + h) is h, which no activation holds."""
    names = kinds(lambda x: (lambda h: f(h + h) @ V)(x @ W))
    assert names == ["dense", "add", "activation", "dense"]


WHOLE = {
    "half of x and |x|": lambda h: (h + jnp.abs(h)) / 2,
    "the same, distributed": lambda h: 0.5 * h + 0.5 * jnp.abs(h),
    "leaky relu": lambda h: 0.1 * h + 0.9 * jax.nn.relu(h),
    "leaky relu of a scaled value": lambda h: (lambda v: 0.1 * v + 0.9 * jax.nn.relu(v))(
        h * jnp.tanh(h) * (1 / 6)
    ),
    "squareplus": lambda h: 0.5 * (h + jnp.sqrt(h * h + 4)),
    "gelu by its parts": lambda h: 0.5 * h + 0.5 * h * lax.erf(h / np.sqrt(2)),
    "approximate gelu": jax.nn.gelu,
    "mish": jax.nn.mish,
    "logaddexp": lambda h: jnp.logaddexp(h, 0.0),
}


@pytest.mark.parametrize("behind", BEHIND)
@pytest.mark.parametrize("name", WHOLE)
def test_an_activation_that_adds_is_whole(name, behind):
    def fn(x):
        return BEHIND[behind](WHOLE[name](x @ W)) @ V

    assert "add" not in kinds(fn)


@pytest.mark.parametrize("depth", [3, 40])
def test_elementwise_residuals_are_sums_at_any_depth(depth):
    def fn(x):
        h = x @ W
        for _ in range(depth):
            h = h + 0.1 * jnp.tanh(h)
        return h @ V

    assert kinds(fn).count("add") == depth
