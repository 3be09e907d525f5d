"""From a function to its graph in canonical form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax

from jaxlrp.graph.build import build
from jaxlrp.graph.canonical import canonical
from jaxlrp.graph.ir import Graph


def trace(
    fn: Callable[..., Any],
    avals: Sequence[Any],
    paths: Sequence[tuple[str, ...]],
    n_module: int = 0,
    varying: Sequence[int] | None = None,
) -> tuple[Graph, list[Any], Any]:
    """Trace `fn(*flat_args)`; returns the graph, its constants' arrays and the output's pytree.

    `varying` are the positions of the arguments that are explained; without them any may be.
    `paths` names each argument by its pytree path, for layers that no scope names. The first
    `n_module` arguments are leaves of the function itself.
    """
    closed, out_shape = jax.make_jaxpr(fn, return_shape=True)(*avals)
    graph = build(closed, paths)
    graph = canonical(graph, [graph.inputs[i] for i in varying or range(len(graph.inputs))])
    for value in graph.inputs[:n_module]:
        value.of_module = True
    return graph, [array for _, array in graph.consts], out_shape
