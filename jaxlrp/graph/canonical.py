"""A plainer graph of the same numbers, without repeated computations and detours.

Recognition compares values by identity, so two slices that are written in the same way must be one
slice. Only exact rewrites are made: every remaining value is computed by the network's own
equations.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxlrp import compat
from jaxlrp.graph import control_flow
from jaxlrp.graph.build import equations
from jaxlrp.graph.ir import Eqn, Graph, InlinedCall, Literal, Value
from jaxlrp.graph.places import Places
from jaxlrp.graph.primitives import (
    COMPARISONS,
    COPIES,
    ELEMENTWISE,
    FIXED_LINEAR,
    LINEAR_CORES,
    MOVES,
    REDUCTIONS,
    RUNNING_WINNERS,
    SORTS,
    WINDOW_WINNERS,
)
from jaxlrp.graph.shared_exponentials import with_own_exponentials
from jaxlrp.graph.signs import Signs
from jaxlrp.graph.stacks import with_own_pieces

# Each is a layer if relevance passes it by itself, with names and rules of its own.
_LAYERS = LINEAR_CORES | FIXED_LINEAR | WINDOW_WINNERS | RUNNING_WINNERS | SORTS
# Linear layers with weights stay apart: different uses of one module are two layers. A Fourier
# transform has none, and neither has a product with numbers that are written in the program.
_MERGED = (
    ELEMENTWISE
    | MOVES
    | COMPARISONS
    | REDUCTIONS
    | (_LAYERS - LINEAR_CORES)
    | {"iota", "stop_gradient", "argmax", "argmin"}
)

# The operation of a scatter, and its neutral number.
_SCATTERED: dict[str, tuple[Callable[..., Any], int]] = {
    "scatter-add": (lax.add, 0),
    "scatter_add": (lax.add, 0),
    "scatter-sub": (lax.add, 0),
    "scatter_sub": (lax.add, 0),
    "scatter-mul": (lax.mul, 1),
    "scatter_mul": (lax.mul, 1),
}


def canonical(graph: Graph, varying: Collection[Value]) -> Graph:
    """The graph without common subexpressions, idle equations and choices between equals.

    A value that depends on none of the inputs in `varying` is static, and its `stop_gradient` is
    idle.
    """
    return _Rewriter(varying, graph.consts).graph(graph)


class _Rewriter:
    def __init__(self, varying: Collection[Value], consts: Iterable[tuple[Value, Any]]) -> None:
        self.same: dict[Value, Value] = {}  # a removed value -> the one in its place
        self.varying = set(varying)
        self.consts = dict(consts)
        self.numbers: set[Value] = set()  # made of what is written in the program alone
        self.places = Places(self.consts.items(), self.varying)
        self.signs = Signs(self.varying)

    def graph(self, graph: Graph) -> Graph:
        seen: dict[Hashable, list[Eqn]] = {}
        kept: list[Eqn] = []
        ahead = deque(graph.eqns)
        around, self.signs.left = self.signs.left, []
        self.signs.count_readers(graph)
        while ahead:
            eqn = ahead.popleft()
            eqn.inputs = [self.of(v) for v in eqn.inputs]
            varies = not self.varying.isdisjoint(eqn.inputs)
            if varies:
                self.varying.update(eqn.outputs)
                self.varying.update(v for body in eqn.bodies for v in self.varying_in(eqn, body))
            elif not eqn.bodies and all(map(self.is_number, eqn.inputs)):
                self.numbers.update(eqn.outputs)
            if varies and eqn.name in _SCATTERED:
                kept += self.spread_out(eqn)
                continue
            if eqn.bodies:
                eqn.bodies = tuple(self.body(body) for body in eqn.bodies)
            elif eqn.name == "stop_gradient" and not varies:
                self.replace(eqn, eqn.inputs)
                continue
            elif (value := self.plain(eqn, varies)) is not None:
                self.replace(eqn, [value])
                continue
            elif varies and (moved := self.signs.moved(eqn)) is not None:
                ahead.extendleft(reversed(moved))
                continue
            elif eqn.name in _MERGED or (varies and self.has_no_weights(eqn)):
                alike = seen.setdefault(_key(eqn), [])
                earlier = next((e for e in alike if _may_stand_for(e, eqn)), None)
                if earlier is not None:
                    self.replace(eqn, earlier.outputs)
                    continue
                alike.append(eqn)
            kept.append(eqn)
        outputs = [self.of(v) for v in graph.outputs]
        kept, self.signs.left = with_own_pieces(self.read(kept, outputs), outputs), around
        kept = with_own_exponentials(kept)
        return Graph(graph.inputs, graph.consts, kept, outputs)

    def is_number(self, value: Value) -> bool:
        return isinstance(value, Literal) or value in self.numbers

    def has_no_weights(self, eqn: Eqn) -> bool:
        """Whether an equation is a product of one varying value with written numbers."""
        factors = [v for v in eqn.inputs if v not in self.varying]
        single = len(factors) == len(eqn.inputs) - 1
        return eqn.name in LINEAR_CORES and single and all(map(self.is_number, factors))

    def replace(self, eqn: Eqn, values: Sequence[Value]) -> None:
        """Drop an equation, in whose place values that are there already are read."""
        self.same.update(zip(eqn.outputs, values, strict=True))
        self.signs.read_instead(eqn, values)

    def read(self, eqns: list[Eqn], outputs: list[Value]) -> list[Eqn]:
        """Equations without the signs and products that are not read after signs have moved."""
        left = set(self.signs.left)
        if not left:
            return eqns
        used, kept = set(outputs), []
        for eqn in reversed(eqns):
            if eqn not in left or not used.isdisjoint(eqn.outputs):
                kept.append(eqn)
                used.update(eqn.inputs)
        return kept[::-1]

    def varying_in(self, eqn: Eqn, body: Graph) -> Iterable[Value]:
        """The inputs of a body that may differ from run to run, without its constants."""
        fed_back = {inside for _, inside in control_flow.feedback(eqn, body)}
        for outside, inside in control_flow.operands(eqn, body):
            if outside in self.varying or inside in fed_back:
                yield inside

    def spread_out(self, eqn: Eqn) -> list[Eqn]:
        """A scatter of which one side is static, as a sum or product with all of that side.

        Elements that are added to 0, each at a place of its own, are put there.
        """
        x, *others = eqn.inputs
        plain, idle = _SCATTERED[eqn.name]
        added = plain is lax.add and x not in self.varying
        zero = added and self.is_zero(x)
        once = added and _places_once(eqn)
        if not self.varying.isdisjoint(others) and not (once if zero else added):
            return [eqn]

        def function(x: Any, *others: Any) -> Any:
            start = jnp.full(eqn.out.shape, idle, eqn.out.dtype)
            if once:
                scattered = lax.scatter(start, *others, **_positions(eqn))
            else:
                (scattered,) = compat.bind(eqn.prim, eqn.params, [start, *others])
            return scattered if zero else plain(x, scattered)

        eqns = equations(function, [x, *others], eqn, eqn.call)
        self.same[eqn.out] = eqns[-1].out
        for made in eqns:
            if not self.varying.isdisjoint(made.inputs):
                self.varying.update(made.outputs)
        return eqns

    def is_zero(self, value: Value) -> bool:
        """Whether a static value is 0 everywhere, for all that is known here."""
        while (eqn := value.producer) is not None and eqn.name in MOVES and len(eqn.inputs) == 1:
            (value,) = eqn.inputs
        known = value.val if isinstance(value, Literal) else self.consts.get(value)
        return known is not None and compat.is_concrete(known) and not np.any(np.asarray(known))

    def plain(self, eqn: Eqn, varies: bool) -> Value | None:
        """The earlier value that an equation returns, if it has no effect."""
        value = self.signs.undone(eqn) or _idle(eqn)
        return self.places.same(eqn) if value is None and varies else value

    def body(self, body: Graph) -> Graph:
        inner = self.graph(body)
        for value in inner.inputs:
            if value.outer is not None:
                value.outer = self.of(value.outer)
        return inner

    def of(self, value: Value) -> Value:
        return self.same.get(value, value)


def _places_once(eqn: Eqn) -> bool:
    """Whether a scatter that adds puts each element at a place of its own."""
    depth = len(eqn.params["dimension_numbers"].scatter_dims_to_operand_dims)
    single = eqn.inputs[1].size == depth
    return "add" in eqn.name and (single or eqn.params["unique_indices"])


def _positions(eqn: Eqn) -> dict[str, Any]:
    names = ("dimension_numbers", "indices_are_sorted", "unique_indices", "mode")
    return {name: eqn.params[name] for name in names}


def _key(eqn: Eqn) -> Hashable:
    square = eqn.name == "mul" and eqn.inputs[0] is eqn.inputs[1]
    if square or eqn.name == "square" or (eqn.name == "integer_pow" and eqn.params["y"] == 2):
        return "square", eqn.inputs[0]  # the same product in all three spellings
    inputs = tuple(_literal_key(v) if isinstance(v, Literal) else v for v in eqn.inputs)
    settings: Hashable = tuple(sorted(eqn.params.items(), key=lambda item: item[0]))
    try:
        hash(settings)
    except TypeError:
        settings = id(eqn.params)
    return eqn.prim, settings, inputs


def _literal_key(value: Literal) -> Hashable:
    # By its bytes: NaN is NaN, and -0.0 is not 0.0.
    return value.dtype, value.shape, np.asarray(value.val).tobytes()


def _may_stand_for(earlier: Eqn, later: Eqn) -> bool:
    """Whether one value may replace both: no rematerialised border or other module is between."""
    if later.name in _LAYERS and later.name != "reduce_sum" and earlier.scope != later.scope:
        return False
    short, long = sorted((earlier.scope, later.scope), key=len)
    return long[: len(short)] == short and _recomputed(earlier) is _recomputed(later)


def _recomputed(eqn: Eqn) -> InlinedCall | None:
    """The innermost call around an equation that is computed again in the backward pass."""
    call = eqn.call
    while call is not None and call.settings is None:
        call = call.parent
    return call


def _idle(eqn: Eqn) -> Value | None:
    """The operand that an equation returns unchanged."""
    if eqn.name in ("add", "sub"):
        return _beside(eqn, 0, "add")
    if eqn.name in ("mul", "div"):
        return _beside(eqn, 1, "mul")
    first = eqn.inputs[0] if eqn.inputs else None
    if first is None or isinstance(first, Literal) or len(eqn.outputs) != 1:
        return None
    if eqn.name == "select_n":
        cases = eqn.inputs[1:]
        alike = all(_uncopied(c) is _uncopied(cases[0]) for c in cases)
        usable = not isinstance(cases[0], Literal) and cases[0].dtype == eqn.out.dtype
        return cases[0] if alike and usable else None
    if first.shape != eqn.out.shape or first.dtype != eqn.out.dtype:
        return None
    if eqn.name == "transpose":
        return first if list(eqn.params["permutation"]) == list(range(first.ndim)) else None
    if eqn.name == "slice":
        return first  # of the same shape: all of it
    if eqn.name in ("reshape", "squeeze", "expand_dims"):
        return first if eqn.params.get("dimensions") is None or eqn.name != "reshape" else None
    if eqn.name == "broadcast_in_dim":
        return first
    if eqn.name == "convert_element_type":
        return first if eqn.params.get("sharding") is None else None
    return None


def _beside(eqn: Eqn, number: int, commutes: str) -> Value | None:
    """The operand beside a written number without effect: x * 1, x / 1, x + 0, x - 0.

    Python's `sum` begins with a 0.
    """
    pairs = (eqn.inputs, eqn.inputs[::-1]) if eqn.name == commutes else (eqn.inputs,)
    for kept, other in pairs:
        alike = kept.shape == eqn.out.shape and kept.dtype == eqn.out.dtype
        written = isinstance(other, Literal) and other.ndim == 0 and bool(other.val == number)
        if alike and written and not isinstance(kept, Literal):
            return kept
    return None


def _uncopied(value: Value) -> Value:
    while value.producer is not None and value.producer.name in COPIES:
        if value.dtype != value.producer.inputs[value.index].dtype:
            break
        value = value.producer.inputs[value.index]
    return value
