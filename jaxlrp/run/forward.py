"""Run a plan: the traced function again, as one whose derivative is the modified gradient.

Every layer whose rule is the plain derivative is evaluated as it stands. Every other layer becomes
a `jax.custom_vjp` whose backward pass asks its rule. `jax.vjp` of the whole then carries density
or relevance from the outputs to the explained inputs; JAX adds up where edges meet, keeps what
must be kept, recomputes where the user said `remat`, and differentiates again if asked to.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxlrp import compat
from jaxlrp.graph.activity import is_integer
from jaxlrp.graph.groups import Group
from jaxlrp.graph.ir import Graph, Value
from jaxlrp.rules.base import times
from jaxlrp.rules.elementary import Follow
from jaxlrp.run import evaluate, flow, regions, shut, taps
from jaxlrp.run.evaluate import Counted, Env
from jaxlrp.run.plan import Layer, Plan, group_of
from jaxlrp.run.probes import OF_INPUTS, Probes
from jaxlrp.run.schedule import Step, schedule
from jaxlrp.run.view import View, offset


def run(plan: Plan, env: Env, outputs: Sequence[Value], probes: Probes) -> list[Any]:
    """Evaluate the plan on arrays; differentiable with respect to explained inputs and probes."""
    carrier = Carrier(plan, probes)
    for value in plan.explained:
        env[value] = carrier.raise_(env[value], value)
    if plan.activity.active - plan.activity.reached:
        carrier.mark = jnp.sum(env[plan.explained[0]])
    carrier.run_graph(plan.graph, env, outputs)
    return [evaluate.exact_of(evaluate.read(env, v)) for v in outputs]


def seeded(plan: Plan, value: Value, array: Any) -> Any:
    """An output as relevance starts from it: what is a weight there, or a relevance, inside.

    Where the output's edge carries relevance because something inside reads it too, its weight
    becomes the relevance weight * value.
    """
    by_value = plan.seeds.get(value) == "density" and plan.edges.get(value) == "relevance"
    return taps.as_relevance(array) if by_value else array


def before(plan: Plan, env: Env) -> list[Any]:
    """The explained values of a plan, computed from the inputs and constants in `env`.

    Nothing of this is under a rule: relevance stops at the explained values.
    """
    needed = {v for v in plan.explained if v not in env}
    steps = []
    for eqn in reversed(plan.graph.eqns):
        if any(v in needed for v in eqn.outputs):
            steps.append(eqn)
            needed.update(eqn.inputs)
    evaluate.run(reversed(steps), env)
    return [env[v] for v in plan.explained]


class Carrier:
    """How layers are run: with which probes, and in which precision relevance travels.

    In a low-precision network active values travel as float32 arrays that hold the rounded
    numbers, so that what comes back is float32 too. An integer that carries a value travels as a
    pair: exact, and as a float with which relevance comes back.
    """

    def __init__(
        self, plan: Plan, probes: Probes, calls: regions.Calls | None = None, mark: Any = None
    ):
        self.mark = mark  # a number that depends on what is explained; see `evaluate.held`
        self.plan = plan
        self.probes = probes
        self.calls = regions.Calls() if calls is None else calls
        self._done: set[Layer] = set()  # ReLUs that ran with the layer before them
        self._raised = plan.activity.reached if plan.low_precision else frozenset()

    def within(self, probes: Probes) -> Carrier:
        """The carrier of a body or a region."""
        return Carrier(self.plan, probes, self.calls, self.mark)

    def raise_(self, array: Any, value: Value) -> Any:
        if isinstance(array, Counted):
            return array
        if is_integer(value) and value in self.plan.activity.reached:
            array = jnp.asarray(array)
            return Counted(array.astype(self.plan.number_dtype), array)
        return evaluate.widen(array) if value in self._raised else array

    def lower(self, array: Any, value: Value) -> Any:
        if isinstance(array, Counted):
            return array.exact
        if value in self._raised and evaluate.is_low(value.dtype):
            return evaluate.hold(array).astype(value.dtype)
        return array

    def hold(self, array: Any, value: Value) -> Any:
        """The array in its own precision, as a constant for what relevance does not cross."""
        if value in self.plan.activity.active:
            array = evaluate.held_value(evaluate.exact_of(array), self.mark)
        return self.lower(array, value)

    def run_graph(self, graph: Graph, env: Env, outputs: Sequence[Value]) -> None:
        """Run the steps of a graph, or of a body, that its outputs need."""
        regions.run(schedule(self.plan, graph, outputs), env, self, set(outputs))

    def run_step(self, step: Step, env: Env) -> None:
        """Run a layer, or an equation that relevance does not cross."""
        if step.eqn is not None:
            active = self.plan.activity.active
            values = [self.lower(evaluate.read(env, v), v) for v in step.eqn.inputs]
            if active.isdisjoint(step.eqn.outputs):  # without a derivative, so without one here
                pairs = zip(step.eqn.inputs, values, strict=True)
                values = [jax.lax.stop_gradient(x) if v in active else x for v, x in pairs]
                outputs = evaluate.apply(step.eqn, values)
            else:
                outputs = evaluate.held(step.eqn, values, self.mark)
            found = zip(step.eqn.outputs, outputs, strict=True)
            env.update((v, y) for v, y in found if v in step.writes)
        elif step.layer is not None:
            self.run_layer(step.layer, env)

    def run_layer(self, layer: Layer, env: Env) -> None:
        if layer in self._done:
            return
        group = group_of(layer)
        if group.main.bodies:
            flow.run(self, layer, env)
            return
        inputs = tuple(self._convert(evaluate.read(env, v), v, layer) for v in group.inputs)
        statics = {v: self.lower(evaluate.read(env, v), v) for v in group.statics}
        account = self.probes.accounts.get(layer)
        counted = any(is_integer(v) for v in (*group.inputs, *group.outputs))
        exact = not (self.plan.low_precision or counted)
        if account is None and exact and _is_plain(layer):
            outputs = self._plain(group, inputs, statics)
        elif (relu := self._fusable(layer)) is not None:
            (output,) = self._ruled(layer, inputs, statics, None, relu)
            env[relu.output] = self._probed(relu, (output,), (), {})[0]
            self._done.add(relu)
            return
        else:
            outputs = self._ruled(layer, inputs, statics, account)
        probed = self._probed(layer, outputs, inputs, statics)
        env.update(zip(group.outputs, probed, strict=True))

    def _plain(self, group: Group, inputs: tuple[Any, ...], statics: Env) -> tuple[Any, ...]:
        """Evaluate a layer as it stands; its derivative is its rule."""
        if group.logits is not None and group.logits in group.inputs:
            inputs = tuple(shut.without_arrivals(x) for x in inputs)
        local = {**statics, **dict(zip(group.inputs, inputs, strict=True))}
        evaluate.run(group.eqns, local, detached=group.detached)
        outputs = tuple(local[v] for v in group.outputs)
        if group.logits is not None:
            outputs = tuple(shut.without_weights(y, local[group.logits]) for y in outputs)
        return outputs

    def _fusable(self, layer: Layer) -> Layer | None:
        """The ReLU to run together with a layer, unless something is asked of the edge between."""
        probes = self.probes
        asked = layer in probes.asked or layer in probes.masks or layer in probes.accounts
        if asked or self.plan.low_precision or layer.relu is None:
            return None
        return None if OF_INPUTS.intersection(probes.asked.get(layer.relu, ())) else layer.relu

    def _probed(
        self, layer: Layer, outputs: tuple[Any, ...], inputs: tuple[Any, ...], statics: Env
    ) -> tuple[Any, ...]:
        """Outputs with the layer's mask and probe on the way back."""
        if layer in self.probes.masks:
            mask = self.probes.masks[layer]
            outputs = tuple(evaluate.on_number(lambda y: taps.masked(y, mask), y) for y in outputs)
        if layer in self.probes.asked:
            probe = self.probes.asked[layer]
            known: dict[str, Any] = {}
            if OF_INPUTS.intersection(probe):
                x = tuple(map(evaluate.number_of, inputs))
                known["inputs"] = x
                if "bias" in probe:
                    known["bias"] = offset(group_of(layer), x, statics)
            tapped = evaluate.on_number(
                lambda y: taps.tap(y, probe, layer.arriving, known), outputs[0]
            )
            outputs = (tapped, *outputs[1:])
        return outputs

    def _convert(self, array: Any, value: Value, layer: Layer) -> Any:
        """Make what a layer sends back fit the edge: density becomes relevance where asked."""
        if self.plan.edges.get(value) == "relevance" and layer.carries == "density":
            return evaluate.on_number(taps.as_relevance, array)
        return array

    def _ruled(
        self,
        layer: Layer,
        inputs: tuple[Any, ...],
        statics: Env,
        account: Any,
        relu: Layer | None = None,
    ) -> tuple[Any, ...]:
        """Evaluate a layer as a function whose backward pass is its rule.

        With `relu` the output is behind that ReLU, and what arrives is the density there. Where
        the ReLU shuts there is no relevance, elsewhere its output is z: the rule sees it as z.
        """
        group = group_of(layer)
        keys = list(statics)

        def forward(inputs: tuple[Any, ...], arrays: list[Any]) -> tuple[Any, ...]:
            env = dict(zip(keys, arrays, strict=True))
            for value, array in zip(group.inputs, inputs, strict=True):
                env[value] = self.lower(array, value)
            evaluate.run(group.eqns, env)
            if relu is not None:
                evaluate.run(group_of(relu).eqns, env)
                return (env[relu.output],)
            if group.logits is not None:
                y = group.outputs[0]
                env[y] = shut.without_weights(env[y], env[group.logits])
            return tuple(self.raise_(env[v], v) for v in group.outputs)

        @jax.custom_vjp
        def call(inputs: Any, arrays: list[Any], account: Any) -> Any:
            return forward(inputs, arrays)

        def call_forward(inputs: Any, arrays: list[Any], account: Any) -> Any:
            outputs = forward(inputs, arrays)
            return outputs, (inputs, arrays, outputs, account)

        def call_backward(kept: Any, arrived: Any) -> Any:
            inputs, arrays, outputs, account = kept
            env = dict(zip(keys, arrays, strict=True))
            x, z, came = (tuple(map(evaluate.number_of, v)) for v in (inputs, outputs, arrived))
            back, none, entries = _backward(layer, x, env, z, came, account)
            pairs = zip(inputs, back, strict=True)
            back = tuple(Counted(c, None) if isinstance(x, Counted) else c for x, c in pairs)
            return back, none, entries

        call.defvjp(call_forward, call_backward)
        outputs = call(inputs, list(statics.values()), account)
        return tuple(
            y._replace(exact=compat.without_derivative(y.exact)) if isinstance(y, Counted) else y
            for y in outputs
        )


def _is_plain(layer: Layer) -> bool:
    if not layer.rule.plain:
        return False
    if layer.arriving == "density":
        return True
    return type(layer.rule) is Follow and group_of(layer).transport == "move"


def _backward(
    layer: Layer,
    inputs: tuple[Any, ...],
    statics: Env,
    outputs: tuple[Any, ...],
    arrived: tuple[Any, ...],
    account: Any,
) -> tuple[Any, None, Any]:
    group = group_of(layer)
    single = len(outputs) == 1
    view = View(
        group,
        inputs,
        statics,
        outputs[0] if single else outputs,
        arrived[0] if single else arrived,
        layer.arriving,
        layer.carries,
        layer.nonnegative,
        layer.sign_split,
    )
    back = layer.rule.propagate(view)
    back = back if isinstance(back, tuple) else (back,)
    back = tuple(
        compat.typed_like(jnp.broadcast_to(c, x.shape).astype(x.dtype), x)
        for c, x in zip(back, inputs, strict=True)
    )
    if account is None:
        return back, None, None
    arriving = sum(jnp.sum(r) for r in jax.tree.leaves(view.relevance))
    leaving = back if layer.carries == "relevance" else times(inputs, back)
    bias, stabiliser = view.losses()
    entries = [arriving, sum(jnp.sum(r) for r in leaving), bias, stabiliser]
    # Each by itself: what is the same on all devices is not summed over them.
    entries = [compat.typed_like(jnp.real(jnp.asarray(e)), account) for e in entries]
    return back, None, jnp.stack(entries)
