"""A matplotlib figure measured in inches from its top left corner."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxlrp.heatmap.letters import readable
from jaxlrp.heatmap.palette import STOPS, paint

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class Canvas:
    """A figure of a given size on which text, pictures and a colour bar are placed.

    Every length is in inches, and y grows downwards.
    """

    margin = 0.15

    def __init__(self, width: float, height: float):
        self.width = width
        self.height = height
        self.figure = _matplotlib_figure((width, height))

    def text(self, x: float, y: float, text: str, **style: Any) -> None:
        """Text centred on y, as it is: a dollar sign does not begin an equation."""
        style = {"va": "center", "parse_math": False, **style}
        self.figure.text(x / self.width, 1 - y / self.height, readable(text), **style)

    def axes(self, x: float, y: float, width: float, height: float) -> Axes:
        """Axes whose top left corner is at (x, y)."""
        return self.figure.add_axes(
            (
                x / self.width,
                1 - (y + height) / self.height,
                width / self.width,
                height / self.height,
            )
        )

    def colour_bar(
        self,
        x: float,
        y: float,
        width: float,
        ends: tuple[str, str],
        palette: np.ndarray = STOPS,
    ) -> None:
        """The palette from -scale to +scale, with `ends` written below its two ends."""
        bar = self.axes(x, y + 0.14, width, 0.13)
        colours = paint(np.linspace(-1, 1, 401)[None], np.array(1.0), palette)
        bar.imshow(colours, aspect="auto")
        bar.set_yticks([])
        bar.set_xticks([0, 200, 400], [ends[0], "0", ends[1]])
        bar.tick_params(labelsize=9, length=2, color="0.6")
        frame(bar)
        middle = y + 0.14 + 0.13 / 2
        self.text(x - 0.1, middle, "against", size=9, ha="right")
        self.text(x + width + 0.1, middle, "for", size=9, ha="left")

    def upright_bar(
        self,
        x: float,
        y: float,
        height: float,
        ends: tuple[str, str],
        palette: np.ndarray = STOPS,
    ) -> None:
        """The palette from -scale below to +scale above, with `ends` beside its two ends."""
        bar = self.axes(x, y, 0.1, height)
        colours = paint(np.linspace(1, -1, 401)[:, None], np.array(1.0), palette)
        bar.imshow(colours, aspect="auto")
        bar.set_xticks([])
        bar.set_yticks([0, 200, 400], [ends[1], "0", ends[0]])
        bar.yaxis.tick_right()
        bar.tick_params(labelsize=8, length=2, color="0.6", labelcolor="0.35")
        frame(bar)


def plus_minus(scale: float) -> str:
    return f"±{short_number(scale)}"


def short_number(value: float) -> str:
    return f"{value:#.2g}".removesuffix(".")


def frame(axes: Axes) -> None:
    for spine in axes.spines.values():
        spine.set_color("0.8")
        spine.set_linewidth(0.6)


def check_lengths(**lengths: Any) -> None:
    """Raise unless lengths are positive numbers."""
    for name, length in lengths.items():
        if not isinstance(length, (int, float)) or not 0 < length < float("inf"):
            raise ValueError(f"{name} must be a positive number, not {length!r}")


def require_matplotlib() -> None:
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "jaxlrp.heatmap draws figures with matplotlib, which is not installed: "
            "pip install 'jaxlrp[examples]', or pip install matplotlib"
        ) from error


def _matplotlib_figure(size: tuple[float, float]) -> Figure:
    require_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    class Drawing(Figure):
        """A figure that a notebook shows."""

        def _repr_png_(self) -> bytes:
            buffer = io.BytesIO()
            self.savefig(buffer, format="png")
            return buffer.getvalue()

    figure = Drawing(figsize=size, facecolor="white")
    FigureCanvasAgg(figure)
    return figure
