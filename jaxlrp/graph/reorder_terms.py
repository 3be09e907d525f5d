"""The order of terms: biases at the linear layer among them, then static, then stopped ones."""

from __future__ import annotations

from jaxlrp.graph import stopped_terms, trees
from jaxlrp.graph.affine import affine_operand, is_mask, is_move, is_written_shift
from jaxlrp.graph.groups import Workbench
from jaxlrp.graph.ir import Eqn, Value
from jaxlrp.graph.linear import core_operand, weighted
from jaxlrp.graph.primitives import ADDITIONS, LINEAR_CORES, is_view, rounds
from jaxlrp.graph.reordered_value import Ordered
from jaxlrp.graph.sources import is_learned
from jaxlrp.graph.stacks import is_stack_sum
from jaxlrp.graph.statistic import is_reduced_from
from jaxlrp.graph.sums_and_products import tree_at
from jaxlrp.graph.trees import Operand, Tree
from jaxlrp.graph.written_numbers import is_turned

_NAMES = ("add", "sub")
_MOST = 20  # scales, shifts and views after a product that are searched


def terms_in_order(bench: Workbench, root: Eqn, made: Ordered, done: set[Eqn]) -> Value | None:
    """The value of a sum in that order; None if it already has that order, or is not a sum.

    The first linear layer takes the biases, unless there is a scale after the sum. In that case
    they belong to the shifts and scales there.
    """
    if not _belongs(bench, root, root):
        return None

    def belongs(eqn: Eqn, reader: Eqn) -> bool:
        stacked = reader.name == "concatenate" and is_view(eqn)
        inside = eqn.name == "concatenate" and reader.name == "reduce_sum"
        return stacked or inside or _belongs(bench, eqn, root)

    tree = tree_at(bench, root, trees.terms, belongs)
    done.update(tree.eqns)
    facts = bench.activity
    active = [(v, s) for v, s in tree.leaves if v in facts.active]
    static = [(v, s) for v, s in tree.leaves if v not in facts.depends]
    stopped = [(v, s) for v, s in tree.leaves if v in facts.depends and v not in facts.active]
    if len(active) < 2 or not (static or stopped):
        return None
    if any(v.dtype != root.out.dtype for v, _ in tree.leaves):
        return None
    stays = stopped_terms.owned(bench, active, stopped)
    owned = {value: [stopped[i] for i in places] for value, places in stays.items()}
    beside = all(_stands_beside(tree, value, own) for value, own in owned.items())
    taken = {i for places in stays.values() for i in places}
    stopped = [term for i, term in enumerate(stopped) if i not in taken]
    for value, own in _turned(bench, tree):
        owned.setdefault(value, []).append(own)
        static.remove(own)
        beside = False
    takes = None if not static or _is_scaled(bench, root.out) else _first_linear(bench, active)
    if takes is None and beside and _is_in_order(tree, static, stopped):
        return None
    joined = {v for v, _ in active}
    if any(is_reduced_from(bench, v, joined) for v in joined):
        return None  # norms and softmaxes are looked for in the order of the program
    total = None
    for value, sign in sorted(active, key=lambda term: term[1] < 0):
        if value is takes:
            # The sum in the program also reads the joined parts, without the biases.
            own = [*owned.pop(value, ()), *static]
            value = made.copied(value, lambda eqn: _is_around(bench, eqn))
            value = _with(made, value, [(v, s * sign) for v, s in own])
        else:
            value = _with(made, value, [(v, s * sign) for v, s in owned.pop(value, ())])
        if total is None and sign < 0:
            value, sign = made.apply("neg", value), 1
        total = made.joined(total, value, sign, _NAMES)
    assert total is not None
    return _with(made, total, [*(static if takes is None else ()), *stopped])


def _with(made: Ordered, value: Value, terms: list[Operand]) -> Value:
    for term, sign in terms:
        value = made.joined(value, term, sign, _NAMES)
    return value


def _stands_beside(tree: Tree, value: Value, terms: list[Operand]) -> bool:
    """Whether an equation adds a term to a value, and nothing else."""
    return len(terms) == 1 and any({*e.inputs} == {value, terms[0][0]} for e in tree.eqns)


def _belongs(bench: Workbench, eqn: Eqn, root: Eqn) -> bool:
    """Whether an equation is part of the sum that ends at `root`.

    A bias beside a linear layer is part of that layer, and a number that is written beside a term
    is part of the term. A product with zero and the maximum in a softmax are not terms.
    """
    if eqn.name == "neg" or trees.is_copy(eqn):
        return eqn is not root and not _cancels(bench, eqn)
    if eqn.name == "reduce_sum":
        return is_stack_sum(bench, eqn)
    if eqn.name not in ADDITIONS or is_mask(bench, eqn):
        return False
    active = [v for v in eqn.inputs if v in bench.activity.active]
    if len(active) == 2:
        return True
    (other,) = (v for v in eqn.inputs if v not in bench.activity.active)
    if other in bench.activity.depends:
        shift = is_reduced_from(bench, other, active)
        return not shift and bench.intervals.constant(other) != 0.0
    if not is_learned(bench, eqn):
        return False
    return (eqn is not root and _turns(bench, eqn, active[0])) or _core(bench, active[0]) is None


def _turns(bench: Workbench, eqn: Eqn, value: Value) -> bool:
    """Whether a shift changes the sign of its operand: `b - x`, `-x - b`."""
    maker = value.producer
    written = maker is not None and maker.name == "neg" and not _cancels(bench, maker)
    return written or (eqn.name == "sub" and eqn.inputs[1] is value)


def _cancels(bench: Workbench, eqn: Eqn) -> bool:
    """Whether a change of sign cancels one within a product: it belongs to that layer."""
    return eqn.name == "neg" and is_turned(eqn.inputs[0], bench.activity.depends)


def _turned(bench: Workbench, tree: Tree) -> list[tuple[Value, Operand]]:
    """Biases beside a linear layer whose sign changes there, which stay with the layer."""
    found = []
    leaves = {v for v, _ in tree.leaves}
    signs = {tree.eqns[0]: 1}
    for eqn in tree.eqns:  # the later ones first
        terms = [(v, signs[eqn] * sign) for v, sign in trees.terms(eqn) or ()]
        signs |= {v.producer: sign for v, sign in terms if v.producer is not None}
        static = [term for term in terms if term[0] not in bench.activity.depends]
        value = next((v for v, _ in terms if v in bench.activity.active), None)
        if not static or value is None or not _turns(bench, eqn, value):
            continue
        while value not in leaves and (maker := value.producer) is not None:
            if maker.name != "neg" and not trees.is_copy(maker):
                break
            value = maker.inputs[0]
        if value in leaves and _core(bench, value) is not None:
            found.append((value, static[0]))
    return found


def _core(bench: Workbench, value: Value) -> Eqn | None:
    """The core of the linear layer that ends at a value and would take a bias after it.

    If the outputs of several cores are joined, it is the first one, as each would take its part.
    Without a product it is the learned scale of one value, such as that of a BatchNorm.
    """
    if bench.sole_use(value) is None:
        return None
    inside: set[Eqn] = set()
    cores: set[Eqn] = set()
    starts: set[Value] = set()
    stack = [value]
    while stack:
        v = stack.pop()
        eqn = v.producer
        if eqn is None or not bench.is_open(eqn) or v in bench.activity.explained:
            starts.add(v)
        elif _is_core(bench, eqn):
            cores.add(eqn)
        elif not _is_around(bench, eqn) or len(inside) > _MOST:
            starts.add(v)
        elif eqn not in inside:
            inside.add(eqn)
            stack.extend(bench.activity.active_inputs(eqn))
    if starts:
        scales = {e for e in inside if e.name in ("mul", "div") and is_learned(bench, e)}
        if cores or len(starts) > 1 or not scales:
            return None
        cores = scales
    for v in (v for e in inside | cores for v in e.outputs if v is not value):
        if v in bench.outputs or not inside.issuperset(bench.reached_uses(v)):
            return None
    return min(cores, key=lambda e: e.order)


def _is_core(bench: Workbench, eqn: Eqn) -> bool:
    """Whether an equation is a product with learned weights, which may be written as a sum."""
    if eqn.name == "reduce_sum":
        return weighted(bench, eqn) is not None
    position = core_operand(bench, eqn) if eqn.name in LINEAR_CORES else None
    weights = (v for i, v in enumerate(eqn.inputs) if i != position)
    return position is not None and any(map(bench.statics.parameters, weights))


def _is_around(bench: Workbench, eqn: Eqn) -> bool:
    """Whether an equation after a core may be part of its layer."""
    if not bench.activity.is_reached(eqn) or eqn.name in LINEAR_CORES:
        return False
    scales = affine_operand(bench, eqn) is not None and not is_written_shift(bench, eqn)
    return scales or _moves(bench, eqn)


def _moves(bench: Workbench, eqn: Eqn) -> bool:
    return is_view(eqn) or (is_move(bench, eqn) and not rounds(eqn))


def _first_linear(bench: Workbench, terms: list[Operand]) -> Value | None:
    cores = {value: _core(bench, value) for value, _ in terms}
    found = {core.order: value for value, core in cores.items() if core is not None}
    return found[min(found)] if found else None


def _is_scaled(bench: Workbench, value: Value) -> bool:
    """Whether a learned scale follows a value: a normalisation, which shifts too."""
    while (eqn := bench.sole_use(value)) is not None:
        if is_learned(bench, eqn) and eqn.name in ("mul", "div"):
            return True
        if not _moves(bench, eqn) or len(eqn.outputs) != 1:
            return False
        value = eqn.out
    return False


def _is_in_order(tree: Tree, static: list[Operand], stopped: list[Operand]) -> bool:
    """Whether stopped terms come last, and static ones before them."""
    inside, eqn = set(tree.eqns), tree.eqns[0]
    for terms in (stopped, static):
        left = [v for v, _ in terms]
        while eqn in inside and left:
            if eqn.name in ADDITIONS:
                last = next((v for v in eqn.inputs if any(v is w for w in left)), None)
                if last is None:
                    break
                left.remove(last)
                eqn = _producer(next(v for v in eqn.inputs if v is not last))
            else:
                eqn = _producer(eqn.inputs[0])
        if left:
            return False
    return True


def _producer(value: Value) -> Eqn | None:
    return value.producer
