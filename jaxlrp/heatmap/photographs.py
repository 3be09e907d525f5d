"""Relevance over the photograph that it explains."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxlrp.heatmap.palette import (
    STOPS,
    Per,
    channel_sum,
    given_scale,
    paint,
    palette_of,
    scales_of,
)

# Rec. 709: the perceived brightness of red, green and blue.
_LUMINANCE = np.array([0.2126, 0.7152, 0.0722])


def overlay(
    R: Any,
    images: Any,
    layout: str | None = None,
    *,
    image_layout: str | None = None,
    scale: Any = None,
    per: Per = "image",
    percentile: float = 99.5,
    fade: float = 0.45,
    color_map: str | None = None,
    colour_map: str | None = None,
) -> np.ndarray:
    """Relevance in colour over the photograph in pale grey.

    The photograph loses its colours, so that red and blue mean only relevance. The more relevance a
    pixel has, the less of the photograph shows: fully without relevance, and not at all at full
    strength.

    Args:
        R: relevance, as in [`channel_sum`][jaxlrp.heatmap.channel_sum].
        images: the photographs, bright where the number is large: integers from 0 to 255, or
            floats, which are taken as 0 to 1 if none is larger, else as 0 to 255. Their counting
            axes broadcast to those of R.
        layout: of R.
        image_layout: one letter for each axis of `images`, with `C` of size 1 or 3. By default
            `"HW"`, `"HWC"` or `"NHWC"`, by the number of axes.
        scale: as in [`colors`][jaxlrp.heatmap.colors].
        per: as there.
        percentile: as there.
        fade: by how much the photograph is faded towards white, from 0 (not at all) to 1 (fully).
        color_map: another palette, as in [`colors`][jaxlrp.heatmap.colors].
        colour_map: another name of `color_map`.

    Returns:
        A `uint8` array of shape `(..., H, W, 3)`.

    Raises:
        ValueError: shapes do not fit, or images hold NaN or numbers outside 0 to 255.

    Examples:
        >>> import numpy as np
        >>> black = np.zeros((1, 2))
        >>> overlay(np.array([[0.0, 1.0]]), black, fade=0.5)[0].tolist()
        [[128, 128, 128], [124, 18, 24]]
    """
    maps = channel_sum(R, layout)
    if not 0 <= fade <= 1:
        raise ValueError(f"fade must be between 0 and 1, not {fade}")
    grey = greys(images, image_layout, maps.shape)
    if scale is None:
        scale = scales_of(maps, per, percentile)
    else:
        scale = given_scale(scale, maps.shape[:-2])
    bound = scale[..., None, None]
    share = np.divide(np.abs(maps), bound, out=np.zeros(maps.shape), where=bound > 0)
    cover = np.sqrt(np.clip(share, 0, 1))[..., None]
    below = 255 * (fade + (1 - fade) * grey)[..., None]
    # Colours of full strength, thinned by the cover: a weak one is a tint, not a pale patch.
    palette = palette_of(color_map, colour_map)
    colour = paint(maps, scale, palette).astype(np.float64)
    return np.rint((1 - cover) * below + cover * colour).astype(np.uint8)


def contour(
    R: Any,
    images: Any,
    layout: str | None = None,
    *,
    image_layout: str | None = None,
    share: float = 0.5,
    smooth: int = 9,
    width: int = 2,
    percentile: float = 99.5,
) -> np.ndarray:
    """The photograph in grey, with a line around the positive relevance.

    The line in the palette's red encloses the pixels with the largest positive relevance, smoothed,
    that together hold `share` of it. Relevance against the class is left out.

    Args:
        R: as in [`overlay`][jaxlrp.heatmap.overlay].
        images: as there.
        layout: as there.
        image_layout: as there.
        share: the share of the positive relevance that is enclosed, between 0 and 1.
        smooth: side of the square over which relevance is averaged first, in pixels; odd.
        width: the width of the line, in pixels.
        percentile: the percentile of |R| at which relevance is capped, as in `scales`.

    Returns:
        A `uint8` array of shape `(..., H, W, 3)`; without a line where there is no positive
        relevance.

    Raises:
        ValueError: as `overlay`, or a parameter out of range.
    """
    if not 0 < share < 1:
        raise ValueError(f"share must be between 0 and 1, not {share}")
    if smooth < 1 or smooth % 2 == 0:
        raise ValueError(f"smooth must be an odd number of pixels, not {smooth}")
    if width < 1:
        raise ValueError(f"width must be at least one pixel, not {width}")
    maps = channel_sum(R, layout)
    grey = greys(images, image_layout, maps.shape)
    picture = np.rint(255 * np.repeat(grey[..., None], 3, axis=-1)).astype(np.uint8)
    most = scales_of(maps, "image", percentile)[..., None, None]  # so that no outlier holds it all
    flat = np.clip(maps, 0, most).reshape(-1, *maps.shape[-2:])
    line = np.stack([_border(_enclosed(_mean(R, smooth), share), width) for R in flat])
    picture[line.reshape(maps.shape)] = STOPS[-4]
    return picture


def _mean(R: np.ndarray, side: int) -> np.ndarray:
    """The mean over a square around each pixel; values beyond the border are 0."""
    for axis in (0, 1):
        padding = [(0, 0), (0, 0)]
        padding[axis] = (side // 2, side // 2)
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(R, padding), side, axis)
        R = windows.mean(axis=-1)
    return R


def _enclosed(R: np.ndarray, share: float) -> np.ndarray:
    """The largest values that together hold a share of the sum."""
    total = R.sum()
    if total <= 0:
        return np.zeros(R.shape, bool)
    falling = np.sort(R, axis=None)[::-1]
    enough = int(np.searchsorted(np.cumsum(falling), share * total))
    return falling[min(enough, R.size - 1)] <= R


def _border(inside: np.ndarray, width: int) -> np.ndarray:
    """Pixels inside that are at most `width` steps from a pixel outside."""
    core = inside
    for _ in range(width):
        around = np.pad(core, 1)
        core = core & around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:]
    return inside & ~core


def greys(images: Any, layout: str | None, shape: tuple[int, ...]) -> np.ndarray:
    """Brightness from 0 to 1, broadcast to the shape of maps."""
    values = np.asarray(images)
    if layout is None:
        layout = {2: "HW", 3: "HWC", 4: "NHWC"}.get(values.ndim)
        if layout == "HWC" and values.shape[-1] not in (1, 3) and len(shape) == 3:
            layout = "NHW"
    if layout is None or len(layout) != values.ndim or not {"H", "W"} <= set(layout):
        raise ValueError(
            f"images of shape {values.shape} need an image_layout, one letter per axis with H and "
            f"W, not {layout!r}"
        )
    values = as_brightness(values)
    kept = [axis for axis, letter in enumerate(layout) if letter not in "HWC"]
    order = [*kept, layout.index("H"), layout.index("W")]
    if "C" in layout:
        values = values.transpose(*order, layout.index("C"))
        if values.shape[-1] not in (1, 3):
            raise ValueError(f"images have {values.shape[-1]} channels; 1 or 3 can be drawn")
        values = values[..., 0] if values.shape[-1] == 1 else values @ _LUMINANCE
    else:
        values = values.transpose(*order)
    try:
        return np.broadcast_to(values, shape)
    except ValueError:
        raise ValueError(
            f"images of shape {np.shape(images)} ({layout}) do not fit maps of shape {shape}"
        ) from None


def as_brightness(values: Any) -> np.ndarray:
    """Numbers of pixels as floats from 0 to 1."""
    values = np.asarray(values)
    if values.dtype == bool:
        return values.astype(np.float64)
    if np.issubdtype(values.dtype, np.integer):
        largest = 255
        values = values.astype(np.float64)
    else:
        values = values.astype(np.float64)
        if not np.isfinite(values).all():
            raise ValueError("images hold NaN or infinite values")
        largest = 1 if values.size and values.max() <= 1 else 255
    if values.size and (values.min() < 0 or values.max() > largest):
        raise ValueError(
            f"images go from {values.min():g} to {values.max():g}; give pixels from 0 to 255, or "
            "from 0 to 1, as they were before any normalisation"
        )
    return values / largest
