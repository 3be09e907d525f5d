"""Occlusion and RISE: how the score changes when parts of the input are replaced."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlrp.errors import InputError
from jaxlrp.methods.batches import total
from jaxlrp.methods.parts import baseline_of, checked_segments, one_array, rebuilt
from jaxlrp.methods.task import Task, along, check_count, method


def occlusion(
    fn: Callable[..., Any],
    argnums: Any = 0,
    has_aux: bool = False,
    *,
    window: Sequence[int] | None = None,
    stride: int | Sequence[int] = 1,
    segments: Any = None,
    n_segments: int | None = None,
    wrt: Any = None,
    baseline: Any = 0.0,
    examples: int | None = None,
    batch: int = 8,
) -> Callable[..., Any]:
    r"""Occlusion: how far the score falls if a part of the input is replaced.

    $$R_i = \frac{1}{n_i} \sum_{w \ni i} \left( f(x) - f(x_{w \leftarrow x_0}) \right)$$

    where w runs over the $n_i$ windows that cover element i, and $x_{w \leftarrow x_0}$ has the
    baseline's values there. With segments, each segment is replaced once. Cost: one evaluation
    for each window or segment, and no gradient.

    Use it if the function can only be evaluated, or to check another method. It is not for evidence
    that several parts carry equally: each may then be replaced without effect.

    Source: [Zeiler and Fergus 2014][zeiler2014].

    Args:
      fn: as in [`explain`][jaxlrp.explain], like argnums, has_aux and wrt; one array is explained.
      window: the window's size along each axis of the array after the examples, such as (8, 8, 3)
        for a picture HWC.
      stride: by how much the window moves along each axis, one number or one for each axis. The
        last window along an axis may reach over the border, so that the whole array is covered.
      segments: in place of a window; integers from 0 that broadcast to the array.
      n_segments: how many segments there are.
      baseline: the values that replace a part: a number, an array that broadcasts to the input, or
        a function of it.
      examples: leading axes that count examples, in x and in the output: each then has a score of
        its own. It must be given if x and the output share a first axis.
      batch: evaluations at a time.

    Returns:
      A function `R(*args, target=None, **kwargs)` as that of `explain`.

    Raises:
      InputError: neither or both of window and segments are given, or they do not fit.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import methods
      >>> R = methods.occlusion(lambda x: x[0] * x[1] + x[2], window=(1,))
      >>> print(R(jnp.array([2.0, 3.0, 1.0])))
      [6. 6. 1.]
    """
    check_count("batch", batch)
    if (window is None) == (segments is None):
        raise InputError("occlusion needs a window or segments, and not both.")

    @method(fn, argnums, has_aux, wrt)
    def occlusion(task: Task) -> Any:
        x = one_array(task, "occlusion")
        n = task.one_or_many(examples)
        x0 = baseline_of(task, baseline)
        whole = task.scores(task.x, n)
        if segments is None:
            starts = _windows(window, stride, x.shape[n:])
            part_of = _inside_window(window, x.shape[n:])  # type: ignore[arg-type]  (given: no segments)
        else:
            where, count = checked_segments(segments, n_segments, x)
            starts = np.arange(count)

            def part_of(k: Any) -> Any:
                return where == k

        def each(k: Any) -> Any:
            part = jnp.broadcast_to(part_of(k), x.shape)
            lost = whole - task.scores(rebuilt(task, jnp.where(part, x0, x)), n)
            counted = part.astype(lost.dtype)
            return along(lost, x) * counted, counted

        found, counts = total(each, jnp.asarray(starts), batch, like=task.x)
        return rebuilt(task, found / jnp.maximum(counts, 1))

    return occlusion


def rise(
    fn: Callable[..., Any],
    argnums: Any = 0,
    has_aux: bool = False,
    *,
    layout: str | None = None,
    cells: int | tuple[int, int] = 7,
    keep: float = 0.5,
    samples: int = 512,
    wrt: Any = None,
    baseline: Any = 0.0,
    examples: int | None = None,
    batch: int = 8,
) -> Callable[..., Any]:
    r"""RISE: the mean of the score under random masks that show an element.

    $$R_i = \frac{\sum_k f(x_0 + m_k (x - x_0)) \, m_{ki}}{\sum_k m_{ki}}$$

    The masks $m_k$ are coarse random grids, enlarged bilinearly and shifted. Cost: `samples`
    evaluations, and no gradient.

    Use it for pictures, if the function can only be evaluated. It is not a decomposition: R is the
    expected score if a pixel is seen, and is large everywhere if the score is large; look at
    differences.

    Source: [Petsiuk et al. 2018][petsiuk2018].

    Args:
      fn: as in [`explain`][jaxlrp.explain], like argnums, has_aux and wrt; one array is explained.
      layout: one letter for each axis of the array; `H` and `W` are the picture. By default
        `"HW"`, `"HWC"` or `"NHWC"`, by the number of axes.
      cells: the numbers of cells of the grid, along H and W.
      keep: the probability with which a cell is seen.
      samples: the number of masks.
      baseline: the values of masked elements.
      examples: as in [`occlusion`][jaxlrp.methods.occlusion].
      batch: evaluations at a time.

    Returns:
      A function `R(*args, key, target=None, **kwargs)`; R has the shape of x, the same for all
      channels.

    Raises:
      InputError: there is no key, or a parameter does not fit.
    """
    check_count("samples", samples)
    check_count("batch", batch)
    if isinstance(keep, (int, float)) and not 0 < keep < 1:
        raise InputError(f"keep={keep!r}: expected a probability between 0 and 1.")
    grid = (cells, cells) if isinstance(cells, int) else tuple(cells)
    for size in grid:
        check_count("cells", size)

    @method(fn, argnums, has_aux, wrt, draws=True)
    def rise(task: Task, key: Any) -> Any:
        x = one_array(task, "rise")
        n = task.one_or_many(examples)
        x0 = baseline_of(task, baseline)
        letters = {2: "HW", 3: "HWC", 4: "NHWC"}.get(x.ndim, "") if layout is None else layout
        if len(letters) != x.ndim or not {"H", "W"} <= set(letters):
            raise InputError(
                f"rise: layout={layout!r} for an input of shape {x.shape}; expected one letter for "
                "each axis, with H and W."
            )
        axes = (letters.index("H"), letters.index("W"))
        height, width = (x.shape[a] for a in axes)
        shape = [x.shape[a] if a in axes else 1 for a in range(x.ndim)]

        def each(key: Any) -> Any:
            mask = _random_mask(key, grid, keep, height, width, x.dtype)
            mask = (mask if axes[0] < axes[1] else mask.T).reshape(shape)
            score = task.scores(rebuilt(task, x0 + mask * (x - x0)), n)
            mask = mask.astype(score.dtype)
            found = jnp.broadcast_to(along(score, x), x.shape[:n] + (1,) * (x.ndim - n))
            return found * mask, mask

        found, seen = total(each, jax.random.split(key, samples), batch, like=task.x)
        R = found / jnp.where(seen == 0, 1.0, seen)
        return rebuilt(task, jnp.broadcast_to(R, x.shape))

    return rise


def _windows(window: Any, stride: Any, shape: tuple[int, ...]) -> np.ndarray:
    """The first corners of all windows."""
    steps = (stride,) * len(shape) if isinstance(stride, int) else tuple(stride)
    if len(window) != len(shape) or len(steps) != len(shape):
        raise InputError(
            f"window={tuple(window)}, stride={stride!r}: an input of shape {shape} (without its "
            "examples) needs one number for each axis."
        )
    for name, sizes in (("window", window), ("stride", steps)):
        for size in sizes:
            check_count(name, size)
    if any(s > w for s, w in zip(steps, window, strict=True)):
        raise InputError(f"stride={stride!r} is more than window={tuple(window)}: it leaves gaps.")
    axes = [
        range(0, max(size - w, 0) + s, s) if size > w else range(1)
        for size, w, s in zip(shape, window, steps, strict=True)
    ]
    return np.array(list(itertools.product(*axes)))


def _inside_window(window: Sequence[int], shape: tuple[int, ...]) -> Callable[[Any], Any]:
    def part_of(start: Any) -> Any:
        inside = jnp.ones((1,) * len(shape), bool)
        for axis, (size, w) in enumerate(zip(shape, window, strict=True)):
            places = jnp.arange(size).reshape([-1 if a == axis else 1 for a in range(len(shape))])
            inside = inside & (places >= start[axis]) & (places < start[axis] + w)
        return inside

    return part_of


def _random_mask(
    key: Any, grid: tuple[int, ...], keep: Any, height: int, width: int, dtype: Any
) -> Any:
    cell_key, shift_key = jax.random.split(key)
    cell = (-(-height // grid[0]), -(-width // grid[1]))
    there = jax.random.bernoulli(cell_key, keep, (grid[0] + 1, grid[1] + 1)).astype(dtype)
    size = ((grid[0] + 1) * cell[0], (grid[1] + 1) * cell[1])
    large = jax.image.resize(there, size, "bilinear")
    limits = jnp.array([size[0] - height + 1, size[1] - width + 1])
    limits = jnp.minimum(limits, jnp.array(cell))
    start = (jax.random.uniform(shift_key, (2,)) * limits).astype(int)
    return jax.lax.dynamic_slice(large, (start[0], start[1]), (height, width))
