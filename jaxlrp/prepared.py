"""Parameters together with the arrays that rules make from them, computed once."""

# JAX's own annotations leave parts unknown.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from jaxlrp.errors import InputError
from jaxlrp.planning.plans import Plan
from jaxlrp.rules import Rule
from jaxlrp.run.bound_call import Ready
from jaxlrp.types import PyTree


@dataclasses.dataclass(frozen=True)
class Facts:
    """The plan and shapes for which parameters were prepared.

    Attributes:
      digests: the content of each value, for the program.
      texts: the same for people.
      shapes: name, dtype and shape of each parameter.
      layers: name and rule of each layer of the plan.
      left: names of equations within which nothing was computed in advance.
    """

    digests: tuple[str, ...]
    texts: tuple[str, ...]
    shapes: tuple[tuple[str, str], ...]
    layers: tuple[tuple[str, str], ...]
    left: tuple[str, ...]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, repr=False)
class Prepared:
    """Parameters with arrays that the rules made from them, from [`prepare`][jaxlrp.prepare].

    It is a pytree: it may be an argument of `jax.jit`, placed on devices by `jax.device_put`, and
    mapped by `jax.vmap`. `print` shows the values that it holds, and their size.

    Attributes:
      params: the parameters as they were given.
      values: the arrays that were computed from them.
      facts: the plan and the shapes for which they were prepared.
    """

    params: PyTree
    values: tuple[jax.Array, ...]
    facts: Facts = dataclasses.field(metadata={"static": True})

    def __repr__(self) -> str:
        return f"<{self._head()}>"

    def __str__(self) -> str:
        arrays = zip(self.values, self.facts.texts, strict=True)
        rows = [(_type(x), _size(_bytes(x)), text) for x, text in arrays]
        widths = [max((len(row[i]) for row in rows), default=0) for i in (0, 1)]
        lines = [f"  {a.ljust(widths[0])}  {b.rjust(widths[1])}  {c}" for a, b, c in rows]
        if self.facts.left:
            names = ", ".join(f"`{name}`" for name in self.facts.left)
            lines.append(f"  No value that is computed within {names} is held.")
        return "\n".join([f"{self._head()}{':' if lines else '.'}", *lines])

    def _head(self) -> str:
        held, own = sum(map(_bytes, self.values)), sum(map(_bytes, _arrays(self.params)))
        many = f"{len(self.values)} array{'' if len(self.values) == 1 else 's'}"
        return (
            f"Prepared for {len(self.facts.layers)} layers: {many} of {_size(held)} beside "
            f"parameters of {_size(own)}"
        )


def opened(
    args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], int | None, Prepared | None]:
    """The arguments with plain parameters, the position of these, and the prepared ones."""
    places = [n for n, arg in enumerate(args) if isinstance(arg, Prepared)]
    outer = [arg for n, arg in enumerate(args) if n not in places]
    leaves = jax.tree.leaves((outer, dict(kwargs)), is_leaf=lambda x: isinstance(x, Prepared))
    if len(places) > 1 or any(isinstance(leaf, Prepared) for leaf in leaves):
        raise InputError(
            "Prepared parameters were given by keyword, within another argument or several times; "
            "expected them once, in the place of the argument that they were prepared from: "
            "explain(fn, rules, argnums=1)(prepared, x)."
        )
    if not places:
        return args, None, None
    (place,) = places
    prepared = args[place]
    return (*args[:place], prepared.params, *args[place + 1 :]), place, prepared


def check_not_explained(params: int | None, explained: Sequence[int]) -> None:
    """Raise if the argument that holds the parameters is an explained one."""
    if params in explained:
        raise InputError(
            f"argument {params} is explained, so values that depend on it cannot be computed "
            "in advance; expected the parameters in another argument: "
            "prepare(fn, rules, argnums=1, params=0)(params, x)."
        )


def ready_for(
    plan: Plan,
    positions: Sequence[int],
    paths: Sequence[tuple[str, ...]],
    prepared: Prepared | None,
) -> Ready:
    """The values that are ready for a call with parameters at `positions` among its arrays."""
    number = {position: n for n, position in enumerate(positions)}
    names = ["/".join(paths[p]) or "params" for p in positions]
    values = {} if prepared is None else _values(prepared, plan, names)
    return Ready(tuple(map(number.get, range(len(paths)))), tuple(names), values)


def _values(prepared: Prepared, plan: Plan, names: Sequence[str]) -> dict[str, Any]:
    """The values by their digests, for a plan and parameters of these names."""
    facts = prepared.facts
    shapes = shapes_of(prepared.params, names)
    if len(facts.shapes) != len(shapes):
        raise InputError(
            f"{len(shapes)} of the parameters are arrays here, and {len(facts.shapes)} were when "
            "they were prepared. Numbers among them become arrays under jit: prepare them under "
            "jit too, jax.jit(prepare(fn, rules, ...))(params, x), or make arrays of them."
        )
    for mine, other in zip(facts.shapes, shapes, strict=True):
        if mine != other:
            raise InputError(
                f"The parameter {other[0]!r} is {other[1]}, but it was {mine[1]} when the "
                "parameters were prepared; prepare them again: prepare(fn, rules, ...)(params, "
                "x)."
            )
    for mine, other in zip(facts.layers, layers_of(plan), strict=False):
        if mine != other:
            raise InputError(
                f"The layer {other[0]!r} has {other[1]}, but the parameters were prepared for "
                f"{mine[1]} at {mine[0]!r} in its place; prepare them for this function and "
                "these rules: prepare(fn, rules, ...)(params, x)."
            )
    counts = len(facts.layers), len(plan.layers)
    if counts[0] != counts[1]:
        raise InputError(
            f"The parameters were prepared for a plan with {counts[0]} layers, and this one has "
            f"{counts[1]}; prepare them for this function: prepare(fn, rules, ...)(params, x)."
        )
    return dict(zip(facts.digests, prepared.values, strict=True))


def layers_of(plan: Plan) -> tuple[tuple[str, str], ...]:
    """The name and the rule of each layer; arrays in rules are given by their type."""
    return tuple((layer.name, _rule(layer.rule)) for layer in plan.layers)


def shapes_of(params: PyTree, names: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """The name and the type of each parameter."""
    return tuple(zip(names, map(_type, _arrays(params)), strict=True))


def _rule(rule: Rule) -> str:
    fields = dataclasses.fields(rule) if dataclasses.is_dataclass(rule) else ()
    given = ((f.name, f.default, getattr(rule, f.name)) for f in fields)
    shown = [
        f"{name}={_type(x) if hasattr(x, 'shape') else repr(x)}"
        for name, default, x in given
        if hasattr(x, "shape") or x != default
    ]
    return f"{type(rule).__name__}({', '.join(shown)})"


def _arrays(tree: PyTree) -> list[Any]:
    return [x for x in jax.tree.leaves(tree) if hasattr(x, "shape") and hasattr(x, "dtype")]


def _type(x: Any) -> str:
    return f"{x.dtype}[{','.join(map(str, x.shape))}]"


def _bytes(x: Any) -> int:
    return x.size * x.dtype.itemsize


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"
