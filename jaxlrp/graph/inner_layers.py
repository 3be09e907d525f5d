"""Values inside a function that are explained in place of its arguments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxlrp import compat
from jaxlrp.graph.groups import Group, InnerValue
from jaxlrp.graph.ir import Eqn, Graph, Value
from jaxlrp.graph.particulars import Move


def cut(graph: Graph, inner_values: Sequence[InnerValue]) -> tuple[Graph, list[Group]]:
    """The graph with every inner value read through an equation of its own, and that as a layer.

    That equation copies the value, so that there is a layer where relevance stops. It can be named,
    probed, masked and listed like any other. An operand that the addition would broadcast is
    broadcast first, so that an embedding of positions gets relevance for every example.
    """
    after: dict[Eqn | None, list[Eqn]] = {}
    before: dict[Eqn, list[Eqn]] = {}
    replaced: dict[Value, Value] = {}
    groups: list[Group] = []
    for inner in inner_values:
        value = inner.value
        if inner.reader is None:
            maker = value.producer
            copy = _copy(value, maker, inner)
            after.setdefault(maker, []).append(copy)
            replaced[value] = copy.out
        else:
            reader, position = inner.reader
            inserted = before.setdefault(reader, [])
            if reader.name != "concatenate" and value.shape != reader.out.shape:
                wide = _equation(_widened(reader.out.shape), value, reader)
                inserted.append(wide)
                value = wide.out
            copy = _copy(value, reader, inner)
            inserted.append(copy)
            reader.inputs[position] = copy.out
        main = inner.main or copy
        group = Group(inner.kind, [copy], [copy.inputs[0]], [copy.out], main, Move("move"))
        group.inner = inner
        groups.append(group)
    eqns = list(after.get(None, ()))
    for eqn in graph.eqns:
        eqn.inputs = [replaced.get(v, v) for v in eqn.inputs]
        eqns += [*before.get(eqn, ()), eqn, *after.get(eqn, ())]
    outputs = [replaced.get(v, v) for v in graph.outputs]
    return Graph(graph.inputs, graph.consts, eqns, outputs), groups


def _copy(value: Value, beside: Eqn | None, inner: InnerValue) -> Eqn:
    return _equation(jnp.copy, value, beside or inner.main)


def _widened(shape: tuple[int, ...]) -> Callable[[Any], Any]:
    return lambda x: lax.broadcast_in_dim(x, shape, range(len(shape)))


def _equation(function: Callable[[Any], Any], value: Value, beside: Eqn | None) -> Eqn:
    """A function of one primitive as a new equation, in the place of another."""
    shape = jax.ShapeDtypeStruct(value.shape, value.dtype)
    (made,) = jax.make_jaxpr(function)(shape).eqns
    out = Value(made.outvars[0].aval)
    scope, source, call = ((), (None, None), None)
    if beside is not None:
        scope, source, call = beside.scope, beside.source_info, beside.call
    params = compat.Params(made.primitive.name, made.params)
    eqn = Eqn(made.primitive, params, [value], [out], scope, source, call)
    out.producer = eqn
    return eqn
