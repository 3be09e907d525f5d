"""The graph of a traced function: single-assignment values and equations, calls inlined."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp

from jaxlrp import compat


class Value:
    """One array in the graph."""

    __slots__ = ("aval", "index", "of_module", "outer", "path", "producer", "sliced")

    def __init__(self, aval: Any, producer: Eqn | None = None, index: int = 0):
        self.aval = aval
        self.producer = producer
        self.index = index
        self.path: tuple[str, ...] = ()  # pytree path, for parameters
        self.of_module = False  # a leaf of the function itself, if that is a module
        self.outer: Value | None = None  # input of a body: the operand that is passed to it
        self.sliced = False  # whether it is one slice of that operand along the first axis

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.aval.shape)

    @property
    def ndim(self) -> int:
        return len(self.aval.shape)

    @property
    def dtype(self) -> Any:
        return self.aval.dtype

    @property
    def size(self) -> int:
        size = 1
        for n in self.aval.shape:
            size *= n
        return size


class Literal(Value):
    """A scalar written into the jaxpr."""

    __slots__ = ("val",)

    def __init__(self, aval: Any, val: Any):
        super().__init__(aval)
        self.val = val


@dataclasses.dataclass(frozen=True, eq=False)
class InlinedCall:
    """A call whose equations replace it in the graph, if the call has a meaning.

    With `settings`, `jax.checkpoint` wraps it: it is recomputed in the backward pass. With `of`,
    the function is called several times; calls of one jaxpr have the same object there.
    """

    settings: dict[str, Any] | None
    parent: InlinedCall | None = None
    of: Any = None


class Eqn:
    """One equation. `scope` holds the named scopes around it, outermost first.

    Control flow keeps the graphs that it runs in `bodies` (see `graph/control_flow.py`).
    """

    __slots__ = (
        "bodies",
        "call",
        "inputs",
        "name",
        "order",
        "outputs",
        "params",
        "prim",
        "scope",
        "source_info",
    )

    def __init__(self, prim, params, inputs, outputs, scope, source_info, call):
        self.prim = prim
        self.name: str = prim.name
        self.params: compat.Params = params
        self.inputs: list[Value] = inputs
        self.outputs: list[Value] = outputs
        self.scope: tuple[str, ...] = scope
        self.source_info = source_info
        self.call: InlinedCall | None = call
        self.bodies: tuple[Graph, ...] = ()
        self.order = -1

    @property
    def out(self) -> Value:
        return self.outputs[0]

    @property
    def source(self) -> str:
        """The user's line that made it; inside a library's call, the line of the call."""
        return compat.source_line(*self.source_info)


class Graph:
    """Equations in dataflow order, with inputs, constants and outputs.

    Only the constants that are positions or truth values are kept as arrays, as recognition reads
    them.
    """

    def __init__(
        self,
        inputs: list[Value],
        consts: list[tuple[Value, Any]],
        eqns: list[Eqn],
        outputs: list[Value],
    ):
        self.inputs = inputs
        self.consts = consts
        self.outputs = outputs
        self.renumber(eqns)

    def renumber(self, eqns: list[Eqn]) -> None:
        """Replace the equations by others, in dataflow order, for the same inputs and outputs."""
        self.eqns = _needed(eqns, self.outputs)
        self.consumers: dict[Value, list[Eqn]] = {}
        for order, eqn in enumerate(self.eqns):
            eqn.order = order
            for value in dict.fromkeys(eqn.inputs):
                self.consumers.setdefault(value, []).append(eqn)
        self._output_set = set(self.outputs)

    def uses(self, value: Value) -> list[Eqn]:
        """Equations that read a value, in order."""
        return self.consumers.get(value, [])

    def is_output(self, value: Value) -> bool:
        return value in self._output_set

    def sole_use(self, value: Value) -> Eqn | None:
        """The equation that reads a value, if there is just one and the value is not an output."""
        uses = self.uses(value)
        return uses[0] if len(uses) == 1 and not self.is_output(value) else None


def _needed(eqns: list[Eqn], outputs: list[Value]) -> list[Eqn]:
    """Drop equations whose results are not read."""
    live = set(outputs)
    kept = []
    for eqn in reversed(eqns):
        if any(value in live for value in eqn.outputs):
            kept.append(eqn)
            live.update(eqn.inputs)
    return kept[::-1]


def is_low(dtype: Any) -> bool:
    """Whether a type is a floating one narrower than 32 bits."""
    return bool(jnp.issubdtype(dtype, jnp.floating)) and jnp.dtype(dtype).itemsize < 4
