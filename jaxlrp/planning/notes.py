"""What a plan has to say about the function as a whole: randomness, statistics over examples."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence

from jaxlrp import compat
from jaxlrp.errors import TrainingModeWarning
from jaxlrp.graph import rows
from jaxlrp.graph.dataflow import Flow, solve
from jaxlrp.graph.groups import Group
from jaxlrp.graph.ir import Eqn, Value
from jaxlrp.graph.primitives import RANDOM_NUMBERS
from jaxlrp.planning.layers import Layer, group_of
from jaxlrp.planning.plans import Note, Plan

_TRAINING = ("random", "batch statistics")
_SHOWN = 3  # names in a text


def notes_of(plan: Plan, outputs: Sequence[Value]) -> tuple[Note, ...]:
    """The notes on a plan whose layers are known."""
    found = (_random(plan), *_statistics(plan, outputs))
    return tuple(note for note in found if note is not None)


def warn_of_training(plan: Plan) -> bool:
    """Warn if a plan looks like that of a network in training; whether it does."""
    found = [note for note in plan.notes if note.kind in _TRAINING]
    if found:
        said = " ".join(note.text for note in found)
        warnings.warn(
            f"Is the network in training mode? {said} For relevance of the network that predicts, "
            "switch this off: model.eval(), deterministic=True, train=False or "
            "use_running_average=True, as your framework has it.",
            TrainingModeWarning,
            stacklevel=compat.depth_of_user(),
        )
    return bool(found)


class _Drawn(Flow[bool]):
    """Whether a value is made of random numbers that the function draws."""

    def start(self, value: Value) -> bool:
        return False

    def transfer(self, eqn: Eqn, look: Callable[[Value], bool]) -> Sequence[bool]:
        return [eqn.name in RANDOM_NUMBERS or any(map(look, eqn.inputs))] * len(eqn.outputs)

    def join(self, a: bool, b: bool) -> bool:
        return a or b

    def chosen(self, fact: bool, index: bool) -> bool:
        return fact or index


def _random(plan: Plan) -> Note | None:
    drawn: dict[Value, bool] = {}
    solve(plan.graph.eqns, _Drawn(), drawn)
    if not any(drawn.values()):
        return None
    layers = [y for y in plan.layers if any(drawn.get(v, False) for v in _read(group_of(y)))]
    if not layers:
        return None
    return Note(
        "random",
        f"Random numbers reach {_named(layers)}, so relevance depends on the key.",
        tuple(layer.name for layer in layers),
    )


def _read(group: Group) -> list[Value]:
    """What a layer reads besides active values; of control flow, what chooses the branch."""
    if group.main.bodies:
        return group.main.inputs[:1] if group.main.name == "cond" else []
    return group.outside


def _statistics(plan: Plan, outputs: Sequence[Value]) -> Iterable[Note]:
    equations = rows.statistics(plan.graph, plan.explained, outputs)
    if not equations:
        return
    over = set(equations)
    layers = [layer for layer in plan.layers if over.intersection(group_of(layer).eqns)]
    norms = [layer for layer in layers if layer.kind == "norm"]
    if norms:
        yield Note(
            "batch statistics",
            f"Norms over the axis of examples ({_named(norms)}) make relevance of one example "
            "depend on the others in its batch.",
            tuple(layer.name for layer in norms),
        )
        return
    where = _named(layers) if layers else equations[0].source
    yield Note(
        "mixed examples",
        f"Sums over the axis of examples ({where}) make relevance of one example depend on the "
        "others in its batch.",
        tuple(layer.name for layer in layers),
    )


def _named(layers: Sequence[Layer]) -> str:
    names = list(dict.fromkeys(repr(layer.name) for layer in layers))
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
