"""Steps that run together: under `jax.checkpoint`, or as one of many calls that are alike.

Calls that are alike in everything that determines their evaluation become calls of one `jax.jit`
function, as they were in the explained function: JAX then traces, differentiates and lowers the
first and reuses it. Outside `jit`, where operations run one by one, nothing would be gained.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import jax

from jaxlrp.graph.groups import around
from jaxlrp.graph.ir import InlinedCall, Value
from jaxlrp.graph.particulars import images
from jaxlrp.planning.layers import Layer, group_of
from jaxlrp.planning.plans import Plan
from jaxlrp.run import series
from jaxlrp.run.alike import is_traced, places
from jaxlrp.run.evaluate import Env
from jaxlrp.run.probes import Probes
from jaxlrp.run.schedule import Step
from jaxlrp.run.state import RunState

RunStep = Callable[[RunState, Step, Env], None]


def run(
    steps: Sequence[Step],
    env: Env,
    state: RunState,
    wanted: set[Value],
    run_step: RunStep,
    depth: int = 0,
) -> None:
    """Run steps in order; neighbours that are in one call at this depth run together."""
    last_read = {v: n for n, step in enumerate(steps) for v in step.reads}
    units = [_unit(step, state, depth) for step in steps]
    parts = series.parts(steps, [call is None for call in units], state, wanted)
    index = 0
    while index < len(steps):
        call = units[index]
        if index in parts:
            series.run(parts[index], env, state, run_step)
            index += len(parts[index].steps)
            continue
        if call is None:
            run_step(state, steps[index], env)
            index += 1
            continue
        end = index
        while end < len(steps) and units[end] is call:
            end += 1
        body = steps[index:end]
        written = dict.fromkeys(v for step in body for v in step.writes)
        results = [v for v in written if v in wanted or last_read.get(v, -1) >= end]
        _run_together(body, env, state, results, call, run_step, depth + 1)
        index = end


def _unit(step: Step, state: RunState, depth: int) -> InlinedCall | None:
    units = step.units
    if not state.calls.sharing:
        units = [r for r in units if r.settings is not None]
    return units[depth] if depth < len(units) else None


def _run_together(
    body: Sequence[Step],
    env: Env,
    state: RunState,
    results: Sequence[Value],
    call: InlinedCall,
    run_step: RunStep,
    depth: int,
) -> None:
    written = {v for step in body for v in step.writes}
    read = dict.fromkeys(v for step in body for v in step.reads)
    inputs = [v for v in read if v not in written and v in env]
    layers = _layers_in(state.plan, body)
    mine = state.probes.of(layers)

    def function(values: list[Any], arrays: list[Any]) -> list[Any]:
        inner: Env = dict(zip(inputs, values, strict=True))
        run(body, inner, state.within(mine.filled(arrays)), set(results), run_step, depth)
        return [inner[v] for v in results]

    if call.settings is not None:
        function = jax.checkpoint(function, **call.settings)
    shared = state.calls.sharing and call in state.plan.found.calls
    if shared and not any(is_traced(layer.rule) for layer in layers):
        key = _alike(body, state, inputs, results, mine, call)
        function = state.calls.share(key, function, inline=False)
    outputs = function([env[v] for v in inputs], mine.arrays())
    env.update(zip(results, outputs, strict=True))


def _layers_in(plan: Plan, steps: Sequence[Step]) -> list[Layer]:
    """The layers that some steps run, including those in bodies."""
    found = {step.layer: None for step in steps if step.layer is not None}
    inside = {group_of(y) for y in found if group_of(y).main.bodies}
    if inside:
        bodies = (y for y in plan.layers if inside.intersection(around(group_of(y))))
        found.update(dict.fromkeys(bodies))
    return list(found)


def _alike(
    body: Sequence[Step],
    state: RunState,
    inputs: Sequence[Value],
    results: Sequence[Value],
    probes: Probes,
    call: InlinedCall,
) -> Hashable:
    """The key that two calls must share for one function to run both."""
    number = {v: n for n, v in enumerate(inputs)}
    parts: list[Hashable] = [state.plan.found.calls[call]]
    for step in body:
        for value in step.writes:
            number.setdefault(value, len(number))
        what = _of_layer(step.layer, probes) if step.layer is not None else _of_eqn(step)
        if probes.accounts:
            what = (what, tuple(map(state.plan.examples.of, (*step.reads, *step.writes))))
        reads = tuple(number.get(v) for v in step.reads)
        parts.append((what, reads, tuple(number[v] for v in step.writes)))
    parts.append(tuple(state.plan.edges.get(v) for v in number))
    parts.append(tuple(number[v] for v in results))
    return tuple(parts)


def _of_eqn(step: Step) -> Hashable:
    assert step.eqn is not None
    return step.eqn.prim, id(step.eqn.params), step.used


def _of_layer(layer: Layer, probes: Probes) -> Hashable:
    group = group_of(layer)
    parts = group.particulars
    return (
        group.like or group,
        len(group.eqns),  # scales before a core are folded for each call separately
        id(layer.rule),
        layer.arriving,
        layer.carries,
        layer.nonnegative,
        layer.sign_split,
        layer.relu is not None,
        None if parts is None else images(parts, places(group).__getitem__),
        probes.of_layer(layer),
    )
