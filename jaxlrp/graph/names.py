"""Where a layer is: the scopes around it, else the path of its parameters, else its ordinal."""

from __future__ import annotations

from collections import Counter

from jaxlrp.graph.activity import is_inexact
from jaxlrp.graph.groups import Facts, Group
from jaxlrp.graph.ir import Eqn
from jaxlrp.graph.recognise import Recognised


def assign(found: Recognised) -> dict[Group, tuple[str, tuple[str, ...]]]:
    """Name and further names (of what was folded in) of every group.

    Layers come first, structural equations after them, each in dataflow order, so that a reshape
    never takes the name of the layer that stands in its scope.
    """
    facts = found.facts
    taken: Counter[str] = Counter()
    ordinals: Counter[str] = Counter()
    named: dict[Group, tuple[str, tuple[str, ...]]] = {}
    for group in sorted(found.groups, key=lambda g: g.kind == "structural"):
        if group.inner is not None and group.inner.name:
            named[group] = (group.inner.name, group.inner.names)
            taken[group.inner.name] += 1
            continue
        path = _parameter_path(facts, group)
        base = path if path and _of_module(facts, group) else _scope(group.main) or path
        if group.inner is not None:
            base = _inner_name(facts, group) or base
        if not base:
            base = f"{group.kind}_{ordinals[group.kind]}"
            ordinals[group.kind] += 1
        name = base if taken[base] == 0 else f"{base}#{taken[base]}"
        taken[base] += 1
        others = {_scope(e) for e in group.eqns} | _folded_paths(facts, group)
        named[group] = (name, tuple(sorted(o for o in others if o and o not in (base, name))))
    return named


def _of_module(facts: Facts, group: Group) -> bool:
    """Whether the function is a module and this layer's parameters are its leaves.

    A module's tree says where a layer is; the scopes that its classes write often say only what.
    """
    static = (v for v in group.main.inputs if v not in facts.activity.depends)
    return any(p.of_module for v in static for p in facts.statics.parameters(v))


def _scope(eqn: Eqn) -> str:
    return "/".join(eqn.scope)


def _paths(facts: Facts, eqn: Eqn) -> list[tuple[str, ...]]:
    static = (v for v in eqn.inputs if v not in facts.activity.depends)
    params = (p for v in static for p in facts.statics.parameters(v))
    return [p.path for p in params if p.path]


def _common(paths: list[tuple[str, ...]]) -> str:
    if not paths:
        return ""
    parents = [p[:-1] or p for p in map(_without_value, paths)]
    shared = parents[0]
    for other in parents[1:]:
        length = next(
            (i for i, (a, b) in enumerate(zip(shared, other, strict=False)) if a != b),
            min(len(shared), len(other)),
        )
        shared = shared[:length]
    return "/".join(shared)


def _without_value(path: tuple[str, ...]) -> tuple[str, ...]:
    # Variables of module systems hold their array one level below the attribute.
    return path[:-1] if len(path) > 1 and path[-1] in ("value", "raw_value") else path


def _parameter_path(facts: Facts, group: Group) -> str:
    for eqn in (group.main, *group.eqns):
        name = _common(_paths(facts, eqn))
        if name:
            return name
    return ""


def _inner_name(facts: Facts, group: Group) -> str:
    """The full path of the one table that is added to embeddings outside a scope of its own."""
    inner = group.inner
    assert inner is not None
    reader = None if inner.reader is None else inner.reader[0]
    if reader is None or (inner.main is not None and len(inner.main.scope) > len(reader.scope)):
        return ""
    params = facts.statics.parameters(inner.value)
    paths = [_without_value(p.path) for p in params if p.path and is_inexact(p)]
    return "/".join(paths[0]) if len(paths) == 1 else ""


def _folded_paths(facts: Facts, group: Group) -> set[str]:
    if group.kind in ("structural", "activation"):
        return set()
    return {_common(_paths(facts, eqn)) for eqn in group.eqns}
