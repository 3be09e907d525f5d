"""The rule of each layer, and the reason for it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from jaxlrp import compat
from jaxlrp.errors import RuleError, UnsupportedPrimitiveError
from jaxlrp.graph.ir import Eqn
from jaxlrp.graph.kinds import KINDS, is_product
from jaxlrp.planning.kinds import COMPLEX
from jaxlrp.planning.layers import Layer, group_of
from jaxlrp.planning.plans import Plan
from jaxlrp.planning.rulemap import RuleMap
from jaxlrp.planning.selectors import Kind, LayerGraph, is_broad, resolve
from jaxlrp.rules import Gradient, Rule
from jaxlrp.rules.base import LinearRule


def assign_rules(plan: Plan, rules: RuleMap) -> None:
    """Give every layer the rule of the last entry that matches it, or the default of its kind."""
    ruled: set[int] = set()
    named: set[int] = set()  # layers with a rule that not all layers of their kind were given
    graph = plan.adjacency
    for selector, rule in rules.items():
        found = resolve(selector, graph)
        if is_broad(selector):
            found = _fitting(rule, found, selector, plan)
        for index in found:
            layer = plan.layers[index]
            if group_of(layer).inner is not None or group_of(layer).main.bodies:
                continue  # relevance stops there, or goes on inside: no rule is used
            layer.rule, layer.why = rule, f"rule map: {selector!r}"
            ruled.add(index)
            (named.discard if isinstance(selector, Kind) else named.add)(index)
    gradients = {i for i, y in enumerate(plan.layers) if isinstance(y.rule, Gradient)}
    gradients = gradients and gradients & _between_lrp(graph)
    for index, layer in enumerate(plan.layers):
        group = group_of(layer)
        if group.inner is not None or group.main.bodies:
            continue
        if layer.kind == "unsupported" and index not in ruled:
            raise UnsupportedPrimitiveError(_unsupported(group.main, layer))
        if index not in named and _has_complex(layer) and isinstance(layer.rule, LinearRule):
            layer.rule, layer.why = COMPLEX, f"default for {layer.kind} with complex values"
        _check_fit(layer)
        if index in gradients:
            layer.why += "; a gradient between LRP rules: see Taylor()"
        if group.note:
            layer.why += f"; {group.note}"
        if layer.rule.bounds_input and (maker := maker_before(graph, index)) is not None:
            layer.why += f"; the bounds are those of the output of {maker.name!r}, not of the input"
        if layer.kind == "softmax" and layer.output in plan.found.seeded:
            layer.why += "; the output is a probability: explain the logits"
        undecided = not layer.gates and getattr(layer.rule, "signal", 0) is None
        if is_product(layer.kind) and undecided:
            layer.why += ", so Uniform applies"


def maker_before(graph: LayerGraph, index: int) -> Layer | None:
    """A layer between the explained input and a given layer that does more than move elements."""
    stack, seen = [index], {index}
    while stack:
        for other in (i for found in graph.makers[stack.pop()] for i in found):
            layer = graph.layers[other]
            group = group_of(layer)
            if other in seen or group.inner is not None:
                continue
            seen.add(other)
            if layer.kind != "structural" or group.transport != "move":
                return layer
            stack.append(other)
    return None


def _between_lrp(graph: LayerGraph) -> frozenset[int]:
    """Layers that relevance reaches after one LRP rule and before another one."""
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
    """The matched layers that a rule fits; layers that only move elements are left out."""
    layers = {i: plan.layers[i] for i in found if plan.layers[i].kind != "structural"}
    fits = frozenset(i for i, y in layers.items() if rule.fits is None or y.kind in rule.fits)
    if not fits:
        kinds = ", ".join(sorted({layer.kind for layer in layers.values()})) or "structural"
        raise RuleError(
            f"{rule} fits none of the layers that {selector!r} matches: their kinds are {kinds}; "
            f"it fits layers of kind {', '.join(sorted(rule.fits or ()))}."
        )
    return fits


def _unsupported(eqn: Eqn, layer: Layer) -> str:
    remedy = compat.opaque_remedy(eqn.name)
    if remedy is not None:
        return (
            f"Relevance must pass `{eqn.name}` in layer {layer.name!r} at {eqn.source}, whose "
            f"computation jaxlrp cannot see. {remedy}"
        )
    return (
        f"Relevance must pass the primitive `{eqn.name}` in layer {layer.name!r} at {eqn.source}, "
        "for which no rule is known. To use its derivative, write "
        f'`rules | {{"{eqn.name}": jaxlrp.Taylor()}}` (or Epsilon(0) if the primitive is linear, '
        "Stop() if no relevance should pass), or apply stop_gradient to its input. To state its "
        f'meaning once, call `jaxlrp.register_primitive("{eqn.name}", ...)` with '
        "`elementwise=True`, `moves=True`, `linear=True` or `like=` a primitive of JAX."
    )


def _check_fit(layer: Layer) -> None:
    rule, kind = layer.rule, layer.kind
    unknown = sorted(set(rule.fits or ()).difference(KINDS))
    if unknown:
        raise RuleError(
            f"{rule}: fits has {unknown[0]!r}, which is not a kind of layer; the kinds are "
            f"{', '.join(KINDS)}."
        )
    if rule.fits is not None and kind not in rule.fits and kind != "unsupported":
        raise RuleError(
            f"{rule} was given to the {kind} layer {layer.name!r} ({layer.source}) by "
            f"{layer.why}; it fits layers of kind {', '.join(sorted(rule.fits))}."
        )
    if rule.bounds_input:
        _check_bounds(layer)
    if rule.passes:
        sizes = [v.size for v in group_of(layer).inputs]
        if sizes != [math.prod(layer.shape)]:
            raise RuleError(
                f"Pass was given to the {kind} layer {layer.name!r} ({layer.source}), whose inputs "
                f"have {sizes} elements and whose output has {math.prod(layer.shape)}; Pass needs "
                "one input with as many elements as the output."
            )
    if isinstance(rule, LinearRule) and not rule.plain and _has_complex(layer):
        raise RuleError(
            f"{rule} was given to {layer.name!r} ({layer.source}), whose values are complex; give "
            "this layer Epsilon(0.0)."
        )


def _check_bounds(layer: Layer) -> None:
    """Raise unless the bounds of a rule, its fields low and high, fit the input of its layer."""
    (shape,) = [v.shape for v in group_of(layer).inputs]
    for name in ("low", "high"):
        bound: Any = getattr(layer.rule, name)
        place = f"the {layer.kind} layer {layer.name!r} ({layer.source})"
        if not isinstance(bound, (int, float)) and not hasattr(bound, "shape"):
            raise RuleError(
                f"{type(layer.rule).__name__}: {name}={bound!r} was given for {place}; expected "
                "a number or an array."
            )
        if not _broadcasts(jnp.shape(bound), shape):
            raise RuleError(
                f"{type(layer.rule).__name__}: {name} of shape {jnp.shape(bound)} was given for "
                f"{place}, whose input has shape {shape}; expected a number, or an array that "
                "broadcasts to the input."
            )


def _broadcasts(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    try:
        return jnp.broadcast_shapes(shape, to) == to
    except ValueError:
        return False


def _has_complex(layer: Layer) -> bool:
    group = group_of(layer)
    return any(
        jnp.issubdtype(v.dtype, jnp.complexfloating) for v in (*group.inputs, *group.outputs)
    )
