"""Gates: the factors of a product that open and shut the others, if the graph shows this."""

from __future__ import annotations

from collections.abc import Callable

from jaxlrp.graph import control_flow
from jaxlrp.graph.groups import Group, Workbench
from jaxlrp.graph.intervals import UNIT
from jaxlrp.graph.ir import Eqn, Value
from jaxlrp.graph.kinds import is_product, keeps_shares
from jaxlrp.graph.particulars import Product
from jaxlrp.graph.primitives import COPIES, is_view, rounds


def find(bench: Workbench) -> None:
    for group in bench.groups:
        if is_product(group.kind) and len(group.inputs) > 1:
            powers = group.particulars_as(Product).powers
            found = Product(powers, *_gates(bench, group, powers))
            group.particulars = found
            if found.gate_by or group.kind == "product":
                group.note = _note(found, len(group.inputs))


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


def _note(product: Product, factors: int) -> str:
    if factors == 2 or not product.gates:
        return _NOTES[product.gate_by]
    found = ", ".join(_NOTES_OF_MANY[by] for by in product.gate_by.split(", "))
    return f"{len(product.gates)} of {factors} factors are gates: they {found}"


def _gates(bench: Workbench, group: Group, powers: tuple[int, ...]) -> tuple[tuple[int, ...], str]:
    """Positions of the gates, and the proof.

    Tests are applied in turn. A test does not count if it is true of all factors that earlier tests
    left.
    """
    divisors = {v for v, power in zip(group.inputs, powers) if power < 0}
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
    """Whether a factor is a number divided by a value."""
    return _made_by(bench, value, _divides)


def _divides(group: Group) -> bool:
    if group.kind != "activation":
        return False
    made = [e for e in group.eqns if not _keeps_elements(e)]
    return len(made) == 1 and (
        made[0].name == "div" or (made[0].name == "integer_pow" and made[0].params["y"] == -1)
    )


def _activated(bench: Workbench, value: Value) -> bool:
    """Whether a factor is an activation's output."""
    return _made_by(bench, value, lambda group: group.kind == "activation")


def _made_by(bench: Workbench, value: Value, test: Callable[[Group], bool]) -> bool:
    """Whether a layer of a sort makes a value: here, in a body or outside of one.

    Moves and roundings of elements do not count as makers. If there are several, all must be such.
    """
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
            bodies = group.main.bodies
            pairs = [p for body in bodies for p in control_flow.results(group.main, body)]
            stack += [inside for inside, outside in pairs if outside is value]
        elif _hands_on(group):
            stack += group.inputs
        elif test(group):
            found = True
        else:
            return False
    return found


def _hands_on(group: Group) -> bool:
    moves = group.kind == "structural" and group.transport == "move"
    return moves or all(map(_keeps_elements, group.eqns))


def _keeps_elements(eqn: Eqn) -> bool:
    """Whether an equation passes elements on, at most moved or rounded."""
    return is_view(eqn) or eqn.name in COPIES or rounds(eqn)


def _bounded(bench: Workbench, value: Value) -> bool:
    low, high = bench.intervals[value]
    return low >= UNIT[0] and high <= UNIT[1]


def _maker(bench: Workbench, value: Value) -> Group | None:
    return None if value.producer is None else bench.claimed.get(value.producer)


def _is_share(bench: Workbench, value: Value) -> bool:
    """Whether a value is made from a softmax's output by layers with one active input each."""
    after: tuple[str, ...] = ()
    while (group := _maker(bench, value)) is not None and group.kind != "softmax":
        after = (group.kind, *after)
        if not keeps_shares(*after) or len(group.inputs) != 1:
            return False
        value = group.inputs[0]
    return group is not None
