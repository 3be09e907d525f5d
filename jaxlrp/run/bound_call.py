"""A planned function with the arrays that it runs on."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Sequence
from typing import Any

import jax

from jaxlrp.graph import examples
from jaxlrp.graph.effects import Actions
from jaxlrp.graph.ir import Graph, Value
from jaxlrp.planning.layers import group_of
from jaxlrp.planning.plans import Plan
from jaxlrp.run import interpreter, targets
from jaxlrp.run.probes import Probes
from jaxlrp.types import Target

HOLE = object()


@dataclasses.dataclass(frozen=True)
class Ready:
    """Values of parameters that were computed before the call.

    Attributes:
      numbers: the number of the parameter that each array of the call is, or None.
      names: the names of the parameters.
      values: arrays by the digests of the expressions that they are.
    """

    numbers: tuple[int | None, ...]
    names: tuple[str, ...]
    values: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Template:
    """A pytree with some known leaves: the zeros of static ones, strings in aux."""

    tree: Any
    leaves: tuple[Any, ...]  # HOLE where a leaf is not known

    def filled(self, values: Sequence[Any]) -> Any:
        given = iter(values)
        return jax.tree.unflatten(self.tree, [next(given) if y is HOLE else y for y in self.leaves])


@dataclasses.dataclass(eq=False)
class Planned:
    """A planned function without the arrays that it runs on.

    Attributes:
      programs: the programs that were made from the plan for further calls, by their keys; None if
        the plan is not kept, so that there is no further call of the same plan.
    """

    plan: Plan
    outputs: list[Value]
    aux: list[Value]
    programs: dict[Hashable, Any] | None = None


@dataclasses.dataclass
class BoundCall:
    """A planned function with the arrays that it runs on.

    Attributes:
      ready: the values that were computed from some of the arrays before; None if nothing was
        prepared.
    """

    planned: Planned
    arrays: list[Any]
    consts: list[Any]
    argument: Template | None  # None: relevance is returned by name
    out_tree: Any
    aux_template: Template
    actions: Actions | None = None
    ready: Ready | None = None

    @property
    def plan(self) -> Plan:
        return self.planned.plan

    @property
    def outputs(self) -> list[Value]:
        return self.planned.outputs

    @property
    def aux(self) -> list[Value]:
        return self.planned.aux

    @property
    def graph(self) -> Graph:
        return self.plan.graph

    def _env(self) -> dict[Value, Any]:
        env: dict[Value, Any] = dict(zip(self.graph.inputs, self.arrays, strict=True))
        env.update(zip((v for v, _ in self.graph.consts), self.consts, strict=True))
        return env

    def weights(self, target: Target) -> list[Any]:
        """The weights on the outputs for a target."""
        shapes = [v.aval for v in self.outputs]

        def is_batch() -> bool:
            return examples.is_batch(self.graph, self.plan.explained, self.outputs[0])

        return targets.output_weights(target, shapes, self.out_tree, is_batch)

    def primals(self) -> list[Any]:
        """The arrays that are explained."""
        return interpreter.before(self.plan, self._env())

    def act(self) -> None:
        """Run the prints, callbacks and checks of fn, once for each evaluation of the plan."""
        if self.actions is not None:
            self.actions(self.arrays)

    def explained(self, relevance: Sequence[Any]) -> Any:
        """Relevance with the structure of the explained arguments, by name, or as both."""
        names = {group_of(y).inputs[0]: y.name for y in self.plan.layers if group_of(y).inner}
        n_own = 0 if self.argument is None else sum(y is HOLE for y in self.argument.leaves)
        pairs = list(zip(self.plan.explained, relevance, strict=True))
        by_name = {names[v]: r for v, r in pairs[n_own:]}
        if self.argument is None:
            return by_name
        own = self.argument.filled(relevance[:n_own])
        return (own, by_name) if names else own

    def with_aux(self, aux: Sequence[Any]) -> Any:
        """Aux as fn returned it."""
        return self.aux_template.filled(aux)

    def run(
        self, primals: Sequence[Any], probes: Probes, share: bool = True
    ) -> tuple[list[Any], list[Any]]:
        """The outputs and aux; `share` says whether calls that are alike may share a function."""
        env = self._env()
        env.update(zip(self.plan.explained, primals, strict=True))
        found = interpreter.run(self.plan, env, [*self.outputs, *self.aux], probes, share)
        pairs = zip(self.outputs, found, strict=False)
        values = [interpreter.seeded(self.plan, v, array) for v, array in pairs]
        return values, found[len(self.outputs) :]
