"""Arithmetic of bounds: those of a primitive's output, given those of its operands.

A transfer function takes an equation and `look`, which returns the bounds of a value, and returns
bounds of the exact result: one pair, or a list with one for each output. `settled` then returns
bounds in the type of the output, where numbers are rounded, overflow, or wrap around. NaN, and the
results of a division by zero, are not considered.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxlrp.graph.ir import Eqn, Value

Interval = tuple[float, float]
Look = Callable[[Value], Interval]
Transfer = Callable[[Eqn, Look], "Interval | list[Interval]"]

EVERYTHING: Interval = (-math.inf, math.inf)
UNIT: Interval = (0.0, 1.0)
POSITIVE: Interval = (0.0, math.inf)
NEGATIVE: Interval = (-math.inf, 0.0)
SIGNED_UNIT: Interval = (-1.0, 1.0)
_EXACT_IN_FLOAT64 = 2.0**53
# Units in the last place by which a result may be off: of arithmetic, of functions.
ROUNDED, APPROXIMATE = 1.0, 16.0


@functools.cache
def whole(dtype: Any) -> Interval:
    """Bounds of all numbers of a type."""
    if _is_bool(dtype):
        return UNIT
    try:
        info = jnp.iinfo(dtype)
    except (ValueError, TypeError):
        return EVERYTHING
    return float(info.min), float(info.max)


def _is_bool(dtype: Any) -> bool:
    return np.dtype(bool) == dtype


@functools.cache
def _is_complex(dtype: Any) -> bool:
    return bool(jnp.issubdtype(dtype, jnp.complexfloating))


@functools.cache
def float_info(dtype: Any) -> tuple[float, float, float] | None:
    """Distance from 1 to the next number, smallest normal, and largest number of a type."""
    try:
        info = jnp.finfo(dtype)
    except (ValueError, TypeError):
        return None
    return float(info.eps), float(info.tiny), float(info.max)


def of_number(val: Any, dtype: Any) -> Interval:
    """Bounds of a number that is written in the program, as its type holds it."""
    if _is_complex(dtype):
        return EVERYTHING
    try:
        with np.errstate(over="ignore"):
            number = float(np.asarray(val).astype(dtype))
        exact = not jnp.issubdtype(dtype, jnp.integer) or abs(number) <= _EXACT_IN_FLOAT64
    except (TypeError, ValueError):
        return EVERYTHING
    return (number, number) if exact and not math.isnan(number) else whole(dtype)


def settled(bounds: Interval, dtype: Any, ulps: float) -> Interval:
    """Bounds of a result in a type, given bounds of the exact result.

    Integers wrap around when they do not fit. Floats were rounded: by at most `ulps` units in the
    last place, to infinity above the largest number, and to 0 below the smallest normal one.
    """
    low, high = bounds
    if math.isnan(low) or math.isnan(high) or _is_complex(dtype):
        return whole(dtype)
    info = float_info(dtype)
    if info is None:
        least, most = whole(dtype)
        fits = least <= low and high <= most
        exact = max(abs(low), abs(high)) <= _EXACT_IN_FLOAT64 or _is_bool(dtype)
        return bounds if fits and exact else (least, most)
    eps, tiny, largest = info
    if ulps:
        low, high = _rounded_down(low, dtype, ulps * eps), -_rounded_down(-high, dtype, ulps * eps)
    if 0.0 < low < tiny or -tiny < low < 0.0:
        low = 0.0 if low > 0.0 else -tiny
    if 0.0 < high < tiny or -tiny < high < 0.0:
        high = 0.0 if high < 0.0 else tiny
    low = -math.inf if low < -largest else min(low, largest)
    high = math.inf if high > largest else max(high, -largest)
    return low, high


def _rounded_down(x: float, dtype: Any, share: float) -> float:
    """The smallest number that a result of at least `x` can be rounded to.

    Rounding keeps order: a result that is at least some number of the type stays at least that
    number. Functions that are approximated (those with a larger `share`) are assumed not to cross 0
    and 1.
    """
    if x in (-1.0, 0.0, 1.0) or math.isinf(x):
        return x
    with np.errstate(over="ignore"):
        held = float(np.asarray(x, dtype)) == x
    if held and share < APPROXIMATE * float(jnp.finfo(dtype).eps):
        return x
    return _lower(x, share)


def _lower(x: float, share: float) -> float:
    return x if math.isinf(x) else x - abs(x) * share


def hull(intervals: Iterable[Interval]) -> Interval:
    lows, highs = zip(*intervals, strict=True)
    return min(lows), max(highs)


def meet(a: Interval, b: Interval) -> Interval | None:
    """The intersection of both; None if it is empty."""
    low, high = max(a[0], b[0]), min(a[1], b[1])
    return (low, high) if low <= high else None


# -- of operands alone ---------------------------------------------------------------------------


def of(function: Callable[..., Interval]) -> Transfer:
    """A transfer function that reads only the bounds of the operands."""
    return lambda eqn, look: function(*(look(v) for v in eqn.inputs))


def always(bounds: Interval) -> Transfer:
    return lambda eqn, look: bounds


def _times(a: float, b: float) -> float:
    return 0.0 if a == 0.0 or b == 0.0 else a * b


def plus(a: Interval, b: Interval) -> Interval:
    low, high = a[0] + b[0], a[1] + b[1]
    return -math.inf if math.isnan(low) else low, math.inf if math.isnan(high) else high


def negative(a: Interval) -> Interval:
    return -a[1], -a[0]


def product(a: Interval, b: Interval) -> Interval:
    products = [_times(x, y) for x in a for y in b]
    return min(products), max(products)


def _inverse(a: Interval) -> Interval:
    low, high = a
    if low > 0 or high < 0:
        return 1.0 / high, 1.0 / low
    if low == 0.0:
        return (1.0 / high if high > 0 else 0.0), math.inf
    return EVERYTHING


def monotone(f: Callable[[float], float], domain: Interval = EVERYTHING):
    def image(a: Interval) -> Interval:
        ends = []
        for x in a:
            try:
                ends.append(f(min(max(x, domain[0]), domain[1])))
            except OverflowError:
                ends.append(math.copysign(math.inf, x))
            except (ValueError, ZeroDivisionError):
                return EVERYTHING
        return min(ends), max(ends)

    return image


def even(f: Callable[[float], float]):
    """f(x) = f(-x), growing with |x|, and 0 at 0."""

    def image(a: Interval) -> Interval:
        low, high = monotone(f)((min(map(abs, a)), max(map(abs, a))))
        return (0.0 if a[0] <= 0.0 <= a[1] else low), high

    return image


def exp(x: float) -> float:
    return math.inf if x > 709.0 else math.exp(x)


def logistic(x: float) -> float:
    return 1.0 / (1.0 + exp(-x)) if x > -700.0 else 0.0


def log(x: float) -> float:
    return -math.inf if x <= 0.0 else math.log(x)


def cbrt(x: float) -> float:
    return math.copysign(abs(x) ** (1.0 / 3.0), x)


def to_whole(f: Callable[[float], float]) -> Transfer:
    return of(monotone(lambda x: x if math.isinf(x) else float(f(x))))


def rounded(eqn: Eqn, look: Look) -> Interval:
    away = int(eqn.params["rounding_method"]) == 0

    def nearest(x: float) -> float:
        if math.isinf(x):
            return x
        whole_part = math.trunc(x)
        if away and abs(x - whole_part) >= 0.5:
            return float(whole_part + math.copysign(1.0, x))
        return float(whole_part if away else round(x))

    return monotone(nearest)(look(eqn.inputs[0]))


def rsqrt(a: Interval) -> Interval:
    return _inverse(monotone(math.sqrt, POSITIVE)(a)) if a[0] >= 0 else POSITIVE


def wave(f: Callable[[float], float]) -> Transfer:
    """sine and cosine."""
    return of(lambda a: (f(a[0]), f(a[0])) if a[0] == a[1] and math.isfinite(a[0]) else SIGNED_UNIT)


def magnitude(eqn: Eqn, look: Look) -> Interval:
    if _is_complex(eqn.inputs[0].dtype):
        return POSITIVE
    return even(abs)(look(eqn.inputs[0]))


def times(eqn: Eqn, look: Look) -> Interval:
    a, b = eqn.inputs
    return even(lambda x: _times(x, x))(look(a)) if a is b else product(look(a), look(b))


def _is_a_term(value: Value, total: Value, look: Look) -> bool:
    """Whether a value that is not negative is added to another such value: e / (e + 1)."""
    maker = total.producer
    if maker is None or maker.name != "add" or not any(v is value for v in maker.inputs):
        return False
    return all(look(v)[0] >= 0.0 for v in maker.inputs)


def quotient(eqn: Eqn, look: Look) -> Interval:
    a, b = (look(v) for v in eqn.inputs)
    if float_info(eqn.out.dtype) is not None:
        found = product(a, _inverse(b))
        part = a[0] >= 0.0 and _is_a_term(eqn.inputs[0], eqn.inputs[1], look)
        return found if not part else meet(found, UNIT) or UNIT
    if b[0] <= 0.0 <= b[1]:
        return whole(eqn.out.dtype)
    low, high = product(a, _inverse(b))
    return float(math.floor(low)), float(math.ceil(high))


def remainder(eqn: Eqn, look: Look) -> Interval:
    """It has the sign of the dividend and is smaller than the divisor."""
    a, b = (look(v) for v in eqn.inputs)
    most = max(map(abs, a))
    if float_info(eqn.out.dtype) is not None or not b[0] <= 0.0 <= b[1]:
        most = min(most, max(map(abs, b)))
    return (0.0 if a[0] >= 0 else -most), (0.0 if a[1] <= 0 else most)


def integer_power(eqn: Eqn, look: Look) -> Interval:
    return _integer_power(look(eqn.inputs[0]), eqn.params["y"])


def _integer_power(a: Interval, power: int) -> Interval:
    if power < 0:
        return _inverse(_integer_power(a, -power))
    if power % 2 == 0:
        return even(lambda x: x**power)(a) if power else (1.0, 1.0)
    return monotone(lambda x: x**power)(a)


def power(eqn: Eqn, look: Look) -> Interval:
    base, exponent = (look(v) for v in eqn.inputs)
    if base[0] < 0:
        return EVERYTHING
    return UNIT if base[1] <= 1.0 and exponent[0] >= 0.0 else POSITIVE


def clamped(low: Interval, x: Interval, high: Interval) -> Interval:
    ends = (min(max(x[i], low[i]), high[i]) for i in (0, 1))
    first, last = ends
    return first, last


def angle(y: Interval, x: Interval) -> Interval:
    del x
    return (0.0 if y[0] >= 0 else -math.pi), (0.0 if y[1] < 0 else math.pi)


def compared(name: str, a: Interval, b: Interval) -> Interval:
    if name in ("lt", "le"):
        return compared({"lt": "gt", "le": "ge"}[name], b, a)
    if name == "gt":
        return float(a[0] > b[1]), float(a[1] > b[0])
    if name == "ge":
        return float(a[0] >= b[1]), float(a[1] >= b[0])
    apart = meet(a, b) is None
    same = a == b and a[0] == a[1]
    is_eq = (float(same), float(not apart))
    return is_eq if name == "eq" else (1.0 - is_eq[1], 1.0 - is_eq[0])


def comparison(eqn: Eqn, look: Look) -> Interval:
    a, b = eqn.inputs
    if a is b:  # x != x tests for NaN
        return (1.0, 1.0) if eqn.name in ("eq", "ge", "le") else (0.0, 0.0)
    if _is_complex(a.dtype):
        return UNIT
    return compared(eqn.name, look(a), look(b))


def cast(eqn: Eqn, look: Look) -> Interval:
    """A cast: to integers it cuts off the fraction, to bool it compares with 0."""
    low, high = look(eqn.inputs[0])
    old, new = eqn.inputs[0].dtype, eqn.out.dtype
    if _is_complex(old):
        return whole(new)
    if _is_bool(new):
        return (1.0, 1.0) if low > 0 or high < 0 else (0.0, 0.0) if low == high else UNIT
    if jnp.issubdtype(new, jnp.integer) and not (math.isinf(low) or math.isinf(high)):
        return float(math.trunc(low)), float(math.trunc(high))
    return low, high


def reduced_precision(eqn: Eqn, look: Look) -> Interval:
    exponent, mantissa = eqn.params["exponent_bits"], eqn.params["mantissa_bits"]
    share, largest = 2.0**-mantissa, 2.0 ** min(2 ** (exponent - 1) - 1, 1023)
    tiny = 2.0 ** max(2 - 2 ** (exponent - 1), -1074)
    low, high = look(eqn.inputs[0])
    low, high = _lower(low, share), -_lower(-high, share)
    low = -math.inf if low <= -largest else 0.0 if 0.0 < low <= tiny else low
    high = math.inf if high >= largest else 0.0 if -tiny <= high < 0.0 else high
    return low, high
