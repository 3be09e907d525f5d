"""A LLaMA of eight blocks, 256 wide, as a JAX function and as Hugging Face's module."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from networks import rotate
from torch import nn
from transformers import LlamaConfig
from transformers.models.llama import modeling_llama

WIDTH, HIDDEN, HEADS, DEPTH, VOCABULARY, EPSILON = 256, 688, 8, 8, 1000, 1e-5


def norm(x, scale):
    return x * lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + EPSILON) * scale


def block(x, p):
    h = norm(x, p["input_layernorm.weight"])
    q, k, v = (
        (h @ p[f"self_attn.{name}_proj.weight"]).reshape(*x.shape[:2], HEADS, -1) for name in "qkv"
    )
    q, k = rotate(q), rotate(k)
    scores = jnp.einsum("bqhe,bkhe->bhqk", q, k) / q.shape[-1] ** 0.5
    seen = jnp.tril(jnp.ones(scores.shape[-2:], bool))
    weights = jax.nn.softmax(jnp.where(seen, scores, -jnp.inf))
    mixed = jnp.einsum("bhqk,bkhe->bqhe", weights, v).reshape(x.shape)
    x = x + mixed @ p["self_attn.o_proj.weight"]
    h = norm(x, p["post_attention_layernorm.weight"])
    gated = jax.nn.silu(h @ p["mlp.gate_proj.weight"]) * (h @ p["mlp.up_proj.weight"])
    return x + gated @ p["mlp.down_proj.weight"]


def logits(params, x):
    for number in range(DEPTH):
        start = f"model.layers.{number}."
        x = block(x, {k.removeprefix(start): v for k, v in params.items() if k.startswith(start)})
    return norm(x[:, -1], params["model.norm.weight"]) @ params["lm_head.weight"]


def huggingface(length: int) -> nn.Module:
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=HIDDEN,
        num_hidden_layers=DEPTH,
        num_attention_heads=HEADS,
        rms_norm_eps=EPSILON,
        max_position_embeddings=length,
    )
    return modeling_llama.LlamaForCausalLM(config)


def weights() -> dict[str, np.ndarray]:
    """Random weights of the module, by its names."""
    rng = np.random.default_rng(0)
    found = {}
    for name, weight in huggingface(1).state_dict().items():
        if weight.ndim > 1:
            drawn = rng.standard_normal(weight.shape) * weight.shape[1] ** -0.5
        else:
            drawn = rng.uniform(0.5, 1.5, weight.shape)
        found[name] = drawn.astype(np.float32)
    return found


def for_jax(stored: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The same for `logits`, which multiplies from the left."""
    return {name: weight.T if weight.ndim > 1 else weight for name, weight in stored.items()}
