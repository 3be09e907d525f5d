"""Relevance along time: the series as lines over the colours of their relevance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxlrp.heatmap.canvas import Canvas, check_lengths, frame, short_number
from jaxlrp.heatmap.letters import readable
from jaxlrp.heatmap.palette import channel_sum, given_scale, paint, palette_of, scales_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_GAP = 0.1
_BAR = 0.62
_AXIS = 0.24


def lines(
    R: Any,
    x: Any,
    *,
    names: Sequence[Any] | None = None,
    times: Any = None,
    scale: float | None = None,
    percentile: float = 99.5,
    title: str | None = None,
    width: float = 8.0,
    height: float = 1.0,
    color_map: str | None = None,
) -> Figure:
    """A line for each channel of a series, over the colour of its relevance at each time.

    All channels have one scale of relevance; each line has an axis of its own.

    Args:
        R: relevance of shape (times,) or (times, channels).
        x: the series that is explained, of the same shape.
        names: the name of each channel; by default numbers, if there are several.
        times: the increasing positions of the steps on the axis of time; by default 0, 1, 2, ...
        scale: the relevance at full strength; by default as in
            [`scales`][jaxlrp.heatmap.scales].
        percentile: as in `scales`.
        title: a line above everything.
        width: the width of the figure in inches.
        height: the height of one channel in inches.
        color_map: another palette, as in [`colors`][jaxlrp.heatmap.colors].

    Returns:
        A `matplotlib.figure.Figure`; write it with `figure.savefig(path)`.

    Raises:
        TypeError: R is not floating.
        ValueError: shapes do not fit, or relevance is NaN or infinite.

    Examples:
        >>> import numpy as np
        >>> t = np.linspace(0, 6, 50)
        >>> figure = lines(np.cos(t), np.sin(t), times=t, title="Why?")
    """
    check_lengths(width=width, height=height)
    maps, series = _maps_and_series(R, x)
    times = _times(times, len(maps))
    channels = maps.shape[1]
    labels = _labels(names, channels)
    bound = scales_of(maps, "image", percentile) if scale is None else given_scale(scale, ())
    palette = palette_of(color_map)
    longest = max(len(line) for label in labels for line in label.split("\n"))
    left = Canvas.margin + 0.078 * longest + 0.65
    top = Canvas.margin + (0.4 if title else 0.0)
    room = width - left - Canvas.margin
    if room < 1.0:
        raise ValueError(f"a figure {width:g} inches wide has no room for lines beside the names")
    canvas = Canvas(width, top + channels * (height + _GAP) + _AXIS + _BAR)
    if title:
        heading = readable(title).replace("\n", " ")
        canvas.text(Canvas.margin, Canvas.margin + 0.14, heading, size=13, weight="bold", ha="left")
    edges = _edges(times)
    for channel, label in enumerate(labels):
        y = top + channel * (height + _GAP)
        canvas.text(left - 0.6, y + height / 2, label, size=10, ha="right")
        axes = canvas.axes(left, y, room, height)
        strip = paint(maps[:, channel][None], bound, palette)
        _draw(axes, times, edges, series[:, channel], strip)
        if channel < channels - 1:
            axes.set_xticklabels([])
        frame(axes)
    bar = min(3.0, room)
    end = short_number(float(bound))
    y = canvas.height - _BAR
    canvas.colour_bar(left + (room - bar) / 2, y, bar, (f"−{end}", f"+{end}"), palette)
    return canvas.figure


def _maps_and_series(R: Any, x: Any) -> tuple[np.ndarray, np.ndarray]:
    """Relevance and series, both (times, channels)."""
    if np.ndim(R) not in (1, 2) or np.shape(R) != np.shape(x):
        raise ValueError(
            "lines wants relevance and series of one shape, (times,) or (times, channels), not "
            f"{np.shape(R)} and {np.shape(x)}"
        )
    columns = np.asarray(R)[:, None] if np.ndim(R) == 1 else np.asarray(R)
    maps = channel_sum(columns, "HW")
    return maps, np.asarray(x, dtype=np.float64).reshape(maps.shape)


def _labels(names: Sequence[Any] | None, channels: int) -> list[str]:
    if names is None:
        names = range(channels) if channels > 1 else [""]
    if isinstance(names, str) or len(names) != channels:
        raise ValueError(f"names must be {channels}, one for each channel, not {names!r}")
    return [readable(name) for name in names]


def _draw(
    axes: Axes, times: np.ndarray, edges: np.ndarray, series: np.ndarray, strip: np.ndarray
) -> None:
    """The line of one channel, over the colours of its relevance."""
    low, high = _range(series)
    axes.pcolorfast(edges, np.array([low, high]), strip)
    axes.plot(times, series, color="black", linewidth=1.0)
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(low, high)
    axes.tick_params(labelsize=8, length=2, color="0.6", labelcolor="0.35")
    axes.locator_params(axis="y", nbins=3)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.3g}".replace("-", "−"))


def _times(times: Any, count: int) -> np.ndarray:
    found = np.arange(count, dtype=np.float64) if times is None else np.asarray(times, np.float64)
    if found.shape != (count,) or not np.isfinite(found).all() or not (np.diff(found) > 0).all():
        raise ValueError(f"times must be {count} rising numbers, one for each step")
    return found


def _edges(times: np.ndarray) -> np.ndarray:
    """The borders between steps, halfway, and one beyond each end."""
    if len(times) == 1:
        return np.array([times[0] - 0.5, times[0] + 0.5])
    middle = (times[1:] + times[:-1]) / 2
    first, last = 2 * times[0] - middle[0], 2 * times[-1] - middle[-1]
    return np.concatenate([[first], middle, [last]])


def _range(values: np.ndarray) -> tuple[float, float]:
    """The least and greatest finite value, with some room; gaps in a line are left out."""
    finite = values[np.isfinite(values)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 0.0)
    room = 0.12 * (high - low) or 0.5
    return float(low - room), float(high + room)
