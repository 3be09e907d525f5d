"""A plan: its layers, and the questions that it answers."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Literal, NoReturn

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from jaxlrp.errors import SelectorError
from jaxlrp.graph.examples import Examples
from jaxlrp.graph.ir import Graph, Value, is_low
from jaxlrp.graph.recognise import Recognised
from jaxlrp.planning.adjacency import layer_graph
from jaxlrp.planning.diagram import mermaid
from jaxlrp.planning.layers import Layer, group_of
from jaxlrp.planning.selectors import LayerGraph, Selector, resolve
from jaxlrp.planning.table import plan_html, plan_table


@dataclasses.dataclass(frozen=True)
class Note:
    """A remark of a plan on the function as a whole.

    Attributes:
      kind: `"random"` (random numbers reach layers), `"batch statistics"` (norms over the axis of
        examples), `"mixed examples"` (another statistic over that axis), `"static leaves"`
        (integers in an explained argument), `"shifted input"` (a shift of the explained input takes
        part as a bias), `"other examples"` (the rows of the output are those of an argument that
        is not explained), `"unnamed layers"` (fn reads a module from outside) or `"open path"`
        (relevance reaches the explained input past the layers that `condition=` masks; where those
        in `layers` are masked too, it does not).
      text: the remark, as the table shows it.
      layers: names of the layers to which it refers.
    """

    kind: str
    text: str
    layers: tuple[str, ...] = ()


class Plan:
    """The layers that were found, the rule of each, and why. `print(plan)` prints a table.

    A notebook shows it as a table of HTML.

    Attributes:
      layers: all layers in dataflow order, including structural ones, each a
        [`Layer`][jaxlrp.Layer].
      notes: remarks on the function as a whole, each a [`Note`][jaxlrp.Note]; the table ends with
        them.
    """

    def __init__(
        self, graph: Graph, explained: Sequence[Value], found: Recognised, layers: list[Layer]
    ):
        self.graph = graph
        self.explained = tuple(explained)
        self.found = found
        self.activity = found.facts.activity
        self.layers: tuple[Layer, ...] = tuple(layers)
        self.notes: tuple[Note, ...] = ()
        self.of_group = {group_of(layer): layer for layer in layers}
        self.edges: dict[Value, str] = {}
        self.seeds: dict[Value, str] = {}  # for each output: the quantity of its seed
        # The dtype with which integers that carry a value take part in relevance.
        wide = any(str(v.dtype) in ("float64", "complex128") for v in self.activity.reached)
        self.number_dtype = jnp.dtype(jnp.float64 if wide else jnp.float32)
        self.low_precision = any(
            is_low(v.dtype) for v in self.activity.reached if hasattr(v.aval, "dtype")
        )

    def relevance_dtype(self, dtype: DTypeLike) -> np.dtype:
        """The dtype of the relevance of values of a dtype."""
        if jnp.issubdtype(dtype, jnp.integer):
            return self.number_dtype
        return jnp.dtype(jnp.float32) if is_low(dtype) else jnp.dtype(dtype)

    def count(self, kind: str) -> int:
        """Number of layers of a kind."""
        return sum(layer.kind == kind for layer in self.layers)

    def select(self, selector: Selector) -> tuple[Layer, ...]:
        """The layers that a selector matches, in dataflow order.

        Raises:
          SelectorError: it matches none, or is ambiguous; of a list, one of its members.
        """
        found: set[int] = set()
        for part in selector if isinstance(selector, (list, tuple)) else (selector,):
            own = resolve(part, self.adjacency)
            if not own:
                kinds = ", ".join(dict.fromkeys(layer.kind for layer in self.layers)) or "none"
                raise SelectorError(
                    f"{part!r} matches no layer; the kinds of layers here are {kinds}."
                )
            found |= own
        return tuple(self.layers[i] for i in sorted(found))

    @functools.cached_property
    def adjacency(self) -> LayerGraph:
        """The layers, with the readers of each."""
        return layer_graph(self.layers, self.found, self.explained)

    @functools.cached_property
    def examples(self) -> Examples:
        """The axes of the examples of a batch, if the outputs do not mix them."""
        return Examples(self.graph, self.explained, self.seeds)

    def table(self, width: int | None = 100) -> str:
        """The plan as text: a row for each layer that does more than move elements.

        Args:
          width: letters in a line. Long names, rules and reasons are shortened in the middle, and
            the number of equations and the source are left out. None leaves nothing out.
        """
        return plan_table(self, width)

    def to_dicts(self) -> list[dict[str, str | int | list[int]]]:
        """One dict of strings, numbers and lists of numbers for each layer, also structural ones.

        The keys are `kind`, `name`, `shape`, `dtype`, `primitive`, `rule`, `why`, `folded` and
        `source`. `pandas.DataFrame` and `json.dumps` take the list as it is.
        """
        return [
            {
                "kind": layer.kind,
                "name": layer.name,
                "shape": list(layer.shape),
                "dtype": str(layer.dtype),
                "primitive": layer.primitive,
                "rule": str(layer.rule),
                "why": layer.why,
                "folded": layer.folded,
                "source": layer.source,
            }
            for layer in self.layers
        ]

    def draw(self, direction: Literal["TB", "LR", "BT", "RL"] = "TB") -> str:
        """The layers and their readers, as text in the language of Mermaid.

        Layers with the same rule have the same colour. Loops and layers that only move elements are
        left out: an arrow passes through them. GitHub, JupyterLab (in a Markdown cell) and the
        Mermaid command line turn the text into SVG; see
        [its documentation](https://mermaid.js.org/syntax/flowchart.html).

        Args:
          direction: the direction of the arrows: `"TB"` (down), `"LR"` (to the right), `"BT"` or
            `"RL"`.

        Raises:
          ValueError: the direction is another one.
        """
        if direction not in ("TB", "LR", "BT", "RL"):
            raise ValueError(f'direction must be "TB", "LR", "BT" or "RL", not {direction!r}')
        return mermaid(self, direction)

    def __str__(self) -> str:
        return self.table()

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "A Plan holds the equations of a traced function, which cannot be pickled. Keep "
            "plan.to_dicts() or str(plan), and the rule map, from which lrp.plan makes it again."
        )

    def _repr_html_(self) -> str:
        return plan_html(self)


def noted(plan: Plan, notes: tuple[Note, ...]) -> Plan:
    """A copy of the plan with the notes of one call, as the plan may be kept for other calls."""
    other = object.__new__(Plan)
    vars(other).update(vars(plan))
    other.notes = plan.notes + notes
    return other
