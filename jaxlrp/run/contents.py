"""The content of a plan as something that can be compared: all that decides what it computes."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlrp import compat
from jaxlrp.graph import primitives
from jaxlrp.graph.ir import Eqn, Graph, InlinedCall, Literal, Value
from jaxlrp.graph.particulars import mapped
from jaxlrp.planning.layers import Layer, group_of
from jaxlrp.run.bound_call import BoundCall


class Unknown(Exception):
    """Something has no content to compare: a value that is not known yet, an unhashable object."""


def plan_contents(bound: BoundCall) -> Hashable:
    """Equal for two calls only if one compiled function may run both on their arrays."""
    plan = bound.plan
    of = _Contents()
    consts = [(of.value(v), _integers(array)) for v, array in plan.graph.consts]
    position = {layer: n for n, layer in enumerate(plan.layers)}
    return (
        primitives.changes(),
        of.graph(plan.graph),
        tuple(consts),
        of.values(plan.explained),
        of.values([*bound.outputs, *bound.aux]),
        tuple(of.layer(layer, position) for layer in plan.layers),
        tuple(plan.edges.get(v) for v in of.numbers),
        tuple(plan.seeds.get(v) for v in bound.outputs),
    )


def _integers(array: Any) -> Hashable:
    """The numbers of a constant that may say places; those of a floating one decide nothing."""
    special = jnp.issubdtype(array.dtype, jax.dtypes.extended)
    if special or jnp.issubdtype(array.dtype, jnp.inexact) or not compat.is_concrete(array):
        return None
    return np.asarray(array).tobytes()


class _Contents:
    """Values and equations numbered in the order in which they are met."""

    def __init__(self) -> None:
        self.numbers: dict[Value, int] = {}
        self._eqns: dict[Eqn, int] = {}
        self._calls: dict[InlinedCall, int] = {}

    def value(self, value: Value) -> Hashable:
        if isinstance(value, Literal):
            return str(value.aval), content(value.val)
        known = value in self.numbers
        number = self.numbers.setdefault(value, len(self.numbers))
        return number if known else (number, str(value.aval))

    def values(self, values: Iterable[Value]) -> Hashable:
        return tuple(map(self.value, values))

    def graph(self, graph: Graph) -> Hashable:
        start = self.values([*graph.inputs, *(v for v, _ in graph.consts)])
        eqns = tuple(map(self.eqn, graph.eqns))
        return start, eqns, self.values(graph.outputs)

    def eqn(self, eqn: Eqn) -> Hashable:
        self._eqns[eqn] = len(self._eqns)
        bodies = tuple(map(self.graph, eqn.bodies))
        params = {k: v for k, v in eqn.params.items() if not (bodies and _is_body(v))}
        return (
            eqn.prim,
            content(params),
            self.values(eqn.inputs),
            bodies,
            self.values(eqn.outputs),
            self.call(eqn.call),
        )

    def call(self, call: InlinedCall | None) -> Hashable:
        if call is None or call in self._calls:
            return self._calls.get(call) if call is not None else None
        self._calls[call] = len(self._calls)
        return content(call.settings), self.call(call.parent)

    def _place(self, x: Eqn | Value) -> Hashable:
        return self._eqns[x] if isinstance(x, Eqn) else self.value(x)

    def layer(self, layer: Layer, position: Mapping[Layer, int]) -> Hashable:
        group = group_of(layer)
        parts = group.particulars
        if any(e not in self._eqns for e in group.eqns):
            raise Unknown
        return (
            layer.kind,
            type(layer.rule),
            content(vars(layer.rule)),
            layer.arriving,
            layer.carries,
            layer.nonnegative,
            layer.sign_split,
            None if layer.relu is None else position[layer.relu],
            tuple(self._eqns[e] for e in group.eqns),
            self.values(group.inputs),
            self.values(group.outputs),
            None if parts is None else mapped(parts, self._place),
            tuple((self._eqns.get(e), i) for e, i in group.detached),
        )


def _is_body(param: Any) -> bool:
    jaxprs = (compat.Jaxpr, compat.ClosedJaxpr)
    found = param if isinstance(param, tuple) and param else (param,)
    return all(isinstance(p, jaxprs) for p in found)


def content(x: Any) -> Hashable:
    """Something hashable that is equal for equal things.

    Raises:
      Unknown: the thing cannot be compared by its content.
    """
    if not compat.is_concrete(x):
        raise Unknown
    if isinstance(x, (jax.Array, np.ndarray, np.generic)):
        if jnp.issubdtype(x.dtype, jax.dtypes.extended):
            raise Unknown
        array = np.asarray(x)
        return "array", array.shape, array.dtype.str, array.tobytes()
    if isinstance(x, (float, complex)):
        return type(x), repr(x)  # NaN is equal to itself here, and 0.0 is not -0.0
    if isinstance(x, compat.ClosedJaxpr):
        return content(x.jaxpr), content(tuple(x.consts))
    if isinstance(x, compat.Jaxpr):
        return _jaxpr(x)
    if isinstance(x, Mapping):
        return type(x), tuple((k, content(v)) for k, v in x.items())
    if isinstance(x, (tuple, list)):
        return type(x), tuple(map(content, x))
    if dataclasses.is_dataclass(x) and not isinstance(x, type):
        return type(x), tuple(content(getattr(x, f.name)) for f in dataclasses.fields(x))
    try:
        hash(x)
    except TypeError as error:
        raise Unknown from error
    return type(x), x


def _jaxpr(jaxpr: Any) -> Hashable:
    numbers: dict[Any, int] = {}

    def atom(x: Any) -> Hashable:
        if isinstance(x, compat.Literal):
            return str(x.aval), content(x.val)
        return numbers.setdefault(x, len(numbers)), str(x.aval)

    start = tuple(map(atom, (*jaxpr.constvars, *jaxpr.invars)))
    eqns = tuple(
        (e.primitive, tuple(map(atom, e.invars)), content(e.params), tuple(map(atom, e.outvars)))
        for e in jaxpr.eqns
    )
    return start, eqns, tuple(map(atom, jaxpr.outvars))
