"""DeepLIFT and DeepSHAP: multipliers of differences from a reference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from jaxlrp import composites
from jaxlrp.errors import InputError
from jaxlrp.methods.batches import total
from jaxlrp.methods.reference_rules import (
    AlongLine,
    HandOn,
    MaxRescale,
    Rescale,
    RevealCancel,
)
from jaxlrp.methods.task import Task, check_count, filled, method, minus, set_of, sums, times
from jaxlrp.planning.layers import is_in_branch
from jaxlrp.rules import Epsilon, Rule
from jaxlrp.transforms import explain, plan

_RULES: dict[str, type[Rule]] = {
    "activation": Rescale,
    "max_pool": MaxRescale,
    "matmul": AlongLine,
    "product": AlongLine,
    "softmax": AlongLine,
    "norm": AlongLine,
    "unsupported": AlongLine,
}


def deep_lift(
    fn: Callable[..., Any],
    argnums: Any = 0,
    has_aux: bool = False,
    *,
    wrt: Any = None,
    baseline: Any = 0.0,
    rule: str = "rescale",
    gap: bool = False,
    examples: int = 0,
) -> Callable[..., Any]:
    r"""DeepLIFT: the difference from a reference $x_0$, shared out layer by layer.

    $$R = m_x (x - x_0), \qquad \text{activation } y = g(x): \;
      m_x = \frac{g(x) - g(x_0)}{x - x_0} m_y, \qquad \sum_i R_i = f(x) - f(x_0)$$

    Linear layers pass multipliers m on as the gradient does. A maximum gives its difference to one
    winner. Products, softmax and norms take their mean derivative between reference and input,
    which is exact for products and nearly exact for the others. Cost: about three gradients, and
    more if there are softmax layers or norms.

    Use it where gradients vanish although the output differs from that of a reference. It is not
    for networks with loops or branches, unless the layers inside are linear.

    Source: [Shrikumar et al. 2017][shrikumar2017].

    Args:
      fn: as in [`explain`][jaxlrp.explain], like argnums, has_aux and wrt.
      baseline: x0: a number, arrays that broadcast to the explained values, or a function of these.
      rule: `"rescale"`, or `"reveal_cancel"`: in layers with weights that only a ReLU reads,
        positive and negative contributions have multipliers of their own; other layers have
        rescale.
      gap: return `(R, gap)` with gap = f(x) - f(x0) - sum R.
      examples: leading axes that count examples, for the gap.

    Returns:
      A function `R(*args, target=None, **kwargs)` as that of `explain`; `(R, gap)` with `gap`.

    Raises:
      InputError: a parameter does not fit, or a layer that is not linear is inside a loop or a
        branch.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlrp import methods
      >>> R = methods.deep_lift(lambda x: jax.nn.relu(x.sum() - 1))
      >>> print(R(jnp.array([1.0, 3.0])))
      [0.75 2.25]
    """
    _check_rule(rule)

    @method(fn, argnums, has_aux, wrt)
    def deep_lift(task: Task) -> Any:
        x0 = filled("baseline", baseline, task.x)
        R = _contributions(task, x0, rule)
        if not gap:
            return R
        n = task.check_examples(examples)
        return R, task.scores(task.x, n) - task.scores(x0, n) - sums(R, n)

    return deep_lift


def deep_shap(
    fn: Callable[..., Any],
    argnums: Any = 0,
    has_aux: bool = False,
    *,
    references: Any,
    wrt: Any = None,
    rule: str = "rescale",
    batch: int = 8,
) -> Callable[..., Any]:
    r"""DeepSHAP: the mean of DeepLIFT over references, an approximation of Shapley values.

    $$R = \frac{1}{n} \sum_{k=1}^{n} R^{(x'_k)}, \qquad
      \sum_i R_i = f(x) - \frac{1}{n} \sum_{k=1}^{n} f(x'_k)$$

    where $R^{(x'_k)}$ is DeepLIFT with the reference $x'_k$. Cost: one DeepLIFT for each
    reference.

    Use it like `deep_lift`, if typical inputs are known and no single reference is intended. It is
    not the exact Shapley value, which [`kernel_shap`][jaxlrp.methods.kernel_shap] computes for few
    segments.

    Source: [Lundberg and Lee 2017][lundberg2017].

    Args:
      fn: as in [`explain`][jaxlrp.explain], like argnums, has_aux and wrt.
      references: values like x, counted by a first axis; a batch is broadcast over.
      rule: as in [`deep_lift`][jaxlrp.methods.deep_lift].
      batch: references at a time.

    Returns:
      A function `R(*args, target=None, **kwargs)` as that of `explain`.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlrp import methods
      >>> R = methods.deep_shap(jnp.sum, references=jnp.ones((3, 2)))
      >>> print(R(jnp.array([1.0, 3.0])))
      [0. 2.]
    """
    _check_rule(rule)
    check_count("batch", batch)

    @method(fn, argnums, has_aux, wrt)
    def deep_shap(task: Task) -> Any:
        starts, count = set_of("references", references, task.x)
        found = total(
            lambda x0: _contributions(task, x0, rule), starts, batch, like=(task.x, starts)
        )
        return jax.tree.map(lambda r: r / count, found)

    return deep_shap


def _check_rule(rule: str) -> None:
    if rule not in ("rescale", "reveal_cancel"):
        raise InputError(f"rule={rule!r}: expected 'rescale' or 'reveal_cancel'.")


def _contributions(task: Task, x0: Any, rule: str) -> Any:
    gradient = composites.gradient()
    layers = [y for y in plan(task.run, Epsilon())(task.x).layers if not _is_shell(y)]
    ruled: dict[str, type[Rule]] = {y.name: _RULES[y.kind] for y in layers if y.kind in _RULES}
    passing = set()
    if rule == "reveal_cancel":
        for layer in layers:
            if layer.relu is not None and layer.kind in ("dense", "conv", "embed", "affine"):
                ruled[layer.name] = RevealCancel
                passing.add(layer.relu.name)
                ruled.pop(layer.relu.name)
    inside = next(
        (y for y in layers if y.name in ruled and (y.iterations or is_in_branch(y))), None
    )
    if inside is not None:
        raise InputError(
            f"DeepLIFT: {inside.name!r} ({inside.source}) is inside a loop or a branch. A layer "
            "needs one input for the reference; a loop has several, and a branch may not be "
            "taken. Write it out (a branch as jnp.where), or use integrated_gradients."
        )
    if not ruled:
        return times(explain(task.run, gradient)(task.x, target=task.target), minus(task.x, x0))
    chosen = [_Named(name) for name in ruled]
    _, inputs = explain(task.run, gradient, layers=chosen, what="inputs")(x0, target=task.target)
    entries: dict[Any, Rule] = {_Named(name): HandOn() for name in passing}
    for selector, (name, make) in zip(chosen, ruled.items(), strict=True):
        entries[selector] = make(inputs[name])  # type: ignore[call-arg]  (a rule class)
    multipliers = explain(task.run, gradient | entries)(task.x, target=task.target)
    return times(multipliers, minus(task.x, x0))


def _is_shell(layer: Any) -> bool:
    """Whether a layer is a loop or a branch, whose layers inside have rules of their own."""
    return layer.primitive in ("scan", "cond", "shard_map")


class _Named:
    """A selector of the one layer with a given name."""

    def __init__(self, name: str):
        self._name = name

    def __call__(self, layer: Any) -> bool:
        return layer.name == self._name
