"""State-space models by other people, with random weights: Mamba-2 and RecurrentGemma."""

import functools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp as lrp

KINDS = """dense conv embed matmul product add activation softmax norm affine avg_pool max_pool
    reduce""".split()
# Compilation is most of the time that these tests take.
QUICK = {"xla_backend_optimization_level": 0}
VOCABULARY, STEPS, READ = 20, 7, 4  # the place whose logits are explained
TARGET = np.array([1, 2])

COMPOSITES = {
    "attn": lrp.composites.attn_lrp(),
    "cp": lrp.composites.cp_lrp(),
    "lstm": lrp.composites.lstm_lrp_all(),
}


@dataclass(frozen=True)
class Model:
    fn: Callable[[Any], jax.Array]
    """From parameters to logits of shape (batch, vocabulary)."""
    params: Any
    counts: Counter[str]


def tokens() -> jax.Array:
    return jnp.asarray(np.random.default_rng(3).integers(0, VOCABULARY, (2, STEPS)), "int32")


def layers(times: int = 1, **counts: int) -> Counter[str]:
    return Counter({kind: times * n for kind, n in counts.items()})


def randomise(tree: Any, dtype: str) -> Any:
    """Every floating leaf drawn anew; in each dtype the same numbers."""
    rng = np.random.default_rng(0)

    def leaf(a):
        if not jnp.issubdtype(a.dtype, jnp.floating):
            return a
        return jnp.asarray(rng.normal(size=a.shape) / np.sqrt(8.0), "float32").astype(dtype)

    return jax.tree.map(leaf, tree)


def mamba2(dtype: str, chunk: int, counts: Counter[str]) -> Model:
    pytest.importorskip("mamba2_jax", reason="written by others")
    from flax import nnx
    from mamba2_jax import modeling

    config = modeling.Mamba2Config(
        vocab_size=VOCABULARY,
        hidden_size=16,
        state_size=4,
        head_dim=8,
        chunk_size=chunk,
        num_hidden_layers=2,
    )
    graph, state = nnx.split(modeling.Mamba2ForCausalLM(config, rngs=nnx.Rngs(0)))

    def fn(state):
        return nnx.merge(graph, state, copy=True)(tokens())["logits"][:, READ]

    # For each layer: two projections, the first with the shift of dt; four taps of the convolution
    # and its bias, the scale of dt by A and the skip by D; SiLU twice, softplus and exp; x dt, and
    # the gate; the sums of the taps, of the skip, and the residual, and the difference of sums.
    layer = layers(2, dense=2, norm=2, affine=7, activation=4, product=2, add=4)
    return Model(fn, randomise(state, dtype), layer + layers(embed=1, norm=1, dense=1) + counts)


def mamba2_in_one_chunk(dtype: str) -> Model:
    # The decay times C B, which then meets x.
    return mamba2(dtype, 8, layers(2, matmul=2, product=1))


def mamba2_in_chunks(dtype: str) -> Model:
    # Between the chunks once more: decays to the end of a chunk, of a chunk, and from its start.
    return mamba2(dtype, 4, layers(2, matmul=5, product=3, activation=3, add=3))


def recurrent_gemma(dtype: str, scan: str, counts: Counter[str]) -> Model:
    pytest.importorskip("recurrentgemma", reason="written by others")
    from recurrentgemma import common
    from recurrentgemma.jax import griffin

    kinds = common.TemporalBlockType
    config = common.GriffinConfig(
        vocab_size=VOCABULARY,
        width=32,
        mlp_expanded_width=48,
        num_heads=4,
        block_types=(kinds.RECURRENT, kinds.ATTENTION),
        embeddings_scale_by_sqrt_dim=True,
        attention_window_size=4,
        logits_soft_cap=30.0,
        scan_type=common.ScanType[scan],
    )
    module = griffin.Griffin(config)
    places = jnp.tile(jnp.arange(STEPS, dtype="int32"), (2, 1))
    params = jax.eval_shape(lambda: module.init(jax.random.key(0), tokens(), places))

    def fn(params):
        return module.apply(params, tokens(), places, return_cache=False)[0][:, READ]

    return Model(fn, randomise(params, dtype), GRIFFIN + counts)


GRIFFIN = layers(dense=14, embed=1, matmul=2, softmax=1, norm=5)


def recurrent_gemma_scanned(dtype: str) -> Model:
    return recurrent_gemma(
        dtype, "LINEAR_NATIVE", layers(product=5, add=10, activation=8, affine=16)
    )


def recurrent_gemma_associative(dtype: str) -> Model:
    return recurrent_gemma(
        dtype, "ASSOCIATIVE_NATIVE", layers(product=9, add=15, activation=8, affine=16)
    )


BUILDERS = [
    mamba2_in_one_chunk,
    mamba2_in_chunks,
    recurrent_gemma_scanned,
    recurrent_gemma_associative,
]

pytestmark = [
    pytest.mark.third_party,
    pytest.mark.filterwarnings("default"),  # what these packages import warns of its own age
    pytest.mark.parametrize("build", BUILDERS, ids=lambda build: build.__name__),
]


@functools.cache
def load(build: Callable[[str], Model], dtype: str) -> Model:
    with jax.enable_x64(dtype == "float64"):
        return build(dtype)


@functools.cache
def explained(build: Callable[[str], Model], dtype: str, rules: str) -> tuple[Any, np.ndarray]:
    """The logits that were asked for, and the relevance of the embeddings."""
    with jax.enable_x64(dtype == "float64"):
        model = load(build, dtype)
        fn = lrp.value_and_relevance(model.fn, COMPOSITES[rules], wrt="embed")
        run = jax.jit(lambda params: fn(params, target=TARGET), compiler_options=QUICK)
        logits, relevance = run(model.params)
        (found,) = relevance.values()
        return np.take_along_axis(np.asarray(logits), TARGET[:, None], 1)[:, 0], np.asarray(found)


@pytest.mark.usefixtures("x32")
def test_plan_finds_every_layer(build):
    model = load(build, "float32")
    plan = lrp.plan(model.fn, COMPOSITES["cp"], wrt="embed")(model.params)
    found = {kind: plan.count(kind) for kind in KINDS if plan.count(kind)}
    assert found == model.counts, str(plan)


@pytest.mark.parametrize("rules", ["attn", "cp", "lstm"])
def test_single_precision_agrees_with_double(build, rules):
    # Single precision rounds at 6e-8. Weights of RecurrentGemma moved by that much in double
    # precision move its relevance by 2e-5, and those of Mamba-2 by 5e-7.
    bound = 1e-4 if "gemma" in build.__name__ else 1e-5
    value, relevance = explained(build, "float32", rules)
    exact_value, exact = explained(build, "float64", rules)
    np.testing.assert_allclose(value, exact_value, rtol=1e-4)
    assert np.isfinite(relevance).all()
    assert np.linalg.norm(exact) > 0
    assert np.linalg.norm(relevance - exact) <= bound * np.linalg.norm(exact)


def test_what_comes_later_gets_exactly_nothing(build):
    _, relevance = explained(build, "float64", "cp")
    assert relevance.shape[:2] == (2, STEPS)
    assert (np.abs(relevance[:, : READ + 1]).max(-1) > 0).any(0).all()
    assert not relevance[:, READ + 1 :].any()
