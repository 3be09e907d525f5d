"""Actions of a function besides returning values: prints, callbacks, checks.

Layers run in place of the equations that form them, loops run with bodies of their own, and
equations that no output needs are left out. Actions are therefore not part of a plan. They are a
program of their own, with only the equations that they need, and run as they were traced, once for
each call. Actions in loops and branches are included, and do not influence recognition.

An action whose result the outputs need (an `io_callback` that reads a file) stays in the plan.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax

from jaxlrp import compat
from jaxlrp.errors import InputError


def split(closed: Any) -> tuple[Any, Actions | None]:
    """A traced function without its actions, and the actions alone, or None."""
    if compat.writes(closed.jaxpr.effects):
        raise InputError(
            "fn writes to a jax.Ref that it was given or closes over. A plan runs the equations "
            "of fn in an order of its own, so the values read from it would not be certain: return "
            "the value instead, with has_aux=True."
        )
    if not compat.acts(closed.jaxpr.effects):
        return closed, None
    return closed.replace(jaxpr=_without_actions(closed.jaxpr, {})), Actions(closed)


class Actions:
    """The actions of a traced function, with the equations that make their operands."""

    def __init__(self, closed: Any):
        jaxpr = closed.jaxpr
        needed: set[Any] = set()
        kept: list[Any] = []
        for eqn, live in reversed(_with_liveness(jaxpr)):
            if _is_action(eqn, live) or needed.intersection(eqn.outvars):
                kept.append(eqn)
                needed.update(_variables(eqn.invars))
        only = _with_equations(jaxpr, kept[::-1]).replace(outvars=[])
        self._run = compat.jaxpr_as_fun(closed.replace(jaxpr=only))

    def __call__(self, arrays: Sequence[Any]) -> None:
        self._run(*map(jax.lax.stop_gradient, arrays))


def _is_action(eqn: Any, live: bool) -> bool:
    """Whether an equation is an action that no output needs, or contains one."""
    if not compat.acts(eqn.effects):
        return False
    inner = list(compat.jaxprs_in_params(eqn.params))
    if not inner:
        return not live
    return any(_is_action(e, needed) for jaxpr in inner for e, needed in _with_liveness(jaxpr))


def _with_liveness(jaxpr: Any) -> list[tuple[Any, bool]]:
    """The equations, each with whether an output needs it."""
    needed = set(_variables(jaxpr.outvars))
    found: list[tuple[Any, bool]] = []
    for eqn in reversed(jaxpr.eqns):
        live = bool(needed.intersection(eqn.outvars))
        found.append((eqn, live))
        if live:
            needed.update(_variables(eqn.invars))
    return found[::-1]


def _variables(atoms: Sequence[Any]) -> list[Any]:
    return [atom for atom in atoms if not isinstance(atom, compat.Literal)]


def _without_actions(jaxpr: Any, known: dict[int, Any]) -> Any:
    """A jaxpr without actions, the same one for each call of one jaxpr."""
    if not compat.acts(jaxpr.effects):
        return jaxpr
    if id(jaxpr) not in known:
        pairs = _with_liveness(jaxpr)
        kept = [_quiet(e, known) for e, live in pairs if live or not compat.acts(e.effects)]
        known[id(jaxpr)] = _with_equations(jaxpr, kept)
    return known[id(jaxpr)]


def _quiet(eqn: Any, known: dict[int, Any]) -> Any:
    """An equation without the actions in the jaxprs that it runs."""

    def quiet(param: Any) -> Any:
        if isinstance(param, compat.ClosedJaxpr):
            return param.replace(jaxpr=_without_actions(param.jaxpr, known))
        if isinstance(param, compat.Jaxpr):
            return _without_actions(param, known)
        return type(param)(map(quiet, param)) if type(param) in (tuple, list) else param

    if not compat.acts(eqn.effects) or not list(compat.jaxprs_in_params(eqn.params)):
        return eqn
    params = {name: quiet(param) for name, param in eqn.params.items()}
    inner = {effect for j in compat.jaxprs_in_params(params) for effect in j.effects}
    effects = {effect for effect in eqn.effects if effect in inner or not compat.acts([effect])}
    return eqn.replace(params=params, effects=effects)


def _with_equations(jaxpr: Any, eqns: Sequence[Any]) -> Any:
    """A jaxpr with some of its equations."""
    left = {effect for eqn in eqns for effect in eqn.effects}
    effects = {effect for effect in jaxpr.effects if effect in left or not compat.acts([effect])}
    return jaxpr.replace(eqns=list(eqns), effects=effects)
