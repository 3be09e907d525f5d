"""The plan: every layer with its rule, and what each edge of the graph carries."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any

import jax.numpy as jnp

from jaxlrp import compat
from jaxlrp.errors import RuleError, UnsupportedPrimitiveError
from jaxlrp.graph import names as naming
from jaxlrp.graph.groups import Group, Workbench
from jaxlrp.graph.ir import Eqn, Graph, Literal, Value
from jaxlrp.graph.recognise import recognise
from jaxlrp.rulemap import RuleMap
from jaxlrp.rules import Detach, Epsilon, Follow, Pass, Rule, Taylor, Uniform, WinnerTakesAll
from jaxlrp.rules.base import LinearRule
from jaxlrp.run import evaluate
from jaxlrp.selectors import LayerGraph, is_broad, resolve

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


@dataclasses.dataclass(eq=False)
class Layer:
    """A row of the plan: one layer, its rule, and why it has that rule.

    Attributes:
      kind: what sort of layer (`"dense"`, `"conv"`, ...).
      name: where it is: named scopes, else the path of its parameters, else kind and ordinal.
      shape, dtype: of its output.
      primitive: name of the JAX primitive at its heart.
      rule: the relevance rule that it was given.
      why: the entry of the rule map that matched, or why the default applies.
      source: file and line that made it.
      folded: how many equations form the layer.
    """

    kind: str
    name: str
    shape: tuple[int, ...]
    dtype: Any
    primitive: str
    rule: Rule
    why: str
    source: str
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
    def output(self) -> Value:
        assert self.group is not None
        return self.group.outputs[0]


class Plan:
    """Which layers were found, which rule each was given, and why. `print(plan)` is a table.

    Attributes:
      layers: all layers in dataflow order, structural ones too.
    """

    def __init__(
        self, graph: Graph, explained: Sequence[Value], bench: Workbench, layers: list[Layer]
    ):
        self.graph = graph
        self.explained = tuple(explained)
        self.bench = bench
        self.layers: tuple[Layer, ...] = tuple(layers)
        self.edges: dict[Value, str] = {}
        self.low_precision = any(
            evaluate.is_low(v.dtype) for v in bench.activity.reached if hasattr(v.aval, "dtype")
        )

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
    plan = survey(graph, explained, outputs, entries)
    _assign_rules(plan, rules)
    _decide_edges(plan, outputs, seed)
    return plan


def survey(
    graph: Graph,
    explained: Sequence[Value],
    outputs: Sequence[Value],
    entries: Sequence[Group] = (),
) -> Plan:
    """The layers of a graph with their names, before any rule."""
    bench = recognise(graph, explained, outputs, entries)
    named = naming.assign(bench)
    layers = [_layer(bench, group, *named[group]) for group in bench.groups]
    return Plan(graph, explained, bench, layers)


def _layer(bench: Workbench, group: Group, name: str, others: tuple[str, ...]) -> Layer:
    output = group.outputs[0]
    return Layer(
        kind=group.kind,
        name=name,
        shape=output.shape,
        dtype=output.dtype,
        primitive=group.main.name,
        rule=_default_rule(group),
        why="explained: relevance stops here" if group.entry else f"default for {group.kind}",
        source=group.main.source,
        folded=len(group.eqns),
        names=(name, *others),
        zero_at_zero=group.zero_at_zero,
        group=group,
        nonnegative=all(bench.intervals.nonnegative(v) for v in group.inputs),
    )


def _default_rule(group: Group) -> Rule:
    if group.entry is not None:
        return Follow()
    if group.kind == "structural":
        return Epsilon(0.0) if group.transport == "linear" else Follow()
    return _DEFAULTS.get(group.kind, Follow())


def layer_graph(plan: Plan) -> LayerGraph:
    """Who feeds whom, for selectors that follow the dataflow."""
    maker = {v: i for i, layer in enumerate(plan.layers) for v in group_of(layer).outputs}
    feeds: list[list[int]] = [[] for _ in plan.layers]
    sources = set()
    explained = set(plan.explained)
    for index, layer in enumerate(plan.layers):
        for value in group_of(layer).inputs:
            if value in maker:
                feeds[maker[value]].append(index)
            elif value in explained:
                sources.add(index)
    sinks = frozenset(maker[v] for v in plan.bench.outputs if v in maker)
    return LayerGraph(plan.layers, feeds, frozenset(sources), sinks)


def _assign_rules(plan: Plan, rules: RuleMap) -> None:
    ruled: set[int] = set()
    graph = layer_graph(plan)
    for selector, rule in rules.items():
        found = resolve(selector, graph)
        if is_broad(selector):
            found = _fitting(rule, found, selector, plan)
        for index in found:
            layer = plan.layers[index]
            if group_of(layer).entry is not None:
                continue  # relevance stops there: no rule is asked
            layer.rule, layer.why = rule, f"rule map: {selector!r}"
            ruled.add(index)
    for index, layer in enumerate(plan.layers):
        group = group_of(layer)
        if group.entry is not None:
            continue
        if layer.kind == "unsupported" and index not in ruled:
            raise UnsupportedPrimitiveError(_unsupported(group.main, layer))
        _check_fit(layer)
        if group.note:
            layer.why += f"; {group.note}"
        if layer.kind == "softmax" and layer.output in plan.bench.outputs:
            layer.why += "; the output is a probability: explain the logits"
        undecided = group.gate is None and getattr(layer.rule, "signal", 0) is None
        if layer.kind in ("product", "matmul") and undecided:
            layer.why += ", so Uniform applies"


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
            f"Relevance must pass the kernel `{eqn.name}` in layer {layer.name!r} at {eqn.source}, "
            f"which hides what it computes. {remedy}"
        )
    return (
        f"Relevance must pass the primitive `{eqn.name}` in layer {layer.name!r} at {eqn.source}, "
        "for which no rule is known. If its derivative says what you want, add the line "
        f'`rules | {{"{eqn.name}": jaxlrp.Gradient()}}` (or Epsilon(0) if it is linear, Stop() if '
        "nothing should pass) to the rule map; or stop_gradient its input."
    )


def _check_fit(layer: Layer) -> None:
    rule, kind = layer.rule, layer.kind
    if rule.fits is not None and kind not in rule.fits and kind != "unsupported":
        raise RuleError(
            f"{rule} was given to the {kind} layer {layer.name!r} ({layer.source}) by "
            f"{layer.why}; it fits layers of kind {', '.join(sorted(rule.fits))}."
        )
    if type(rule) is Pass:
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


def _decide_edges(plan: Plan, outputs: Iterable[Value], seed: str) -> None:
    """Density or relevance for every value, from the outputs back."""
    edges = plan.edges
    for value in outputs:
        edges[value] = seed
    readers: dict[Value, list[Layer]] = {}
    for layer in plan.layers:
        for value in group_of(layer).inputs:
            readers.setdefault(value, []).append(layer)
    for layer in reversed(plan.layers):
        group = group_of(layer)
        arriving = (
            "relevance" if any(edges.get(v) == "relevance" for v in group.outputs) else "density"
        )
        layer.arriving = arriving
        for value in group.outputs:
            edges[value] = arriving
        layer.carries = layer.rule.what_it_carries(arriving, layer)
        layer.sign_split = not (
            arriving == "density"
            and layer.output not in plan.bench.outputs
            and all(_kills_negative(r) for r in readers.get(layer.output, []))
        )
        layer.relu = _only_relu(plan, layer, readers.get(layer.output, []))
        for value in group.inputs:
            if layer.carries == "relevance" or value not in edges:
                edges[value] = layer.carries


def _only_relu(plan: Plan, layer: Layer, readers: list[Layer]) -> Layer | None:
    """The ReLU that alone reads a layer's output, if a density comes back through it."""
    if len(readers) != 1 or layer.output in plan.bench.outputs or layer.arriving != "density":
        return None
    reader = readers[0]
    passes = group_of(reader).is_relu and type(reader.rule) is Pass
    in_one_region = group_of(reader).eqns[-1].region is group_of(layer).eqns[-1].region
    alone = len(plan.graph.uses(layer.output)) == 1
    alone = alone and all(isinstance(v, Literal) for v in group_of(reader).statics)
    good = passes and in_one_region and alone and isinstance(layer.rule, LinearRule)
    return reader if good and not layer.rule.plain and layer.kind != "structural" else None


def _kills_negative(reader: Layer) -> bool:
    return reader.kind == "activation" and group_of(reader).hard_relu and type(reader.rule) is Pass


def group_of(layer: Layer) -> Group:
    """The equations of a layer."""
    assert layer.group is not None
    return layer.group
