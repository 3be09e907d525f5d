"""Compiled functions of plans, kept for the next call whose plan is the same.

Every call is traced and planned anew, so that a value which the function reads from outside (new
parameters after training) is never stale; compiling, the long part, is done once. The key is
the content of a plan, without the arrays that it is bound to: nothing of the user's is kept alive.
"""

from __future__ import annotations

import dataclasses
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

import jax

from jaxlrp.run.bound_call import BoundCall
from jaxlrp.run.contents import Unknown, plan_contents

_KEPT = 32  # functions; the one that was used longest ago goes first
_functions: OrderedDict[Hashable, _Program] = OrderedDict()
_lock = threading.Lock()


class _Program:
    """A function under `jit` that sees the plan while it is traced, and forgets it then."""

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
    """`function(bound, extra)`, compiled; once for all plans of the same content.

    `function` is one of a module: what it computes is decided by the plan alone.
    """
    try:
        key = (function, plan_contents(bound))
    except Unknown:
        return _Program(function)(bound, extra)
    with _lock:
        program = _functions.pop(key, None) or _Program(function)
        _functions[key] = program
        while len(_functions) > _KEPT:
            _functions.popitem(last=False)
    return program(bound, extra)
