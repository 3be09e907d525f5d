"""Colours for relevance: red speaks for the explained output, blue against it, white is zero.

The scale is always symmetric, so white means "no relevance" in every picture, and equal magnitudes
are equally dark on both sides.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np

Per = Literal["image", "row", "shared"]

# Nine stops from white to full strength on either side, computed in Oklab: lightness falls linearly
# from 1 to 0.38 on both sides, and the hue runs from 45 to 25 degrees (red) and 245 to 258 (blue).
_FOR = (
    (255, 255, 255), (255, 221, 208), (255, 185, 161), (252, 147, 115), (238, 112, 81),
    (218, 79, 54), (191, 51, 36), (159, 29, 27), (124, 18, 24),
)  # fmt: skip
_AGAINST = (
    (255, 255, 255), (209, 233, 255), (163, 209, 255), (115, 185, 255), (65, 159, 252),
    (27, 132, 235), (2, 107, 206), (1, 84, 172), (1, 62, 138),
)  # fmt: skip
STOPS = np.array((*reversed(_AGAINST), *_FOR[1:]), dtype=np.float64)

_LAYOUT_OF_RANK = {2: "HW", 4: "NHWC"}


def channel_sum(R: Any, layout: str | None = None) -> np.ndarray:
    """Sums relevance over channels and moves the picture axes last.

    Args:
        R: floating array of relevance.
        layout: one letter per axis of `R`; `H` and `W` once each, `C` (at most once) is
            summed, the others are kept in their order. By default `"HW"` for rank 2 and
            `"NHWC"` for rank 4.

    Returns:
        A float32 array (float64 for float64 input, and for sums too large for float32) of shape
        `(..., H, W)`.

    Raises:
        TypeError: `R` is not floating.
        ValueError: the rank does not fit the layout, an axis is empty, or a value is NaN or
            infinite.
    """
    R = np.asarray(R)
    if not jnp.issubdtype(R.dtype, np.floating):
        raise TypeError(f"relevance must be a floating array, not {R.dtype}")
    layout = _checked_layout(R, layout)
    if R.dtype != np.float64:
        R = R.astype(np.float32)
    if not np.isfinite(R).all():
        nans, infinite = int(np.isnan(R).sum()), int(np.isinf(R).sum())
        raise ValueError(
            f"relevance cannot be drawn: of {R.size} values {nans} are NaN, {infinite} infinite"
        )
    kept = [axis for axis, letter in enumerate(layout) if letter not in "HWC"]
    channels = [axis for axis, letter in enumerate(layout) if letter == "C"]
    R = R.transpose(*kept, layout.index("H"), layout.index("W"), *channels)
    if not channels:
        return R
    total = R.sum(axis=-1, dtype=np.float64)
    fits = np.abs(total).max() <= np.finfo(R.dtype).max
    return total.astype(R.dtype) if fits else total


def scales(
    R: Any, layout: str | None = None, *, per: Per = "image", percentile: float = 99.5
) -> np.ndarray:
    """The relevance that is drawn at full strength: a maximum of |R| that is robust to outliers.

    Args:
        R: relevance, as in [`channel_sum`][jaxlrp.heatmap.channel_sum].
        layout: as there.
        per: `"image"` for one scale a picture, `"row"` for one along the first counting axis
            (all pictures of a row are then comparable), `"shared"` for one in all.
        percentile: of |R|, in (0, 100]; 100 is the plain maximum. If so few pixels carry relevance
            that the percentile is 0, the maximum is taken. Below 100, a scale is at most four times
            the value below it in rank, and at most four times the scale of the median picture to
            which it applies, so that neither one pixel nor one picture fades the others.

    Returns:
        An array with one scale per picture, of the shape of the counting axes. A scale is 0 only if
        every value to which it applies is 0.
    """
    return scales_of(channel_sum(R, layout), per, percentile)


def colors(
    R: Any,
    layout: str | None = None,
    *,
    scale: Any = None,
    per: Per = "image",
    percentile: float = 99.5,
    color_map: str | None = None,
    colour_map: str | None = None,
) -> np.ndarray:
    """Relevance as red (for), white (zero) and blue (against).

    Args:
        R: relevance, as in [`channel_sum`][jaxlrp.heatmap.channel_sum].
        layout: as there.
        scale: the relevance at full strength, a positive number or an array that broadcasts to
            the counting axes. By default it is computed, as [`scales`][jaxlrp.heatmap.scales] does
            with `per` and `percentile`.
        per: as in `scales`.
        percentile: as in `scales`.
        color_map: another palette: the name of a color map of matplotlib, which is then needed.
            Its middle is 0, its last color the scale; choose one that diverges (`"seismic"`).
        colour_map: another name of `color_map`, as `colours` is of this function.

    Returns:
        A `uint8` array of shape `(..., H, W, 3)`. Values beyond the scale take the last color.

    Examples:
        >>> import numpy as np
        >>> colors(np.array([[-1.0, 0.0, 1.0]]))[0].tolist()
        [[1, 62, 138], [255, 255, 255], [124, 18, 24]]
    """
    maps = channel_sum(R, layout)
    if scale is None:
        scale = scales_of(maps, per, percentile)
    else:
        scale = given_scale(scale, maps.shape[:-2])
    return paint(maps, scale, palette_of(color_map, colour_map))


colours = colors


def ranked(R: Any, layout: str | None = None, *, per: Per = "image") -> np.ndarray:
    """Relevance by rank: sign(R) times the share of magnitudes that are not larger.

    This is a quantile scale: half of the values that are not 0 are drawn at half strength or more,
    however far apart the numbers are. It shows faint structure and hides how faint it is. Draw it
    with `scale=1`.

    Args:
        R: relevance, as in [`channel_sum`][jaxlrp.heatmap.channel_sum].
        layout: as there.
        per: which values are ranked together, as in [`scales`][jaxlrp.heatmap.scales].

    Returns:
        A float array of shape `(..., H, W)` between -1 and 1. 0 stays 0 and has no rank; equal
        magnitudes have the same rank.

    Examples:
        >>> import numpy as np
        >>> ranked(np.array([[-1e-9, 0.0, 3.0, 1e6]])).round(2).tolist()
        [[-0.33, 0.0, 0.67, 1.0]]
    """
    maps = channel_sum(R, layout)
    groups = maps.shape[: _first_axis(per, maps.ndim - 2)]
    found = []
    for group in maps.reshape(math.prod(groups), -1):
        sizes = np.sort(np.abs(group[group != 0]))
        rank = np.searchsorted(sizes, np.abs(group), side="right") / max(1, len(sizes))
        found.append(np.sign(group) * rank)
    return np.stack(found).reshape(maps.shape)


def palette_of(color_map: str | None, colour_map: str | None = None) -> np.ndarray:
    """The stops of a palette, by either of the names of the argument."""
    if color_map is not None and colour_map is not None:
        raise ValueError("color_map and colour_map are one argument: give color_map alone")
    name = colour_map if color_map is None else color_map
    return STOPS if name is None else _stops_of(name)


def _stops_of(name: str) -> np.ndarray:
    try:
        import matplotlib
    except ImportError:
        raise ImportError(
            f"color_map={name!r} needs matplotlib: pip install 'jaxlrp[examples]'"
        ) from None
    if name not in matplotlib.colormaps:
        raise ValueError(
            f"color_map={name!r} is not known to matplotlib; diverging ones are 'seismic', 'bwr', "
            "'RdBu_r', 'coolwarm'"
        )
    stops = matplotlib.colormaps[name].resampled(257)(np.arange(257))
    return 255 * np.asarray(stops)[:, :3]


def _first_axis(per: Per, counting: int) -> int:
    """The first axis of maps along which `per` does not separate scales."""
    if per == "image":
        return counting
    if per == "row":
        return min(1, counting)
    if per == "shared":
        return 0
    raise ValueError(f'per must be "image", "row" or "shared", not {per!r}')


def _checked_layout(R: np.ndarray, layout: str | None) -> str:
    if layout is None:
        if R.ndim not in _LAYOUT_OF_RANK:
            raise ValueError(
                f"relevance of shape {R.shape} needs a layout, one letter per axis "
                '(such as "HWC" for one image, "NHW" for maps without channels); '
                "only rank 2 (HW) and rank 4 (NHWC) are understood without one"
            )
        layout = _LAYOUT_OF_RANK[R.ndim]
    if len(set(layout)) != len(layout) or not {"H", "W"} <= set(layout):
        raise ValueError(f"layout {layout!r} must name H and W, and no axis twice")
    if len(layout) != R.ndim:
        raise ValueError(
            f"layout {layout!r} names {len(layout)} axes, but the relevance has shape {R.shape}"
        )
    if R.size == 0:
        raise ValueError(f"relevance of shape {R.shape} is empty; there is nothing to draw")
    return layout


def given_scale(scale: Any, counting: tuple[int, ...]) -> np.ndarray:
    scale = np.asarray(scale, dtype=np.float64)
    if not (np.isfinite(scale) & (scale > 0)).all():
        raise ValueError(f"scale must be positive and finite, not {scale}")
    try:
        return np.broadcast_to(scale, counting)
    except ValueError:
        raise ValueError(
            f"scale of shape {scale.shape} does not broadcast to the pictures' {counting}"
        ) from None


def check_percentile(percentile: float) -> None:
    if not 0 < percentile <= 100:
        raise ValueError(f"percentile must be above 0 and at most 100, not {percentile}")


def scales_of(maps: np.ndarray, per: Per, percentile: float) -> np.ndarray:
    check_percentile(percentile)
    counting = maps.shape[:-2]
    first = _first_axis(per, len(counting))
    governed = np.abs(maps).reshape(*counting[:first], -1, *maps.shape[-2:])
    bound = magnitude_of(governed, percentile, (-3, -2, -1))
    if percentile < 100 and governed.shape[-3] > 1:
        bound = np.minimum(bound, _MOST * _median(magnitude_of(governed, percentile, (-2, -1))))
    return np.broadcast_to(bound.reshape(bound.shape + (1,) * (len(counting) - first)), counting)


# By how much an outlier may stand out: a quarter of the full strength is still seen.
_MOST = 4.0


def magnitude_of(
    magnitude: np.ndarray, percentile: float, axes: tuple[int, ...], pictures: bool = True
) -> np.ndarray:
    """A percentile, in pictures one that no single value sets; the maximum where it is 0."""
    bound = np.percentile(magnitude, percentile, axis=axes)
    if pictures and percentile < 100:  # between two ranks, the upper one may be an outlier
        lower = np.percentile(magnitude, percentile, axis=axes, method="lower")
        bound = np.where(lower > 0, np.minimum(bound, _MOST * lower), bound)
    return np.where(bound > 0, bound, magnitude.max(axis=axes))


def _median(scales: np.ndarray) -> np.ndarray:
    """The lower median over the last axis of scales that are not 0; infinite where all are."""
    rising = np.sort(np.where(scales > 0, scales, np.inf), axis=-1)
    middle = np.maximum(np.sum(scales > 0, axis=-1) - 1, 0) // 2
    return np.take_along_axis(rising, middle[..., None], axis=-1)[..., 0]


def paint(maps: np.ndarray, scale: np.ndarray, palette: np.ndarray = STOPS) -> np.ndarray:
    scale = scale[..., None, None]
    share = np.divide(maps, scale, out=np.zeros(maps.shape), where=scale > 0)
    at = (np.clip(share, -1, 1) + 1) / 2 * (len(palette) - 1)
    stops = np.arange(len(palette))
    painted = np.stack([np.interp(at, stops, channel) for channel in palette.T], axis=-1)
    return np.rint(painted).astype(np.uint8)
