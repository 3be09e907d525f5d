"""Relevance from the outputs of a planned function back to the explained values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxlrp import compat
from jaxlrp.graph.ir import Value
from jaxlrp.planning.layers import Layer
from jaxlrp.rules.arithmetic import times
from jaxlrp.run.bound_call import BoundCall
from jaxlrp.run.evaluate import widen
from jaxlrp.run.probes import ACCOUNT, Probes, probe


def pull_back(
    traced: BoundCall,
    weights: list[Any],
    layers: list[Layer],
    words: tuple[str, ...] | None = None,
    masks: Mapping[Layer, Any] | None = None,
    share: bool = True,
) -> tuple[list[Any], list[Any], list[Any], dict[Layer, Any]]:
    """Value, aux, relevance of the explained leaves, and the results of the layers' probes.

    The results are a dict by the `words`; without words they are an account, a row of `ACCOUNT` for
    each example. `share` is explained in `BoundCall.run`.
    """
    if words is None:
        wide = jnp.promote_types(jnp.result_type(*weights), jnp.float32)
        shape = (traced.plan.examples.count, len(ACCOUNT))
        zeros: dict[Layer, Any] = {layer: jnp.zeros(shape, wide) for layer in layers}
    else:
        zeros = {layer: probe(traced.plan, layer, words) for layer in layers}

    def run(explained: Sequence[Any], probes: dict[int, Any]) -> Any:
        by_layer = {layer: probes[i] for i, layer in enumerate(layers)}
        kind = "accounts" if words is None else "asked"
        return traced.run(explained, Probes(**{kind: by_layer}, masks=masks or {}), share)

    primals = [widen(p) for p in traced.primals()]
    numbered = {
        i: jax.tree.map(lambda z: compat.typed_like(z, *primals), zero)
        for i, zero in enumerate(zeros.values())
    }
    values, back, aux = jax.vjp(run, primals, numbered, has_aux=True)
    seeds = [seed(w, v) for w, v in zip(weights, values, strict=True)]
    found, brought = back(seeds)
    extra = {layer: brought[i] for i, layer in enumerate(layers)}
    values = [as_traced(v, y) for v, y in zip(values, traced.outputs, strict=True)]
    return values, aux, relevances(traced, found, primals), extra


def seed(weight: Any, value: Any) -> Any:
    """The start of relevance at an output: a weight of its type."""
    return compat.typed_like(jnp.asarray(weight, value.dtype), value)


def as_traced(array: Any, value: Value) -> Any:
    """An output in the type that it has in fn."""
    return jnp.asarray(array).astype(value.dtype)  # fn may return a plain number


def relevances(traced: BoundCall, found: Sequence[Any], primals: Sequence[Any]) -> list[Any]:
    """The cotangents of the explained values, as relevance."""
    return [
        r if traced.plan.edges.get(v) == "relevance" else times(x, r)
        for v, x, r in zip(traced.plan.explained, primals, found, strict=True)
    ]
