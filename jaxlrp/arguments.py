"""Check the arguments of one call, and trace and plan the function for them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlrp import compat
from jaxlrp.checks import by_keyword, closed_over_modules
from jaxlrp.errors import InputError
from jaxlrp.graph.activity import is_inexact
from jaxlrp.graph.examples import are_rows_of
from jaxlrp.graph.groups import Group
from jaxlrp.graph.ir import Graph, Value
from jaxlrp.graph.trace import simplified, traced
from jaxlrp.planning.inner_values import choose_inner
from jaxlrp.planning.layers import Layer
from jaxlrp.planning.notes import other_examples, unnamed_layers
from jaxlrp.planning.planner import make_plan
from jaxlrp.planning.plans import Note, Plan
from jaxlrp.planning.rulemap import RuleMap
from jaxlrp.planning.selectors import Selector, selector_contents
from jaxlrp.prepared import check_not_explained, opened, ready_for
from jaxlrp.run.bound_call import HOLE, BoundCall, Planned, Template
from jaxlrp.run.reuse import planned


@dataclasses.dataclass(frozen=True)
class Request:
    """A call of `explain` without the arguments of the function.

    With `wrt`, `both` says whether the arguments that `argnums` selects are explained too.
    """

    fn: Callable[..., Any]
    rules: RuleMap
    argnums: int | tuple[int, ...] = 0
    has_aux: bool = False
    wrt: Selector | None = None
    layers: tuple[Selector, ...] | None = None
    check_finite: bool = False
    seed: str = "density"
    both: bool = False


def as_tuple(layers: Selector | None) -> tuple[Selector, ...] | None:
    """The selectors of `layers=`, which may be a single one."""
    if layers is None:
        return None
    return tuple(layers) if isinstance(layers, (list, tuple)) else (layers,)


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, (jax.Array, np.ndarray, np.generic, jax.ShapeDtypeStruct))


def native(array: Any) -> Any:
    """An array in the byte order of this machine: FITS files and others have the opposite one."""
    if isinstance(array, np.ndarray) and not array.dtype.isnative:
        return array.astype(array.dtype.newbyteorder("="))
    return array


class _FlatFunction:
    """A function of arrays alone, made of `fn` and the arguments of one call.

    The arrays are the leaves of `fn`, if it is a pytree that holds some, and then those of its
    arguments. A plain function is its own leaf: its parameters are not visible.
    """

    def __init__(self, request: Request, args: tuple[Any, ...], kwargs: dict[str, Any]):
        self._fn, self._has_aux = request.fn, request.has_aux
        fn_leaves, self._fn_tree = jax.tree_util.tree_flatten_with_path(request.fn)
        self._own = fn_leaves if any(_is_array(leaf) for _, leaf in fn_leaves) else []
        self._given, self._tree = jax.tree_util.tree_flatten_with_path((args, kwargs))
        self._leaves = [*self._own, *self._given]
        # A NumPy integer may be a length or a flag, as in `jax.grad`. An index to explain
        # embeddings by is an array.
        static = (np.integer, np.bool_) if request.wrt is None else ()
        self._is_array = [
            _is_array(leaf) and not isinstance(leaf, static) for _, leaf in self._leaves
        ]
        self.arrays = [native(leaf) for (_, leaf), ok in zip(self._leaves, self._is_array) if ok]
        self.n_own = sum(self._is_array[: len(self._own)])
        self.out_tree: Any = None  # both are known when the function was traced
        self.aux = Template(jax.tree.structure(()), ())

    def __call__(self, *arrays: Any) -> tuple[list[Any], list[Any]]:
        """The leaves of the output, and those of aux that are arrays."""
        given = iter(arrays)
        pairs = zip(self._leaves, self._is_array)
        filled = [next(given) if ok else leaf for (_, leaf), ok in pairs]
        n, fn = len(self._own), self._fn
        if n:
            fn = jax.tree.unflatten(self._fn_tree, filled[:n])
        args, kwargs = jax.tree.unflatten(self._tree, filled[n:])
        out, aux = fn(*args, **kwargs), ()
        if self._has_aux:
            out, aux = with_aux(out)
        outs, self.out_tree = jax.tree.flatten(out)
        leaves, tree = jax.tree.flatten(aux)
        known = (HOLE if isinstance(leaf, jax.Array) else leaf for leaf in leaves)
        self.aux = Template(tree, tuple(known))
        return outs, [leaf for leaf in leaves if isinstance(leaf, jax.Array)]

    def paths(self) -> list[tuple[str, ...]]:
        """The name of each array: its path in `fn`, or in its argument."""
        n = len(self._own)
        named = [path if i < n else path[2:] for i, (path, _) in enumerate(self._leaves)]
        return [compat.path_names(path) for path, ok in zip(named, self._is_array) if ok]

    def positions(self, chosen: list[int]) -> list[int]:
        """The positions of the arrays that belong to some arguments, in the order of these."""
        arrays = (i for i, ok in enumerate(self._is_array) if ok)
        position = {leaf: n for n, leaf in enumerate(arrays)}
        belongs = [
            (chosen.index(path[1].idx), len(self._own) + i)
            for i, (path, _) in enumerate(self._given)
            if path[0].idx == 0 and path[1].idx in chosen
        ]
        return [position[leaf] for _, leaf in sorted(belongs) if leaf in position]


def with_aux(result: Any) -> tuple[Any, Any]:
    """The pair that `fn` returned, or an error."""
    if not isinstance(result, tuple) or len(result) != 2:
        raise InputError(
            f"has_aux=True, but fn returned {type(result).__name__}; expected a pair (output, aux)."
        )
    return result


def bound_call(
    request: Request, args: tuple[Any, ...], kwargs: dict[str, Any], params: int | None = None
) -> BoundCall:
    """Trace and plan `fn` for these arguments; `params` is the number of the one to prepare."""
    args, place, prepared = opened(args, kwargs)
    params = place if params is None else params
    inside = request.wrt is not None and not request.both  # and no argument is explained
    if inside:
        chosen = _chosen(request.argnums, args, strict=False)
    else:
        chosen, args = explained(request.argnums, args, kwargs)
        check_not_explained(params, chosen)
    flat = _FlatFunction(request, args, kwargs)
    varying = [n for n in flat.positions(chosen) if inside or is_quantity(flat.arrays[n])]
    try:
        graph, consts, (out_shapes, _), actions = traced(flat, flat.arrays, flat.paths())
    except Exception as error:  # whatever fn raises goes on; here a note may be added
        _explain_lists(error, args)
        raise
    check_outputs(graph.outputs[: len(out_shapes)])
    call = _Call(
        request.argnums,
        request.wrt,
        request.both,
        request.seed,
        len(out_shapes),
        flat.n_own,
        tuple(varying),
        tuple(tuple(flat.positions([n])) for n in range(len(args))),
        () if inside else tuple(_static_leaves(chosen, args)),
        () if flat.n_own else tuple(closed_over_modules(request.fn)),
    )
    plan = planned(graph, request.rules, call.contents, lambda: call.planned(graph, request.rules))
    argument = None
    if not inside:
        picked = tuple(args[i] for i in chosen)
        argument = _structure(picked if isinstance(request.argnums, tuple) else picked[0])
    ready = None
    if params is not None:
        ready = ready_for(plan.plan, flat.positions([params]), flat.paths(), prepared)
    return BoundCall(plan, flat.arrays, consts, argument, flat.out_tree, flat.aux, actions, ready)


@dataclasses.dataclass(frozen=True)
class _Call:
    """Everything on which a plan depends besides the graph and the rules.

    Attributes:
      n_outputs: how many of the graph's outputs are outputs of fn; the others are aux.
      n_own: how many of the graph's inputs are leaves of fn itself.
      varying: the inputs that are explained, or with `wrt` those from which data may come.
      positions: the inputs that belong to each argument.
      notes: remarks on the arguments.
      modules: the names of modules that fn reads from outside.
    """

    argnums: int | tuple[int, ...]
    wrt: Selector | None
    both: bool
    seed: str
    n_outputs: int
    n_own: int
    varying: tuple[int, ...]
    positions: tuple[tuple[int, ...], ...]
    notes: tuple[Note, ...]
    modules: tuple[str, ...]

    def contents(self) -> Hashable:
        return dataclasses.replace(self, wrt=None), selector_contents(self.wrt)

    def planned(self, graph: Graph, rules: RuleMap) -> Planned:
        """Plan the graph, which is used up."""
        inside = self.wrt is not None  # any input may then lead to an explained value
        graph = simplified(graph, None if inside else self.varying, self.n_own)
        starts = [graph.inputs[n] for n in self.varying]
        inner_layers: list[Group] = []
        if self.wrt is not None:
            numbers = [v for v in starts if is_inexact(v)]
            if self.argnums == 0:
                numbers = self._examples(graph) or numbers
            own = starts if self.both else ()
            graph, inner_layers = choose_inner(graph, self.wrt, self.n_outputs, numbers, own)
            inner = [group.inputs[0] for group in inner_layers]
            starts = list(dict.fromkeys([*starts, *inner])) if self.both else inner
        outputs = graph.outputs[: self.n_outputs]
        plan = make_plan(graph, starts, outputs, rules, self.seed, inner_layers)
        _check_dependence(plan, outputs)
        plan.notes += (*self.notes, *unnamed_layers(plan, self.modules))
        if not inside and self.argnums == 0:
            others = self._inputs(graph, 1)
            plan.notes += tuple(other_examples(plan, others, outputs[0]))
        return Planned(plan, outputs, graph.outputs[self.n_outputs :])

    def _inputs(self, graph: Graph, first: int = 0) -> list[tuple[int, Value]]:
        """The floating inputs, each with the number of its argument."""
        found = [(n, graph.inputs[i]) for n, own in enumerate(self.positions) for i in own]
        return [(n, v) for n, v in found if n >= first and is_inexact(v)]

    def _examples(self, graph: Graph) -> list[Value]:
        """The floating inputs whose rows are those of the output: data, and not parameters."""
        inputs = self._inputs(graph)
        return [v for _, v in inputs if are_rows_of(graph, v, 0, graph.outputs[0])]


def _explain_lists(error: Exception, args: tuple[Any, ...]) -> None:
    """Add to an error of fn that a list of numbers is a pytree of numbers, as in JAX."""
    for number, arg in enumerate(args):
        leaves = jax.tree.leaves(arg) if isinstance(arg, (list, tuple)) else []
        if leaves and all(type(x) in (int, float) or jnp.shape(x) == () for x in leaves):
            error.add_note(
                f"jaxlrp: argument {number} is a {type(arg).__name__} of numbers, which JAX takes "
                "as a pytree and not as an array; perhaps you meant jnp.array(...)."
            )


def _structure(picked: Any) -> Template:
    leaves, tree = jax.tree.flatten(picked)
    zeros = [
        HOLE if is_quantity(leaf) else np.zeros(jnp.shape(leaf), jax.dtypes.float0)
        for leaf in leaves
    ]
    return Template(tree, tuple(zeros))


def is_quantity(leaf: Any) -> bool:
    """Whether a leaf of an explained argument gets relevance: it is floating."""
    return _is_array(leaf) and bool(jnp.issubdtype(leaf.dtype, jnp.floating))


def _static_leaves(chosen: list[int], args: tuple[Any, ...]) -> Iterator[Note]:
    """Notes on the leaves of the explained arguments that are not quantities."""
    for number in chosen:
        leaves, _ = jax.tree_util.tree_flatten_with_path(args[number])
        static = [
            f"argument {number}{jax.tree_util.keystr(path)} ({jnp.result_type(leaf)})"
            for path, leaf in leaves
            if not is_quantity(leaf)
        ]
        if static:
            yield Note(
                "static leaves",
                f"No relevance is computed for {', '.join(static)}: integers and booleans beside "
                "floating leaves are static.",
            )


def explained(
    argnums: int | tuple[int, ...], args: tuple[Any, ...], keywords: Iterable[str] = ()
) -> tuple[list[int], tuple[Any, ...]]:
    """The numbers of the arguments that `argnums` selects, and all arguments, these checked."""
    chosen = _chosen(argnums, args, keywords)
    return chosen, tuple(_explainable(a, i) if i in chosen else a for i, a in enumerate(args))


def _chosen(
    argnums: int | tuple[int, ...],
    args: tuple[Any, ...],
    keywords: Iterable[str] = (),
    strict: bool = True,
) -> list[int]:
    """The arguments that `argnums` selects; unless `strict`, only those that exist."""
    numbers = argnums if isinstance(argnums, tuple) else (argnums,)
    chosen = []
    for number in numbers:
        if -len(args) <= number < len(args):
            chosen.append(number % len(args))
        elif strict:
            raise InputError(
                f"argnums={argnums} selects argument {number}, but {len(args)} positional "
                f"arguments were given{by_keyword(keywords)}."
            )
    if len(set(chosen)) < len(chosen):
        raise InputError(
            f"argnums={argnums} names one argument twice: each has one relevance, so write "
            f"argnums={tuple(dict.fromkeys(chosen))}."
        )
    return chosen


def _explainable(arg: Any, number: int) -> Any:
    """The argument with a floating array among its leaves, or an error that says what is wrong.

    Integers, booleans and random keys beside it are static.
    """
    leaves, tree = jax.tree_util.tree_flatten_with_path(arg)
    if not leaves:
        raise InputError(
            f"argument {number} is to be explained, but it is {arg!r}, which holds no arrays; "
            "expected an array or a pytree of arrays. Choose another argument with argnums."
        )
    checked = []
    for path, leaf in leaves:
        where = f"argument {number}{jax.tree_util.keystr(path)}"
        leaf: Any = jnp.asarray(leaf) if type(leaf) is float else leaf
        if not _is_array(leaf) and type(leaf) not in (int, bool):
            raise InputError(
                f"{where} is to be explained, but it is {leaf!r} of type {type(leaf).__name__}; "
                "expected floating arrays, and integers or booleans beside them. Choose another "
                "argument with argnums, or let fn close over objects that are not arrays."
            )
        if isinstance(leaf, np.ndarray) and leaf.dtype.kind not in "fciubV":
            raise InputError(
                f"{where} is to be explained, but it is a NumPy array of dtype {leaf.dtype}; "
                "expected floating numbers. Convert it: x.astype(np.float32)."
            )
        if _is_array(leaf) and jnp.issubdtype(leaf.dtype, jnp.complexfloating):
            raise InputError(
                f"{where} is to be explained, but it has dtype {leaf.dtype}; relevance needs real "
                "values. Explain a function of the real and the imaginary part."
            )
        if is_quantity(leaf) and 0 in leaf.shape:
            raise InputError(
                f"{where} has shape {tuple(leaf.shape)} and holds no numbers; expected an array of "
                "at least one."
            )
        checked.append(leaf)
    if not any(map(is_quantity, checked)):
        dtypes = ", ".join(dict.fromkeys(str(jnp.result_type(leaf)) for leaf in checked))
        raise InputError(
            f"argument {number} is to be explained, but it has dtype {dtypes}; relevance needs "
            "floating values. Cast it to float32 outside fn if its numbers are quantities, as "
            "those of a uint8 picture; if they are indices, as those of tokens, explain the "
            'embedding they select (wrt="embed").'
        )
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
