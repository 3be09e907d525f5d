"""Embeddings: where numbers that stand for things (tokens, positions, types) become vectors.

They are found without regard to any explained input, because the arguments are integers. An
embedding is a gather from a static table by an integer argument, a one-hot times a matrix, or a
static value that belongs to a position (a slice or a gather of a table, a sinusoid) and is added to
these.
"""

from __future__ import annotations

from collections.abc import Iterable

import jax.numpy as jnp

from jaxlrp.graph.activity import Activity, is_inexact
from jaxlrp.graph.axes import Statics
from jaxlrp.graph.groups import InnerValue
from jaxlrp.graph.ir import Eqn, Graph, Literal, Value
from jaxlrp.graph.primitives import ADDITIONS, COPIES, VIEWS

# Under these a vector stays the vector of its position.
_MOVES = VIEWS | COPIES | frozenset("broadcast_in_dim slice rev split pad neg".split())
_PICKS = frozenset("gather slice dynamic_slice select_n split".split())


def find(graph: Graph) -> list[InnerValue]:
    """The embeddings of a graph, in dataflow order."""
    constants = [v for v, _ in graph.consts]
    for roots in (graph.inputs, constants):  # constants: indices that are closed over
        facts = _Facts(graph, roots)
        looked_up = [
            InnerValue("embed", eqn.out, eqn)
            for eqn in graph.eqns
            if len(eqn.outputs) == 1 and is_inexact(eqn.out) and facts.is_lookup(eqn)
        ]
        if looked_up:
            break
    else:
        return []
    factors = _factors(graph, facts, looked_up)
    kept = [e for e in looked_up if e not in factors]
    found = [*kept, *_added(graph, facts, kept)]
    return sorted(found, key=_place)


def _place(embedding: InnerValue) -> int:
    eqn = embedding.main if embedding.reader is None else embedding.reader[0]
    return -1 if eqn is None else eqn.order


class _Facts:
    """The values that depend on integer arguments, and the positions of parameters."""

    def __init__(self, graph: Graph, roots: Iterable[Value]):
        self.statics = Statics(graph)
        self.indexed: set[Value] = {
            v for v in roots if jnp.issubdtype(v.dtype, jnp.integer) and not v.of_module
        }
        for eqn in graph.eqns:
            if any(v in self.indexed for v in eqn.inputs):
                self.indexed.update(eqn.outputs)

    def is_lookup(self, eqn: Eqn) -> bool:
        if eqn.name == "gather":
            table, indices = eqn.inputs[:2]
            return indices in self.indexed and self._is_table(table)
        if eqn.name == "dot_general":
            (contract, _) = eqn.params["dimension_numbers"]
            a, b = eqn.inputs
            return (self._is_one_hot(a, contract[0]) and self._is_table(b)) or (
                self._is_one_hot(b, contract[1]) and self._is_table(a)
            )
        return False

    def _is_table(self, value: Value) -> bool:
        is_free = value not in self.indexed and is_inexact(value)
        return is_free and bool(self.statics.parameters(value))

    def _is_one_hot(self, value: Value, contracted: Iterable[int]) -> bool:
        """Whether a value is `index == 0, 1, 2, ...` along its one contracted axis."""
        if value not in self.indexed or len(tuple(contracted)) != 1:
            return False
        eqn = _maker(value)
        if eqn is None or eqn.name != "eq":
            return False
        return any(_is_counting(v) for v in eqn.inputs)


def _is_counting(value: Value) -> bool:
    maker = _maker(value)
    return maker is not None and maker.name == "iota"


def _factors(graph: Graph, facts: _Facts, found: list[InnerValue]) -> set[InnerValue]:
    """Lookups that only scale other embeddings (the sines and cosines of a rotation)."""
    owners: dict[Value, set[int]] = {e.value: {i} for i, e in enumerate(found)}
    direct: dict[Value, set[int]] = {e.value: {i} for i, e in enumerate(found)}
    read_as_vector: set[int] = set()
    met: dict[int, set[int]] = {}
    for eqn in graph.eqns:
        mine = [owners.get(v, set()) for v in eqn.inputs]
        every = set().union(*mine) if mine else set()
        if not every:
            continue
        for value in dict.fromkeys(eqn.inputs):
            for i in direct.get(value, ()):
                others = set().union(
                    *(o for v, o in zip(eqn.inputs, mine, strict=True) if v is not value)
                )
                if eqn.name in ("mul", "div", "dot_general") and others - {i}:
                    met.setdefault(i, set()).update(others - {i})
                elif eqn.name not in _MOVES and eqn.name not in ("mul", "div", "concatenate"):
                    read_as_vector.add(i)
        stays = eqn.name in _MOVES or eqn.name in ("mul", "div", "concatenate")
        for value in eqn.outputs:
            if value not in owners:
                owners[value] = every
            if stays and value not in direct and not (len(every) > 1):
                direct[value] = set().union(*(direct.get(v, set()) for v in eqn.inputs))
    return {
        found[i] for i, others in met.items() if i not in read_as_vector and others & read_as_vector
    }


def _added(graph: Graph, facts: _Facts, found: list[InnerValue]) -> list[InnerValue]:
    """Static values that belong to a position and are added, or appended, to embeddings."""
    zone: set[Value] = {e.value for e in found}
    depends = Activity(graph, zone, ()).depends
    added: list[InnerValue] = []
    for eqn in graph.eqns:
        mine = [v in zone for v in eqn.inputs]
        if not any(mine) or len(eqn.outputs) != 1:
            continue
        if eqn.name in ADDITIONS or eqn.name == "concatenate":
            if any(v in depends and v not in zone for v in eqn.inputs):
                continue
            for position, value in enumerate(eqn.inputs):
                if value not in depends:
                    added += _summands(facts, value, (eqn, position))
            zone.add(eqn.out)
        elif eqn.name in _MOVES or (
            eqn.name in ("mul", "div") and sum(v in depends for v in eqn.inputs) == 1
        ):
            zone.add(eqn.out)
    return added


def _summands(facts: _Facts, value: Value, reader: tuple[Eqn, int]) -> list[InnerValue]:
    """The embeddings whose sum a static operand is (positions + types, added later)."""
    if not _belongs_to_a_place(facts, value, reader[0]):
        return []
    maker = _maker(value)
    if maker is not None and maker.name in ADDITIONS:
        parts = [_summands(facts, v, (maker, i)) for i, v in enumerate(maker.inputs)]
        if all(parts):
            return [inner for part in parts for inner in part]
    return [InnerValue("embed", value, maker or value.producer, reader)]


def _belongs_to_a_place(facts: _Facts, value: Value, eqn: Eqn) -> bool:
    if isinstance(value, Literal) or not is_inexact(value):
        return False
    if eqn.name == "concatenate":
        return bool(facts.statics.parameters(value))
    last = value.ndim - 1
    if any(axis != last for axis in facts.statics.varying_axes(value)):
        return True
    # A sequence of length 1, or a table of one row, is identified by its equation or its rank.
    if not facts.statics.parameters(value):
        return False
    start = _unmoved(value)
    return start.ndim > 1 if start.producer is None else start.producer.name in _PICKS


def _unmoved(value: Value) -> Value:
    """The value before it was moved."""
    while (eqn := value.producer) is not None and eqn.name in VIEWS | COPIES | {"broadcast_in_dim"}:
        value = eqn.inputs[0]
    return value


def _maker(value: Value) -> Eqn | None:
    return _unmoved(value).producer
