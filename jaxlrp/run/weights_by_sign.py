"""W+ and W- of a layer apart: its equations run on pairs, each half a sum of products."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxlrp import compat
from jaxlrp.graph.groups import Group
from jaxlrp.graph.ir import Eqn, Value, is_low
from jaxlrp.run.linear_protocols import LinearProgram

# An array that is computed once, on demand; None is zero.
Cell = Callable[[], Any] | None


class Parts(NamedTuple):
    """The sum of positive contributions, and the sum of negative ones."""

    positive: Cell
    negative: Cell


class Split:
    """The linear part with W+ and W- apart: for u and v the sums W+u + W-v and W-u + W+v.

    With u = x+ and v = x- these are the positive and the negative contributions. Each is a sum of
    products; nothing is subtracted. A product that is not needed is not computed.
    """

    def __init__(self, program: LinearProgram):
        self._program = program

    def parts(self, u: Any, v: Any) -> Parts:
        """Both sums, computed on demand. `v` may be None for a single input."""
        program = self._program
        us = listed(u)
        vs = listed(v) if v is not None else (None,) * len(us)
        starts = [Parts(_given(a), _given(b)) for a, b in zip(us, vs, strict=True)]
        return program.run(starts, _Signs(program))

    def __call__(self, u: Any, v: Any = None) -> Any:
        """W+u + W-v."""
        return self.value(self.parts(u, v).positive)

    def other(self, u: Any, v: Any = None) -> Any:
        """W-u + W+v."""
        return self.value(self.parts(u, v).negative)

    def value(self, cell: Cell) -> Any:
        """One of the sums, as an array."""
        return zeros_of(self._program.group) if cell is None else cell()

    def T(self, s: Any, other: Any = None, *, both: bool = True) -> Any:
        """The transposed maps: from `s` at W+u + W-v and `other` at W-u + W+v to u and v.

        Either may be None. Without `both`, only the result for u is returned.
        """
        like = self._program.like
        shapes = [like, like] if both else [like]

        def sums(pair: list[Any]) -> Parts:
            return self.parts(pair[0], pair[1] if both else None)

        asked = [c is not None and t is not None for c, t in zip(sums(shapes), (s, other))]

        def function(pair: list[Any]) -> list[Any]:
            return [c() for c, ask in zip(sums(pair), asked) if ask and c is not None]

        group = self._program.group
        cotangents = [as_output(group, t) for t, ask in zip((s, other), asked) if ask]
        if not cotangents:
            back = jax.tree.map(jnp.zeros_like, shapes)
        else:
            back = compat.linear_transpose(function, shapes, cotangents)
        return tuple(back) if both else back[0]


def _given(x: Any) -> Cell:
    return None if x is None else lambda: x


def _cell(make: Callable[[], Any]) -> Cell:
    return functools.cache(make)


def _sum(*terms: Cell) -> Cell:
    found = [t for t in terms if t is not None]
    if len(found) < 2:
        return found[0] if found else None
    return _cell(lambda: functools.reduce(operator.add, (t() for t in found)))


def _then(function: Callable[[Any], Any], x: Cell) -> Cell:
    return None if x is None else _cell(lambda: function(x()))


class _Signs:
    """LinearProgram on pairs: a positive factor keeps the two apart, a negative one swaps them."""

    def __init__(self, program: LinearProgram):
        self.program = program

    def negated(self, x: Parts) -> Parts:
        return Parts(_then(operator.neg, x.negative), _then(operator.neg, x.positive))

    def added(self, x: Parts, y: Parts) -> Parts:
        return Parts(_sum(x.positive, y.positive), _sum(x.negative, y.negative))

    def applied(self, function: Callable[[Any], Any], x: Parts) -> Parts:
        return Parts(_then(function, x.positive), _then(function, x.negative))

    def scaled(self, x: Parts, factor: Callable[[], Any], sign: int | None) -> Parts:
        if sign is not None:
            by = self.applied(lambda y: y * factor(), x)
            return by if sign > 0 else Parts(by.negative, by.positive)

        def up(y: Any) -> Any:
            return y * jnp.maximum(factor(), 0)

        def down(y: Any) -> Any:
            return y * jnp.minimum(factor(), 0)

        return self._crossed(x, up, down)

    @staticmethod
    def _crossed(x: Parts, up: Callable[[Any], Any], down: Callable[[Any], Any]) -> Parts:
        return Parts(
            _sum(_then(up, x.positive), _then(down, x.negative)),
            _sum(_then(down, x.positive), _then(up, x.negative)),
        )

    def through(self, core: Eqn, operand: int, x: Parts) -> Parts:
        kernel = functools.cache(lambda: self.program.late(self.program.kernel(core, operand)))
        positive = functools.cache(lambda: jnp.maximum(kernel(), 0))
        negative = functools.cache(lambda: jnp.minimum(kernel(), 0))
        return self._crossed(
            x,
            lambda y: self.program.product(core, operand, y, positive()),
            lambda y: self.program.product(core, operand, y, negative()),
        )

    def moved(self, eqn: Eqn, env: dict[Value, Parts]) -> list[Parts]:
        found = [
            self._half(eqn, {v: env[v][side] for v in eqn.inputs if v in env}) for side in (0, 1)
        ]
        return [Parts(*pair) for pair in zip(*found, strict=True)]

    def _half(self, eqn: Eqn, cells: dict[Value, Cell]) -> list[Cell]:
        given = {v: cell for v, cell in cells.items() if cell is not None}
        if not given:
            return [None] * len(eqn.outputs)

        def moved() -> list[Any]:
            values = {v: cell() for v, cell in given.items()}
            like = next(iter(values.values()))
            zeros = {
                v: compat.typed_like(jnp.zeros(v.shape, like.dtype), like)
                for v in cells
                if v not in given
            }
            return self.program.move(eqn, {**values, **zeros})

        outputs = functools.cache(moved)

        def output(index: int) -> Cell:
            return lambda: outputs()[index]

        return [output(i) for i in range(len(eqn.outputs))]


def listed(x: Any) -> tuple[Any, ...]:
    return x if isinstance(x, tuple) else (x,)


def zeros_of(group: Group) -> Any:
    return jnp.zeros(group.outputs[0].shape, output_dtype(group))


def output_dtype(group: Group) -> Any:
    """The dtype that a layer's maps return; after a cast it may not be that of relevance."""
    dtype = group.outputs[0].dtype
    return jnp.float32 if is_low(dtype) else dtype


def as_output(group: Group, y: Any) -> Any:
    """An array in that dtype; if the layer returns integers, as floats that carry them."""
    exact = jnp.issubdtype(group.outputs[0].dtype, jnp.integer)
    return y if exact else y.astype(output_dtype(group))
