"""The ledger: relevance in and out of every layer, and what took the difference."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxlrp.planning.layers import Layer
from jaxlrp.planning.table import columns, html_table, wrapped


@dataclasses.dataclass(frozen=True)
class Entry:
    r"""The account of one layer, summed over the batch: a row of a [`Ledger`][jaxlrp.Ledger].

    $$R_{\text{out}} = R_{\text{in}} + R_{\text{bias}} + R_{\text{stabiliser}} + R_{\text{rule}}$$

    All are in units of the explained output.

    Attributes:
      name: name of the layer, as in the plan.
      kind: kind of the layer.
      rule: the rule of the layer, as text.
      relevance_out: relevance that arrives at the layer's output.
      relevance_in: relevance that leaves at the layer's inputs.
      bias: share of the bias in the denominator.
      stabiliser: share of epsilon.
    """

    name: str
    kind: str
    rule: str
    relevance_out: float
    relevance_in: float
    bias: float
    stabiliser: float

    @property
    def rule_loss(self) -> float:
        """The rest: outputs without a contribution of the sign asked for, a softmax's expansion,
        gradients.
        """
        return self.relevance_out - self.relevance_in - self.bias - self.stabiliser

    @property
    def loss(self) -> float:
        """All that was lost in the layer."""
        return self.relevance_out - self.relevance_in


@dataclasses.dataclass(frozen=True)
class Ledger:
    """Where relevance went. `print(ledger)` shows a table and a one-line verdict.

    A notebook shows it as a table of HTML.

    Attributes:
      layers: one entry for each layer, in dataflow order.
      relevance_out: relevance that was seeded at the output.
      relevance_in: relevance that arrived at the explained inputs.
    """

    layers: tuple[Entry, ...]
    relevance_out: float
    relevance_in: float

    @property
    def conservation(self) -> float:
        """relevance_in / relevance_out: 1 if nothing was lost on balance."""
        return self.relevance_in / self.relevance_out if self.relevance_out else float("nan")

    @property
    def verdict(self) -> str:
        """One line: how much arrived, and what took the rest."""
        total = abs(self.relevance_out)
        if total == 0:
            return "Nothing was seeded: the chosen output is 0."
        lost = 1 - self.conservation
        if abs(lost) < 1e-5:
            return f"Conserved: {self.conservation:.6f} of the seeded relevance arrived."
        takers = {
            "biases": sum(e.bias for e in self.layers),
            "stabilisers": sum(e.stabiliser for e in self.layers),
            "rules": sum(e.rule_loss for e in self.layers),
        }
        shares = ", ".join(f"{k} {v / self.relevance_out:+.1%}" for k, v in takers.items())
        worst = max(self.layers, key=lambda e: abs(e.loss), default=None)
        place = (
            f"; most in {worst.kind} {worst.name!r} ({worst.loss / self.relevance_out:+.1%})"
            if worst is not None
            else ""
        )
        return f"{self.conservation:.1%} of the seeded relevance arrived; taken by {shares}{place}."

    def table(self, width: int | None = 100) -> str:
        """The ledger as text: a row for each layer, the sums and the verdict.

        Args:
          width: letters in a line; long names and rules are cut in the middle. None cuts nothing.
        """
        text = columns(_HEADER, self._rows(), _RIGHT, width, shorten=(2, 1))
        return "\n".join([text, *(wrapped(line, width) for line in self._foot())])

    def to_dicts(self) -> list[dict[str, str | float]]:
        """One dict for each layer, of strings and floats: the attributes of an
        [`Entry`][jaxlrp.Entry], with `rule_loss` and `loss`.
        """
        return [
            dataclasses.asdict(entry) | {"rule_loss": entry.rule_loss, "loss": entry.loss}
            for entry in self.layers
        ]

    def __str__(self) -> str:
        return self.table()

    def _repr_html_(self) -> str:
        return html_table(_HEADER, self._rows(), _RIGHT, self._foot())

    def _rows(self) -> list[list[str]]:
        return [
            [
                e.kind,
                e.name,
                e.rule,
                *(f"{n:.6g}" for n in (e.relevance_out, e.relevance_in)),
                *(f"{n:.3g}" for n in (e.bias, e.stabiliser, _clean(e.rule_loss, e))),
            ]
            for e in self.layers
            if e.kind != "structural" or abs(e.loss) > 1e-5 * abs(self.relevance_out)
        ]

    def _foot(self) -> list[str]:
        return [f"seeded {self.relevance_out:.6g}, arrived {self.relevance_in:.6g}", self.verdict]


_HEADER = ("kind", "name", "rule", "R out", "R in", "bias", "stabiliser", "rule loss")
_RIGHT = (3, 4, 5, 6, 7)


def _clean(loss: float, entry: Entry) -> float:
    """The loss of a rule, or 0 where it is rounding: it is a difference of sums."""
    scale = max(abs(entry.relevance_out), abs(entry.relevance_in))
    return 0.0 if abs(loss) < 1e-6 * scale else loss


def make_ledger(
    accounts: Mapping[Layer, Any], layers: Sequence[Layer], seeded: Any, arrived: Any
) -> Ledger:
    """A ledger from the sums that the probes of the layers brought out."""
    entries: list[Entry] = []
    for layer in layers:
        out, in_, bias, stabiliser = (float(n) for n in np.asarray(accounts[layer]))
        entries.append(Entry(layer.name, layer.kind, str(layer.rule), out, in_, bias, stabiliser))
    return Ledger(tuple(entries), float(seeded), float(arrived))
