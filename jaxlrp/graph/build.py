"""From a jaxpr to a graph, with every call inlined."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxlrp import compat
from jaxlrp.graph import control_flow
from jaxlrp.graph.desugar import spelled_out
from jaxlrp.graph.ir import Eqn, Graph, InlinedCall, Literal, Value


def build(closed: Any, paths: Sequence[tuple[str, ...]]) -> Graph:
    """The graph of a closed jaxpr."""
    builder = _Builder(repeated_calls(closed.jaxpr))
    inputs = [Value(var.aval) for var in closed.jaxpr.invars]
    for value, path in zip(inputs, paths, strict=True):
        value.path = path
    eqns: list[Eqn] = []
    outputs = builder.inline(closed.jaxpr, closed.consts, inputs, _TOP, eqns)
    return Graph(inputs, builder.consts, eqns, outputs)


class _Place(NamedTuple):
    """The place of equations: their names, the call around them, the line of the outermost."""

    scope: tuple[str, ...]
    call: InlinedCall | None
    caller: Any  # source information


_TOP = _Place((), None, None)


class _Builder:
    def __init__(self, repeated: frozenset[int]):
        self.consts: list[tuple[Value, Any]] = []
        self._repeated = repeated
        self._seen: dict[Hashable, Value] = {}
        # The objects that represent a jaxpr in its calls: the jaxpr itself may hold the user's
        # arrays.
        self._repeat: dict[int, object] = {}
        # One entry for each equation, so that repeated calls stay alike.
        self._called: dict[int, tuple[Any, compat.Params, Any, tuple[str, ...]]] = {}

    def inline(
        self,
        jaxpr: Any,
        consts: Sequence[Any],
        inputs: Sequence[Value],
        place: _Place,
        eqns: list[Eqn],
    ) -> list[Value]:
        """Append the equations of a jaxpr with those of its calls, and return its outputs."""
        env: dict[Any, Value] = {
            var: self._constant(array, var.aval)
            for var, array in zip(jaxpr.constvars, consts, strict=True)
        }
        env.update(zip(jaxpr.invars, inputs, strict=True))

        def read(atom: Any) -> Value:
            if isinstance(atom, compat.Literal):
                return Literal(atom.aval, atom.val)
            return env[atom]

        for eqn in jaxpr.eqns:
            outputs = self._equation(eqn, [read(atom) for atom in eqn.invars], place, eqns)
            env.update(zip(eqn.outvars, outputs, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def _equation(
        self, eqn: Any, inputs: list[Value], place: _Place, eqns: list[Eqn]
    ) -> list[Value]:
        if id(eqn) not in self._called:
            called = compat.called_jaxpr(eqn) or spelled_out(eqn)
            params = compat.Params(eqn.primitive.name, eqn.params)
            settings, names = compat.remat_settings(eqn), compat.scope_names(eqn)
            self._called[id(eqn)] = called, params, settings, names
        called, params, settings, names = self._called[id(eqn)]
        scope = place.scope + names if names else place.scope
        if called is not None:
            inner, consts = called
            is_repeated = id(inner) in self._repeated
            of = self._repeat.setdefault(id(inner), object()) if is_repeated else None
            stands_out = settings is not None or of is not None
            call = InlinedCall(settings, place.call, of) if stands_out else place.call
            caller = place.caller or eqn.source_info
            return self.inline(inner, consts, inputs, _Place(scope, call, caller), eqns)
        outputs = [Value(var.aval) for var in eqn.outvars]
        source = (place.caller, eqn.source_info)
        node = Eqn(eqn.primitive, params, inputs, outputs, scope, source, place.call)
        for index, value in enumerate(outputs):
            value.producer, value.index = node, index
        if bodies := compat.bodies(eqn):
            within = _Place(scope, None, place.caller or eqn.source_info)
            node.bodies = tuple(self._body(closed, within) for closed in bodies)
            control_flow.bind_operands(node)
        eqns.append(node)
        return outputs

    def _body(self, closed: Any, place: _Place) -> Graph:
        eqns: list[Eqn] = []
        inputs = [Value(var.aval) for var in closed.jaxpr.invars]
        outputs = self.inline(closed.jaxpr, closed.consts, inputs, place, eqns)
        return Graph(inputs, [], eqns, outputs)

    def _constant(self, array: Any, aval: Any) -> Value:
        # Tied weights captured by a closure arrive once per call: keep one value for one array.
        key = _identity(array)
        if key not in self._seen:
            self._seen[key] = Value(aval)
            self.consts.append((self._seen[key], array))
        return self._seen[key]


def equations(
    function: Callable[..., Any], inputs: Sequence[Value], like: Eqn, call: InlinedCall | None
) -> list[Eqn]:
    """The equations of a function of values, named as `like` is; the last one makes its result."""
    shapes = [jax.ShapeDtypeStruct(v.shape, v.dtype) for v in inputs]
    traced = build(jax.make_jaxpr(function)(*shapes), [()] * len(shapes))
    assert not traced.consts
    values = dict(zip(traced.inputs, inputs, strict=True))
    for eqn in traced.eqns:
        eqn.inputs = [values.get(v, v) for v in eqn.inputs]
        eqn.scope, eqn.source_info, eqn.call = like.scope, like.source_info, call
    return traced.eqns


_MOST_PLACES = 2**20


def _identity(array: Any) -> Hashable:
    """The key of a constant: positions by value, as NumPy arrays are copied at every use."""
    places = jnp.issubdtype(jnp.result_type(array), jnp.integer) and compat.is_concrete(array)
    if not places or not 0 < array.size <= _MOST_PLACES:
        return id(array)
    return str(array.dtype), array.shape, np.asarray(array).tobytes()


# Calls of fewer equations are too short to be worth recognising together.
_SHORT = 8


def repeated_calls(jaxpr: Any) -> frozenset[int]:
    """Identities of the jaxprs that are called at more than one place, without small helpers."""
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
