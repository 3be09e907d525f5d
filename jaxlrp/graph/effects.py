"""What a function does besides returning values: prints, callbacks, checks.

Layers are run in place of the equations that form them, loops by bodies of their own, and what no
output needs is left out. So actions are no part of a plan. They are what is left of the program
when everything is left out that they do not need, and run by themselves, as they were traced, once
for each call: in loops and branches too, and without a say in what is recognised.

An action whose result the outputs need (an `io_callback` that reads a file) stays in the plan.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax

from jaxlrp import compat
from jaxlrp.errors import InputError


def split(closed: Any) -> tuple[Any, Actions | None]:
    """A traced function without its actions, and these alone; None if there are none."""
    if compat.writes(closed.jaxpr.effects):
        raise InputError(
            "fn writes to a jax.Ref that it was given or closes over. A plan runs the equations "
            "of fn in an order of its own, so what is read there would not be certain: return the "
            "value instead, with has_aux=True."
        )
    if not compat.acts(closed.jaxpr.effects):
        return closed, None
    return closed.replace(jaxpr=_without_actions(closed.jaxpr, {})), Actions(closed)


class Actions:
    """The actions of a traced function, with the equations that make what they read."""

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
    """Whether an equation does something that no output needs, or contains one that does."""
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
