"""Relevance of an eager call: traced once for a kept plan, then run equation by equation.

`jax.vjp` of the interpreter costs as much as tracing, at every call. Its equations are the same if
the plan is the same, so they are kept with the plan, and a call runs them on its arrays.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax

from jaxlrp import compat
from jaxlrp.graph.build import build
from jaxlrp.graph.ir import Value
from jaxlrp.planning.layers import Layer
from jaxlrp.run import depthwise, evaluate, late_splits, reuse
from jaxlrp.run.bound_call import BoundCall
from jaxlrp.run.clusters import pieces
from jaxlrp.run.pull_back import pull_back
from jaxlrp.run.ready import Program

Found = tuple[list[Any], list[Any], list[Any], dict[Layer, Any]]


def pulled_back(
    bound: BoundCall,
    weights: list[Any],
    layers: list[Layer],
    words: tuple[str, ...],
    masks: Mapping[Layer, Any],
) -> Found:
    """`pull_back`, by equations that are kept with the plan if it is kept and nothing is traced.

    A rule of the user's own is called with the arrays of every call, as it may read their numbers.
    """
    bound.act()
    inputs = (bound.arrays, bound.consts, weights, list(masks.values()))
    leaves = jax.tree.leaves(inputs)
    is_compiled = compat.is_staging()
    is_kept = bound.planned.programs is not None and not is_compiled and _is_plain(bound, leaves)
    ready = bound.ready
    if not is_kept and ready is None:
        late = late_splits.waiting() if is_compiled else None
        with late_splits.wait(late), depthwise.as_written(not is_compiled):
            return pull_back(bound, weights, layers, words, masks)
    late = "input" if is_compiled else None
    call = _function(bound, layers, words, masks, not is_kept, late)

    def make() -> Any:
        return _Equations(call, inputs) if ready is None else Program(call, inputs, ready.numbers)

    position = {layer: n for n, layer in enumerate(bound.plan.layers)} if layers or masks else {}
    key = (
        words,
        tuple(position[layer] for layer in layers),
        tuple(position[layer] for layer in masks),
        tuple(jax.typeof(x) for x in (*weights, *masks.values())),
        None if ready is None else ready.numbers,
    )
    program = reuse.program(bound, key, make) if is_kept else make()
    found = program(leaves) if ready is None else program(leaves, ready.values)
    (values, aux, relevance), extra = found
    return values, aux, relevance, dict(zip(layers, extra, strict=True))


def program(bound: BoundCall, numbers: Sequence[int | None]) -> tuple[Program, list[Any]]:
    """An explanation with known parameters and each output at weight 1, and its arrays."""
    weights = bound.weights(None)
    inputs = (bound.arrays, bound.consts, weights, [])
    call = _function(bound, [], ("relevance",), {}, True, None)
    return Program(call, inputs, numbers), jax.tree.leaves(inputs)


def _function(
    bound: BoundCall,
    layers: list[Layer],
    words: tuple[str, ...],
    masks: Mapping[Layer, Any],
    share: bool,
    late: late_splits.Waiting,
) -> Callable[..., Any]:
    """`pull_back` as a function of arrays alone, whose equations are kept and bound later."""

    def call(arrays: list[Any], consts: list[Any], weights: Any, given: list[Any]) -> Any:
        here = dataclasses.replace(bound, arrays=arrays, consts=consts)
        shown = dict(zip(masks, given, strict=True))
        with late_splits.wait(late), depthwise.as_written():
            *found, extra = pull_back(here, weights, layers, words, shown, share=share)
        return found, [extra[layer] for layer in layers]

    return call


def _is_plain(bound: BoundCall, leaves: list[Any]) -> bool:
    return all(map(compat.is_concrete, leaves)) and not reuse.has_rule_of_users(bound)


class _Equations:
    """A function as its equations, run in order, with calls inlined and unread ones left out."""

    def __init__(self, function: Any, inputs: Any):
        closed, shapes = jax.make_jaxpr(function, return_shape=True)(*inputs)
        self._graph = build(closed, [()] * len(closed.jaxpr.invars))
        self._tree = jax.tree.structure(shapes)
        (values, aux, _), _ = shapes
        self._pieces = pieces(
            self._graph, self._graph.outputs[: len(jax.tree.leaves((values, aux)))]
        )
        self._last = self._last_reads()

    def _last_reads(self) -> list[list[Value]]:
        """The values that no equation reads after each piece, so that their memory is freed."""
        seen = set(self._graph.outputs)
        found: list[list[Value]] = []
        for piece in reversed(self._pieces):
            ends = dict.fromkeys(v for v in (*piece.inputs, *piece.outputs) if v not in seen)
            seen.update(ends)
            found.append(list(ends))
        return found[::-1]

    def __call__(self, leaves: list[Any]) -> Any:
        return jax.tree.unflatten(self._tree, list(self._outputs(leaves)))

    def _outputs(self, leaves: list[Any]) -> Iterator[Any]:
        env: evaluate.Env = dict(zip(self._graph.inputs, leaves, strict=True))
        env.update(self._graph.consts)
        for piece, ends in zip(self._pieces, self._last, strict=True):
            piece.run(env)
            for value in ends:
                del env[value]
        return (jax.numpy.asarray(evaluate.read(env, v)) for v in self._graph.outputs)
