"""Many targets of one input: what does not depend on the target is computed once."""

import re

import jax
import jax.numpy as jnp
import pytest

import jaxlrp as lrp
from tests.compare import assert_close
from tests.cost_networks import NETWORKS

FN, PARAMS, _ = NETWORKS["convolutional"]
X = jax.ShapeDtypeStruct((1, 16, 16, 3), jnp.float32)
TARGETS = jax.ShapeDtypeStruct((100,), jnp.int32)
LAYERS, SPLIT = 4, 3  # of which the convolutions take a second product, for their denominators
RULES = lrp.composites.epsilon_plus()


def relevance(params, x, target):
    def positive(params, x):
        return FN(params, jax.nn.sigmoid(x))

    return lrp.explain(positive, RULES, argnums=1)(params, x, target=target[None])


def mapped(params, x, targets):
    return jax.vmap(lambda t: relevance(params, x, t))(targets)


def in_batches(params, x, targets):
    return jax.lax.map(lambda t: relevance(params, x, t), targets, batch_size=10)


@pytest.fixture
def compiled(x32):
    def make(step, *args):
        return jax.jit(step).lower(*args).compile()

    return make


def products(computations, name):
    """Products in a computation of a compiled program, with those that it calls."""
    text = computations[name]
    called = re.findall(r"(?:calls|to_apply|body)=%?([\w.\-]+)", text)
    own = len(re.findall(r"[\s)}] (?:dot|convolution)\(", text))
    return own + sum(products(computations, other) for other in called)


def computations_of(program):
    parts = (part.strip() for part in program.as_text().split("\n\n"))
    return {re.match(r"(?:ENTRY )?%?([\w.\-]+)", part)[1]: part for part in parts if part}


def test_the_loop_over_targets_runs_the_backward_products_alone(compiled):
    computations = computations_of(compiled(in_batches, PARAMS, X, TARGETS))
    bodies = set(re.findall(r"body=%?([\w.\-]+)", "".join(computations.values())))
    (entry,) = (n for n, text in computations.items() if text.startswith("ENTRY"))
    assert max(products(computations, body) for body in bodies) == LAYERS
    assert products(computations, entry) == 2 * LAYERS + SPLIT


def test_a_hundred_targets_cost_less_than_forty_explanations(compiled):
    """In a wider network, where most operations are those of products."""
    kernels = [(3, 3, 3, 64), *[(3, 3, 64, 64)] * 2]
    wide = {"kernels": kernels, "b": (64,), "head": (256, 10)}
    params = jax.tree.map(
        lambda s: jax.ShapeDtypeStruct(s, jnp.float32), wide, is_leaf=lambda s: type(s) is tuple
    )
    one = compiled(relevance, params, X, jax.ShapeDtypeStruct((), jnp.int32))
    many = compiled(mapped, params, X, TARGETS)
    assert many.cost_analysis()["flops"] <= 40 * one.cost_analysis()["flops"]


def test_memory_is_bounded_by_the_batch(compiled):
    sizes = [
        compiled(step, PARAMS, X, TARGETS).memory_analysis().temp_size_in_bytes
        for step in (mapped, in_batches)
    ]
    assert sizes[1] <= sizes[0] / 5


def test_the_relevance_is_that_of_each_target():
    keys = iter(jax.random.split(jax.random.key(0), 99))
    draw = lambda a: jax.random.normal(next(keys), a.shape)  # noqa: E731
    params, x = jax.tree.map(draw, PARAMS), draw(X)
    targets = jnp.arange(7)
    expected = jnp.stack([relevance(params, x, t) for t in targets])
    for step in (mapped, in_batches):
        assert_close(jax.jit(step)(params, x, targets), expected, 1e-10)
