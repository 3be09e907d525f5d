"""The transformations that a user calls."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxlrp import compat
from jaxlrp.accounts import Ledger, make_ledger
from jaxlrp.arguments import ArgNums, Request, as_tuple, normal_argnums, prepare, selected
from jaxlrp.errors import InputError, NonFiniteError, TargetError
from jaxlrp.planning.plans import Plan
from jaxlrp.planning.rulemap import as_rule_map
from jaxlrp.run import targets
from jaxlrp.run.evaluate import widen
from jaxlrp.run.masks import masks_of
from jaxlrp.run.probes import WORDS, Probes
from jaxlrp.run.pull_back import as_traced, pull_back, relevances, seed


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
        masks = masks_of(traced.plan, condition)
        values, aux, relevance, extra = pull_back(traced, weights, probed, words, masks)
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
        traced.out_tree, [as_traced(v, y) for v, y in zip(values, traced.outputs, strict=True)]
    )

    def backward(relevance: Any) -> tuple[Any, ...]:
        leaves, tree = jax.tree.flatten(relevance)
        if tree != traced.out_tree or [jnp.shape(r) for r in leaves] != [v.shape for v in values]:
            raise TargetError(
                f"relevance of structure {tree} and shapes {[jnp.shape(r) for r in leaves]} was "
                f"given; the output has {traced.out_tree} and {[v.shape for v in values]}."
            )
        seeds = [seed(r, v) for r, v in zip(leaves, values, strict=True)]
        (found,) = back(seeds)
        return traced.explained(relevances(traced, found, explained))

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
            values, _, relevance, accounts = pull_back(run, weights, every)
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
