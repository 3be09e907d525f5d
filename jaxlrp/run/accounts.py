"""The account of a layer, by example: relevance that arrived and left, and its losses."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp

from jaxlrp import compat
from jaxlrp.graph.ir import Value
from jaxlrp.planning.layers import Layer, group_of
from jaxlrp.planning.plans import Plan
from jaxlrp.rules.arithmetic import as_tuple, times
from jaxlrp.run.probes import ACCOUNT
from jaxlrp.run.view import View


def by_example(plan: Plan, value: Value, x: Any) -> Any:
    """The sum of an array of a value's shape for each example, or one sum of all of it."""
    along, count = plan.examples.of(value), plan.examples.count
    x = jnp.real(jnp.asarray(x))
    if along is None:
        whole = jnp.sum(x)[None]
        # If there are examples, every value that an output needs has them.
        return whole if count == 1 else jnp.zeros(count, x.dtype).at[:1].set(whole)
    x, axis = jnp.broadcast_to(x, value.shape), along.axis
    if along.each > 1:
        x = x.reshape(*x.shape[:axis], count, along.each, *x.shape[axis + 1 :])
    return jnp.sum(x, [i for i in range(x.ndim) if i != axis])


def total(plan: Plan, values: Iterable[Value], arrays: Iterable[Any]) -> Any:
    sums = [by_example(plan, v, x) for v, x in zip(values, arrays, strict=True)]
    return sum(sums[1:], sums[0]) if sums else jnp.zeros(plan.examples.count)


def gross(plan: Plan, values: Iterable[Value], arrays: Iterable[Any]) -> Any:
    return total(plan, values, [jnp.abs(jnp.real(x)) for x in arrays])


def of_layer(
    plan: Plan,
    layer: Layer,
    view: View,
    inputs: tuple[Any, ...],
    back: tuple[Any, ...],
    account: Any,
) -> Any:
    """A row of `ACCOUNT` for each example, from the results of the layer's rule."""
    group = group_of(layer)
    arriving = as_tuple(view.relevance)
    leaving = back if layer.carries == "relevance" else times(inputs, back)
    out, in_ = total(plan, group.outputs, arriving), total(plan, group.inputs, leaving)
    bias, stabiliser = (total(plan, [layer.output] * len(x), x) for x in view.losses())
    found = {"relevance_out": out, "relevance_in": in_, "bias": bias, "stabiliser": stabiliser}
    if group.kind == "structural" and _only_moves(layer):
        # Moving elements loses no relevance: the rest is the relevance that reaches static
        # elements.
        found["constants"] = out - in_ - bias - stabiliser
    found["gross_out"] = gross(plan, group.outputs, arriving)
    found["gross_in"] = gross(plan, group.inputs, leaving)
    return _entries(found, account)


def _only_moves(layer: Layer) -> bool:
    return layer.rule.follows or layer.rule.plain


def on_static(plan: Plan, value: Value, start: Any, account: Any, arriving: str) -> Any:
    """The identity of a static array, of `value`'s shape; the account lists its relevance.

    The array is the start of a carry, or the result of a branch.
    """

    @jax.custom_vjp
    def begin(start: Any, account: Any) -> Any:
        return start

    def backward(kept: tuple[Any, Any], arrived: Any) -> tuple[None, Any]:
        start, account = kept
        relevance = times(start, arrived) if arriving == "density" else arrived
        out = by_example(plan, value, relevance)
        found = {"relevance_out": out, "constants": out}
        found["gross_out"] = gross(plan, [value], [relevance])
        return None, _entries(found, account)

    begin.defvjp(lambda start, account: (start, (start, account)), backward)
    return begin(start, account)


def _entries(found: dict[str, Any], account: Any) -> Any:
    zero = jnp.zeros(account.shape[:1], account.dtype)
    # Separately: an array that is the same on all devices is not summed over them.
    columns = [found.get(name, zero) for name in ACCOUNT]
    typed = [compat.typed_like(c.astype(account.dtype), account) for c in columns]
    return compat.typed_like(jnp.stack(typed, axis=1), account)
