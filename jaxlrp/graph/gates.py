"""Gates: which factor of a product opens and shuts the other, if the graph tells."""

from __future__ import annotations

from jaxlrp.graph.groups import Group, Workbench
from jaxlrp.graph.intervals import UNIT
from jaxlrp.graph.ir import Value

# What is made of a share of a whole by these alone still says how much of the other factor counts:
# moved, scaled, mixed over heads, renormalised, clipped before it is mixed.
KEEPS_SHARES = frozenset("structural affine dense reduce avg_pool norm activation".split())


def find(bench: Workbench) -> None:
    for group in bench.groups:
        if group.kind in ("product", "matmul") and len(group.inputs) == 2:
            group.gate, group.gate_by = _gate(bench, group)
            if group.gate_by or group.kind == "product":
                group.note = _NOTES[group.gate_by]


_NOTES = {
    "divides": "the divisor is the gate",
    "bounds": "the gate lies in [0, 1]",
    "share": "the gate comes from a softmax",
    "activation": "the gate is an activation's output",
    "": "no operand is a gate by meaning",
}


def _gate(bench: Workbench, group: Group) -> tuple[int | None, str]:
    if group.main.name == "div":
        return group.inputs.index(group.main.inputs[1]), "divides"
    tests = {"bounds": _bounded, "share": _is_share}
    if group.kind == "product":
        tests["activation"] = _activated
    for by, test in tests.items():
        found = [i for i, v in enumerate(group.inputs) if test(bench, v)]
        if len(found) == 1:
            return found[0], by
    return None, ""


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
        if group.kind not in KEEPS_SHARES or len(group.inputs) != 1 or mixed_before:
            return False
        clipped = clipped or group.kind == "activation"
        value = group.inputs[0]
    return False


def _activated(bench: Workbench, value: Value) -> bool:
    group = _maker(bench, value)
    return group is not None and group.kind == "activation"
