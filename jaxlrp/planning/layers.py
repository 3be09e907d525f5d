"""A layer of the plan: its equations, its rule, and why it has that rule."""

from __future__ import annotations

import dataclasses
from typing import NoReturn

import numpy as np

from jaxlrp.graph import control_flow
from jaxlrp.graph.groups import Group, around
from jaxlrp.graph.ir import Value
from jaxlrp.graph.particulars import Product
from jaxlrp.rules import Rule
from jaxlrp.rules.layer_view import Carries


@dataclasses.dataclass(eq=False, slots=True)
class Layer:
    """A row of the plan: one layer, its rule, and why it has that rule.

    Attributes:
      kind: kind of the layer (`"dense"`, `"conv"`, ...).
      name: the place of the layer: the named scopes around it, else the path of its parameters,
        else its kind and number.
      shape: shape of its output.
      dtype: dtype of its output.
      primitive: name of the main JAX primitive of the layer.
      rule: the relevance rule that it was given.
      why: the entry of the rule map that matched, or why the default applies.
      folded: number of equations that form the layer.
    """

    kind: str
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
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

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "A Layer holds the equations of a traced function, which cannot be pickled. Keep its "
            "name, or plan.to_dicts()."
        )

    @property
    def source(self) -> str:
        """File and line at which the layer was written."""
        return group_of(self).main.source

    @property
    def gate(self) -> tuple[int | None, str]:
        """Position of the gate of a product of two, or None, and the reason why it is the gate."""
        return group_of(self).gate, group_of(self).particulars_as(Product).gate_by

    @property
    def gates(self) -> tuple[int, ...]:
        """Positions of the gates of a product."""
        return group_of(self).particulars_as(Product).gates

    @property
    def n_inputs(self) -> int:
        """The number of active inputs."""
        return len(group_of(self).inputs)

    @property
    def iterations(self) -> tuple[int, ...]:
        """Lengths of the scans around the layer, outermost first."""
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


def is_in_branch(layer: Layer) -> bool:
    """Whether a layer is inside a branch of a `cond` or `switch`, which may not be taken."""
    return any(g.main.name == "cond" for g in around(group_of(layer)))
