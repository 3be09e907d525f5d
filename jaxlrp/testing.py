"""Checks for rules of your own, and for functions whose explanations should be the same."""

# JAX's own annotations leave parts unknown.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from jaxlrp.errors import InputError
from jaxlrp.planning.rulemap import RuleLike, as_rule_map
from jaxlrp.rules import Rule
from jaxlrp.transforms import explain, ledger, relevance_vjp
from jaxlrp.types import PyTree

_EXACT = 1e-9  # float64: the same sums in another order
_SINGLE = 1e-3  # float32 against float64
# The same sums in another order in float32: 840 units in the last place. Random programs whose
# relevance does not depend on the last digit of the input stay within it (`make fuzz`).
_EXACT_SINGLE = 1e-4
_UNITS = 8  # in the last place, for dtypes with few digits

Dense: TypeAlias = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def check_rule(rule: Rule, dense: Dense | None = None, *, seed: int = 0) -> None:
    """Check a rule for layers with weights on small random layers.

    The check runs in float64 on a dense layer and on a convolution, each with a bias. Relevance
    must have the shape of the input and be finite. `jit`, `vmap` over examples and one example at a
    time must give the same. The sum that the ledger reports as arrived must be the sum of the
    relevance. The layer alone must give the same as the layer with a ReLU after it whose units are
    all open. Then float32 is compared with float64, to 1e-3 of the largest relevance.

    Args:
      rule: an instance of the rule.
      dense: the rule's definition, to compare with to 1e-9: a function `(x, w, b, r)` of one
        example's input of shape `(n,)`, weights `(n, m)`, biases `(m,)` and relevance at the output
        `(m,)`, in NumPy; it returns the relevance of the input, `(n,)`.
      seed: seed of the random layers.

    Raises:
      AssertionError: a comparison failed; the message names it and the difference.
      InputError: the rule does not fit layers with weights.

    Examples:
      >>> import jaxlrp as lrp
      >>> from jaxlrp.testing import check_rule
      >>> def definition(x, w, b, r):
      ...     contributions = x[:, None] * w
      ...     z = contributions.sum(0) + b
      ...     return (contributions / (z + 1e-6 * (2 * (z >= 0) - 1)) * r).sum(1)
      >>> check_rule(lrp.Epsilon(1e-6), dense=definition)
    """
    if not isinstance(rule, Rule):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InputError(f"check_rule needs an instance of a rule; {rule!r} was given.")
    if rule.fits is not None and not rule.fits & {"dense", "conv"}:
        fits = ", ".join(sorted(rule.fits))
        raise InputError(
            f"check_rule checks rules for layers with weights; {rule} fits layers of kind {fits}."
        )
    with jax.enable_x64(True):
        rng = np.random.default_rng(seed)
        for kind, fn, x in _layers(rng, np.float64):
            if rule.fits is None or kind in rule.fits:
                _check_layer(rule, kind, fn, x)
        if dense is not None:
            _check_definition(rule, dense, rng)
    _check_precision(rule, seed)


def assert_same_relevance(
    f: Callable[..., PyTree],
    g: Callable[..., PyTree],
    rules: RuleLike,
    *args: PyTree,
    tolerance: float | None = None,
    **options: Any,
) -> None:
    """Fail unless two functions of the same arguments have the same value and the same relevance.

    Args:
      f: a function.
      g: another function that should compute the same.
      rules: as for [`explain`][jaxlrp.explain].
      *args: their arguments.
      tolerance: largest difference, as a share of the largest entry. None chooses by the dtype of
        the relevance, or that of the values if it is coarser: 1e-9 for float64, 1e-4 for float32
        (840 units in the last place; sums of a thousand terms in another order differ by less) and
        8 units in the last place for bfloat16 and float16.
      **options: `target` goes to the relevance functions, everything else to `explain`.

    Raises:
      AssertionError: the functions differ; the message says in what, and by how much.

    Examples:
      >>> import jax, jax.numpy as jnp, jaxlrp as lrp
      >>> from jaxlrp.testing import assert_same_relevance
      >>> x = jnp.array([1.0, -2.0])
      >>> g = lambda x: jnp.where(x > 0, x, 0.0)
      >>> assert_same_relevance(jax.nn.relu, g, lrp.Epsilon(0.0), x)
    """
    target = options.pop("target", None)
    has_aux = options.get("has_aux", False)
    outputs = [fn(*args) for fn in (f, g)]
    values = [out[0] for out in outputs] if has_aux else outputs
    of_values = _tolerance(values) if tolerance is None else tolerance
    _assert_close(values[1], values[0], of_values, "the values of the two functions")
    found = [explain(fn, rules, **options)(*args, target=target) for fn in (f, g)]
    of_both = _tolerance((values, found)) if tolerance is None else tolerance
    _assert_close(found[1], found[0], of_both, "the relevance of the two functions")


def _tolerance(tree: PyTree) -> float:
    """How far numbers may differ if computed in another order, by the coarsest dtype."""
    dtypes = [jnp.result_type(leaf) for leaf in jax.tree.leaves(tree)]
    units = [_unit(d) for d in dtypes if jnp.issubdtype(d, jnp.floating)]
    unit = max(units, default=0.0)
    if unit > _unit(jnp.float32):
        return _UNITS * unit
    return _EXACT if unit < _EXACT else _EXACT_SINGLE


def _unit(dtype: Any) -> float:
    return 2.0 ** -jnp.finfo(dtype).nmant


def _layers(rng: Any, dtype: Any) -> list[tuple[str, Callable[[Any], Any], Any]]:
    w, b = _draw(rng, (6, 5), dtype), _draw(rng, (5,), dtype)
    kernel, c = _draw(rng, (3, 2, 3), dtype), _draw(rng, (3,), dtype)
    names = ("NWC", "WIO", "NWC")

    def conv(x: Any) -> Any:
        batch = x[None] if x.ndim == 2 else x
        z = jax.lax.conv_general_dilated(batch, kernel, (1,), "SAME", dimension_numbers=names) + c
        return z[0] if x.ndim == 2 else z

    return [
        ("dense", lambda x: x @ w + b, _draw(rng, (4, 6), dtype)),
        ("conv", conv, _draw(rng, (4, 5, 2), dtype)),
    ]


def _draw(rng: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    return jnp.asarray(rng.normal(size=shape), dtype)


def _check_layer(rule: Rule, kind: str, fn: Callable[[Any], Any], x: Any) -> None:
    rules = {kind: rule}
    relevance = explain(fn, rules)
    eager = relevance(x)
    where = f"{rule} in a {kind} layer"
    if eager.shape != x.shape:
        raise AssertionError(f"{where}: relevance has shape {eager.shape}, the input {x.shape}.")
    if not bool(jnp.isfinite(eager).all()):
        raise AssertionError(f"{where}: relevance is not finite.")
    _assert_close(jax.jit(relevance)(x), eager, _EXACT, f"{where}: jit and eager")
    _assert_close(jax.vmap(relevance)(x), eager, _EXACT, f"{where}: vmap and the batch")
    rows = jnp.concatenate([relevance(row[None]) for row in x])
    _assert_close(rows, eager, _EXACT, f"{where}: single examples and the batch")
    arrived = jnp.asarray(ledger(fn, rules)(x).relevance_in)
    scale = float(jnp.abs(eager).sum())
    _assert_close(arrived, eager.sum(), _EXACT, f"{where}: the ledger and the sum", scale)
    lift = 1.0 + jnp.abs(fn(x)).max()  # every unit of the ReLU is open
    high = functools.partial(_lifted, fn, lift)
    after: Any = jax.jit(explain(functools.partial(_rectified, high), rules))(x)
    _assert_close(after, explain(high, rules)(x), _EXACT, f"{where}: with and without a ReLU")


def _lifted(fn: Callable[[Any], Any], lift: Any, x: Any) -> Any:
    return fn(x) + lift


def _rectified(fn: Callable[[Any], Any], x: Any) -> Any:
    return jax.nn.relu(fn(x))


def _check_definition(rule: Rule, dense: Dense, rng: Any) -> None:
    w, b, x, r = (_draw(rng, s, np.float64) for s in ((6, 5), (5,), (4, 6), (4, 5)))

    def fn(x: Any) -> Any:
        return x @ w + b

    _, back = relevance_vjp(fn, as_rule_map({"dense": rule}), x)
    (ours,) = back(r)
    xs, weights, biases, rs = (np.asarray(a) for a in (x, w, b, r))
    theirs = np.stack([dense(xs[i], weights, biases, rs[i]) for i in range(len(xs))])
    _assert_close(ours, theirs, _EXACT, f"{rule} and its definition")


def _check_precision(rule: Rule, seed: int) -> None:
    found = {}
    for dtype in ("float64", "float32"):
        with jax.enable_x64(dtype == "float64"):
            _, fn, x = _layers(np.random.default_rng(seed), dtype)[0]
            found[dtype] = np.asarray(explain(fn, {"dense": rule})(x), np.float64)
    _assert_close(found["float32"], found["float64"], _SINGLE, f"{rule}: float32 and float64")


def _assert_close(
    actual: Any, expected: Any, tolerance: float, what: str, scale: float | None = None
) -> None:
    pairs = zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True)
    for a, e in pairs:
        a, e = np.asarray(a, np.float64), np.asarray(e, np.float64)
        if a.shape != e.shape:
            raise AssertionError(f"{what} differ in shape: {a.shape} and {e.shape}.")
        largest = max(abs(e).max(initial=0.0), scale or 0.0) or 1.0
        difference = abs(a - e).max(initial=0.0) / largest
        if not difference <= tolerance:  # NaN too
            raise AssertionError(
                f"{what} differ by {difference:.1e} of the largest entry; at most {tolerance:.0e} "
                "was allowed."
            )
