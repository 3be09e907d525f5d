"""Relevance as pictures: colour arrays with numpy alone, labelled figures with matplotlib.

Red speaks for the explained output, blue against it, white is zero. The scale is always symmetric,
so white means "no relevance" in every picture, and equal magnitudes are equally dark on both sides.

An array is described by its `layout`, one letter per axis: `H` and `W` are the picture, `C` is
summed (the relevance of a pixel is the sum over its channels), and every other letter counts
pictures. `"NHWC"` is a batch of images, `"RKHW"` a table of rows and columns of maps.
"""

from jaxlrp.heatmap.figure import grid
from jaxlrp.heatmap.palette import channel_sum, colours, scales

__all__ = ["channel_sum", "colours", "grid", "scales"]
