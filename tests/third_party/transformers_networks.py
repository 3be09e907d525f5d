"""Attention models by other people, with random weights: what their builders have in common.

Every builder takes the name of a dtype and returns an `Attention`: a function `fn(params, x, ...)`
that ends in logits, its arguments, what is explained, and the number of layers of each kind that
one finds by reading the architecture. All are two layers deep, with 32 features in four heads.
"""

import contextlib
import importlib
import types
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from .networks import CLASSES, draw

LAYERS, HEADS, WIDTH, INNER = 2, 4, 32, 48
VOCABULARY = 100
READ = 4  # the place whose logits a causal model gives


@dataclass(frozen=True)
class Attention:
    """A model to explain: `fn(*args)` gives logits of shape (batch, classes)."""

    fn: Callable[..., jax.Array]
    args: tuple[Any, ...]
    """The parameters, and what the model is fed with."""
    counts: Counter[str]
    """Layers of each kind."""
    embeddings: tuple[str, ...] = ()
    """Ends of the names of the explained embeddings; with none, the first input is explained."""
    unseen: tuple[str, np.ndarray] | None = None
    """A part of the names of embeddings, and which of their places the logits do not depend on."""
    loses: str | None = None
    """The one kind of layer that loses relevance under cp_lrp without biases, and why."""

    @property
    def explained(self) -> dict[str, Any]:
        return {"wrt": "embed"} if self.embeddings else {"argnums": 1}


Fn = Callable[..., jax.Array]
BUILDERS: dict[str, Callable[[str], Attention]] = {}


def attention(build: Callable[[str], Attention]) -> Callable[[str], Attention]:
    """Registers a builder, which takes the name of a dtype, under its own name."""
    BUILDERS[build.__name__] = build
    return build


# --- what the architectures are made of -----------------------------------------------------------


def layers(times: int = 1, **counts: int) -> Counter[str]:
    return Counter({kind: times * n for kind, n in counts.items()})


# Query, key, value and output; scores and weighted values are products of two explained values.
ATTEND = layers(dense=4, matmul=2, softmax=1)
# A mask, or a bias for relative positions, that is added to the scores.
MASK = layers(affine=1)
MLP = layers(dense=2, activation=1)
GATED_MLP = layers(dense=3, activation=1, product=1)
# One skip connection with one norm, before or after what it skips.
SKIP = layers(add=1, norm=1)
# Rotation by position of query and key: each is x * cos + turned(x) * sin.
ROTATE = layers(2, affine=2, add=1)


def block(*parts: Counter[str], depth: int = LAYERS) -> Counter[str]:
    """`depth` times the parts."""
    return sum(parts * depth, Counter())


# Attention, then an MLP, each with a skip and a norm before or behind it.
BLOCKS = block(ATTEND, SKIP, MLP, SKIP)
MASKED_BLOCKS = block(ATTEND, MASK, SKIP, MLP, SKIP)


# --- transformers: random weights, inputs ---------------------------------------------------------


def tokens(length: int, batch: int = 2, seed: int = 3) -> jax.Array:
    """Identifiers without the special ones, which stand at the beginning."""
    return jnp.asarray(np.random.default_rng(seed).integers(4, VOCABULARY - 1, (batch, length)))


def later(length: int) -> np.ndarray:
    """True behind the place that is read, in two samples."""
    return np.tile(np.arange(length) > READ, (2, 1))


def normal(shape: tuple[int, ...], dtype: str, seed: int = 1) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), dtype)


def randomise(tree: Any, dtype: str) -> Any:
    """Draws every leaf of a tree of shapes; in each dtype the same numbers."""
    rng = np.random.default_rng(0)

    def leaf(path, aval):
        names = [str(getattr(key, "key", getattr(key, "name", key))) for key in path]
        names = [name for name in names if name != "value"]  # what NNX wraps an array in
        if "embed" in names[-1] or "token" in names[-1]:
            value = rng.standard_normal(aval.shape)
        elif names[-1].startswith("lambda"):  # the scale of a branch
            value = rng.uniform(0.5, 1.5, aval.shape)
        else:
            value = draw("/".join(names), aval.shape, "float32", rng)
        return jnp.asarray(np.asarray(value, np.float32), dtype)

    return jax.tree_util.tree_map_with_path(leaf, tree)


@contextlib.contextmanager
def mended(module: types.ModuleType, dtype: str) -> Iterator[None]:
    """Lets the code of a model compute in `dtype` where it insists on float32.

    Also gives `jnp.clip` its old arguments back, which T5 uses and JAX no longer has.
    """

    def clip(x, min=None, max=None, *, a_max=None):
        return jnp.clip(x, min, max if a_max is None else a_max)

    def array(x, dtype=None, **kwargs):
        return jnp.array(x, dtype=single if dtype == "f4" else dtype, **kwargs)

    single = jnp.dtype(dtype)
    before = module.jnp
    names = {**vars(jnp), "float32": single, "clip": clip, "array": array}
    module.jnp = types.SimpleNamespace(**names)
    try:
        yield
    finally:
        module.jnp = before


def build(
    name: str,
    dtype: str,
    config: Any,
    logits: Callable[[Any], jax.Array],
    inputs: tuple[str, ...] = ("input_ids",),
    fixed: dict[str, Any] | None = None,
    **kwargs: Any,
) -> tuple[Fn, Any]:
    """The model `name` as a function of its parameters and `inputs`, and the parameters."""
    transformers = pytest.importorskip("transformers")
    transformers.logging.set_verbosity_error()
    cls = getattr(transformers, name)
    module = importlib.import_module(cls.__module__)
    with mended(module, dtype):
        model = cls(config, dtype=jnp.dtype(dtype), _do_init=False, **kwargs)
    params = randomise(model.params_shape_tree, dtype)

    def fn(params, *values):
        fed = dict(zip(inputs, values, strict=True))
        with mended(module, dtype):
            return logits(model(**fed, **(fixed or {}), params=params))

    return fn, params


def config(name: str, **options: Any) -> Any:
    """A small configuration; the packages have several words for the same size."""
    transformers = pytest.importorskip("transformers")
    sizes = {"vocab_size": VOCABULARY, "hidden_size": WIDTH, "num_attention_heads": HEADS}
    sizes |= {"num_hidden_layers": LAYERS, "intermediate_size": INNER}
    sizes |= {"max_position_embeddings": 64, "num_labels": CLASSES}
    return getattr(transformers, f"{name}Config")(**{**sizes, **options})
