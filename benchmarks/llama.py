"""Memory of an explained LLaMA beside its gradient's, compiled for eight simulated devices.

A decoder of LLaMA's shape with seven billion parameters in bfloat16: rotary positions, RMSNorm,
gated dense pairs, blocks scanned over stacked parameters and rematerialised. The gradient and the
relevance of the next token's logit with respect to the embedded tokens are lowered and compiled
from shapes alone for eight simulated devices; nothing is allocated. The compiler says what each
device would hold.

    python benchmarks/llama.py
    python benchmarks/llama.py --layers 2 --length 256      # quicker
"""

from __future__ import annotations

import argparse
import os
import re
import time
from collections.abc import Callable, Sequence

# Before JAX looks for devices. Quick compilation: the programs are not run.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (
    "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
)

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from networks import rotate

import jaxlrp as lrp

VOCABULARY, WIDTH, HIDDEN, HEADS = 32_000, 4096, 11_008, 32
COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
RULES = {"attn_lrp": lrp.composites.attn_lrp(), "cp_lrp": lrp.composites.cp_lrp()}

# Where each parameter is split over the devices; the first axis of a block's counts blocks.
PLACES = {
    "norm_attention": P(),
    "norm_dense": P(),
    "query": P(None, None, "model", None),
    "key": P(None, None, "model", None),
    "value": P(None, None, "model", None),
    "out": P(None, "model", None, None),
    "gate": P(None, None, "model"),
    "up": P(None, None, "model"),
    "down": P(None, "model", None),
}


# --- the network


def norm(x, scale):
    wide = x.astype(jnp.float32)
    wide = wide * lax.rsqrt(jnp.mean(wide * wide, -1, keepdims=True) + 1e-5)
    return wide.astype(x.dtype) * scale


def block(x, p):
    h = norm(x, p["norm_attention"])
    q, k, v = (jnp.einsum("btd,dhe->bthe", h, p[name]) for name in ("query", "key", "value"))
    q, k = rotate(q), rotate(k)
    scores = jnp.einsum("bqhe,bkhe->bhqk", q, k).astype(jnp.float32) / q.shape[-1] ** 0.5
    seen = jnp.tril(jnp.ones(scores.shape[-2:], bool))
    weights = jax.nn.softmax(jnp.where(seen, scores, -jnp.inf)).astype(x.dtype)
    x = x + jnp.einsum("bqhe,hed->bqd", jnp.einsum("bhqk,bkhe->bqhe", weights, v), p["out"])
    h = norm(x, p["norm_dense"])
    return x + (jax.nn.silu(h @ p["gate"]) * (h @ p["up"])) @ p["down"], None


def logits(params, embedded):
    """The next token's logits from embedded tokens (batch, length, width)."""
    x, _ = lax.scan(jax.checkpoint(block), embedded, params["blocks"])
    return norm(x[:, -1], params["norm"]) @ params["head"]


def logits_of_tokens(params, tokens, place):
    with jax.named_scope("embed"):
        embedded = lax.with_sharding_constraint(params["embed"][tokens], place)
    return logits(params, embedded)


def shapes(layers: int, batch: int, length: int, precision: str, mesh):
    """Parameters, embedded tokens, tokens and target as shapes with shardings."""

    def struct(shape, spec, dtype=precision):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, spec))

    each = WIDTH // HEADS
    blocks = {
        "norm_attention": (WIDTH,),
        "norm_dense": (WIDTH,),
        **dict.fromkeys(("query", "key", "value"), (WIDTH, HEADS, each)),
        "out": (HEADS, each, WIDTH),
        "gate": (WIDTH, HIDDEN),
        "up": (WIDTH, HIDDEN),
        "down": (HIDDEN, WIDTH),
    }
    params = {
        "embed": struct((VOCABULARY, WIDTH), P(None, "model")),
        "blocks": {n: struct((layers, *shape), PLACES[n]) for n, shape in blocks.items()},
        "norm": struct((WIDTH,), P()),
        "head": struct((WIDTH, VOCABULARY), P(None, "model")),
    }
    embedded = struct((batch, length, WIDTH), P("data"))
    tokens = struct((batch, length), P("data"), jnp.int32)
    return params, embedded, tokens, struct((batch,), P("data"), jnp.int32)


# --- what is compiled


def gradient(params, embedded, target):
    def chosen(embedded):
        picked = jnp.take_along_axis(logits(params, embedded), target[:, None], -1)
        return picked.astype(jnp.float32).sum()

    return jax.grad(chosen)(embedded)


def relevance(rules: lrp.RuleMap) -> Callable:
    explain = lrp.explain(logits, rules, argnums=1)
    return lambda params, embedded, target: explain(params, embedded, target=target)


def relevance_of_embeddings(rules: lrp.RuleMap, place: NamedSharding) -> Callable:
    explain = lrp.explain(logits_of_tokens, rules, wrt="embed")
    return lambda params, tokens, target: explain(params, tokens, place, target=target)


def measure(fn: Callable, args: Sequence, base) -> tuple[tuple[str, ...], float]:
    """A row of the table, and the bytes that each device holds."""
    start = time.perf_counter()
    compiled = jax.jit(fn).lower(*args).compile()
    seconds = time.perf_counter() - start
    memory = compiled.memory_analysis()
    parts = (
        memory.argument_size_in_bytes,
        memory.output_size_in_bytes,
        memory.temp_size_in_bytes,
    )
    text = compiled.as_text()
    counts = [len(re.findall(rf" {name}(?:-start)?\(", text)) for name in COLLECTIVES]
    held = sum(parts)
    row = (
        *(f"{part / 2**30:.2f}" for part in parts),
        f"{held / 2**30:.2f}",
        f"{held / (base or held):.2f}",
        " + ".join(map(str, counts)),
        f"{seconds:.0f}",
    )
    return row, held


HEADER = (
    "per device, GiB",
    "arguments",
    "output",
    "temporaries",
    "total",
    "times the gradient's",
    "collectives",
    "trace and compile, s",
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--layers", type=int, default=32, help="blocks (default 32)")
    parser.add_argument("--batch", type=int, default=4, help="sequences (default 4)")
    parser.add_argument("--length", type=int, default=2048, help="tokens of each (default 2048)")
    parser.add_argument("--data", type=int, default=2, help="ways the batch is split (default 2)")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    options = parser.parse_args()

    mesh = jax.make_mesh((options.data, 8 // options.data), ("data", "model"), (AxisType.Auto,) * 2)
    params, embedded, tokens, target = shapes(
        options.layers, options.batch, options.length, options.dtype, mesh
    )
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    print(
        f"{count / 1e9:.2f} billion parameters, {options.layers} blocks, {options.batch} x "
        f"{options.length} tokens, {options.dtype}; devices: {mesh.shape['data']} for the batch x "
        f"{mesh.shape['model']} for the width; jax {jax.__version__}"
    )
    print(f"collectives: {', '.join(COLLECTIVES)}\n")
    print("| " + " | ".join(HEADER) + " |")
    print("| --- " + "| ---: " * (len(HEADER) - 1) + "|", flush=True)
    base = None
    cases = {
        "gradient": (gradient, embedded),
        **{name: (relevance(rules), embedded) for name, rules in RULES.items()},
        'attn_lrp, `wrt="embed"`': (
            relevance_of_embeddings(RULES["attn_lrp"], embedded.sharding),
            tokens,
        ),
    }
    for name, (fn, x) in cases.items():
        row, held = measure(fn, (params, x, target), base)
        base = base or held
        print("| " + " | ".join((name, *row)) + " |", flush=True)


if __name__ == "__main__":
    main()
