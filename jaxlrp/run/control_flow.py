"""Control flow: `scan`, `cond` and `shard_map` run again with bodies whose derivative is relevance.

JAX's own scan stacks the residuals and runs backwards. This file only handles values that cross the
border of a body: a density becomes a relevance if the other side carries relevance, and a probe of
a layer inside is one more sequence to scan over.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from jax import lax

from jaxlrp import compat
from jaxlrp.errors import InputError
from jaxlrp.graph import control_flow
from jaxlrp.graph.groups import around
from jaxlrp.graph.ir import Eqn, Graph, Value
from jaxlrp.planning.layers import Layer, group_of
from jaxlrp.run import accounts, evaluate, identities, late_splits
from jaxlrp.run.evaluate import Env
from jaxlrp.run.probes import Probes
from jaxlrp.run.state import RunState

RunGraph = Callable[[RunState, Graph, Env, Sequence[Value]], None]


def run(state: RunState, layer: Layer, env: Env, run_graph: RunGraph) -> None:
    """Run a layer of control flow, its bodies by `run_graph`; adds its outputs to `env`."""
    eqn = group_of(layer).main
    with late_splits.wait(None):
        outputs = _RUNNERS[eqn.name](state, layer, eqn, env, run_graph)
    env.update(zip(eqn.outputs, outputs, strict=True))


def _enter(state: RunState, outside: Value, inside: Value, array: Any) -> Any:
    """An operand in the form that the body reads."""
    plan = state.plan
    if inside not in plan.activity.reached:
        return state.hold(array, outside)
    array = state.widen(array, inside)
    if plan.edges.get(outside) == "relevance" and plan.edges.get(inside) == "density":
        return evaluate.on_number(identities.as_relevance, array)
    return array


def _leave(state: RunState, inside: Value, outside: Value, array: Any) -> Any:
    """A result in the form that the graph outside reads."""
    plan = state.plan
    if outside not in plan.activity.reached:
        return state.narrow(array, inside)
    array = state.widen(array, outside)
    if plan.edges.get(inside) == "relevance" and plan.edges.get(outside) != "relevance":
        return evaluate.on_number(identities.as_relevance, array)
    return array


def _counted(state: RunState, layer: Layer, source: Value, value: Value, array: Any) -> Any:
    """The array that `source` passes to `value`; an account lists relevance of a static one."""
    account, activity = state.probes.accounts.get(layer), state.plan.activity
    if account is None or value not in activity.reached or source in activity.active:
        return array
    arriving = state.plan.edges.get(value, "density")
    return evaluate.on_number(
        lambda x: accounts.on_static(state.plan, value, x, account, arriving), array
    )


def _inside(state: RunState, layer: Layer) -> Probes:
    group = group_of(layer)
    return state.probes.of(y for y in state.plan.layers if group in around(group_of(y)))


def _cond(state: RunState, layer: Layer, eqn: Eqn, env: Env, run_graph: RunGraph) -> list[Any]:
    probes = _inside(state, layer)
    free = {v: env[v] for v in control_flow.free_values(eqn)}

    def branch(body: Any) -> Any:
        def taken(arrays: list[Any]) -> list[Any]:
            inner: Env = dict(free)
            for (outside, inside), array in zip(
                control_flow.operands(eqn, body), arrays, strict=True
            ):
                inner[inside] = _enter(state, outside, inside, array)
            run_graph(state.within(probes), body, inner, body.outputs)
            return [
                _counted(
                    state, layer, i, o, _typed(_leave(state, i, o, evaluate.read(inner, i)), o)
                )
                for i, o in control_flow.results(eqn, body)
            ]

        return taken

    index = state.hold(evaluate.read(env, eqn.inputs[0]), eqn.inputs[0])
    arrays = [evaluate.read(env, v) for v in eqn.inputs[1:]]
    return lax.switch(index, [branch(body) for body in eqn.bodies], arrays)


def _scan(state: RunState, layer: Layer, eqn: Eqn, env: Env, run_graph: RunGraph) -> list[Any]:
    (body,) = eqn.bodies
    first = control_flow.scan_parts(eqn, body).consts
    back = control_flow.feedback(eqn, body)
    last = first + len(back)
    operands = [
        _enter(state, o, i, evaluate.read(env, o)) for o, i in control_flow.operands(eqn, body)
    ]
    start = [_carried(state, pair, x) for pair, x in zip(back, operands[first:last], strict=True)]
    pairs = zip(eqn.inputs[first:last], back, start, strict=True)
    start = [_counted(state, layer, outside, pair[1], x) for outside, pair, x in pairs]
    probes = _inside(state, layer)
    free = {v: env[v] for v in control_flow.free_values(eqn)}
    watched = list(probes.asked)
    stacked = [y for y, mask in probes.masks.items() if jnp.ndim(mask) > len(y.shape)]

    def step(carry: list[Any], slices: Any) -> tuple[list[Any], list[Any]]:
        sequences, arrivals, masks = slices
        inner: Env = {**free, **dict(zip(body.inputs[:first], operands[:first], strict=True))}
        for pair, array in zip(back, carry, strict=True):
            inner[pair[1]] = _read(state, pair, array)
        inner.update(zip(body.inputs[last:], sequences, strict=True))
        mine = Probes(
            dict(zip(watched, arrivals, strict=True)),
            probes.accounts,
            {**probes.masks, **dict(zip(stacked, masks, strict=True))},
        )
        run_graph(state.within(mine), body, inner, body.outputs)
        outputs = [evaluate.read(inner, v) for v in body.outputs]
        ends = [
            _counted(state, layer, *pair, _carried(state, pair, y))
            for pair, y in zip(back, outputs, strict=False)
        ]
        rest = zip(body.outputs[len(back) :], outputs[len(back) :], strict=True)
        return ends, [_typed(y, v) for v, y in rest]

    slices = (
        operands[last:],
        [probes.asked[y] for y in watched],
        [_full(probes.masks[y], control_flow.scan_length(eqn)) for y in stacked],
    )
    ends, ys = lax.scan(step, start, slices, **compat.scan_settings(eqn.params))
    pairs = zip(control_flow.results(eqn, body), [*ends, *ys], strict=True)
    return [_leave(state, inside, outside, y) for (inside, outside), y in pairs]


def _shard_map(state: RunState, layer: Layer, eqn: Eqn, env: Env, run_graph: RunGraph) -> list[Any]:
    (body,) = eqn.bodies
    probes = _inside(state, layer)
    if probes.asked or probes.masks:
        name = next(iter([*probes.asked, *probes.masks])).name
        raise InputError(
            f"{name!r} is inside shard_map, where each device has a part of it; layers= and "
            "condition= can only select layers outside."
        )
    free = {v: env[v] for v in control_flow.free_values(eqn)}

    def local(*arrays: Any) -> tuple[Any, ...]:
        inner: Env = {**free, **dict(zip(body.inputs, arrays, strict=True))}
        run_graph(state.within(probes), body, inner, body.outputs)
        found = zip(body.outputs, eqn.outputs, strict=True)
        return tuple(_typed(evaluate.read(inner, v), o) for v, o in found)

    pairs = control_flow.operands(eqn, body)
    operands = [_typed(_enter(state, o, i, evaluate.read(env, o)), i) for o, i in pairs]
    outputs = compat.shard_map(local, eqn.params)(*operands)
    ends = zip(control_flow.results(eqn, body), outputs, strict=True)
    return [_leave(state, inside, outside, y) for (inside, outside), y in ends]


_RUNNERS = {"scan": _scan, "cond": _cond, "shard_map": _shard_map}


def _typed(array: Any, value: Value) -> Any:
    """An array, also for a Python number of the program."""
    ready = hasattr(array, "aval") or isinstance(array, evaluate.Counted)
    return array if ready else jnp.asarray(array, value.dtype)


def _carried(state: RunState, pair: tuple[Value, Value], array: Any) -> Any:
    """A carry in the form in which it travels from one iteration to the next."""
    array = _typed(array, pair[1])
    for value in pair:
        array = state.widen(array, value)
    return array


def _read(state: RunState, pair: tuple[Value, Value], array: Any) -> Any:
    """A carry as the body reads it; relevance may leave an iteration that passes none on."""
    after, before = pair
    return array if before in state.plan.activity.reached else state.narrow(array, after)


def _full(mask: Any, length: int) -> Any:
    """A mask of a layer with one entry for every iteration."""
    return jnp.broadcast_to(mask, (length, *jnp.shape(mask)[1:]))
