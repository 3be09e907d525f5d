"""Linear layers: a core product with the scales and shifts around it, and pooling.

The core is a contraction or convolution with one active operand, or a sum over a window or over
whole axes. A chain of scales and shifts by static values, with a single consumer each, folds into
the core after it, or else into the core before it: biases, BatchNorm, layer scale, divisors. A sum
over devices after a core folds too, as each device has a part of the layer's inputs and weights.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Set as AbstractSet

from jaxlrp.graph import linear_region, pools
from jaxlrp.graph.activity import is_inexact
from jaxlrp.graph.affine import (
    affine_operand,
    brings_zeros,
    is_move,
    is_written_scale,
    is_written_shift,
    leads_into_nonlinearity,
    static_operands,
)
from jaxlrp.graph.axes import unit_reshape
from jaxlrp.graph.groups import Group, Workbench
from jaxlrp.graph.ir import Eqn, Value
from jaxlrp.graph.particulars import Linear
from jaxlrp.graph.primitives import (
    ADDITIONS,
    AFFINE,
    COPIES,
    DEVICE_SUMS,
    ELEMENTWISE,
    LINEAR_CORES,
    carrying,
    is_view,
    sums_nothing,
)
from jaxlrp.graph.stacks import is_stack_sum
from jaxlrp.graph.written_numbers import NOTHING_WRITTEN, Written, factor_in, factor_of, falls

_SUMS = frozenset({"reduce_window_sum", "reduce_sum"})
_KEEP_AXES = frozenset("slice split concatenate pad rev".split())
# Cores with one kernel, whose axes are known: scales fold into it.
_KERNELS = frozenset({"dot_general", "conv_general_dilated"})


def find(bench: Workbench) -> None:
    """Contractions and convolutions."""
    _find(bench, LINEAR_CORES)


def find_sums(bench: Workbench) -> None:
    """Sums of weighted elements, and pools."""
    _find(bench, _SUMS)


def _find(bench: Workbench, names: AbstractSet[str]) -> None:
    for eqn in bench.eqns:
        if eqn.name in names and bench.is_open(eqn):
            operand = core_operand(bench, eqn)
            if operand is not None:
                _claim_core(bench, eqn, operand)


def fold(bench: Workbench) -> None:
    """Fold the scales and shifts that come before a core and that no core before them took.

    Several cores may fold the same ones. For any other reader they are a layer of their own.
    """
    for group in bench.groups:
        if group.kind in ("dense", "conv") and group.linear is not None:
            _fold_before(bench, group)
    holders: dict[Eqn, list[Group]] = {}
    for group in bench.groups:
        for eqn in group.eqns if group.linear is not None and group.linear.pre else ():
            holders.setdefault(eqn, []).append(group)
    shared = [eqn for eqn in holders if bench.free(eqn)]
    for eqn in sorted(shared, key=lambda e: -e.order):
        readers = [e for v in eqn.outputs for e in bench.reached_uses(v)]
        inside = all(
            reader in holders
            and not bench.free(reader)
            and all(eqn in group.eqns for group in holders[reader])
            for reader in readers
        )
        if inside and bench.ends.isdisjoint(eqn.outputs):
            bench.claimed[eqn] = holders[eqn][0]
    for eqn in filter(bench.free, shared):
        bench.ends.update(v for group in holders[eqn] for v in group.inputs)


def core_operand(bench: Workbench, eqn: Eqn) -> int | None:
    """Position of the one active operand, if the equation can be the core of a linear layer."""
    if (eqn.name not in LINEAR_CORES and eqn.name not in _SUMS) or sums_nothing(eqn):
        return None
    active = [i for i in carrying(eqn) if eqn.inputs[i] in bench.activity.active]
    return active[0] if len(active) == 1 and not is_stack_sum(bench, eqn) else None


def _claim_core(bench: Workbench, eqn: Eqn, operand: int) -> Group:
    source, main = eqn.inputs[operand], eqn
    before: list[Eqn] = []
    features: frozenset[int] = frozenset()
    if eqn.name in _SUMS:
        found = weighted(bench, eqn)
        if found is not None:  # a contraction, written as multiply and sum
            source, before, main = found
            features = _features_of_sum(bench, eqn, before, main)
            within = Written(tuple(factor_of(bench, e) for e in before), falls(bench, source))
            after = absorb_affine_after(bench, eqn.out, sums=DEVICE_SUMS, within=within)
            kind = "dense"
        else:
            source, before, after = pools.divisors(bench, eqn)
            is_pool = bool(before or after) or eqn.name == "reduce_window_sum"
            kind = "avg_pool" if is_pool else "reduce"
    elif not any(bench.statics.parameters(v) for v in eqn.inputs if v is not source):
        # The weights do not depend on parameters: interpolation, a fixed transform.
        kind, after = "structural", []
    else:
        within = _written_within(bench, eqn, operand)
        after = absorb_affine_after(bench, eqn.out, sums=DEVICE_SUMS, within=within)
        kind = "conv" if eqn.name == "conv_general_dilated" else "dense"
    output = _last(after, eqn.out)
    folds = eqn.name in _KERNELS and kind in ("dense", "conv")
    folds = folds and _folds(bench, after, eqn.out, output_features(eqn, operand))
    linear = Linear(eqn, operand, tuple(before), tuple(after), folds, features)
    return bench.claim(Group(kind, [*before, eqn, *after], [source], [output], main, linear))


def _written_within(bench: Workbench, core: Eqn, operand: int) -> Written:
    """The numbers that are written within a product, beside its weights and beside its input."""
    source, eqns = linear_region.before(bench, core, operand)
    if not linear_region.worth_folding(bench, eqns):
        source, eqns = core.inputs[operand], []
    source, eqns = linear_region.without_tail(bench, source, eqns)
    inner = (factor_of(bench, e) for e in eqns)
    weights = (v for i, v in enumerate(core.inputs) if i in carrying(core) and i != operand)
    return Written((*inner, *(factor_in(bench, v) for v in weights)), falls(bench, source))


def axes_at_sum(start: Value, axes: frozenset[int], eqns: list[Eqn]) -> frozenset[int] | None:
    """The places of a value's axes after some scales and moves, of which the last makes one value.

    Parts of the value may go different ways. None if axes were merged or cut up.
    """
    places = {start: axes}
    last = axes
    for eqn in eqns:
        read = [places[v] for v in eqn.inputs if v in places]
        if not read:
            continue  # of elements that the value does not reach
        found = _moved(frozenset().union(*read), eqn)
        if found is None:
            return None
        last = found
        places.update(dict.fromkeys(eqn.outputs, found))
    return last


def _moved(axes: frozenset[int], eqn: Eqn) -> frozenset[int] | None:
    if eqn.name == "transpose":
        return frozenset(i for i, p in enumerate(eqn.params["permutation"]) if p in axes)
    if eqn.name == "broadcast_in_dim":
        return frozenset(eqn.params["broadcast_dimensions"][i] for i in axes)
    if eqn.name in ("reshape", "squeeze", "expand_dims"):
        return _reshaped(axes, eqn)
    return axes if eqn.name in ELEMENTWISE | _KEEP_AXES else None


def _reshaped(axes: frozenset[int], eqn: Eqn) -> frozenset[int] | None:
    """The places of axes after a reshape that may merge them; None if one of them is cut up."""
    old, new = eqn.inputs[0].shape, eqn.out.shape
    places = unit_reshape(old, new)
    if places is not None:
        return frozenset(places[i] for i in axes if i in places)
    if eqn.name == "reshape" and eqn.params["dimensions"] is not None:
        return None
    found, start = set(), 0
    for axis, size in enumerate(new):
        merged, end = 1, start
        while end < len(old) and merged * old[end] <= size:
            merged *= old[end]
            end += 1
        if merged != size:  # cut up: no varying axis may come here or later
            return None if any(i >= start for i in axes) else frozenset(found)
        if not axes.isdisjoint(range(start, end)):
            found.add(axis)
        start = end
    return frozenset(found)


def _last(chain: list[Eqn], start: Value) -> Value:
    return chain[-1].out if chain else start


def weighted(bench: Workbench, total: Eqn) -> tuple[Value, list[Eqn], Eqn] | None:
    """The region before a sum over learned factors: its source, its equations, the product."""
    if total.name != "reduce_sum":
        return None
    source, eqns = linear_region.before(bench, total, 0, shared=False)
    source, eqns = linear_region.without_tail(bench, source, eqns)

    def is_kernel(eqn: Eqn) -> bool:
        if eqn.name not in ("mul", "div"):
            return False
        (static,) = static_operands(bench, eqn)
        if not any(is_inexact(p) for p in bench.statics.parameters(static)):
            return False
        summed = axes_at_sum(eqn.out, _varying_axes(bench, eqn), eqns[eqns.index(eqn) + 1 :])
        return summed is not None and not summed.isdisjoint(total.params["axes"])

    kernels = [e for e in eqns if is_kernel(e)]
    return (source, eqns, kernels[-1]) if kernels else None


def _features_of_sum(
    bench: Workbench, total: Eqn, before: list[Eqn], kernel: Eqn
) -> frozenset[int]:
    """Axes of a sum over weighted elements along which the weights vary."""
    summed = sorted(total.params["axes"])
    varying = _varying_axes(bench, kernel)
    after = before[before.index(kernel) + 1 :]
    axes = axes_at_sum(kernel.out, varying, after) or frozenset()
    return frozenset(i - sum(s < i for s in summed) for i in axes.difference(summed))


def _varying_axes(bench: Workbench, eqn: Eqn) -> frozenset[int]:
    """Axes along which the static factor of an equation varies."""
    (static,) = static_operands(bench, eqn)
    return bench.statics.varying_axes(static) if static.ndim == eqn.out.ndim else frozenset()


def output_features(core: Eqn, operand: int) -> frozenset[int]:
    """Axes of the core's output that its kernel has too."""
    if core.name == "conv_general_dilated":
        if operand != 0 or core.params["batch_group_count"] != 1:
            return frozenset()
        return frozenset({core.params["dimension_numbers"].out_spec[1]})
    if core.name not in _KERNELS:
        return frozenset()
    (lhs_contract, _), (lhs_batch, _) = core.params["dimension_numbers"]
    n_batch = len(lhs_batch)
    lhs_free = core.inputs[0].ndim - len(lhs_contract) - n_batch
    free = range(n_batch + lhs_free, core.out.ndim)
    if operand == 1:
        free = range(n_batch, n_batch + lhs_free)
    return frozenset(range(n_batch)) | frozenset(free)


def input_features(core: Eqn, operand: int) -> frozenset[int]:
    """Axes of the core's active operand that its kernel has too."""
    if core.name == "conv_general_dilated":
        if operand != 0 or core.params["batch_group_count"] != 1:
            return frozenset()
        return frozenset({core.params["dimension_numbers"].lhs_spec[1]})
    if core.name not in _KERNELS:
        return frozenset()
    contract, batch = core.params["dimension_numbers"]
    return frozenset(contract[operand]) | frozenset(batch[operand])


def _folds(bench: Workbench, chain: list[Eqn], start: Value, features: frozenset[int]) -> bool:
    """Whether all scales of a chain vary along feature axes alone, with no view in between.

    After a sum over devices no scale folds, as it may differ between devices.
    """
    summed = False
    for eqn in chain:
        summed = summed or eqn.name in DEVICE_SUMS
        if eqn.name in COPIES | ADDITIONS | DEVICE_SUMS | {"neg", "reordered"}:
            continue
        if eqn.name not in ("mul", "div") or summed:
            return False
        (scale,) = static_operands(bench, eqn)
        if scale.ndim == start.ndim and not bench.statics.varying_axes(scale) <= features:
            return False
    return True


def absorb_affine_after(
    bench: Workbench,
    start: Value,
    written_shifts: bool = True,
    sums: AbstractSet[str] | None = None,
    within: Written = NOTHING_WRITTEN,
) -> list[Eqn]:
    """The region of scales and shifts after a value; moves count if one of these follows.

    With `sums`, the value is the core of a linear layer: moves may be of any sort, and these
    further equations belong to the region.
    """

    def belongs(eqn: Eqn) -> bool:
        if affine_operand(bench, eqn) is None:
            return sums is not None and eqn.name in sums
        if is_written_scale(bench, eqn):
            return False
        shift = is_written_shift(bench, eqn)
        return not shift or (written_shifts and not leads_into_nonlinearity(bench, eqn.out))

    passes = is_view if sums is None else functools.partial(is_move, bench)
    return linear_region.after(bench, start, belongs, passes, within)


def _fold_before(bench: Workbench, group: Group) -> None:
    """Fold the scales, shifts and moves of the core's input into it."""
    linear = group.linear
    assert linear is not None and linear.core is not None
    core, operand = linear.core, linear.operand
    source, before = linear_region.before(bench, core, operand)
    if not linear_region.worth_folding(bench, before):
        source, before = _padding_before(bench, before)
    else:
        source, before = linear_region.without_tail(bench, source, before)
    if len(before) <= len(linear.pre):
        return  # a sum over weighted elements has its region already
    folds = linear.folds and _folds(
        bench, before, core.inputs[operand], input_features(core, operand)
    )
    assert source is not None
    group.eqns = [e for e in before if e not in linear.pre] + group.eqns
    group.particulars = dataclasses.replace(linear, pre=tuple(before), folds=folds)
    group.inputs = [source]
    group.detached = bench.activity.held_in(group.eqns)


def _padding_before(bench: Workbench, region: list[Eqn]) -> tuple[Value | None, list[Eqn]]:
    """The end of a region that only brings zeros, without scales, and the value it begins at."""
    last = max((i for i, e in enumerate(region) if e.name in AFFINE), default=-1)
    moves = region[last + 1 :]
    made = {v for e in moves for v in e.outputs}
    sources = {v for e in moves for v in bench.activity.active_inputs(e)} - made
    if len(sources) != 1 or not any(brings_zeros(bench, e) for e in moves):
        return None, []
    return sources.pop(), moves
