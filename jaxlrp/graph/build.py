"""From a jaxpr to a graph, with every call inlined."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlrp import compat
from jaxlrp.graph import control_flow
from jaxlrp.graph.desugar import spelled_out
from jaxlrp.graph.ir import Eqn, Graph, Literal, Region, Value


def build(closed: Any, paths: Sequence[tuple[str, ...]]) -> Graph:
    """The graph of a closed jaxpr."""
    eqns: list[Eqn] = []
    consts: list[tuple[Value, Any]] = []
    seen: dict[Hashable, Value] = {}
    called: dict[int, Any] = {}  # one for each equation, so that repeated calls stay alike
    repeated = repeated_calls(closed.jaxpr)

    def constant(array: Any, aval: Any) -> Value:
        # Tied weights captured by a closure arrive once per call: keep one value for one array.
        key = _identity(array)
        if key not in seen:
            seen[key] = Value(aval)
            consts.append((seen[key], array))
        return seen[key]

    def body(closed: Any, scope: tuple[str, ...], caller: Any) -> Graph:
        inner: list[Eqn] = []
        inputs = [Value(var.aval) for var in closed.jaxpr.invars]
        env: dict[Any, Value] = dict(zip(closed.jaxpr.invars, inputs, strict=True))
        for var, array in zip(closed.jaxpr.constvars, closed.consts, strict=True):
            env[var] = constant(array, var.aval)
        outputs = inline(closed.jaxpr, env, scope, None, caller, inner)
        return Graph(inputs, [], inner, outputs)

    def inline(
        jaxpr: Any,
        env: dict[Any, Value],
        scope: tuple[str, ...],
        region: Region | None,
        caller: Any,
        eqns: list[Eqn],
    ) -> list[Value]:
        def read(atom: Any) -> Value:
            if isinstance(atom, compat.Literal):
                return Literal(atom.aval, atom.val)
            return env[atom]

        for eqn in jaxpr.eqns:
            inputs = [read(atom) for atom in eqn.invars]
            if id(eqn) not in called:
                call = compat.called_jaxpr(eqn) or spelled_out(eqn)
                params = compat.Params(eqn.primitive.name, eqn.params)
                called[id(eqn)] = call, params, compat.remat_settings(eqn), compat.scope_names(eqn)
            call, params, settings, names = called[id(eqn)]
            inner_scope = scope + names if names else scope
            if call is not None:
                inner, inner_consts = call
                inner_env = {
                    var: constant(array, var.aval)
                    for var, array in zip(inner.constvars, inner_consts, strict=True)
                }
                inner_env.update(zip(inner.invars, inputs, strict=True))
                of = inner if id(inner) in repeated else None
                stands_out = settings is not None or of is not None
                inner_region = Region(settings, region, of) if stands_out else region
                outputs = inline(
                    inner, inner_env, inner_scope, inner_region, caller or eqn.source_info, eqns
                )
            else:
                outputs = [Value(var.aval) for var in eqn.outvars]
                source = (caller, eqn.source_info)
                node = Eqn(eqn.primitive, params, inputs, outputs, inner_scope, source, region)
                for index, value in enumerate(outputs):
                    value.producer, value.index = node, index
                if bodies := compat.bodies(eqn):
                    whole = caller or eqn.source_info
                    node.bodies = tuple(body(closed, inner_scope, whole) for closed in bodies)
                    control_flow.bind_operands(node)
                eqns.append(node)
            env.update(zip(eqn.outvars, outputs, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    jaxpr = closed.jaxpr
    inputs = [Value(var.aval) for var in jaxpr.invars]
    for value, path in zip(inputs, paths, strict=True):
        value.path = path
    env: dict[Any, Value] = dict(zip(jaxpr.invars, inputs, strict=True))
    for var, array in zip(jaxpr.constvars, closed.consts, strict=True):
        env[var] = constant(array, var.aval)
    outputs = inline(jaxpr, env, (), None, None, eqns)
    return Graph(inputs, consts, eqns, outputs)


def equations(
    function: Callable[..., Any], inputs: Sequence[Value], like: Eqn, region: Region | None
) -> list[Eqn]:
    """The equations of a function of values, named as `like` is; the last one makes its result."""
    shapes = [jax.ShapeDtypeStruct(v.shape, v.dtype) for v in inputs]
    traced = build(jax.make_jaxpr(function)(*shapes), [()] * len(shapes))
    assert not traced.consts
    values = dict(zip(traced.inputs, inputs, strict=True))
    for eqn in traced.eqns:
        eqn.inputs = [values.get(v, v) for v in eqn.inputs]
        eqn.scope, eqn.source_info, eqn.region = like.scope, like.source_info, region
    return traced.eqns


_MOST_PLACES = 2**20


def _identity(array: Any) -> Hashable:
    """The key by which constants are one: places by value, as NumPy's are copied at every use."""
    places = jnp.issubdtype(jnp.result_type(array), jnp.integer) and compat.is_concrete(array)
    if not places or not 0 < array.size <= _MOST_PLACES:
        return id(array)
    return str(array.dtype), array.shape, np.asarray(array).tobytes()


# Calls of fewer equations are too short to be worth recognising together.
_SHORT = 8


def repeated_calls(jaxpr: Any) -> frozenset[int]:
    """Identities of the jaxprs that are called at more than one place, small helpers left out."""
    places: Counter[int] = Counter()
    lengths: dict[int, int] = {}

    def length(jaxpr: Any) -> int:
        if id(jaxpr) not in lengths:
            calls = [(compat.called_jaxpr(eqn), eqn) for eqn in jaxpr.eqns]
            inner = [call[0] for call, _ in calls if call is not None]
            loops = [body.jaxpr for _, eqn in calls for body in compat.bodies(eqn)]
            places.update(id(called) for called in inner)
            lengths[id(jaxpr)] = sum(call is None for call, _ in calls) + sum(map(length, inner))
            for body in loops:
                length(body)
        return lengths[id(jaxpr)]

    length(jaxpr)
    return frozenset(one for one, n in places.items() if n > 1 and lengths[one] >= _SHORT)
