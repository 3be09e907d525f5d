"""Rule maps: selector -> rule, in order; the last match wins."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from jaxlrp.errors import RuleError
from jaxlrp.graph.kinds import kinds_that
from jaxlrp.planning.selectors import kind
from jaxlrp.rules import Rule


class RuleMap(Mapping[Any, Rule]):
    """An ordered mapping from selectors to rules; of several that match a layer the last wins.

    `preset | {"**/head": Epsilon(0.1)}` adds entries behind the preset's own, so it reads as an
    override. Immutable; printing shows the entries in order.

    >>> import jaxlrp as lrp
    >>> print(lrp.RuleMap({"conv": lrp.ZPlus(), "dense": lrp.Epsilon(0.1)}))
    RuleMap
      'conv'  -> ZPlus()
      'dense' -> Epsilon(epsilon=0.1)
    """

    def __init__(self, entries: Mapping[Any, Rule] | None = None, name: str = ""):
        self._entries: dict[Any, Rule] = {}
        self.name = name
        for selector, rule in dict(entries or {}).items():
            if not isinstance(rule, Rule):
                raise RuleError(
                    f"{selector!r}: {rule!r} is no rule; give an instance, for example Epsilon()."
                )
            self._entries[selector] = rule

    def __getitem__(self, selector: Any) -> Rule:
        return self._entries[selector]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __or__(self, other: Mapping[Any, Rule]) -> RuleMap:
        if not isinstance(other, Mapping):
            return NotImplemented
        kept = {s: r for s, r in self._entries.items() if s not in other}
        name = f"{self.name} with overrides" if self.name else ""
        return RuleMap({**kept, **other}, name)

    def __ror__(self, other: Mapping[Any, Rule]) -> RuleMap:
        return RuleMap(other) | self

    def __repr__(self) -> str:
        return f"RuleMap({self._entries!r})"

    def __str__(self) -> str:
        title = f"RuleMap {self.name}".rstrip()
        width = max((len(repr(s)) for s in self._entries), default=0)
        rows = [f"  {s!r:<{width}} -> {r}" for s, r in self._entries.items()]
        return "\n".join([title, *rows])


def as_rule_map(rules: Any) -> RuleMap:
    """A rule map from a rule map, any mapping, or a bare rule (for every linear layer)."""
    if isinstance(rules, RuleMap):
        return rules
    if isinstance(rules, Rule):
        return RuleMap({kind(k): rules for k in sorted(kinds_that("linear"))}, name=str(rules))
    if isinstance(rules, Mapping):
        return RuleMap(rules)
    raise RuleError(
        f"{rules!r} of type {type(rules).__name__} is no rule map; give a rule, a mapping "
        "selector -> rule, or one of jaxlrp.composites."
    )
