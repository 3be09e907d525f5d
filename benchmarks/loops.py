"""What an explanation of a program with control flow costs, in units of its gradient.

    python benchmarks/loops.py                          # the whole table, minutes
    python benchmarks/loops.py --only lstm --runs 5 --builds 1

Recurrent cells, scanned and rematerialised blocks, nested loops, selective scans, and one jitted
block called many times. Yardstick and procedure are those of `ratio.py`; the input is what comes
after an embedding, floats of (batch, time, width).

Through a random recurrent cell, relevance by Epsilon(0) grows step by step and overflows float32
before the 64th: those rows are timed, and their values mean nothing.
"""

import argparse
import functools
import statistics
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import ratio
from jax import lax

CLASSES = 16


class Program(NamedTuple):
    """`fn(params, x)` gives logits; `rules` are names in `ratio.RULES`."""

    fn: Callable[..., Any]
    params: Any
    x: jax.Array
    rules: tuple[str, ...]
    compiles: bool = True  # False: it is only traced, the compiler would take minutes


class Draw:
    """Random parameters and inputs of one program."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)

    def normal(self, *shape: int, scale: float = 1.0) -> jax.Array:
        return jnp.asarray(scale * self.rng.standard_normal(shape), jnp.float32)

    def kernel(self, *shape: int) -> jax.Array:
        """Keeps the variance; the last axis but one is added up."""
        return self.normal(*shape, scale=shape[-2] ** -0.5)

    def near_one(self, *shape: int) -> jax.Array:
        return jnp.asarray(self.rng.uniform(0.5, 1.5, shape), jnp.float32)


# --- recurrent cells


class LSTM(nn.Module):
    """One layer by Flax, read at the last step."""

    width: int = 256

    @nn.compact
    def __call__(self, x):
        hidden: Any = nn.RNN(nn.OptimizedLSTMCell(self.width))(x)
        return nn.Dense(CLASSES)(hidden[:, -1])


def lstm(steps: int = 64) -> Program:
    x = Draw().normal(32, steps, 256)
    model = LSTM()
    params = model.init(jax.random.key(0), x)
    return Program(model.apply, params, x, ("lstm_lrp_all", "lrp_zero", "attn_lrp"))


def gru_step(params, h, x):
    a, b = x @ params["W"] + params["b"], h @ params["U"]
    (a_z, a_r, a_n), (b_z, b_r, b_n) = jnp.split(a, 3, -1), jnp.split(b, 3, -1)
    z, r = jax.nn.sigmoid(a_z + b_z), jax.nn.sigmoid(a_r + b_r)
    return z * h + (1 - z) * jnp.tanh(a_n + r * b_n)


def gru_params(width: int) -> Any:
    draw = Draw()
    return {
        "W": draw.kernel(width, 3 * width),
        "U": draw.kernel(width, 3 * width),
        "b": draw.normal(3 * width, scale=0.1),
        "head": draw.kernel(width, CLASSES),
    }


def gru_remat() -> Program:
    """A hand-written GRU whose step is rematerialised."""

    def fn(params, x):
        @jax.checkpoint
        def step(h, x):
            return gru_step(params, h, x), None

        h, _ = lax.scan(step, jnp.zeros_like(x[:, 0]), x.swapaxes(0, 1))
        return h @ params["head"]

    return Program(fn, gru_params(256), Draw().normal(32, 64, 256), ("lrp_zero", "attn_lrp"))


def nested(remat: bool) -> Program:
    """The same GRU: a scan over chunks of time, in it a scan over steps."""
    chunks = 8

    def fn(params, x):
        def step(h, x):
            return gru_step(params, h, x), None

        def chunk(h, xs):
            return lax.scan(step, h, xs)

        steps = x.swapaxes(0, 1)
        steps = steps.reshape(chunks, -1, *steps.shape[1:])
        h, _ = lax.scan(jax.checkpoint(chunk) if remat else chunk, jnp.zeros_like(x[:, 0]), steps)
        return h @ params["head"]

    return Program(fn, gru_params(256), Draw().normal(32, 64, 256), ("lrp_zero", "attn_lrp"))


# --- transformers


def norm(x, scale, shift):
    mean = x.mean(-1, keepdims=True)
    variance = jnp.square(x - mean).mean(-1, keepdims=True)
    return (x - mean) * lax.rsqrt(variance + 1e-6) * scale + shift


def block(p, x):
    """Pre-LN attention and MLP on (batch, time, width)."""
    n = norm(x, p["scale_attention"], p["shift_attention"])
    q, k, v = (jnp.einsum("btd,hde->bhte", n, p[name]) for name in ("query", "key", "value"))
    weights = jax.nn.softmax(jnp.einsum("bhqe,bhke->bhqk", q, k) / q.shape[-1] ** 0.5)
    x = x + jnp.einsum("bhqe,hed->bqd", jnp.einsum("bhqk,bhke->bhqe", weights, v), p["out"])
    n = norm(x, p["scale_mlp"], p["shift_mlp"])
    return x + jax.nn.gelu(n @ p["up"] + p["shift_up"]) @ p["down"] + p["shift_down"]


def stack_params(depth: int, width: int, heads: int) -> Any:
    draw = Draw()
    each = width // heads
    return {
        "blocks": {
            **{f"scale_{n}": draw.near_one(depth, width) for n in ("attention", "mlp")},
            **{
                f"shift_{n}": draw.normal(depth, size, scale=0.1)
                for n, size in {
                    "attention": width,
                    "mlp": width,
                    "up": 4 * width,
                    "down": width,
                }.items()
            },
            **{n: draw.kernel(depth, heads, width, each) for n in ("query", "key", "value")},
            "out": draw.kernel(depth, heads, each, width) * heads**-0.5,
            "up": draw.kernel(depth, width, 4 * width),
            "down": draw.kernel(depth, 4 * width, width),
        },
        "scale": draw.near_one(width),
        "shift": draw.normal(width, scale=0.1),
        "head": draw.kernel(width, CLASSES),
    }


def read_out(params, x):
    return norm(x[:, 0], params["scale"], params["shift"]) @ params["head"]


def blocks(remat: bool) -> Program:
    """Twelve blocks as one scan over stacked parameters."""

    def fn(params, x):
        def step(x, p):
            return block(p, x), None

        x, _ = lax.scan(jax.checkpoint(step) if remat else step, x, params["blocks"])
        return read_out(params, x)

    return Program(fn, stack_params(12, 256, 4), Draw().normal(4, 128, 256), ("attn_lrp", "cp_lrp"))


def calls() -> Program:
    """One jitted block, called 48 times from Python: what is traced once must not be 48 times."""
    depth = 48
    jitted = jax.jit(block)

    def fn(params, x):
        for p in params["blocks"]:
            x = jitted(p, x)
        return read_out(params, x)

    params = stack_params(depth, 64, 4)
    stacked = params["blocks"]
    params["blocks"] = [{name: leaf[i] for name, leaf in stacked.items()} for i in range(depth)]
    return Program(fn, params, Draw().normal(2, 4, 64), ("attn_lrp", "cp_lrp"), compiles=False)


# --- selective state spaces

DT_RANK, STATE = 8, 16


def by_scan(a, b, c):
    """y_t = sum over the state of h_t c_t, with h_t = a_t h_{t-1} + b_t, one step at a time."""

    def step(h, abc):
        a, b, c = abc
        h = a * h + b
        return h, jnp.einsum("bds,bs->bd", h, c)

    _, y = lax.scan(
        step, jnp.zeros_like(b[:, 0]), jax.tree.map(lambda v: v.swapaxes(0, 1), (a, b, c))
    )
    return y.swapaxes(0, 1)


def by_associative_scan(a, b, c):
    def combine(left, right):
        return left[0] * right[0], right[0] * left[1] + right[1]

    _, h = lax.associative_scan(combine, (a, b), axis=1)
    return jnp.einsum("btds,bts->btd", h, c)


def mamba(states: Callable) -> Program:
    """A layer of Mamba with its norm, short convolution, gate and skip."""
    width, inner = 128, 256

    def fn(params, x):
        n = x * lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-6) * params["scale"]
        u, z = jnp.split(n @ params["in"], 2, -1)
        u = lax.conv_general_dilated(
            u,
            params["conv"],
            (1,),
            [(3, 0)],
            dimension_numbers=("NWC", "WIO", "NWC"),
            feature_group_count=inner,
        )
        u = jax.nn.silu(u)
        dt, b, c = jnp.split(u @ params["x"], [DT_RANK, DT_RANK + STATE], -1)
        dt = jax.nn.softplus(dt @ params["dt"] + params["dt_shift"])
        a = jnp.exp(dt[..., None] * params["A"])
        y = states(a, (dt * u)[..., None] * b[:, :, None], c) + params["D"] * u
        x = x + (y * jax.nn.silu(z)) @ params["out"]
        return x[:, -1] @ params["head"]

    draw = Draw()
    params = {
        "scale": draw.near_one(width),
        "in": draw.kernel(width, 2 * inner),
        "conv": draw.normal(4, 1, inner, scale=0.5),
        "x": draw.kernel(inner, DT_RANK + 2 * STATE),
        "dt": draw.kernel(DT_RANK, inner),
        "dt_shift": draw.normal(inner) - 2.0,
        "A": -jnp.broadcast_to(jnp.arange(1.0, STATE + 1), (inner, STATE)),
        "D": draw.near_one(inner),
        "out": draw.kernel(inner, width),
        "head": draw.kernel(width, CLASSES),
    }
    return Program(fn, params, draw.normal(4, 128, width), ("mamba_lrp",))


PROGRAMS: dict[str, Callable[[], Program]] = {
    "lstm": lstm,
    "lstm_200": functools.partial(lstm, 200),
    "gru_remat": gru_remat,
    "nested": functools.partial(nested, remat=False),
    "nested_remat": functools.partial(nested, remat=True),
    "blocks": functools.partial(blocks, remat=False),
    "blocks_remat": functools.partial(blocks, remat=True),
    "mamba_scan": functools.partial(mamba, by_scan),
    "mamba_associative": functools.partial(mamba, by_associative_scan),
    "calls": calls,
}

# What rules that keep to densities may cost, times the gradient.
DENSITY_RULES = ("lrp_zero", "attn_lrp", "cp_lrp", "mamba_lrp")
RUN_TARGET = MEMORY_TARGET = 1.15
TRACE_TARGET = 2.0


# --- the table

HEADER = (
    "program",
    "rules",
    "run",
    "best",
    "run, ms (min to max)",
    "memory",
    "memory, MB",
    "trace",
    "trace, s",
    "compile",
    "compile, s",
)


TRACED_HEADER = ("program", "rules", "trace", "best", "trace, s (min to max)")


def judged(value: float, target: float, rule: str) -> str:
    """`value`, and whether it meets its target if rules of this name have one."""
    if rule == "gradient":
        return f"{value:.2f}"
    return f"{value:.2f} ({ratio.verdict(value, target if rule in DENSITY_RULES else None)})"


def spread(seconds: Sequence[float], unit: float, digits: int) -> str:
    low, middle, high = (f(seconds) / unit for f in (min, statistics.median, max))
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def row(name: str, rule: str, entry: ratio.Measured, base: ratio.Measured) -> tuple[str, ...]:
    trace, base_trace = (statistics.median(e.trace_s) for e in (entry, base))
    compile_, base_compile = (statistics.median(e.compile_s) for e in (entry, base))
    return (
        name,
        rule,
        judged(entry.times(base), RUN_TARGET, rule),
        f"{min(entry.run_s) / min(base.run_s):.2f}",
        spread(entry.run_s, 1e-3, 1),
        judged(entry.memory / base.memory, MEMORY_TARGET, rule),
        f"{entry.memory / 1e6:.1f}",
        judged(trace / base_trace, TRACE_TARGET, rule),
        f"{trace:.2f}",
        f"{compile_ / base_compile:.2f}",
        f"{compile_:.2f}",
    )


def traced(name: str, program: Program, args: Sequence[Any], builds: int) -> list[tuple[str, ...]]:
    """Rows of a program that is traced and not compiled."""
    steps = ratio.steps_of(program.fn, program.rules)
    seconds: dict[str, list[float]] = {rule: [] for rule in steps}
    ratio.lower(steps["gradient"](), args)
    for _ in range(builds):
        for rule, step in steps.items():
            seconds[rule].append(ratio.lower(step(), args)[1])
    base = seconds["gradient"]
    return [
        (
            name,
            rule,
            judged(statistics.median(taken) / statistics.median(base), TRACE_TARGET, rule),
            f"{min(taken) / min(base):.2f}",
            spread(taken, 1.0, 2),
        )
        for rule, taken in seconds.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=PROGRAMS, default=list(PROGRAMS))
    parser.add_argument("--runs", type=int, default=21, help="timed runs of each (default 21)")
    parser.add_argument("--builds", type=int, default=5, help="traces and compilations (default 5)")
    options = parser.parse_args()

    print(ratio.machine())
    print("run, memory, trace and compile are times the gradient's; run is the median over rounds,")
    print("best the quotient of the shortest times; times without a range are medians.")
    for name in options.only:
        program = PROGRAMS[name]()
        args = (program.params, program.x, jnp.arange(len(program.x)) % CLASSES)
        print(flush=True)
        if not program.compiles:
            ratio.show(traced(name, program, args, options.builds), TRACED_HEADER)
            continue
        measured = ratio.measure(program.fn, args, program.rules, options)
        base = measured["gradient"]
        ratio.show([row(name, rule, entry, base) for rule, entry in measured.items()], HEADER)
        del program, args, measured, base


if __name__ == "__main__":
    main()
