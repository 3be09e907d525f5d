"""Values that depend on parameters alone, as expressions that can be compared.

Expressions with one digest are the same equations on the same parameters. A value that was computed
for one program can therefore be used for that expression in another, and for no other.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from jaxlrp import compat
from jaxlrp.graph.contents import Unknown, content
from jaxlrp.graph.primitives import MOVES

# These compute nothing: such a view is made again where it is read.
_VIEWS = frozenset({"convert_element_type", "copy", "copy_p", "optimization_barrier", "name"})
_REORDERING = frozenset({"rev", "transpose"})
# Not shown in the text of an expression.
_SHAPES = frozenset({"broadcast_in_dim", "convert_element_type", "reshape", "squeeze"})
_DEPTH = 3  # expressions at a greater depth are shown as "..."
Known = dict[str, Any]  # arrays by the digests of what they are


class Expression:
    """One value. A subclass defines how it is made from its inputs.

    Attributes:
      of_parameters: whether it reads a parameter; a constant does not.
      cut: the expressions to keep so that this one is cheap to make: itself, if it is not larger
        than its inputs, else those of its inputs. Views are never kept.
      cut_for_product: the same if a product reads this one: then it is kept at any size, and in the
        order of elements in which the product reads it.
    """

    inputs: tuple[Expression, ...] = ()
    of_parameters = True

    def __init__(self, aval: Any, digest: str):
        self.aval = aval
        self.digest = digest
        self.cut: tuple[Expression, ...] = ()
        self.cut_for_product: tuple[Expression, ...] = ()

    @property
    def size(self) -> int:
        return math.prod(self.aval.shape)

    def compute(self, known: Known) -> None:
        """Add the value to `known`, which has those of the inputs."""
        raise NotImplementedError

    def on(self, inputs: tuple[Expression, ...]) -> Expression:
        """The same expression with other inputs."""
        raise NotImplementedError

    def text(self, names: Sequence[str], depth: int = _DEPTH) -> str:
        """The expression for people; parameters by their names."""
        raise NotImplementedError

    @property
    def is_computed(self) -> bool:
        """Whether it is more than a view of parameters."""
        return not all(isinstance(x, Parameter) for x in self.cut_for_product)

    def _choose(self, is_view: bool, reorders: bool = False) -> None:
        self.of_parameters = any(x.of_parameters for x in self.inputs)
        if not self.of_parameters:
            return
        below = _union(x.cut for x in self.inputs)
        small = not is_view and self.size <= sum(x.size for x in below)
        self.cut = (self,) if small else below
        if is_view and not (reorders and any(x.is_computed for x in self.inputs)):
            self.cut_for_product = _union(x.cut_for_product for x in self.inputs)
        else:
            self.cut_for_product = (self,)


def _union(groups: Iterable[tuple[Expression, ...]]) -> tuple[Expression, ...]:
    return tuple({x.digest: x for group in groups for x in group}.values())


class Parameter(Expression):
    """An array that is given."""

    def __init__(self, number: int, aval: Any):
        super().__init__(aval, _digest("parameter", number, aval.shape, str(aval.dtype)))
        self.number = number
        self.cut = self.cut_for_product = (self,)

    def text(self, names: Sequence[str], depth: int = _DEPTH) -> str:
        return names[self.number] if self.number < len(names) else f"parameter {self.number}"


class Number(Expression):
    """A number that is written in the program."""

    of_parameters = False

    def __init__(self, aval: Any, value: Any):
        super().__init__(aval, _digest("number", str(aval), repr(np.asarray(value).tolist())))
        self.value = value

    def compute(self, known: Known) -> None:
        known[self.digest] = self.value

    def on(self, inputs: tuple[Expression, ...]) -> Expression:
        return self

    def text(self, names: Sequence[str], depth: int = _DEPTH) -> str:
        return f"{self.value:g}" if np.issubdtype(self.aval.dtype, np.floating) else str(self.value)


class Applied(Expression):
    """An output of an equation."""

    def __init__(
        self, prim: Any, params: Any, inputs: tuple[Expression, ...], index: int, avals: Any
    ):
        self.prim, self.params, self.index, self._avals = prim, params, index, avals
        self.inputs = inputs
        self._call = _digest(prim.name, _contents(params), *(x.digest for x in inputs))
        super().__init__(avals[index], f"{self._call}.{index}")
        self._choose(prim.name in MOVES or prim.name in _VIEWS, prim.name in _REORDERING)

    def compute(self, known: Known) -> None:
        values = [known[x.digest] for x in self.inputs]
        outputs = compat.bind(self.prim, self.params, values)
        known.update((f"{self._call}.{i}", y) for i, y in enumerate(outputs))

    def on(self, inputs: tuple[Expression, ...]) -> Expression:
        return Applied(self.prim, self.params, inputs, self.index, self._avals)

    def text(self, names: Sequence[str], depth: int = _DEPTH) -> str:
        if self.prim.name in _SHAPES:
            return self.inputs[0].text(names, depth)
        if depth == 0:
            return "..."
        texts = [x.text(names, depth - 1) for x in self.inputs]
        if self.prim.name == "slice":
            starts, stops = self.params["start_indices"], self.params["limit_indices"]
            parts = zip(starts, stops, self.inputs[0].aval.shape, strict=True)
            shown = [":" if b - a == n else f"{a}:{b}" for a, b, n in parts]
            return f"{texts[0]}[{', '.join(shown)}]"
        return f"{self.prim.name}({', '.join(texts)})"


class Mapped(Expression):
    """The values of an expression in all iterations of a loop, stacked.

    Each input replaces one of the parameters of `body`: slice by slice, or as a whole.
    """

    def __init__(
        self,
        body: Expression,
        places: tuple[Parameter, ...],
        inputs: tuple[Expression, ...],
        sliced: tuple[bool, ...],
    ):
        self.body, self.places, self.inputs, self.sliced = body, places, inputs, sliced
        length = next(x.aval.shape[0] for x, one in zip(inputs, sliced, strict=True) if one)
        aval = jax.ShapeDtypeStruct((length, *body.aval.shape), body.aval.dtype)
        super().__init__(aval, _digest("mapped", body.digest, sliced, *(x.digest for x in inputs)))
        self._choose(is_view=body.cut_for_product != (body,))

    def compute(self, known: Known) -> None:
        def one(*arrays: Any) -> Any:
            given = zip(self.places, arrays, strict=True)
            return value(self.body, {place.digest: array for place, array in given})

        axes = [0 if one else None for one in self.sliced]
        known[self.digest] = jax.vmap(one, axes)(*(known[x.digest] for x in self.inputs))

    def on(self, inputs: tuple[Expression, ...]) -> Expression:
        return Mapped(self.body, self.places, inputs, self.sliced)

    def text(self, names: Sequence[str], depth: int = _DEPTH) -> str:
        return self.body.text([x.text(names, depth) for x in self.inputs], depth)


def applied(eqn: Any, inputs: Sequence[Expression]) -> list[Expression] | None:
    """The outputs of an equation; None if its content cannot be compared, or it has effects."""
    avals = [v.aval for v in eqn.outvars]
    if eqn.effects:
        return None
    try:
        return [
            Applied(eqn.primitive, eqn.params, tuple(inputs), index, avals)
            for index in range(len(avals))
        ]
    except Unknown:
        return None


def transposed(x: Expression, order: Sequence[int]) -> Expression:
    """An expression with its axes in another order."""
    if list(order) == sorted(order):
        return x
    aval = jax.ShapeDtypeStruct([x.aval.shape[n] for n in order], x.aval.dtype)
    params = {"permutation": tuple(order)}
    return Applied(compat.TRANSPOSE, params, (x,), 0, [aval])


def mapped(body: Expression, inputs: dict[int, Expression], sliced: set[int]) -> Expression:
    """`body` for every iteration of a loop; `inputs` by the numbers of its parameters.

    The parameters are numbered anew, as another loop with the same body may have other positions.
    """
    if isinstance(body, Parameter):
        return inputs[body.number]
    numbers = [x.number for x in _all_of(body) if isinstance(x, Parameter)]
    avals = {x.number: x.aval for x in parameters(body)}
    places = tuple(Parameter(n, avals[number]) for n, number in enumerate(numbers))
    anew: dict[int, Expression] = dict(zip(numbers, places, strict=True))
    given = tuple(inputs[n] for n in numbers)
    sides = tuple(n in sliced for n in numbers)
    return Mapped(substituted(body, anew), places, given, sides)


def parameters(expression: Expression) -> list[Parameter]:
    """The parameters that an expression reads, in the order of their numbers."""
    found = {x.number: x for x in _all_of(expression) if isinstance(x, Parameter)}
    return [found[number] for number in sorted(found)]


def value(expression: Expression, known: Known) -> Any:
    """The array of an expression; intermediate values are added to `known`."""
    for one in _all_of(expression, known):
        one.compute(known)
    return known[expression.digest]


def substituted(expression: Expression, inputs: dict[int, Expression]) -> Expression:
    """The expression with its parameters replaced by others, by their numbers."""
    found: dict[str, Expression] = {}
    for one in _all_of(expression):
        if isinstance(one, Parameter):
            found[one.digest] = inputs[one.number]
        else:
            found[one.digest] = one.on(tuple(found[x.digest] for x in one.inputs))
    return found[expression.digest]


def _all_of(expression: Expression, known: Known | None = None) -> Iterator[Expression]:
    """An expression and all expressions in it, inputs first; known ones are left out."""
    seen = set() if known is None else known
    done: set[str] = set()
    stack = [expression]
    while stack:
        one = stack[-1]
        if one.digest in done or one.digest in seen:
            stack.pop()
            continue
        missing = [x for x in one.inputs if x.digest not in done and x.digest not in seen]
        if missing:
            stack += missing
            continue
        done.add(one.digest)
        yield stack.pop()


def _contents(params: Any) -> str:
    text = repr(content(params))
    if " at 0x" in text:  # an object that only its address identifies
        raise Unknown
    return text


def _digest(*parts: Any) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]
