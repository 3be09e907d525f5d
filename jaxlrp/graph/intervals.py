"""Bounds that hold for every element of a value, whatever the inputs are.

They prove non-negativity (one product fewer in most rules), find gates in [0, 1], show that
f(0) = 0, and that an activation is 0 for every x <= 0. NaN is left out of account.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from jaxlrp.graph import control
from jaxlrp.graph.ir import Eqn, Graph, Literal, Value
from jaxlrp.graph.primitives import COMPARISONS, COPIES, MOVES, SCATTER_WINNERS

Interval = tuple[float, float]
EVERYTHING: Interval = (-math.inf, math.inf)
UNIT: Interval = (0.0, 1.0)
POSITIVE: Interval = (0.0, math.inf)


class Intervals:
    """Bounds of all values of a graph."""

    def __init__(self, graph: Graph):
        self._graph = graph
        self._known: dict[Value, Interval] = {}
        self._proven: dict[Value, Interval] = {}
        propagate(graph.eqns, self._known)

    def prove(self, bounds: Mapping[Value, Interval]) -> None:
        """Add bounds that are known from elsewhere, and what follows from them."""
        self._proven.update(bounds)
        changed: set[Value] = set()
        for eqn in self._graph.eqns:
            proven = not self._proven.keys().isdisjoint(eqn.outputs)
            if eqn.bodies or proven or not changed.isdisjoint(eqn.inputs):
                before = [self[v] for v in eqn.outputs]
                propagate((eqn,), self._known, self._proven)
                pairs = zip(eqn.outputs, before, strict=True)
                changed.update(v for v, old in pairs if self[v] != old)

    def __getitem__(self, value: Value) -> Interval:
        return lookup(self._known, value)

    def nonnegative(self, value: Value) -> bool:
        return self[value][0] >= 0.0

    def constant(self, value: Value) -> float | None:
        """The one number that fills a value, if that is certain."""
        low, high = self[value]
        return low if low == high else None

    def image(
        self, eqns: Iterable[Eqn], source: Value, bounds: Interval, output: Value
    ) -> Interval:
        """Bounds of `output` when `source` lies in `bounds` and the rest is as in the graph."""
        local = {source: bounds}
        eqns = list(eqns)
        inside = {v for eqn in eqns for v in eqn.outputs}
        for eqn in eqns:
            for value in eqn.inputs:
                if value not in inside and value is not source:
                    local.setdefault(value, self[value])
        propagate(eqns, local)
        return lookup(local, output)


def lookup(known: dict[Value, Interval], value: Value) -> Interval:
    if value in known:
        return known[value]
    if isinstance(value, Literal):
        return _of_number(value.val)
    return EVERYTHING


def propagate(
    eqns: Iterable[Eqn],
    known: dict[Value, Interval],
    proven: Mapping[Value, Interval] | None = None,
) -> None:
    """Add the bounds of every output of `eqns` to `known`."""
    for eqn in eqns:
        if eqn.bodies:
            _control(eqn, known, proven)
            continue
        bounds = _transfer(eqn, known)
        for value in eqn.outputs:
            known[value] = proven.get(value, bounds) if proven else bounds


def _of_number(val: Any) -> Interval:
    try:
        number = float(np.asarray(val))
    except (TypeError, ValueError):
        return EVERYTHING
    return EVERYTHING if math.isnan(number) else (number, number)


def _times(a: float, b: float) -> float:
    return 0.0 if a == 0.0 or b == 0.0 else a * b


def _mul(a: Interval, b: Interval) -> Interval:
    products = [_times(x, y) for x in a for y in b]
    return min(products), max(products)


def _inverse(a: Interval) -> Interval:
    low, high = a
    if low > 0 or high < 0:
        return 1.0 / high, 1.0 / low
    if low == 0.0:
        return (1.0 / high if high > 0 else 0.0), math.inf
    return EVERYTHING


def _hull(intervals: Iterable[Interval]) -> Interval:
    lows, highs = zip(*intervals, strict=True)
    return min(lows), max(highs)


def _monotone(f: Callable[[float], float], domain: Interval = EVERYTHING):
    def image(a: Interval) -> Interval:
        ends = []
        for x in a:
            try:
                ends.append(f(min(max(x, domain[0]), domain[1])))
            except (OverflowError, ValueError, ZeroDivisionError):
                return EVERYTHING
        return min(ends), max(ends)

    return image


def _exp(x: float) -> float:
    return math.inf if x > 700.0 else math.exp(x)


def _even(f: Callable[[float], float]):
    def image(a: Interval) -> Interval:
        ends = [f(x) for x in a]
        return (0.0 if a[0] <= 0.0 <= a[1] else min(ends)), max(ends)

    return image


def _logistic(x: float) -> float:
    return 1.0 / (1.0 + _exp(-x)) if x > -700.0 else 0.0


def _log(x: float) -> float:
    return -math.inf if x <= 0.0 else math.log(x)


_UNARY: dict[str, Callable[[Interval], Interval]] = {
    "exp": _monotone(_exp),
    "exp2": _monotone(lambda x: _exp(x * math.log(2.0))),
    "expm1": _monotone(lambda x: math.inf if x > 700.0 else math.expm1(x)),
    "log": _monotone(_log, POSITIVE),
    "log1p": _monotone(lambda x: -math.inf if x <= -1.0 else math.log1p(x), (-1.0, math.inf)),
    "tanh": _monotone(math.tanh),
    "logistic": _monotone(_logistic),
    "erf": _monotone(math.erf),
    "erfc": _monotone(math.erfc),
    "sqrt": _monotone(math.sqrt, POSITIVE),
    "cbrt": _monotone(lambda x: math.copysign(abs(x) ** (1.0 / 3.0), x)),
    "rsqrt": lambda a: _inverse(_monotone(math.sqrt, POSITIVE)(a)) if a[0] >= 0 else POSITIVE,
    "atan": _monotone(math.atan),
    "asinh": _monotone(math.asinh),
    "sinh": _monotone(lambda x: math.copysign(math.inf, x) if abs(x) > 700.0 else math.sinh(x)),
    "floor": _monotone(lambda x: x if math.isinf(x) else float(math.floor(x))),
    "ceil": _monotone(lambda x: x if math.isinf(x) else float(math.ceil(x))),
    "round": lambda a: (a[0] - 0.5, a[1] + 0.5) if a[0] != a[1] or a[0] % 1 else a,
    "sign": _monotone(lambda x: float((x > 0) - (x < 0))),
    "neg": lambda a: (-a[1], -a[0]),
    "abs": _even(abs),
    "square": _even(lambda x: _times(x, x)),
    "is_finite": lambda a: UNIT,
    "sin": lambda a: (math.sin(a[0]), math.sin(a[0])) if a[0] == a[1] else (-1.0, 1.0),
    "cos": lambda a: (math.cos(a[0]), math.cos(a[0])) if a[0] == a[1] else (-1.0, 1.0),
    "cosh": lambda a: (1.0, math.inf),
}
# Sums, products and averages of non-negative numbers are non-negative; sorting invents nothing.
_KEEPS_SIGN = frozenset(
    """dot_general conv_general_dilated reduce_sum reduce_window_sum cumsum reduce_prod cumprod
    scatter-add scatter-mul psum""".split()
)
_KEEPS_RANGE = (
    frozenset(
        """reduce_max reduce_min cummax cummin sort top_k stop_gradient real all_gather
        ppermute pmax pmin reduce_window_max reduce_window_min""".split()
    )
    | MOVES
    | COPIES
)


def _compare(name: str, a: Interval, b: Interval) -> Interval:
    if name in ("lt", "le"):
        return _compare({"lt": "gt", "le": "ge"}[name], b, a)
    if name == "gt":
        return (float(a[0] > b[1]), float(a[1] > b[0]))
    if name == "ge":
        return (float(a[0] >= b[1]), float(a[1] >= b[0]))
    return UNIT


def _source_of(value: Value) -> Value:
    while value.producer is not None and value.producer.name in COPIES | {"broadcast_in_dim"}:
        value = value.producer.inputs[0]
    return value


def _refine(case: Value, bounds: Interval, pred: Value, taken: bool, known) -> Interval | None:
    """Bounds of a select's case, given what its predicate says; None if it is never taken."""
    test = _source_of(pred).producer
    if test is None or test.name not in COMPARISONS:
        return bounds
    left, right = test.inputs
    name = test.name
    if _source_of(right) is _source_of(case):
        left, right = right, left
        name = {"lt": "gt", "gt": "lt", "le": "ge", "ge": "le"}.get(name, name)
    if _source_of(left) is not _source_of(case) or name in ("eq", "ne"):
        return bounds
    low, high = lookup(known, right)
    above = (name in ("gt", "ge")) == taken
    refined = (max(bounds[0], low), bounds[1]) if above else (bounds[0], min(bounds[1], high))
    return refined if refined[0] <= refined[1] else None


def _select(eqn: Eqn, known: dict[Value, Interval]) -> Interval:
    pred, *cases = eqn.inputs
    low, high = lookup(known, pred)
    options = []
    for index, case in enumerate(cases):
        if not low <= index <= high:
            continue
        bounds = lookup(known, case)
        if len(cases) == 2:
            bounds = _refine(case, bounds, pred, index == 1, known)
        if bounds is not None:
            options.append(bounds)
    return _hull(options) if options else EVERYTHING


def _transfer(eqn: Eqn, known: dict[Value, Interval]) -> Interval:
    name = eqn.name
    bounds = [lookup(known, v) for v in eqn.inputs]
    if name in _UNARY:
        return _UNARY[name](bounds[0])
    if name in ("add", "add_any"):
        a, b = bounds
        return _plus(a[0], b[0], -math.inf), _plus(a[1], b[1], math.inf)
    if name == "sub":
        a, b = bounds
        return _plus(a[0], -b[1], -math.inf), _plus(a[1], -b[0], math.inf)
    if name == "mul":
        if eqn.inputs[0] is eqn.inputs[1]:
            return _UNARY["square"](bounds[0])
        return _mul(*bounds)
    if name == "div":
        return _mul(bounds[0], _inverse(bounds[1]))
    if name == "max":
        return max(bounds[0][0], bounds[1][0]), max(bounds[0][1], bounds[1][1])
    if name == "min":
        return min(bounds[0][0], bounds[1][0]), min(bounds[0][1], bounds[1][1])
    if name == "integer_pow":
        return _integer_pow(bounds[0], eqn.params["y"])
    if name == "pow":
        return POSITIVE if bounds[0][0] >= 0 else EVERYTHING
    if name == "clamp":
        low, x, high = bounds
        return min(max(x[0], low[0]), high[0]), max(min(x[1], high[1]), low[1])
    if name == "select_n":
        return _select(eqn, known)
    if name in COMPARISONS:
        if eqn.inputs[0] is eqn.inputs[1]:  # x != x asks for NaN
            return (1.0, 1.0) if name in ("eq", "ge", "le") else (0.0, 0.0)
        return _compare(name, *bounds)
    if name in ("and", "or", "not", "xor") and eqn.out.dtype == bool:
        return UNIT
    if name == "iota":
        return 0.0, float(max(eqn.params["shape"][eqn.params["dimension"]] - 1, 0))
    if name in ("dynamic_slice", "gather"):
        return bounds[0]
    if name in SCATTER_WINNERS:
        return _hull([bounds[0], bounds[2]])
    if name in ("scatter", "dynamic_update_slice"):
        return _hull([bounds[0], bounds[2] if name == "scatter" else bounds[1]])
    if name in _KEEPS_RANGE:
        return _hull(bounds)
    if name in _KEEPS_SIGN:
        return POSITIVE if all(b[0] >= 0 for b in bounds) else EVERYTHING
    return EVERYTHING


_ROUNDS = 3  # then a bound of a carry that still moves is given up


def _control(eqn: Eqn, known: dict[Value, Interval], proven: Mapping[Value, Interval] | None):
    """Bounds inside bodies: of a carry, bounds that hold before and after every iteration."""
    outputs: dict[Value, list[Interval]] = {v: [] for v in eqn.outputs}
    for body in eqn.bodies:
        for outside, inside in control.operands(eqn, body):
            known[inside] = lookup(known, outside)
        back = control.feedback(eqn, body)
        for attempt in range(2 * _ROUNDS + 1):
            propagate(body.eqns, known, proven)
            moved = False
            for after, before in back:
                old, new = known[before], _hull([known[before], lookup(known, after)])
                if new != old:
                    moved = True
                    known[before] = new if attempt < _ROUNDS else _widened(old, new, attempt)
            if not moved:
                break
        for inside, outside in control.results(eqn, body):
            outputs[outside].append(lookup(known, inside))
        for (_, before), (_, outside) in zip(back, control.results(eqn, body), strict=False):
            outputs[outside].append(known[before])
    for value, found in outputs.items():
        known[value] = _hull(found)


def _widened(old: Interval, new: Interval, attempt: int) -> Interval:
    # 0 and 1 are the bounds that matter: they are tried before giving up.
    last = attempt >= 2 * _ROUNDS - 1
    low = new[0] if new[0] == old[0] else 0.0 if new[0] >= 0.0 and not last else -math.inf
    high = new[1] if new[1] == old[1] else 1.0 if new[1] <= 1.0 and not last else math.inf
    return low, high


def _plus(a: float, b: float, otherwise: float) -> float:
    total = a + b
    return otherwise if math.isnan(total) else total


def _integer_pow(a: Interval, power: int) -> Interval:
    if power < 0:
        return _inverse(_integer_pow(a, -power))
    if power % 2 == 0:
        return _even(lambda x: abs(x) ** power)(a)
    return _monotone(lambda x: x**power)(a)
