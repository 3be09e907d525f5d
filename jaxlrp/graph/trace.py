"""From a function to its graph, as written and in canonical form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlrp import compat
from jaxlrp.graph.build import build
from jaxlrp.graph.canonical import canonical
from jaxlrp.graph.effects import Actions, split
from jaxlrp.graph.ir import Graph
from jaxlrp.graph.places import MOST_ELEMENTS


def trace(
    fn: Callable[..., Any],
    avals: Sequence[Any],
    paths: Sequence[tuple[str, ...]],
    varying: Sequence[int] | None = None,
) -> tuple[Graph, list[Any], Any]:
    """Trace `fn(*flat_args)`; returns the canonical graph, its constants' arrays, the output."""
    graph, arrays, out_shape, _ = traced(fn, avals, paths)
    return simplified(graph, varying), arrays, out_shape


def traced(
    fn: Callable[..., Any], avals: Sequence[Any], paths: Sequence[tuple[str, ...]]
) -> tuple[Graph, list[Any], Any, Actions | None]:
    """Trace `fn(*flat_args)`; returns the graph as written, its constants' arrays and the output.

    The actions of `fn` are returned too, if there are any; they are not part of the graph. `paths`
    names each argument by its pytree path, for layers that no scope names. The graph itself holds
    none of the user's arrays, so that plans of it may be kept.
    """
    closed, out_shape = jax.make_jaxpr(fn, return_shape=True)(*avals)
    closed, actions = split(closed)
    graph = build(closed, paths)
    arrays = [array for _, array in graph.consts]
    graph.consts = [(v, _positions(array)) for v, array in graph.consts]
    return graph, arrays, out_shape, actions


def simplified(graph: Graph, varying: Sequence[int] | None = None, n_module: int = 0) -> Graph:
    """A graph in canonical form; the equations of the given graph are used up.

    `varying` are the positions of the explained inputs; without it any input may be explained. The
    first `n_module` inputs are leaves of the function itself.
    """
    graph = canonical(graph, [graph.inputs[i] for i in varying or range(len(graph.inputs))])
    for value in graph.inputs[:n_module]:
        value.of_module = True
    return graph


def _positions(array: Any) -> np.ndarray | None:
    """A copy of an array that may hold positions: a few known integers or truth values."""
    if not compat.is_concrete(array) or jnp.issubdtype(array.dtype, jax.dtypes.extended):
        return None
    places = array.dtype == bool or jnp.issubdtype(array.dtype, jnp.integer)
    return np.array(array) if places and array.size <= MOST_ELEMENTS else None
