"""The transformations that a user calls."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxlrp import compat
from jaxlrp import target as targets
from jaxlrp.call import ArgNums, Call, Request, as_tuple, normal_argnums, prepare, selected
from jaxlrp.errors import InputError, NonFiniteError, TargetError
from jaxlrp.graph.ir import Value
from jaxlrp.ledger import Ledger, make_ledger
from jaxlrp.rulemap import as_rule_map
from jaxlrp.rules.base import times
from jaxlrp.run.evaluate import widen
from jaxlrp.run.plan import Layer, Plan
from jaxlrp.run.probes import ACCOUNT, WORDS, Probes, probe


def explain(
    fn: Callable[..., Any],
    rules: Any,
    argnums: ArgNums = 0,
    has_aux: bool = False,
    *,
    wrt: Any = None,
    layers: Sequence[Any] | None = None,
    what: str | Sequence[str] = "relevance",
    check_finite: bool = False,
) -> Callable[..., Any]:
    """Turn `fn` into a function that returns the relevance of its input: `R(*args, target=None)`.

    Args:
      fn: any JAX function; also a module that is a pytree and callable (Equinox, NNX).
      rules: a rule map, a mapping selector -> rule, or a rule (for every linear layer).
      argnums: which argument(s) to explain, as in `jax.grad`: an int or a tuple. An argument may
        be any pytree of floating arrays; the others are static but may be traced.
      has_aux: `fn` returns `(output, aux)`; aux comes back beside the relevance.
      wrt: a selector of values inside `fn` to explain in place of an argument; `argnums` is then
        ignored, and what lies before these values is static, so integer arguments are fine.
        `wrt="embed"` are the embeddings of tokens, positions and types. R is `{name: relevance}`.
      layers: selectors; relevance at the output of these layers is returned too, by name.
      what: what is returned of these layers: `"relevance"`; `"value"`, their output; `"density"`,
        relevance / value; `"inputs"`, a tuple of the values of their active inputs; `"bias"`,
        f(x) - f'(x) x. A tuple of such words returns `{name: {word: array}}`.
      check_finite: raise `NonFiniteError` if the output or a relevance is NaN or infinite.
        Works on concrete arrays, not under `jit`.

    Returns:
      A function of `fn`'s arguments and `target`. It returns R with the structure and shapes of
      the explained argument (float32 at least), or `(R, {name: relevance})` with `layers`, or
      `(R, aux)` with `has_aux`, or `((R, {name: relevance}), aux)` with both.

      `target`: None starts every output with its own value; integers of shape `out.shape[:-1]`,
      or one integer, pick the class on the last axis; floats of the output's shape are weights.
      `condition={selector: mask}` multiplies the relevance at these layers' outputs by masks
      that broadcast to them (concept-conditional relevance).

    Raises:
      InputError, TargetError, RuleError, SelectorError, UnsupportedPrimitiveError: while
        planning, before anything runs.

    >>> import jax.numpy as jnp
    >>> import jaxlrp as lrp
    >>> w = jnp.array([[1.0, -1.0], [2.0, 0.5]])
    >>> R = lrp.explain(lambda x: x @ w, lrp.Epsilon(0.0))(jnp.array([3.0, 1.0]), target=0)
    >>> print(R)
    [3. 2.]
    """
    both = value_and_relevance(
        fn, rules, argnums, has_aux, wrt=wrt, layers=layers, what=what, check_finite=check_finite
    )

    @_named_after(fn, "explain")
    def relevance(
        *args: Any, target: Any = None, condition: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> Any:
        value, found = both(*args, target=target, condition=condition, **kwargs)
        return (found, value[1]) if has_aux else found

    return relevance


def value_and_relevance(
    fn: Callable[..., Any],
    rules: Any,
    argnums: ArgNums = 0,
    has_aux: bool = False,
    *,
    wrt: Any = None,
    layers: Sequence[Any] | None = None,
    what: str | Sequence[str] = "relevance",
    check_finite: bool = False,
) -> Callable[..., Any]:
    """As `explain`, returning `(value, R)`; with `has_aux` `((value, aux), R)`, as JAX does.

    With `layers`, R is the pair `(R, {name: relevance})`, or what `what` asks for in its place.
    """
    words = _words(what)
    request = _request(fn, rules, argnums, has_aux, wrt, layers, check_finite)

    @_named_after(fn, "value_and_relevance")
    def both(
        *args: Any, target: Any = None, condition: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> Any:
        traced = prepare(request, args, kwargs)
        shapes = [v.aval for v in traced.outputs]
        weights = targets.output_weights(target, shapes, traced.out_tree)
        probed = selected(traced, request.layers)
        masks = _masks(traced, condition)
        values, aux, relevance, extra = _pull_back(traced, weights, probed, words, masks)
        out = jax.tree.unflatten(traced.out_tree, values)
        found = traced.explained(relevance)
        by_name = {
            layer.name: extra[layer][what] if isinstance(what, str) else extra[layer]
            for layer in probed
        }
        if request.check_finite:
            _check_finite(out, found, by_name)
        result = (found, by_name) if request.layers is not None else found
        if has_aux:
            return (out, jax.tree.unflatten(traced.aux_tree, aux)), result
        return out, result

    return both


def relevance_vjp(
    fn: Callable[..., Any], rules: Any, *primals: Any, has_aux: bool = False
) -> tuple[Any, ...]:
    """As `jax.vjp`: the value, and a function from relevance at the output to one per primal.

    The seed is a relevance, not a weight: it may be given to outputs that are 0. Every primal is
    explained. With `has_aux` also returns aux.

    Returns:
      `(value, back)`, where `back(R_out)` is a tuple with the relevance of each primal.
    """
    numbers = tuple(range(len(primals)))
    request = Request(fn, as_rule_map(rules), numbers, has_aux, seed="relevance")
    traced = prepare(request, primals, {})

    def run(explained: Sequence[Any]) -> Any:
        return traced.run(explained, Probes())

    explained = [widen(p) for p in traced.primals()]
    values, back, aux = jax.vjp(run, explained, has_aux=True)
    out = jax.tree.unflatten(
        traced.out_tree, [_as(v, y) for v, y in zip(values, traced.outputs, strict=True)]
    )

    def backward(relevance: Any) -> tuple[Any, ...]:
        leaves, tree = jax.tree.flatten(relevance)
        if tree != traced.out_tree or [jnp.shape(r) for r in leaves] != [v.shape for v in values]:
            raise TargetError(
                f"relevance of structure {tree} and shapes {[jnp.shape(r) for r in leaves]} was "
                f"given; the output has {traced.out_tree} and {[v.shape for v in values]}."
            )
        seeds = [_seed(r, v) for r, v in zip(leaves, values, strict=True)]
        (found,) = back(seeds)
        return traced.explained(_relevances(traced, found, explained))

    if has_aux:
        return out, backward, jax.tree.unflatten(traced.aux_tree, aux)
    return out, backward


def plan(
    fn: Callable[..., Any],
    rules: Any,
    argnums: ArgNums = 0,
    has_aux: bool = False,
    *,
    wrt: Any = None,
    layers: Sequence[Any] | None = None,
) -> Callable[..., Plan]:
    """The plan that `explain` would follow: every layer, its rule, and why it has that rule.

    The returned function takes `fn`'s arguments, as arrays or as `jax.ShapeDtypeStruct`s, and
    runs nothing. `print` shows the table.
    """
    request = _request(fn, rules, argnums, has_aux, wrt, layers)

    @_named_after(fn, "plan")
    def planned(*args: Any, target: Any = None, **kwargs: Any) -> Plan:
        del target
        traced = prepare(request, args, kwargs)
        selected(traced, request.layers)
        return traced.plan

    return planned


def ledger(
    fn: Callable[..., Any],
    rules: Any,
    argnums: ArgNums = 0,
    has_aux: bool = False,
    *,
    wrt: Any = None,
    layers: Sequence[Any] | None = None,
) -> Callable[..., Ledger]:
    """Where relevance went: in and out of every layer, its loss split into bias, stabiliser, rule.

    The returned function takes `fn`'s arguments and `target`; sums are over the whole batch.
    `layers` restricts the rows that are shown to the layers selected.
    """
    request = _request(fn, rules, argnums, has_aux, wrt, layers)

    @_named_after(fn, "ledger")
    def kept(*args: Any, target: Any = None, **kwargs: Any) -> Ledger:
        traced = prepare(request, args, kwargs)
        shapes = [v.aval for v in traced.outputs]
        weights = targets.output_weights(target, shapes, traced.out_tree)
        shown = selected(traced, request.layers)
        every = list(traced.plan.layers)

        @jax.jit
        def account(arrays: list[Any], consts: list[Any], weights: list[Any]) -> Any:
            run = dataclasses.replace(traced, arrays=arrays, consts=consts)
            values, _, relevance, accounts = _pull_back(run, weights, every)
            seeds = [
                w if traced.plan.seeds.get(o) == "relevance" else w * v
                for o, w, v in zip(traced.outputs, weights, values, strict=True)
            ]
            seeded = [jnp.sum(seed) for seed in seeds]
            arrived = sum((jnp.sum(r) for r in relevance), jnp.zeros(()))
            return [accounts[layer] for layer in every], sum(seeded, jnp.zeros(())), arrived

        accounts, seeded, arrived = account(traced.arrays, traced.consts, weights)
        by_layer = dict(zip(every, accounts, strict=True))
        rows = shown if request.layers is not None else every
        return make_ledger(by_layer, rows, seeded, arrived)

    return kept


# -- inside ------------------------------------------------------------------------------------


def _request(
    fn: Any,
    rules: Any,
    argnums: ArgNums,
    has_aux: bool,
    wrt: Any,
    layers: Any,
    check_finite: bool = False,
) -> Request:
    numbers, chosen = normal_argnums(argnums), as_tuple(layers)
    return Request(fn, as_rule_map(rules), numbers, has_aux, wrt, chosen, check_finite)


def _words(what: str | Sequence[str]) -> tuple[str, ...]:
    words = (what,) if isinstance(what, str) else tuple(what)
    unknown = [word for word in words if word not in WORDS]
    if unknown or not words:
        given = repr(unknown[0]) if unknown else "an empty tuple"
        raise InputError(
            f"what: {given} was given; expected one of {', '.join(map(repr, WORDS))}, or a tuple "
            "of these."
        )
    return words


def _named_after(fn: Any, what: str) -> Callable[[Any], Any]:
    name = getattr(fn, "__name__", type(fn).__name__)
    doc = f"{what} of {name}."

    def decorate(wrapped: Any) -> Any:
        wrapped.__name__ = f"{what}_{name}"
        wrapped.__qualname__ = wrapped.__name__
        wrapped.__doc__ = doc
        return wrapped

    return decorate


def _masks(traced: Call, condition: Mapping[str, Any] | None) -> dict[Layer, Any]:
    """The masks of `condition=`, for the layers that they name."""
    masks: dict[Layer, Any] = {}
    for selector, mask in (condition or {}).items():
        for layer in traced.plan.select(selector):
            whole = (*layer.iterations, *layer.shape)
            if not any(_broadcasts(jnp.shape(mask), shape) for shape in (layer.shape, whole)):
                raise InputError(
                    f"condition: the mask for {layer.name!r} has shape {jnp.shape(mask)}; it must "
                    f"broadcast to the layer's output, {whole}."
                )
            masks[layer] = jnp.asarray(mask)
    return masks


def _broadcasts(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    try:
        return jnp.broadcast_shapes(shape, to) == to
    except ValueError:
        return False


def _pull_back(
    traced: Call,
    weights: list[Any],
    layers: list[Layer],
    words: tuple[str, ...] | None = None,
    masks: Mapping[Layer, Any] | None = None,
) -> tuple[list[Any], list[Any], list[Any], dict[Layer, Any]]:
    """Value, aux, relevance of the explained leaves, and what the layers' probes bring.

    That is a dict by the `words`; without these, an account.
    """
    if words is None:
        wide = jnp.promote_types(jnp.result_type(*weights), jnp.float32)
        zeros: dict[Layer, Any] = {layer: jnp.zeros(ACCOUNT, wide) for layer in layers}
    else:
        zeros = {layer: probe(traced.plan, layer, words) for layer in layers}

    def run(explained: Sequence[Any], probes: dict[int, Any]) -> Any:
        by_layer = {layer: probes[i] for i, layer in enumerate(layers)}
        kind = "accounts" if words is None else "asked"
        return traced.run(explained, Probes(**{kind: by_layer}, masks=masks or {}))

    primals = [widen(p) for p in traced.primals()]
    numbered = {
        i: jax.tree.map(lambda z: compat.typed_like(z, *primals), zero)
        for i, zero in enumerate(zeros.values())
    }
    values, back, aux = jax.vjp(run, primals, numbered, has_aux=True)
    seeds = [_seed(w, v) for w, v in zip(weights, values, strict=True)]
    found, brought = back(seeds)
    extra = {layer: brought[i] for i, layer in enumerate(layers)}
    values = [_as(v, y) for v, y in zip(values, traced.outputs, strict=True)]
    return values, aux, _relevances(traced, found, primals), extra


def _seed(weight: Any, value: Any) -> Any:
    return compat.typed_like(jnp.asarray(weight, value.dtype), value)


def _as(array: Any, value: Value) -> Any:
    return array.astype(value.dtype)


def _relevances(traced: Call, found: Sequence[Any], primals: Sequence[Any]) -> list[Any]:
    """What came back to the explained values, as relevance."""
    return [
        r if traced.plan.edges.get(v) == "relevance" else times(x, r)
        for v, x, r in zip(traced.plan.explained, primals, found, strict=True)
    ]


def _check_finite(value: Any, relevance: Any, layers: dict[str, Any]) -> None:
    named = [("the output", value), ("the relevance", relevance)]
    named += [(f"what was asked at {name!r}", r) for name, r in layers.items()]
    for name, tree in named:
        for leaf in jax.tree.leaves(tree):
            if compat.is_concrete(leaf) and not bool(jnp.all(jnp.isfinite(leaf))):
                raise NonFiniteError(
                    f"check_finite: {name} has NaN or infinite entries; look at the inputs and "
                    "at the parameters, or raise epsilon."
                )
