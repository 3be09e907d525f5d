"""Names of layers: the scopes around one, else the path of its parameters, else its number.

If one scope has layers of several sorts, the linear layer has its name, and the others are
`scope/add`, `scope/tanh`. A layer without parameters or a scope is in the block that the named
layers before and after it share. `name#1` is the second use of one thing.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Mapping, Sequence

from jaxlrp.graph.activity import is_inexact
from jaxlrp.graph.groups import Facts, Group
from jaxlrp.graph.ir import Eqn, Value
from jaxlrp.graph.kinds import kinds_that
from jaxlrp.graph.particulars import Activation
from jaxlrp.graph.recognise import Recognised

_WEIGHTED = kinds_that("linear") - kinds_that("hands_on")  # not a scale or shift alone


def assign(found: Recognised) -> dict[Group, tuple[str, tuple[str, ...]]]:
    """Name and further names (those of folded layers) of every group.

    Layers come first and structural equations after them, each in dataflow order, so that a reshape
    never takes the name of the layer in its scope.
    """
    facts = found.facts
    groups = sorted(found.groups, key=lambda g: g.kind == "structural")
    paths = {g: _parameter_path(facts, g) for g in groups}
    bases = {g: _base(facts, g, paths[g]) for g in groups}
    blocks = _blocks_of(found.groups, {g: bases[g] for g in groups if paths[g]})
    owners = _owners(groups, bases, paths)
    taken: Counter[str] = Counter()
    ordinals: Counter[str] = Counter()
    named: dict[Group, str] = {}
    names: set[str] = set()
    for group in groups:
        if group.inner is not None and group.inner.name:
            named[group] = group.inner.name
            taken[group.inner.name] += 1
            names.add(group.inner.name)
            continue
        base, thing = bases[group], _thing(group)
        if base and owners.get(base) != thing:
            base = f"{base}/{thing}"
        elif not base and group in blocks:
            base = f"{blocks[group]}/{thing}"
        elif not base:
            base = f"{group.kind}_{ordinals[group.kind]}"
            ordinals[group.kind] += 1
        name = _numbered(base, taken[base])
        while name in names:  # a user's scope may have the name of another layer's second use
            taken[base] += 1
            name = _numbered(base, taken[base])
        taken[base] += 1
        names.add(name)
        named[group] = name
    folded = _folded_names(facts, groups, named, {g: bool(paths[g]) for g in groups})
    return {group: (name, folded[group]) for group, name in named.items()}


def _folded_names(
    facts: Facts,
    groups: Sequence[Group],
    named: Mapping[Group, str],
    has_parameters: Mapping[Group, bool],
) -> dict[Group, tuple[str, ...]]:
    """The names of the scopes that were folded into each layer and have no layer of their own.

    If several layers hold equations of such a scope, its name belongs to the linear ones, else to
    those with parameters: a layer that took in the last number of a scope only reads it.
    """
    own = {_USE.sub("", name) for name in named.values()}
    found: dict[Group, set[str]] = {}
    best: dict[str, int] = {}
    for group in groups:
        scopes = {_scope(e) for e in group.eqns} | _folded_paths(facts, group)
        found[group] = {o for o in scopes if o and o not in own}
        for name in found[group]:
            best[name] = min(_rank(group, has_parameters[group]), best.get(name, 2))
    return {
        group: group.inner.names
        if group.inner is not None and group.inner.name
        else tuple(sorted(o for o in held if best[o] == _rank(group, has_parameters[group])))
        for group, held in found.items()
    }


_USE = re.compile(r"#\d+$")


def _rank(group: Group, has_parameters: bool) -> int:
    """The rank of a layer in its scope: the linear one is first, then one with parameters."""
    if group.inner is not None or group.kind in _WEIGHTED:
        return 0
    return 1 if has_parameters else 2


def _numbered(base: str, use: int) -> str:
    return base if use == 0 else f"{base}#{use}"


def _base(facts: Facts, group: Group, path: str) -> str:
    """The path of a layer's parameters, or the scopes around it."""
    base = path if path and _of_module(facts, group) else _scope(group.main) or path
    if group.inner is not None:
        base = _inner_name(facts, group) or base
    return base


def _thing(group: Group) -> str:
    """The name of a layer beside another one in the same scope."""
    if group.kind == "structural":
        return group.main.name
    if group.kind != "activation":
        return group.kind
    if group.particulars_as(Activation).is_relu:
        return "relu"
    return group.main.name if len(group.eqns) == 1 else group.kind


def _owners(
    groups: Sequence[Group], bases: Mapping[Group, str], paths: Mapping[Group, str]
) -> dict[str, str]:
    """The thing in each scope that has the scope's name.

    It is the linear layer, or else the first that has parameters. A thing without parameters has it
    if it is alone in the scope; the others are named by what they are.
    """
    things: dict[str, dict[str, int]] = {}
    for group in groups:
        if group.kind == "structural" and things.get(bases[group]):
            continue
        rank = _rank(group, bool(paths[group]))
        inside = things.setdefault(bases[group], {})
        inside[_thing(group)] = min(rank, inside.get(_thing(group), rank))
    around = {base[:i] for base in things for i, letter in enumerate(base) if letter == "/"}
    owners: dict[str, str] = {}
    for base, inside in things.items():
        first = min(inside, key=lambda thing: inside[thing])
        if inside[first] < 2 or (len(inside) == 1 and base not in around):
            owners[base] = first
    return owners


def _blocks_of(groups: Sequence[Group], named: Mapping[Group, str]) -> dict[Group, str]:
    """The path for a layer without one: the shared path of the named layers before and after it."""
    if not named:
        return {}
    position = {g: i for i, g in enumerate(groups)}
    maker = {v: g for g in groups for v in g.outputs}
    readers: dict[Value, list[Group]] = {}
    for group in groups:
        for value in group.inputs:
            readers.setdefault(_outermost(value), []).append(group)
    before: dict[Group, Group | None] = {}
    after: dict[Group, Group | None] = {}
    for group in groups:
        made_by = (maker[v] for v in map(_outermost, group.inputs) if v in maker)
        near = (g if g in named else before.get(g) for g in made_by)
        before[group] = max(filter(None, near), key=position.__getitem__, default=None)
    for group in reversed(groups):
        read_by = [g for v in group.outputs for g in readers.get(v, ())] or [group.around]
        near = (g if g in named else after.get(g) for g in read_by if g is not None)
        after[group] = min(filter(None, near), key=position.__getitem__, default=None)
    found: dict[Group, str] = {}
    for group in groups:
        a, b = before[group], after[group]
        if a is not None and b is not None:
            ends = (named[g].split("/")[:-1] for g in (a, b))
            shared = itertools.takewhile(_alike, zip(*ends, strict=False))
            found[group] = "/".join(part for part, _ in shared)
    return {group: path for group, path in found.items() if path}


def _alike(pair: tuple[str, str]) -> bool:
    return pair[0] == pair[1]


def _outermost(value: Value) -> Value:
    """The value outside of all bodies that was passed to a body."""
    while value.producer is None and value.outer is not None:
        value = value.outer
    return value


def _of_module(facts: Facts, group: Group) -> bool:
    """Whether the function is a module and this layer's parameters are its leaves.

    A module's tree says where a layer is; the scopes that its classes write often say only its
    type.
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
