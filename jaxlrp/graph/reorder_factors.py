"""The order of factors: functions of one value are multiplied first, and are an activation."""

from __future__ import annotations

import dataclasses
from collections import Counter

from jaxlrp.graph import trees
from jaxlrp.graph.groups import Workbench
from jaxlrp.graph.ir import Eqn, Value
from jaxlrp.graph.reordered_value import Ordered
from jaxlrp.graph.sources import sources
from jaxlrp.graph.statistic import is_reduced_from
from jaxlrp.graph.sums_and_products import tree_at
from jaxlrp.graph.trees import Operand, Tree

_NAMES = ("mul", "div")


def factors_in_order(bench: Workbench, root: Eqn, made: Ordered, done: set[Eqn]) -> Value | None:
    """The value of a product in that order; None if it already has that order."""
    tree = tree_at(bench, root, trees.factors)
    done.update(tree.eqns)
    active = [(v, n) for v, n in tree.leaves if v in bench.activity.active]
    if len(active) < 3 or any(v.dtype != root.out.dtype for v, _ in tree.leaves):
        return None
    clusters = _clusters(bench, active)
    several = [c for c in clusters if len(c.factors) > 1]
    if len(clusters) < 2 or not several or _meet(bench, tree, several) or _squares(tree):
        return None
    if any(is_reduced_from(bench, v, c.sources) for v, _ in active for c in several):
        return None  # norms are looked for in the order of the program
    factors = [_product(made, cluster.factors) for cluster in clusters]
    factors += [(v, n) for v, n in tree.leaves if v not in bench.activity.active]
    total, _ = _product(made, factors)
    signs = sum(eqn.name == "neg" for eqn in tree.eqns)
    return made.apply("neg", total) if signs % 2 else total


def _product(made: Ordered, factors: list[Operand]) -> Operand:
    """The product of some factors; if all divide, the product of the divisors, which divides."""
    power = max(n for _, n in factors)
    total: Value | None = None
    for value, n in sorted(factors, key=lambda factor: -factor[1]):
        total = made.joined(total, value, n * power, _NAMES)
    assert total is not None
    return total, power


@dataclasses.dataclass
class _Cluster:
    """Factors that are elementwise functions of one value; `sources` are its candidates."""

    factors: list[Operand]
    sources: list[Value]


def _clusters(bench: Workbench, active: list[Operand]) -> list[_Cluster]:
    found: list[_Cluster] = []
    of_source: dict[Value, _Cluster] = {}
    for factor in active:
        own = sources(bench, factor[0])
        cluster = next((of_source[v] for v in own if v in of_source), None)
        if cluster is None:
            cluster = _Cluster([factor], own)
            found.append(cluster)
        else:
            cluster.factors.append(factor)
            shared = [v for v in cluster.sources if v in own]
            for value in set(cluster.sources) - set(shared):
                of_source.pop(value, None)
            cluster.sources = shared
        of_source.update((v, cluster) for v in cluster.sources)
    return found


def _meet(bench: Workbench, tree: Tree, clusters: list[_Cluster]) -> bool:
    """Whether equations of the tree make the products of exactly the factors of each cluster."""
    inside = set(tree.eqns)
    under: dict[Eqn, Counter[Value]] = {}
    for eqn in reversed(tree.eqns):
        under[eqn] = Counter()
        for value, _ in trees.factors(eqn) or ():
            if value.producer in inside:
                under[eqn].update(under[value.producer])
            elif value in bench.activity.active:
                under[eqn][value] += 1
    wanted = [Counter(v for v, _ in cluster.factors) for cluster in clusters]
    return all(any(w == found for found in under.values()) for w in wanted)


def _squares(tree: Tree) -> bool:
    """Whether a partial product is multiplied with itself: its sign would count twice."""
    inside = set(tree.eqns)
    return any(
        len(e.inputs) == 2 and e.inputs[0] is e.inputs[1] and e.inputs[0].producer in inside
        for e in tree.eqns
    )
