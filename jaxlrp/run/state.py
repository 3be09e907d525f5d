"""The state of one run: the plan, its probes, and the precision in which values travel."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import jax
import jax.numpy as jnp

from jaxlrp import compat
from jaxlrp.graph.activity import is_integer
from jaxlrp.graph.ir import Value, is_low
from jaxlrp.planning.layers import Layer
from jaxlrp.planning.plans import Plan
from jaxlrp.run import evaluate
from jaxlrp.run.evaluate import Counted
from jaxlrp.run.probes import Probes


class Calls:
    """The functions that run calls, and layers, that are alike, by what they have in common.

    Attributes:
      staging: whether a program is traced; if operations run one by one, nothing is shared.
      sharing: whether calls that are alike may be calls of one function in the program.
    """

    def __init__(self, share: bool) -> None:
        self.staging = compat.is_staging()
        self.sharing = share and self.staging
        self._functions: dict[Hashable, Callable[..., Any]] = {}

    def share(
        self, key: Hashable, function: Callable[..., Any], inline: bool
    ) -> Callable[..., Any]:
        """The function of an earlier call that is alike, or else this one.

        Under `inline` its equations are put in the place of the call.
        """
        return self.kept(key, lambda: jax.jit(function, inline=inline))

    def kept(self, key: Hashable, make: Callable[[], Callable[..., Any]]) -> Callable[..., Any]:
        """The function that was made under a key, or else is made now."""
        if key not in self._functions:
            self._functions[key] = make()
        return self._functions[key]


class Precision:
    """The precision in which values travel. It holds no arrays, so kept functions may hold it."""

    def __init__(self, plan: Plan):
        self.plan = plan
        self._widened = plan.activity.reached if plan.low_precision else frozenset()

    def widen(self, array: Any, value: Value) -> Any:
        """An array in the precision in which relevance is computed."""
        if isinstance(array, Counted):
            return array
        if is_integer(value) and value in self.plan.activity.reached:
            array = jnp.asarray(array)
            return Counted(array.astype(self.plan.number_dtype), array)
        return evaluate.widen(array) if value in self._widened else array

    def narrow(self, array: Any, value: Value) -> Any:
        """An array in the precision that the traced program has it in."""
        if isinstance(array, Counted):
            return array.exact
        if value in self._widened and is_low(value.dtype):
            return evaluate.hold(array).astype(value.dtype)
        return array


class RunState:
    """The way in which layers are run: their probes, and the precision of relevance.

    In a low-precision network active values travel as float32 arrays that hold the rounded
    numbers, so that relevance is float32 too. An integer that carries a value travels as a pair:
    the exact integer, and a float through which relevance comes back.

    Attributes:
      mark: a number that depends on the explained values; see `evaluate.held`.
      done: ReLUs that ran with the layer before them.
    """

    def __init__(self, plan: Plan, probes: Probes, calls: Calls, mark: Any = None):
        self.mark = mark
        self.plan = plan
        self.probes = probes
        self.calls = calls
        self.done: set[Layer] = set()
        self.precision = Precision(plan)

    def within(self, probes: Probes) -> RunState:
        """The state of a body or a call."""
        return RunState(self.plan, probes, self.calls, self.mark)

    def widen(self, array: Any, value: Value) -> Any:
        """An array in the precision in which relevance is computed."""
        return self.precision.widen(array, value)

    def narrow(self, array: Any, value: Value) -> Any:
        """An array in the precision that the traced program has it in."""
        return self.precision.narrow(array, value)

    def hold(self, array: Any, value: Value) -> Any:
        """The array in its own precision, as a constant where relevance does not cross."""
        if value in self.plan.activity.active:
            array = evaluate.held_value(evaluate.exact_of(array), self.mark)
        return self.narrow(array, value)
