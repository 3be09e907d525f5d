"""The scales, shifts and moves around one value, of which a linear layer is made."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

from jaxlrp.graph import branches
from jaxlrp.graph.affine import affine_operand, brings_zeros, is_move, is_written_scale
from jaxlrp.graph.groups import Workbench
from jaxlrp.graph.homogeneous import is_complete
from jaxlrp.graph.ir import Eqn, Literal, Value
from jaxlrp.graph.primitives import ADDITIONS, AFFINE, COPIES, ELEMENTWISE, rounds
from jaxlrp.graph.sources import sources
from jaxlrp.graph.unique_paths import has_unique_paths
from jaxlrp.graph.written_numbers import NOTHING_WRITTEN, Written, factor_of

_MOST = 8  # equations that are searched


def after(
    bench: Workbench,
    start: Value,
    belongs: Callable[[Eqn], bool],
    passes: Callable[[Eqn], bool],
    written: Written = NOTHING_WRITTEN,
    within_layer: bool = True,
) -> list[Eqn]:
    """Equations after a value that belong to it, and the moves between them.

    They may part (a split) and meet again (a concatenation), but one value comes out. A number that
    cancels one of the numbers written within the value, or their product, belongs to it too, unless
    a later number cancels it: in `2 * y / 2` neither belongs to y. With `within_layer` the value
    itself is inside the layer, and not its input.
    """
    eqns: list[Eqn] = []
    inside: set[Eqn] = set()
    ours = _Ours()
    within = _left_over(written.numbers)
    frontier: dict[Value, tuple[float, ...]] = {start: within}  # with the written numbers in each
    written_after: dict[Value, tuple[int, ...]] = {}  # places of numbers that no later one cancels
    while not any(v in bench.ends for v in frontier if v is not start or within_layer):
        uses = {e for v in frontier for e in bench.reached_uses(v)} - inside
        eqn = min(uses, key=lambda e: e.order, default=None)
        if eqn is None or not bench.is_open(eqn):
            break
        read = {frontier[v] for v in eqn.inputs if v in frontier}
        within = read.pop() if len(read) == 1 else (math.nan,)
        by = factor_of(bench, eqn)
        number = is_written_scale(bench, eqn)
        earlier = _in_all([written_after.get(v, ()) for v in eqn.inputs if v in frontier])
        own = belongs(eqn)
        if not own and not passes(eqn) and not number and eqn.name != "reordered":
            break
        if any(v not in frontier for v in bench.activity.active_inputs(eqn)):
            break
        if own:
            ours.places.append(len(eqns))
        elif number:
            cancels = _cancels(within, by) or (written.falls and by < 0.0)
            in_function = _is_in_function(bench, eqn.out)
            earlier = ours.add_number(len(eqns), by, cancels, in_function, earlier)
        eqns.append(eqn)
        inside.add(eqn)
        for value in [v for v in eqn.inputs if v in frontier]:
            if all(e in inside for e in bench.reached_uses(value)):
                frontier.pop(value, None)
        reached = [v for v in eqn.outputs if v in bench.activity.reached]
        scaled = tuple(f * by for f in within)
        frontier.update(dict.fromkeys(reached, scaled))
        written_after.update(dict.fromkeys(reached, earlier))
        if len(frontier) == 1 and len(eqn.outputs) == 1 and eqn.out in frontier:
            ours.one_value_after(len(eqns) - 1)
    return eqns[: ours.end]


@dataclasses.dataclass
class _Ours:
    """Places of the equations, in the order of a walk, that belong to the value it starts from.

    Attributes:
      places: the places.
      numbers: the written numbers at their places.
      ends: places after which there is one value only.
      end: the number of equations that belong to the value, with those between them.
    """

    places: list[int] = dataclasses.field(default_factory=list)
    numbers: dict[int, float] = dataclasses.field(default_factory=dict)
    ends: list[int] = dataclasses.field(default_factory=list)
    end: int = 0

    def add_number(
        self, place: int, by: float, cancels: bool, in_function: bool, earlier: tuple[int, ...]
    ) -> tuple[int, ...]:
        """A written number; it belongs to the value if it cancels one that is written within it.

        Of numbers that cancel each other, the latest first, both belong or neither does. A number
        or sign within a function, as in a sigmoid, is left to that function. A sign that cancels
        one within the value stays, as it comes first: a later one is what follows. `earlier` are
        the places of the numbers before this one that no other one cancels; returns those after it.
        """
        if not in_function and by != -1.0:
            undone = next((i for i in reversed(earlier) if self._undoes(i, by)), None)
            if undone is not None:
                self._add_or_remove_both(undone, place)
                return tuple(i for i in earlier if i != undone)
        if cancels:
            self.places.append(place)
        elif in_function:
            return earlier
        self.numbers[place] = by
        return (*earlier, place)

    def _undoes(self, place: int, by: float) -> bool:
        return math.isclose(self.numbers[place] * by, 1.0)

    def _add_or_remove_both(self, undone: int, place: int) -> None:
        last = self.places[-1] if self.places else -1
        if last > undone:
            self.places.append(place)
        elif last == undone:
            self.places.pop()

    def one_value_after(self, place: int) -> None:
        """The places found so far count.

        Those within branches that do not join again do not.
        """
        self.ends.append(place)
        last = self.places[-1] if self.places else None
        self.end = 0 if last is None else next(i for i in self.ends if i >= last) + 1


def _in_all(places: list[tuple[int, ...]]) -> tuple[int, ...]:
    return tuple(i for i in places[0] if all(i in others for others in places[1:]))


def _is_in_function(bench: Workbench, value: Value) -> bool:
    """Whether a nonlinear elementwise function reads a value, past further written numbers."""
    for _ in range(_MOST):
        readers = bench.reached_uses(value)
        if any(e.name in ELEMENTWISE and e.name not in AFFINE | COPIES for e in readers):
            return True
        if len(readers) != 1:
            break
        (eqn,) = readers
        shifts = eqn.name in ADDITIONS and any(isinstance(v, Literal) for v in eqn.inputs)
        if not shifts and not is_written_scale(bench, eqn):
            break
        value = eqn.out
    return False


def _left_over(numbers: tuple[float, ...]) -> tuple[float, ...]:
    """The sign of some numbers, then those that no other one cancels, and their product.

    From 2, 1/2 and 4 the 4 is left.
    """
    left: list[float] = []
    for number in numbers:
        other = next((f for f in left if _undo(f, number)), None)
        if other is not None:
            left.remove(other)
        elif not math.isclose(abs(number), 1.0):
            left.append(number)
    product = math.prod(numbers, start=1.0)
    return (math.copysign(1.0, product), *left, *([math.prod(left)] if len(left) > 1 else []))


def _undo(a: float, b: float) -> bool:
    return math.isclose(abs(a * b), 1.0)


def _cancels(within: tuple[float, ...], by: float) -> bool:
    """Whether a written scale undoes the total sign before it, or one of the numbers."""
    sign, *numbers = within
    return (sign < 0.0 and by < 0.0) or (by > 0.0 and any(_undo(f, by) for f in numbers))


def before(
    bench: Workbench, core: Eqn, operand: int, shared: bool = True
) -> tuple[Value, list[Eqn]]:
    """The source and the equations of the scales, shifts and moves before a core's operand.

    With `shared` other equations may read values inside.
    """
    start = core.inputs[operand]
    inside: list[Eqn] = []  # latest first
    own = bench.claimed.get(core)
    frontier: dict[Value, None] = {start: None}
    best: tuple[Value, int] = (start, 0)
    pending = False
    while True:
        value = max(
            frontier, key=lambda v: -1 if v.producer is None else v.producer.order, default=None
        )
        if value is None or value in bench.activity.explained:
            break
        eqn = value.producer
        if eqn is None or not (bench.is_open(eqn) or bench.claimed.get(eqn, core) is own):
            break
        if not shared and not bench.closed([eqn, core, *inside], core.outputs):
            break
        scales = affine_operand(bench, eqn, spread=True) is not None
        if not scales and not is_move(bench, eqn) and eqn.name != "reordered":
            break
        inside.append(eqn)
        for v in eqn.outputs:
            frontier.pop(v, None)
        frontier.update(dict.fromkeys(bench.activity.active_inputs(eqn)))
        pending = pending or scales or brings_zeros(bench, eqn)
        if len(frontier) == 1:
            (only,) = frontier
            # A rounding without a scale before it is a layer of its own.
            exact = not any(map(rounds, inside[best[1] :]))
            if pending or (exact and only in bench.activity.explained):
                best, pending = (only, len(inside)), False
    source, n = best
    eqns = sorted(inside[:n], key=lambda e: e.order)
    unique = has_unique_paths(bench.facts.places, eqns, source, core, operand)
    return (source, eqns) if unique else (start, [])


def worth_folding(bench: Workbench, chain: list[Eqn]) -> bool:
    """Not the tail of an activation (0.5 * x * (1 + erf x) written with its scale last)."""
    return bool(chain) and _tail(bench, chain) < len(chain)


def without_tail(bench: Workbench, source: Value, chain: list[Eqn]) -> tuple[Value, list[Eqn]]:
    """A region before a core, without the equations at its start that belong to an activation."""
    n = _tail(bench, chain)
    if n == 0 or n == len(chain):
        return source, chain
    return chain[n - 1].out, chain[n:]


def _tail(bench: Workbench, chain: list[Eqn]) -> int:
    """The number of first equations that belong to an activation; all, if nothing else scales.

    A scale after an activation that is complete without it does not belong to it.
    """
    if not chain:
        return 0
    (first,) = bench.activity.active_inputs(chain[0])[:1]
    learned = (i for i, e in enumerate(chain) if not _is_by_number(bench, e))
    stop = next(learned, len(chain))
    if (end := _before_moves(bench, first)) is not first:
        shifts = [i + 1 for i, e in enumerate(chain[:stop]) if e.name in ADDITIONS]
        return shifts[-1] if shifts and _ends_activation(bench, end) else 0
    maker = first.producer
    if maker is None or maker.name not in ELEMENTWISE or not bench.is_open(maker):
        return 0
    values = [first]  # what the equations of the tail read, one after the other
    for eqn in chain[:stop]:
        alone = eqn.inputs.count(values[-1]) == 1 and len(bench.activity.active_inputs(eqn)) == 1
        if not alone or len(eqn.outputs) != 1 or eqn.name not in ELEMENTWISE:
            break
        values.append(eqn.out)
    n = last = len(values) - 1
    while n > 0 and not completes_activation(bench, values[n]) and chain[n - 1].name in _SCALES:
        n -= 1
    if n == 0 and branches.joined_at(bench, maker):
        return 0
    if n == 0 and last == 0:  # moves come first
        shifts = (i + 1 for i, e in enumerate(chain[:stop]) if e.name in ADDITIONS)
        return stop if stop == len(chain) else max(shifts, default=0)
    # After moves a further scale is the layer's.
    rest = any(e.name in _SCALES - COPIES for e in chain[last:])
    return stop if n == last and stop == len(chain) and not rest else n


def _before_moves(bench: Workbench, value: Value) -> Value:
    """The one value from which open moves make a value; its parts may be joined again."""
    frontier, seen, source = [value], {value}, value
    while frontier:
        frontier.sort(key=lambda v: -1 if v.producer is None else v.producer.order)
        latest = frontier.pop()
        if not frontier:
            source = latest
        eqn = latest.producer
        if eqn is None or not bench.is_open(eqn) or not is_move(bench, eqn):
            break
        if latest in bench.activity.explained:
            break
        before = [v for v in bench.activity.active_inputs(eqn) if v not in seen]
        frontier += before
        seen.update(before)
    return source


def _ends_activation(bench: Workbench, value: Value) -> bool:
    """Whether a value is a nonlinear elementwise function of one value."""
    maker = value.producer
    if maker is None or maker.name not in ELEMENTWISE or not bench.is_open(maker):
        return False
    if maker.name not in AFFINE:
        return True
    return len(sources(bench, value)) > 1 and not branches.joined_at(bench, maker)


_SCALES = COPIES | {"mul", "div", "neg"}


def completes_activation(bench: Workbench, value: Value) -> bool:
    """Whether a value is a complete activation of any value that it is a function of."""
    for source in sources(bench, value)[1:]:
        eqns = bench.slice_back(value, {source}, lambda eqn: eqn.name in ELEMENTWISE)
        if not eqns or all(e.name in _SCALES for e in eqns):
            continue  # a scale, or nothing: no activation
        if is_complete(bench, eqns, source, value):
            return True
    return False


def _is_by_number(bench: Workbench, eqn: Eqn) -> bool:
    if eqn.name not in AFFINE or eqn.name == "neg":
        return True
    return any(bench.intervals.constant(v) is not None for v in eqn.inputs)
