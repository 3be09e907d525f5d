"""The transformations that a user calls."""

# JAX's own annotations leave parts unknown.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxlrp import compat
from jaxlrp.accounts import Ledger, make_ledger
from jaxlrp.arguments import Request, as_tuple, bound_call, selected
from jaxlrp.checks import ArgNums, check_function, check_own_names, check_values, normal_argnums
from jaxlrp.errors import InputError, NonFiniteError, TargetError
from jaxlrp.planning.notes import warn
from jaxlrp.planning.plans import Plan
from jaxlrp.planning.rulemap import RuleLike, as_rule_map
from jaxlrp.planning.selectors import Selector
from jaxlrp.run.evaluate import widen
from jaxlrp.run.masks import Condition, masked_plan, masks_of
from jaxlrp.run.probes import WORDS, Probes
from jaxlrp.run.pull_back import as_traced, relevances, seed
from jaxlrp.run.replay import pulled_back
from jaxlrp.types import PyTree, Relevance, Target


def explain(
    fn: Callable[..., PyTree],
    rules: RuleLike,
    argnums: ArgNums | None = None,
    has_aux: bool = False,
    *,
    wrt: Selector | None = None,
    layers: Selector | None = None,
    what: str | Sequence[str] = "relevance",
    check_finite: bool = False,
) -> Callable[..., Relevance]:
    r"""Turn `fn` into a function that returns the relevance of its input: `R(*args, target=None)`.

    $$R(x) \text{ has the shape of } x, \qquad \sum_i R_i(x) \approx f_{\text{target}}(x)$$

    How closely the sum meets the output depends on the network and the rules;
    [`ledger`][jaxlrp.ledger] accounts for the difference.

    Args:
      fn: a function of JAX, from arrays to floating arrays. A module that is a pytree and callable
        (Equinox, NNX) is one too; its arrays are parameters.
      rules: a rule map, a mapping from selectors to rules, or one rule for every linear layer.
      argnums: which argument(s) to explain, as in `jax.grad`: an int or a tuple. Without `argnums`
        and `wrt` the first argument is explained. An argument may be any pytree of floating arrays.
        The other arguments are static, but may be traced.
      has_aux: whether `fn` returns `(output, aux)`; aux is then returned beside the relevance.
      wrt: a selector (or a list of them) of values inside `fn` to explain in place of an argument.
        Everything before these values is static, so integer arguments are allowed. Data enters at
        embeddings, or else at the arguments whose rows are those of the output. `wrt="embed"`
        selects the embeddings of tokens, positions and types. R is `{name: relevance}`. With
        `argnums` given too, R is `(relevance of the arguments, {name: relevance})`, and no path is
        counted twice: relevance that reaches an explained value inside stops there.
      layers: a selector of layers, or a list of them; the relevance at their outputs is returned
        too, by name.
      what: which quantities of these layers are returned: `"relevance"`; `"value"`, their output;
        `"density"`, relevance / value; `"inputs"`, a tuple of the values of their active inputs;
        `"bias"`, f(x) - f'(x) x. A tuple of such words returns `{name: {word: array}}`.
      check_finite: whether to raise `NonFiniteError` if the output or a relevance is NaN or
        infinite. It looks at concrete arrays: under `jit` and other transformations it does nothing
        (use `jax.debug_nans` or `jax.experimental.checkify` there).

    Returns:
      A function of `fn`'s arguments, `target` and `condition`. It returns R with the structure and
      shapes of the explained argument (float32 at least; integer and boolean leaves are static and
      have zeros of dtype float0, as from `jax.grad(allow_int=True)`), or `(R, {name: relevance})`
      with `layers`, or `(R, aux)` with `has_aux`, or `((R, {name: relevance}), aux)` with both.
      `target` is where relevance starts; see [`Target`][jaxlrp.Target].
      `condition={selector: mask}` multiplies the relevance at these layers' outputs by masks that
      broadcast to them (concept-conditional relevance, [Achtibat et al. 2023][achtibat2023]); the
      notes of `plan` show which paths this leaves open, such as a skip connection.

    Raises:
      InputError: an argument cannot be explained, or the output does not depend on it.
      TargetError: `target` does not fit the output.
      RuleError: a rule does not fit a layer to which it was given.
      SelectorError: a selector matches no layer, or is ambiguous.
      UnsupportedPrimitiveError: relevance must cross an equation without a known rule.

    Examples:
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
        *args: PyTree, target: Target = None, condition: Condition | None = None, **kwargs: PyTree
    ) -> Relevance:
        value, found = both(*args, target=target, condition=condition, **kwargs)
        return (found, value[1]) if has_aux else found

    return relevance


def value_and_relevance(
    fn: Callable[..., PyTree],
    rules: RuleLike,
    argnums: ArgNums | None = None,
    has_aux: bool = False,
    *,
    wrt: Selector | None = None,
    layers: Selector | None = None,
    what: str | Sequence[str] = "relevance",
    check_finite: bool = False,
) -> Callable[..., tuple[PyTree, Relevance]]:
    """[`explain`][jaxlrp.explain] that returns the value as well, like `jax.value_and_grad`.

    Args:
      fn: as in [`explain`][jaxlrp.explain].
      rules: as there.
      argnums: as there.
      has_aux: as there.
      wrt: as there.
      layers: as there.
      what: as there.
      check_finite: as there.

    Returns:
      A function of `fn`'s arguments, `target` and `condition` that returns `(value, R)`; with
      `has_aux` `((value, aux), R)`. With `layers`, R is the pair `(R, {name: relevance})`, or has
      the quantities that `what` names in place of relevance.

    Examples:
      >>> import jax.numpy as jnp
      >>> import jaxlrp as lrp
      >>> w = jnp.array([[1.0, -1.0], [2.0, 0.5]])
      >>> f = lrp.value_and_relevance(lambda x: x @ w, lrp.Epsilon(0.0))
      >>> value, R = f(jnp.array([3.0, 1.0]), target=0)
      >>> print(value, R)
      [ 5.  -2.5] [3. 2.]
    """
    words = _words(what)
    request = _request(fn, rules, argnums, has_aux, wrt, layers, check_finite)
    warned = False

    @_named_after(fn, "value_and_relevance")
    def both(
        *args: PyTree, target: Target = None, condition: Condition | None = None, **kwargs: PyTree
    ) -> tuple[PyTree, Relevance]:
        nonlocal warned
        check_values(args, kwargs)
        check_own_names(fn, args, {"target": target, "condition": condition})
        traced = bound_call(request, args, kwargs)
        warned = warned or warn(traced.plan)
        weights = traced.weights(target)
        probed = selected(traced, request.layers)
        masks = masks_of(traced.plan, condition)
        values, aux, relevance, extra = pulled_back(traced, weights, probed, words, masks)
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
            return (out, traced.with_aux(aux)), result
        return out, result

    return both


def relevance_vjp(
    fn: Callable[..., PyTree], rules: RuleLike, *primals: PyTree, has_aux: bool = False
) -> tuple[PyTree, ...]:
    """The value of `fn`, and a function from relevance at the output to relevance of each primal.

    It corresponds to `jax.vjp`. The seed is a relevance, not a weight, so it may be given to
    outputs that are 0. Every primal is explained.

    Args:
      fn: as in [`explain`][jaxlrp.explain].
      rules: as there.
      *primals: the arguments of `fn`, each a pytree of floating arrays.
      has_aux: whether `fn` returns `(output, aux)`.

    Returns:
      `(value, back)`, or `(value, back, aux)` with `has_aux`. `back(R_out)` takes relevance with
      the structure and shapes of the output, and returns a tuple with the relevance of each primal.

    Raises:
      TargetError: from `back`, if the relevance does not fit the output.

    Examples:
      >>> import jax.numpy as jnp
      >>> import jaxlrp as lrp
      >>> x = jnp.array([3.0, 1.0])
      >>> value, back = lrp.relevance_vjp(lambda x: x.sum(), lrp.Epsilon(0.0), x)
      >>> print(value, *back(8.0))
      4.0 [6. 2.]
    """
    check_function(fn, has_aux)
    check_values(primals, {})
    numbers = tuple(range(len(primals)))
    request = Request(fn, as_rule_map(rules), numbers, has_aux, seed="relevance")
    traced = bound_call(request, primals, {})

    def run(explained: Sequence[Any]) -> Any:
        return traced.run(explained, Probes())

    traced.act()
    explained = [widen(p) for p in traced.primals()]
    values, back, aux = jax.vjp(run, explained, has_aux=True)
    out = jax.tree.unflatten(
        traced.out_tree, [as_traced(v, y) for v, y in zip(values, traced.outputs, strict=True)]
    )

    shapes = [jnp.shape(v) for v in values]

    def backward(relevance: Relevance) -> tuple[Relevance, ...]:
        leaves, tree = jax.tree.flatten(relevance)
        if tree != traced.out_tree or [jnp.shape(r) for r in leaves] != shapes:
            raise TargetError(
                f"relevance of structure {tree} and shapes {[jnp.shape(r) for r in leaves]} was "
                f"given; the output has {traced.out_tree} and {shapes}."
            )
        seeds = [seed(r, v) for r, v in zip(leaves, values, strict=True)]
        (found,) = back(seeds)
        return traced.explained(relevances(traced, found, explained))

    if has_aux:
        return out, backward, traced.with_aux(aux)
    return out, backward


def plan(
    fn: Callable[..., PyTree],
    rules: RuleLike,
    argnums: ArgNums | None = None,
    has_aux: bool = False,
    *,
    wrt: Selector | None = None,
    layers: Selector | None = None,
) -> Callable[..., Plan]:
    """The plan that `explain` would follow: each layer, its rule, and why it has that rule.

    Args:
      fn: as in [`explain`][jaxlrp.explain].
      rules: as there.
      argnums: as there.
      has_aux: as there.
      wrt: as there.
      layers: as there; a selector that matches nothing is an error.

    Returns:
      A function of `fn`'s arguments, given as arrays or as `jax.ShapeDtypeStruct`s, that returns a
      [`Plan`][jaxlrp.Plan] and runs nothing. `print` shows the plan as a table. With the masks of
      `condition=` the plan notes the paths on which relevance bypasses the masked layers.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> import jaxlrp as lrp
      >>> w = jnp.array([[1.0, -1.0], [2.0, 0.5]])
      >>> plan = lrp.plan(lambda x: jax.nn.relu(x @ w), lrp.Epsilon(0.1))(jnp.ones(2))
      >>> for layer in plan.layers:
      ...     print(layer.kind, layer.shape, layer.rule)
      dense (2,) Epsilon(epsilon=0.1)
      activation (2,) Pass()
    """
    request = _request(fn, rules, argnums, has_aux, wrt, layers)

    @_named_after(fn, "plan")
    def planned(
        *args: PyTree, target: Target = None, condition: Condition | None = None, **kwargs: PyTree
    ) -> Plan:
        check_own_names(fn, args, {"target": target, "condition": condition})
        traced = bound_call(request, args, kwargs)
        selected(traced, request.layers)
        return masked_plan(traced.plan, condition)

    return planned


def ledger(
    fn: Callable[..., PyTree],
    rules: RuleLike,
    argnums: ArgNums | None = None,
    has_aux: bool = False,
    *,
    wrt: Selector | None = None,
    layers: Selector | None = None,
) -> Callable[..., Ledger]:
    """Where relevance went: in and out of every layer, and what took the difference.

    The loss of a layer is split into the shares of its bias, of its stabiliser and of its rule.

    Args:
      fn: as in [`explain`][jaxlrp.explain].
      rules: as there.
      argnums: as there.
      has_aux: as there.
      wrt: as there.
      layers: selectors of the layers whose rows are shown; None shows all.

    Returns:
      A function of `fn`'s arguments and `target` that returns a [`Ledger`][jaxlrp.Ledger], whose
      sums are over the whole batch. `print` shows the ledger as a table with a verdict. The
      function is compiled once for each plan and shapes, may be called under `jit`, and gives
      the sums of each sample under `vmap`.

    Examples:
      >>> import jax.numpy as jnp
      >>> import jaxlrp as lrp
      >>> ledger = lrp.ledger(lambda x: x @ jnp.ones((2, 1)) + 1.0, lrp.Epsilon(0.0))(jnp.ones(2))
      >>> print(f"{ledger.relevance_in:.3f} of {ledger.relevance_out:.3f}")
      2.000 of 3.000
    """
    request = _request(fn, rules, argnums, has_aux, wrt, layers)

    @_named_after(fn, "ledger")
    def kept(*args: PyTree, target: Target = None, **kwargs: PyTree) -> Ledger:
        check_values(args, kwargs)
        check_own_names(fn, args, {"target": target})
        traced = bound_call(request, args, kwargs)
        weights = traced.weights(target)
        shown = selected(traced, request.layers)
        return make_ledger(traced, weights, traced.plan.layers if request.layers is None else shown)

    return kept


# -- inside ------------------------------------------------------------------------------------


def _request(
    fn: Any,
    rules: RuleLike,
    argnums: ArgNums | None,
    has_aux: bool,
    wrt: Selector | None,
    layers: Selector | None,
    check_finite: bool = False,
) -> Request:
    check_function(fn, has_aux)
    numbers = normal_argnums(0 if argnums is None else argnums)
    both = wrt is not None and argnums is not None
    chosen = as_tuple(layers)
    return Request(fn, as_rule_map(rules), numbers, has_aux, wrt, chosen, check_finite, both=both)


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
    named += [(f"the result for layer {name!r}", r) for name, r in layers.items()]
    for name, tree in named:
        for leaf in jax.tree.leaves(tree):
            if leaf.dtype == jax.dtypes.float0:
                continue
            if compat.is_concrete(leaf) and not bool(jnp.all(jnp.isfinite(leaf))):
                raise NonFiniteError(
                    f"check_finite: {name} has NaN or infinite entries; look at the inputs and "
                    "at the parameters, or raise epsilon."
                )
