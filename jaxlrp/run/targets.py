"""Targets, from which relevance starts, as weights on the outputs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlrp import compat
from jaxlrp.errors import TargetError
from jaxlrp.types import Target


def output_weights(
    target: Target,
    out_shapes: list[Any],
    out_tree: Any,
    is_batch: Callable[[], bool] = lambda: False,
) -> list[Any]:
    """One weight per output element: the seed is weight * output, so a density is the weight.

    Under None every output counts with its own value. Otherwise each output has a target of its
    own: integers of shape `out.shape[:-1]`, or one integer, select the class on the last axis;
    floats of the output's shape are weights; None seeds nothing. `is_batch` says whether the only
    axis of the only output is known to count examples.
    """
    if target is None:
        return [jnp.ones(s.shape, _wide(s.dtype)) for s in out_shapes]
    given = _by_structure(target, out_tree)
    if given is None and out_tree.num_leaves == 1 and _is_array_like(target):
        given = [target]
    if given is None:
        raise TargetError(_unlike(target, out_tree))
    if all(t is None for t in given):
        raise TargetError(
            f"target={target!r} seeds none of the outputs; give at least one of them a target, or "
            "target=None for all."
        )
    names = [jax.tree_util.keystr(path) for path, _ in _paths(out_tree)]
    return [
        _weights(t, s, name, is_batch) for t, s, name in zip(given, out_shapes, names, strict=True)
    ]


def _paths(tree: Any) -> list[tuple[Any, Any]]:
    numbered = jax.tree.unflatten(tree, range(tree.num_leaves))
    return jax.tree_util.tree_flatten_with_path(numbered)[0]


def _is_array_like(target: Any) -> bool:
    """Whether a target is not a container, or is a nested list or tuple of numbers only."""
    if isinstance(target, (list, tuple)):
        return bool(target) and all(_is_array_like(t) for t in target)
    return isinstance(target, (int, float, complex, str)) or hasattr(target, "dtype")


def _by_structure(target: Any, tree: Any) -> list[Any] | None:
    """The targets of the outputs, one each, from a target with the structure of the output."""
    try:
        return tree.flatten_up_to(target)
    except (ValueError, TypeError):
        return None


def _unlike(target: Any, tree: Any) -> str:
    shown = jax.tree.unflatten(tree, ["*"] * tree.num_leaves)
    example = jax.tree.unflatten(tree, [0, *[None] * (tree.num_leaves - 1)])
    given = f"target={_shown(target)} was given"
    if isinstance(target, (list, tuple)) or not _is_array_like(target):
        given = f"target has the structure {jax.tree.structure(target)}"
    return (
        f"{given}, but fn returns {shown}, {tree.num_leaves} arrays. Expected a target for each in "
        "the same structure: an integer or integers (classes), floats of its shape (weights) or "
        f"None, for an output that is not explained, such as target={example}; or target=None for "
        "all of them."
    )


def _shown(target: Any) -> str:
    if hasattr(target, "dtype"):
        return f"{target.dtype}{list(jnp.shape(target))}"
    return repr(target)


def _wide(dtype: Any) -> Any:
    return jnp.promote_types(dtype, jnp.float32)


def _weights(target: Any, out: Any, name: str, is_batch: Callable[[], bool]) -> Any:
    """The weights on one output; `name` is its path in the outputs, "" for the only one."""
    if target is None:
        return jnp.zeros(out.shape, _wide(out.dtype))
    where = f"target{name}"
    target = _as_array(target, where, out)
    shape, dtype = tuple(out.shape), jnp.result_type(target)
    if jnp.issubdtype(dtype, jnp.integer):
        return _one_hot(target, out, where, is_batch)
    if dtype == jnp.bool_:
        raise TargetError(
            f"{where} is boolean; give class indices (integers) or weights (floats: a mask is "
            f"mask.astype(float))."
        )
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TargetError(f"{where} has dtype {dtype}; {_expected(shape)}.")
    if jnp.shape(target) != shape:
        hint = _class_hint(target, where)
        raise TargetError(
            f"{where}: weights of shape {jnp.shape(target)} were given for an output of shape "
            f"{shape}; weights need the output's own shape.{hint}"
        )
    return jnp.asarray(target, _wide(out.dtype))


def _class_hint(target: Any, where: str) -> str:
    if jnp.shape(target) or not compat.is_concrete(target):
        return ""
    number = float(np.asarray(target))
    if not number.is_integer():
        return ""
    return f" {number} is a float; a class is an integer: write {where}={int(number)}."


def _expected(shape: tuple[int, ...]) -> str:
    classes = f"one integer or integers of shape {shape[:-1]} (classes), " if shape else ""
    return f"expected {classes}floats of shape {shape} (weights), or None"


def _as_array(target: Any, where: str, out: Any) -> Any:
    """A number, an array, or a nested list of them, as one array."""
    expected = _expected(tuple(out.shape))
    entries = list(_entries(target))
    words = [entry for entry in entries if not _is_numeric(entry)]
    if words:
        names = ", as names.index(...)" if isinstance(words[0], str) else ""
        raise TargetError(
            f"{where}: {words[0]!r} of type {type(words[0]).__name__} was given; {expected}"
            + (f". A class is given by its position on the last axis{names}." if names else ".")
        )
    if not isinstance(target, (list, tuple)):
        return target
    try:
        concrete = all(map(compat.is_concrete, entries))
        return np.asarray(target) if concrete else jnp.asarray(target)
    except (ValueError, TypeError) as error:
        raise TargetError(
            f"{where}={target!r} is not an array: its rows differ in length; {expected}."
        ) from error


def _entries(target: Any) -> Iterator[Any]:
    """The leaves of nested lists and tuples."""
    if isinstance(target, (list, tuple)):
        for part in target:
            yield from _entries(part)
    else:
        yield target


def _is_numeric(leaf: Any) -> bool:
    if isinstance(leaf, (bool, int, float, complex)):
        return True
    dtype = getattr(leaf, "dtype", None)
    return dtype is not None and (dtype == jnp.bool_ or jnp.issubdtype(dtype, jnp.number))


def _one_hot(target: Any, out: Any, where: str, is_batch: Callable[[], bool]) -> Any:
    shape = tuple(out.shape)
    if not shape:
        raise TargetError(
            f"{where} picks a class on the output's last axis, but the output is a scalar; leave "
            "target=None, or give 1.0 for the output's own value."
        )
    if jnp.shape(target) not in ((), shape[:-1]):
        hot = ""
        if jnp.shape(target) == shape:
            hot = " If these are weights (a one-hot row is one), give them as floats."
        raise TargetError(
            f"{where} of shape {jnp.shape(target)} was given for an output of shape {shape}; "
            f"expected one integer, or integers of shape {shape[:-1]}.{hot}"
        )
    if len(shape) == 1 and is_batch():
        raise TargetError(
            f"{where}={_shown(target)} was given for an output of shape {shape}, whose only axis "
            "is one of examples: each entry depends on one row of the explained input. To explain "
            f"the output of every example write {where}=None. To explain one example alone, give "
            f"it weights: {where}=jax.nn.one_hot(example, {shape[0]}). If the entries are classes "
            "after all, write the same with the class."
        )
    classes = shape[-1]
    if compat.is_concrete(target):
        values = np.asarray(target)
        if values.size and (values.min() < 0 or values.max() >= classes):
            worst = values.min() if values.min() < 0 else values.max()
            raise TargetError(
                f"{where} {worst} is out of range: the output has {classes} classes, 0 to "
                f"{classes - 1}."
            )
    hot, inside = _ones_at(target, shape, _wide(out.dtype))
    if not compat.is_concrete(target):
        compat.check_under_checkify(
            inside, f"{where} is out of range: the output has {classes} classes."
        )
    return hot


@functools.partial(jax.jit, static_argnums=(1, 2), inline=True)  # one program outside `jit`
def _ones_at(target: Any, shape: tuple[int, ...], dtype: Any) -> tuple[Any, Any]:
    """Weights of 1 at the classes, and whether all of these exist."""
    index = jnp.broadcast_to(target, shape[:-1])
    hot = jax.nn.one_hot(index, shape[-1], dtype=dtype)
    inside = (index >= 0) & (index < shape[-1])
    # A traced class cannot raise an error; relevance NaN shows that it was out of range.
    return jnp.where(inside[..., None], hot, jnp.nan), jnp.all(inside)
