"""Sums over segments, and the gathers that read them back."""

from __future__ import annotations

from jax.lax import GatherScatterMode

from jaxlrp.graph.intervals import Intervals
from jaxlrp.graph.ir import Eqn, Value
from jaxlrp.graph.primitives import VIEWS
from jaxlrp.graph.refine import holds_exactly

# Moves that leave a value as it is, if its shape or size stays.
OF_SHAPE = frozenset("broadcast_in_dim reshape squeeze expand_dims".split())


def reads_back(gather: Eqn, scatter: Eqn) -> bool:
    """Whether a gather reads along the axes along which a scatter adds."""
    reads, adds = gather.params["dimension_numbers"], scatter.params["dimension_numbers"]
    return (
        reads.start_index_map == adds.scatter_dims_to_operand_dims
        and reads.collapsed_slice_dims == adds.inserted_window_dims
        and reads.offset_dims == adds.update_window_dims
        and reads.operand_batching_dims == adds.operand_batching_dims
        and reads.start_indices_batching_dims == adds.scatter_indices_batching_dims
    )


def unwrapped(indices: Value) -> Value:
    """Indices before they were reshaped, cast, or wrapped if negative."""
    while (eqn := indices.producer) is not None:
        if eqn.name == "select_n" and len(eqn.inputs) == 3:
            kept, counted = eqn.inputs[1], eqn.inputs[2].producer
            if counted is None or counted.name != "add" or kept not in counted.inputs:
                break
            indices = kept
        elif eqn.name in VIEWS | {"broadcast_in_dim", "convert_element_type"}:
            indices = eqn.inputs[0]
        else:
            break
    return indices


def reads_own(bounds: Intervals, gather: Eqn, scatter: Eqn) -> bool:
    """Whether a gather certainly reads the sums to which a scatter adds, element by element.

    An index that is out of bounds is not added, and reads another segment unless the gather fills
    in NaN; a negative one may be wrapped on one side alone.
    """
    read, added = _ordered(bounds, gather.inputs[1]), _ordered(bounds, scatter.inputs[1])
    sizes = zip(scatter.out.shape, gather.params["slice_sizes"], strict=True)
    ends = [whole - part for whole, part in sizes]  # the last place where a window fits
    axes = scatter.params["dimension_numbers"].scatter_dims_to_operand_dims
    last = min((ends[axis] for axis in axes), default=0)
    low, high = bounds[gather.inputs[1]]
    number = gather.params["fill_value"]
    fills = gather.params["mode"] == GatherScatterMode.FILL_OR_DROP
    fills = fills and (number is None or number != number)  # None is NaN too
    return read is added and (fills or (low >= 0 and high <= last))


def _ordered(bounds: Intervals, indices: Value) -> Value:
    """Indices before what keeps their numbers and their order."""
    while (eqn := indices.producer) is not None:
        before = eqn.inputs[0]
        if eqn.name == "select_n":
            if len(eqn.inputs) != 3 or not _is_wrap(bounds, eqn):
                break
            before = eqn.inputs[1]
        elif eqn.name == "convert_element_type":
            if not holds_exactly(before.dtype, eqn.out.dtype):
                break
        elif eqn.name not in OF_SHAPE | {"copy", "copy_p"} or before.size != eqn.out.size:
            break
        indices = before
    return indices


def _is_wrap(bounds: Intervals, eqn: Eqn) -> bool:
    """Whether a select keeps indices that are not negative, as none is."""
    test, kept = eqn.inputs[0].producer, eqn.inputs[1]
    if test is None or test.name != "lt" or test.inputs[0] is not kept:
        return False
    return bounds.constant(test.inputs[1]) == 0.0 and bounds[kept][0] >= 0
