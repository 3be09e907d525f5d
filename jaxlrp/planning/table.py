"""Tables for people: the plan and the ledger as text and as HTML."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Sequence
from html import escape
from typing import Any

_FIRST, _LEAST = 20, 8  # letters that a shortened cell keeps at first, and when there is no room


def columns(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    right: Sequence[int] = (),
    width: int | None = None,
    shorten: Sequence[int] = (),
) -> str:
    """Left-aligned columns under a header; the columns in `right` are right-aligned.

    In a table wider than `width` the cells of the columns in `shorten` are cut in the middle: in
    this order as long as they stay readable, then the widest first. The table stays too wide if
    these cells cannot be shortened further.
    """
    widths = [max(len(r[i]) for r in [header, *rows]) for i in range(len(header))]
    if width is not None and shorten:
        excess = sum(widths) + 2 * (len(widths) - 1) - width
        for i in shorten:
            given = max(0, min(excess, widths[i] - _FIRST))
            widths[i] -= given
            excess -= given
        while excess > 0 and max(widths[i] for i in shorten) > _LEAST:
            widths[max(shorten, key=lambda i: widths[i])] -= 1
            excess -= 1

    def line(row: Sequence[str]) -> str:
        cells = [
            _cut(cell, w).rjust(w) if i in right else _cut(cell, w).ljust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        return "  ".join(cells).rstrip()

    return "\n".join([line(header), line(["-" * w for w in widths]), *map(line, rows)])


def _cut(cell: str, width: int) -> str:
    """A cell without its middle if it is too long: the end of a name distinguishes layers."""
    if len(cell) <= width:
        return cell
    tail = width // 2
    return f"{cell[: width - tail - 1]}…{cell[-tail:]}"


def html_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int], foot: Sequence[str]
) -> str:
    """The same as an HTML table, with every cell escaped, and lines of text after it."""

    def cells(tag: str, row: Sequence[str]) -> str:
        return "".join(
            f'<{tag} style="text-align:{"right" if i in right else "left"}">{escape(cell)}</{tag}>'
            for i, cell in enumerate(row)
        )

    body = "\n".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    after = "\n".join(f"<p>{escape(line)}</p>" for line in foot)
    return (
        f"<table>\n<thead><tr>{cells('th', header)}</tr></thead>\n"
        f"<tbody>\n{body}\n</tbody>\n</table>\n{after}"
    )


def shape_text(shape: Sequence[int], dtype: Any) -> str:
    short = str(dtype).replace("bfloat", "bf").replace("float", "f").replace("complex", "c")
    return f"{short}[{','.join(map(str, shape))}]"


_HEADER = ("#", "kind", "name", "output", "rule", "why", "eqns", "source")
_RIGHT = (0, 6)
_NARROW = 6  # the first columns, without the equations and the source


def plan_table(plan: Any, width: int | None) -> str:
    """A row for every layer that does more than move elements, and a line about the rest."""
    shown = _shown(plan)
    rows = [_row(index, layer) for index, layer in enumerate(shown)]
    if width is None:
        text = columns(_HEADER, rows, _RIGHT)
    else:
        narrow = [row[:_NARROW] for row in rows]
        text = columns(_HEADER[:_NARROW], narrow, (0,), width, shorten=(5, 4, 3, 2))
    return "\n".join([text, *(wrapped(line, width) for line in _foot(plan, shown))])


def plan_html(plan: Any) -> str:
    shown = _shown(plan)
    rows = [_row(index, layer) for index, layer in enumerate(shown)]
    return html_table(_HEADER, rows, _RIGHT, _foot(plan, shown))


def wrapped(line: str, width: int | None) -> str:
    """A line of text, broken between words where it is longer than the width."""
    if width is None:
        return line
    return textwrap.fill(line, width, break_long_words=False, break_on_hyphens=False)


def _shown(plan: Any) -> list[Any]:
    return [layer for layer in plan.layers if layer.kind != "structural"]


def _row(index: int, layer: Any) -> list[str]:
    return [
        str(index),
        layer.kind,
        layer.name,
        shape_text(layer.shape, layer.dtype),
        str(layer.rule),
        layer.why,
        str(layer.folded),
        layer.source,
    ]


def _foot(plan: Any, shown: Sequence[Any]) -> list[str]:
    counts = Counter(layer.kind for layer in shown)
    total = ", ".join(f"{n} {kind}" for kind, n in counts.items()) or "no layers"
    moved = len(plan.layers) - len(shown)
    counted = f"{total}; {moved} structural equations that relevance follows (see plan.layers)"
    return [counted, *(f"note: {note.text}" for note in plan.notes)]
