"""Code that the methods share: their surface, the explained values, the score of a target."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxlrp.errors import InputError
from jaxlrp.explained_function import as_function_of, output_weights
from jaxlrp.transforms import explain

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class Applied:
    """The function to which a method is applied, and the arguments of `explain` for it."""

    fn: Callable[..., Any]
    argnums: Any
    has_aux: bool
    wrt: Any


class Task:
    """One call of a method.

    Attributes:
      x: the explained values, a pytree.
      target: as it was given to the call.
      output: the shapes of the output.
      weights: one for each output, from the target; the score is the sum of weights * output.
    """

    def __init__(self, to: Applied, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]):
        at = as_function_of(to.fn, to.argnums, to.has_aux, wrt=to.wrt)
        self._to, self._args, self._kwargs = to, args, kwargs
        self.x, self._run = at(*args, **kwargs)
        self.target = target
        self.output = jax.eval_shape(self.run, self.x)
        self.weights = output_weights(target, self.output)

    def run(self, x: Any) -> Any:
        """The explained function at x, without aux."""
        result = self._run(x)
        return result[0] if self._to.has_aux else result

    @property
    def aux(self) -> Any:
        return self._run(self.x)[1]

    def explain(self, rules: Any, **options: Any) -> Any:
        """The result of `explain` for this call, without aux."""
        to = self._to
        argnums = to.argnums if to.wrt is None else None  # a method explains one or the other
        asked = explain(to.fn, rules, argnums, to.has_aux, wrt=to.wrt, **options)
        found = asked(*self._args, target=self.target, **self._kwargs)
        return found[0] if to.has_aux else found

    def scores(self, x: Any, examples: int = 0) -> Array:
        """The score at x, one for each place along the first `examples` axes."""
        parts = [
            jnp.sum(w * y.astype(w.dtype), axis=tuple(range(examples, y.ndim)))
            for w, y in zip(*map(jax.tree.leaves, (self.weights, self.run(x))), strict=True)
        ]
        return sum(parts[1:], parts[0])

    def score(self, x: Any) -> Array:
        """The sum of the chosen outputs, a scalar."""
        return self.scores(x)

    def gradient(self, x: Any) -> Any:
        """The score's derivative, float32 at least."""
        return jax.tree.map(wide, jax.grad(self.score)(x))

    def check_examples(self, examples: Any) -> int:
        """The number of axes that count examples, if it is possible."""
        if not isinstance(examples, int) or isinstance(examples, bool) or examples < 0:
            raise InputError(
                f"examples={examples!r}: expected the number of leading axes that count examples "
                "in the explained values and in the output alike, 0 or more."
            )
        heads = {tuple(y.shape[:examples]) for y in jax.tree.leaves((self.x, self.output))}
        if len(heads) > 1 or any(len(head) < examples for head in heads):
            shapes = [tuple(y.shape) for y in jax.tree.leaves(self.x)]
            outs = [tuple(y.shape) for y in jax.tree.leaves(self.output)]
            raise InputError(
                f"examples={examples}: the first {examples} axes of the explained values, of shape "
                f"{_listed(shapes)}, and of the output, {_listed(outs)}, must agree."
            )
        return examples

    def one_or_many(self, examples: int | None) -> int:
        """`examples` as given; if it is not given, 0, or an error if that would be ambiguous."""
        if examples is not None:
            return self.check_examples(examples)
        heads = [y.shape[0] for y in jax.tree.leaves((self.x, self.output)) if y.ndim > 0]
        batched = all(y.ndim > 1 for y in jax.tree.leaves(self.output))
        if batched and heads and heads[0] > 1 and len(set(heads)) == 1:
            raise InputError(
                f"The explained values and the output both have a first axis of size {heads[0]}: "
                "say examples=1 if it counts examples (then each has a score of its own), or "
                "examples=0 if all of it is one example."
            )
        return 0


def method(
    fn: Callable[..., Any], argnums: Any, has_aux: bool, wrt: Any, *, draws: bool = False
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Turn `body(task)` into a transformed `fn`, with `target` and aux as in `explain`.

    With `draws` it takes a `key` at the call and passes it to the body.
    """
    to = Applied(fn, argnums, has_aux, wrt)

    def decorate(body: Callable[..., Any]) -> Callable[..., Any]:
        name, of = body.__name__, getattr(fn, "__name__", type(fn).__name__)

        def transformed(*args: Any, target: Any = None, **kwargs: Any) -> Any:
            drawn = {"key": checked_key(kwargs.pop("key", None), name)} if draws else {}
            task = Task(to, target, args, kwargs)
            found = body(task, **drawn)
            return (found, task.aux) if has_aux else found

        transformed.__name__ = transformed.__qualname__ = f"{name}_{of}"
        transformed.__doc__ = f"{name} of {of}."
        return transformed

    return decorate


def checked_key(key: Any, name: str) -> Any:
    if key is None:
        raise InputError(f"{name} draws random numbers: give key=jax.random.key(0).")
    return key


def check_count(name: str, value: Any, least: int = 1) -> int:
    """Check a parameter that is a count."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InputError(f"{name}={value!r}: expected an integer of at least {least}.")
    return value


def wide(x: Any) -> Array:
    """An array as relevance: float32 at least."""
    x = jnp.asarray(x)
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def times(a: Any, b: Any) -> Any:
    """The product of two trees of arrays, float32 at least."""
    return jax.tree.map(lambda x, y: wide(x) * wide(y), a, b)


def minus(a: Any, b: Any) -> Any:
    """The difference of two trees of arrays."""
    return jax.tree.map(jnp.subtract, a, b)


def sums(tree: Any, examples: int = 0) -> Array:
    """The sum of all leaves over all axes except the first `examples`."""
    parts = [jnp.sum(x, axis=tuple(range(examples, x.ndim))) for x in jax.tree.leaves(tree)]
    return sum(parts[1:], parts[0])


def along(values: Array, like: Array) -> Array:
    """One value per example, shaped so that it broadcasts against an array with more axes."""
    return jnp.reshape(values, values.shape + (1,) * (like.ndim - values.ndim))


def filled(name: str, given: Any, x: Any) -> Any:
    """A baseline for x: a number, a tree of arrays that broadcast to x's, or a function of x."""
    given = given(x) if callable(given) else given
    leaves, tree = jax.tree.flatten(x)
    if jax.tree.structure(given) == tree:
        parts = jax.tree.leaves(given)
    elif jax.tree.structure(given) == jax.tree.structure(0) and jnp.ndim(given) == 0:
        parts = [given] * len(leaves)
    else:
        raise InputError(
            f"{name} has the structure {jax.tree.structure(given)}, the explained values {tree}; "
            "give one number, the same structure, or a function of the explained values."
        )
    return jax.tree.unflatten(tree, [_full(name, p, y) for p, y in zip(parts, leaves)])


def _full(name: str, part: Any, like: Array) -> Array:
    try:
        return jnp.broadcast_to(jnp.asarray(part, like.dtype), like.shape)
    except ValueError:
        raise InputError(
            f"{name} of shape {jnp.shape(part)} was given for values of shape {like.shape}; it "
            "must broadcast to them."
        ) from None


def set_of(name: str, given: Any, x: Any) -> tuple[Any, int]:
    """A set of values like x, counted by a first axis, and their number."""
    leaves, tree = jax.tree.flatten(x)
    parts = jax.tree.leaves(given)
    if jax.tree.structure(given) != tree:
        raise InputError(
            f"{name} has the structure {jax.tree.structure(given)}, the explained values {tree}; "
            "give arrays of the same structure with one more axis in front, that counts them."
        )
    full, counts = [], set()
    for part, leaf in zip(parts, leaves, strict=True):
        shape = jnp.shape(part)
        if len(shape) < 1 or len(shape) > leaf.ndim + 1 or shape[0] < 1:
            raise InputError(
                f"{name} of shape {shape} was given for values of shape {leaf.shape}; expected a "
                f"first axis that counts them, as (n, {', '.join(map(str, leaf.shape))})."
            )
        counts.add(shape[0])
        each = jnp.asarray(part, leaf.dtype)
        each = each.reshape(shape[0], *(1,) * (leaf.ndim + 1 - each.ndim), *shape[1:])
        try:
            full.append(jnp.broadcast_to(each, (shape[0], *leaf.shape)))
        except ValueError:
            raise InputError(
                f"{name} of shape {shape} was given for values of shape {leaf.shape}; after the "
                "first axis, that counts them, it must broadcast to these."
            ) from None
    if len(counts) > 1:
        raise InputError(f"{name}: the leaves count different numbers, {sorted(counts)}.")
    return jax.tree.unflatten(tree, full), counts.pop()


def _listed(shapes: list[tuple[int, ...]]) -> str:
    return ", ".join(map(str, shapes))
