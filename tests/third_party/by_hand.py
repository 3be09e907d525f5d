"""attn_lrp by hand: embeddings times the gradient of a model with some of its functions replaced.

With epsilon 0, AttnLRP is the plain gradient of the same model in which the divisor of a norm is
constant, an activation is its input times a constant, and each factor of a product of two explained
values gets half. This is how one explains these models where no tool recognises their layers: every
replacement below knows the code that it replaces.
"""

import contextlib
import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from . import transformers_networks
from .transformers_networks import Attention

constant = jax.lax.stop_gradient


def half(z: jax.Array) -> jax.Array:
    return z / 2 + constant(z / 2)


def linear(f):
    """f as its input times a constant."""

    def g(x, *args, **kwargs):
        return x * constant(f(x, *args, **kwargs) / x)

    return g


def is_product(a, b) -> bool:
    """Whether two factors are both explained, in attention: all else has fewer axes."""
    return a.ndim >= 4 and b.ndim >= 4


def einsum(spec, *factors, **kwargs):
    z = jnp.einsum(spec, *factors, **kwargs)
    return half(z) if len(factors) == 2 and is_product(*factors) else z


def matmul(a, b):
    return half(jnp.matmul(a, b)) if is_product(a, b) else jnp.matmul(a, b)


def bloom_gelu(x):
    return x * 0.5 * (1 + jnp.tanh(0.79788456 * x * (1 + 0.044715 * x * x)))


def modules(call, args, kwargs, context) -> Any:
    """Norms, gated MLPs and Bloom's activation."""
    module, name = context.module, type(context.module).__name__
    if context.method_name != "__call__":
        return call(*args, **kwargs)
    x = args[0] if args else None
    params = module.variables.get("params", {})
    if isinstance(module, nn.LayerNorm):
        x = x - x.mean(-1, keepdims=True)
        scale = constant(jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + module.epsilon))
        return x * scale * params["scale"] + params["bias"]
    if name.endswith("RMSNorm"):
        scale = constant(jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + module.epsilon))
        return x * scale * (params["weight"] + (1 if "Gemma" in name else 0))
    if name in ("FlaxLlamaMLP", "FlaxMistralMLP", "FlaxGemmaMLP"):
        gate = linear(module.act)(module.gate_proj(x))
        return module.down_proj(half(module.up_proj(x) * gate))
    if name == "BloomGELU":
        return linear(bloom_gelu)(x)
    return call(*args, **kwargs)


@contextlib.contextmanager
def replaced(mended, module: types.ModuleType, dtype: str):
    """`mended`, and the functions of `module` replaced."""
    from flax.linen import attention

    with mended(module, dtype), contextlib.ExitStack() as stack:

        def put(owner, name, value):
            stack.callback(setattr, owner, name, getattr(owner, name))
            setattr(owner, name, value)

        ours = {"einsum": einsum, "matmul": matmul, "tanh": linear(jnp.tanh)}
        put(module, "jnp", types.SimpleNamespace(**{**vars(module.jnp), **ours}))
        put(attention, "jnp", types.SimpleNamespace(**{**vars(jnp), "einsum": einsum}))
        put(nn, "tanh", linear(jnp.tanh))
        if hasattr(module, "ACT2FN"):
            put(module, "ACT2FN", {key: linear(f) for key, f in module.ACT2FN.items()})
        yield


def attn_lrp(model: Attention, target: np.ndarray, monkeypatch) -> dict[str, np.ndarray]:
    """Relevance of the output of every embedding, by its path and how often it was called."""

    def run(given):
        seen: dict[str, jax.Array] = {}

        def embed(call, args, kwargs, context):
            if not isinstance(context.module, nn.Embed) or context.method_name != "__call__":
                return call(*args, **kwargs)
            key = "/".join(context.module.path)
            key = f"{key}#{sum(k.startswith(key) for k in seen)}"
            seen[key] = call(*args, **kwargs) if given is None else given[key]
            return seen[key]

        with nn.intercept_methods(modules), nn.intercept_methods(embed):
            logits = model.fn(*model.args)
        return logits[np.arange(len(target)), target].sum(), seen

    mended = transformers_networks.mended
    with monkeypatch.context() as patch:
        patch.setattr(
            transformers_networks,
            "mended",
            lambda module, dtype: replaced(mended, module, dtype),
        )
        _, embeddings = jax.jit(run, static_argnums=0)(None)
        gradient, _ = jax.jit(jax.grad(run, has_aux=True))(embeddings)
    return {key: np.asarray(value * gradient[key]) for key, value in embeddings.items()}
