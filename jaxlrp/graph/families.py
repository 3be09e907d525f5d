"""A table of the meanings of primitives, and sets of their names, which are views of it."""

from __future__ import annotations

import dataclasses
import itertools
import weakref
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from typing import Any

from jaxlrp.graph import layout, ranges

NONE: AbstractSet[int] = frozenset()


@dataclasses.dataclass(frozen=True)
class Row:
    """The meaning of a primitive.

    Attributes:
      families: the sets of names below to which it belongs.
      bounds: bounds of its exact outputs from those of its operands; None if they are unknown.
      ulps: by how many units in the last place a result may be off.
      layout: the axes of its operands in its output; None if all axes may vary.
      chooses: positions of operands that say which elements are taken, or where they go.
      choices: positions of outputs that are places (indices), not values.
      pairs: each output is made of the operand in its place alone.
      parts: whether its output is a part of its operand, or the operand in another order.
    """

    families: frozenset[str] = frozenset()
    bounds: ranges.Transfer | None = None
    ulps: float = 0.0
    layout: layout.Layouts | None = None
    chooses: AbstractSet[int] | range = NONE
    choices: AbstractSet[int] | range = NONE
    pairs: bool = False
    parts: bool = False


TABLE: dict[str, Row] = {}
_UNKNOWN = Row()


def row(name: str) -> Row:
    """The row of a primitive; an empty row if it is unknown."""
    return TABLE.get(name, _UNKNOWN)


def put(name: str, meaning: Row) -> None:
    """Give a primitive a row, or another one."""
    TABLE[name] = meaning
    for family in _families:
        family.forget()


class Family(AbstractSet[str]):
    """The names in a family, or in one of several: a view of the table."""

    def __init__(self, *parts: str | AbstractSet[str]):
        self._parts = parts
        self._known: dict[object, bool] = {}
        self._unions: dict[AbstractSet[Any], Family] = {}
        _families.add(self)

    def forget(self) -> None:
        """Look at the table anew: it was changed."""
        self._known.clear()

    def __contains__(self, name: object) -> bool:
        known = self._known.get(name)
        if known is None:
            families = TABLE[name].families if isinstance(name, str) and name in TABLE else NONE
            known = any(p in families if isinstance(p, str) else name in p for p in self._parts)
            self._known[name] = known
        return known

    def _names(self) -> frozenset[str]:
        others = (p for p in self._parts if not isinstance(p, str))
        return frozenset(itertools.chain((n for n in TABLE if n in self), *others))

    def __iter__(self) -> Iterator[str]:
        return iter(self._names())

    def __len__(self) -> int:
        return len(self._names())

    def __or__(self, other: AbstractSet[Any]) -> Family:
        key = other if isinstance(other, Family) else frozenset(other)
        if key not in self._unions:  # written within functions too: the same one each time
            self._unions[key] = Family(self, key)
        return self._unions[key]

    __ror__ = __or__

    def __hash__(self) -> int:
        return id(self)

    @classmethod
    def _from_iterable(cls, it: Any) -> frozenset[str]:  # what - and & give
        return frozenset(it)


_families: weakref.WeakSet[Family] = weakref.WeakSet()
