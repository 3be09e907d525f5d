"""Relevance with values of the parameters that were computed before the call.

The explanation is traced, and divided into values that depend on its parameters alone and the
remaining program. That program runs on values that are ready; a missing one is computed from the
parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax import lax

from jaxlrp import compat
from jaxlrp.errors import InputError
from jaxlrp.run import depthwise
from jaxlrp.run.parameter_frames import Frame, Frames, Inner, Step
from jaxlrp.run.parameter_values import Expression, Known, Parameter, value


class Program:
    """A function of arrays, reduced to the program that remains if parameters are known."""

    def __init__(self, function: Callable[..., Any], inputs: Any, numbers: Sequence[int | None]):
        closed, shapes = jax.make_jaxpr(function, return_shape=True)(*inputs)
        others = [None] * (len(closed.jaxpr.invars) - len(numbers))
        self._numbers = (*numbers, *others)
        used = [True] * len(closed.jaxpr.outvars)
        body = compat.Body(closed.jaxpr, closed.consts)
        self._frame = Frame(body, self._numbers, used, Frames())
        self._tree = jax.tree.structure(shapes)
        self._jitted: dict[Frame, Callable[..., list[Any]]] = {}

    @property
    def needs(self) -> list[Expression]:
        """The expressions that are worth computing in advance."""
        return [x for x in self._frame.needs.values() if not isinstance(x, Parameter)]

    @property
    def left(self) -> list[str]:
        """Names of equations within which nothing is computed in advance."""
        return self._frame.left

    def made(self, leaves: Sequence[Any]) -> list[Any]:
        """The values of `needs`."""
        known = self._parameters(leaves)
        return [jax.numpy.asarray(value(x, known)) for x in self.needs]

    def __call__(self, leaves: Sequence[Any], ready: Known) -> Any:
        if ready and not any(x.digest in ready for x in self._frame.needs.values()):
            raise InputError(
                "The prepared parameters hold no value that this function computes from them; "
                "prepare them for this function: prepare(fn, rules, ...)(params, x)."
            )
        known = {**self._parameters(leaves), **ready}
        given = [value(x, known) for x in self._frame.needs.values()]
        pairs = zip(leaves, self._numbers, strict=True)
        with depthwise.as_written(not compat.is_staging()):
            found = self._run(self._frame, [x for x, n in pairs if n is None], given)
        return jax.tree.unflatten(self._tree, map(jax.numpy.asarray, found))

    def _parameters(self, leaves: Sequence[Any]) -> Known:
        pairs = zip(self._numbers, leaves, strict=True)
        return {Parameter(n, jax.typeof(x)).digest: x for n, x in pairs if n is not None}

    def _run(self, frame: Frame, free: Sequence[Any], given: Sequence[Any]) -> list[Any]:
        """The returned outputs of a frame; `given` are the values of its needs."""
        known = dict(zip(frame.needs, given, strict=True))
        env = dict(zip(frame.free, free, strict=True))
        env.update(zip(frame.body.jaxpr.constvars, frame.body.consts, strict=True))

        def read(operand: Any) -> Any:
            return value(operand, known) if isinstance(operand, Expression) else env[operand]

        for step in frame.steps:
            if step.inner is None:
                values = [read(x) for x in step.operands]
                outputs = depthwise.bind(step.primitive, step.params, values)
            else:
                values = [read(step.operands[n]) for n in step.inner.free]
                outputs = self._within(step, step.inner, values, [*map(read, step.inner.given)])
            env.update(zip(step.writes, outputs, strict=True))
            for variable in step.ends:
                del env[variable]
        return [read(x) for x in frame.returned]

    def _within(self, step: Step, inner: Inner, free: list[Any], given: list[Any]) -> list[Any]:
        """Run an equation with another body."""
        if inner.loop is not None:
            return self._scan(step.params, inner, inner.loop, free, given)
        count = len(free)

        def flat(*arrays: Any) -> list[Any]:
            return self._run(inner.frame, arrays[:count], arrays[count:])

        if inner.kind == "remat":
            return compat.recomputed(step.primitive, step.params, flat, [*free, *given])
        if inner.frame not in self._jitted:
            flat.__name__ = step.params.get("name", "call")
            self._jitted[inner.frame] = jax.jit(flat)
        return self._jitted[inner.frame](*free, *given)

    def _scan(
        self, params: Any, inner: Inner, loop: compat.ScanParts, free: list[Any], given: list[Any]
    ) -> list[Any]:
        frame = inner.frame
        first = sum(n < loop.consts for n in inner.free)
        last = first + loop.carry
        sliced = [x for x, one in zip(given, inner.sliced, strict=True) if one]

        def step(carry: list[Any], slices: Any) -> tuple[list[Any], list[Any]]:
            xs, slices_of_needs = slices[0], iter(slices[1])
            pairs = zip(given, inner.sliced, strict=True)
            needs = [next(slices_of_needs) if one else x for x, one in pairs]
            found = self._run(frame, [*free[:first], *carry, *xs], needs)
            return found[: loop.carry], found[loop.carry :]

        settings = compat.scan_settings(params)
        ends, ys = lax.scan(step, free[first:last], (free[last:], sliced), **settings)
        return [*ends, *ys]
