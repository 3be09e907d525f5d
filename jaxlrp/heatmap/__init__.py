"""Relevance as pictures and as coloured text.

Colour arrays and pages of HTML need only numpy; figures need matplotlib. Red speaks for the
explained output, blue against it, and white is zero. The scale is always symmetric, so white means
"no relevance" everywhere, and equal magnitudes are equally dark on both sides.

An array is described by its `layout`, one letter per axis: `H` and `W` are the picture, `C` is
summed (the relevance of a pixel is the sum over its channels), and every other letter counts
pictures. `"NHWC"` is a batch of images, `"RKHW"` a table of rows and columns of maps. A text is a
sequence of tokens, or bytes, with one number each.
"""

from jaxlrp.heatmap.figure import grid, show
from jaxlrp.heatmap.page import TextPage, text_html
from jaxlrp.heatmap.palette import channel_sum, colors, colours, ranked, scales
from jaxlrp.heatmap.paragraph import text_figure
from jaxlrp.heatmap.photographs import contour, overlay
from jaxlrp.heatmap.series import lines
from jaxlrp.heatmap.tables import bars
from jaxlrp.heatmap.tokens import merge_pieces

__all__ = [
    "bars",
    "channel_sum",
    "colors",
    "colours",
    "contour",
    "grid",
    "lines",
    "scales",
    "merge_pieces",
    "overlay",
    "ranked",
    "show",
    "text_figure",
    "text_html",
    "TextPage",
]
