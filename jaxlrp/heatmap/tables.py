"""Relevance of the columns of a table, as bars."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np

from jaxlrp.heatmap.canvas import Canvas, check_lengths, short_number
from jaxlrp.heatmap.letters import readable
from jaxlrp.heatmap.palette import STOPS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PITCH = 0.26
_LETTER = 0.078  # inches, in text of 10 points


def bars(
    R: Any,
    names: Sequence[Any],
    *,
    values: Sequence[Any] | None = None,
    top: int | None = 20,
    title: str | None = None,
    width: float = 7.0,
) -> Figure:
    """A bar for the relevance of each column of a table, the largest first.

    For one example, a column that speaks for the output has a red bar to the right, and a column
    against it has a blue bar to the left. For several examples, the bars are the mean of |R|, in
    grey.

    Args:
        R: relevance of shape (columns,), or (examples, columns).
        names: the name of each column.
        values: the values of one example, written beside the names, in the units in which a
            reader knows them.
        top: the largest number of bars; the last one is then the sum over all other columns, so
            that the bars add up to the whole. None draws all.
        title: a line above everything.
        width: the width of the figure in inches.

    Returns:
        A `matplotlib.figure.Figure`; write it with `figure.savefig(path)`.

    Raises:
        TypeError: R is not floating.
        ValueError: shapes do not fit, or a number is NaN or infinite.

    Examples:
        >>> figure = bars([0.5, -1.5], ["age", "income"], values=[39, "41,000"])
    """
    check_lengths(width=width)
    R = _checked(R, names, values)
    if top is not None and top < 1:
        raise ValueError(f"top must be at least 1 or None, not {top}")
    signed = R.ndim == 1
    sizes = R if signed else np.abs(R).mean(axis=0)
    labels = [readable(name).replace("\n", " ") for name in names]
    if values is not None:
        labels = [f"{n} = {readable(v)}" for n, v in zip(labels, values, strict=True)]
    order = np.argsort(-np.abs(sizes), kind="stable")
    if top is not None and len(order) > top:
        rest = order[top - 1 :]
        order = order[: top - 1]
        labels = [*(labels[i] for i in order), f"the other {len(rest)}"]
        sizes = np.append(sizes[order], sizes[rest].sum())
    else:
        labels, sizes = [labels[i] for i in order], sizes[order]
    unit = "relevance" if signed else f"mean |relevance| over {len(R)} examples"
    return _draw(sizes, labels, unit, title, width)


def _checked(R: Any, names: Sequence[Any], values: Sequence[Any] | None) -> np.ndarray:
    R = np.asarray(R)
    if not jnp.issubdtype(R.dtype, np.floating):
        raise TypeError(f"relevance must be a floating array, not {R.dtype}")
    R = R.astype(np.float64)
    if R.ndim not in (1, 2) or R.size == 0:
        raise ValueError(f"bars wants (columns,) or (examples, columns), not shape {R.shape}")
    if isinstance(names, str) or len(names) != R.shape[-1]:
        raise ValueError(f"names must be {R.shape[-1]}, one for each column, not {names!r}")
    if values is not None and (R.ndim == 2 or len(values) != R.shape[-1]):
        raise ValueError(
            f"values must be {R.shape[-1]}, those of the one example that is explained; "
            f"relevance has shape {R.shape}"
        )
    if not np.isfinite(R).all():
        nans, infinite = int(np.isnan(R).sum()), int(np.isinf(R).sum())
        raise ValueError(
            f"relevance cannot be drawn: of {R.size} values {nans} are NaN, {infinite} infinite"
        )
    return R


def _draw(
    sizes: np.ndarray, labels: list[str], unit: str, title: str | None, width: float
) -> Figure:
    longest = min(max(len(label) for label in labels), 48)
    labels = [label if len(label) <= 48 else f"{label[:24]}…{label[-23:]}" for label in labels]
    left = Canvas.margin + _LETTER * longest + 0.12
    # Numbers are written beyond the bars, on both sides if there are bars on both.
    room = 0.75
    width = max(width, left + 2.0 + room)
    top = Canvas.margin + (0.42 if title else 0.0)
    canvas = Canvas(width, top + _PITCH * len(sizes) + 0.5)
    if title:
        heading = readable(title).replace("\n", " ")
        canvas.text(Canvas.margin, Canvas.margin + 0.14, heading, size=13, weight="bold", ha="left")
    low, high = min(sizes.min(), 0.0), max(sizes.max(), 0.0)
    if low == high:
        high = 1.0
    rooms = room * (low < 0), room * (high > 0)
    inner = width - left - Canvas.margin - sum(rooms)
    inch = (high - low) / inner  # of the axis, in relevance
    axes = canvas.axes(left, top, width - left - Canvas.margin, _PITCH * len(sizes))
    axes.set_xlim(low - rooms[0] * inch, high + rooms[1] * inch)
    axes.set_ylim(len(sizes) - 0.5, -0.5)
    axes.barh(np.arange(len(sizes)), sizes, 0.72, color=[_fill(n, unit) for n in sizes])
    for row, (label, size) in enumerate(zip(labels, sizes)):
        canvas.text(left - 0.12, top + (row + 0.5) * _PITCH, label, size=10, ha="right")
        side = 1 if size >= 0 else -1
        number = short_number(size).replace("-", "−")
        place = size + side * 0.06 * inch
        align = "left" if side > 0 else "right"
        axes.text(place, row, number, size=8.5, color="0.35", va="center", ha=align)
    axes.axvline(0, color="0.6", linewidth=0.8)
    axes.set_yticks([])
    axes.set_xticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    middle = left + (width - left - Canvas.margin) / 2
    below = top + _PITCH * len(sizes) + 0.22
    what = "relevance: against (blue), for (red)" if unit == "relevance" else unit
    canvas.text(middle, below, what, size=9, color="0.35", ha="center")
    return canvas.figure


def _fill(number: float, unit: str) -> Any:
    if unit != "relevance":
        return "0.45"
    return STOPS[-4] / 255 if number >= 0 else STOPS[3] / 255
