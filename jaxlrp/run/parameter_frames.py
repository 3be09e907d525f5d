"""A traced program, divided into values that depend on parameters alone and steps to run.

A frame is a jaxpr of which some inputs are parameters. Every value that depends on these alone is
an expression, whether the program computes it at the top level or in a call, a rematerialised call
or a scan. The remaining steps read such expressions as operands.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from jaxlrp import compat
from jaxlrp.graph.primitives import LINEAR_CORES
from jaxlrp.run.parameter_values import (
    Expression,
    Number,
    Parameter,
    applied,
    mapped,
    parameters,
    substituted,
    transposed,
)


class Inner(NamedTuple):
    """The frame that an equation runs.

    Attributes:
      free: the positions of the operands that are passed as they are.
      given: for each need of the frame, its expression outside.
      sliced: for each need, whether the loop slices it.
      loop: the parts of a scan.
    """

    kind: str
    frame: Frame
    free: list[int]
    given: list[Expression]
    sliced: list[bool]
    loop: compat.ScanParts | None = None


class Step(NamedTuple):
    """An equation to run: on operands of its own, or with another body.

    An operand is an expression, or else a variable of the jaxpr. No later step reads `ends`.
    """

    primitive: Any
    params: Any
    operands: list[Any]
    inner: Inner | None
    writes: list[Any]
    ends: list[Any]


class Frame:
    """A jaxpr with some inputs that are parameters, by their numbers; None for the others.

    Attributes:
      steps: the steps that are left to run.
      needs: the expressions whose values the steps receive; their operands are made from these.
      for_products: the digests of needs that a product reads.
      outputs: for each output that is used, its expression or its variable.
      returned: the outputs that running returns; the others are made outside.
      left: names of equations whose bodies were not searched, although they read a parameter.
    """

    def __init__(
        self,
        body: compat.Body,
        numbers: Sequence[int | None],
        used: Sequence[bool],
        frames: Frames,
        kind: str = "top",
        loop: compat.ScanParts | None = None,
    ):
        self.body = body
        self._kind = kind
        self._loop = loop
        self._frames = frames
        self.needs: dict[str, Expression] = {}
        self.for_products: set[str] = set()
        self.left: list[str] = []
        inputs = zip(body.jaxpr.invars, numbers, strict=True)
        self._values: dict[Any, Expression] = {
            v: Parameter(n, v.aval) for v, n in inputs if n is not None
        }
        self.free = [v for v in body.jaxpr.invars if v not in self._values]
        self.used = [v for v, u in zip(body.jaxpr.outvars, used, strict=True) if u]
        self.steps: list[Step] = []
        for eqn in _live(body.jaxpr, self.used):
            self._read(*eqn)
        self.outputs = [self._operand(v) for v in self.used]
        self.returned = [x for n, x in enumerate(self.outputs) if not self.is_made_outside(n)]
        for x in self.returned:
            if isinstance(x, Expression):
                self.demand(x)
        self._end()

    def _end(self) -> None:
        """Note for each step the values that no later one reads, so that their memory is freed."""
        seen = {x for x in self.returned if not isinstance(x, Expression)}
        for n, step in reversed(list(enumerate(self.steps))):
            read = [x for x in step.operands if not isinstance(x, Expression)]
            ends = [x for x in dict.fromkeys([*read, *step.writes]) if x not in seen]
            seen.update(ends)
            self.steps[n] = step._replace(ends=ends)

    def is_made_outside(self, n: int) -> bool:
        """Whether an output depends on the parameters alone, and is made where they come from."""
        x = self.outputs[n]
        if self._kind == "top" or not isinstance(x, Expression):
            return False
        if self._loop is None:
            return True
        consts, carry = self._loop
        return n >= carry and any(p.number >= consts + carry for p in parameters(x))

    @property
    def is_plain(self) -> bool:
        """Whether the parameters are read as they are, and nothing is computed from them."""
        made = any(not isinstance(x, Parameter) for x in self.needs.values())
        return not made and len(self.returned) == len(self.outputs)

    def demand(self, expression: Expression, by_product: bool = False) -> None:
        """Note that running needs the value of an expression."""
        for one in expression.cut_for_product if by_product else expression.cut:
            self.needs[one.digest] = one
            if by_product:
                self.for_products.add(one.digest)

    def _operand(self, atom: Any) -> Any:
        """The expression of a variable or a written number, or else the variable."""
        if isinstance(atom, compat.Literal):
            return Number(atom.aval, atom.val)
        return self._values.get(atom, atom)

    def _read(self, eqn: Any, used: list[bool]) -> None:
        operands = [self._operand(x) for x in eqn.invars]
        known = [isinstance(x, Expression) for x in operands]
        inside = [x.of_parameters if isinstance(x, Expression) else False for x in operands]
        nested = compat.nested(eqn)
        if nested is not None and nested.kind != "scan" and (all(known) or any(inside)):
            self._enter_call(eqn, nested, operands, known if all(known) else inside, used)
        elif all(known) and (outputs := applied(eqn, operands)) is not None:
            self._values.update(zip(eqn.outvars, outputs, strict=True))
        elif nested is not None and nested.kind == "scan" and any(inside):
            self._enter_scan(eqn, nested, operands, inside)
        else:
            if any(inside) and (compat.bodies(eqn) or compat.called_jaxpr(eqn) is not None):
                self.left.append(eqn.primitive.name)
            self._run(eqn, operands)

    def _run(
        self, eqn: Any, operands: list[Any], inner: Inner | None = None, writes: Any = None
    ) -> None:
        """A step that is left, and the expressions that it reads."""
        params = eqn.params
        if eqn.primitive.name == "conv_general_dilated" and isinstance(operands[1], Expression):
            params, operands = _with_kernel_in_order(params, operands)
        for position, x in enumerate(operands):
            if isinstance(x, Expression) and (inner is None or position in inner.free):
                self.demand(x, eqn.primitive.name in LINEAR_CORES)
        if inner is not None:
            needs = inner.frame.needs
            for digest, x in zip(needs, inner.given, strict=True):
                self.demand(x, digest in inner.frame.for_products)
        writes = eqn.outvars if writes is None else writes
        self.steps.append(Step(eqn.primitive, params, operands, inner, writes, []))

    def _enter_call(
        self,
        eqn: Any,
        nested: compat.Nested,
        operands: list[Any],
        inside: list[bool],
        used: list[bool],
    ) -> None:
        frame = self._frames.of(nested, inside, used)
        self.left += frame.left
        if frame.is_plain:
            return self._run(eqn, operands)
        by_number = {n: operands[n] for n, one in enumerate(inside) if one}
        results = [v for v, one in zip(eqn.outvars, used, strict=True) if one]
        writes = []
        for n, (outside, x) in enumerate(zip(results, frame.outputs, strict=True)):
            if frame.is_made_outside(n):
                self._values[outside] = substituted(x, by_number)
            else:
                writes.append(outside)
        if frame.steps:
            given = [substituted(x, by_number) for x in frame.needs.values()]
            free = [n for n, one in enumerate(inside) if not one]
            inner = Inner(nested.kind, frame, free, given, [False] * len(given))
            self._run(eqn, operands, inner, writes)
        return None

    def _enter_scan(
        self, eqn: Any, nested: compat.Nested, operands: list[Any], inside: list[bool]
    ) -> None:
        body = nested.body.jaxpr
        ends = (eqn.invars, eqn.outvars, body.invars, body.outvars)
        loop = compat.scan_parts(*([x.aval.ndim for x in atoms] for atoms in ends))
        last = loop.consts + loop.carry
        inside = [one and not loop.consts <= n < last for n, one in enumerate(inside)]
        frame = self._frames.of(nested, inside, [True] * len(eqn.outvars), loop)
        self.left += frame.left
        if frame.is_plain:
            return self._run(eqn, operands)
        by_number = {n: operands[n] for n, one in enumerate(inside) if one}
        sliced = {n for n in by_number if n >= last}
        writes = []
        for n, (outside, x) in enumerate(zip(eqn.outvars, frame.outputs, strict=True)):
            if frame.is_made_outside(n):
                self._values[outside] = mapped(x, by_number, sliced)
            else:
                writes.append(outside)
        in_loop = [
            not sliced.isdisjoint(p.number for p in parameters(x)) for x in frame.needs.values()
        ]
        given = [
            mapped(x, by_number, sliced) if one else substituted(x, by_number)
            for x, one in zip(frame.needs.values(), in_loop, strict=True)
        ]
        free = [n for n, one in enumerate(inside) if not one]
        return self._run(eqn, operands, Inner("scan", frame, free, given, in_loop, loop), writes)


class Frames:
    """The frames of one program: calls of one jaxpr share theirs."""

    def __init__(self) -> None:
        self._known: dict[Any, Frame] = {}

    def of(
        self,
        nested: compat.Nested,
        inside: list[bool],
        used: list[bool],
        loop: compat.ScanParts | None = None,
    ) -> Frame:
        key = (id(nested.body.jaxpr), nested.kind, tuple(inside), tuple(used))
        if key not in self._known:
            numbers = [n if one else None for n, one in enumerate(inside)]
            self._known[key] = Frame(nested.body, numbers, used, self, nested.kind, loop)
        return self._known[key]


def _with_kernel_in_order(params: Any, operands: list[Any]) -> tuple[Any, list[Any]]:
    """A convolution whose computed kernel has its axes in one order: places, inputs, outputs.

    A kernel that is kept for a transposed convolution is therefore kept transposed.
    """
    kernel, numbers = operands[1], params["dimension_numbers"]
    outputs, inputs, *places = numbers.rhs_spec
    if not kernel.is_computed:
        return params, operands
    n = len(places)
    numbers = numbers._replace(rhs_spec=(n + 1, n, *range(n)))
    kernel = transposed(kernel, [*places, inputs, outputs])
    return {**params, "dimension_numbers": numbers}, [operands[0], kernel]


def _live(jaxpr: Any, used: Sequence[Any]) -> list[tuple[Any, list[bool]]]:
    """The equations whose results are read, in order, each with flags of the results read."""
    read = {v for v in used if not isinstance(v, compat.Literal)}
    found = []
    for eqn in reversed(jaxpr.eqns):
        mine = [v in read for v in eqn.outvars]
        if any(mine) or eqn.effects:
            found.append((eqn, mine))
            read.update(v for v in eqn.invars if not isinstance(v, compat.Literal))
    return found[::-1]
