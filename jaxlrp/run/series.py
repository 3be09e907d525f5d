"""Equal blocks of steps that follow one another: one function runs several of them at once.

A deep network repeats a few layers. `alike` has JAX trace each sort of layer once; with a function
for whole blocks it also differentiates and transposes several layers in one go. Their equations
are put where they stand, in the order in which they stood, so the program is the same as without.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from typing import Any

import jax

from jaxlrp.graph.activity import is_integer
from jaxlrp.graph.contents import Avals, Unknown, equations_contents
from jaxlrp.graph.ir import Literal, Value
from jaxlrp.planning.layers import group_of
from jaxlrp.planning.plans import Plan
from jaxlrp.run.alike import alike
from jaxlrp.run.evaluate import Env
from jaxlrp.run.probes import Probes
from jaxlrp.run.schedule import Step
from jaxlrp.run.state import RunState

RunStep = Callable[[RunState, Step, Env], None]

_LONGEST = 256  # steps of a block
_TRIES = 8  # blocks that may begin with a step
_MANY = 8  # steps that read a value
_FIXED = 3.0  # what one more function, or call of it, costs: as much as so many steps alone


@dataclasses.dataclass(frozen=True)
class Part:
    """Steps that run as one function, with what they read and what later steps read of them."""

    steps: Sequence[Step]
    active: Sequence[Value]
    static: Sequence[Value]
    results: Sequence[Value]
    key: Hashable


def parts(
    steps: Sequence[Step], free: Sequence[bool], state: RunState, wanted: Collection[Value]
) -> Mapping[int, Part]:
    """The parts of a program that run as one function, by the position of their first step.

    `free` says which steps stand in no call that runs by itself.
    """
    if not state.calls.staging or state.probes.accounts:
        return {}
    avals = Avals()
    keys = [_key(step, state, avals) if ok else None for step, ok in zip(steps, free, strict=True)]
    reads = _Reads(steps, wanted, state.plan)
    symbols = _symbols(steps, keys, state.plan.activity.reached)
    found: dict[int, Part] = {}
    for start, period, count in _repetitions(symbols):
        size = period * _blocks_at_once(period, count)
        if not size:
            continue
        end = start + period * count
        for first in range(start, start + period):  # a block may begin within another
            if reads.part(first, first + size, keys) is not None:
                for index in range(first, end - size + 1, size):
                    part = reads.part(index, index + size, keys)
                    if part is not None:
                        found[index] = part
                break
    return found


def run(part: Part, env: Env, state: RunState, run_step: RunStep) -> None:
    """Run the steps of a part by the function of the first one that is alike."""
    function = state.calls.kept(part.key, lambda: _function(part, state, run_step))
    outputs = function([env[v] for v in part.active], [env[v] for v in part.static])
    env.update(zip(part.results, outputs, strict=True))


def _function(part: Part, state: RunState, run_step: RunStep) -> Callable[..., Any]:
    """The steps as a function whose backward pass JAX makes once."""
    alone = RunState(state.plan, Probes(), state.calls)  # JAX keeps it: it holds no arrays

    def forward(values: list[Any], arrays: list[Any]) -> list[Any]:
        env: Env = dict(zip((*part.active, *part.static), (*values, *arrays), strict=True))
        inner = alone.within(Probes())
        for step in part.steps:
            run_step(inner, step, env)
        return [env[v] for v in part.results]

    # JAX keeps the structure of what a jitted function returns for good. That of a derivative holds
    # the function, and with it the plan; so it stays here.
    structures: dict[_Signature, Any] = {}

    def both(signature: _Signature, values: list[Any], arrays: list[Any]) -> Any:
        outputs, back = jax.vjp(lambda values: forward(values, arrays), values)
        kept, structures[signature] = jax.tree.flatten(back)
        return outputs, kept

    def backward(signature: _Signature, kept: list[Any], arrived: list[Any]) -> list[Any]:
        return jax.tree.unflatten(structures[signature], kept)(arrived)[0]

    both, backward = (jax.jit(f, inline=True) for f in (both, backward))

    def ahead(values: list[Any], arrays: list[Any]) -> Any:
        signature = _Signature(tuple(map(jax.typeof, (*values, *arrays))))
        outputs, kept = both(signature, values, arrays)
        return outputs, (signature, kept)

    def back(kept: tuple[_Signature, list[Any]], arrived: list[Any]) -> Any:
        signature, arrays = kept
        return backward(signature, arrays, arrived), None

    call = jax.custom_vjp(jax.jit(forward, inline=True))
    call.defvjp(ahead, back)
    return call


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class _Signature:
    """The types of arrays with which a function was traced."""

    avals: tuple[Any, ...]


def _key(step: Step, state: RunState, avals: Avals) -> Hashable:
    """What decides how a step runs, besides where it stands; None if it has to run by itself."""
    plan, probes = state.plan, state.probes
    active = plan.activity.active
    if any(is_integer(v) and v in active for v in (*step.reads, *step.writes)):
        return None
    if step.eqn is not None:
        return _of_eqn(step, avals) if active.isdisjoint(step.writes) else None
    layer, known = step.layer, alike(plan)
    assert layer is not None
    shown = (layer,) if layer.relu is None else (layer, layer.relu)
    if layer not in known or any(any(probes.of_layer(y)) for y in shown):
        return None
    return known[layer], tuple(map(plan.edges.get, group_of(layer).inputs))


def _of_eqn(step: Step, avals: Avals) -> Hashable:
    eqn = step.eqn
    assert eqn is not None
    try:
        return equations_contents([eqn], eqn.inputs, eqn.outputs, avals), step.used
    except Unknown:
        return None


def _symbols(
    steps: Sequence[Step], keys: Sequence[Hashable], reached: Collection[Value]
) -> list[int | None]:
    """Equal numbers for steps that run alike, and read what was made as far before them.

    Static values may be made anywhere, and one that many steps read is the same for each of them.
    """
    numbers: dict[Hashable, int] = {}
    made: dict[Value, tuple[int, int]] = {}
    readers = Counter(v for step in steps for v in step.reads)
    found: list[int | None] = []

    def place(value: Value, index: int) -> Hashable:
        if value not in reached or value not in made:
            return None
        start, position = made[value]
        return made[value] if readers[value] > _MANY else (index - start, position, "before")

    for index, (step, key) in enumerate(zip(steps, keys, strict=True)):
        if key is None:
            found.append(None)
        else:
            near = tuple(place(v, index) for v in step.reads)
            found.append(numbers.setdefault((key, near), len(numbers)))
        made.update((v, (index, n)) for n, v in enumerate(step.writes))
    return found


def _repetitions(symbols: Sequence[int | None]) -> Iterator[tuple[int, int, int]]:
    """Where blocks of symbols follow one another: the first place, the length, and how many."""
    places: dict[int | None, list[int]] = {}
    following = [len(symbols)] * len(symbols)
    for index, symbol in enumerate(symbols):
        if symbol in places:
            following[places[symbol][-1]] = index
        places.setdefault(symbol, []).append(index)
    index = 0
    while index < len(symbols):
        period, end = _longest(symbols, following, index)
        if period:
            count = (end - index) // period
            yield index, period, count
            index += period * count
        else:
            index += 1


def _longest(
    symbols: Sequence[int | None], following: Sequence[int], start: int
) -> tuple[int, int]:
    """The period that goes on for longest from a place, and where it ends; 0 if there is none."""
    best, furthest, other = 0, start, start
    for _ in range(_TRIES):
        other = following[other]
        period = other - start
        if symbols[start] is None or period > _LONGEST or other >= len(symbols):
            break
        end = other
        while end < len(symbols) and symbols[end] == symbols[end - period] is not None:
            end += 1
        if end - start >= 2 * period and end > furthest:
            best, furthest = period, end
    return best, furthest


def _blocks_at_once(period: int, count: int) -> int:
    """How many of `count` blocks are best run by one function; 0 if each step is best by itself."""

    def cost(n: int) -> float:
        calls, rest = divmod(count, n)
        return (n + rest) * period + (1 + calls) * _FIXED

    best = min(range(1, count // 2 + 1), key=cost)
    return best if cost(best) < 0.8 * period * count else 0


class _Reads:
    """Where the values of a program are read."""

    def __init__(self, steps: Sequence[Step], wanted: Collection[Value], plan: Plan):
        self._steps = steps
        self._plan = plan
        self._last = {v: n for n, step in enumerate(steps) for v in step.reads}
        self._last.update(dict.fromkeys(wanted, len(steps)))
        layers = (step.layer for step in steps if step.layer is not None)
        self._fused = {y.relu: y for y in layers if y.relu is not None}  # by the ReLU after it

    def part(self, start: int, end: int, keys: Sequence[Hashable]) -> Part | None:
        """Some steps as a part, if one function of them gives what they give one by one."""
        steps, reached = self._steps[start:end], self._plan.activity.reached
        layers = {step.layer for step in steps if step.layer is not None}
        if any(y.relu is not None and y.relu not in layers for y in layers):
            return None
        if any(y in self._fused and self._fused[y] not in layers for y in layers):
            return None  # what the layer before gives without the ReLU is never made
        written = dict.fromkeys(v for step in steps for v in step.writes)
        read = dict.fromkeys(v for step in steps for v in step.reads)
        inputs = [v for v in read if v not in written and not isinstance(v, Literal)]
        carried = Counter(v for y in layers for v in dict.fromkeys(group_of(y).inputs))
        active = [v for v in inputs if v in carried]
        static = [v for v in inputs if v not in carried]
        results = [v for v in written if self._last.get(v, -1) >= end]
        if not reached.issuperset((*active, *results)):
            return None
        # What two layers here send to one value and what comes from later ones is added in order.
        if any(carried[v] > 1 and self._last[v] >= end for v in active):
            return None
        place = {v: n for n, v in enumerate((*active, *static, *written))}
        key = (
            tuple(v in reached for v in place),
            tuple(place[v] for v in results),
            tuple(
                (key, tuple(map(place.get, step.reads)), tuple(map(place.get, step.writes)))
                for key, step in zip(keys[start:end], steps, strict=True)
            ),
        )
        return Part(steps, active, static, results, key)
