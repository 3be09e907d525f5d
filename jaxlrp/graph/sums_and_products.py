"""Flat sums and products: each maximal tree of additions, or of multiplications, is one group.

`(a + b) + c` and `a + (b + c)` are one sum of three terms, and `(a * c) / b` and `a / (b / c)` are
one product of three factors. Static factors are the product's scale; static terms come after the
sum, as a layer of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from jaxlrp.graph import trees
from jaxlrp.graph.groups import Group, Workbench
from jaxlrp.graph.ir import Eqn, Value
from jaxlrp.graph.particulars import Product
from jaxlrp.graph.primitives import ADDITIONS, is_view
from jaxlrp.graph.sources import is_learned
from jaxlrp.graph.stacks import is_stack_sum
from jaxlrp.graph.trees import Operands, Tree


def find_products(bench: Workbench) -> None:
    done: set[Eqn] = set()
    for eqn in reversed(bench.eqns):
        if (
            eqn.name not in ("mul", "div", "neg", "reordered")
            or eqn in done
            or not bench.is_open(eqn)
        ):
            continue
        if _normalises(bench, eqn):
            continue
        tree = tree_at(bench, eqn, trees.factors, _belongs_to_product(bench))
        done.update(tree.eqns)
        powers = _active(bench, tree.powers())
        if 0 in powers.values():  # a * b / a: its factors are two by two
            done.difference_update(tree.eqns[1:])
            tree = Tree([eqn], trees.factors(eqn) or [])
            powers = _active(bench, tree.powers())
        if len(powers) > 1:
            _claim(bench, "product", tree, list(powers), Product(tuple(powers.values())))


def _normalises(bench: Workbench, eqn: Eqn) -> bool:
    """Whether a learned shift follows the scale of an equation: both are one layer of their own."""
    while eqn.name in ("mul", "div") and is_learned(bench, eqn):
        reader = bench.sole_use(eqn.out)
        if reader is None or not bench.is_open(reader):
            return False
        if reader.name in ADDITIONS:
            return is_learned(bench, reader)
        eqn = reader
    return False


def find_sums(bench: Workbench) -> None:
    done: set[Eqn] = set()
    for eqn in reversed(bench.eqns):
        if eqn in done or not bench.is_open(eqn) or not _adds(bench, eqn):
            continue
        tree = tree_at(bench, eqn, trees.terms, _belongs_to_sum(bench))
        done.update(tree.eqns)
        active = [(v, sign) for v, sign in tree.leaves if v in bench.activity.active]
        if len(active) < 2:
            continue
        if eqn.name == "neg" and active[0][1] * _sign(bench, active[0][0]) < 0:
            done.difference_update(tree.eqns[1:])  # -(a + b): the sign is left to its reader
        else:
            _claim(bench, "add", tree, list(dict.fromkeys(v for v, _ in active)))


def _sign(bench: Workbench, term: Value) -> int:
    """-1 if an activation includes the sign of a term."""
    group = None if term.producer is None else bench.claimed.get(term.producer)
    turned = group is not None and group.kind == "activation" and group.eqns[-1].name == "neg"
    return -1 if turned else 1


def _adds(bench: Workbench, eqn: Eqn) -> bool:
    """Whether an equation adds up active values, or changes a sign."""
    if eqn.name == "reduce_sum":
        return is_stack_sum(bench, eqn)
    both = eqn.name in ADDITIONS and all(v in bench.activity.active for v in eqn.inputs)
    return both or eqn.name in ("neg", "reordered")


_SIGNED = ADDITIONS | {"neg"}


def is_sign_of_sum(bench: Workbench, eqn: Eqn) -> bool:
    """Whether a change of sign cancels that of a sum's first term: -(-a - b) is a + b."""
    if eqn.name != "neg":
        return False
    sign, value, reader, joined = -1, eqn.inputs[0], eqn, False
    while (maker := value.producer) is not None and bench.sole_use(value) is reader:
        if not bench.is_open(maker) or not (maker.name in _SIGNED or trees.is_copy(maker)):
            break
        active = [t for t in trees.terms(maker) or () if t[0] in bench.activity.active]
        (value, turn), *others = active
        sign, reader, joined = sign * turn, maker, joined or bool(others)
    return joined and sign * _sign(bench, value) > 0


def _belongs_to_product(bench: Workbench) -> Belongs:
    return lambda eqn, reader: not is_sign_of_sum(bench, eqn)


def _belongs_to_sum(bench: Workbench) -> Belongs:
    def belongs(eqn: Eqn, reader: Eqn) -> bool:
        if eqn.name == "concatenate":
            return reader.name == "reduce_sum"
        inside = reader.name == "concatenate" and is_view(eqn)
        return inside or trees.is_copy(eqn) or _adds(bench, eqn)

    return belongs


Belongs = Callable[[Eqn, Eqn], bool]


def tree_at(
    bench: Workbench, root: Eqn, operands: Operands, belongs: Belongs = lambda eqn, reader: True
) -> Tree:
    """The tree at an equation, made of equations without a layer and without other readers."""

    def inner(value: Value, reader: Eqn) -> Eqn | None:
        eqn = value.producer
        if eqn is None or value not in bench.activity.active or not bench.is_open(eqn):
            return None
        if value in bench.activity.explained or bench.sole_use(value) is not reader:
            return None
        return eqn if belongs(eqn, reader) else None

    return trees.grow(root, operands, inner)


def _active(bench: Workbench, powers: Mapping[Value, int]) -> dict[Value, int]:
    return {v: n for v, n in powers.items() if v in bench.activity.active}


def _claim(
    bench: Workbench,
    kind: str,
    tree: Tree,
    inputs: list[Value],
    particulars: Product | None = None,
) -> None:
    joins = (e for e in tree.eqns if len(bench.activity.active_inputs(e)) > 1)
    main = next(joins, tree.eqns[0])
    eqns = sorted(tree.eqns, key=lambda e: e.order)
    bench.claim(Group(kind, eqns, inputs, [tree.eqns[0].out], main, particulars))
