"""Two programs that take turns, and an interval for the ratio of their times."""

import ctypes
import gc
import math
import re
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np


def timed(sides: Sequence[Callable[[], Any]], rounds: int) -> list[list[float]]:
    """Seconds of each side, by round; every side runs once before."""
    for side in sides:
        side()
    seconds: list[list[float]] = [[] for _ in sides]
    for _ in range(rounds):
        for side, taken in zip(sides, seconds, strict=True):
            start = time.perf_counter()
            side()
            taken.append(time.perf_counter() - start)
    return seconds


def interval(ratios: list[float]) -> tuple[float, float, float]:
    """Two of the ratios, and the probability that the median of all pairs lies between them.

    They are as close as 95 % allow; of fewer than six pairs the extremes, which reach less.
    """
    ordered, n = sorted(ratios), len(ratios)

    def inside(k: int) -> float:
        return 1 - 2 * sum(math.comb(n, i) for i in range(k)) / 2**n

    k = max([k for k in range(1, n // 2 + 1) if inside(k) >= 0.95], default=1)
    return ordered[k - 1], ordered[n - k], max(inside(k), 0.0)


def quotients(above: list[float], below: list[float]) -> list[float]:
    return [a / b for a, b in zip(above, below, strict=True)]


def middle(seconds: list[float]) -> float:
    return statistics.median(seconds)


def of_pairs(mine: list[float], theirs: list[float]) -> tuple[str, str, str, str]:
    """Cells of a table: the ratio of theirs to mine, its interval, and seconds of both."""
    ratios = quotients(theirs, mine)
    low, high, sure = interval(ratios)
    return (
        f"{middle(ratios):.2f}",
        f"{low:.2f} to {high:.2f} ({100 * sure:.0f} %)",
        f"{middle(mine):.3f}",
        f"{middle(theirs):.3f}",
    )


def times(sides: Sequence[Callable[[], Any]], pairs: int) -> tuple[str, ...]:
    """Cells of a table: mine, theirs, my gradient and theirs take turns."""
    mine, theirs, *gradients = timed(sides, pairs)
    over = [middle(quotients(*both)) for both in zip((mine, theirs), gradients, strict=True)]
    return *of_pairs(mine, theirs), *(f"{number:.2f}" for number in over)


def peak(side: Callable[[], Any]) -> float:
    """MB that a side needs at most, beside what the process holds before it runs.

    It runs once before. The peak is that of the resident memory (`VmHWM` of Linux), so buffers
    count whatever allocates them.
    """
    side()
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again
    before = _resident("VmRSS")
    side()
    return _resident("VmHWM") - before


def _resident(name: str) -> float:
    found = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    if found is None:
        raise RuntimeError(f"/proc/self/status does not state {name}; peaks need Linux.")
    return int(found[1]) / 1024


def peaks(sides: Sequence[Callable[[], Any]]) -> tuple[str, ...]:
    """Cells of a table: MB of each side, the median of three."""
    return tuple(f"{statistics.median(peak(side) for _ in range(3)):.0f}" for side in sides)


def distance(mine: Any, theirs: Any) -> float:
    """Norm of the difference over the norm of jaxlrp's relevance."""
    mine, theirs = np.asarray(mine, np.float64), np.asarray(theirs, np.float64)
    return float(np.linalg.norm(theirs - mine) / np.linalg.norm(mine))
