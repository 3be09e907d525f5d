"""Outside `jit`: elementwise equations that follow one another are one program.

One by one each would be compiled for every shape, which takes most of a first call, and started at
every call. Rules consist of many such equations, a gradient of few. The equations that make the
network's own values stay apart, so that these are the same to the last bit as without relevance.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

import jax

from jaxlrp.graph.contents import Avals, Unknown, equations_contents
from jaxlrp.graph.ir import Eqn, Graph, Literal, Value, is_low
from jaxlrp.graph.primitives import BINARY, UNARY
from jaxlrp.run import evaluate

_TOGETHER = UNARY | BINARY | frozenset("select_n clamp broadcast_in_dim reshape squeeze".split())


@dataclasses.dataclass
class Piece:
    """Equations that run together, what they read, and what others read of them.

    Attributes:
      function: runs them on arrays; None for one that runs by itself.
    """

    eqns: Sequence[Eqn]
    inputs: Sequence[Value]
    outputs: Sequence[Value]
    function: Callable[..., Any] | None = None

    def run(self, env: evaluate.Env) -> None:
        """Add the results to `env`."""
        if self.function is not None:
            try:
                found = self.function(*(env[v] for v in self.inputs))
            except ValueError:  # arrays of two devices, each in equations of its own
                pass
            else:
                env.update(zip(self.outputs, found, strict=True))
                return
        evaluate.run(self.eqns, env)


def pieces(graph: Graph, own: Iterable[Value]) -> list[Piece]:
    """The equations of a graph in order; `own` are the outputs that are the network's values."""
    apart = set(own)
    for eqn in reversed(graph.eqns):
        if not apart.isdisjoint(eqn.outputs):
            apart.update(eqn.inputs)
    runs: list[list[Eqn]] = []
    open_run = False
    for eqn in graph.eqns:
        joins = apart.isdisjoint(eqn.outputs) and _may_join(eqn)
        if joins and open_run:
            runs[-1].append(eqn)
        else:
            runs.append([eqn])
        open_run = joins
    found = [_piece(graph, eqns) for eqns in runs]
    functions: dict[Hashable, Callable[..., Any]] = {}
    avals = Avals()
    for piece in found:
        if len(piece.eqns) > 1:
            try:
                key = equations_contents(piece.eqns, piece.inputs, piece.outputs, avals)
            except Unknown:
                key = id(piece)
            piece.function = functions.setdefault(key, _program(piece))
    return found


def _may_join(eqn: Eqn) -> bool:
    """Whether an equation is elementwise, or a view, in at least 32 bits.

    A compiler may leave out roundings between fewer bits.
    """
    values = (*eqn.inputs, *eqn.outputs)
    return eqn.name in _TOGETHER and not eqn.bodies and not any(is_low(v.dtype) for v in values)


def _piece(graph: Graph, eqns: Sequence[Eqn]) -> Piece:
    made = dict.fromkeys(v for e in eqns for v in e.outputs)
    read = dict.fromkeys(v for e in eqns for v in e.inputs)
    inside = set(eqns)
    outputs = [v for v in made if graph.is_output(v) or not inside.issuperset(graph.uses(v))]
    return Piece(eqns, [v for v in read if v not in made and not isinstance(v, Literal)], outputs)


def _program(piece: Piece) -> Callable[..., Any]:
    eqns, inputs, outputs = piece.eqns, piece.inputs, piece.outputs

    def call(*arrays: Any) -> list[Any]:
        env: evaluate.Env = dict(zip(inputs, arrays, strict=True))
        evaluate.run(eqns, env)
        return [env[v] for v in outputs]

    return jax.jit(call)
