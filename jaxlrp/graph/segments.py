"""Sums over segments, and the gathers that read them back."""

from __future__ import annotations

from jax.lax import GatherScatterMode

from jaxlrp.graph.ir import Eqn, Value
from jaxlrp.graph.primitives import VIEWS


def reads_back(gather: Eqn, scatter: Eqn) -> bool:
    """Whether a gather reads along the axes along which a scatter adds.

    An index that is out of bounds is not added; one that is clamped reads another segment.
    """
    reads, adds = gather.params["dimension_numbers"], scatter.params["dimension_numbers"]
    return (
        gather.params["mode"] != GatherScatterMode.CLIP
        and reads.start_index_map == adds.scatter_dims_to_operand_dims
        and reads.collapsed_slice_dims == adds.inserted_window_dims
        and reads.offset_dims == adds.update_window_dims
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
