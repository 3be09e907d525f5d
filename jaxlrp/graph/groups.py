"""Groups of equations to which one rule applies, and the workbench on which they are found."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Hashable, Iterable, Sequence

from jaxlrp.graph import control_flow
from jaxlrp.graph.activity import Activity
from jaxlrp.graph.axes import Statics
from jaxlrp.graph.contents import Avals
from jaxlrp.graph.dataflow import Origins
from jaxlrp.graph.intervals import Interval, Intervals
from jaxlrp.graph.ir import Eqn, Graph, Value
from jaxlrp.graph.particulars import Activation, D, Linear, Move, Norm, Particulars, Product
from jaxlrp.graph.places import Places


@dataclasses.dataclass(eq=False)
class InnerValue:
    """A value inside the function that is explained in place of its arguments.

    `reader` limits it to one operand of one equation; `main` is the equation that names it.
    """

    kind: str
    value: Value
    main: Eqn | None
    reader: tuple[Eqn, int] | None = None
    name: str = ""
    names: tuple[str, ...] = ()


@dataclasses.dataclass(eq=False, slots=True)
class Group:
    """Equations from active `inputs` to `outputs`, of one kind."""

    kind: str
    eqns: list[Eqn]
    inputs: list[Value]
    outputs: list[Value]
    main: Eqn  # names the group, and gives its primitive and source line
    particulars: Particulars | None = None
    detached: tuple[tuple[Eqn, int], ...] = ()  # operands to hold constant
    note: str = ""
    around: Group | None = None  # the control flow in whose body this group stands
    inner: InnerValue | None = None  # a value explained in place of an argument
    like: Group | None = None  # the group of an earlier call from which this one was copied

    def particulars_as(self, sort: type[D]) -> D:
        """The particulars if they are of a sort, else those of a group without known facts."""
        return self.particulars if isinstance(self.particulars, sort) else sort()

    @property
    def linear(self) -> Linear | None:
        """How the group is built, if it is linear."""
        return self.particulars if isinstance(self.particulars, Linear) else None

    @property
    def gate(self) -> int | None:
        """Position of the gate of a product of two, if it has one."""
        gates = self.particulars_as(Product).gates
        return gates[0] if len(gates) == 1 and len(self.inputs) == 2 else None

    @property
    def transport(self) -> str:
        """`"move"` selects or repeats elements, `"scale"` is times a number, `"linear"` mixes."""
        found = self.particulars
        return found.transport if isinstance(found, Move | Linear) else "linear"

    @property
    def borrowed(self) -> frozenset[Eqn]:
        """Equations of a norm's statistic through which relevance passes for other readers."""
        return self.particulars_as(Norm).borrowed

    @property
    def outside(self) -> list[Value]:
        """Values from outside that the equations read besides the active inputs."""
        known = {v for e in self.eqns for v in e.outputs}.union(self.inputs)
        read = (v for e in self.eqns for v in e.inputs)
        return list(dict.fromkeys(v for v in read if v not in known))


def around(group: Group) -> tuple[Group, ...]:
    """The control flow around a group, innermost first."""
    found = []
    while group.around is not None:
        group = group.around
        found.append(group)
    return tuple(found)


class Facts:
    """The facts about a graph and all bodies in it, and the groups found so far."""

    def __init__(self, graph: Graph, activity: Activity):
        self.graph = graph
        self.activity = activity
        self.claimed: dict[Eqn, Group] = {}
        self.functions: dict[Hashable, Activation] = {}  # what is known of functions, by content
        self.avals = Avals()  # the numbers in these contents

    @functools.cached_property
    def statics(self) -> Statics:
        return Statics(self.graph)

    @functools.cached_property
    def intervals(self) -> Intervals:
        return Intervals(self.graph)

    @functools.cached_property
    def origins(self) -> Origins:
        return Origins(self.graph)

    @functools.cached_property
    def places(self) -> Places:
        """The positions that are written in the program, the same in every iteration."""
        eqns = (e for one in control_flow.graphs(self.graph) for e in one.eqns)
        loops = ((e, body) for e in eqns for body in e.bodies)
        carried = {v for e, body in loops for _, v in control_flow.feedback(e, body)}
        return Places(self.graph.consts, self.activity.depends | carried)

    def prove(self, values: Iterable[Value], bounds: Interval) -> None:
        """Add bounds of values that are known from their meaning."""
        if new := {v: bounds for v in values if self.intervals[v] != bounds}:
            self.intervals.prove(new)


class Workbench:
    """One graph (or one body in it) on which groups are found, and the facts about the whole."""

    def __init__(self, graph: Graph, facts: Facts, relevance_outputs: Iterable[Value]):
        self.graph = graph
        self.facts = facts
        self.activity = facts.activity
        self.claimed = facts.claimed
        self.outputs = set(relevance_outputs)
        # Values at which relevance also arrives otherwise than by open equations: no layer may hold
        # them.
        self.ends = set(self.outputs)
        self.groups: list[Group] = []
        self.eqns = graph.eqns  # where finders begin
        self._reached_uses: dict[Value, list[Eqn]] = {}

    @property
    def intervals(self) -> Intervals:
        return self.facts.intervals

    @property
    def statics(self) -> Statics:
        return self.facts.statics

    def free(self, eqn: Eqn) -> bool:
        return eqn not in self.claimed

    def is_open(self, eqn: Eqn) -> bool:
        """Relevance crosses the equation, and no group has it yet."""
        return eqn not in self.claimed and self.activity.is_reached(eqn)

    def reached_uses(self, value: Value) -> list[Eqn]:
        """Equations through which relevance may arrive at a value."""
        if value not in self._reached_uses:
            uses = self.graph.uses(value)
            self._reached_uses[value] = [e for e in uses if self.activity.is_reached(e)]
        return self._reached_uses[value]

    def sole_use(self, value: Value) -> Eqn | None:
        """The only equation through which relevance arrives at a value."""
        uses = self.reached_uses(value)
        return uses[0] if len(uses) == 1 and value not in self.ends else None

    def closed(self, eqns: Iterable[Eqn], outputs: Iterable[Value]) -> bool:
        """Whether relevance enters these equations only at `outputs`, and none is claimed."""
        group, exits = set(eqns), set(outputs)
        if any(e in self.claimed for e in group):
            return False
        for eqn in group:
            for value in eqn.outputs:
                if value in exits or value not in self.activity.active:
                    continue
                if value in self.ends or any(e not in group for e in self.reached_uses(value)):
                    return False
        return True

    def slice_back(
        self, value: Value, stops: set[Value], allowed: Callable[[Eqn], bool]
    ) -> list[Eqn] | None:
        """Equations on the way from `stops` to `value`, in order; None if there is another way in.

        It follows everything that depends on the explained inputs. Equations must be unclaimed and
        allowed.
        """
        found: set[Eqn] = set()
        stack = [value]
        while stack:
            v = stack.pop()
            if v in stops or v not in self.activity.depends:
                continue
            eqn = v.producer
            if eqn is None or eqn in self.claimed or not allowed(eqn):
                return None
            if eqn not in found:
                found.add(eqn)
                stack.extend(eqn.inputs)
        return sorted(found, key=lambda e: e.order)

    def closed_but_for(
        self, eqns: Sequence[Eqn], aside: Sequence[Eqn], outputs: Iterable[Value]
    ) -> bool:
        """Like `closed`, except that equations `aside`, without relevance, may read values inside.

        The shared ones among them may not, as relevance comes to them from other readers.
        """
        own = set(eqns)
        aside = [e for e in aside if e not in own]
        shared = set(self.shared(aside, own))
        held = set(aside) - shared
        exits = set(outputs)
        if any(e in self.claimed for e in own):
            return False
        for value in (v for e in own for v in e.outputs):
            if value in exits or value not in self.activity.active:
                continue
            readers = self.reached_uses(value)
            if value in self.ends or any(e not in own and e not in held for e in readers):
                return False
        return True

    def shared(self, eqns: Sequence[Eqn], own: set[Eqn]) -> list[Eqn]:
        """Equations that are read outside of `own` and of the equations that serve `own` alone."""
        inside, found = set(own), []
        for eqn in sorted(eqns, key=lambda e: -e.order):
            readers = [e for v in eqn.outputs for e in self.reached_uses(v)]
            seeded = any(v in self.ends for v in eqn.outputs)
            if seeded or eqn in self.claimed or any(e not in inside for e in readers):
                found.append(eqn)
            else:
                inside.add(eqn)
        return found

    def kind_of(self, eqn: Eqn) -> str | None:
        """The kind of the group that has claimed an equation, if one has."""
        group = self.claimed.get(eqn)
        return None if group is None else group.kind

    def claim(self, group: Group) -> Group:
        group.detached = group.detached or self.activity.held_in(group.eqns)
        for eqn in group.eqns:
            if eqn not in group.borrowed:
                self.claimed[eqn] = group
        self.groups.append(group)
        return group
