"""Flat sums and products: each maximal tree of additions, or of multiplications, is one group.

So `(a + b) + c` and `a + (b + c)` are one sum of three terms, `(a * c) / b` and `a / (b / c)` one
product of three factors. Static terms are the sum's bias, static factors its scale.
"""

from __future__ import annotations

from collections.abc import Mapping

from jaxlrp.graph import trees
from jaxlrp.graph.affine import is_mask
from jaxlrp.graph.groups import Group, Workbench
from jaxlrp.graph.ir import Eqn, Value
from jaxlrp.graph.trees import Operands, Tree


def find_products(bench: Workbench) -> None:
    done: set[Eqn] = set()
    for eqn in reversed(bench.eqns):
        if eqn.name not in ("mul", "div", "neg", "tie") or eqn in done or not bench.is_open(eqn):
            continue
        tree = tree_at(bench, eqn, trees.factors)
        done.update(tree.eqns)
        powers = _active(bench, tree.powers())
        if 0 in powers.values():  # a * b / a: its factors are two by two
            done.difference_update(tree.eqns[1:])
            tree = Tree([eqn], trees.factors(eqn) or [])
            powers = _active(bench, tree.powers())
        if len(powers) > 1:
            _claim(bench, "product", tree, list(powers)).powers = tuple(powers.values())


def find_sums(bench: Workbench) -> None:
    done: set[Eqn] = set()
    for eqn in reversed(bench.eqns):
        begins = trees.terms(eqn) is not None and not trees.is_copy(eqn)
        if not begins or eqn in done or not bench.is_open(eqn) or is_mask(bench, eqn):
            continue
        tree = tree_at(bench, eqn, trees.terms)
        done.update(tree.eqns)
        active = [v for v, _ in tree.leaves if v in bench.activity.active]
        if len(active) > 1:
            _claim(bench, "add", tree, list(dict.fromkeys(active)))


def tree_at(bench: Workbench, root: Eqn, operands: Operands) -> Tree:
    """The tree that ends at an equation: what no layer has, and nothing else reads."""

    def inner(value: Value, reader: Eqn) -> Eqn | None:
        eqn = value.producer
        if eqn is None or value not in bench.activity.active or not bench.is_open(eqn):
            return None
        if value in bench.activity.explained or bench.sole_use(value) is not reader:
            return None
        return None if is_mask(bench, eqn) else eqn

    return trees.grow(root, operands, inner)


def _active(bench: Workbench, powers: Mapping[Value, int]) -> dict[Value, int]:
    return {v: n for v, n in powers.items() if v in bench.activity.active}


def _claim(bench: Workbench, kind: str, tree: Tree, inputs: list[Value]) -> Group:
    joins = (e for e in tree.eqns if len(bench.activity.active_inputs(e)) > 1)
    main = next(joins, tree.eqns[0])
    eqns = sorted(tree.eqns, key=lambda e: e.order)
    return bench.claim(Group(kind, eqns, inputs, [tree.eqns[0].out], main))
