"""Plans that are kept for the next call of the same content, with programs made from them.

Every call traces the function anew, as an eager gradient does, so that a value which it reads from
outside (new parameters after training) is never stale. The steps after the trace are done once: the
plan, and the programs that are compiled or traced from it. The key is the content of the traced
program, of the rules and of JAX's settings. Neither the key nor the plan holds an array of the
user's, except those in rules and positions that are written in the program.
"""

from __future__ import annotations

import dataclasses
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

import jax

from jaxlrp import compat
from jaxlrp.graph.contents import Unknown, graph_contents
from jaxlrp.graph.ir import Graph
from jaxlrp.planning.rulemap import RuleMap, rules_contents
from jaxlrp.run.alike import is_of_library
from jaxlrp.run.bound_call import BoundCall, Planned

_KEPT = 32  # plans; the least recently used is dropped first
_KEPT_PROGRAMS = 8  # of each plan
_plans: OrderedDict[Hashable, tuple[RuleMap, Planned]] = OrderedDict()
_lock = threading.Lock()


def planned(
    graph: Graph, rules: RuleMap, call: Callable[[], Hashable], make: Callable[[], Planned]
) -> Planned:
    """The plan that `make` makes, or the plan of an earlier call with the same content.

    Args:
      graph: the graph as it was traced.
      rules: the rules of the plan.
      call: everything else that `make` reads. Any of the three may raise `Unknown`.
      make: makes the plan, once; it may change the graph.
    """
    try:
        ruled = rules_contents(rules)
        key = (ruled, call(), compat.settings(), graph_contents(graph))
        hash(key)
    except (Unknown, TypeError):
        return make()
    with _lock:
        known = _plans.pop(key, None)
        if known is not None and _contents(known[0]) == ruled:  # an array of a rule may be changed
            _plans[key] = known
            return known[1]
    found = dataclasses.replace(make(), programs={})
    with _lock:
        _plans[key] = rules, found
        while len(_plans) > _KEPT:
            _plans.popitem(last=False)
    return found


def _contents(rules: RuleMap) -> Hashable:
    try:
        return rules_contents(rules)
    except Unknown:
        return None


def program(bound: BoundCall, key: Hashable, make: Callable[[], Any]) -> Any:
    """The result of `make` for a plan, kept with it if the plan is kept."""
    programs = bound.planned.programs
    if programs is None:
        return make()
    with _lock:
        found = programs.get(key)
    if found is None:
        found = make()
        with _lock:
            programs[key] = found
            while len(programs) > _KEPT_PROGRAMS:
                del programs[next(iter(programs))]
    return found


def has_rule_of_users(bound: BoundCall) -> bool:
    """Whether a layer has a rule that is not of this library."""
    return not all(is_of_library(layer.rule) for layer in bound.plan.layers)


class _Compiled:
    """A function under `jit` that holds the plan only while it is traced."""

    def __init__(self, function: Callable[..., Any]):
        self._now = threading.local()

        def call(arrays: list[Any], consts: list[Any], extra: Any) -> Any:
            bound = dataclasses.replace(self._now.bound, arrays=arrays, consts=consts)
            return function(bound, extra)

        self._call = jax.jit(call)

    def __call__(self, bound: BoundCall, extra: Any) -> Any:
        self._now.bound = bound
        try:
            return self._call(bound.arrays, bound.consts, extra)
        finally:
            del self._now.bound


def compiled(function: Callable[[BoundCall, Any], Any], bound: BoundCall, extra: Any) -> Any:
    """`function(bound, extra)`, compiled; once for all calls of one plan, if that is kept.

    `function` is a module-level function, whose result depends on the plan alone. A rule of the
    user's own may read something that has changed since, so programs with one are not kept.
    """
    if has_rule_of_users(bound):
        return _Compiled(function)(bound, extra)
    return program(bound, function, lambda: _Compiled(function))(bound, extra)
