"""A layer as the plan has it: what was found, the rule it was given, and why."""

from __future__ import annotations

import dataclasses
from typing import Any

from jaxlrp.graph import control_flow
from jaxlrp.graph.groups import Group, around
from jaxlrp.graph.ir import Value
from jaxlrp.rules import Rule
from jaxlrp.rules.layer_view import Carries


@dataclasses.dataclass(eq=False, slots=True)
class Layer:
    """A row of the plan: one layer, its rule, and why it has that rule.

    Attributes:
      kind: what sort of layer (`"dense"`, `"conv"`, ...).
      name: where it is: named scopes, else the path of its parameters, else kind and ordinal.
      shape, dtype: of its output.
      primitive: name of the JAX primitive at its heart.
      rule: the relevance rule that it was given.
      why: the entry of the rule map that matched, or why the default applies.
      folded: how many equations form the layer.
    """

    kind: str
    name: str
    shape: tuple[int, ...]
    dtype: Any
    primitive: str
    rule: Rule
    why: str
    folded: int
    names: tuple[str, ...] = dataclasses.field(repr=False, default=())
    zero_at_zero: bool = dataclasses.field(repr=False, default=True)
    group: Group | None = dataclasses.field(repr=False, default=None)
    arriving: Carries = dataclasses.field(repr=False, default="density")
    carries: Carries = dataclasses.field(repr=False, default="density")
    nonnegative: bool = dataclasses.field(repr=False, default=False)
    sign_split: bool = dataclasses.field(repr=False, default=True)
    relu: Layer | None = dataclasses.field(repr=False, default=None)  # its only reader, a ReLU

    @property
    def source(self) -> str:
        """File and line that made it."""
        return group_of(self).main.source

    @property
    def gate(self) -> tuple[int | None, str]:
        """Of a product of two: the position of its gate, and what shows it."""
        return group_of(self).gate, group_of(self).gate_by

    @property
    def gates(self) -> tuple[int, ...]:
        """Of a product: the positions of its gates."""
        return group_of(self).gates

    @property
    def iterations(self) -> tuple[int, ...]:
        """Lengths of the scans around it, outermost first."""
        group = group_of(self)
        scans = [g.main for g in around(group) if g.main.name == "scan"]
        return tuple(control_flow.scan_length(eqn) for eqn in reversed(scans))

    @property
    def output(self) -> Value:
        assert self.group is not None
        return self.group.outputs[0]


def group_of(layer: Layer) -> Group:
    """The equations of a layer."""
    assert layer.group is not None
    return layer.group
