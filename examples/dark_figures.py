"""Figures on a dark ground, for pages that are read in the dark."""

from __future__ import annotations

import colorsys

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

GROUND = "#1e2129"  # of the site's pages in the dark


def on_black(colors: np.ndarray) -> np.ndarray:
    """Colours of the same hue whose lightness is inverted: white becomes black."""
    colors = colors.astype(int)
    lightness = colors.max(-1, keepdims=True) + colors.min(-1, keepdims=True)
    return (255 - lightness + colors).astype(np.uint8)


def darken(figure: Figure) -> None:
    """Give a figure of `jaxlrp.heatmap` a dark ground and light text.

    Relevance is drawn on black. Photographs stay as they are: `heatmap.grid` draws them from
    floats, and relevance from bytes.
    """
    figure.set_facecolor(GROUND)
    for text in figure.findobj(lambda part: hasattr(part, "get_fontsize")):
        text.set_color(_light(text.get_color()))
    for axes in figure.axes:
        axes.tick_params(color="0.5")
        for spine in axes.spines.values():
            spine.set_color("0.35")
        for lines in axes.collections:
            lines.set_edgecolor("white")
    for image in figure.findobj(AxesImage):
        colors = np.asarray(image.get_array())
        if colors.dtype == np.uint8:
            image.set_data(on_black(colors))


def _light(color) -> tuple[float, float, float]:
    """The colour that is as far from the dark ground as this one from white."""
    hue, lightness, saturation = colorsys.rgb_to_hls(*to_rgb(color))
    return colorsys.hls_to_rgb(hue, 0.9 - 0.8 * lightness, saturation)
