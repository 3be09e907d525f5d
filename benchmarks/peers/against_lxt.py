"""AttnLRP and CP-LRP of transformers by jaxlrp, and by LXT or autolrp, with the same weights.

    python benchmarks/peers/against_lxt.py                       # all rows: an hour
    python benchmarks/peers/against_lxt.py --networks llama --length 128 --pairs 3
    python benchmarks/peers/against_lxt.py --networks bert --peers autolrp --rules cp_lrp
    python benchmarks/peers/against_lxt.py --double              # relevance in float64, no times
    python benchmarks/peers/against_lxt.py --memory              # peaks, no times

A LLaMA of eight blocks of width 256, BERT-base and ViT-B/16, all with random weights. The relevance
of one logit with respect to the embedded tokens or the pixels is compared first; then both sides
take turns in one process. LXT patches the classes of a model for the whole process, so each row has
a process of its own, and one that fails does not stop the others. autolrp gives another relevance
and runs only if it is named and installed (`pip install --no-deps autolrp==0.2.0`).
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
import numpy as np
import ratio
import torch
import turns
from lxt_cases import CASES, LENGTHS, Case

PEERS = ("lxt", "autolrp")
RULES = ("attn_lrp", "cp_lrp")
HEADER = (
    "network",
    "tokens",
    "rules",
    "peer",
    "distance",
    "peer / jaxlrp",
    "interval",
    "jaxlrp, s",
    "peer, s",
    "jaxlrp / own gradient",
    "peer / own gradient",
)

MEMORY_HEADER = ("network", "tokens", "rules", "peer", "jaxlrp, MB", "peer, MB")


class Sides:
    """One network in both frameworks; functions without arguments that run to the end."""

    def __init__(self, case: Case, double: bool):
        self.case = case
        dtype = np.float64 if double else np.float32
        self.params = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), case.params)
        self.x = jnp.asarray(case.x, dtype)
        self.pixels = torch.from_numpy(np.asarray(case.x, dtype))
        self.renew()

    def renew(self) -> None:
        """Makes the module again: LXT replaces some classes and not the modules made of them."""
        self.module = self.case.module().eval().requires_grad_(False).to(self.pixels.dtype)

    def jax(self, step: Callable[..., Any]) -> Callable[[], Any]:
        args = (self.params, self.x, jnp.array([self.case.target]))
        compiled = ratio.make(step, args).compiled
        return lambda: jax.block_until_ready(compiled(*args))

    def torch(self, times_input: bool) -> Any:
        x = self.pixels.clone().requires_grad_()
        logit = self.case.logits(self.module, x)[0, self.case.target]
        (gradient,) = torch.autograd.grad(logit, x)
        return (x * gradient if times_input else gradient).detach()

    def lxt(self, rules: str) -> Callable[[], Any]:
        self.case.lxt[rules]()
        self.renew()
        return partial(self.torch, True)

    def autolrp(self, rules: str) -> Callable[[], Any]:
        """Norms, activations and attention as the papers have them; the rest is its default."""
        import autolrp
        from autolrp import nodes

        chosen = {
            **autolrp.BASE,
            **{"attn_lrp": autolrp.ATTNLRP, "cp_lrp": autolrp.CPLRP}[rules],
            **autolrp.on(nodes.ELEMENTWISE_NODES, "yx"),
            **autolrp.on(nodes.LAYERNORM_NODES, "detach_std"),
        }
        config = autolrp.LRPConfig(rule=chosen)

        def run() -> Any:
            x = autolrp.tensor(self.pixels.clone())
            self.case.logits(self.module, x)[0, self.case.target].lrp(config=config)
            return torch.Tensor(x.relevance.detach())

        return run


def rows(options: argparse.Namespace) -> list[tuple[str, ...]]:
    """The gradients and one set of rules by one peer."""
    (name,), (length,) = options.networks, options.length
    (rules,), (peer,) = options.rules, options.peers
    case = CASES[name](length)
    start = (name, str(length))
    if peer == "lxt" and rules not in case.lxt:
        return [(*start, rules, "lxt has none")]
    with jax.enable_x64(options.double):
        return _rows(Sides(case, options.double), start, rules, peer, options)


def _rows(
    sides: Sides, start: tuple[str, str], rules: str, peer: str, options: argparse.Namespace
) -> list[tuple[str, ...]]:
    # The plain gradient runs before LXT changes the classes, and has its rounds to itself.
    gradient = sides.jax(ratio.gradient(lambda params, x: sides.case.fn(params, x)))
    if options.memory:
        plain = turns.peaks([gradient, partial(sides.torch, False)])
        mine = sides.jax(ratio.explanation(sides.case.fn, ratio.RULES[rules]()))
        both = turns.peaks([mine, getattr(sides, peer)(rules)])
        return [(*start, "gradient", "PyTorch", *plain), (*start, rules, peer, *both)]
    apart = f"{turns.distance(gradient()[1], sides.torch(times_input=False)):.0e}"
    table = [(*start, "gradient", "PyTorch", apart)]
    plain = turns.timed(
        [gradient, partial(sides.torch, False)], 0 if options.double else options.pairs
    )
    mine = sides.jax(ratio.explanation(sides.case.fn, ratio.RULES[rules]()))
    theirs = getattr(sides, peer)(rules)
    table.append((*start, rules, peer, f"{turns.distance(mine()[1], theirs()):.0e}"))
    if options.double:
        return table
    taken = turns.timed([mine, theirs], options.pairs)
    over = [turns.middle(t) / turns.middle(p) for t, p in zip(taken, plain, strict=True)]
    table[0] += (*turns.of_pairs(*plain), "", "")
    table[1] += (*turns.of_pairs(*taken), *(f"{number:.2f}" for number in over))
    return table


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--rules", nargs="+", choices=RULES, default=list(RULES))
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=["lxt"])
    parser.add_argument("--length", nargs="+", type=int, help="tokens; a ViT has 197")
    parser.add_argument("--pairs", type=int, default=9, help="timed pairs (default 9)")
    parser.add_argument("--double", action="store_true", help="compare in float64, time nothing")
    parser.add_argument("--memory", action="store_true", help="print peaks, time nothing")
    parser.add_argument("--row", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    threads = len(os.sched_getaffinity(0))
    if options.row:
        torch.set_num_threads(threads)
        header = MEMORY_HEADER if options.memory else HEADER[:5] if options.double else HEADER
        ratio.show([(*row, *[""] * (len(header) - len(row))) for row in rows(options)], header)
        return
    print(f"\n{ratio.machine()}; torch {torch.__version__}, {threads} threads")
    flags = [f"--{name}" for name in ("double", "memory") if getattr(options, name)]
    rest = ["--row", "--pairs", str(options.pairs), *flags]
    failed = []
    for name in options.networks:
        lengths = LENGTHS[name] if name.startswith("vit") else options.length or LENGTHS[name]
        for row in (
            (length, rules, peer)
            for length in lengths
            for rules in options.rules
            for peer in options.peers
        ):
            print(flush=True)
            length, rules, peer = map(str, row)
            chosen = ["--networks", name, "--length", length, "--rules", rules, "--peers", peer]
            if subprocess.run([sys.executable, __file__, *chosen, *rest]).returncode:
                failed.append(" ".join(chosen))
    if failed:
        sys.exit("\nno row of: " + "; ".join(failed))


if __name__ == "__main__":
    main()
