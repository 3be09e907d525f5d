"""AttnLRP and CP-LRP of a small LLaMA by jaxlrp and by LXT, with the same weights.

    python benchmarks/peers/against_lxt.py
    python benchmarks/peers/against_lxt.py --length 128 --pairs 3
    python benchmarks/peers/against_lxt.py --double                # relevance in float64, no times

Eight blocks of width 256. The relevance of the next token's logit with respect to the embedded
tokens is compared first; then both sides take turns in one process. LXT patches the classes of a
model for the whole process, so each set of rules runs in a process of its own.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import jax
import jax.numpy as jnp
import operators  # noqa: F401
import ratio
import torch
import turns
from jax import lax
from lxt.efficient import monkey_patch
from lxt.efficient.models import llama as lxt_rules
from networks import rotate
from transformers import LlamaConfig
from transformers.models.llama import modeling_llama

import jaxlrp as lrp

WIDTH, HIDDEN, HEADS, DEPTH, VOCABULARY, EPSILON = 256, 688, 8, 8, 1000, 1e-5
RULES = {
    "attn_lrp": (lrp.composites.attn_lrp, lxt_rules.attnLRP),
    "cp_lrp": (lrp.composites.cp_lrp, lxt_rules.cp_LRP),
}
HEADER = (
    "rules",
    "tokens",
    "distance",
    "LXT / jaxlrp",
    "interval",
    "jaxlrp, s",
    "LXT, s",
    "jaxlrp / own gradient",
    "LXT / own gradient",
)


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


class Sides:
    """The model in both frameworks; functions without arguments that run to the end."""

    def __init__(self, length: int, double: bool):
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=WIDTH,
            intermediate_size=HIDDEN,
            num_hidden_layers=DEPTH,
            num_attention_heads=HEADS,
            rms_norm_eps=EPSILON,
            max_position_embeddings=length,
        )
        self.model = modeling_llama.LlamaForCausalLM(config).eval().requires_grad_(False)
        for weight in self.model.parameters():
            if weight.ndim > 1:
                weight.normal_(std=weight.shape[1] ** -0.5)
            else:
                weight.uniform_(0.5, 1.5)
        self.embedded = torch.randn(1, length, WIDTH)
        if double:
            self.model.double()
            self.embedded = self.embedded.double()
        self.params = {
            name: jnp.asarray(weight.numpy().T if weight.ndim > 1 else weight.numpy())
            for name, weight in self.model.state_dict().items()
        }
        self.x = jnp.asarray(self.embedded.numpy())
        self.target = jnp.array([7])

    def jax(self, step: Callable[..., Any]) -> Callable[[], Any]:
        args = (self.params, self.x, self.target)
        compiled = ratio.make(step, args).compiled
        return lambda: jax.block_until_ready(compiled(*args))

    def torch(self, times_input: bool) -> Any:
        x = self.embedded.clone().requires_grad_()
        logit = self.model(inputs_embeds=x, use_cache=False, logits_to_keep=1).logits[0, -1, 7]
        (gradient,) = torch.autograd.grad(logit, x)
        return (x * gradient if times_input else gradient).detach()


def rows(rules: str, lengths: list[int], pairs: int, double: bool) -> list[tuple[str, ...]]:
    found = []
    ours, theirs = RULES[rules]
    all_sides = [Sides(length, double) for length in lengths]
    for length, sides in zip(lengths, all_sides, strict=True):
        # The plain gradient runs before LXT changes the classes, and has its rounds to itself.
        gradient = sides.jax(ratio.gradient(logits))
        gap = turns.distance(gradient()[1], sides.torch(times_input=False))
        plain = turns.timed([gradient, partial(sides.torch, False)], 0 if double else pairs)
        found.append((rules, length, sides, plain, gap))
    monkey_patch(modeling_llama, patch_map=theirs)
    table = []
    for _, length, sides, plain, gap in found:
        mine = sides.jax(ratio.explanation(logits, ours()))
        away = turns.distance(mine()[1], sides.torch(times_input=True))
        if double:
            table.append((rules, str(length), f"{away:.0e}"))
            continue
        table.append(("gradient", str(length), f"{gap:.0e}", *turns.of_pairs(*plain), "", ""))
        taken = turns.timed([mine, partial(sides.torch, True)], pairs)
        over = [turns.middle(t) / turns.middle(p) for t, p in zip(taken, plain, strict=True)]
        cells = (f"{number:.2f}" for number in over)
        table.append((rules, str(length), f"{away:.0e}", *turns.of_pairs(*taken), *cells))
    return table


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rules", nargs="+", choices=RULES, default=list(RULES))
    parser.add_argument("--length", nargs="+", type=int, default=[128, 512, 2048])
    parser.add_argument("--pairs", type=int, default=9, help="timed pairs (default 9)")
    parser.add_argument("--double", action="store_true", help="compare in float64, time nothing")
    options = parser.parse_args()
    if len(options.rules) > 1:
        lengths, double = map(str, options.length), ["--double"] if options.double else []
        rest = ["--length", *lengths, "--pairs", str(options.pairs), *double]
        for rules in options.rules:
            subprocess.run([sys.executable, __file__, "--rules", rules, *rest], check=True)
        return
    threads = len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    print(f"\n{ratio.machine()}; torch {torch.__version__}, {threads} threads\n", flush=True)
    with jax.enable_x64(options.double):
        table = rows(options.rules[0], options.length, options.pairs, options.double)
        ratio.show(table, HEADER[:3] if options.double else HEADER)


if __name__ == "__main__":
    main()
