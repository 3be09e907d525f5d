"""Along which axes a static value may vary, and where a parameter comes from."""

from __future__ import annotations

from jaxlrp.graph.ir import Graph, Value
from jaxlrp.graph.primitives import ELEMENTWISE, RANDOM


class Statics:
    """Facts about the values that do not carry relevance (memoised)."""

    def __init__(self, graph: Graph):
        self._axes: dict[Value, frozenset[int]] = {}
        self._params: dict[Value, tuple[Value, ...]] = {}
        self._roots = set(graph.inputs) | {v for v, _ in graph.consts}

    def varying_axes(self, value: Value) -> frozenset[int]:
        """Axes along which the elements of `value` may differ."""
        if value not in self._axes:
            self._axes[value] = self._compute_axes(value)
        return self._axes[value]

    def _compute_axes(self, value: Value) -> frozenset[int]:
        wide = frozenset(i for i, n in enumerate(value.shape) if n != 1)
        eqn = value.producer
        if not wide:
            return wide
        if eqn is None:
            if value.outer is None or value.outer.ndim != value.ndim + value.sliced:
                return wide
            return frozenset(i - value.sliced for i in self.varying_axes(value.outer)) & wide
        if eqn.name == "broadcast_in_dim":
            dims = eqn.params["broadcast_dimensions"]
            inner = self.varying_axes(eqn.inputs[0])
            return frozenset(dims[i] for i in inner if eqn.inputs[0].shape[i] != 1) & wide
        if eqn.name in ("reshape", "squeeze", "expand_dims"):
            places = unit_reshape(eqn.inputs[0].shape, value.shape)
            if places is not None:
                return frozenset(places[i] for i in self.varying_axes(eqn.inputs[0])) & wide
        if eqn.name in ELEMENTWISE:
            same_rank = [v for v in eqn.inputs if v.ndim == value.ndim]
            return frozenset().union(*map(self.varying_axes, same_rank)) & wide
        return wide

    def parameters(self, value: Value) -> tuple[Value, ...]:
        """Inputs and constants of the graph (and random draws) that `value` is computed from."""
        if value not in self._params:
            found: dict[Value, None] = {}
            stack, seen = [value], set()
            while stack:
                v = stack.pop()
                if v in seen:
                    continue
                seen.add(v)
                if v in self._params:
                    found.update(dict.fromkeys(self._params[v]))
                elif v in self._roots or (v.producer is not None and v.producer.name in RANDOM):
                    found[v] = None
                elif v.producer is not None:
                    stack.extend(reversed(v.producer.inputs))
                elif v.outer is not None:
                    stack.append(v.outer)
            self._params[value] = tuple(found)
        return self._params[value]


def unit_reshape(old: tuple[int, ...], new: tuple[int, ...]) -> dict[int, int] | None:
    """Where each axis goes in a reshape that only adds or drops axes of size 1; else None."""
    wide_old = [i for i, n in enumerate(old) if n != 1]
    wide_new = [i for i, n in enumerate(new) if n != 1]
    if [old[i] for i in wide_old] != [new[i] for i in wide_new]:
        return None
    return dict(zip(wide_old, wide_new, strict=True))
