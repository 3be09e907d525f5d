"""Selectors: the layers that an entry of a rule map, or of `layers=`, refers to."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import re
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TypeAlias

from jaxlrp import compat
from jaxlrp.errors import SelectorError
from jaxlrp.graph.contents import Unknown
from jaxlrp.graph.kinds import KINDS
from jaxlrp.planning.layers import Layer
from jaxlrp.planning.synonyms import meaning_of


@dataclasses.dataclass(frozen=True)
class LayerSelector:
    """Base class of the selectors that are built by functions: `first`, `last`, `all_of`, ...

    They are frozen dataclasses, whose `select` reads only its fields and the layers.
    """

    def select(self, layers: LayerGraph) -> frozenset[int]:
        """Indices of the layers that match."""
        raise NotImplementedError


_One: TypeAlias = str | compat.Primitive | Callable[[Layer], object] | LayerSelector
Selector: TypeAlias = _One | Sequence[_One]
"""A description of layers.

A kind (`"conv"`), a glob over names (`"**/Block_*/Conv_0"`), a JAX primitive or its name, a
function that is true of a [`Layer`][jaxlrp.Layer], or the result of [`kind`][jaxlrp.kind],
[`first`][jaxlrp.first], [`last`][jaxlrp.last], [`all_of`][jaxlrp.all_of] and
[`inside`][jaxlrp.inside]. A list or tuple of these means the layers of all of them.
"""


@dataclasses.dataclass(frozen=True)
class LayerGraph:
    """Layers in dataflow order, with the readers of each."""

    layers: Sequence[Layer]
    feeds: Sequence[Sequence[int]]  # per layer: the layers that read its output
    makers: Sequence[Sequence[Sequence[int]]]  # per layer and input: the layers that made it
    entries: frozenset[tuple[int, int]]  # layers, each with an input that is an explained value
    sinks: frozenset[int]  # layers whose output is an output of the function
    bare: bool = False  # whether an explained value is itself an output

    @property
    def sources(self) -> frozenset[int]:
        """Layers that read an explained value."""
        return frozenset(layer for layer, _ in self.entries)


@dataclasses.dataclass(frozen=True)
class Kind(LayerSelector):
    """All layers of a kind, even if a layer has the kind's word as its name."""

    kind: str

    def select(self, layers: LayerGraph) -> frozenset[int]:
        return frozenset(i for i, layer in enumerate(layers.layers) if layer.kind == self.kind)

    def __repr__(self) -> str:
        return f"kind({self.kind!r})"


@dataclasses.dataclass(frozen=True)
class _Union(LayerSelector):
    parts: tuple[Selector, ...]

    def select(self, layers: LayerGraph) -> frozenset[int]:
        return frozenset().union(*(resolve(p, layers) for p in self.parts))


@dataclasses.dataclass(frozen=True)
class _First(_Union):
    def select(self, layers: LayerGraph) -> frozenset[int]:
        return _frontier(super().select(layers), layers.feeds, layers.sources)

    def __repr__(self) -> str:
        return f"first({', '.join(map(repr, self.parts))})"


@dataclasses.dataclass(frozen=True)
class _Last(_Union):
    def select(self, layers: LayerGraph) -> frozenset[int]:
        fed_by: list[list[int]] = [[] for _ in layers.layers]
        for index, readers in enumerate(layers.feeds):
            for reader in readers:
                fed_by[reader].append(index)
        return _frontier(super().select(layers), fed_by, layers.sinks)

    def __repr__(self) -> str:
        return f"last({', '.join(map(repr, self.parts))})"


@dataclasses.dataclass(frozen=True)
class _AllOf(LayerSelector):
    parts: tuple[Selector, ...]

    def select(self, layers: LayerGraph) -> frozenset[int]:
        found = [resolve(p, layers) for p in self.parts]
        return frozenset.intersection(*found)

    def __repr__(self) -> str:
        return f"all_of({', '.join(map(repr, self.parts))})"


@dataclasses.dataclass(frozen=True)
class _Inside(LayerSelector):
    scope: str

    def select(self, layers: LayerGraph) -> frozenset[int]:
        found = frozenset(
            i
            for i, layer in enumerate(layers.layers)
            if any(_inside(self.scope, name) for name in layer.names)
        )
        if not found:
            raise _nothing(repr(self), self.scope, layers)
        return found

    def __repr__(self) -> str:
        return f"inside({self.scope!r})"


def kind(name: str) -> Selector:
    """All layers of a kind; unlike the bare word it is never read as a name.

    Args:
      name: a kind, for example `"conv"`.

    Raises:
      SelectorError: the kind is not known.

    Examples:
      >>> import jaxlrp as lrp
      >>> rules = lrp.RuleMap({lrp.kind("conv"): lrp.ZPlus()})
    """
    if name not in KINDS:
        raise SelectorError(
            f"kind({name!r}): unknown kind; the kinds are {', '.join(KINDS)}."
            f"{meaning_of(str(name), KINDS)}"
        )
    return Kind(name)


def first(*selectors: Selector) -> Selector:
    """Those of the selected layers that are reached first from an explained value, by dataflow.

    No other member lies between them and the explained values. Two input branches have two first
    layers.

    Args:
      *selectors: selectors whose layers are put together.

    Raises:
      SelectorError: no selector was given, or one matches no layer.

    Examples:
      >>> import jaxlrp as lrp
      >>> rules = lrp.RuleMap({lrp.first("conv", "dense"): lrp.Flat()})
    """
    return _First(_some(selectors, "first"))


def last(*selectors: Selector) -> Selector:
    """Those of the selected layers that are reached first from an output, by dataflow.

    No other member lies between them and an output.

    Args:
      *selectors: selectors whose layers are put together.

    Raises:
      SelectorError: no selector was given, or one matches no layer.
    """
    return _Last(_some(selectors, "last"))


def all_of(*selectors: Selector) -> Selector:
    """Layers that every one of the selectors matches.

    Args:
      *selectors: selectors whose layers are intersected.

    Raises:
      SelectorError: no selector was given, or one matches no layer.
    """
    return _AllOf(_some(selectors, "all_of"))


def inside(scope: str) -> Selector:
    """Layers at or below a scope.

    Args:
      scope: a glob over names, for example `"**/Block_3"`; `*` stays within one part of a name,
        `**` crosses any number of parts.

    Raises:
      SelectorError: there is no such layer.
    """
    return _Inside(scope)


def _some(selectors: tuple[Selector, ...], name: str) -> tuple[Selector, ...]:
    if not selectors:
        raise SelectorError(f"{name}() needs at least one selector, for example {name}('conv').")
    return selectors


def is_broad(selector: Selector) -> bool:
    """Whether a selector names a part of a network (a wildcard glob, `inside`), not layers."""
    if isinstance(selector, (list, tuple)):
        return any(map(is_broad, selector))
    return isinstance(selector, _Inside) or (
        isinstance(selector, str) and any(c in selector for c in "*?")
    )


def selector_contents(selector: Selector | None) -> Hashable:
    """Equal for two selectors only if they match the same layers of every plan.

    Raises:
      Unknown: the selector is a function of the user's own, which may read anything.
    """
    if isinstance(selector, LayerSelector):
        fields = (getattr(selector, field.name) for field in dataclasses.fields(selector))
        known = (f if isinstance(f, int) else selector_contents(f) for f in fields)
        return type(selector), tuple(known)
    if isinstance(selector, (list, tuple)):
        return type(selector), tuple(map(selector_contents, selector))
    if selector is None or isinstance(selector, str):
        return selector
    if compat.is_primitive(selector):
        return selector
    raise Unknown


def resolve(selector: Selector, layers: LayerGraph) -> frozenset[int]:
    """Indices of the layers that a selector matches; an error if a word matches none."""
    if isinstance(selector, LayerSelector):
        return selector.select(layers)
    if compat.is_primitive(selector):
        return _by_primitive(selector.name, layers)
    if isinstance(selector, str):
        return _by_word(selector, layers)
    if isinstance(selector, (list, tuple)):
        return frozenset().union(*(resolve(part, layers) for part in selector))
    if isinstance(selector, type):
        name = selector.__name__
        raise SelectorError(
            f"The class {name} was given as a selector, but a plan does not record classes. "
            "Give a kind (such as 'conv' or 'dense'), or a glob over the names of the layers, "
            f"such as '**/{name}*'; print(jaxlrp.plan(fn, {{}})(*args)) shows all."
        )
    if callable(selector):
        return _by_callable(selector, layers)
    raise SelectorError(
        f"{selector!r} of type {type(selector).__name__} is not a selector; give a kind, a name "
        "glob, a JAX primitive, a callable Layer -> bool, first/last/all_of/inside of these, or a "
        "list of these."
    )


def _by_word(word: str, layers: LayerGraph) -> frozenset[int]:
    named = frozenset(
        i for i, layer in enumerate(layers.layers) if any(_is_named(word, n) for n in layer.names)
    )
    if word in KINDS:
        by_kind = Kind(word).select(layers)
        if named and named != by_kind:
            raise SelectorError(
                f"{word!r} is ambiguous: it is a kind, and the name of "
                f"{layers.layers[min(named)].name!r}. Write kind({word!r}) for the kind, or "
                f"lambda layer: layer.name == {word!r} for the name."
            )
        return by_kind
    if named:
        return named
    if word in compat.primitive_names() or any(y.primitive == word for y in layers.layers):
        return _by_primitive(word, layers)
    raise _nothing(repr(word), word, layers)


def _by_primitive(name: str, layers: LayerGraph) -> frozenset[int]:
    found = frozenset(i for i, layer in enumerate(layers.layers) if layer.primitive == name)
    if not found:
        present = ", ".join(sorted({layer.primitive for layer in layers.layers}))
        raise SelectorError(
            f"No layer is built on the primitive {name!r}; the primitives here are {present}."
        )
    return found


def _by_callable(selector: Callable[[Layer], object], layers: LayerGraph) -> frozenset[int]:
    name = getattr(selector, "__name__", repr(selector))
    try:
        found = frozenset(i for i, layer in enumerate(layers.layers) if selector(layer))
    except Exception as error:  # a user's function may raise anything
        said = str(error).partition("\n")[0]
        raise SelectorError(
            f"The callable selector {name} failed on a layer ({type(error).__name__}: {said}). "
            "It is called with each Layer of the plan and returns whether to select it; a function "
            "of arrays is selected by its kind ('activation'), its primitive ('dot_general', "
            "jax.lax.dot_general_p) or a name."
        ) from error
    if not found:
        raise SelectorError(
            f"The callable selector {name} is false for all {len(layers.layers)} layers; "
            "print(jaxlrp.plan(fn, rules)(*args)) shows them."
        )
    return found


def _nothing(shown: str, word: str, layers: LayerGraph) -> SelectorError:
    names = sorted({n for layer in layers.layers for n in layer.names})
    meant = meaning_of(word, {layer.kind for layer in layers.layers})
    cutoff = 0.75 if meant else 0.4
    near = difflib.get_close_matches(word, [*names, *KINDS], n=3, cutoff=cutoff)
    hint = f" Did you mean {', '.join(map(repr, near))}?" if near else ""
    if not near and names:
        more = ", ..." if len(names) > 8 else ""
        hint = f" The names here are {', '.join(map(repr, names[:8]))}{more}."
    return SelectorError(
        f"{shown} matches no layer: no kind, name or primitive here is called that.{meant}{hint}"
    )


def _frontier(
    members: frozenset[int], feeds: Sequence[Sequence[int]], starts: Iterable[int]
) -> frozenset[int]:
    """Members that are reached without passing another; the graph may have cycles."""
    stack, seen, found = list(starts), set(), set()
    while stack:
        index = stack.pop()
        if index in seen:
            continue
        seen.add(index)
        if index in members:
            found.add(index)
        else:
            stack.extend(feeds[index])
    return frozenset(found)


def matches(glob: str, name: str) -> bool:
    """Glob match on names: `*` stays within one scope, `**` crosses them."""
    return _compiled(glob).fullmatch(name) is not None


def _is_named(glob: str, name: str) -> bool:
    """Whether a glob matches a layer: any use of it, or with `#` one use; `name#0` is the first."""
    use = _USE.search(name)
    if "#" in glob:
        return matches(glob, name if use else f"{name}#0")
    return matches(glob, name[: use.start()] if use else name)


_USE = re.compile(r"#\d+$")


def _inside(glob: str, name: str) -> bool:
    parts = _USE.sub("", name).split("/")
    return any(matches(glob, "/".join(parts[: i + 1])) for i in range(len(parts)))


_WILD = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}


@functools.cache
def _compiled(glob: str) -> re.Pattern[str]:
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", glob)
    return re.compile("".join(_WILD.get(part, re.escape(part)) for part in parts))
