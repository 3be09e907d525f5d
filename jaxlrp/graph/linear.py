"""Linear layers: a core product with the scales and shifts around it, and pooling.

The core is a contraction or convolution with one active operand, or a sum over a window or over
whole axes. A chain of scales and shifts by static values, with a single consumer each, folds into
the core after it, or else into the core before it: biases, BatchNorm, layer scale, divisors. So
does a sum over devices behind a core: each device has a part of the layer's inputs and weights.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Set as AbstractSet

from jaxlrp.graph.groups import Affine, Group, Workbench
from jaxlrp.graph.ir import Eqn, Value
from jaxlrp.graph.primitives import (
    ADDITIONS,
    AFFINE,
    COPIES,
    DEVICE_SUMS,
    ELEMENTWISE,
    LINEAR_CORES,
    carrying,
    is_view,
)

_SUMS = frozenset({"reduce_window_sum", "reduce_sum"})
# Cores with one kernel, whose axes are known: scales fold into it.
_KERNELS = frozenset({"dot_general", "conv_general_dilated"})


def find(bench: Workbench) -> None:
    for eqn in bench.eqns:
        if bench.is_open(eqn):
            operand = core_operand(bench, eqn)
            if operand is not None:
                _claim_core(bench, eqn, operand)


def fold(bench: Workbench) -> None:
    """Fold the scales and shifts that come before a core and that no core before them took."""
    for group in bench.groups:
        if group.kind in ("dense", "conv") and group.affine is not None and not group.affine.pre:
            _fold_before(bench, group)


def core_operand(bench: Workbench, eqn: Eqn) -> int | None:
    """Position of the one active operand, if the equation can be the core of a linear layer."""
    if eqn.name not in LINEAR_CORES and eqn.name not in _SUMS:
        return None
    active = [i for i in carrying(eqn) if eqn.inputs[i] in bench.activity.active]
    return active[0] if len(active) == 1 else None


def _claim_core(bench: Workbench, eqn: Eqn, operand: int) -> Group:
    source = eqn.inputs[operand]
    if eqn.name in _SUMS:
        after = _divisors_after(bench, eqn.out)
        is_pool = bool(after) or eqn.name == "reduce_window_sum"
        kind = "avg_pool" if is_pool else "reduce"
    elif not any(bench.statics.parameters(v) for v in eqn.inputs if v is not source):
        # No parameter goes into the weights: interpolation, a fixed transform.
        kind, after = "structural", []
    else:
        after = absorb_affine_after(bench, eqn.out, sums=DEVICE_SUMS)
        kind = "conv" if eqn.name == "conv_general_dilated" else "dense"
    output = after[-1].out if after else eqn.out
    folds = eqn.name in _KERNELS and kind in ("dense", "conv")
    folds = folds and _folds(bench, after, eqn.out, output_features(eqn, operand))
    affine = Affine(eqn, operand, [], after, folds)
    return bench.claim(Group(kind, [eqn, *after], [source], [output], eqn, affine))


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

    Behind a sum over devices none folds: there it may be another one on each device.
    """
    summed = False
    for eqn in chain:
        summed = summed or eqn.name in DEVICE_SUMS
        if eqn.name in COPIES | ADDITIONS | DEVICE_SUMS | {"neg"}:
            continue
        if eqn.name not in ("mul", "div") or summed:
            return False
        scale = next(v for v in eqn.inputs if v not in bench.activity.active)
        if scale.ndim == start.ndim and not bench.statics.varying_axes(scale) <= features:
            return False
    return True


def affine_operand(bench: Workbench, eqn: Eqn) -> int | None:
    """Position of the active operand if the equation scales or shifts it by a static value."""
    if eqn.name not in AFFINE:
        return None
    active = [i for i, v in enumerate(eqn.inputs) if v in bench.activity.active]
    if len(active) != 1 or (eqn.name == "div" and active[0] == 1):
        return None
    if any(v in bench.activity.depends for i, v in enumerate(eqn.inputs) if i != active[0]):
        return None  # a gate, or a detached value, is no parameter
    if eqn.out.shape != eqn.inputs[active[0]].shape:
        return None  # the active operand is broadcast
    return active[0]


def is_literal(bench: Workbench, eqn: Eqn) -> bool:
    """A scale or shift by numbers that are written in the program, not learned."""
    static = [v for v in eqn.inputs if v not in bench.activity.depends]
    return eqn.name == "neg" or any(not bench.statics.parameters(v) for v in static)


def is_literal_shift(bench: Workbench, eqn: Eqn) -> bool:
    """A shift by numbers that are written in the program, not learned (and are not 0)."""
    if eqn.name not in ADDITIONS or not is_literal(bench, eqn):
        return False
    static = (v for v in eqn.inputs if v not in bench.activity.depends)
    return all(bench.intervals.constant(v) != 0.0 for v in static)


def is_negation(bench: Workbench, eqn: Eqn) -> bool:
    """A change of sign that is written in the program: it belongs to what reads it."""
    if eqn.name == "neg":
        return True
    if affine_operand(bench, eqn) is None or not is_literal(bench, eqn):
        return False
    (static,) = (v for v in eqn.inputs if v not in bench.activity.depends)
    if eqn.name == "sub":
        return bench.intervals.constant(static) == 0.0 and eqn.inputs[0] is static
    return eqn.name in ("mul", "div") and bench.intervals[static][1] < 0.0


def leads_into_nonlinearity(bench: Workbench, value: Value) -> bool:
    """Whether an elementwise equation that is not linear reads the value."""
    for eqn in bench.reached_uses(value):
        if eqn.name in COPIES or (affine_operand(bench, eqn) is not None):
            if leads_into_nonlinearity(bench, eqn.out):
                return True
        elif (eqn.name in ELEMENTWISE and eqn.name not in AFFINE) or (
            eqn.name in ("mul", "div") and eqn.inputs[0] is eqn.inputs[1]
        ):
            return True
    return False


def absorb_affine_after(
    bench: Workbench,
    start: Value,
    literal_shifts: bool = True,
    sums: AbstractSet[str] = frozenset(),
) -> list[Eqn]:
    """The chain of scales and shifts after a value; views count if an affine equation follows.

    `sums` are further equations that belong to the chain.
    """

    def belongs(eqn: Eqn) -> bool:
        if affine_operand(bench, eqn) is None:
            return eqn.name in sums
        if is_negation(bench, eqn):
            return False
        shift = is_literal_shift(bench, eqn)
        return not shift or (literal_shifts and not leads_into_nonlinearity(bench, eqn.out))

    return _chain_after(bench, start, belongs)


def _divisors_after(bench: Workbench, start: Value) -> list[Eqn]:
    """The static scales after a sum that make it a mean."""

    def divides(eqn: Eqn) -> bool:
        if eqn.name not in ("mul", "div") or affine_operand(bench, eqn) is None:
            return False
        static = (v for v in eqn.inputs if v not in bench.activity.active)
        return not any(bench.statics.parameters(v) for v in static)

    return _chain_after(bench, start, divides)


def _chain_after(bench: Workbench, start: Value, belongs: Callable[[Eqn], bool]) -> list[Eqn]:
    """Equations that belong to a chain after a value, and the views between them."""
    chain: list[Eqn] = []
    committed = 0
    value = start
    while (eqn := bench.sole_use(value)) is not None and bench.is_open(eqn):
        if len(eqn.outputs) != 1:
            break
        ours = belongs(eqn)
        if not ours and not is_view(eqn) and not is_negation(bench, eqn):
            break
        chain.append(eqn)
        committed = len(chain) if ours else committed
        value = eqn.out
    return chain[:committed]


def _fold_before(bench: Workbench, group: Group) -> None:
    """Fold the scales and shifts of the core's input into it."""
    assert group.affine is not None and group.affine.core is not None
    core, operand = group.affine.core, group.affine.operand
    value, chain, committed = core.inputs[operand], [], 0
    while (eqn := value.producer) is not None and bench.is_open(eqn):
        if bench.sole_use(value) is None or len(eqn.outputs) != 1:
            break
        position = affine_operand(bench, eqn)
        if position is not None:
            chain.append(eqn)
            committed = len(chain)
        elif is_view(eqn):
            position = 0
            chain.append(eqn)
        else:
            break
        value = eqn.inputs[position]
    before = chain[:committed][::-1]
    if not before or not _worth_folding(bench, before):
        return
    first = before[0]
    active = next(v for v in first.inputs if v in bench.activity.active)
    group.affine.pre = before
    group.affine.folds = group.affine.folds and _folds(
        bench, before, core.inputs[operand], input_features(core, operand)
    )
    group.eqns = before + group.eqns
    group.inputs = [active]
    for eqn in before:
        bench.claimed[eqn] = group


def _worth_folding(bench: Workbench, chain: list[Eqn]) -> bool:
    """Not the tail of an activation (0.5 * x * (1 + erf x) written with its scale last)."""
    first = chain[0]
    position = affine_operand(bench, first)
    assert position is not None
    maker = first.inputs[position].producer
    scales_by_number = all(
        e.name not in AFFINE
        or e.name == "neg"
        or any(bench.intervals.constant(v) is not None for v in e.inputs)
        for e in chain
    )
    nonlinear = maker is not None and maker.name in ELEMENTWISE and bench.is_open(maker)
    return not (scales_by_number and nonlinear)
