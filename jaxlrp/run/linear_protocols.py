"""The two sides of running a linear layer's equations: a program, and a way to run it.

A program holds the equations, kernel and factors. A way of running them defines the values (arrays,
or pairs of arrays) and the effect of a factor on them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from jaxlrp.graph.groups import Group
from jaxlrp.graph.ir import Eqn, Value

T = TypeVar("T")


class LinearProgram(Protocol):
    """The equations of a linear layer, run on the values of any `Way`; see `BoundLinear`."""

    group: Group
    like: Any
    one_kernel: bool  # every factor except the kernel is folded into it, or positive

    def run(self, xs: Sequence[T], way: Way[T]) -> T:
        """The equations of the layer on `xs`."""
        ...

    def kernel(self, core: Eqn, operand: int) -> Any:
        """The kernel of the layer's core."""
        ...

    def late(self, kernel: Any) -> Any:
        """A kernel that is there when relevance has arrived; see `late_splits`."""
        ...

    def product(self, core: Eqn, operand: int, x: Any, kernel: Any) -> Any:
        """The core with another kernel."""
        ...

    def move(self, eqn: Eqn, values: dict[Value, Any]) -> list[Any]:
        """An equation that moves elements, on other values."""
        ...


class Way(Protocol[T]):
    """The effect of each sort of equation on the values that a layer runs on."""

    def negated(self, x: T) -> T:
        """A change of sign."""
        ...

    def added(self, x: T, y: T) -> T:
        """A sum of two terms."""
        ...

    def applied(self, function: Callable[[Any], Any], x: T) -> T:
        """A linear function without weights, on each array."""
        ...

    def scaled(self, x: T, factor: Callable[[], Any], sign: int | None) -> T:
        """A product with a factor, of known sign or None."""
        ...

    def through(self, core: Eqn, operand: int, x: T) -> T:
        """The core."""
        ...

    def moved(self, eqn: Eqn, env: dict[Value, T]) -> Sequence[T]:
        """An equation that moves elements."""
        ...
