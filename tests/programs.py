"""Small programs as data: lines of Python over named values, to be rewritten and printed.

A program is a list of nodes in dataflow order. A node says what it is (`op` and `facts`, read by
the rewrites and by the reference in tests/layer_reference.py) and how it is written (`text`, in
which {0}, {1} stand for its arguments). Learned arrays are arguments of the function or closed
over; numbers in a text are literals. Lines never depend on the size of the batch.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

# Helpers that a text may call; those in use are printed with a program.
HELPERS = {
    "each": """
def each(f, *args):
    return jax.vmap(lambda *a: jax.tree.map(lambda v: v[0], f(*(v[None] for v in a))))(*args)
""",
    "each_in_turn": """
def each_in_turn(f, *args):
    return lax.map(lambda a: jax.tree.map(lambda v: v[0], f(*(v[None] for v in a))), args)
""",
    "scan_one": """
def scan_one(f, *args):
    stacked = jax.tree.map(lambda v: v[None], args)
    return jax.tree.map(lambda v: v[0], lax.scan(lambda c, a: (c, f(*a)), 0.0, stacked)[1])
""",
    "carry_one": """
def carry_one(f, x):
    return lax.scan(lambda c, _: (f(c), None), x, None, length=1)[0]
""",
    "each_if": """
def each_if(flag, f, *args):
    one = lambda *a: jax.tree.map(lambda v: v[0], f(*(v[None] for v in a)))
    flags = jnp.broadcast_to(flag, args[0].shape[:1])
    return jax.vmap(lambda flag, *a: lax.cond(flag, one, one, *a))(flags, *args)
""",
    "tower": """
def tower(x, w, b):
    for i in range(w.shape[0]):
        x = jax.nn.relu(x @ w[i] + b[i])
    return x
""",
    "tower_scanned": """
def tower_scanned(x, w, b):
    return lax.scan(lambda h, p: (jax.nn.relu(h @ p[0] + p[1]), None), x, (w, b))[0]
""",
    "tower_looped": """
def tower_looped(x, w, b):
    return lax.fori_loop(0, w.shape[0], lambda i, h: jax.nn.relu(h @ w[i] + b[i]), x)
""",
    "recur": """
def recur(x, u, v, b):
    h = jnp.tanh(x[:, 0] @ u + b)
    for t in range(1, x.shape[1]):
        h = jnp.tanh((x[:, t] @ u + b) + h @ v)
    return h
""",
    "recur_scanned": """
def recur_scanned(x, u, v, b):
    h = jnp.tanh(x[:, 0] @ u + b)
    step = lambda h, x: (jnp.tanh((x @ u + b) + h @ v), None)
    return lax.scan(step, h, x[:, 1:].swapaxes(0, 1))[0]
""",
    "recur_hoisted": """
def recur_hoisted(x, u, v, b):
    xs = (x @ u + b).swapaxes(0, 1)
    return lax.scan(lambda h, x: (jnp.tanh(x + h @ v), None), jnp.tanh(xs[0]), xs[1:])[0]
""",
    "patches": """
def patches(x, kernel, pads, stride):
    (top, bottom), (left, right) = pads
    x = jnp.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)))
    height, width, _, out = kernel.shape
    rows, columns = (x.shape[1] - height) // stride + 1, (x.shape[2] - width) // stride + 1
    parts = [
        x[:, i : i + (rows - 1) * stride + 1 : stride, j : j + (columns - 1) * stride + 1 : stride]
        for i in range(height)
        for j in range(width)
    ]
    return jnp.concatenate(parts, -1) @ kernel.reshape(-1, out)
""",
    "gathered": """
def gathered(x, kernel, pads, stride):
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    height, width, _, out = kernel.shape
    rows = np.arange(0, x.shape[1] - height + 1, stride)[:, None] + np.arange(height)
    columns = np.arange(0, x.shape[2] - width + 1, stride)[:, None] + np.arange(width)
    windows = x[:, rows[:, None, :, None], columns[None, :, None, :]]
    return windows.reshape(*windows.shape[:3], -1) @ kernel.reshape(-1, out)
""",
}


@dataclass(frozen=True)
class Node:
    name: str
    op: str
    text: str
    args: tuple[str, ...] = ()
    facts: tuple[tuple[str, Any], ...] = ()
    # A part of the program that the text calls as {f}: its nodes and what it returns.
    body: tuple[Node, ...] = ()
    returns: tuple[str, ...] = ()

    def __getitem__(self, fact: str) -> Any:
        return dict(self.facts)[fact]

    def renamed(self, names: dict[str, str]) -> Node:
        """Reading other values."""
        args = tuple(names.get(a, a) for a in self.args)
        return dataclasses.replace(self, args=args)


@dataclass(frozen=True, eq=False)
class Program:
    nodes: tuple[Node, ...]
    output: str
    x: np.ndarray
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    closed: frozenset[str] = frozenset()  # arrays that the function closes over
    also: tuple[str, ...] = ()  # further outputs, which other lines may read too

    @property
    def outputs(self) -> tuple[str, ...]:
        return (self.output, *self.also)

    @functools.cached_property
    def by_name(self) -> dict[str, Node]:
        return {n.name: n for n in self.nodes}

    @functools.cached_property
    def active(self) -> frozenset[str]:
        """Names of values that depend on x."""
        found = {"x"}
        for node in self.nodes:
            if not found.isdisjoint(node.args):
                found.add(node.name)
        return frozenset(found)

    @functools.cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every array-valued name, the batch first where it is active."""
        names = [n.name for n in self.nodes]
        fn = self.build(f"dict({', '.join(f'{n}={n}' for n in names)})")
        out = jax.eval_shape(fn, self.x, self.passed)
        found = {n: tuple(v.shape) for n, v in out.items() if hasattr(v, "shape")}
        found |= {n: a.shape for n, a in self.arrays.items()}
        return {**found, "x": self.x.shape}

    @property
    def passed(self) -> dict[str, np.ndarray]:
        return {n: a for n, a in self.arrays.items() if n not in self.closed}

    def values(self) -> dict[str, Any]:
        """Every value, by running the lines."""
        names = [n.name for n in self.nodes]
        fn = self.build(f"dict({', '.join(f'{n}={n}' for n in names)})")
        return {"x": self.x, **self.arrays, **jax.jit(fn)(self.x, self.passed)}

    def readers(self, name: str) -> int:
        return sum(n.args.count(name) for n in self.nodes) + self.outputs.count(name)

    def pruned(self) -> Program:
        """Without lines that nobody reads."""
        live, kept = set(self.outputs), []
        for node in reversed(self.nodes):
            if node.name in live:
                kept.append(node)
                live.update(node.args)
                live.update(_read_inside(node))
        arrays = {n: a for n, a in self.arrays.items() if n in live}
        return dataclasses.replace(
            self, nodes=tuple(kept[::-1]), arrays=arrays, closed=self.closed & arrays.keys()
        )

    def source(self, name: str = "fn", result: str | None = None) -> str:
        """The function as Python."""
        lines = [f"def {name}(x, p):", *self._lines(self.nodes, "    ")]
        return "\n".join([*lines, f"    return {result or ', '.join(self.outputs)}"]) + "\n"

    def _lines(self, nodes: tuple[Node, ...], indent: str) -> list[str]:
        lines = []
        for node in nodes:
            text = re.sub(r"\{(\d+)\}", lambda m: self._read(node.args[int(m[1])]), node.text)
            if node.body:
                part = f"part_{node.name}"
                lines.append(f"{indent}def {part}({', '.join(node.args)}):")
                lines += self._lines(node.body, indent + "    ")
                lines.append(f"{indent}    return {', '.join(node.returns)}")
                text = text.replace("{f}", part)
                text = text.replace("{args}", ", ".join(self._read(a) for a in node.args))
            lines.append(f"{indent}{node.name} = {text}")
        return lines

    def _read(self, name: str) -> str:
        return f"p[{name!r}]" if name in self.arrays and name not in self.closed else name

    def helpers(self) -> str:
        source = self.source()
        return "".join(
            text + "\n" for name, text in HELPERS.items() if re.search(rf"\b{name}\(", source)
        )

    def build(self, result: str | None = None) -> Any:
        """The function `fn(x, p)`."""
        arrays = {n: jnp.asarray(self.arrays[n]) for n in self.closed}
        space = {"jax": jax, "jnp": jnp, "lax": lax, "np": np, **arrays}
        exec(_ALL_HELPERS, space)
        exec(self.source(result=result), space)
        return space["fn"]


_ALL_HELPERS = compile("".join(HELPERS.values()), "helpers", "exec")


def _read_inside(node: Node) -> set[str]:
    """What a line reads beside its arguments: in the part that it calls, and its flag."""
    found = {dict(node.facts).get("flag", node.name)}
    for inner in node.body:
        found |= {*inner.args, *_read_inside(inner)}
    return found


def names_of(nodes: Iterable[Node]) -> set[str]:
    """All names, inner ones too."""
    return {name for n in nodes for name in (n.name, *names_of(n.body))}


def printed(array: np.ndarray) -> str:
    text = np.array2string(array, separator=", ", threshold=10**6, floatmode="unique")
    return f"np.array({' '.join(text.split())})"


def script(one: Program, other: Program | None, rules: str) -> str:
    """A runnable text: two spellings of a function and their relevances."""
    arrays = {**one.arrays, **(other.arrays if other else {})}
    closed = one.closed | (other.closed if other else frozenset())
    lines = [
        "import jax, jax.numpy as jnp, numpy as np",
        "from jax import lax",
        'jax.config.update("jax_enable_x64", True)',
        "import jaxlrp as lrp",
        f"x = {printed(one.x[: len(one.x) // 2])}",
        "p = {",
        *(f"    {n!r}: {printed(a)}," for n, a in arrays.items()),
        "}",
        *(f"{n} = jnp.asarray(p[{n!r}])" for n in sorted(closed)),
    ]
    helpers = one.helpers()
    if other is not None:
        missing = [h for h in other.helpers().split("\n\n") if h not in helpers]
        helpers += "\n\n".join(missing)
    lines += [helpers, one.source("one")]
    lines += [other.source("other")] if other else []
    lines.append(f"rules = {rules}")
    for name in ("one", "other")[: 2 if other else 1]:
        lines += [f"print({name}(x, p))", f"print(lrp.explain({name}, rules)(x, p))"]
    return "\n".join(lines) + "\n"
