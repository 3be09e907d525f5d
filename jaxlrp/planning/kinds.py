"""The rule that a layer of each kind has if no entry of a rule map matches it."""

from __future__ import annotations

from jaxlrp.graph.groups import Group
from jaxlrp.rules import Detach, Epsilon, Follow, Pass, Rule, Taylor, Uniform, WinnerTakesAll

DEFAULTS: dict[str, Rule] = {
    "dense": Epsilon(),
    "conv": Epsilon(),
    "embed": Epsilon(),
    "affine": Epsilon(),
    "add": Epsilon(0.0),
    "avg_pool": Epsilon(0.0),
    "reduce": Epsilon(0.0),
    "matmul": Uniform(),
    "product": Uniform(),
    "activation": Pass(),
    "softmax": Taylor(),
    "norm": Detach(),
    "max_pool": WinnerTakesAll(),
}
MOVED, MIXED = Follow(), Epsilon(0.0)  # structural equations
COMPLEX = MIXED  # linear layers with complex values


def default_rule(group: Group) -> Rule:
    """The rule of a group that no entry matches."""
    if group.inner is not None:
        return MOVED
    if group.kind == "structural":
        return MIXED if group.transport == "linear" else MOVED
    return DEFAULTS.get(group.kind, MOVED)
