"""The arguments of one call checked, and the function traced and planned for them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlrp import compat
from jaxlrp.errors import InputError
from jaxlrp.graph.activity import is_inexact
from jaxlrp.graph.groups import Group
from jaxlrp.graph.ir import Value
from jaxlrp.graph.trace import trace
from jaxlrp.planning.inner_values import choose_inner
from jaxlrp.planning.layers import Layer
from jaxlrp.planning.planner import make_plan
from jaxlrp.planning.plans import Plan
from jaxlrp.planning.rulemap import RuleMap
from jaxlrp.planning.selectors import Selector
from jaxlrp.run.bound_call import BoundCall

ArgNums = int | Sequence[int]


@dataclasses.dataclass(frozen=True)
class Request:
    """A call of `explain` without the arguments of the function."""

    fn: Callable[..., Any]
    rules: RuleMap
    argnums: int | tuple[int, ...] = 0
    has_aux: bool = False
    wrt: Selector | None = None
    layers: tuple[Selector, ...] | None = None
    check_finite: bool = False
    seed: str = "density"


def as_tuple(layers: Sequence[Selector] | None) -> tuple[Selector, ...] | None:
    if layers is None:
        return None
    return (layers,) if isinstance(layers, str) or callable(layers) else tuple(layers)


def normal_argnums(argnums: ArgNums) -> int | tuple[int, ...]:
    if isinstance(argnums, int) and not isinstance(argnums, bool):
        return argnums
    if isinstance(argnums, (tuple, list)) and all(isinstance(i, int) for i in argnums) and argnums:
        return tuple(argnums)
    raise InputError(f"argnums={argnums!r}: expected an int or a non-empty tuple of ints.")


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, (jax.Array, np.ndarray, np.generic, jax.ShapeDtypeStruct))


def prepare(request: Request, args: tuple[Any, ...], kwargs: dict[str, Any]) -> BoundCall:
    """Trace and plan `fn` for these arguments."""
    if request.wrt is None:
        chosen, args = explained(request.argnums, args)
    else:
        chosen = _chosen(request.argnums, args, strict=False)
    fn_leaves, fn_tree = jax.tree_util.tree_flatten_with_path(request.fn)
    # A plain function is its own leaf: it has no parameters that we could see.
    module = fn_leaves if any(_is_array(leaf) for _, leaf in fn_leaves) else []
    leaves, tree = jax.tree_util.tree_flatten_with_path((args, kwargs))
    everything = [*module, *leaves]
    is_array = [_is_array(leaf) for _, leaf in everything]
    arrays = [leaf for (_, leaf), ok in zip(everything, is_array, strict=True) if ok]
    paths = [
        compat.path_names(path) if i < len(module) else compat.path_names(path[2:])
        for i, ((path, _), ok) in enumerate(zip(everything, is_array, strict=True))
        if ok
    ]
    n_module = sum(is_array[: len(module)])
    trees: dict[str, Any] = {}

    def flat(*flat_arrays: Any) -> Any:
        given = iter(flat_arrays)
        filled = [
            next(given) if ok else leaf for (_, leaf), ok in zip(everything, is_array, strict=True)
        ]
        fn = request.fn
        if module:
            fn = jax.tree.unflatten(fn_tree, filled[: len(module)])
        inner_args, inner_kwargs = jax.tree.unflatten(tree, filled[len(module) :])
        result = fn(*inner_args, **inner_kwargs)
        if request.has_aux:
            if not isinstance(result, tuple) or len(result) != 2:
                raise InputError(
                    f"has_aux=True, but fn returned {type(result).__name__}; expected a pair "
                    "(output, aux)."
                )
            out, aux = result
        else:
            out, aux = result, ()
        outs, trees["out"] = jax.tree.flatten(out)
        auxs, trees["aux"] = jax.tree.flatten(aux)
        return outs, auxs

    marks = [
        i for i, (path, leaf) in enumerate(leaves) if path[0].idx == 0 and path[1].idx in chosen
    ]
    position = {
        leaf_index: n for n, leaf_index in enumerate(i for i, ok in enumerate(is_array) if ok)
    }
    places = [
        len(module) + i for i in sorted(marks, key=lambda i: chosen.index(_number(leaves[i])))
    ]
    varying = [position[i] for i in places if i in position]
    inner = request.wrt is not None  # then any input may lead to what is explained
    graph, consts, (out_shapes, _) = trace(
        flat, arrays, paths, n_module, varying=None if inner else varying
    )
    n_outputs = len(out_shapes)
    check_outputs(graph.outputs[:n_outputs])
    starts = [graph.inputs[n] for n in varying]
    entries: list[Group] = []
    if request.wrt is None:
        picked: Any = tuple(args[i] for i in chosen)
        picked = picked if isinstance(request.argnums, tuple) else picked[0]
    else:
        graph, entries = choose_inner(
            graph, request.wrt, n_outputs, [v for v in starts if is_inexact(v)]
        )
        starts = [group.inputs[0] for group in entries]
        picked = None
    outputs = graph.outputs[:n_outputs]
    plan = make_plan(graph, starts, outputs, request.rules, request.seed, entries)
    _check_dependence(plan, outputs)
    return BoundCall(
        plan,
        outputs,
        graph.outputs[n_outputs:],
        arrays,
        consts,
        None if request.wrt is not None else jax.tree.structure(picked),
        trees["out"],
        trees["aux"],
    )


def _number(leaf: tuple[Any, Any]) -> int:
    """The argument that a leaf of `(args, kwargs)` belongs to."""
    return leaf[0][1].idx


def explained(
    argnums: int | tuple[int, ...], args: tuple[Any, ...]
) -> tuple[list[int], tuple[Any, ...]]:
    """The numbers of the arguments that `argnums` names, and all arguments, these checked."""
    chosen = _chosen(argnums, args)
    return chosen, tuple(_explainable(a, i) if i in chosen else a for i, a in enumerate(args))


def _chosen(
    argnums: int | tuple[int, ...], args: tuple[Any, ...], strict: bool = True
) -> list[int]:
    """The arguments that `argnums` names; unless `strict`, those of them that there are."""
    numbers = argnums if isinstance(argnums, tuple) else (argnums,)
    chosen = []
    for number in numbers:
        if -len(args) <= number < len(args):
            chosen.append(number % len(args))
        elif strict:
            raise InputError(
                f"argnums={argnums} selects argument {number}, but {len(args)} positional "
                "arguments were given; pass the explained arguments by position."
            )
    return chosen


def _explainable(arg: Any, number: int) -> Any:
    """The argument with floating arrays as leaves, or an error that says what is wrong."""
    leaves, tree = jax.tree_util.tree_flatten_with_path(arg)
    if not leaves:
        raise InputError(
            f"argument {number} is to be explained, but it is {arg!r}, which holds no arrays; "
            "expected an array or a pytree of arrays. Choose another argument with argnums."
        )
    checked = []
    for path, leaf in leaves:
        where = f"argument {number}{jax.tree_util.keystr(path)}"
        leaf: Any = jnp.asarray(leaf) if type(leaf) in (int, float) else leaf
        if not _is_array(leaf):
            raise InputError(
                f"{where} is to be explained, but it is {leaf!r} of type {type(leaf).__name__}; "
                "every leaf must be a floating array. Choose another argument with argnums."
            )
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise InputError(
                f"{where} is to be explained, but it has dtype {leaf.dtype}; relevance needs "
                "floating values. Cast it to float32 if its numbers are quantities; if they are "
                'indices, explain the embedding they select (wrt="embed").'
            )
        if 0 in leaf.shape:
            raise InputError(
                f"{where} has shape {tuple(leaf.shape)} and holds no numbers; expected an array of "
                "at least one."
            )
        checked.append(leaf)
    return jax.tree.unflatten(tree, checked)


def check_outputs(outputs: Sequence[Any]) -> None:
    """Raise unless there are outputs, all of them floating."""
    if not outputs:
        raise InputError(
            "fn returns no arrays; expected at least one floating array as its output."
        )
    for value in outputs:
        dtype = value.dtype if hasattr(value, "dtype") else jnp.result_type(value)
        if not jnp.issubdtype(dtype, jnp.floating):
            raise InputError(
                f"fn returns an array of dtype {dtype}; relevance starts from floating "
                "outputs. Return the logits, and other things through has_aux=True."
            )


def _check_dependence(plan: Plan, outputs: list[Value]) -> None:
    if not any(v in plan.activity.reached for v in outputs):
        raise InputError(
            "The output does not depend on the explained argument through floating values: check "
            "argnums, and look for stop_gradient, rounding to integers or comparisons on the way."
        )


def selected(traced: BoundCall, selectors: tuple[Selector, ...] | None) -> list[Layer]:
    found: dict[Layer, None] = {}
    for selector in selectors or ():
        found.update(dict.fromkeys(traced.plan.select(selector)))
    return list(found)
