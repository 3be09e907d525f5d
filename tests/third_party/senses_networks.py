"""Attention models for pictures and sound, and the attention layers of other packages."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from .networks import CLASSES, picture
from .transformers_networks import (
    ATTEND,
    BLOCKS,
    HEADS,
    INNER,
    LAYERS,
    MASK,
    MASKED_BLOCKS,
    MLP,
    READ,
    SKIP,
    VOCABULARY,
    WIDTH,
    Attention,
    attention,
    block,
    build,
    config,
    later,
    layers,
    normal,
    randomise,
    tokens,
)

# --- pictures -------------------------------------------------------------------------------------

IMAGE, PATCH = 16, 8
# Patches with the positions as their bias, behind the class token (static: it takes its share),
# blocks, a last norm, and the classes.
VIT = layers(conv=1) + BLOCKS + layers(norm=1, dense=1)


def vision(name: str, dtype: str, counts: Any, **options: Any) -> Attention:
    sizes = {"image_size": IMAGE, "patch_size": PATCH}
    fn, params = build(
        f"Flax{name}ForImageClassification",
        dtype,
        config(name, **{**sizes, **options}),
        lambda output: output.logits,
        ("pixel_values",),
    )
    pixels = picture((2, 3, IMAGE, IMAGE), dtype)
    # Concatenation passes on what arrives at the patches, not what arrives at the class token.
    return Attention(fn, (params, pixels), counts, loses="structural")


@attention
def vit(dtype: str) -> Attention:
    return vision("ViT", dtype, VIT)


@attention
def beit(dtype: str) -> Attention:
    # no positions at the bottom, but relative ones added to the scores; the mean of the patches
    counts = VIT + block(MASK) + layers(avg_pool=1)
    options = {"use_relative_position_bias": True, "layer_scale_init_value": 0.1}
    return vision("Beit", dtype, counts, use_mean_pooling=True, **options)


@attention
def dinov2(dtype: str) -> Attention:
    # the classes read the class token beside the mean of the patches
    return vision("Dinov2", dtype, VIT + layers(avg_pool=1))


# Each side of CLIP ends in a norm, a projection, and a division by the vector's length; what the
# other side made of its input is static, so the product of the two is a dense layer.
CLIP_SIDE = BLOCKS + layers(norm=2, dense=2)


LAST = VOCABULARY - 1  # the token whose place stands for the whole text


def clip(dtype: str, output: str, inputs: tuple[str, ...], fixed: dict[str, Any]):
    sizes = {"hidden_size": WIDTH, "intermediate_size": INNER, "num_hidden_layers": LAYERS}
    sizes |= {"num_attention_heads": HEADS}
    words = {"vocab_size": VOCABULARY, "max_position_embeddings": 20, "eos_token_id": LAST}
    pixels = {"image_size": IMAGE, "patch_size": PATCH}
    options = {"text_config": sizes | words, "vision_config": sizes | pixels, "projection_dim": 16}
    transformers = pytest.importorskip("transformers")
    whole = transformers.CLIPConfig(**options)
    mask = jnp.ones((3, 7), int)
    fixed = {**fixed, "attention_mask": mask}
    return build("FlaxCLIPModel", dtype, whole, lambda o: o[output], inputs, fixed)


def captions() -> jax.Array:
    """Three texts of seven tokens; in the last of them two tokens follow its end."""
    return tokens(7, batch=3).at[jnp.arange(3), jnp.array([6, 6, 4])].set(LAST)


@attention
def clip_pixels(dtype: str) -> Attention:
    """Which of three texts a picture is like, by pixels."""
    fixed = {"input_ids": captions()}
    fn, params = clip(dtype, "logits_per_image", ("pixel_values",), fixed)
    # one more norm below the blocks
    counts = layers(conv=1, norm=1) + CLIP_SIDE
    pixels = picture((2, 3, IMAGE, IMAGE), dtype)
    return Attention(fn, (params, pixels), counts, loses="structural")


@attention
def clip_words(dtype: str) -> Attention:
    """Which of two pictures a text is like, by words."""
    fixed = {"pixel_values": picture((2, 3, IMAGE, IMAGE), dtype)}
    fn, params = clip(dtype, "logits_per_text", ("input_ids",), fixed)
    counts = layers(embed=2, add=1) + CLIP_SIDE + block(MASK)
    names = ("token_embedding", "position_embedding")
    behind = np.arange(7) > np.array([6, 6, 4])[:, None]
    return Attention(fn, (params, captions()), counts, names, unseen=("", behind))


# --- sound ----------------------------------------------------------------------------------------


def whisper(dtype: str, inputs: tuple[str, ...], fixed: dict[str, Any]):
    options: dict[str, Any] = {"d_model": WIDTH, "num_mel_bins": 8}
    for s in ("encoder", "decoder"):
        options |= {f"{s}_layers": LAYERS, f"{s}_attention_heads": HEADS, f"{s}_ffn_dim": INNER}
    options |= {"max_source_positions": 12, "max_target_positions": 12, "pad_token_id": 1}
    options |= {"bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 3}
    sized = config("Whisper", **options)
    name = "FlaxWhisperForConditionalGeneration"
    shape = (1, 8, 24)  # of the features
    return build(name, dtype, sized, lambda o: o.logits[:, -1], inputs, fixed, input_shape=shape)


@attention
def whisper_sound(dtype: str) -> Attention:
    """The next word, by the sound so far."""
    fn, params = whisper(dtype, ("input_features",), {"decoder_input_ids": tokens(4)})
    # two convolutions with GELU, positions, blocks, a norm
    encoder = layers(conv=2, activation=2, affine=1) + BLOCKS + layers(norm=1)
    # In the first block of the decoder sound comes in with key and value of the second attention:
    # the query is static (the scores are a dense layer), and so is what the result is added to.
    first = layers(dense=4, matmul=1, softmax=1) + MLP + SKIP
    others = block(ATTEND, MASK, SKIP, ATTEND, SKIP, MLP, SKIP, depth=LAYERS - 1)
    counts = encoder + first + others + layers(norm=1, dense=1)
    return Attention(fn, (params, normal((2, 8, 24), dtype)), counts)


@attention
def whisper_words(dtype: str) -> Attention:
    """The next word, by the words before."""
    fn, params = whisper(
        dtype, ("decoder_input_ids",), {"input_features": normal((2, 8, 24), dtype)}
    )
    # key and value of the second attention are static: only query and output are its layers, and
    # two dense ones by static matrices, the scores and the weighted values
    across = layers(dense=4, softmax=1)
    counts = layers(embed=2, add=1) + block(ATTEND, MASK, SKIP, across, SKIP, MLP, SKIP)
    counts += layers(norm=1, dense=1)
    names = ("embed_tokens", "embed_positions")
    # attention over what is not explained is no product of two explained values: Taylor
    return Attention(fn, (params, tokens(4)), counts, names, loses="softmax")


@attention
def wav2vec2(dtype: str) -> Attention:
    """Letters at one moment, by the wave."""
    frames = {"conv_dim": (16, 16), "conv_kernel": (10, 3), "conv_stride": (5, 2)}
    frames |= {"num_feat_extract_layers": 2, "feat_extract_norm": "layer", "conv_bias": True}
    frames |= {"num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 4}
    sized = config("Wav2Vec2", do_stable_layer_norm=True, **frames)
    fn, params = build(
        "FlaxWav2Vec2ForCTC", dtype, sized, lambda o: o.logits[:, READ], ("input_values",)
    )
    # Two convolutions with norm and GELU; norm and projection; positions by a convolution with
    # GELU, added; blocks with a mask (of nothing); norm; letters.
    counts = layers(2, conv=1, norm=1, activation=1) + layers(norm=1, dense=1)
    counts += layers(conv=1, activation=1, add=1) + MASKED_BLOCKS + layers(norm=1, dense=1)
    return Attention(fn, (params, normal((2, 200), dtype)), counts)


# --- other packages -------------------------------------------------------------------------------


@attention
def nnx_attention(dtype: str) -> Attention:
    """Blocks of flax.nnx.MultiHeadAttention under a causal mask."""
    from flax import nnx

    def options(rngs):
        return {"dtype": jnp.dtype(dtype), "param_dtype": jnp.dtype(dtype), "rngs": rngs}

    class Block(nnx.Module):
        def __init__(self, rngs):
            self.norms = nnx.List([nnx.LayerNorm(WIDTH, **options(rngs)) for _ in range(2)])
            self.attend = nnx.MultiHeadAttention(HEADS, WIDTH, decode=False, **options(rngs))
            self.inner = nnx.Linear(WIDTH, INNER, **options(rngs))
            self.outer = nnx.Linear(INNER, WIDTH, **options(rngs))

        def __call__(self, x):
            mask = nnx.make_causal_mask(x[..., 0])
            x = x + self.attend(self.norms[0](x), mask=mask)
            return x + self.outer(nnx.gelu(self.inner(self.norms[1](x))))

    class Model(nnx.Module):
        def __init__(self, rngs):
            self.words = nnx.Embed(VOCABULARY, WIDTH, **options(rngs))
            self.blocks = nnx.List([Block(rngs) for _ in range(LAYERS)])
            self.norm = nnx.LayerNorm(WIDTH, **options(rngs))
            self.head = nnx.Linear(WIDTH, CLASSES, **options(rngs))

        def __call__(self, ids):
            x = self.words(ids)
            for step in self.blocks:
                x = step(x)
            return self.head(self.norm(x))[:, READ]

    graph, state = nnx.split(nnx.eval_shape(lambda: Model(nnx.Rngs(0))))

    def fn(params, ids):
        return nnx.merge(graph, params)(ids)

    # the mask chooses between scores and a large negative number: no layer
    counts = layers(embed=1) + BLOCKS + layers(norm=1, dense=1)
    args = (randomise(state, dtype), tokens(READ + 3))
    return Attention(fn, args, counts, ("words",), unseen=("", later(READ + 3)))


@attention
def keras_attention(dtype: str) -> Attention:
    """Blocks of keras.layers.MultiHeadAttention under a causal mask."""
    keras = pytest.importorskip("keras")
    if keras.backend.backend() != "jax":
        pytest.skip("Keras runs on another backend; set KERAS_BACKEND=jax")
    from keras.src.backend.common import dtypes

    # Keras on JAX takes every float64 result back to float32.
    dtypes.BIT64_TO_BIT32_DTYPE["float64"] = "float64"

    def layer(kind, *sizes, **options):
        return getattr(keras.layers, kind)(*sizes, dtype=dtype, **options)

    ids = keras.Input((READ + 3,), dtype="int32")
    x = layer("Embedding", VOCABULARY, WIDTH, name="words")(ids)
    for _ in range(LAYERS):
        h = layer("LayerNormalization")(x)
        h = layer("MultiHeadAttention", HEADS, WIDTH // HEADS)(h, h, use_causal_mask=True)
        x = layer("Add")([x, h])
        h = layer("Dense", INNER, activation="gelu")(layer("LayerNormalization")(x))
        x = layer("Add")([x, layer("Dense", WIDTH)(h)])
    logits = layer("Dense", CLASSES)(layer("LayerNormalization")(x)[:, READ])
    model = keras.Model(ids, logits)

    def fn(params, ids):
        return model.stateless_call(params, [], ids, training=False)[0]

    shapes = [{v.name: jax.ShapeDtypeStruct(v.shape, dtype)} for v in model.trainable_variables]
    params = [v for one in randomise(shapes, dtype) for v in one.values()]
    # the mask chooses between scores and a large negative number: no layer
    counts = layers(embed=1) + BLOCKS + layers(norm=1, dense=1)
    args = (params, tokens(READ + 3))
    return Attention(fn, args, counts, ("words",), unseen=("", later(READ + 3)))


@attention
def equimo_vit(dtype: str) -> Attention:
    eqx = pytest.importorskip("equinox")
    models = pytest.importorskip("equimo.models")
    sizes = {"img_size": IMAGE, "in_channels": 3, "patch_size": PATCH, "dim": WIDTH}
    sizes |= {"num_heads": HEADS, "depths": [LAYERS], "mlp_ratio": INNER / WIDTH}
    # no class token, which would take a share of the relevance
    tokens_before = {"class_token": False, "global_pos_embed_cls": False, "reg_tokens": 0}
    key = jax.random.key(0)
    shapes = eqx.filter_eval_shape(
        models.VisionTransformer, **sizes, **tokens_before, num_classes=CLASSES, key=key
    )
    shapes, rest = eqx.partition(shapes, lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct))

    def fn(arrays, x):
        model = eqx.combine(arrays, rest)
        return jax.vmap(lambda image: model(image, key=key, inference=True))(x)

    # Patches with their positions (a shift of the convolution), blocks in which query, key and
    # value are one dense layer, a norm, the mean of the patches, the classes.
    counts = layers(conv=1) + BLOCKS - layers(LAYERS, dense=2) + layers(norm=1, avg_pool=1, dense=1)
    return Attention(fn, (randomise(shapes, dtype), picture((2, 3, IMAGE, IMAGE), dtype)), counts)
