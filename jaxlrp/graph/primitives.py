"""The meaning of JAX's primitives, as far as recognition needs it: one table, a row for each.

The sets of names by which recognisers ask (`MOVES`, `ELEMENTWISE`, ...) are views of the table,
so that a primitive that a user registers is in them at once.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from jaxlrp.graph import layout, ranges, refine, spreads
from jaxlrp.graph.families import TABLE, Family, Row, put, row
from jaxlrp.graph.ir import Eqn

# Each output element is one input element, a constant, or nothing, so relevance only moves.
MOVES = Family("move")
# Views that change the shape of a value but neither select nor repeat its elements.
VIEWS = Family("view")
# One value passes through unchanged.
COPIES = Family("copy")
# Linear maps with fixed coefficients; relevance follows their transpose.
FIXED_LINEAR = Family("linear")
# Sums over devices; before them a device holds a part of a sum.
DEVICE_SUMS = Family("device sum")
# These change the placement of a value, or the devices on which it is known to be the same.
DEVICE_MOVES = Family("device move")
UNARY = Family("unary")
BINARY = Family("binary")
ELEMENTWISE = Family("unary", "binary", "choice", "copy")
COMPARISONS = Family("comparison")
AFFINE = Family("affine")
ADDITIONS = Family("addition")
# The largest (or smallest) of several elements: relevance goes to the winner.
REDUCE_WINNERS = Family("reduce winner")
WINDOW_WINNERS = Family("window winner")
RUNNING_WINNERS = Family("running winner")
SCATTER_WINNERS = Family("scatter winner")
# Operand, indices, updates: the updates are put at the positions given by the indices.
SCATTERS = Family("scatter")
SORTS = Family("sort")
REDUCTIONS = Family("reduction")
# A value drawn at random counts as a parameter.
RANDOM = Family("random")
# The primitives among these that draw numbers; the others make and split keys.
RANDOM_NUMBERS = Family("random numbers")
# Linear in each of two operands: with one of them static, the core of a linear layer.
LINEAR_CORES = Family("core")
# Applied to integers that carry a value, these keep the bits, not the value.
BITS = Family("bits")


def _rows(names: str, *families: str, **facts: Any) -> None:
    for name in names.split():
        before = row(name)
        both = before.families | frozenset(families)
        put(name, dataclasses.replace(before, families=both, **facts))


_AFTER_FIRST, _AFTER_SECOND = range(1, 1 << 16), range(2, 1 << 16)
_FLAT = {"layout": layout.elementwise}

# -- moves ---------------------------------------------------------------------------------------

_rows("reshape", "move", "view", bounds=spreads.first, layout=layout.reshaped)
_rows("squeeze expand_dims", "move", "view", bounds=spreads.first, layout=layout.reshaped)
_rows("transpose", "move", "view", bounds=spreads.first, layout=layout.transposed)
_rows("broadcast_in_dim", "move", bounds=spreads.first, layout=layout.broadcast)
_rows("broadcast tile", "move", bounds=spreads.kept)
_rows("copy copy_p convert_element_type", "move", "view", "copy", bounds=spreads.first, **_FLAT)
_rows("convert_element_type", bounds=ranges.cast, ulps=ranges.ROUNDED)
_rows("reduce_precision", "move", "copy", bounds=ranges.reduced_precision, **_FLAT)
_rows(
    """name optimization_barrier sharding_constraint device_put mesh_cast reshard
    layout_constraint""",
    "move",
    "copy",
    bounds=spreads.one_by_one,
    pairs=True,
    **_FLAT,
)
_rows("pvary pcast", "move", "copy", "device move", bounds=spreads.one_by_one, pairs=True, **_FLAT)
_rows("vary_unreduced_cast", "move", bounds=spreads.one_by_one, pairs=True, **_FLAT)
_rows("slice", "move", bounds=spreads.first, layout=layout.selected, parts=True)
_rows("rev", "move", bounds=spreads.first, layout=layout.elementwise, parts=True)
_rows("split", "move", bounds=spreads.first, layout=layout.moving_along("axis"), parts=True)
_rows(
    "concatenate",
    "move",
    bounds=spreads.kept,
    layout=layout.moving_along("dimension"),
    parts=True,
)
_rows("pad", "move", bounds=spreads.kept, layout=layout.padded, parts=True)
_rows(
    "dynamic_slice",
    "move",
    bounds=spreads.first,
    layout=layout.selected,
    chooses=_AFTER_FIRST,
    parts=True,
)
_rows(
    "dynamic_update_slice",
    "move",
    bounds=spreads.with_updates(1),
    layout=layout.updated,
    chooses=_AFTER_SECOND,
)
_rows(
    "gather",
    "move",
    bounds=spreads.gathered,
    layout=layout.gathered,
    chooses=_AFTER_FIRST,
    parts=True,
)
_rows("scatter", "move", "scatter", bounds=spreads.with_updates(2), chooses={1})
_rows("stop_gradient", bounds=spreads.first, **_FLAT)
# Relevance follows the first operand; the value is the second one: `graph/reordered_value.py`.
_rows("reordered", bounds=ranges.of(lambda ordered, own: own), chooses={1}, **_FLAT)

# -- element by element --------------------------------------------------------------------------

_rows(
    """abs acos acosh asin asinh atan atanh bessel_i0e bessel_i1e cbrt ceil cos cosh digamma
    erf erf_inv erfc exp exp2 expm1 floor integer_pow is_finite lgamma log log1p logistic neg not
    round rsqrt sign sin sinh sqrt square tan tanh""",
    "unary",
    **_FLAT,
)
_rows(
    """add add_any sub mul div rem max min pow atan2 nextafter
    eq ne gt ge lt le and or xor""",
    "binary",
    **_FLAT,
)
_rows("select_n", "choice", bounds=refine.select, chooses={0}, **_FLAT)
_rows("clamp", "choice", bounds=ranges.of(ranges.clamped), **_FLAT)
_rows("eq ne gt ge lt le", "comparison", bounds=ranges.comparison, chooses={0, 1})
_rows("add add_any", "affine", "addition", bounds=ranges.of(ranges.plus), ulps=ranges.ROUNDED)
_rows(
    "sub",
    "affine",
    "addition",
    bounds=ranges.of(lambda a, b: ranges.plus(a, ranges.negative(b))),
    ulps=ranges.ROUNDED,
)
_rows("neg", "affine", bounds=ranges.of(ranges.negative))
_rows("mul", "affine", bounds=ranges.times, ulps=ranges.ROUNDED)
_rows("div", "affine", bounds=ranges.quotient, ulps=ranges.ROUNDED)
_rows("rem", bounds=ranges.remainder)
_rows("max", bounds=ranges.of(lambda a, b: (max(a[0], b[0]), max(a[1], b[1]))))
_rows("min", bounds=ranges.of(lambda a, b: (min(a[0], b[0]), min(a[1], b[1]))))
_rows("abs", bounds=ranges.magnitude)
_rows("square", bounds=ranges.of(ranges.even(lambda x: x * x)), ulps=ranges.ROUNDED)
_rows("sign", bounds=ranges.of(ranges.monotone(lambda x: float((x > 0) - (x < 0)))))
_rows("floor", bounds=ranges.to_whole(math.floor))
_rows("ceil", bounds=ranges.to_whole(math.ceil))
_rows("round", bounds=ranges.rounded)
_rows("sqrt", bounds=ranges.of(ranges.monotone(math.sqrt, ranges.POSITIVE)), ulps=2.0)
_rows("and or xor not", "bits")
_rows(
    """shift_left shift_right_logical shift_right_arithmetic population_count clz
    bitcast_convert_type""",
    "bits",
    **_FLAT,
)

_FUNCTIONS: dict[str, Callable[..., ranges.Interval]] = {
    "exp": ranges.monotone(ranges.exp),
    "exp2": ranges.monotone(lambda x: 2.0**x if x < 1000.0 else math.inf),
    "expm1": ranges.monotone(math.expm1),
    "log": ranges.monotone(ranges.log, ranges.POSITIVE),
    "log1p": ranges.monotone(lambda x: -math.inf if x <= -1.0 else math.log1p(x), (-1.0, math.inf)),
    "tanh": ranges.monotone(math.tanh),
    "logistic": ranges.monotone(ranges.logistic),
    "erf": ranges.monotone(math.erf),
    "erfc": ranges.monotone(lambda x: math.erfc(x) if x < 3.0 else 0.0),
    "cbrt": ranges.monotone(ranges.cbrt),
    "rsqrt": ranges.rsqrt,
    "atan": ranges.monotone(math.atan),
    "asinh": ranges.monotone(math.asinh),
    "sinh": ranges.monotone(math.sinh),
    "cosh": lambda a: (1.0, math.inf),
    "acos": lambda a: (0.0, math.pi),
    "acosh": lambda a: ranges.POSITIVE,
    "atan2": ranges.angle,
}
for _name, _function in _FUNCTIONS.items():
    _rows(_name, bounds=ranges.of(_function), ulps=ranges.APPROXIMATE)
_rows("sin", bounds=ranges.wave(math.sin), ulps=ranges.APPROXIMATE)
_rows("cos", bounds=ranges.wave(math.cos), ulps=ranges.APPROXIMATE)
_rows("pow", bounds=ranges.power, ulps=ranges.APPROXIMATE)
_rows("integer_pow", bounds=ranges.integer_power, ulps=ranges.APPROXIMATE)

# -- linear maps ---------------------------------------------------------------------------------

_rows("dot_general", "core", bounds=spreads.sums(spreads.contracted, (0, 1)))
_rows("dot_general", layout=layout.contracted)
_rows("conv_general_dilated", "core", bounds=spreads.sums(spreads.of_kernel, (0, 1)))
_rows("conv_general_dilated", layout=layout.convolved)
_rows("ragged_dot_general", "core", bounds=spreads.keeps_sign, chooses={2})
_rows("cumsum", "linear", bounds=spreads.sums(spreads.along_axis))
_rows("cumsum", layout=layout.moving_along("axis"))
_rows("reduce_sum", "linear", "reduction", bounds=spreads.sums(spreads.over_axes))
_rows("reduce_sum", layout=layout.reduced)
_rows("reduce_window_sum", "linear", "reduction", bounds=spreads.sums(spreads.in_window))
_rows("reduce_window_sum", layout=layout.windows)
_rows("scatter-add scatter_add", "linear", "scatter", bounds=spreads.scattered_sum, chooses={1})
_rows("fft complex conj triangular_solve custom_linear_solve", "linear")
_rows("real imag complex conj", "linear", **_FLAT)
_rows("psum psum_invariant", "linear", "device sum", bounds=spreads.sums(spreads.unknown_count))
_rows("psum psum_invariant", **_FLAT)
_rows("reduce_scatter", "linear", "device sum", bounds=spreads.sums(spreads.unknown_count))
_rows("unreduced_psum unreduced_reduce_scatter", "linear")
_rows(
    "all_gather all_gather_invariant all_gather_reduced ppermute all_to_all",
    "linear",
    bounds=spreads.first,
)
_rows("select_and_scatter_add", "linear", bounds=spreads.keeps_sign)
_rows("select_and_gather_add", "linear", bounds=spreads.first)

# -- winners, orders, counts ---------------------------------------------------------------------

_INF = math.inf
_rows("reduce_max", "reduce winner", "reduction", bounds=spreads.reduced_winner(-_INF))
_rows("reduce_min", "reduce winner", "reduction", bounds=spreads.reduced_winner(_INF))
_rows("reduce_max reduce_min", layout=layout.reduced)
_rows("reduce_window_max", "window winner", bounds=spreads.window_winner(-_INF))
_rows("reduce_window_min", "window winner", bounds=spreads.window_winner(_INF))
_rows("reduce_window_max reduce_window_min", layout=layout.windows)
_rows("cummax cummin", "running winner", bounds=spreads.first, layout=layout.elementwise)
_rows(
    "scatter-max scatter-min scatter_max scatter_min",
    "scatter winner",
    bounds=spreads.with_updates(2),
    chooses={1},
)
_rows("pmax pmin", bounds=spreads.first, **_FLAT)
_rows(
    "sort",
    "sort",
    bounds=spreads.one_by_one,
    layout=layout.elementwise,
    pairs=True,
    parts=True,
)
_rows(
    "top_k",
    "sort",
    bounds=spreads.best_of("axis"),
    layout=layout.moving_along("axis"),
    choices={1},
    parts=True,
)
_rows(
    "approx_top_k",
    "sort",
    bounds=spreads.best_of("reduction_dimension"),
    layout=layout.moving_along("reduction_dimension"),
    choices={1},
    parts=True,
)
_rows("argmax argmin", bounds=spreads.position_in("axes"), layout=layout.reduced, choices={0})
_rows("reduce_and reduce_or reduce_xor", layout=layout.reduced)
_rows("iota", bounds=spreads.counted, layout=layout.counted)
_rows("reduce_prod", bounds=spreads.products(), ulps=ranges.ROUNDED, layout=layout.reduced)
_rows("cumprod", bounds=spreads.products(), ulps=ranges.ROUNDED)
_rows("cumprod cumlogsumexp", layout=layout.moving_along("axis"))
_rows(
    "scatter-mul scatter_mul",
    "scatter",
    bounds=spreads.products((0, 2)),
    ulps=ranges.ROUNDED,
    chooses={1},
)
_rows("lu", choices={1, 2})
_rows(
    """random_bits random_seed random_wrap random_unwrap random_split random_fold_in random_gamma
    threefry2x32 rng_bit_generator rng_uniform""",
    "random",
)
_rows(
    "random_bits random_gamma threefry2x32 rng_bit_generator rng_uniform",
    "random numbers",
)


def rounds(eqn: Eqn) -> bool:
    """Whether an equation is a cast to a type that cannot represent the number."""
    if eqn.name == "convert_element_type":
        return not refine.holds_exactly(eqn.inputs[0].dtype, eqn.out.dtype)
    return eqn.name == "reduce_precision"


def makes_integers(eqn: Eqn) -> bool:
    """Whether an equation is a cast that cuts off fractions."""
    return rounds(eqn) and jnp.issubdtype(eqn.out.dtype, jnp.integer)


def is_view(eqn: Eqn) -> bool:
    """Whether an equation changes the shape of a value, but neither selects nor repeats."""
    if makes_integers(eqn):
        return False
    if eqn.name == "broadcast_in_dim":
        return eqn.out.size == eqn.inputs[0].size
    return eqn.name in VIEWS or eqn.name in COPIES


def sums_nothing(eqn: Eqn) -> bool:
    """Whether an equation sums over axes of size 1. For norms and softmaxes it is still a sum."""
    return eqn.name == "reduce_sum" and 0 < eqn.out.size == eqn.inputs[0].size


def carrying(eqn: Eqn) -> list[int]:
    """Positions of the operands whose values an equation carries on."""
    chooses = row(eqn.name).chooses
    if not chooses:
        return list(range(len(eqn.inputs)))
    return [i for i in range(len(eqn.inputs)) if i not in chooses]


_changed: list[str] = []


def changes() -> int:
    """How often a row was changed, which makes earlier plans out of date."""
    return len(_changed)


def enter(name: str, meaning: Row) -> None:
    """Give a primitive another row."""
    put(name, meaning)
    _changed.append(name)


def is_known(name: str) -> bool:
    return name in TABLE
