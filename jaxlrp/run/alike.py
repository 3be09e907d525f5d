"""Layers that are alike: under `jit` one function runs them all.

JAX traces, differentiates and transposes such a function once, as it does with `jnp.tanh` in a
gradient, and puts its equations in the place of each layer. The program does not change.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Hashable, Mapping

import jax

from jaxlrp import compat
from jaxlrp.graph.contents import Avals, Unknown, content, equations_contents
from jaxlrp.graph.groups import Group
from jaxlrp.graph.ir import Eqn, Value
from jaxlrp.graph.particulars import images
from jaxlrp.planning.layers import Layer, group_of
from jaxlrp.planning.plans import Plan
from jaxlrp.rules import Rule
from jaxlrp.run.layer_facts import number_of

_LIBRARY = __name__.partition(".")[0]
_known: weakref.WeakKeyDictionary[Plan, Mapping[Layer, Hashable]] = weakref.WeakKeyDictionary()


def alike(plan: Plan) -> Mapping[Layer, Hashable]:
    """All that decides how the layers that have a like in the plan run, as equal keys."""
    if plan not in _known:
        avals = Avals()
        numbers: dict[Hashable, int] = {None: -1}  # what cannot be compared has no number
        found = [numbers.setdefault(_likeness(layer, avals), len(numbers)) for layer in plan.layers]
        count = Counter(found)
        pairs = zip(plan.layers, found, strict=True)
        _known[plan] = {layer: n for layer, n in pairs if n >= 0 and count[n] > 1}
    return _known[plan]


def is_of_library(rule: Rule) -> bool:
    """Whether a rule is one of this library, which reads only the view of a layer."""
    return type(rule).__module__.partition(".")[0] == _LIBRARY


def is_traced(rule: Rule) -> bool:
    """Whether a rule has a parameter without a value yet, which a kept function cannot hold."""
    return not all(map(compat.is_concrete, jax.tree.leaves(vars(rule))))


def places(group: Group) -> dict[Eqn | Value, int]:
    """The places of a group's equations and values in it, which agree in groups that are alike."""
    values = (v for e in group.eqns for v in e.outputs)
    return {x: n for n, x in enumerate((*group.eqns, *group.inputs, *values))}


def _likeness(layer: Layer, avals: Avals) -> Hashable:
    """What a layer computes, and how relevance passes it; None if that cannot be compared."""
    group = group_of(layer)
    if group.main.bodies or is_traced(layer.rule) or not is_of_library(layer.rule):
        return None
    try:
        place = places(group)
        relu = None if layer.relu is None else _likeness(layer.relu, avals)
        if layer.relu is not None and relu is None:
            return None
        facts = group.particulars
        return (
            layer.kind,
            id(layer.rule),
            layer.arriving,
            layer.carries,
            layer.nonnegative,
            layer.sign_split,
            layer.zero_at_zero,
            None if facts is None else (type(facts), images(facts, place.__getitem__)),
            tuple((place[eqn], i) for eqn, i in group.detached),
            place[group.main],
            tuple(content(number_of(v)) for v in group.outside),
            relu,
            equations_contents(group.eqns, group.inputs, group.outputs, avals),
        )
    except (Unknown, KeyError):
        return None
