"""Checks of the arguments of a transformation, before anything is traced."""

from __future__ import annotations

import contextlib
import inspect
import operator
import types
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, SupportsIndex, TypeGuard

import jax
import numpy as np

from jaxlrp.errors import InputError

ArgNums = int | Sequence[int]


def normal_argnums(argnums: ArgNums) -> int | tuple[int, ...]:
    if isinstance(argnums, (tuple, list)):
        numbers = [operator.index(i) for i in argnums if _is_index(i)]
        if numbers and len(numbers) == len(argnums):
            return tuple(numbers)
    elif _is_index(argnums):
        return operator.index(argnums)
    raise InputError(
        f"argnums={shown(argnums)} was given; expected an int or a non-empty tuple of ints. The "
        "arguments of fn go to the function that is returned: explain(fn, rules)(*args)."
    )


def _is_index(i: Any) -> TypeGuard[SupportsIndex]:
    return isinstance(i, (int, np.integer)) and not isinstance(i, bool)


def shown(given: Any) -> str:
    """The given object, short enough for a message."""
    if hasattr(given, "shape") and hasattr(given, "dtype"):
        return f"{given.dtype}{list(given.shape)}"
    text = repr(given)
    return text if len(text) <= 80 else f"{text[:60]}... (a {type(given).__name__})"


def check_function(fn: Any, has_aux: bool) -> None:
    """Raise unless `fn` is something to call, and `has_aux` says yes or no."""
    if isinstance(fn, type):
        raise InputError(
            f"fn is the class {fn.__name__}; give a function from arrays to arrays that calls "
            "an instance of it."
        )
    if not callable(fn):
        raise InputError(
            f"fn={shown(fn)} was given, which is not callable; give the function itself, as "
            "in explain(fn, rules)(x), not its result."
        )
    if not isinstance(has_aux, (bool, np.bool_)):
        raise InputError(
            f"has_aux={shown(has_aux)} was given; expected True or False. The arguments of fn go "
            "to the function that is returned: explain(fn, rules)(*args)."
        )


def check_values(args: tuple[Any, ...], keywords: Mapping[str, Any]) -> None:
    """Raise if an argument is a shape although values are needed."""
    given = {**dict(enumerate(args)), **{f"{k!r}": v for k, v in keywords.items()}}
    for name, arg in given.items():
        if any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(arg)):
            raise InputError(
                f"argument {name} holds a jax.ShapeDtypeStruct, which has no values. `plan` takes "
                "it; for the shapes of an explanation write jax.eval_shape(explain(fn, rules), "
                "*args)."
            )


def check_own_names(fn: Any, args: tuple[Any, ...], used: Mapping[str, Any]) -> None:
    """Raise if a keyword of the explanation is also the name of a parameter of fn."""
    try:
        parameters = inspect.signature(fn).parameters
    except (ValueError, TypeError):
        return
    for name, value in used.items():
        own = parameters.get(name)
        if own is None or own.kind is own.VAR_POSITIONAL or own.kind is own.VAR_KEYWORD:
            continue
        by_position = own.kind is not own.KEYWORD_ONLY and list(parameters).index(name) < len(args)
        if not by_position and (value is not None or own.default is own.empty):
            raise InputError(
                f"fn has a parameter `{name}` of its own, but the keyword {name}= belongs to the "
                f"explanation and does not reach fn. Give fn's by position, or rename it: "
                f"explain(lambda x, own: fn(x, {name}=own), rules)(x, own)."
            )


def by_keyword(keywords: Iterable[str]) -> str:
    names = ", ".join(keywords)
    if not names:
        return ""
    return (
        f", and {names} by keyword. Explained arguments are given by position: "
        f"explain(fn, rules)({names.split(', ')[0]}), or explain(lambda a: fn("
        f"{names.split(', ')[0]}=a), rules)(a) where fn takes it by keyword alone"
    )


def closed_over_modules(fn: Any) -> Iterable[str]:
    """The names of modules that a function reads from outside: callables that hold arrays.

    A module is a callable object that is a pytree. The names are those in the function's text.
    """
    code, cells = getattr(fn, "__code__", None), getattr(fn, "__closure__", None) or ()
    if code is None:
        return
    outside = {name: fn.__globals__[name] for name in code.co_names if name in fn.__globals__}
    for name, cell in zip(code.co_freevars, cells, strict=True):
        with contextlib.suppress(ValueError):  # a variable without a value yet
            outside[name] = cell.cell_contents
    for name, value in outside.items():
        if callable(value) and not isinstance(value, (type, types.FunctionType)):
            leaves = jax.tree.leaves(value)
            if any(isinstance(leaf, (jax.Array, np.ndarray)) for leaf in leaves):
                yield name
