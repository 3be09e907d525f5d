"""Tables for people: the plan and the ledger as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any


def columns(header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Left-aligned columns under a header; the columns in `right` right-aligned."""
    widths = [max(len(r[i]) for r in [header, *rows]) for i in range(len(header))]

    def line(row: Sequence[str]) -> str:
        cells = [
            cell.rjust(w) if i in right else cell.ljust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        return "  ".join(cells).rstrip()

    return "\n".join([line(header), line(["-" * w for w in widths]), *map(line, rows)])


def shape_text(shape: Sequence[int], dtype: Any) -> str:
    short = str(dtype).replace("bfloat", "bf").replace("float", "f").replace("complex", "c")
    return f"{short}[{','.join(map(str, shape))}]"


def plan_table(plan: Any) -> str:
    """A row for every layer that does more than move elements, and a line about the rest."""
    shown = [layer for layer in plan.layers if layer.kind != "structural"]
    rows = [
        [
            str(index),
            layer.kind,
            layer.name,
            shape_text(layer.shape, layer.dtype),
            str(layer.rule),
            layer.why,
            str(layer.folded),
            layer.source,
        ]
        for index, layer in enumerate(shown)
    ]
    header = ["#", "kind", "name", "output", "rule", "why", "eqns", "source"]
    counts = Counter(layer.kind for layer in shown)
    total = ", ".join(f"{n} {kind}" for kind, n in counts.items()) or "no layers"
    moved = len(plan.layers) - len(shown)
    foot = f"{total}; {moved} structural equations that relevance follows (see plan.layers)"
    return columns(header, rows, right=(0, 6)) + "\n" + foot
