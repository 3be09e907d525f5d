"""A reordered value: as the network computes it, and the same in another order of operations.

Forward it is the network's own value, to the last bit. Its derivative, and relevance, go only to
the other one, which has the order that recognition expects.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxlrp import compat
from jaxlrp.graph.ir import Eqn, Graph, Value


@jax.custom_jvp
def _reordered(ordered: Any, own: Any) -> Any:
    return own


@_reordered.defjvp
def _(primals: tuple[Any, Any], tangents: tuple[Any, Any]) -> tuple[Any, Any]:
    return _reordered(*primals), tangents[0]


class _Reordered:
    """The members of a primitive that an equation uses."""

    name = "reordered"
    multiple_results = False

    @staticmethod
    def get_bind_params(params: dict[str, Any]) -> dict[str, Any]:
        return params

    @staticmethod
    def bind(ordered: Any, own: Any) -> Any:
        return _reordered(ordered, own)


_PRIMITIVE = _Reordered()
_PARAMS = compat.Params("reordered", {})  # one for all: repeated calls are compared by it


def is_reordered(graph: Graph, eqn: Eqn) -> bool:
    """Whether the result of an equation is used only beside the same value in another order."""
    readers = [(e, v) for v in eqn.outputs for e in graph.uses(v)]
    own = all(e.name == _Reordered.name and e.inputs[0] is not v for e, v in readers)
    return own and bool(readers) and not any(map(graph.is_output, eqn.outputs))


class CannotOrder(Exception):
    """A partial result would have a shape that no value of the tree has."""


class Ordered:
    """New equations that compute the same as `own`, in its place."""

    def __init__(self, own: Eqn):
        self._own = own
        self.eqns: list[Eqn] = []

    def apply(self, name: str, *operands: Value) -> Value:
        """The value of a new equation."""
        shape = np.broadcast_shapes(*(v.shape for v in operands))
        alike = next((v for v in (*operands, self._own.out) if v.shape == shape), None)
        if alike is None:
            raise CannotOrder
        value = Value(alike.aval)
        self._add(*operation(name), list(operands), value)
        return value

    def joined(self, acc: Value | None, value: Value, sign: int, names: tuple[str, str]) -> Value:
        """Join another term, or factor; `names` are the primitives for a sign of 1 and of -1."""
        if acc is None:
            return value
        return self.apply(names[0] if sign > 0 else names[1], acc, value)

    def copied(self, value: Value, belongs: Callable[[Eqn], bool]) -> Value:
        """A value by equations of its own, as far back as equations belong."""
        copies: dict[Value, Value] = {}

        def copy(value: Value) -> Value:
            eqn = value.producer
            if eqn is None or len(eqn.outputs) != 1 or not belongs(eqn):
                return value
            if value not in copies:
                copies[value] = Value(value.aval)
                self._add(eqn.prim, eqn.params, [copy(v) for v in eqn.inputs], copies[value])
            return copies[value]

        return copy(value)

    def in_place_of_own(self, value: Value) -> list[Eqn]:
        """All equations: the last one pairs the value with the result of `own`, in its place."""
        out = self._own.out
        own = Value(out.aval, self._own)
        self._own.outputs = [own]
        self._add(_PRIMITIVE, _PARAMS, [value, own], out)
        return self.eqns

    def _add(self, prim: Any, params: compat.Params, inputs: list[Value], out: Value) -> None:
        own = self._own
        eqn = Eqn(prim, params, inputs, [out], own.scope, own.source_info, own.call)
        out.producer, out.index = eqn, 0
        self.eqns.append(eqn)


_OPERATIONS = {"add": lax.add, "sub": lax.sub, "mul": lax.mul, "div": lax.div, "neg": lax.neg}


@functools.cache
def operation(name: str) -> tuple[Any, compat.Params]:
    """The primitive of an arithmetic operation, and the parameters of its equations."""
    scalars = [jax.ShapeDtypeStruct((), jnp.float32)] * (1 if name == "neg" else 2)
    (eqn,) = jax.make_jaxpr(_OPERATIONS[name])(*scalars).eqns
    return eqn.primitive, compat.Params(name, eqn.params)
