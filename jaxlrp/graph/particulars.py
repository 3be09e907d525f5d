"""The particulars of a group: the facts about it that only groups of its sort have.

A group has particulars of one sort or none. They are frozen and name equations and values of the
group, so one function maps them onto another call of the same function, or onto numbers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

from jaxlrp.graph.ir import Eqn, Value


@dataclasses.dataclass(frozen=True, slots=True)
class Linear:
    """How a linear group is built: elementwise scales and shifts around one core equation.

    Attributes:
      core: the product or sum; None for a group of only scales and shifts.
      operand: position of the active operand in the core, or else in the first equation.
      pre: equations before the core.
      post: equations after it.
      folds: whether every scale is constant along all axes of the core's input (`pre`) or output
        (`post`) except those that its kernel has too.
      features: for a sum over weighted elements, the axes of its output along which the weights
        vary.
      transport: `"scale"` for multiplication by a number, else `"linear"`.
    """

    core: Eqn | None
    operand: int
    pre: tuple[Eqn, ...]
    post: tuple[Eqn, ...]
    folds: bool
    features: frozenset[int] = frozenset()
    transport: str = "linear"


@dataclasses.dataclass(frozen=True, slots=True)
class Norm:
    """A division by a statistic.

    Attributes:
      tail: the scale and shift after the division; None if they are anywhere within.
      borrowed: equations of the statistic through which relevance passes for other readers.
    """

    tail: tuple[Eqn, ...] | None = None
    borrowed: frozenset[Eqn] = frozenset()


@dataclasses.dataclass(frozen=True, slots=True)
class Softmax:
    """A softmax, log-softmax or logsumexp.

    Attributes:
      logits: the exponents, if a mask may make them -inf.
      rows: the axes of the logits that the weights sum to 1 over; empty if they are unknown.
      shares: whether each weight is proven to be at most the sum by which it is divided.
    """

    logits: Value | None = None
    rows: tuple[int, ...] = ()
    shares: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Product:
    """A product of active factors.

    Attributes:
      powers: how often each input is a factor, negative if it divides; empty for once each.
      gates: positions of the inputs that are gates.
      gate_by: the proof, joined by commas: `"divides"`, `"bounds"`, `"share"`, `"activation"`.
    """

    powers: tuple[int, ...] = ()
    gates: tuple[int, ...] = ()
    gate_by: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Activation:
    """An elementwise function f of one value.

    Attributes:
      zero_at_zero: f(0) = 0.
      hard_relu: f(x) = 0 for every x <= 0.
      relu_slopes: for a number times a ReLU of x or -x, its slopes for x < 0 and for x > 0, one of
        which is 0.
    """

    zero_at_zero: bool = True
    hard_relu: bool = False
    relu_slopes: tuple[float, float] | None = None

    @property
    def is_relu(self) -> bool:
        """Whether f(x) = max(x, 0)."""
        return self.relu_slopes == (0.0, 1.0)


@dataclasses.dataclass(frozen=True, slots=True)
class Move:
    """An equation outside other layers that moves elements, or mixes them linearly.

    Attributes:
      transport: `"move"` if elements are selected or repeated, `"linear"` if they are mixed.
    """

    transport: str = "linear"


WithDefaults: TypeAlias = Norm | Softmax | Product | Activation | Move  # every member has a default
Particulars: TypeAlias = Linear | WithDefaults
P = TypeVar("P", bound=Particulars)
D = TypeVar("D", bound=WithDefaults)


def mapped(particulars: P, on: Callable[[Eqn | Value], Any]) -> P:
    """The same particulars with every equation and value in them replaced by its image."""
    return type(particulars)(*images(particulars, on))


def images(particulars: Particulars, on: Callable[[Eqn | Value], Any]) -> tuple[Any, ...]:
    """The particulars as a tuple, with every equation and value replaced by its image."""
    return tuple(_image(getattr(particulars, n), on) for n in type(particulars).__slots__)


def _image(x: Any, on: Callable[[Eqn | Value], Any]) -> Any:
    if isinstance(x, (Eqn, Value)):
        return on(x)
    return type(x)(_image(y, on) for y in x) if isinstance(x, (tuple, frozenset)) else x
