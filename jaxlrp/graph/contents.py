"""The content of a traced program in a form that can be compared, without its arrays.

Two programs of the same content have the same plan, as recognition reads only this content.
"""

from __future__ import annotations

import dataclasses
import functools
import types
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlrp import compat
from jaxlrp.graph import primitives
from jaxlrp.graph.ir import Eqn, Graph, InlinedCall, Literal, Value

# A plan is kept if it holds at most so many bytes of positions, and of arrays in rules.
_MOST_BYTES = 2**22
_MOST_OBJECTS = 1000  # that are looked at in search of an array
_ATOMS = (str, bytes, int, float, complex, type(None), type, np.dtype, types.ModuleType)

_BARE = frozenset((str, int, type(None)))  # equal only to what is the same: 1 == True, 1 == 1.0


class Unknown(Exception):
    """An object has no content to compare: a value that is not known yet, or is not hashable."""


def graph_contents(graph: Graph) -> Hashable:
    """Equal for two graphs, as `trace.traced` makes them, only if planning sees no difference.

    Raises:
      Unknown: the program holds something that cannot be compared, or that must not be kept.
    """
    of = _Contents(Avals())
    positions = tuple(None if a is None else content(a) for _, a in graph.consts)
    if sum(a.nbytes for _, a in graph.consts if a is not None) > _MOST_BYTES:
        raise Unknown
    paths = tuple(v.path for v in graph.inputs)
    of.graph(graph)
    return primitives.changes(), paths, positions, tuple(of.found), of.avals.all()


class Avals:
    """Numbers for shapes and types: equal ones have the same."""

    def __init__(self) -> None:
        self._numbers: dict[Any, int] = {}
        self._known: dict[int, tuple[int, Any]] = {}  # by identity, as comparing takes longer

    def number(self, aval: Any) -> int:
        known = self._known.get(id(aval))
        if known is None:
            known = self._numbers.setdefault(aval, len(self._numbers)), aval
            self._known[id(aval)] = known
        return known[0]

    def all(self) -> tuple[Any, ...]:
        """What has the numbers 0, 1, ..."""
        return tuple(self._numbers)


class _Contents:
    """Values, calls and what is called numbered in the order in which they are met.

    `found` is one flat list, as tuples within tuples take much longer to make and to collect.
    """

    def __init__(self, avals: Avals) -> None:
        self.avals = avals
        self.found: list[Hashable] = []
        self._numbers: dict[Value, int] = {}
        self._calls: dict[InlinedCall, int] = {}
        self._called: dict[int, int] = {}

    def values(self, values: Sequence[Value]) -> None:
        numbers, found = self._numbers, self.found
        found.append(len(values))
        for value in values:
            number = numbers.get(value)
            if number is not None:
                found.append(number)
            elif isinstance(value, Literal):
                found.append((self.avals.number(value.aval), content(value.val)))
            else:
                numbers[value] = len(numbers)
                found.append(-1 - self.avals.number(value.aval))  # a new one

    def graph(self, graph: Graph) -> None:
        self.values([*graph.inputs, *(v for v, _ in graph.consts)])
        self.found.append(len(graph.eqns))
        for eqn in graph.eqns:
            self.eqn(eqn)
            self.found += (len(eqn.bodies), self.call(eqn.call), eqn.scope, eqn.source)
            for body in eqn.bodies:
                self.graph(body)
        self.values(graph.outputs)

    def eqn(self, eqn: Eqn) -> None:
        self.found += (eqn.prim, _params(eqn))
        self.values(eqn.inputs)
        self.values(eqn.outputs)

    def call(self, call: InlinedCall | None) -> Hashable:
        if call is None or call in self._calls:
            return self._calls.get(call) if call is not None else None
        self._calls[call] = len(self._calls)
        called = self._called.setdefault(id(call.of), len(self._called))
        return content(call.settings), called if call.of else None, self.call(call.parent)


def _params(eqn: Eqn) -> Hashable:
    """The content of an equation's parameters, without the bodies: these are graphs."""
    if eqn.bodies:
        bodies = [v for v in eqn.params.values() if _is_body(v)]
        if holds_arrays(bodies):
            raise Unknown
        return content({k: v for k, v in eqn.params.items() if not _is_body(v)})
    if eqn.params.content is None:  # kept: equations of repeated calls share their parameters
        eqn.params.content = content(eqn.params)
    return eqn.params.content


def _is_body(param: Any) -> bool:
    jaxprs = (compat.Jaxpr, compat.ClosedJaxpr)
    found = param if isinstance(param, tuple) and param else (param,)
    return all(isinstance(p, jaxprs) for p in found)


def content(x: Any) -> Hashable:
    """Something hashable that is equal for equal things.

    Raises:
      Unknown: the thing cannot be compared by its content, or keeping it may keep arrays alive.
    """
    if type(x) in _BARE:
        return x
    if not compat.is_concrete(x):
        raise Unknown
    if isinstance(x, (jax.Array, np.ndarray, np.generic)):
        if jnp.issubdtype(x.dtype, jax.dtypes.extended) or x.nbytes > _MOST_BYTES:
            raise Unknown
        array = np.asarray(x)
        return type(x), array.shape, array.dtype.str, array.tobytes()
    if isinstance(x, (float, complex)):
        return type(x), repr(x)  # NaN is equal to itself here, and 0.0 is not -0.0
    if isinstance(x, (compat.ClosedJaxpr, compat.Jaxpr)):
        if holds_arrays(x):
            raise Unknown
        return _jaxpr(x.jaxpr if isinstance(x, compat.ClosedJaxpr) else x)
    if isinstance(x, Mapping):
        return (type(x), *x, *map(content, x.values()))
    if isinstance(x, (tuple, list)):
        return (type(x), *map(content, x))
    if dataclasses.is_dataclass(x) and not isinstance(x, type):
        return (type(x), *(content(getattr(x, f.name)) for f in dataclasses.fields(x)))
    if callable(x) and not isinstance(x, type) and holds_arrays(x):
        raise Unknown
    try:
        hash(x)
    except TypeError as error:
        raise Unknown from error
    return type(x), x


def equations_contents(
    eqns: Sequence[Eqn], inputs: Sequence[Value], outputs: Sequence[Value], avals: Avals
) -> Hashable:
    """Equal for two groups of equations only if they compute the same function of what they read.

    `avals` has to be the same for both.

    Raises:
      Unknown: a parameter of an equation cannot be compared, or an equation has a body.
    """
    of = _Contents(avals)
    of.values(inputs)
    for eqn in eqns:
        if eqn.bodies:  # their parameters are compared without these
            raise Unknown
        of.eqn(eqn)
    of.values(outputs)
    return tuple(of.found)


def _jaxpr(jaxpr: Any) -> Hashable:
    numbers: dict[Any, int] = {}

    def atom(x: Any) -> Hashable:
        if isinstance(x, compat.Literal):
            return x.aval, content(x.val)
        return numbers.setdefault(x, len(numbers)), x.aval

    start = tuple(map(atom, (*jaxpr.constvars, *jaxpr.invars)))
    eqns = tuple(
        (e.primitive, tuple(map(atom, e.invars)), content(e.params), tuple(map(atom, e.outvars)))
        for e in jaxpr.eqns
    )
    return start, eqns, tuple(map(atom, jaxpr.outvars))


def holds_arrays(x: Any) -> bool:
    """Whether keeping something may keep an array alive: a function that closes over one, a jaxpr.

    An object that cannot be inspected counts as holding one.
    """
    seen: set[int] = set()
    stack = [x]
    while stack:
        one = stack.pop()
        if isinstance(one, _ATOMS) or id(one) in seen:
            continue
        if isinstance(one, (jax.Array, np.ndarray)) or len(seen) > _MOST_OBJECTS:
            return True
        seen.add(id(one))
        stack += _parts(one)
    return False


def _parts(x: Any) -> Iterable[Any]:
    """The contents of a container, a jaxpr, a function or another object."""
    if isinstance(x, Mapping):
        return list(x.values())
    if isinstance(x, (tuple, list, set, frozenset)):
        return x
    if isinstance(x, compat.ClosedJaxpr):
        return [*x.consts, *(list(e.params.values()) for e in x.jaxpr.eqns)]
    if isinstance(x, compat.Jaxpr):
        return [list(e.params.values()) for e in x.eqns]
    if isinstance(x, functools.partial):
        return [x.func, x.args, x.keywords]
    if isinstance(x, types.MethodType):
        return [x.__self__, x.__func__]
    if isinstance(x, types.FunctionType):
        cells = [c.cell_contents for c in x.__closure__ or () if _is_filled(c)]
        return [*cells, x.__defaults__, x.__kwdefaults__, *vars(x).values()]
    slots = [getattr(x, n, None) for t in type(x).__mro__ for n in _slots(t)]
    return [*slots, *getattr(x, "__dict__", {}).values()]


def _is_filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018  # raises if the variable has no value yet
    except ValueError:
        return False
    return True


def _slots(kind: type) -> tuple[str, ...]:
    slots = kind.__dict__.get("__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(slots)
