"""Coloured, wrapped text as a figure, drawn with matplotlib."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from jaxlrp.heatmap.canvas import (
    Canvas,
    check_lengths,
    plus_minus,
    require_matplotlib,
    short_number,
)
from jaxlrp.heatmap.letters import readable
from jaxlrp.heatmap.tokens import PerText, Text, Tokens, read_texts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_POINT = 1 / 72
_LINE = 1.55  # distance between two lines of words, in units of the size of the letters
_LINE_MONO = 1.3
_PAD = 0.2  # room on each side of a word, in the same unit
_SCALE_LABEL = 0.7
_BAR = 0.62


@dataclasses.dataclass(frozen=True)
class _Box:
    """Some letters of one token, or of a separator, on one line; lengths in inches."""

    token: int | None
    letters: str
    line: int
    x: float
    width: float


def text_figure(
    tokens: Tokens | Mapping[str, Tokens],
    R: Any,
    *,
    separator: str | None = None,
    per: PerText = "text",
    scale: Any = None,
    percentile: float = 99.5,
    title: str | None = None,
    width: float = 8.0,
    size: float = 10.0,
    font: str | list[str] | None = None,
) -> Figure:
    """A figure of text coloured by relevance, wrapped to the width of the page.

    Args:
        tokens: as in [`text_html`][jaxlrp.heatmap.text_html].
        R: as there, one number per token, or a mapping from headings.
        separator: as there. If it contains a space, lines are broken between tokens; if not,
            between letters, which then have one width.
        per: as there.
        scale: as there.
        percentile: as there.
        title: a line above everything.
        width: the width of the page in inches; the height follows from the text.
        size: the size of the letters in points.
        font: a font family or a list of them, for scripts that matplotlib's DejaVu lacks.

    Returns:
        A `matplotlib.figure.Figure` that belongs to no window and no global state; write it with
        `figure.savefig(path)`.

    Raises:
        TypeError: as in `text_html`.
        ValueError: as in `text_html`, or a page too narrow for a single letter.
    """
    require_matplotlib()
    check_lengths(width=width, size=size)
    texts = read_texts(tokens, R, separator, per, scale, percentile)
    one_scale = len({text.scale for text in texts}) == 1
    page = _Page(width, size, font)
    if title:
        page.title(readable(title))
    for text in texts:
        page.heading(text.heading, None if one_scale else plus_minus(text.scale))
        page.text(text)
    return page.draw(short_number(texts[0].scale) if one_scale else "the text's scale")


class _Page:
    """Places everything from the top down; the canvas is made when its height is known."""

    def __init__(self, width: float, size: float, font: str | list[str] | None):
        self.width = width
        self.room = width - 2 * Canvas.margin
        self.size = size
        self.font = font
        self.y = Canvas.margin
        self.lines: list[tuple[float, float, str, dict[str, Any]]] = []  # x, y, letters, style
        self.texts: list[tuple[Text, Any, list[_Box], float]] = []  # with font, boxes and top

    def title(self, title: str) -> None:
        self._bold(title, size=13, pitch=0.24, room=self.room)
        self.y += 0.08

    def heading(self, heading: str, scale: str | None) -> None:
        if not heading and scale is None:
            return
        self.y += 0.12
        if scale is not None:
            style = {"size": 9, "color": "0.35", "ha": "right"}
            self.lines.append((self.width - Canvas.margin, self.y + 0.12, scale, style))
        self._bold(heading or " ", size=11, pitch=0.2, room=self.room - _SCALE_LABEL)
        self.y += 0.04

    def _bold(self, text: str, *, size: float, pitch: float, room: float) -> None:
        for line in _broken(text, room, _ruler("DejaVu Sans", size, "bold")):
            style = {"size": size, "weight": "bold"}
            self.lines.append((Canvas.margin, self.y + 0.12, line, style))
            self.y += pitch

    def text(self, text: Text) -> None:
        font = self.font or ("DejaVu Sans Mono" if text.monospace else "DejaVu Sans")
        boxes = _lay_out(text, self.room, _ruler(font, self.size), self.size)
        self.texts.append((text, font, boxes, self.y))
        self.y += (boxes[-1].line + 1) * _line_height(text, self.size)

    def draw(self, end: str) -> Figure:
        canvas = Canvas(self.width, self.y + _BAR)
        axes = canvas.axes(0.0, 0.0, canvas.width, canvas.height)  # one inch is one unit
        axes.set_xlim(0, canvas.width)
        axes.set_ylim(canvas.height, 0)
        axes.set_axis_off()
        for x, y, letters, style in self.lines:
            canvas.text(x, y, letters, **style)
        for text, font, boxes, top in self.texts:
            _draw(axes, text, boxes, (Canvas.margin, top), font, self.size)
        bar = min(3.0, self.width - 2.0)
        canvas.colour_bar((self.width - bar) / 2, self.y + 0.02, bar, (f"−{end}", f"+{end}"))
        return canvas.figure


def _line_height(text: Text, size: float) -> float:
    return (_LINE_MONO if text.monospace else _LINE) * size * _POINT


def _ruler(family: str | list[str], size: float, weight: str = "normal") -> Callable[[str], float]:
    """A function that returns the width of letters, in inches."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    properties = FontProperties(family=family, size=size, weight=weight)

    def ink(letters: str) -> float:
        return text_to_path.get_text_width_height_descent(letters, properties, False)[0]

    # Ink ends with the last letter; a bar after it makes spaces at the end count.
    bar = ink("|")
    return lambda letters: (ink(letters + "|") - bar) * _POINT


def _broken(text: str, room: float, ruler: Callable[[str], float]) -> list[str]:
    """A line of text, broken between words if it is longer than the room."""
    lines: list[str] = []
    for paragraph in text.split("\n"):
        begins = len(lines)
        for word in paragraph.split(" "):
            if len(lines) > begins and ruler(f"{lines[-1]} {word}") <= room:
                lines[-1] += f" {word}"
            else:
                lines.extend(_pieces(word, room, ruler) or [""])
    return lines


def _lay_out(text: Text, room: float, ruler: Callable[[str], float], size: float) -> list[_Box]:
    """Places tokens from left to right and begins a new line if a token has no room."""
    advance = ruler("0" * 100) / 100
    pad = _padding(text, size)
    if room < advance + 2 * pad:
        raise ValueError(f"a page with {room:.2g} inches for text is too narrow for a letter")

    def wide(letters: str) -> float:
        return 2 * pad + (len(letters) * advance if text.monospace else ruler(letters))

    boxes: list[_Box] = []
    x, line = 0.0, 0
    for token, shown in enumerate(text.visible):
        for part in shown.splitlines(keepends=True):
            letters = part.removesuffix("\n")
            for piece in letters if text.monospace else _pieces(letters, room, wide):
                width = wide(piece)
                if x > 0 and x + width > room + 1e-6:
                    x, line = 0.0, line + 1
                boxes.append(_Box(token, piece, line, x, width))
                x += width
            if part.endswith("\n"):
                x, line = 0.0, line + 1
        if token + 1 < len(text.visible) and text.separator:
            for part in text.separator.splitlines(keepends=True):
                mark = part.removesuffix("\n")
                width = ruler(mark)
                if mark.strip():
                    if x > 0 and x + width > room:
                        x, line = 0.0, line + 1
                    boxes.append(_Box(None, mark, line, x, width))
                x += width if x > 0 or mark.strip() else 0.0
                if part.endswith("\n"):
                    x, line = 0.0, line + 1
    return boxes


def _pieces(letters: str, room: float, wide: Callable[[str], float]) -> list[str]:
    """A word as it is, or in pieces of one line each if it is longer than a line."""
    pieces: list[str] = []
    start = 0
    while start < len(letters):
        # The time of measuring grows with the letters: at most as many as fit two lines are tried.
        fits, beyond = 1, 2
        while start + beyond <= len(letters) and wide(letters[start : start + beyond]) <= room:
            fits, beyond = beyond, 2 * beyond
        beyond = min(beyond, len(letters) - start + 1)
        while beyond - fits > 1:
            middle = (fits + beyond) // 2
            if wide(letters[start : start + middle]) <= room:
                fits = middle
            else:
                beyond = middle
        pieces.append(letters[start : start + fits])
        start += fits
    return pieces


def _padding(text: Text, size: float) -> float:
    return 0.0 if text.monospace else _PAD * size * _POINT


def _draw(
    axes: Axes,
    text: Text,
    boxes: list[_Box],
    origin: tuple[float, float],
    family: str | list[str],
    size: float,
) -> None:
    from matplotlib.collections import PolyCollection

    x, y = origin
    height = _line_height(text, size)
    inner = 1.0 if text.monospace else 0.86  # words are separate; bytes form a field
    corners = []
    coloured = [(box, box.token) for box in boxes if box.token is not None]
    for box, _ in coloured:
        left = x + box.x
        upper = y + box.line * height + (1 - inner) / 2 * height
        right, lower = left + box.width, upper + inner * height
        corners.append([(left, upper), (right, upper), (right, lower), (left, lower)])
    colours = text.background[[token for _, token in coloured]] / 255
    # Edges that are smoothed would leave white seams between neighbours.
    axes.add_collection(
        PolyCollection(corners, facecolors=colours, linewidths=0, antialiaseds=False)
    )
    for box in boxes:
        if not box.letters.strip():
            continue
        pad = 0.0 if box.token is None else _padding(text, size)
        axes.text(
            x + box.x + pad,
            y + (box.line + 0.5) * height + 0.36 * size * _POINT,
            box.letters,
            va="baseline",
            size=size,
            family=family,
            color="white" if box.token is not None and text.white_ink[box.token] else "black",
            parse_math=False,
        )
