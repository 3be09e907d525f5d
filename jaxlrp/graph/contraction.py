"""A product of two active values that is summed over axes is a matrix product."""

from __future__ import annotations

from collections.abc import Callable

from jaxlrp.graph import trees
from jaxlrp.graph.affine import is_written_scale
from jaxlrp.graph.groups import Group, Workbench
from jaxlrp.graph.ir import Eqn, Value
from jaxlrp.graph.linear import axes_at_sum
from jaxlrp.graph.linear_region import completes_activation
from jaxlrp.graph.particulars import Product
from jaxlrp.graph.primitives import is_view, rounds
from jaxlrp.graph.sources import common, is_learned, sources
from jaxlrp.graph.sums_and_products import tree_at
from jaxlrp.graph.trees import Operand


def find(bench: Workbench) -> None:
    for eqn in bench.eqns:
        if eqn.name == "reduce_sum" and bench.is_open(eqn):
            _claim(bench, eqn)


def _claim(bench: Workbench, total: Eqn) -> None:
    before: list[Eqn] = []
    reader, value = total, total.inputs[0]
    while (eqn := _sole_maker(bench, value, reader)) is not None:
        if len(bench.activity.active_inputs(eqn)) > 1:
            break
        reordered = eqn.name == "reordered"
        if not reordered and not is_written_scale(bench, eqn) and (not is_view(eqn) or rounds(eqn)):
            return
        before.append(eqn)
        reader, (value,) = eqn, bench.activity.active_inputs(eqn)
    if eqn is None or eqn.name not in ("mul", "div"):
        return
    tree = tree_at(bench, eqn, _factors(bench), _no_activation(bench))
    powers = {v: n for v, n in tree.powers().items() if v in bench.activity.active}
    if len(powers) != 2 or not set(powers.values()) <= {1, -1}:
        return  # three factors: a product, and a sum
    if not all(_is_summed_over(bench, v, eqn, [*before[::-1], total]) for v in powers):
        return  # a gate of whole channels, and a sum: nothing is contracted
    if common(sources(bench, v) for v in powers) is not None:
        return  # x * f(x) is an activation
    eqns = sorted([*tree.eqns, *before, total], key=lambda e: e.order)
    product = Product(tuple(powers.values()))
    group = Group("matmul", eqns, list(powers), [total.out], total, product)
    group.note = "both operands depend on the input"
    bench.claim(group)


def _is_summed_over(bench: Workbench, factor: Value, product: Eqn, after: list[Eqn]) -> bool:
    """Whether a factor varies along an axis over which the product is summed."""
    if factor.ndim != product.out.ndim:
        return True
    *moves, total = after
    axes = axes_at_sum(product.out, bench.statics.varying_axes(factor), moves)
    return axes is None or not axes.isdisjoint(total.params["axes"])


def _sole_maker(bench: Workbench, value: Value, reader: Eqn) -> Eqn | None:
    """The equation that makes a value for one reader alone, if no layer has it."""
    eqn = value.producer
    if eqn is None or not bench.is_open(eqn) or value in bench.activity.explained:
        return None
    return eqn if bench.sole_use(value) is reader else None


def _no_activation(bench: Workbench) -> Callable[[Eqn, Eqn], bool]:
    """Whether a product is not one activation.

    x * sigmoid(x) is one, and a single factor. So is a product with the last number of an
    activation, 0.5 * (tanh(x / 2) + 1).
    """

    def belongs(eqn: Eqn, reader: Eqn) -> bool:
        active = [v for v in eqn.inputs if v in bench.activity.active]
        if len(active) < 2:
            return not (is_written_scale(bench, eqn) and completes_activation(bench, eqn.out))
        return common(sources(bench, v) for v in active) is None

    return belongs


def _factors(bench: Workbench) -> trees.Operands:
    """The factors of a product; learned scales stay layers of their own."""

    def factors(eqn: Eqn) -> list[Operand] | None:
        return None if is_learned(bench, eqn) else trees.factors(eqn)

    return factors
