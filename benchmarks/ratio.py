"""What an explanation costs, in units of the gradient of the same logit.

    python benchmarks/ratio.py                                  # the whole table, tens of minutes
    python benchmarks/ratio.py --networks vgg16 --batch 2 --composites epsilon_plus_flat --runs 3
    python benchmarks/ratio.py --networks mlp --batch 1 2 --prepared   # and on prepared parameters

Both sides are compiled in this process from fresh functions, and timed in turn, so that a change
of the machine's mood meets them alike. The yardstick is `jax.jit(jax.value_and_grad)` of the
chosen logits, summed over the batch, with respect to the input; the other side is
`lrp.value_and_relevance` of the same logits.
"""

import argparse
import dataclasses
import os
import re
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import networks

import jaxlrp as lrp

RULES: dict[str, Callable[[], Any]] = {
    "lrp_zero": lambda: lrp.composites.lrp_zero(),
    "epsilon": lambda: lrp.Epsilon(),
    "epsilon_plus_flat": lambda: lrp.composites.epsilon_plus_flat(),
    "epsilon_gamma_box": lambda: lrp.composites.epsilon_gamma_box(low=-3.0, high=3.0),
    "epsilon_alpha2_beta1": lambda: lrp.composites.epsilon_alpha2_beta1(),
    "zplus": lambda: lrp.ZPlus(),
    "attn_lrp": lambda: lrp.composites.attn_lrp(),
    "cp_lrp": lambda: lrp.composites.cp_lrp(),
    "mamba_lrp": lambda: lrp.composites.mamba_lrp(),
    "lstm_lrp_all": lambda: lrp.composites.lstm_lrp_all(),
}

# What one explanation may cost, times the gradient.
RUN_TARGETS = {
    "vgg16": {
        "lrp_zero": 1.1,
        "epsilon": 1.1,
        "epsilon_plus_flat": 1.55,
        "epsilon_gamma_box": 1.65,
        "epsilon_alpha2_beta1": 2.75,
    },
    "resnet50": {
        "lrp_zero": 1.1,
        "epsilon": 1.1,
        "epsilon_plus_flat": 1.55,
        "epsilon_gamma_box": 1.9,
        "epsilon_alpha2_beta1": 2.75,
    },
    "efficientnet_lite0": {
        "lrp_zero": 1.1,
        "epsilon": 1.1,
        "epsilon_plus_flat": 1.55,
        "epsilon_gamma_box": 1.9,
        "epsilon_alpha2_beta1": 2.75,
    },
    "resnet152": {"lrp_zero": 1.1, "epsilon_plus_flat": 1.55, "epsilon_alpha2_beta1": 2.75},
    "mlp": {"lrp_zero": 1.1, "epsilon": 1.1, "zplus": 1.75, "zplus, prepared": 1.8},
    "vit": {"attn_lrp": 1.05, "cp_lrp": 1.05},
    "vit_remat": {"attn_lrp": 1.05, "cp_lrp": 1.05},
    "bert": {"attn_lrp": 1.05, "cp_lrp": 1.05},
}
TEMPORARY_TARGETS = {"epsilon_alpha2_beta1, prepared": 1.3}  # bytes of temporaries alone
BUILD_TARGET = 2.0  # trace and compilation together
DENSITY_RULES = ("lrp_zero", "epsilon", "attn_lrp", "cp_lrp")
# Of the other rules; density rules: 1.1.
MEMORY_TARGETS = {"vgg16": 1.25, "resnet50": 1.7, "resnet152": 1.7, "efficientnet_lite0": 1.7}

BATCHES = {
    "vgg16": (2, 8),
    "resnet50": (2, 8),
    "resnet152": (2,),
    "efficientnet_lite0": (2,),
    "mlp": (256,),
    "vit": (2,),
    "vit_remat": (2,),
    "bert": (2,),
}


@dataclasses.dataclass
class Measured:
    """One compiled function, with what it took to make it and to run it."""

    compiled: Any
    args: Sequence[Any]
    trace_s: list[float]
    compile_s: list[float]
    run_s: list[float] = dataclasses.field(default_factory=list)

    @property
    def build(self) -> float:
        return statistics.median(map(sum, zip(self.trace_s, self.compile_s)))

    @property
    def run(self) -> float:
        return statistics.median(self.run_s)

    def times(self, other: "Measured") -> float:
        """Run time in units of another's, which ran in the same rounds: the median round."""
        return statistics.median(map(float.__truediv__, self.run_s, other.run_s))

    @property
    def memory(self) -> int:
        """Bytes of arguments, results and everything live in between."""
        stats = self.compiled.memory_analysis()
        return stats.argument_size_in_bytes + stats.output_size_in_bytes + stats.temp_size_in_bytes

    @property
    def temporary(self) -> int:
        return self.compiled.memory_analysis().temp_size_in_bytes

    @property
    def products(self) -> tuple[int, int]:
        """Convolutions and matrix products in the optimised program."""
        text = self.compiled.as_text()
        called = re.findall(r'custom_call_target="([^"]*)"', text)
        convs = len(re.findall(r"[\s)}] convolution\(", text))
        dots = len(re.findall(r"[\s)}] dot\(", text))
        convs += sum("conv" in name.lower() for name in called)
        dots += sum("matmul" in name.lower() or "dot" in name.lower() for name in called)
        return convs, dots


def gradient(fn: Callable) -> Callable:
    """The yardstick: the chosen logits and their gradient with respect to the input."""

    def logit(x, params, target):
        out = fn(params, x)
        return jnp.take_along_axis(out, target[:, None], axis=1).sum()

    def step(params, x, target):
        return jax.value_and_grad(logit)(x, params, target)

    return step


def explanation(fn: Callable, rules: Any) -> Callable:
    relevance = lrp.value_and_relevance(fn, rules, argnums=1)

    def step(params, x, target):
        return relevance(params, x, target=target)

    return step


def steps_of(fn: Callable, rules: Sequence[str]) -> dict[str, Callable[[], Callable]]:
    """What makes a step that JAX has not seen, by rule; the yardstick is under "gradient"."""

    def fresh() -> Callable:
        return lambda params, x: fn(params, x)

    steps: dict[str, Callable[[], Callable]] = {"gradient": lambda: gradient(fresh())}
    for rule in rules:
        steps[rule] = lambda rule=rule: explanation(fresh(), RULES[rule]())
    return steps


def prepared(
    fn: Callable, args: Sequence[Any], rules: Sequence[str]
) -> dict[str, tuple[Callable[[], Callable], Sequence[Any]]]:
    """By rule what makes a step for prepared parameters, and its arguments with these."""
    params, x, target = args
    found = {}
    for rule in rules:
        held = jax.jit(lrp.prepare(fn, RULES[rule](), argnums=1))(params, x)
        print(f"{rule}: {held!r}")
        make_step = steps_of(fn, [rule])[rule]
        found[f"{rule}, prepared"] = make_step, (held, x, target)
    return found


def lower(step: Callable, args: Sequence[Any]) -> tuple[Any, float]:
    """Traces from nothing, and the seconds; `step` must be a function that JAX has not seen."""
    jax.clear_caches()
    start = time.perf_counter()
    lowered = jax.jit(step).lower(*args)
    return lowered, time.perf_counter() - start


def make(step: Callable, args: Sequence[Any]) -> Measured:
    """Traces and compiles from nothing."""
    lowered, trace_s = lower(step, args)
    start = time.perf_counter()
    compiled = lowered.compile()
    return Measured(compiled, args, [trace_s], [time.perf_counter() - start])


def measure(
    fn: Callable, args: Sequence[Any], rules: Sequence[str], options: argparse.Namespace
) -> dict[str, Measured]:
    """`fn(params, x)` compiled, by rule; the gradient is under "gradient".

    `args` are params, x and the target of each example.
    """
    steps = {name: (step, args) for name, step in steps_of(fn, rules).items()}
    if getattr(options, "prepared", False):
        steps |= prepared(fn, args, [rule for rule in rules if rule not in DENSITY_RULES])
    make(steps["gradient"][0](), args)  # the first compilation of a process pays for the compiler
    measured: dict[str, Measured] = {}
    for _ in range(options.builds):
        for rule, (step, own) in steps.items():
            made = make(step(), own)
            if rule in measured:
                measured[rule].trace_s += made.trace_s
                measured[rule].compile_s += made.compile_s
            else:
                measured[rule] = made
            del made
    take_turns(list(measured.values()), options.runs)
    return measured


def take_turns(entries: Sequence[Measured], rounds: int) -> None:
    for entry in entries:  # the first call of each touches its memory
        jax.block_until_ready(entry.compiled(*entry.args))
    for _ in range(rounds):
        for entry in entries:
            start = time.perf_counter()
            jax.block_until_ready(entry.compiled(*entry.args))
            entry.run_s.append(time.perf_counter() - start)


# --- the table ----------------------------------------------------------------------------------

HEADER = (
    "network",
    "batch",
    "rules",
    "run",
    "target",
    "best",
    "run, s (min to max)",
    "trace, s",
    "compile, s",
    "build",
    "memory",
    "temporaries, MB",
    "conv + dot",
)


def verdict(ratio: float, target: float | None) -> str:
    if target is None:
        return "-"
    return f"{target:g} {'met' if ratio <= target else 'MISSED'}"


def memory_target(name: str, rule: str) -> float | None:
    if rule.endswith("prepared"):
        return None  # the memory has what is held in it
    return 1.1 if rule in DENSITY_RULES else MEMORY_TARGETS.get(name)


def _temporary(rule: str, entry: Measured, base: Measured) -> str:
    ratio, target = entry.temporary / base.temporary, TEMPORARY_TARGETS.get(rule)
    return f"{ratio:.2f}" if target is None else f"{ratio:.2f}, {verdict(ratio, target)}"


def row(name: str, batch: int, rule: str, entry: Measured, base: Measured) -> tuple[str, ...]:
    is_base = entry is base
    run, build = entry.times(base), entry.build / base.build
    memory = entry.memory / base.memory
    convs, dots = entry.products
    return (
        name,
        str(batch),
        rule,
        f"{run:.2f}",
        "-" if is_base else verdict(run, RUN_TARGETS[name].get(rule)),
        f"{min(entry.run_s) / min(base.run_s):.2f}",
        f"{entry.run:.3f} ({min(entry.run_s):.3f} to {max(entry.run_s):.3f})",
        f"{statistics.median(entry.trace_s):.2f}",
        f"{statistics.median(entry.compile_s):.2f}",
        f"{build:.2f}" + ("" if is_base else f" ({verdict(build, BUILD_TARGET)})"),
        f"{memory:.2f}" + ("" if is_base else f" ({verdict(memory, memory_target(name, rule))})"),
        f"{entry.temporary / 1e6:.1f}" + ("" if is_base else f" ({_temporary(rule, entry, base)})"),
        f"{convs} + {dots}",
    )


def show(rows: Sequence[Sequence[str]], header: Sequence[str] = HEADER) -> None:
    """Prints a table that reads well here and in Markdown."""
    rows = [header, *rows]
    widths = [max(len(line[i]) for line in rows) for i in range(len(header))]
    for i, line in enumerate(rows):
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths)) + " |")
        if not i:
            print("|" + "|".join("-" * (width + 2) for width in widths) + "|")


def machine() -> str:
    model = "unknown processor"
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as lines:
            names = [line.partition(":")[2].strip() for line in lines if "model name" in line]
        model = names[0] if names else model
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{model}, {cores} cores, {jax.devices()[0].device_kind}; jax {jax.__version__}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", nargs="+", choices=BATCHES, default=list(BATCHES))
    parser.add_argument("--composites", nargs="+", choices=RULES, help="default: all with a target")
    parser.add_argument("--batch", nargs="+", type=int, help="default: 2 and 8, for the MLP 256")
    parser.add_argument("--runs", type=int, default=7, help="timed runs of each (default 7)")
    parser.add_argument("--builds", type=int, default=5, help="traces and compilations (default 5)")
    parser.add_argument(
        "--prepared", action="store_true", help="each rule also on parameters that are prepared"
    )
    options = parser.parse_args()

    print(machine())
    print("run, build (trace and compile) and memory are times the gradient's; run is the median")
    print("over rounds, best the quotient of the shortest times; times in seconds are medians.")
    for name in options.networks:
        rules = options.composites or [r for r in RUN_TARGETS[name] if r in RULES]
        for batch in options.batch or BATCHES[name]:
            print(flush=True)
            network = networks.build(name, batch)
            args = (network.params, network.x, jnp.arange(batch) % 1000)
            measured = measure(network.fn, args, rules, options)
            base = measured["gradient"]
            show([row(name, batch, rule, entry, base) for rule, entry in measured.items()])
            del measured, base, network, args


if __name__ == "__main__":
    main()
