"""Labelled figures of relevance maps, drawn with matplotlib."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxlrp.heatmap.canvas import Canvas, frame, plus_minus, short_number
from jaxlrp.heatmap.palette import Per, channel_sum, given_scale, paint, scales_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def grid(
    R: Any,
    *,
    row_labels: Sequence[str],
    column_labels: Sequence[str] | Mapping[str, Sequence[str]],
    layout: str | None = None,
    images: Any = None,
    image_label: str = "input",
    photographs: bool = False,
    outline: bool = True,
    per: Per = "row",
    scale: Any = None,
    percentile: float = 99.5,
    row_bars: bool = False,
    title: str | None = None,
    cell: float = 0.8,
) -> Figure:
    """A figure of relevance maps in labelled rows and columns, each row ending with its scale.

    Args:
        R: relevance with the axes (rows, columns, H, W) or (rows, columns, H, W, C); or a mapping
            from a heading to such an array, drawn as blocks below one another.
        row_labels: one label per row (the same for every block).
        column_labels: one label per column; with blocks, a mapping from heading to labels may give
            each block its own.
        layout: for other orders of the axes: the first two counting letters are rows and columns.
        images: the explained images, one per column, (columns, H, W) or (columns, H, W, C), drawn
            in a row above the maps, between their own least and greatest value.
        image_label: the label of that row.
        photographs: whether grey images are bright where the number is large, as photographs are;
            by default they are dark there, as ink is.
        outline: whether to trace each image's outline over its maps, as a faint line.
        per: `"row"`, `"image"` or `"shared"` (over one block), as in
            [`scales`][jaxlrp.heatmap.scales].
        scale: fixes the scale, as in [`colours`][jaxlrp.heatmap.colours].
        percentile: as in `scales`.
        row_bars: whether each row ends with a colour bar of its own, with numbers, in place of one
            bar below all rows. All maps of a row must then share their scale.
        title: a line above everything.
        cell: width of one map in inches; the height follows from its shape.

    Returns:
        A `matplotlib.figure.Figure` that belongs to no window and no global state; write it with
        `figure.savefig(path)`.
    """
    blocks = dict(R) if isinstance(R, Mapping) else {"": R}
    if not blocks:
        raise ValueError("grid needs at least one block of relevance, and the mapping is empty")
    maps = {heading: _table(block, layout) for heading, block in blocks.items()}
    shape = _common_shape(maps)
    rows, columns, height, width = shape
    _check_labels("row_labels", row_labels, rows)
    labels = _labels_per_block(column_labels, maps, columns)
    painted = {}
    bounds = {}
    for heading, block in maps.items():
        bounds[heading] = (
            scales_of(block, per, percentile)
            if scale is None
            else np.broadcast_to(given_scale(scale, (rows, columns)), (rows, columns))
        )
        painted[heading] = paint(block, bounds[heading])
        if row_bars and not (bounds[heading] == bounds[heading][:, :1]).all():
            raise ValueError(
                'row_bars wants one scale for each row: give per="row" or "shared", or a scale '
                "that is the same for all maps of a row"
            )
    pictures = None if images is None else _pictures(images, columns, (height, width))

    page = _Page(
        columns=columns,
        cell=(cell, cell * height / width),
        row_labels=(*row_labels, image_label),
        lines=(pictures is not None, *(rows for _ in maps)),
        headings=list(maps),
        title=title,
        row_bars=row_bars,
    )
    top = page.top
    if pictures is not None:
        for column, picture in enumerate(pictures):
            page.picture(top, column, picture, cmap="gray" if photographs else "gray_r")
        page.row_label(top, image_label, style="italic")
        top += page.pitch
    for heading in maps:
        top = page.heading(top, heading)
        for column, label in enumerate(labels[heading]):
            page.column_label(top, column, label)
        top += page.column_label_height
        for row, label in enumerate(row_labels):
            page.row_label(top, label)
            for column in range(columns):
                axes = page.picture(top, column, painted[heading][row, column])
                if outline and pictures is not None:
                    _trace(axes, pictures[column])
            line = bounds[heading][row]
            if row_bars:
                page.row_bar(top, line[0])
            elif np.all(line == line[0]):
                page.scale_label(top, plus_minus(line[0]))
            top += page.pitch
    if not row_bars:
        page.bar(top, "the picture's" if per == "image" and scale is None else "the row's")
    return page.figure


def _table(block: Any, layout: str | None) -> np.ndarray:
    if layout is None:
        rank = np.ndim(block)
        if rank not in (4, 5):
            raise ValueError(
                "grid wants (rows, columns, H, W) or (rows, columns, H, W, C), "
                f"not shape {np.shape(block)}"
            )
        layout = "RKHW" if rank == 4 else "RKHWC"
    maps = channel_sum(block, layout)
    if maps.ndim != 4:
        raise ValueError(f"layout {layout!r} must have rows and columns: two letters beside HWC")
    return maps


def _common_shape(maps: Mapping[str, np.ndarray]) -> tuple[int, ...]:
    shapes = {block.shape for block in maps.values()}
    if len(shapes) > 1:
        raise ValueError(f"all blocks of a grid must have one shape, not {sorted(shapes)}")
    return shapes.pop()


def _check_labels(what: str, labels: Sequence[str], count: int) -> None:
    if isinstance(labels, str) or len(labels) != count:
        raise ValueError(f"{what} must be a sequence of {count} labels, not {labels!r}")


def _labels_per_block(
    labels: Sequence[str] | Mapping[str, Sequence[str]], maps: Mapping[str, Any], columns: int
) -> dict[str, Sequence[str]]:
    if isinstance(labels, Mapping):
        if set(labels) != set(maps):
            raise ValueError(
                f"column_labels names the blocks {sorted(labels)}, relevance {sorted(maps)}"
            )
        per_block = dict(labels)
    else:
        per_block = dict.fromkeys(maps, labels)
    for block in per_block.values():
        _check_labels("column_labels", block, columns)
    return per_block


def _pictures(images: Any, columns: int, size: tuple[int, int]) -> np.ndarray:
    """Images between 0 and 1: (columns, H, W) if they are grey, (columns, H, W, 3) if coloured."""
    images = np.asarray(images).astype(np.float32)
    if images.ndim == 4 and images.shape[-1] == 1:
        images = images[..., 0]
    coloured = images.ndim == 4 and images.shape[-1] == 3
    if not (images.ndim == 3 or coloured) or images.shape[:3] != (columns, *size):
        raise ValueError(
            f"images of shape {images.shape} do not fit {columns} columns of maps of {size}: "
            "wanted is (columns, H, W), or with 1 or 3 channels last"
        )
    if not np.isfinite(images).all():
        raise ValueError("images hold NaN or infinite values")
    low, high = images.min(), images.max()
    return (images - low) / (high - low if high > low else 1.0)


class _Page(Canvas):
    """The rows, columns and headings of a grid."""

    gap = 0.05
    column_label_height = 0.24
    bar_height = 0.62

    def __init__(self, *, columns, cell, row_labels, lines, headings, title, row_bars):
        self.cell = cell
        self.pitch = cell[1] + self.gap
        self.heading_height = 0.42 if any(headings) else 0.0
        # Text of 10 points is about 0.075 inches a letter.
        longest = max(len(line) for label in row_labels for line in label.split("\n"))
        self.left = self.margin + 0.078 * longest + 0.12
        self.right = 1.0 if row_bars else 0.8
        width = self.left + columns * (cell[0] + self.gap) - self.gap + self.right
        self.top = self.margin + (0.4 if title else 0.0)
        blocks = len(headings) * (self.heading_height + self.column_label_height)
        bar = self.margin if row_bars else self.bar_height
        height = self.top + sum(lines) * self.pitch + blocks + bar
        super().__init__(width, height)
        if title:
            self.text(self.margin, self.margin + 0.14, title, size=13, weight="bold", ha="left")

    def _x(self, column):
        return self.left + column * (self.cell[0] + self.gap)

    def picture(self, y, column, picture, **kwargs) -> Axes:
        axes = self.axes(self._x(column), y, *self.cell)
        axes.imshow(picture, aspect="auto", interpolation="nearest", **kwargs)
        axes.set_xticks([])
        axes.set_yticks([])
        frame(axes)
        return axes

    def row_label(self, y, label, **style):
        self.text(self.left - 0.12, y + self.cell[1] / 2, label, size=10, ha="right", **style)

    def scale_label(self, y, label):
        x = self.width - self.right + 0.1
        self.text(x, y + self.cell[1] / 2, label, size=9, color="0.35", ha="left")

    def row_bar(self, y, scale):
        if scale > 0:
            ends = (f"−{short_number(scale)}", f"+{short_number(scale)}")
            inset = 0.08 * self.cell[1]  # so that numbers of two rows stay apart
            x = self.width - self.right + 0.08
            self.upright_bar(x, y + inset, self.cell[1] - 2 * inset, ends)

    def column_label(self, y, column, label):
        x = self._x(column) + self.cell[0] / 2
        self.text(x, y + self.column_label_height / 2, label, size=10, ha="center")

    def heading(self, y, heading):
        if heading:
            self.text(self.left, y + 0.27, heading, size=11, weight="bold", ha="left")
        return y + self.heading_height

    def bar(self, y, whose):
        room = self.width - self.left - self.right
        width = min(3.0, room)
        x = self.left + (room - width) / 2
        self.colour_bar(x, y, width, (f"−{whose} scale", f"+{whose} scale"))


def _trace(axes: Axes, picture: np.ndarray) -> None:
    grey = picture if picture.ndim == 2 else picture.mean(axis=-1)
    if math.isclose(grey.min(), grey.max()):
        return
    axes.contour(grey, levels=[0.5], colors="black", linewidths=0.5, alpha=0.45)
