"""The plan: every layer with its rule, and what each edge of the graph carries."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any

import jax.numpy as jnp

from jaxlrp import compat
from jaxlrp.errors import RuleError, UnsupportedPrimitiveError
from jaxlrp.graph import control
from jaxlrp.graph import names as naming
from jaxlrp.graph.groups import Facts, Group, around
from jaxlrp.graph.ir import Eqn, Graph, Value
from jaxlrp.graph.recognise import Recognised, recognise
from jaxlrp.graph.reorder import reordered
from jaxlrp.rulemap import RuleMap
from jaxlrp.rules import (
    Detach,
    Epsilon,
    Follow,
    Gradient,
    Pass,
    Rule,
    Taylor,
    Uniform,
    WinnerTakesAll,
)
from jaxlrp.rules.base import LinearRule
from jaxlrp.run import edges, evaluate
from jaxlrp.selectors import Kind, LayerGraph, is_broad, resolve

_DEFAULTS: dict[str, Rule] = {
    "dense": Epsilon(),
    "conv": Epsilon(),
    "embed": Epsilon(),
    "affine": Epsilon(),
    "add": Epsilon(0.0),
    "avg_pool": Epsilon(0.0),
    "reduce": Epsilon(0.0),
    "matmul": Uniform(),
    "product": Uniform(),
    "activation": Pass(),
    "softmax": Taylor(),
    "norm": Detach(),
    "max_pool": WinnerTakesAll(),
}
_MOVED, _MIXED = Follow(), Epsilon(0.0)  # structural equations


@dataclasses.dataclass(eq=False, slots=True)
class Layer:
    """A row of the plan: one layer, its rule, and why it has that rule.

    Attributes:
      kind: what sort of layer (`"dense"`, `"conv"`, ...).
      name: where it is: named scopes, else the path of its parameters, else kind and ordinal.
      shape, dtype: of its output.
      primitive: name of the JAX primitive at its heart.
      rule: the relevance rule that it was given.
      why: the entry of the rule map that matched, or why the default applies.
      folded: how many equations form the layer.
    """

    kind: str
    name: str
    shape: tuple[int, ...]
    dtype: Any
    primitive: str
    rule: Rule
    why: str
    folded: int
    names: tuple[str, ...] = dataclasses.field(repr=False, default=())
    zero_at_zero: bool = dataclasses.field(repr=False, default=True)
    group: Group | None = dataclasses.field(repr=False, default=None)
    arriving: str = dataclasses.field(repr=False, default="density")
    carries: str = dataclasses.field(repr=False, default="density")
    nonnegative: bool = dataclasses.field(repr=False, default=False)
    sign_split: bool = dataclasses.field(repr=False, default=True)
    relu: Layer | None = dataclasses.field(repr=False, default=None)  # its only reader, a ReLU

    @property
    def source(self) -> str:
        """File and line that made it."""
        return group_of(self).main.source

    @property
    def gate(self) -> tuple[int | None, str]:
        """Of a product of two: the position of its gate, and what shows it."""
        return group_of(self).gate, group_of(self).gate_by

    @property
    def gates(self) -> tuple[int, ...]:
        """Of a product: the positions of its gates."""
        return group_of(self).gates

    @property
    def iterations(self) -> tuple[int, ...]:
        """Lengths of the scans around it, outermost first."""
        group = group_of(self)
        scans = [g.main for g in around(group) if g.main.name == "scan"]
        return tuple(control.scan_length(eqn) for eqn in reversed(scans))

    @property
    def output(self) -> Value:
        assert self.group is not None
        return self.group.outputs[0]


class Plan:
    """Which layers were found, which rule each was given, and why. `print(plan)` is a table.

    Attributes:
      layers: all layers in dataflow order, structural ones too.
    """

    def __init__(
        self, graph: Graph, explained: Sequence[Value], found: Recognised, layers: list[Layer]
    ):
        self.graph = graph
        self.explained = tuple(explained)
        self.found = found
        self.activity = found.facts.activity
        self.layers: tuple[Layer, ...] = tuple(layers)
        self.of_group = {group_of(layer): layer for layer in layers}
        self.edges: dict[Value, str] = {}
        self.seeds: dict[Value, str] = {}  # of outputs: what a seed is there
        # As what integers that carry a value take part in relevance.
        wide = any(str(v.dtype) in ("float64", "complex128") for v in self.activity.reached)
        self.number_dtype = jnp.dtype(jnp.float64 if wide else jnp.float32)
        self.low_precision = any(
            evaluate.is_low(v.dtype) for v in self.activity.reached if hasattr(v.aval, "dtype")
        )

    def relevance_dtype(self, dtype: Any) -> Any:
        """The type of the relevance of values of a type."""
        if jnp.issubdtype(dtype, jnp.integer):
            return self.number_dtype
        return jnp.dtype(jnp.float32) if evaluate.is_low(dtype) else jnp.dtype(dtype)

    def count(self, kind: str) -> int:
        """How many layers of a kind there are."""
        return sum(layer.kind == kind for layer in self.layers)

    def select(self, selector: Any) -> tuple[Layer, ...]:
        """The layers that a selector matches."""
        found = resolve(selector, layer_graph(self))
        return tuple(self.layers[i] for i in sorted(found))

    def __str__(self) -> str:
        from jaxlrp.run.table import plan_table

        return plan_table(self)


def make_plan(
    graph: Graph,
    explained: Sequence[Value],
    outputs: Sequence[Value],
    rules: RuleMap,
    seed: str = "density",
    entries: Sequence[Group] = (),
) -> Plan:
    """Recognise the layers of a graph, give each its rule, and decide what every edge carries."""
    plan = survey(reordered(graph, explained, outputs), explained, outputs, entries)
    _assign_rules(plan, rules)
    edges.decide(plan, outputs, seed)
    return plan


def survey(
    graph: Graph,
    explained: Sequence[Value],
    outputs: Sequence[Value],
    entries: Sequence[Group] = (),
) -> Plan:
    """The layers of a graph with their names, before any rule."""
    found = recognise(graph, explained, outputs, entries)
    named = naming.assign(found)
    layers = [_layer(found.facts, group, *named[group]) for group in found.groups]
    return Plan(graph, explained, found, layers)


def _layer(facts: Facts, group: Group, name: str, others: tuple[str, ...]) -> Layer:
    output = group.outputs[0]
    return Layer(
        kind=group.kind,
        name=name,
        shape=output.shape,
        dtype=output.dtype,
        primitive=group.main.name,
        rule=_default_rule(group),
        why="explained: relevance stops here" if group.entry else f"default for {group.kind}",
        folded=len(group.eqns),
        names=(name, *others),
        zero_at_zero=group.zero_at_zero,
        group=group,
        nonnegative=all(facts.intervals.nonnegative(v) for v in group.inputs),
    )


def _default_rule(group: Group) -> Rule:
    if group.entry is not None:
        return _MOVED
    if group.kind == "structural":
        return _MIXED if group.transport == "linear" else _MOVED
    return _DEFAULTS.get(group.kind, _MOVED)


def layer_graph(plan: Plan) -> LayerGraph:
    """Who feeds whom, for selectors that follow the dataflow."""
    layers = [layer for layer in plan.layers if not group_of(layer).main.bodies]
    index = {layer: i for i, layer in enumerate(plan.layers)}
    reads: dict[Value, list[int]] = {}
    for layer in layers:
        for value in group_of(layer).inputs:
            reads.setdefault(value, []).append(index[layer])
    onward = _onward(plan)

    def readers(values: Iterable[Value]) -> list[tuple[int, Value]]:
        found: list[tuple[int, Value]] = []
        stack, seen = list(values), set()
        while stack:
            value = stack.pop()
            if value not in seen:
                seen.add(value)
                found += [(reader, value) for reader in reads.get(value, ())]
                stack.extend(onward.get(value, ()))
        return found

    feeds: list[list[int]] = [[] for _ in plan.layers]
    makers: list[list[list[int]]] = [[[] for _ in group_of(y).inputs] for y in plan.layers]
    sinks = set()
    for layer in layers:
        found = readers(group_of(layer).outputs)
        feeds[index[layer]] = sorted({reader for reader, _ in found})
        for reader, value in found:
            position = group_of(plan.layers[reader]).inputs.index(value)
            makers[reader][position].append(index[layer])
        if _comes_out(group_of(layer).outputs, onward, plan.found.seeded):
            sinks.add(index[layer])
    sources = frozenset(reader for reader, _ in readers(plan.explained))
    return LayerGraph(plan.layers, feeds, makers, sources, frozenset(sinks))


def _onward(plan: Plan) -> dict[Value, list[Value]]:
    """What a value is besides: inside a body, outside of it, in its next iteration."""
    onward: dict[Value, list[Value]] = {}
    for group in plan.found.groups:
        for body in group.main.bodies:
            for pairs in (control.operands, control.results, control.feedback):
                for one, other in pairs(group.main, body):
                    onward.setdefault(one, []).append(other)
    return onward


def _comes_out(
    values: Iterable[Value], onward: dict[Value, list[Value]], outputs: frozenset[Value]
) -> bool:
    stack, seen = list(values), set()
    while stack:
        value = stack.pop()
        if value in outputs:
            return True
        if value not in seen:
            seen.add(value)
            stack.extend(onward.get(value, ()))
    return False


def _assign_rules(plan: Plan, rules: RuleMap) -> None:
    ruled: set[int] = set()
    named: set[int] = set()  # given a rule otherwise than with all layers of their kind
    graph = layer_graph(plan)
    for selector, rule in rules.items():
        found = resolve(selector, graph)
        if is_broad(selector):
            found = _fitting(rule, found, selector, plan)
        for index in found:
            layer = plan.layers[index]
            if group_of(layer).entry is not None or group_of(layer).main.bodies:
                continue  # relevance stops there, or goes on inside: no rule is asked
            layer.rule, layer.why = rule, f"rule map: {selector!r}"
            ruled.add(index)
            (named.discard if isinstance(selector, Kind) else named.add)(index)
    gradients = {i for i, y in enumerate(plan.layers) if isinstance(y.rule, Gradient)}
    gradients = gradients and gradients & _between_lrp(graph)
    for index, layer in enumerate(plan.layers):
        group = group_of(layer)
        if group.entry is not None or group.main.bodies:
            continue
        if layer.kind == "unsupported" and index not in ruled:
            raise UnsupportedPrimitiveError(_unsupported(group.main, layer))
        if index not in named and _has_complex(layer) and isinstance(layer.rule, LinearRule):
            layer.rule, layer.why = _MIXED, f"default for {layer.kind} with complex values"
        _check_fit(layer)
        if index in gradients:
            layer.why += "; no LRP rule, though LRP stands on both sides: see Taylor()"
        if group.note:
            layer.why += f"; {group.note}"
        if layer.rule.bounds_input and (maker := _maker_before(graph, index)) is not None:
            layer.why += f"; the bounds are for what {maker.name!r} gives, not for the input"
        if layer.kind == "softmax" and layer.output in plan.found.seeded:
            layer.why += "; the output is a probability: explain the logits"
        undecided = not group.gates and getattr(layer.rule, "signal", 0) is None
        if layer.kind in ("product", "matmul") and undecided:
            layer.why += ", so Uniform applies"


def _maker_before(graph: LayerGraph, index: int) -> Layer | None:
    """A layer between the explained input and another layer that does more than move elements."""
    stack, seen = [index], {index}
    while stack:
        for other in (i for found in graph.makers[stack.pop()] for i in found):
            layer = graph.layers[other]
            group = group_of(layer)
            if other in seen or group.entry is not None:
                continue
            seen.add(other)
            if layer.kind != "structural" or group.transport != "move":
                return layer
            stack.append(other)
    return None


def _between_lrp(graph: LayerGraph) -> frozenset[int]:
    """Layers that relevance reaches from an LRP rule, and from which it goes on to another one."""
    makers = [[i for found in positions for i in found] for positions in graph.makers]
    shares = [i for i, y in enumerate(graph.layers) if _shares_out(y.rule)]

    def beyond(onward: Sequence[Sequence[int]]) -> set[int]:
        found: set[int] = set()
        stack = [other for i in shares for other in onward[i]]
        while stack:
            if (i := stack.pop()) not in found:
                found.add(i)
                stack += onward[i]
        return found

    return frozenset(beyond(graph.feeds) & beyond(makers))


def _shares_out(rule: Rule) -> bool:
    return not rule.from_weight and rule.carries != "same"


def _fitting(rule: Rule, found: frozenset[int], selector: Any, plan: Plan) -> frozenset[int]:
    """Of a region's layers those that a rule fits; what only moves elements is left alone."""
    layers = {i: plan.layers[i] for i in found if plan.layers[i].kind != "structural"}
    fits = frozenset(i for i, y in layers.items() if rule.fits is None or y.kind in rule.fits)
    if not fits:
        kinds = ", ".join(sorted({layer.kind for layer in layers.values()})) or "structural"
        raise RuleError(
            f"{rule} fits none of the layers that {selector!r} matches: they are of kind {kinds}."
        )
    return fits


def _unsupported(eqn: Eqn, layer: Layer) -> str:
    remedy = compat.opaque_remedy(eqn.name)
    if remedy is not None:
        return (
            f"Relevance must pass `{eqn.name}` in layer {layer.name!r} at {eqn.source}, but cannot "
            f"follow what happens inside it. {remedy}"
        )
    return (
        f"Relevance must pass the primitive `{eqn.name}` in layer {layer.name!r} at {eqn.source}, "
        "for which no rule is known. If its derivative says what you want, add the line "
        f'`rules | {{"{eqn.name}": jaxlrp.Taylor()}}` (the derivative on the density, which '
        "conserves where it can; or Epsilon(0) if it is linear, Stop() if nothing should pass) to "
        "the rule map; or stop_gradient its input. If you know what it computes, say so once: "
        f'`jaxlrp.register_primitive("{eqn.name}", ...)` with `elementwise=True`, `moves=True`, '
        "`linear=True` or `like=` a primitive of JAX."
    )


def _check_fit(layer: Layer) -> None:
    rule, kind = layer.rule, layer.kind
    if rule.fits is not None and kind not in rule.fits and kind != "unsupported":
        raise RuleError(
            f"{rule} was given to the {kind} layer {layer.name!r} ({layer.source}) by "
            f"{layer.why}; it fits layers of kind {', '.join(sorted(rule.fits))}."
        )
    if isinstance(rule, Pass) and type(rule).propagate is Pass.propagate:
        sizes = [v.size for v in group_of(layer).inputs]
        if sizes != [math.prod(layer.shape)]:
            raise RuleError(
                f"Pass was given to the {kind} layer {layer.name!r} ({layer.source}), whose inputs "
                f"have {sizes} elements and whose output has {math.prod(layer.shape)}; Pass needs "
                "one input with as many elements as the output."
            )
    if isinstance(rule, LinearRule) and not rule.plain and _has_complex(layer):
        raise RuleError(f"{rule} was given to {layer.name!r}, whose values are complex.")


def _has_complex(layer: Layer) -> bool:
    group = group_of(layer)
    return any(
        jnp.issubdtype(v.dtype, jnp.complexfloating) for v in (*group.inputs, *group.outputs)
    )


def group_of(layer: Layer) -> Group:
    """The equations of a layer."""
    assert layer.group is not None
    return layer.group
