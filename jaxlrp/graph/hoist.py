"""Scales and shifts of parts, moved to the whole: `split(x @ W)`, then a bias for each part.

A part of a layer's output may be scaled and shifted separately (queries, keys and values of one
fused product), and outputs of several layers may be scaled and shifted together after they are
joined. The result is the same if each element is scaled and shifted before parts are taken or
joined. Scales and shifts then stand beside the core to which they belong, where `linear.find` folds
them. The equations therefore change places, if nothing else reads the elements in between. This is
exact: the same numbers are added.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxlrp import compat
from jaxlrp.graph import control_flow
from jaxlrp.graph.activity import Activity
from jaxlrp.graph.affine import affine_operand, is_written_scale, is_written_shift
from jaxlrp.graph.affine import leads_into_nonlinearity as meets_nonlinearity
from jaxlrp.graph.build import equations
from jaxlrp.graph.groups import Facts, Workbench
from jaxlrp.graph.ir import Eqn, Graph, Literal, Value
from jaxlrp.graph.linear import core_operand, weighted
from jaxlrp.graph.primitives import ADDITIONS, COPIES, LINEAR_CORES, MOVES
from jaxlrp.graph.readings import PARTS, copies_one, is_alone, is_part, is_whole
from jaxlrp.graph.stacks import stacked_terms
from jaxlrp.graph.written_numbers import factor_of

_SCALES = frozenset({"mul", "div"})
_MOST_STATIC = 64  # equations that make a bias


@dataclasses.dataclass
class _Chain:
    """Scales and shifts of one value that moves made from others, and those others."""

    value: Value
    eqns: list[Eqn]
    statics: list[Value]  # one for each of these but negations
    moves: list[Eqn]  # from the leaves to the value
    leaves: list[Value]
    active: frozenset[Value]  # the leaves that carry relevance
    alone: frozenset[Value]  # those whose elements that are read here are not read elsewhere
    readers: dict[Value, list[tuple[Eqn, int]]]  # the moves that read each, as which operand


def facts_once_hoisted(graph: Graph, explained: Sequence[Value], outputs: Sequence[Value]) -> Facts:
    """The facts of a graph in which scales and shifts of parts are moved before the parts."""
    while True:
        facts = Facts(graph, Activity(graph, explained, outputs))
        if not hoisted(graph, facts, outputs):
            return facts


def hoisted(graph: Graph, facts: Facts, outputs: Sequence[Value]) -> bool:
    """Move scales and shifts of parts before the parts; returns whether there were any.

    The graph is changed in place: the same values are made by the same equations in another order.
    """
    found = False
    for one in list(control_flow.graphs(graph)):
        seeded = (
            outputs if one is graph else [v for v in one.outputs if v in facts.activity.reached]
        )
        bench = Workbench(one, facts, seeded)
        chains = [c for eqn in one.eqns if (c := _chain(bench, eqn)) is not None]
        mover = _Mover(bench)
        moved = [mover.move(chain) for chain in chains]
        if any(moved):
            found = True
            one.renumber(mover.eqns)
    return found


def _chain(bench: Workbench, first: Eqn) -> _Chain | None:
    """The scales and shifts that begin at an equation, if they may be put before moves."""
    value = _scaled(bench, first)
    if value is None or value.producer is None or not is_part(value.producer):
        return None
    if _scaled(bench, value.producer) is not None:
        return None
    moves, leaves = _moves_before(bench, value)
    if not any(e.name in PARTS for e in moves) and not _joins_values(bench, leaves[0]):
        return None  # one core takes them through these moves
    if not any(_ends_layer(bench, leaf) for leaf in leaves):
        return None
    eqns, kept, sign = [first], 0, 1.0
    while True:
        by = factor_of(bench, eqns[-1])
        sign = math.copysign(sign, sign * by)
        cancels = kept > 0 and by < 0.0 and sign > 0.0
        if _belongs(bench, eqns[-1]) or cancels:
            kept = len(eqns)
        use = bench.graph.sole_use(eqns[-1].out)
        if use is None or _scaled(bench, use) is not eqns[-1].out:
            break
        eqns.append(use)
    eqns = eqns[:kept]
    inner = {value, *(v for e in eqns[:-1] for v in e.outputs)}
    if (
        not eqns
        or bench.graph.uses(value) != [first]
        or not inner.isdisjoint(bench.activity.explained)
    ):
        return None
    if bench.graph.is_output(value) or any(v.dtype != value.dtype for v in leaves):
        return None
    found = _taken_apart(bench, value, moves, leaves)
    if found is None:  # some elements are read where they lie between two moves
        cuts = _read_between(bench, value, moves)
        moves, leaves = _moves_before(bench, value, cuts)
        found = _taken_apart(bench, value, moves, leaves) if cuts else None
    if found is None:
        return None
    leaves, alone = found
    statics = [v for e in eqns for v in e.inputs if v not in bench.activity.active]
    active = frozenset(v for v in leaves if v in bench.activity.active)
    readers: dict[Value, list[tuple[Eqn, int]]] = {v: [] for v in leaves}
    for eqn in moves:
        for i, v in enumerate(eqn.inputs):
            if v in readers:
                readers[v].append((eqn, i))
    return _Chain(value, eqns, statics, moves, leaves, active, alone & active, readers)


def _taken_apart(
    bench: Workbench, value: Value, moves: list[Eqn], leaves: list[Value]
) -> tuple[list[Value], frozenset[Value]] | None:
    """The leaves that may be scaled in the place of a value, and those of them read only there.

    Moves of a leaf that others read are taken out of `moves`. None if a leaf can not be scaled.
    """
    alone = frozenset(v for v in leaves if is_alone(bench, value, moves, v, leaves))
    if not any(_ends_layer(bench, leaf) for leaf in alone):
        return None
    leaves = [v if v in alone else _turned(moves, v) for v in leaves]
    rest = (v for v in leaves if v not in alone)
    if not all(is_alone(bench, value, moves, v, leaves, aside=True) for v in rest):
        return None
    return leaves, alone


def _read_between(bench: Workbench, value: Value, moves: list[Eqn]) -> frozenset[Value]:
    """The values between moves that other equations read too."""

    def is_shared(v: Value) -> bool:
        uses = bench.reached_uses(v) if v in bench.activity.active else bench.graph.uses(v)
        return bench.graph.is_output(v) or any(e not in moves for e in uses)

    between = (v for e in moves for v in e.outputs)
    return frozenset(v for v in between if v is not value and is_shared(v))


def _scaled(bench: Workbench, eqn: Eqn) -> Value | None:
    """The operand that an equation scales or shifts by a static value."""
    place = affine_operand(bench, eqn)
    if place is None or not bench.activity.is_reached(eqn):
        return None
    return eqn.inputs[place]


def _belongs(bench: Workbench, eqn: Eqn) -> bool:
    """Whether a scale or shift belongs to the layer before it."""
    if is_written_scale(bench, eqn):
        return False
    return not is_written_shift(bench, eqn) or not meets_nonlinearity(bench, eqn.out)


def _moves_before(
    bench: Workbench, value: Value, cuts: Collection[Value] = ()
) -> tuple[list[Eqn], list[Value]]:
    """The moves that make a value, in order, and the values that they start from.

    These are the values of `cuts`, or those that no move makes.
    """
    moves: set[Eqn] = set()
    leaves: dict[Value, None] = {}
    stack = [value]
    while stack:
        v = stack.pop()
        eqn = v.producer
        if eqn is None or not is_part(eqn) or v in bench.activity.explained or v in cuts:
            leaves[v] = None
        elif eqn not in moves:
            moves.add(eqn)
            stack.extend(eqn.inputs)
    return sorted(moves, key=lambda e: e.order), list(leaves)


def _ends_layer(bench: Workbench, value: Value) -> bool:
    """Whether a value ends a linear layer or a norm, or a sum with one of these as a term.

    Scales, shifts and moves may follow the layer.
    """
    stack, seen = [value], {value}
    while stack:
        eqn = stack.pop().producer
        if eqn is None:
            continue
        active = bench.activity.active_inputs(eqn)
        terms = stacked_terms(bench, eqn)
        if eqn.name == "reduce_sum" and not terms:
            ends = weighted(bench, eqn) is not None
        elif eqn.name in LINEAR_CORES:
            ends = core_operand(bench, eqn) is not None
        elif eqn.name in _SCALES and all(v in bench.activity.depends for v in eqn.inputs):
            ends = eqn.inputs[0] is not eqn.inputs[1]
        else:
            affine = affine_operand(bench, eqn) is not None
            alone = (affine or eqn.name in COPIES | MOVES) and active[1:] == []
            if terms or eqn.name in ADDITIONS or alone:
                before = terms or active
                stack += [v for v in before if v not in seen]
                seen.update(before)
            continue
        if ends:
            return True
    return False


def _joins_values(bench: Workbench, value: Value) -> bool:
    """Whether a value is a sum or product of active values, which may be scaled and shifted."""
    while (eqn := value.producer) is not None:
        active = bench.activity.active_inputs(eqn)
        if stacked_terms(bench, eqn):
            return True
        if len(active) > 1 or affine_operand(bench, eqn) is None:
            return len(active) > 1 and eqn.name in ADDITIONS | _SCALES
        (value,) = active
    return False


def _turned(moves: list[Eqn], leaf: Value) -> Value:
    """A leaf after the moves that keep all of it, which are removed: others may read it there."""
    while True:
        readers = [e for e in moves if leaf in e.inputs]
        if len(readers) != 1 or not is_whole(readers[0]):
            return leaf
        moves.remove(readers[0])
        leaf = readers[0].out


def _turns(chain: _Chain, eqn: Eqn) -> bool:
    """Whether an equation of a chain changes the sign: `-x`, `b - x`."""
    return eqn.name == "neg" or (eqn.name == "sub" and eqn.inputs[0] in chain.statics)


class _Mover:
    """A graph whose scales and shifts are being moved."""

    def __init__(self, bench: Workbench):
        self.graph = bench.graph
        self.eqns = list(bench.graph.eqns)
        self._reached = {e for e in self.eqns if bench.activity.is_reached(e)}

    def move(self, chain: _Chain) -> bool:
        """Put a chain before the moves; False if something in it cannot be computed there."""
        leaves = [v for leaf in chain.leaves for v in self._now(chain, leaf)]
        if len(leaves) != len(chain.leaves):
            return False
        made = [self._made(chain, leaves, i) for i in range(len(leaves))]
        if any(eqns is None for eqns in made):
            return False
        for old, leaf, eqns in zip(chain.leaves, leaves, made, strict=True):
            assert eqns is not None
            new = eqns[-1].out
            readers = self.graph.uses(old) if old in chain.alone else chain.moves
            for reader in readers:
                if old in chain.alone and reader not in self._reached:
                    continue
                reader.inputs = [new if v is leaf else v for v in reader.inputs]
            maker = leaf.producer
            at = 0 if maker is None else self.eqns.index(maker) + 1
            self.eqns[at:at] = eqns
        maker, last = chain.value.producer, chain.eqns[-1].out
        assert maker is not None
        maker.outputs[chain.value.index] = last
        last.producer, last.index = maker, chain.value.index
        gone = set(chain.eqns)
        self.eqns = [e for e in self.eqns if e not in gone]
        return True

    def _now(self, chain: _Chain, leaf: Value) -> set[Value]:
        """The values that earlier chains made of a leaf, as the moves of this chain read it."""
        return {move.inputs[place] for move, place in chain.readers[leaf]}

    def _made(self, chain: _Chain, leaves: Sequence[Value], number: int) -> list[Eqn] | None:
        """Equations that scale and shift one leaf in the way in which its elements are."""
        value, leaf, maker = chain.value, leaves[number], chain.leaves[number].producer

        def whole(x: Any, *statics: Any) -> Any:
            def moved(x: Any) -> Any:
                env = {v: jnp.zeros(v.shape, v.dtype) for v in leaves} | {leaf: x}
                for eqn in chain.moves:
                    given = [env[v] for v in eqn.inputs]
                    copies = copies_one(eqn)
                    outs = given if copies else compat.bind(eqn.prim, eqn.params, given)
                    made = zip(eqn.outputs, outs, strict=True)
                    env.update((v, out) for v, out in made if v not in leaves)
                return env[value]

            place = jax.linear_transpose(moved, x)
            arrays = iter(statics)
            (here,) = place(jnp.ones(value.shape, value.dtype))
            # Signs that cancel are not written; a remaining sign comes first. With `turned` the
            # value is -x.
            turned = sum(_turns(chain, eqn) for eqn in chain.eqns) % 2 == 1
            if turned:
                x = x * (1 - 2 * here)
            for eqn in chain.eqns:
                if eqn.name == "neg":
                    turned = not turned
                    continue
                (array,) = place(jnp.broadcast_to(next(arrays), value.shape))
                if eqn.name in _SCALES:
                    x = compat.bind(eqn.prim, eqn.params, [x, array + (1 - here)])[0]
                    continue
                less = (eqn.name == "sub") != turned  # -(x - b) is b - x
                x = x - array if less else x + array
                turned = turned != _turns(chain, eqn)
            return x

        statics: list[Value] = []
        eqns: list[Eqn] = []
        for static in chain.statics:
            early = self._early(static, maker, eqns)
            if early is None:
                return None
            statics.append(early)
        given = [v for v in statics if not isinstance(v, Literal)]

        def function(x: Any, *arrays: Any) -> Any:
            rest = iter(arrays)
            return whole(x, *(v.val if isinstance(v, Literal) else next(rest) for v in statics))

        call = None if maker is None else maker.call
        return eqns + equations(function, (leaf, *given), chain.eqns[0], call)

    def _early(self, value: Value, maker: Eqn | None, eqns: list[Eqn]) -> Value | None:
        """A static value computed right after an equation, by copies of its equations."""
        order = -1 if maker is None else maker.order
        call = None if maker is None else maker.call
        copies: dict[Value, Value] = {}

        def have(value: Value) -> Value | None:
            eqn = value.producer
            if eqn is None or (eqn.call is None and eqn.order < order):
                return value
            if value not in copies:
                if eqn.bodies or len(copies) > _MOST_STATIC:
                    return None
                inputs = [have(v) for v in eqn.inputs]
                if any(v is None for v in inputs):
                    return None
                outs = [Value(v.aval, index=v.index) for v in eqn.outputs]
                copy = Eqn(eqn.prim, eqn.params, inputs, outs, eqn.scope, eqn.source_info, call)
                for out in outs:
                    out.producer = copy
                eqns.append(copy)
                copies.update(zip(eqn.outputs, outs, strict=True))
            return copies[value]

        return have(value)
