"""Properties of a linear layer besides its maps: its bias, its features, constant inputs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxlrp.graph import moving
from jaxlrp.graph.axes import unit_reshape
from jaxlrp.graph.groups import Group
from jaxlrp.graph.ir import Eqn, Literal, Value
from jaxlrp.graph.linear import input_features, output_features
from jaxlrp.graph.particulars import Norm
from jaxlrp.graph.primitives import (
    ADDITIONS,
    COPIES,
    DEVICE_MOVES,
    DEVICE_SUMS,
    LINEAR_CORES,
    MOVES,
    carrying,
)
from jaxlrp.run import evaluate
from jaxlrp.run.evaluate import Env

_SCALES = frozenset({"mul", "div", "neg"})
_BRINGERS = MOVES | {"select_n"}
_PLAIN_MOVES = moving.BY_PARAMETERS - {"pad"}
_KERNELS = frozenset({"dot_general", "conv_general_dilated"})  # cores whose axes are known
_IN_PLACE = COPIES | ADDITIONS | _SCALES | DEVICE_SUMS | DEVICE_MOVES


def mean_over_features(group: Group, z: Any) -> Any:
    """The mean over the features of one example; it broadcasts against `z`, the layer's output.

    Features are the outputs of a product that share batch and free axes.
    """
    rank = group.outputs[0].ndim
    linear = group.linear
    core = linear.core if linear is not None else None
    if linear is None or core is None or not (core.name in _KERNELS or linear.features):
        return jnp.mean(z, rank - 1, keepdims=True) if rank else z
    if linear.features:
        features = linear.features
    elif core.name == "conv_general_dilated":
        batch = core.params["dimension_numbers"].out_spec[0]
        features = frozenset(i for i in range(core.out.ndim) if i != batch)
    else:
        batch_axes = range(len(core.params["dimension_numbers"][1][0]))
        features = output_features(core, linear.operand) - set(batch_axes)
    axes: frozenset[int] | None = features
    for eqn in linear.post:
        axes = None if axes is None else _carried_axes(eqn, axes)
    if axes is not None:
        return jnp.mean(z, tuple(sorted(axes)), keepdims=True) if axes else z
    places = _feature_places(core, features, linear.post)
    if places is None:
        return jnp.mean(z, rank - 1, keepdims=True)
    totals = jnp.zeros(places.max(initial=0) + 1, z.dtype).at[places].add(z)
    return (totals / np.maximum(np.bincount(places.ravel()), 1).astype(z.dtype))[places]


def _feature_places(core: Eqn, features: frozenset[int], post: Sequence[Eqn]) -> np.ndarray | None:
    """The set of features of each element of the output, by number; None if unknown."""
    kept = [1 if i in features else n for i, n in enumerate(core.out.shape)]
    places = np.broadcast_to(np.arange(math.prod(kept)).reshape(kept), core.out.shape)
    found = {core.out: places}
    for eqn in post:
        given = [found[v] for v in eqn.inputs if v in found]
        if len(given) != 1:
            return None
        if eqn.name in _IN_PLACE - DEVICE_MOVES or eqn.name == "reordered":
            outs = [np.broadcast_to(given[0], eqn.out.shape)]
        else:
            outs = moving.moved(eqn, given) if eqn.name in _PLAIN_MOVES else None
        if outs is None:
            return None
        found.update(zip(eqn.outputs, outs, strict=True))
    return found[post[-1].out]


def _carried_axes(eqn: Eqn, axes: frozenset[int]) -> frozenset[int] | None:
    """The places of an input's axes in the output; None if they are mixed with others."""
    source = next((v for v in eqn.inputs if v.ndim), None)
    if source is None:
        return None
    if eqn.name == "transpose":
        return frozenset(i for i, p in enumerate(eqn.params["permutation"]) if p in axes)
    if eqn.name == "broadcast_in_dim":
        return frozenset(eqn.params["broadcast_dimensions"][i] for i in axes)
    if eqn.name in ("reshape", "squeeze", "expand_dims"):
        places = unit_reshape(source.shape, eqn.out.shape)
        return None if places is None else frozenset(places[i] for i in axes if i in places)
    return axes if eqn.out.ndim == source.ndim else None


def constant(group: Group, x: Any, value: Any) -> Any:
    """`value` as an input of the layer, of size 1 along axes that the core maps one by one."""
    shape = list(x.shape)
    linear = group.linear
    core = linear.core if linear is not None else None
    # Equations that split an axis over devices, or move elements, need the whole shape.
    others = {e.name for e in group.eqns if e is not core}
    in_place = "reduce_scatter" not in others and all(name in _IN_PLACE for name in others)
    if linear is not None and core is not None and linear.folds and in_place:
        given = (1,) * (x.ndim - jnp.ndim(value)) + jnp.shape(value)
        for axis in _free_axes(core, linear.operand):
            shape[axis] = given[axis]
    return jnp.broadcast_to(jnp.asarray(value, x.dtype), shape)


def _free_axes(core: Eqn, operand: int) -> tuple[int, ...]:
    """Axes of the active operand along which the core does the same to every element."""
    if core.name == "conv_general_dilated":
        single = operand == 0 and core.params["batch_group_count"] == 1
        return (core.params["dimension_numbers"].lhs_spec[0],) if single else ()
    if core.name not in _KERNELS:
        return ()
    kept = input_features(core, operand)
    return tuple(i for i in range(core.inputs[operand].ndim) if i not in kept)


def has_bias(group: Group) -> bool:
    """Whether a layer may add a shift, or a constant that it moves in."""
    links = {v for e in group.eqns for v in e.outputs} | set(group.inputs)
    return any(_brings(eqn, [v for v in eqn.inputs if v not in links]) for eqn in group.eqns)


def _brings(eqn: Eqn, static: list[Value]) -> bool:
    """Whether an equation adds a constant to its active operand, or puts one beside it."""
    if eqn.name in ADDITIONS:
        return bool(static)
    if eqn.name == "gather" and eqn.params["fill_value"] not in (None, 0):
        return True
    if eqn.name not in _BRINGERS or eqn.name in COPIES:
        return False
    terms = (eqn.inputs[i] for i in carrying(eqn) if eqn.inputs[i].dtype != bool)
    return any(v in static and number_of(v) != 0 for v in terms)


def number_of(value: Value) -> Any:
    """The written number to which all elements of a value are equal, or None."""
    while not isinstance(value, Literal):
        eqn = value.producer
        if eqn is None or eqn.name not in COPIES | {"broadcast_in_dim", "reshape", "squeeze"}:
            return None
        value = eqn.inputs[0]
    return value.val


def bias_of(group: Group, outside: Env) -> Any:
    """The layer's output for a zero input, of size 1 along constant axes; 0.0 without a bias.

    Zeros are symbolic: no product is computed unless a shift comes before the core.
    """
    env: Env = {}  # values that are not zero
    links = {v for e in group.eqns for v in e.outputs} | set(group.inputs)
    norm_tail = group.particulars_as(Norm).tail
    for eqn in group.eqns if norm_tail is None else norm_tail:
        active = [v for v in eqn.inputs if v in links]
        static = [v for v in eqn.inputs if v not in links]
        if eqn.name in ADDITIONS:
            terms = [
                -term if eqn.name == "sub" and position == 1 else term
                for position, v in enumerate(eqn.inputs)
                if (term := _term(v, env, links, outside)) is not None
            ]
            if terms:
                env[eqn.out] = sum(terms[1:], terms[0])
        elif eqn.name == "reordered":  # its other operand is the value, not the bias
            env.update((eqn.out, env[v]) for v in active if v in env)
        elif any(v in env for v in active) or _brings(eqn, static):
            operands = [
                _fill(env[v], v, eqn) if v in env else _outside_or_zero(v, links, outside)
                for v in eqn.inputs
            ]
            env.update(zip(eqn.outputs, evaluate.apply(eqn, operands, wide=True), strict=True))
    return env.get(group.outputs[0], 0.0)


def _term(value: Value, env: Env, links: set[Value], outside: Env) -> Any:
    """A term of a sum; None for an active one, which is zero."""
    if value in links:
        return env.get(value)
    return evaluate.as_number(evaluate.read(outside, value))


def _outside_or_zero(value: Value, links: set[Value], outside: Env) -> Any:
    if value in links:
        return jnp.zeros(value.shape, evaluate.as_number(jnp.zeros((), value.dtype)).dtype)
    return evaluate.read(outside, value)


def _fill(array: Any, value: Value, eqn: Eqn) -> Any:
    """Give a thin array its full shape, except along batch axes that may stay 1 in the core."""
    if eqn.name in ADDITIONS | _SCALES or eqn.name in COPIES:
        return array
    shape = list(value.shape)
    batch: tuple[int, ...] = ()
    if eqn.name in LINEAR_CORES:
        batch = _free_axes(eqn, 0 if eqn.inputs[0] is value else 1)
    array = array.reshape((1,) * (value.ndim - array.ndim) + array.shape)
    for axis in batch:
        shape[axis] = array.shape[axis]
    return jnp.broadcast_to(array, shape)
