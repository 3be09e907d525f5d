"""Gates: which factors of a product open and shut the others, if the graph tells."""

from __future__ import annotations

from collections.abc import Callable

from jaxlrp.graph import control
from jaxlrp.graph.groups import Group, Workbench
from jaxlrp.graph.intervals import UNIT
from jaxlrp.graph.ir import Value

# What is made of a share of a whole by these alone still says how much of the other factor counts:
# moved, scaled, mixed over heads, renormalised, clipped before it is mixed.
KEEPS_SHARES = frozenset("structural affine dense reduce avg_pool norm activation".split())


def find(bench: Workbench) -> None:
    for group in bench.groups:
        if group.kind in ("product", "matmul") and len(group.inputs) > 1:
            group.gates, group.gate_by = _gates(bench, group)
            if group.gate_by or group.kind == "product":
                group.note = _note(group)


_NOTES = {
    "divides": "the divisor is the gate",
    "bounds": "the gate lies in [0, 1]",
    "share": "the gate comes from a softmax",
    "activation": "the gate is an activation's output",
    "": "no operand is a gate by meaning",
}
_NOTES_OF_MANY = {
    "divides": "divide",
    "bounds": "lie in [0, 1]",
    "share": "come from a softmax",
    "activation": "are activations' outputs",
}


def _note(group: Group) -> str:
    if len(group.inputs) == 2 or not group.gates:
        return _NOTES[group.gate_by]
    found = ", ".join(_NOTES_OF_MANY[by] for by in group.gate_by.split(", "))
    return f"{len(group.gates)} of {len(group.inputs)} factors are gates: they {found}"


def _gates(bench: Workbench, group: Group) -> tuple[tuple[int, ...], str]:
    """Positions of the gates, and what shows them: one test after the other.

    A test that all factors pass, of those that no test before showed to be gates, shows nothing.
    """
    divisors = {v for v, power in zip(group.inputs, group.powers) if power < 0}
    tests: dict[str, Callable[[Workbench, Value], bool]] = {
        "divides": lambda bench, value: value in divisors or _is_reciprocal(bench, value),
        "bounds": _bounded,
        "share": _is_share,
    }
    if group.kind == "product":
        tests["activation"] = _activated
    signals, shown = dict(enumerate(group.inputs)), []
    for by, test in tests.items():
        found = [i for i, v in signals.items() if test(bench, v)]
        if 0 < len(found) < len(signals):
            signals = {i: v for i, v in signals.items() if i not in found}
            shown.append(by)
    gates = tuple(i for i in range(len(group.inputs)) if i not in signals)
    return gates, ", ".join(shown)


def _is_reciprocal(bench: Workbench, value: Value) -> bool:
    """Whether a factor is a number over something: it divides."""
    group = _maker(bench, value)
    if group is None or group.kind != "activation" or len(group.eqns) > 1:
        return False
    (eqn,) = group.eqns
    return eqn.name == "div" or (eqn.name == "integer_pow" and eqn.params["y"] == -1)


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
    """Whether a value is an activation's output: moved or not, made here, in a body or outside."""
    stack, seen, found = [value], set(), False
    while stack:
        value = stack.pop()
        if value in seen or value not in bench.activity.active:
            continue
        seen.add(value)
        group = _maker(bench, value)
        if value.producer is None and value.outer is not None:
            stack += bench.facts.origins.before(value)
        elif group is None:
            return False
        elif group.main.bodies:
            pairs = [p for body in group.main.bodies for p in control.results(group.main, body)]
            stack += [inside for inside, outside in pairs if outside is value]
        elif group.kind == "structural" and group.transport == "move" and len(group.inputs) == 1:
            stack += group.inputs
        elif group.kind == "activation":
            found = True
        else:
            return False
    return found
