"""Run a plan: the traced function again, with the modified gradient as its derivative.

Every layer whose rule is the plain derivative is evaluated as it is. Every other layer becomes a
`jax.custom_vjp` whose backward pass calls its rule. `jax.vjp` of the whole then carries density or
relevance from the outputs to the explained inputs. JAX adds up where edges meet, keeps residuals,
recomputes under the user's `remat`, and differentiates again if needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxlrp.graph.activity import is_integer
from jaxlrp.graph.ir import Graph, Literal, Value
from jaxlrp.planning.layers import Layer, group_of
from jaxlrp.planning.plans import Plan
from jaxlrp.run import control_flow, evaluate, identities, inlined_calls, layer_vjp
from jaxlrp.run.alike import alike
from jaxlrp.run.evaluate import Env
from jaxlrp.run.probes import OF_INPUTS, Probes
from jaxlrp.run.schedule import Step, schedule
from jaxlrp.run.state import Calls, RunState
from jaxlrp.run.view import offset


def run(
    plan: Plan, env: Env, outputs: Sequence[Value], probes: Probes, share: bool = True
) -> list[Any]:
    """Evaluate the plan on arrays; differentiable with respect to explained inputs and probes."""
    state = RunState(plan, probes, Calls(share))
    for value in plan.explained:
        env[value] = state.widen(env[value], value)
    if plan.activity.active - plan.activity.reached:
        state.mark = jnp.sum(env[plan.explained[0]])
    run_graph(state, plan.graph, env, outputs)
    return [evaluate.exact_of(evaluate.read(env, v)) for v in outputs]


def seeded(plan: Plan, value: Value, array: Any) -> Any:
    """The identity of an output, which converts its seed to the quantity that its edge carries.

    If the output's edge carries relevance because something inside reads it too, its weight becomes
    the relevance weight * value.
    """
    by_value = plan.seeds.get(value) == "density" and plan.edges.get(value) == "relevance"
    return identities.as_relevance(array) if by_value else array


def before(plan: Plan, env: Env) -> list[Any]:
    """The explained values of a plan, computed from the inputs and constants in `env`.

    No rule applies to these equations: relevance stops at the explained values.
    """
    needed = {v for v in plan.explained if v not in env}
    steps = []
    for eqn in reversed(plan.graph.eqns):
        if any(v in needed for v in eqn.outputs):
            steps.append(eqn)
            needed.update(eqn.inputs)
    evaluate.run(reversed(steps), env)
    return [env[v] for v in plan.explained]


def run_graph(state: RunState, graph: Graph, env: Env, outputs: Sequence[Value]) -> None:
    """Run the steps of a graph, or of a body, that its outputs need."""
    steps = schedule(state.plan, graph, outputs)
    inlined_calls.run(steps, env, state, set(outputs), run_step)


def run_step(state: RunState, step: Step, env: Env) -> None:
    """Run a layer, or an equation that relevance does not cross."""
    if step.eqn is not None:
        active = state.plan.activity.active
        values = [state.narrow(evaluate.read(env, v), v) for v in step.eqn.inputs]
        if active.isdisjoint(step.eqn.outputs):  # it has no derivative, so none is needed here
            pairs = zip(step.eqn.inputs, values, strict=True)
            values = [jax.lax.stop_gradient(x) if v in active else x for v, x in pairs]
            outputs = evaluate.apply(step.eqn, values)
        else:
            outputs = evaluate.held(step.eqn, values, state.mark)
        found = zip(step.eqn.outputs, outputs, strict=True)
        env.update((v, y) for v, y in found if v in step.writes)
    elif step.layer is not None:
        run_layer(state, step.layer, env)


def run_layer(state: RunState, layer: Layer, env: Env) -> None:
    if layer in state.done:
        return
    group = group_of(layer)
    if group.main.bodies:
        control_flow.run(state, layer, env, run_graph)
        return
    inputs = tuple(_convert(state, evaluate.read(env, v), v, layer) for v in group.inputs)
    # Written numbers stay numbers: as arguments of a function that layers share they would be
    # arrays.
    arrays = (v for v in group.outside if not isinstance(v, Literal))
    outside = {v: state.narrow(env[v], v) for v in arrays}
    account = state.probes.accounts.get(layer)
    counted = any(is_integer(v) for v in (*group.inputs, *group.outputs))
    exact = not (state.plan.low_precision or counted)
    plain = account is None and exact and layer_vjp.is_plain(layer)
    relu = None if plain else _fusable(state, layer)
    if account is None:
        outputs = _evaluated(state, layer, inputs, outside, plain, relu)
    else:
        outputs = layer_vjp.ruled(state, layer, inputs, outside, account)
    if relu is not None:
        env[relu.output] = _probed(state, relu, outputs, (), {})[0]
        state.done.add(relu)
        return
    probed = _probed(state, layer, outputs, inputs, outside)
    env.update(zip(group.outputs, probed, strict=True))


def _evaluated(
    state: RunState,
    layer: Layer,
    inputs: tuple[Any, ...],
    outside: Env,
    plain: bool,
    relu: Layer | None,
) -> tuple[Any, ...]:
    """The outputs of a layer, or of the ReLU after it; layers that are alike share a function."""
    keys = list(outside)
    key = alike(state.plan).get(layer) if state.calls.staging else None

    def function(inputs: tuple[Any, ...], arrays: list[Any]) -> tuple[Any, ...]:
        given = dict(zip(keys, arrays, strict=True))
        if plain:
            return layer_vjp.plain(group_of(layer), inputs, given)
        return layer_vjp.ruled(state, layer, inputs, given, None, relu, key is not None)

    if key is not None:
        function = state.calls.share((key, plain, relu is None), function, inline=True)
    return function(inputs, list(outside.values()))


def _fusable(state: RunState, layer: Layer) -> Layer | None:
    """The ReLU to run together with a layer, unless the edge between has a probe or a mask."""
    probes = state.probes
    asked = layer in probes.asked or layer in probes.masks or layer in probes.accounts
    if asked or state.plan.low_precision or layer.relu is None:
        return None
    return None if OF_INPUTS.intersection(probes.asked.get(layer.relu, ())) else layer.relu


def _probed(
    state: RunState,
    layer: Layer,
    outputs: tuple[Any, ...],
    inputs: tuple[Any, ...],
    outside: Env,
) -> tuple[Any, ...]:
    """Outputs with the mask and probe of the layer in their backward pass."""
    if layer in state.probes.masks:
        mask = state.probes.masks[layer]
        outputs = tuple(
            evaluate.on_number(lambda y: identities.masked(y, mask), y) for y in outputs
        )
    if layer in state.probes.asked:
        probe = state.probes.asked[layer]
        known: dict[str, Any] = {}
        if OF_INPUTS.intersection(probe):
            x = tuple(map(evaluate.number_of, inputs))
            known["inputs"] = x
            if "bias" in probe:
                known["bias"] = offset(group_of(layer), x, outside)
        tapped = evaluate.on_number(
            lambda y: identities.tap(y, probe, layer.arriving, known), outputs[0]
        )
        outputs = (tapped, *outputs[1:])
    return outputs


def _convert(state: RunState, array: Any, value: Value, layer: Layer) -> Any:
    """Convert a density that a layer sends back into relevance, if its edge carries relevance."""
    if state.plan.edges.get(value) == "relevance" and layer.carries == "density":
        return evaluate.on_number(identities.as_relevance, array)
    return array
