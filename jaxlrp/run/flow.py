"""Control flow: `scan`, `cond` and `shard_map` run again with bodies whose derivative is relevance.

JAX's own scan stacks the residuals and runs backwards; what is decided here is only what crosses
the border of a body: a density becomes a relevance where the other side carries relevance, and a
probe of a layer inside is one more sequence to scan over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
from jax import lax

from jaxlrp import compat
from jaxlrp.errors import InputError
from jaxlrp.graph import control
from jaxlrp.graph.groups import around
from jaxlrp.graph.ir import Eqn, Value
from jaxlrp.run import evaluate, taps
from jaxlrp.run.evaluate import Env
from jaxlrp.run.plan import Layer, group_of
from jaxlrp.run.probes import Probes

if TYPE_CHECKING:
    from jaxlrp.run.forward import Carrier


def run(carrier: Carrier, layer: Layer, env: Env) -> None:
    """Run a layer of control flow; adds its outputs to `env`."""
    eqn = group_of(layer).main
    outputs = _RUNNERS[eqn.name](carrier, layer, eqn, env)
    env.update(zip(eqn.outputs, outputs, strict=True))


def _enter(carrier: Carrier, outside: Value, inside: Value, array: Any) -> Any:
    """An operand as the body takes it."""
    plan = carrier.plan
    if inside not in plan.activity.reached:
        return carrier.hold(array, outside)
    array = carrier.raise_(array, inside)
    if plan.edges.get(outside) == "relevance" and plan.edges.get(inside) == "density":
        return evaluate.on_number(taps.as_relevance, array)
    return array


def _leave(carrier: Carrier, inside: Value, outside: Value, array: Any) -> Any:
    """A result as the graph outside takes it."""
    plan = carrier.plan
    if outside not in plan.activity.reached:
        return carrier.lower(array, inside)
    array = carrier.raise_(array, outside)
    if plan.edges.get(inside) == "relevance" and plan.edges.get(outside) != "relevance":
        return evaluate.on_number(taps.as_relevance, array)
    return array


def _inside(carrier: Carrier, layer: Layer) -> Probes:
    group = group_of(layer)
    return carrier.probes.of(y for y in carrier.plan.layers if group in around(group_of(y)))


def _cond(carrier: Carrier, layer: Layer, eqn: Eqn, env: Env) -> list[Any]:
    probes = _inside(carrier, layer)
    free = {v: env[v] for v in control.free_values(eqn)}

    def branch(body: Any) -> Any:
        def taken(arrays: list[Any]) -> list[Any]:
            inner: Env = dict(free)
            for (outside, inside), array in zip(control.operands(eqn, body), arrays, strict=True):
                inner[inside] = _enter(carrier, outside, inside, array)
            carrier.within(probes).run_graph(body, inner, body.outputs)
            return [
                _typed(_leave(carrier, i, o, evaluate.read(inner, i)), o)
                for i, o in control.results(eqn, body)
            ]

        return taken

    index = carrier.hold(evaluate.read(env, eqn.inputs[0]), eqn.inputs[0])
    arrays = [evaluate.read(env, v) for v in eqn.inputs[1:]]
    return lax.switch(index, [branch(body) for body in eqn.bodies], arrays)


def _scan(carrier: Carrier, layer: Layer, eqn: Eqn, env: Env) -> list[Any]:
    (body,) = eqn.bodies
    first = control.scan_parts(eqn, body).consts
    back = control.feedback(eqn, body)
    last = first + len(back)
    operands = [
        _enter(carrier, o, i, evaluate.read(env, o)) for o, i in control.operands(eqn, body)
    ]
    start = [_carried(carrier, pair, x) for pair, x in zip(back, operands[first:last], strict=True)]
    if layer in carrier.probes.accounts:
        account, active = carrier.probes.accounts[layer], carrier.plan.activity.active
        for n, (outside, (_, inside)) in enumerate(zip(eqn.inputs[first:last], back, strict=True)):
            if inside in carrier.plan.activity.reached and outside not in active:
                arriving = carrier.plan.edges.get(inside, "density")
                start[n] = evaluate.on_number(
                    lambda x, a=account, w=arriving: taps.lost(x, a, w), start[n]
                )
    probes = _inside(carrier, layer)
    free = {v: env[v] for v in control.free_values(eqn)}
    watched = list(probes.asked)
    stacked = [y for y, mask in probes.masks.items() if jnp.ndim(mask) > len(y.shape)]

    def step(carry: list[Any], slices: Any) -> tuple[list[Any], list[Any]]:
        sequences, arrivals, masks = slices
        inner: Env = {**free, **dict(zip(body.inputs[:first], operands[:first], strict=True))}
        for pair, array in zip(back, carry, strict=True):
            inner[pair[1]] = _read(carrier, pair, array)
        inner.update(zip(body.inputs[last:], sequences, strict=True))
        mine = Probes(
            dict(zip(watched, arrivals, strict=True)),
            probes.accounts,
            {**probes.masks, **dict(zip(stacked, masks, strict=True))},
        )
        carrier.within(mine).run_graph(body, inner, body.outputs)
        outputs = [evaluate.read(inner, v) for v in body.outputs]
        ends = [_carried(carrier, pair, y) for pair, y in zip(back, outputs, strict=False)]
        rest = zip(body.outputs[len(back) :], outputs[len(back) :], strict=True)
        return ends, [_typed(y, v) for v, y in rest]

    slices = (
        operands[last:],
        [probes.asked[y] for y in watched],
        [_full(probes.masks[y], control.scan_length(eqn)) for y in stacked],
    )
    ends, ys = lax.scan(step, start, slices, **compat.scan_settings(eqn.params))
    pairs = zip(control.results(eqn, body), [*ends, *ys], strict=True)
    return [_leave(carrier, inside, outside, y) for (inside, outside), y in pairs]


def _shard_map(carrier: Carrier, layer: Layer, eqn: Eqn, env: Env) -> list[Any]:
    (body,) = eqn.bodies
    probes = _inside(carrier, layer)
    if probes.asked or probes.masks:
        name = next(iter([*probes.asked, *probes.masks])).name
        raise InputError(
            f"{name!r} stands inside shard_map, where each device has a part of it; layers= and "
            "condition= reach layers outside only."
        )
    free = {v: env[v] for v in control.free_values(eqn)}

    def local(*arrays: Any) -> tuple[Any, ...]:
        inner: Env = {**free, **dict(zip(body.inputs, arrays, strict=True))}
        carrier.within(probes).run_graph(body, inner, body.outputs)
        found = zip(body.outputs, eqn.outputs, strict=True)
        return tuple(_typed(evaluate.read(inner, v), o) for v, o in found)

    pairs = control.operands(eqn, body)
    operands = [_typed(_enter(carrier, o, i, evaluate.read(env, o)), i) for o, i in pairs]
    outputs = compat.shard_map(local, eqn.params)(*operands)
    ends = zip(control.results(eqn, body), outputs, strict=True)
    return [_leave(carrier, inside, outside, y) for (inside, outside), y in ends]


_RUNNERS = {"scan": _scan, "cond": _cond, "shard_map": _shard_map}


def _typed(array: Any, value: Value) -> Any:
    """An array, also where the program has a Python number."""
    ready = hasattr(array, "aval") or isinstance(array, evaluate.Counted)
    return array if ready else jnp.asarray(array, value.dtype)


def _carried(carrier: Carrier, pair: tuple[Value, Value], array: Any) -> Any:
    """A carry as it travels from one iteration to the next."""
    array = _typed(array, pair[1])
    for value in pair:
        array = carrier.raise_(array, value)
    return array


def _read(carrier: Carrier, pair: tuple[Value, Value], array: Any) -> Any:
    """A carry as the body reads it: relevance may leave an iteration that passes none on."""
    after, before = pair
    return array if before in carrier.plan.activity.reached else carrier.lower(array, after)


def _full(mask: Any, length: int) -> Any:
    """A mask of a layer with one entry for every iteration."""
    return jnp.broadcast_to(mask, (length, *jnp.shape(mask)[1:]))
