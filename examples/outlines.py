"""Pixels inside an outline, drawn by hand, of the object in a photograph."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from matplotlib.path import Path as Polygon


def outlines(names: list[str], size: int) -> dict[str, tuple[str, np.ndarray]]:
    """By photograph: what is outlined, and which pixels are inside."""
    drawn = json.loads(Path(__file__).with_name("outlines.json").read_text())
    y, x = np.mgrid[:size, :size]
    centres = np.stack([x.ravel() + 0.5, y.ravel() + 0.5], axis=-1) / size * 100
    found = {}
    for name in names:
        if name in drawn:
            inside = Polygon(drawn[name]["corners"]).contains_points(centres)
            found[name] = (drawn[name]["what"], inside.reshape(size, size))
    return found


def positive_share(R: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """The share of positive relevance inside, of maps (..., H, W); NaN where none is positive."""
    up = np.maximum(R, 0)
    total = up.sum((-2, -1))
    shares = np.full(total.shape, np.nan)
    return np.divide((up * inside).sum((-2, -1)), total, out=shares, where=total > 0)
