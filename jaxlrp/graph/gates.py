"""Gates: which factor of a product opens and shuts the other, if the graph tells."""

from __future__ import annotations

from jaxlrp.graph.groups import Group, Workbench
from jaxlrp.graph.intervals import UNIT
from jaxlrp.graph.ir import Value

# What is made of a share of a whole by these alone still says how much of the other factor counts:
# moved, scaled, mixed over heads, renormalised, clipped before it is mixed.
_KEEP = frozenset("structural affine dense reduce avg_pool norm activation".split())


def find(bench: Workbench) -> None:
    for group in bench.groups:
        if group.kind in ("product", "matmul") and len(group.inputs) == 2:
            group.gate, note = _gate(bench, group)
            group.note = note or group.note


def _gate(bench: Workbench, group: Group) -> tuple[int | None, str]:
    if group.main.name == "div":
        return group.inputs.index(group.main.inputs[1]), "the divisor is the gate"
    for test, note in (
        (_bounded, "the gate lies in [0, 1]"),
        (_is_share, "the gate comes from a softmax"),
        (_activated, "the gate is an activation's output"),
    ):
        if test is _activated and group.kind == "matmul":
            return None, ""
        found = [i for i, v in enumerate(group.inputs) if test(bench, v)]
        if len(found) == 1:
            return found[0], note
    return None, "no operand is a gate by meaning"


def _bounded(bench: Workbench, value: Value) -> bool:
    low, high = bench.intervals[value]
    return low >= UNIT[0] and high <= UNIT[1]


def _maker(bench: Workbench, value: Value) -> Group | None:
    return None if value.producer is None else bench.claimed.get(value.producer)


def _is_share(bench: Workbench, value: Value) -> bool:
    """Whether a value is made of a softmax's output by layers with one active input each."""
    clipped = False
    while (group := _maker(bench, value)) is not None:
        if group.kind == "softmax":
            return True
        mixed_before = clipped and group.kind == "dense"
        if group.kind not in _KEEP or len(group.inputs) != 1 or mixed_before:
            return False
        clipped = clipped or group.kind == "activation"
        value = group.inputs[0]
    return False


def _activated(bench: Workbench, value: Value) -> bool:
    group = _maker(bench, value)
    return group is not None and group.kind == "activation"
