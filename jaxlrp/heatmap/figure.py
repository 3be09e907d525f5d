"""Labelled figures of relevance maps, drawn with matplotlib."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxlrp.heatmap.canvas import Canvas, check_lengths, frame, plus_minus, short_number
from jaxlrp.heatmap.letters import readable
from jaxlrp.heatmap.palette import Per, channel_sum, given_scale, paint, palette_of, scales_of

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
    photographs: bool = True,
    outline: bool = True,
    per: Per = "row",
    scale: Any = None,
    percentile: float = 99.5,
    row_bars: bool = False,
    title: str | None = None,
    cell: float = 0.8,
    color_map: str | None = None,
    colour_map: str | None = None,
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
            with False they are dark there, as ink is.
        outline: whether to trace each image's outline over its maps, as a faint line.
        per: `"row"`, `"image"` or `"shared"` (over one block), as in
            [`scales`][jaxlrp.heatmap.scales].
        scale: fixes the scale, as in [`colors`][jaxlrp.heatmap.colors].
        percentile: as in `scales`.
        row_bars: whether each row ends with a colour bar of its own, with numbers, in place of one
            bar below all rows. All maps of a row must then share their scale.
        title: a line above everything.
        cell: width of one map in inches; the height follows from its shape.
        color_map: another palette, as in [`colors`][jaxlrp.heatmap.colors].
        colour_map: another name of `color_map`.

    Returns:
        A `matplotlib.figure.Figure` that belongs to no window and no global state; write it with
        `figure.savefig(path)`.
    """
    check_lengths(cell=cell)
    palette = palette_of(color_map, colour_map)
    blocks = dict(R) if isinstance(R, Mapping) else {"": R}
    if not blocks:
        raise ValueError("grid needs at least one block of relevance, and the mapping is empty")
    maps = {heading: _table(block, layout) for heading, block in blocks.items()}
    rows, columns, height, width = _common_shape(maps)
    _check_labels("row_labels", row_labels, rows)
    labels = _labels_per_block(column_labels, maps, columns)
    bounds = {
        heading: _bounds(block, per, scale, percentile, row_bars) for heading, block in maps.items()
    }
    painted = {heading: paint(block, bounds[heading], palette) for heading, block in maps.items()}
    pictures = None if images is None else _pictures(images, columns, (height, width))

    page = _Page(
        columns=columns,
        cell=(cell, cell * height / width),
        row_labels=[readable(label) for label in (*row_labels, image_label)],
        lines=(pictures is not None, *(rows for _ in maps)),
        headings=[readable(heading) for heading in maps],
        title=title,
        palette=palette,
        row_bars=row_bars,
    )
    top = page.top
    if pictures is not None:
        top = page.pictures(top, image_label, pictures, "gray" if photographs else "gray_r")
    for heading in maps:
        top = page.heading(top, readable(heading))
        top = page.column_labels(top, labels[heading])
        for row, label in enumerate(row_labels):
            outlines = pictures if outline else None
            top = page.row(top, label, painted[heading][row], bounds[heading][row], outlines)
    if not row_bars:
        page.bar(top, "the picture's" if per == "image" and scale is None else "the row's")
    return page.figure


def show(
    R: Any,
    images: Any = None,
    layout: str | None = None,
    *,
    labels: Sequence[Any] | None = None,
    title: str | None = None,
    cell: float = 1.6,
    **options: Any,
) -> Figure:
    """The relevance of one picture or of several side by side, for a first look.

    Args:
        R: relevance, as in [`channel_sum`][jaxlrp.heatmap.channel_sum]. The pictures of all
            counting axes are drawn in one row, with one scale.
        images: the explained images, drawn above: one for each picture, (H, W) or (H, W, C) for a
            single one.
        layout: of R; by default `"HW"`, `"HWC"` or `"NHWC"`, by the number of axes.
        labels: one for each picture; by default numbers, if there are several.
        title: a line above everything.
        cell: width of one map in inches.
        **options: other arguments of [`grid`][jaxlrp.heatmap.grid].

    Returns:
        A figure that a notebook shows; `figure.savefig(path)` writes it.

    Examples:
        >>> import numpy as np
        >>> figure = show(np.ones((2, 8, 8, 3)), title="Why?")
    """
    if layout is None and np.ndim(R) == 3:
        layout = "HWC"
    maps = channel_sum(R, layout)
    maps = maps.reshape(-1, *maps.shape[-2:])
    if images is not None:
        images = np.asarray(images)
        images = images[None] if images.shape[:2] == maps.shape[-2:] else images
    if labels is None:
        labels = range(len(maps)) if len(maps) > 1 else [""]
    return grid(
        maps[None],
        row_labels=["relevance"],
        column_labels=[readable(label) for label in labels],
        images=images,
        title=title,
        cell=cell,
        **options,
    )


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


def _bounds(
    block: np.ndarray, per: Per, scale: Any, percentile: float, row_bars: bool
) -> np.ndarray:
    """The scale of each map of a block, (rows, columns)."""
    if scale is None:
        found = scales_of(block, per, percentile)
    else:
        found = np.broadcast_to(given_scale(scale, block.shape[:2]), block.shape[:2])
    if row_bars and not (found == found[:, :1]).all():
        raise ValueError(
            'row_bars wants one scale for each row: give per="row" or "shared", or a scale '
            "that is the same for all maps of a row"
        )
    return found


def _check_labels(what: str, labels: Sequence[str], count: int) -> None:
    if isinstance(labels, str) or len(labels) != count:
        raise ValueError(f"{what} must be a sequence of {count} labels, not {labels!r}")


def _labels_per_block(
    labels: Sequence[str] | Mapping[str, Sequence[str]], maps: Mapping[str, Any], columns: int
) -> dict[str, Sequence[str]]:
    if isinstance(labels, Mapping):
        if set(labels) != set(maps):
            raise ValueError(f"column_labels names the blocks {[*labels]}, relevance {[*maps]}")
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


# Inches per point of size that a letter takes: on average, and in a word of wide letters.
_LETTER, _WIDE = 0.0078, 0.009


class _Page(Canvas):
    """The rows, columns and headings of a grid."""

    gap = 0.05
    column_label_height = 0.24
    bar_height = 0.62

    def __init__(self, *, columns, cell, row_labels, lines, headings, title, row_bars, palette):
        self.cell = cell
        self.palette = palette
        self.row_bars = row_bars
        self.pitch = cell[1] + self.gap
        self.heading_height = 0.42 if any(headings) else 0.0
        longest = max(len(line) for label in row_labels for line in label.split("\n"))
        self.left = self.margin + 10 * _LETTER * longest + 0.12
        self.right = 1.0 if row_bars else 0.8
        width = self.left + columns * (cell[0] + self.gap) - self.gap + self.right
        self.top = self.margin + (0.4 if title else 0.0)
        blocks = len(headings) * (self.heading_height + self.column_label_height)
        bar = self.margin if row_bars else self.bar_height
        height = self.top + sum(lines) * self.pitch + blocks + bar
        super().__init__(width, height)
        if title:
            title = readable(title).replace("\n", " ")
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

    def pictures(self, y, label, pictures, cmap):
        for column, picture in enumerate(pictures):
            self.picture(y, column, picture, cmap=cmap)
        self.row_label(y, label, style="italic")
        return y + self.pitch

    def row(self, y, label, maps, scales, outlines):
        """A row of maps, each below the outline of its picture, and their scale beside them."""
        self.row_label(y, label)
        for column, picture in enumerate(maps):
            axes = self.picture(y, column, picture)
            if outlines is not None:
                _trace(axes, outlines[column])
        if self.row_bars:
            self.row_bar(y, scales[0])
        elif np.all(scales == scales[0]):
            self.scale_label(y, plus_minus(scales[0]))
        return y + self.pitch

    def row_label(self, y, label, **style):
        self.text(self.left - 0.12, y + self.cell[1] / 2, label, size=10, ha="right", **style)

    def scale_label(self, y, label):
        x = self.width - self.right + 0.1
        self.text(x, y + self.cell[1] / 2, label, size=9, color="0.35", ha="left")

    def row_bar(self, y, scale):
        if scale > 0:
            ends = (f"−{short_number(scale)}", f"+{short_number(scale)}")
            inset = 0.08 * self.cell[1]  # keeps the numbers of two rows apart
            x = self.width - self.right + 0.08
            self.upright_bar(x, y + inset, self.cell[1] - 2 * inset, ends, self.palette)

    def column_labels(self, y, labels):
        for column, label in enumerate(labels):
            self.column_label(y, column, label)
        return y + self.column_label_height

    def column_label(self, y, column, label):
        x = self._x(column) + self.cell[0] / 2
        label = readable(label).replace("\n", " ")
        # A long label is drawn smaller, and without its middle if that is not enough.
        size = min(10.0, max(7.0, self.cell[0] / (_WIDE * max(len(label), 1))))
        fits = max(3, int(self.cell[0] / (_WIDE * size)))
        if len(label) > fits:
            label = f"{label[: fits // 2]}…{label[len(label) - (fits - fits // 2 - 1) :]}"
        self.text(x, y + self.column_label_height / 2, label, size=size, ha="center")

    def heading(self, y, heading):
        if heading:
            self.text(self.left, y + 0.27, heading, size=11, weight="bold", ha="left")
        return y + self.heading_height

    def bar(self, y, whose):
        room = self.width - self.left - self.right
        width = min(3.0, room)
        x = self.left + (room - width) / 2
        self.colour_bar(x, y, width, (f"−{whose} scale", f"+{whose} scale"), self.palette)


def _trace(axes: Axes, picture: np.ndarray) -> None:
    grey = picture if picture.ndim == 2 else picture.mean(axis=-1)
    if math.isclose(grey.min(), grey.max()):
        return
    axes.contour(grey, levels=[0.5], colors="black", linewidths=0.5, alpha=0.45)
