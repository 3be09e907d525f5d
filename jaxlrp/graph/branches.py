"""Sums of a value and a function of it: `x + gelu(x)` is a residual, not an activation.

A written scale may still turn such a sum into an activation, `(x + abs(x)) / 2` or
`0.1 * x + 0.9 * relu(x)`: a function that is x or 1 for large x, as activations are, and not
simply x plus something.
"""

from __future__ import annotations

from collections.abc import Container

from jaxlrp.graph import trees
from jaxlrp.graph.affine import is_written_scale
from jaxlrp.graph.groups import Workbench
from jaxlrp.graph.homogeneous import is_complete
from jaxlrp.graph.ir import Eqn, Value
from jaxlrp.graph.primitives import ADDITIONS, ELEMENTWISE
from jaxlrp.graph.sources import sources


def joined_at(bench: Workbench, end: Eqn) -> list[Eqn]:
    """The additions of a sum of branches that ends here, or nothing. Written scales may follow."""
    scales: list[Eqn] = []
    while is_written_scale(bench, end):
        (value,) = bench.activity.active_inputs(end)
        if value.producer is None or not bench.free(value.producer):
            return []
        scales.append(end)
        end = value.producer
    return _joined(bench, end, scales[:1])


def joined_before(bench: Workbench, join: Eqn, group: Container[Eqn]) -> list[Eqn]:
    """The additions of a sum of branches at whose value the rest of a group begins."""
    scales: list[Eqn] = []
    reader = bench.sole_use(join.out)
    while reader is not None and reader in group and is_written_scale(bench, reader):
        scales.append(reader)
        reader = bench.sole_use(reader.out)
    return _joined(bench, join, scales)


def _joined(bench: Workbench, join: Eqn, scales: list[Eqn]) -> list[Eqn]:
    """The additions of a sum of branches that is not complete after any of some scales."""
    if join.name not in ADDITIONS or any(v not in bench.activity.active for v in join.inputs):
        return []
    made_from = sources(bench, join.out)[1:]
    if not made_from:
        return []
    tree = trees.grow(join, trees.terms, lambda value, reader: _addition(bench, value, reader))
    terms = {value: _scaled_from(bench, value) for value, _ in tree.leaves}
    source = next((v for v in made_from if any(v in scaled for scaled in terms.values())), None)
    if source is None:
        return []
    ends = [e.out for e in scales] + ([] if source in terms else [join.out])
    for end in ends:
        eqns = bench.slice_back(end, {source}, lambda eqn: eqn.name in ELEMENTWISE)
        if eqns and _bends(bench, eqns) and is_complete(bench, eqns, source, end):
            return []
    # Additions without the source among their terms may be an activation: a softplus is one.
    holding: dict[Eqn, None] = {}
    for eqn in reversed(tree.eqns):
        if any(source in terms.get(v, ()) or v.producer in holding for v in eqn.inputs):
            holding[eqn] = None
    return [e for e in holding if e.name in ADDITIONS]


def _bends(bench: Workbench, eqns: list[Eqn]) -> bool:
    """Whether some equation is neither an addition nor a written scale: `0.5 * (x + x)` is x."""
    return any(e.name not in ADDITIONS and not is_written_scale(bench, e) for e in eqns)


def _addition(bench: Workbench, value: Value, reader: Eqn) -> Eqn | None:
    """The equation that makes a term, if it adds or subtracts for this sum alone."""
    eqn = value.producer
    if eqn is None or not bench.free(eqn) or bench.sole_use(value) is not reader:
        return None
    adds = eqn.name in ADDITIONS and all(v in bench.activity.active for v in eqn.inputs)
    return eqn if adds or eqn.name == "neg" or trees.is_copy(eqn) else None


def _scaled_from(bench: Workbench, value: Value) -> list[Value]:
    """A term, and the values of which it is a written multiple, the nearest first."""
    found = [value]
    while (eqn := value.producer) is not None and is_written_scale(bench, eqn):
        (value,) = bench.activity.active_inputs(eqn)
        found.append(value)
    return found
