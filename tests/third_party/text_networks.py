"""Attention models for text: encoders, decoders, and both."""

from collections import Counter
from typing import Any

import jax.numpy as jnp
import numpy as np

from .transformers_networks import (
    ATTEND,
    GATED_MLP,
    HEADS,
    INNER,
    LAYERS,
    MASK,
    MASKED_BLOCKS,
    MLP,
    READ,
    ROTATE,
    SKIP,
    WIDTH,
    Attention,
    attention,
    block,
    build,
    config,
    later,
    layers,
    tokens,
)

# --- encoders -------------------------------------------------------------------------------------


def padding(length: int, n: int) -> np.ndarray:
    """True at the last `n` places of the second of two samples."""
    return np.array([[False] * length, [False] * (length - n) + [True] * n])


# The first token goes through a dense layer with a nonlinearity, then to the classes.
POOL_AND_CLASSIFY = layers(dense=2, activation=1)


def classifier(
    name: str,
    dtype: str,
    counts: Counter[str],
    embeddings: tuple[str, ...],
    length: int = 9,
    n_padding: int = 3,
    **options: Any,
) -> Attention:
    """Text to classes, with padding in one of the samples."""
    padded = padding(length, n_padding)
    fn, params = build(
        f"Flax{name}ForSequenceClassification",
        dtype,
        config(name, **options),
        lambda output: output.logits,
        fixed={"attention_mask": jnp.asarray(~padded, int)},
    )
    ids = tokens(length)
    return Attention(fn, (params, ids), counts, embeddings, unseen=("", padded))


# Words, positions and types, their sum, its norm.
BERT_EMBEDDINGS = ("word_embeddings", "position_embeddings", "token_type_embeddings")
BERT = layers(embed=3, add=1, norm=1) + MASKED_BLOCKS + POOL_AND_CLASSIFY


@attention
def bert(dtype: str) -> Attention:
    return classifier("Bert", dtype, BERT, BERT_EMBEDDINGS)


@attention
def roberta(dtype: str) -> Attention:
    # positions are counted from the tokens themselves
    return classifier("Roberta", dtype, BERT, BERT_EMBEDDINGS, pad_token_id=1)


@attention
def albert(dtype: str) -> Attention:
    # narrow embeddings, made wide by a dense layer; both blocks share their parameters
    counts = BERT + layers(dense=1)
    return classifier("Albert", dtype, counts, BERT_EMBEDDINGS, embedding_size=16)


@attention
def electra(dtype: str) -> Attention:
    counts = BERT + layers(dense=1)
    return classifier("Electra", dtype, counts, BERT_EMBEDDINGS, embedding_size=16)


@attention
def distilbert(dtype: str) -> Attention:
    # no types
    counts = BERT - layers(embed=1)
    sizes = {"dim": WIDTH, "hidden_dim": INNER, "n_layers": LAYERS, "n_heads": HEADS}
    return classifier("DistilBert", dtype, counts, BERT_EMBEDDINGS[:2], **sizes)


@attention
def roformer(dtype: str) -> Attention:
    # positions rotate query and key instead of being added
    counts = BERT - layers(embed=1) + block(ROTATE)
    names = ("word_embeddings", "token_type_embeddings")
    return classifier("RoFormer", dtype, counts, names)


@attention
def bigbird(dtype: str) -> Attention:
    # Blocks of 4 out of 48 places. The first, the second, the last and the last but one block of
    # queries each have attention of their own. The middle ones share one softmax over four parts
    # (neighbours, random, first and last block of keys), each with its product, its mask, and its
    # product with the values, which are added up.
    sparse = block(
        layers(dense=4),
        layers(4, matmul=2, affine=1, softmax=1),
        layers(4, matmul=2, affine=1),
        layers(softmax=1, add=1),
    )
    counts = BERT - block(ATTEND, MASK) + sparse
    options = {"attention_type": "block_sparse", "block_size": 4, "num_random_blocks": 1}
    return classifier("BigBird", dtype, counts, BERT_EMBEDDINGS, 48, 7, **options)


# --- decoders -------------------------------------------------------------------------------------


def decoder(
    name: str,
    dtype: str,
    counts: Counter[str],
    embeddings: tuple[str, ...],
    model: str = "ForCausalLM",
    **options: Any,
) -> Attention:
    """Text to the next token, asked in the middle of the text."""
    fn, params = build(
        f"Flax{name}{model}",
        dtype,
        config(name, **options),
        lambda output: output.logits[:, READ],
    )
    ids = tokens(READ + 3)
    return Attention(fn, (params, ids), counts, embeddings, unseen=("", later(ids.shape[1])))


# Blocks, a last norm, logits.
DECODER = MASKED_BLOCKS + layers(norm=1, dense=1)
GPT_SIZES = {"n_embd": WIDTH, "n_layer": LAYERS, "n_head": HEADS, "n_positions": 64}


@attention
def gpt2(dtype: str) -> Attention:
    # query, key and value are one dense layer
    counts = layers(embed=2, add=1) + DECODER - layers(LAYERS, dense=2)
    return decoder("GPT2", dtype, counts, ("wte", "wpe"), model="LMHeadModel", **GPT_SIZES)


@attention
def gptj(dtype: str) -> Attention:
    # attention and MLP side by side, behind one norm, and one sum of both and the input
    counts = layers(embed=1) + DECODER + block(ROTATE) - layers(LAYERS, norm=1, add=1)
    return decoder("GPTJ", dtype, counts, ("wte",), rotary_dim=4, **GPT_SIZES)


@attention
def gpt_neo(dtype: str) -> Attention:
    counts = layers(embed=2, add=1) + DECODER
    sizes = {"num_layers": LAYERS, "num_heads": HEADS, "window_size": 4}
    kinds = [[["global", "local"], 1]]
    return decoder("GPTNeo", dtype, counts, ("wte", "wpe"), attention_types=kinds, **sizes)


LLAMA = layers(embed=1) + DECODER - block(MLP) + block(GATED_MLP, ROTATE)


@attention
def llama(dtype: str) -> Attention:
    return decoder("Llama", dtype, LLAMA, ("embed_tokens",))


@attention
def mistral(dtype: str) -> Attention:
    # two heads of keys for four of queries; a window
    options = {"num_key_value_heads": 2, "sliding_window": 5}
    return decoder("Mistral", dtype, LLAMA, ("embed_tokens",), **options)


@attention
def gemma(dtype: str) -> Attention:
    # one head of keys; the scale of a norm is 1 + a parameter
    options = {"num_key_value_heads": 1, "head_dim": 8}
    return decoder("Gemma", dtype, LLAMA, ("embed_tokens",), **options)


@attention
def opt(dtype: str) -> Attention:
    counts = layers(embed=2, add=1) + DECODER
    options = {"ffn_dim": INNER, "word_embed_proj_dim": WIDTH}
    return decoder("OPT", dtype, counts, ("embed_tokens", "embed_positions"), **options)


@attention
def bloom(dtype: str) -> Attention:
    # no positions but in the mask; a norm behind the words; query, key and value in one
    counts = layers(embed=1, norm=1) + DECODER - layers(LAYERS, dense=2)
    return decoder("Bloom", dtype, counts, ("word_embeddings",), n_layer=LAYERS, n_head=HEADS)


# --- encoder and decoder --------------------------------------------------------------------------


def translator(
    name: str,
    dtype: str,
    counts: Counter[str],
    embeddings: tuple[str, ...],
    **options: Any,
) -> Attention:
    """Text to the next token of another text; with padding in one sample of the first."""
    padded = padding(8, 3)
    fn, params = build(
        f"Flax{name}ForConditionalGeneration",
        dtype,
        config(name, **options),
        lambda output: output.logits[:, -1],
        ("input_ids", "decoder_input_ids"),
        {"attention_mask": jnp.asarray(~padded, int)},
    )
    args = (params, tokens(8), tokens(5, seed=4))
    return Attention(fn, args, counts, embeddings, unseen=("/encoder/", padded))


def t5_counts(mlp: Counter[str]) -> Counter[str]:
    # One table of words for both sides; what is added to the scores is mask and relative position
    # in one. Each side ends in a norm. The decoder also attends to the encoder.
    encoder = block(ATTEND, MASK, SKIP, mlp, SKIP)
    return layers(embed=2, norm=2, dense=1) + encoder + encoder + block(ATTEND, MASK, SKIP)


T5_EMBEDDINGS = ("encoder/shared", "decoder/shared")
T5 = {"d_model": WIDTH, "d_kv": 8, "d_ff": INNER, "num_layers": LAYERS, "num_heads": HEADS}
T5 |= {"relative_attention_num_buckets": 8, "relative_attention_max_distance": 16}


@attention
def t5(dtype: str) -> Attention:
    # logits by the table of words, scaled
    return translator("T5", dtype, t5_counts(MLP), T5_EMBEDDINGS, **T5)


@attention
def t5_gated(dtype: str) -> Attention:
    options = T5 | {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
    counts = t5_counts(GATED_MLP)
    return translator("T5", dtype, counts, T5_EMBEDDINGS, **options)


@attention
def bart(dtype: str) -> Attention:
    # each side: words and positions, their sum and its norm, blocks
    side = layers(embed=2, add=1, norm=1) + MASKED_BLOCKS
    counts = side + side + block(ATTEND, MASK, SKIP) + layers(dense=1)
    options: dict[str, Any] = {"d_model": WIDTH}
    for s in ("encoder", "decoder"):
        options |= {f"{s}_layers": LAYERS, f"{s}_attention_heads": HEADS, f"{s}_ffn_dim": INNER}
    names = [f"{s}/{n}" for s in ("encoder", "decoder") for n in ("shared", "embed_positions")]
    return translator("Bart", dtype, counts, tuple(names), **options)
