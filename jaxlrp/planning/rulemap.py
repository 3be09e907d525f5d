"""Rule maps: ordered mappings from selectors to rules, in which the last match wins."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from typing import Any, TypeAlias

from jaxlrp.errors import RuleError
from jaxlrp.graph.contents import Unknown, content
from jaxlrp.graph.kinds import kinds_that
from jaxlrp.planning.selectors import Selector, kind, selector_contents
from jaxlrp.rules import Rule

# The type of a mapping's keys is invariant: dict[str, Rule] is not a Mapping[Selector, Rule].
AnyMapping: TypeAlias = Mapping[Any, Rule]


class RuleMap(Mapping[Selector, Rule]):
    """An ordered mapping from selectors to rules; the last entry that matches a layer wins.

    `preset | {"**/head": Epsilon(0.1)}` adds entries after those of the preset, so it reads as an
    override. A rule map is immutable; printing it shows the entries in order. Rule maps and rules
    compare and hash by what they hold, arrays by content, so they can be static arguments of
    `jax.jit`.

    Args:
      entries: a mapping from [`Selector`][jaxlrp.Selector] to [`Rule`][jaxlrp.Rule].
      name: a name for the printed table.

    Raises:
      RuleError: a value is not an instance of a rule.

    Examples:
      >>> import jaxlrp as lrp
      >>> print(lrp.RuleMap({"conv": lrp.ZPlus(), "dense": lrp.Epsilon(0.1)}))
      RuleMap
        'conv'  -> ZPlus()
        'dense' -> Epsilon(epsilon=0.1)
    """

    def __init__(self, entries: AnyMapping | None = None, name: str = ""):
        self._entries: dict[Selector, Rule] = {}
        self.name = name
        for selector, rule in dict(entries or {}).items():
            if not isinstance(rule, Rule):
                raise RuleError(
                    f"{selector!r}: {rule!r} is not a rule; give an instance, for example "
                    "Epsilon()."
                )
            self._entries[selector] = rule

    def __getitem__(self, selector: Selector) -> Rule:
        return self._entries[selector]

    def __iter__(self) -> Iterator[Selector]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __eq__(self, other: object) -> bool:
        """Whether the entries are equal, and for two rule maps in the same order too."""
        if isinstance(other, RuleMap):
            return list(self._entries.items()) == list(other._entries.items())
        return self._entries == other if isinstance(other, Mapping) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self._entries.items()))

    def __or__(self, other: AnyMapping) -> RuleMap:
        if not isinstance(other, Mapping):
            return NotImplemented
        kept = {s: r for s, r in self._entries.items() if s not in other}
        name = f"{self.name} with overrides" if self.name else ""
        return RuleMap({**kept, **other}, name)

    def __ror__(self, other: AnyMapping) -> RuleMap:
        return RuleMap(other) | self

    def __repr__(self) -> str:
        return f"RuleMap({self._entries!r})"

    def __str__(self) -> str:
        title = f"RuleMap {self.name}".rstrip()
        width = max((len(repr(s)) for s in self._entries), default=0)
        rows = [f"  {s!r:<{width}} -> {r}" for s, r in self._entries.items()]
        return "\n".join([title, *rows])


RuleLike: TypeAlias = RuleMap | AnyMapping | Rule
"""The rules of the layers: a [`RuleMap`][jaxlrp.RuleMap], a mapping from
[`Selector`][jaxlrp.Selector] to [`Rule`][jaxlrp.Rule], or one rule for every linear layer."""


def as_rule_map(rules: RuleLike) -> RuleMap:
    """A rule map from a rule map, any mapping, or one rule for every linear layer."""
    if isinstance(rules, RuleMap):
        return rules
    if isinstance(rules, Rule):
        return RuleMap({kind(k): rules for k in sorted(kinds_that("linear"))}, name=str(rules))
    if isinstance(rules, Mapping):
        return RuleMap(rules)
    given = f"{rules!r} of type {type(rules).__name__}"
    if hasattr(rules, "shape") and hasattr(rules, "dtype"):
        given = f"An array of shape {tuple(rules.shape)}"
    raise RuleError(
        f"{given} is not a rule map; give a rule, a mapping selector -> rule, or one of "
        f"jaxlrp.composites.{_hint(rules)}"
    )


def rules_contents(rules: RuleMap) -> Hashable:
    """Equal for two rule maps only if they give every layer of every plan the same rule.

    Raises:
      Unknown: a rule or a selector cannot be compared, or is of a class made inside a function:
        its methods may close over arrays, or over names whose values change.
    """
    if any("<locals>" in type(rule).__qualname__ for rule in rules.values()):
        raise Unknown
    entries = tuple(
        (selector_contents(selector), type(rule), content(vars(rule)))
        for selector, rule in rules.items()
    )
    return rules.name, entries


def _hint(given: Any) -> str:
    name = getattr(given, "__name__", "")
    if isinstance(given, type) and issubclass(given, Rule):
        return f" This is the class: write {name}()."
    if callable(given) and name and not isinstance(given, type):
        return (
            f" If {name} makes one, call it: {name}(). If it is the function to explain, it comes "
            "first: explain(fn, rules)."
        )
    return " The order is explain(fn, rules)(*args)."
