"""The ledger: relevance in and out of every layer, and what took the difference."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from jaxlrp import compat
from jaxlrp.errors import InputError
from jaxlrp.planning.layers import Layer
from jaxlrp.planning.table import columns, html_table, wrapped
from jaxlrp.rules import Rule
from jaxlrp.run import totals
from jaxlrp.run.bound_call import BoundCall
from jaxlrp.run.probes import ACCOUNT
from jaxlrp.run.reuse import compiled

# A float; an array under a transformation, and after `vmap`.
Number: TypeAlias = Any


@dataclasses.dataclass(frozen=True)
class Entry:
    r"""The account of one layer, summed over the batch: a row of a [`Ledger`][jaxlrp.Ledger].

    $$R_{\text{out}} = R_{\text{in}} + R_{\text{bias}} + R_{\text{stabiliser}} +
      R_{\text{constants}} + R_{\text{rule}}$$

    All are in units of the explained output. They are floats, or arrays with the axis over which
    the ledger was mapped.

    Attributes:
      name: name of the layer, as in the plan.
      kind: kind of the layer.
      rule: the rule of the layer, as text, with its epsilon.
      relevance_out: relevance that arrives at the layer's output.
      relevance_in: relevance that leaves at the layer's inputs.
      bias: share of the bias in the denominator.
      stabiliser: share of epsilon.
      constants: relevance that reaches values that it does not follow further, such as a constant
        that is concatenated, the start of a loop, or a value under `stop_gradient`.
      gross_out: sum of |R| at the layer's output.
      gross_in: sum of |R| at the layer's inputs.
    """

    name: str
    kind: str
    rule: str
    relevance_out: Number
    relevance_in: Number
    bias: Number
    stabiliser: Number
    constants: Number
    gross_out: Number
    gross_in: Number

    @property
    def rule_loss(self) -> Number:
        """The rest: outputs without a contribution of the required sign, the expansion of a
        softmax, gradients.
        """
        return self.loss - self.bias - self.stabiliser - self.constants

    @property
    def loss(self) -> Number:
        """The relevance that was lost in the layer."""
        return self.relevance_out - self.relevance_in


@dataclasses.dataclass(frozen=True)
class _Row:
    """The fields of an entry that are not numbers."""

    name: str
    kind: str
    rule: str


@dataclasses.dataclass(frozen=True, eq=False)
class Ledger:
    r"""Where relevance went. `print(ledger)` shows a table and a one-line verdict.

    A notebook shows it as a table of HTML. A ledger is a pytree of sums over the examples:
    functions under `jit`, `vmap` and `scan` may return it, and the ledgers of the batches of a data
    set can be added by `+` or `sum`. After `vmap` its numbers have the axis that was mapped; the
    table and the verdict are those of the sum over it.

    Attributes:
      layers: one [`Entry`][jaxlrp.Entry] for each layer, in the direction in which relevance flows:
        from the output to the input.
      relevance_out: the relevance that was seeded at the output.
      relevance_in: the relevance that arrived at the explained inputs.
      gross_out: sum of |R| over the seeded outputs.
      gross_in: sum of |R| over the explained inputs. It is larger than |relevance_in| if positive
        and negative relevance cancel.
      conservation: relevance_in / relevance_out: 1 if nothing was lost on balance.
      samples: number of samples: the entries of the first axis if each output depends on only one
        of them, else 1.
      share: the share of the seeded relevance that arrived, computed for each sample n separately:
        $\sum_n \text{sgn}(R_{\text{out},n}) R_{\text{in},n} / \sum_n |R_{\text{out},n}|$.
      spread: how far the samples are from conserving:
        $\sum_n |R_{\text{out},n} - R_{\text{in},n}| / \sum_n |R_{\text{out},n}|$.
      verdict: one line: how much arrived, and what took the rest.
    """

    _about: tuple[_Row, ...]
    _accounts: Any  # (*mapped, layers, 2, entries of an account): sums, and sums by sign
    _totals: Any  # (*mapped, entries of the totals)

    @functools.cached_property
    def layers(self) -> tuple[Entry, ...]:
        accounts = _array(self._accounts)
        return tuple(
            Entry(
                *dataclasses.astuple(row),
                *(_number(accounts[..., n, 0, k]) for k in range(len(ACCOUNT))),
            )
            for n, row in enumerate(self._about)
        )

    @property
    def relevance_out(self) -> Number:
        return self._total("relevance_out")

    @property
    def relevance_in(self) -> Number:
        return self._total("relevance_in")

    @property
    def gross_out(self) -> Number:
        return self._total("gross_out")

    @property
    def gross_in(self) -> Number:
        return self._total("gross_in")

    @property
    def samples(self) -> Number:
        found = self._total("samples")
        return int(found) if isinstance(found, float) else found

    @property
    def conservation(self) -> Number:
        return _ratio(self.relevance_in, self.relevance_out)

    @property
    def share(self) -> Number:
        return _ratio(self._total("arrived"), self._total("size"))

    @property
    def spread(self) -> Number:
        return _ratio(self._total("apart"), self._total("size"))

    @property
    def verdict(self) -> str:
        return self.summed()._judged()

    def summed(self) -> Ledger:
        """The ledger of all samples, made from a ledger whose numbers have mapped axes."""
        mapped = tuple(range(jnp.ndim(self._totals) - 1))
        if not mapped:
            return self
        return Ledger(self._about, self._accounts.sum(mapped), self._totals.sum(mapped))

    def __add__(self, other: Ledger) -> Ledger:
        if self._about != other._about:
            raise InputError(
                f"ledgers of different plans were added: {_difference(self._about, other._about)}. "
                "Only ledgers of one function under one rule map can be added."
            )
        accounts, sums = self._accounts + other._accounts, self._totals + other._totals
        return Ledger(self._about, accounts, sums)

    def __radd__(self, other: object) -> Ledger:
        return self if isinstance(other, int) and other == 0 else NotImplemented  # `sum` begins so

    def table(self, width: int | None = 100) -> str:
        """The ledger as text: a row for each layer, the sums and the verdict.

        Args:
          width: letters in a line. Long names and rules are shortened in the middle, and columns
            that contain only 0 and the sums of |R| are left out. None shortens nothing.
        """
        ledger = self.summed()
        rows, foot = ledger._rows(), ledger._foot()
        header: list[str] = list(_HEADER)
        if width is not None:
            empty = {i for i in _LOSSES if all(row[i] == "0" for row in rows)}
            kept = [i for i in range(len(header)) if i not in empty | _GROSS]
            header = [header[i] for i in kept]
            rows = [[row[i] for i in kept] for row in rows]
        text = columns(header, rows, range(3, len(header)), width, shorten=(2, 1))
        return "\n".join([text, *(wrapped(line, width) for line in foot)])

    def to_dicts(self) -> list[dict[str, str | float]]:
        """One dict for each layer, of strings and floats: the attributes of an
        [`Entry`][jaxlrp.Entry], with `rule_loss` and `loss`.
        """
        return [
            dataclasses.asdict(entry) | {"rule_loss": entry.rule_loss, "loss": entry.loss}
            for entry in self.summed().layers
        ]

    def __str__(self) -> str:
        if not compat.is_concrete(self._totals):
            return f"a ledger of {len(self._about)} layers, without numbers yet: it is traced"
        return self.table()

    def _repr_html_(self) -> str:
        ledger = self.summed()
        return html_table(_HEADER, ledger._rows(), range(3, len(_HEADER)), ledger._foot())

    def _total(self, name: str) -> Number:
        return _number(_array(self._totals)[..., totals.TOTALS.index(name)])

    def _rows(self) -> list[list[str]]:
        small = 1e-5 * self._total("size")
        return [
            [
                e.kind,
                e.name,
                e.rule,
                *(f"{n:.6g}" for n in (e.relevance_out, e.relevance_in)),
                *(f"{n:.3g}" for n in (e.bias, e.stabiliser)),
                *(f"{_clean(n, e):.3g}" for n in (e.constants, e.rule_loss)),
                *(f"{n:.3g}" for n in (e.gross_out, e.gross_in)),
            ]
            for e in self.layers
            if e.kind != "structural" or not max(abs(e.loss), abs(e.constants)) <= small
        ]

    def _judged(self) -> str:
        """The verdict, where nothing is mapped."""
        size, samples = self._total("size"), self.samples
        if broken := self._total("broken"):
            return self._not_a_number(
                f"in {broken:.0f} of {samples} samples " if samples > 1 else ""
            )
        if size == 0:
            return "Nothing was seeded: the chosen output is 0."
        gross = f"The sum of |R| that arrived is {self.gross_in / size:.0%} of what was seeded."
        if self.spread < 1e-5:
            each = " in each sample" if samples > 1 else ""
            return f"Conserved: {self.share:.6f} of the seeded relevance arrived{each}. {gross}"
        bias, stabiliser, constants = map(self._total, ("bias", "stabiliser", "constants"))
        rules = size - self._total("arrived") - bias - stabiliser - constants
        takers = {"biases": bias, "stabilisers": stabiliser, "constants": constants, "rules": rules}
        if abs(constants) < 1e-5 * size:
            del takers["constants"]
        shares = ", ".join(f"{k} {v / size:+.1%}" for k, v in takers.items())
        text = f"{self.share:.1%} of the seeded relevance arrived; taken by {shares}"
        if self._about:
            sums = _array(self._accounts)[:, 1]
            losses = (
                sums[:, ACCOUNT.index("relevance_out")] - sums[:, ACCOUNT.index("relevance_in")]
            )
            n = int(np.argmax(np.abs(losses)))
            row = self._about[n]
            text += f"; most in {row.kind} {row.name!r} ({losses[n] / size:+.1%})"
        if samples > 1:
            text += f"; each of {samples} samples by itself is {self.spread:.1%} off on average"
        return f"{text}. {gross}"

    def _not_a_number(self, which: str) -> str:
        text = f"Not a number: relevance {which}is NaN or infinite"
        for entry in self.layers:
            if not math.isfinite(entry.gross_in):
                arrived = math.isfinite(entry.gross_out)
                where = "in" if arrived else "at the output of"
                return f"{text}, first {where} {entry.kind} {entry.name!r}."
        return f"{text}."

    def _foot(self) -> list[str]:
        samples = f" ({self.samples} samples)" if self.samples > 1 else ""
        sums = (
            f"seeded {self.relevance_out:.6g}, arrived {self.relevance_in:.6g}{samples}; "
            f"sums of |R|: seeded {self.gross_out:.6g}, arrived {self.gross_in:.6g}"
        )
        return [sums, self.verdict]


_HEADER = (
    *("kind", "name", "rule", "R out", "R in", "bias", "stabiliser", "constants", "rule loss"),
    *("|R| out", "|R| in"),
)
_LOSSES = (5, 6, 7, 8)
_GROSS = {9, 10}

jax.tree_util.register_dataclass(
    Ledger, data_fields=["_accounts", "_totals"], meta_fields=["_about"]
)


def _ratio(a: Number, b: Number) -> Number:
    if isinstance(b, float):
        return a / b if b else math.nan
    return a / b


def _array(x: Any) -> Any:
    """An array, in NumPy where its numbers are known."""
    return np.asarray(x) if compat.is_concrete(x) else x


def _number(x: Any) -> Number:
    return float(x) if jnp.ndim(x) == 0 and compat.is_concrete(x) else x


def _clean(loss: float, entry: Entry) -> float:
    """A loss, or 0 where it is rounding: it is a difference of sums."""
    scale = max(entry.gross_out, entry.gross_in)
    return 0.0 if abs(loss) < 1e-6 * scale else loss


def _difference(a: tuple[_Row, ...], b: tuple[_Row, ...]) -> str:
    for one, other in zip(a, b, strict=False):
        if one != other:
            return " and ".join(f"{y.kind} {y.name!r} with {y.rule}" for y in (one, other))
    return f"{len(a)} and {len(b)} layers"


def make_ledger(bound: BoundCall, weights: list[Any], shown: Iterable[Layer]) -> Ledger:
    """A ledger of a planned function on its arrays, with rows for some of its layers."""
    bound.act()
    shown = set(shown)
    accounts, sums = compiled(totals.of_call, bound, weights)
    order = [n for n, layer in enumerate(bound.plan.layers) if layer in shown][::-1]
    rows = [bound.plan.layers[n] for n in order]
    about = tuple(_Row(layer.name, layer.kind, _with_epsilon(layer.rule)) for layer in rows)
    return Ledger(about, accounts[np.array(order, int)], sums)


def _with_epsilon(rule: Rule) -> str:
    """The text of a rule, with an epsilon that it has by default."""
    text, epsilon = str(rule), getattr(rule, "epsilon", None)
    if not isinstance(epsilon, float | int) or "epsilon=" in text or not text.endswith(")"):
        return text
    return f"{text[:-1]}{'' if text.endswith('()') else ', '}epsilon={epsilon:g})"
