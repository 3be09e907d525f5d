"""A table of the meanings of primitives, and sets of their names, which are views of it."""

from __future__ import annotations

import dataclasses
import itertools
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


class Family(AbstractSet[str]):
    """The names in a family, or in one of several: a view of the table."""

    def __init__(self, *parts: str | AbstractSet[str]):
        self._parts = parts
        self._known: dict[object, tuple[Row | None, bool]] = {}  # with the row that it was then

    def __contains__(self, name: object) -> bool:
        meaning = TABLE.get(name) if isinstance(name, str) else None
        known = self._known.get(name)
        if known is None or known[0] is not meaning:
            families = NONE if meaning is None else meaning.families
            found = any(p in families if isinstance(p, str) else name in p for p in self._parts)
            known = self._known[name] = meaning, found
        return known[1]

    def _names(self) -> frozenset[str]:
        others = (p for p in self._parts if not isinstance(p, str))
        return frozenset(itertools.chain((n for n in TABLE if n in self), *others))

    def __iter__(self) -> Iterator[str]:
        return iter(self._names())

    def __len__(self) -> int:
        return len(self._names())

    def __or__(self, other: AbstractSet[Any]) -> Family:
        return Family(self, other)

    __ror__ = __or__

    def __hash__(self) -> int:
        return id(self)

    @classmethod
    def _from_iterable(cls, it: Any) -> frozenset[str]:  # what - and & give
        return frozenset(it)
