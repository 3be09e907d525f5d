"""Remarks of a plan on the function as a whole: randomness, statistics, shifts."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence

from jaxlrp import compat
from jaxlrp.errors import ArgnumsWarning, TrainingModeWarning
from jaxlrp.graph import examples
from jaxlrp.graph.dataflow import Flow, solve
from jaxlrp.graph.groups import Group
from jaxlrp.graph.ir import Eqn, Value
from jaxlrp.graph.kinds import kinds_that
from jaxlrp.graph.particulars import Linear
from jaxlrp.graph.primitives import ADDITIONS, RANDOM_NUMBERS
from jaxlrp.planning.assign import maker_before
from jaxlrp.planning.layers import Layer, group_of
from jaxlrp.planning.plans import Note, Plan
from jaxlrp.rules import LinearRule, Rule

_TRAINING = ("random", "batch statistics")
_SHOWN = 3  # names in a text
_WEIGHTED = kinds_that("linear") - kinds_that("hands_on")


def notes_of(plan: Plan, outputs: Sequence[Value]) -> tuple[Note, ...]:
    """The notes on a plan whose layers are known."""
    found = (_random(plan), *_statistics(plan, outputs), *_shifts(plan))
    return tuple(note for note in found if note is not None)


def other_examples(
    plan: Plan, arguments: Sequence[tuple[int, Value]], output: Value
) -> Iterator[Note]:
    """A note if the rows of the output are those of an argument that is not explained."""

    def are_rows(value: Value) -> bool:
        return examples.are_rows_of(plan.graph, value, 0, output)

    if any(map(are_rows, plan.explained)):
        return
    number = next((number for number, value in arguments if are_rows(value)), None)
    if number is not None:
        yield Note(
            "other examples",
            f"The examples are in argument {number}, and argument 0 is explained, as argnums is 0; "
            f"if argument 0 holds parameters, write argnums={number}.",
        )


def unnamed_layers(plan: Plan, modules: Sequence[str]) -> Iterator[Note]:
    """A note if fn reads a module from outside, and layers have only a kind and a number."""
    layers = [y for y in plan.layers if y.kind in _WEIGHTED and _is_numbered(y)]
    if modules and layers:
        name = modules[0]
        yield Note(
            "unnamed layers",
            f"{_named(layers)} have no name of their own, as fn reads {name!r} from outside. Pass "
            f"the module as the function, explain({name}, rules)(x), or as an argument, "
            f"explain(lambda {name}, x: ..., rules, argnums=1)({name}, x): then layers are named "
            "by its attributes.",
            tuple(layer.name for layer in layers),
        )


def _is_numbered(layer: Layer) -> bool:
    return re.fullmatch(rf"{layer.kind}_\d+", layer.name) is not None


def warn(plan: Plan) -> bool:
    """Warn if the wrong values are probably explained; returns whether it warned."""
    others = [note.text for note in plan.notes if note.kind == "other examples"]
    if others:
        warnings.warn(others[0], ArgnumsWarning, stacklevel=compat.depth_of_user())
    return _warn_of_training(plan) or bool(others)


def _warn_of_training(plan: Plan) -> bool:
    found = [note for note in plan.notes if note.kind in _TRAINING]
    if found:
        said = " ".join(note.text for note in found)
        warnings.warn(
            f"Is the network in training mode? {said} To explain the network in prediction mode, "
            "switch this off: model.eval(), deterministic=True, train=False or "
            "use_running_average=True, depending on the framework.",
            TrainingModeWarning,
            stacklevel=compat.depth_of_user(),
        )
    return bool(found)


class _Drawn(Flow[bool]):
    """Whether a value is made from random numbers that the function draws."""

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
    """The static values that a layer reads; for control flow, those that choose the branch."""
    if group.main.bodies:
        return group.main.inputs[:1] if group.main.name == "cond" else []
    return group.outside


def _statistics(plan: Plan, outputs: Sequence[Value]) -> Iterable[Note]:
    equations = examples.statistics(plan.graph, plan.explained, outputs)
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


def _shifts(plan: Plan) -> Iterator[Note]:
    """Notes on shifts of the explained input that are the bias of the layer that reads it."""
    if any(group_of(layer).inner is not None for layer in plan.layers):
        return
    for index, layer in enumerate(plan.layers):
        shift = _shift_of_input(group_of(layer))
        if shift is None or not _shares_with_bias(layer.rule):
            continue
        if maker_before(plan.adjacency, index) is None:
            yield Note(
                "shifted input",
                f"The explained input is shifted at {shift.source}, and the shift is a bias of "
                f"{layer.name!r}: relevance is that of the values before it, beside a bias that "
                "may take, or give, many times the output. Shift outside fn and explain the "
                "shifted values, or give the layer a rule with bias='ignore' or 'distribute', or "
                "ZBox.",
                (layer.name,),
            )


def _shift_of_input(group: Group) -> Eqn | None:
    """The equation that shifts a linear layer's input by a static value, before its core."""
    if not isinstance(group.particulars, Linear):
        return None
    core = group.particulars.core
    links = {v for e in group.eqns for v in e.outputs} | set(group.inputs)
    before = group.eqns if core is None else group.particulars.pre
    adds = (e for e in before if e.name in ADDITIONS)
    return next((e for e in adds if not links.issuperset(e.inputs)), None)


def _shares_with_bias(rule: Rule) -> bool:
    """Whether a rule shares by x w over a sum in which the bias has a part."""
    return isinstance(rule, LinearRule) and rule.bias == "absorb" and rule.carries == "density"


def _named(layers: Sequence[Layer]) -> str:
    names = list(dict.fromkeys(repr(layer.name) for layer in layers))
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
