"""Base classes of rules. They contain only mathematics, and no jaxpr."""

# JAX's own annotations leave parts unknown.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Set
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxlrp.compat import is_concrete
from jaxlrp.errors import RuleError
from jaxlrp.rules.arithmetic import safe_divide, times
from jaxlrp.rules.layer_view import Carries, Inputs, LayerView, Output, PlannedLayer

BiasPolicy = Literal["absorb", "ignore", "distribute"]

LINEAR_KINDS = frozenset({"dense", "conv", "embed", "affine"})
SUM_KINDS = frozenset({"add", "avg_pool", "reduce", "structural"})


_CARRIES = ("density", "relevance", "same")


def check_carries(rule: Any, carries: Any) -> None:
    """Raise unless a rule names the quantity that it returns by one of the known words."""
    if carries not in _CARRIES:
        raise RuleError(
            f"{rule}: carries is {carries!r}; expected one of {', '.join(map(repr, _CARRIES))}."
        )


def _check_declarations(rule: type[Any]) -> None:
    if isinstance(rule.__dict__.get("carries", ""), str) and "carries" in rule.__dict__:
        check_carries(rule.__name__, rule.carries)
    fits = rule.__dict__.get("fits")
    if fits is not None and (isinstance(fits, str) or not isinstance(fits, Set)):
        raise RuleError(
            f"{rule.__name__}: fits is {fits!r}; expected a set of kinds, such as "
            "frozenset({'dense', 'conv'}), or None for any."
        )


@dataclasses.dataclass(frozen=True)
class Rule:
    """Base class of all rules: how relevance passes from a layer's output to its inputs.

    A rule is a frozen dataclass with one method, `propagate`. The class attribute `carries` says
    what the method returns: the density R / x (`"density"`), the relevance R (`"relevance"`), or
    the quantity that arrived at the output (`"same"`). `fits` are the kinds of layer to which the
    rule can be given; None means any.
    """

    carries: ClassVar[Carries] = "density"
    fits: ClassVar[frozenset[str] | None] = None  # None: any kind
    # If a layer with this rule makes an output, the seed there is the weight, not weight x value.
    from_weight: ClassVar[bool] = False
    # Bounds refer to the layer's input: the plan says if that is not the explained value.
    bounds_input: ClassVar[bool] = False
    # `propagate` may be skipped for a rule that does only this. Never inherited by a subclass with
    # a `propagate` of its own; see also `plain`.
    passes: ClassVar[bool] = False  # R_i = R_j
    follows: ClassVar[bool] = False  # the transposed derivative of what moves elements

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        _check_declarations(cls)
        for name in ("__eq__", "__hash__"):  # else dataclasses compare arrays as numbers
            if name not in cls.__dict__:
                type.__setattr__(cls, name, Rule.__dict__[name])
        if "propagate" in cls.__dict__:
            # A rule with its own way to propagate is called, whatever its base may skip.
            for name in ("plain", "passes", "follows", "takes_relu", "sends_to"):
                if name not in cls.__dict__:
                    type.__setattr__(cls, name, Rule.__dict__[name])

    def propagate(self, layer: LayerView) -> Inputs:
        """Density or relevance (see `carries`) at the layer's active input(s), `"*in"`.

        An array for one active input, a tuple of arrays for several, as `layer.x` is.
        """
        raise NotImplementedError(f"{type(self).__name__} has no method propagate(layer)")

    @property
    def plain(self) -> bool:
        """Whether the rule, on a density, is just the layer's transposed derivative."""
        return False

    @property
    def takes_relu(self) -> bool:
        """Whether the rule is also right with max(z, 0) as z, if nothing arrives where z < 0.

        Then a ReLU that is the only reader of the layer runs together with it, and z is not kept.
        """
        return False

    def what_it_carries(self, arriving: Carries, layer: PlannedLayer) -> Carries:
        """Density or relevance at the inputs, given the quantity that arrives at the output."""
        return arriving if self.carries == "same" else self.carries

    def sends_to(self, position: int, layer: PlannedLayer) -> bool:
        """Whether relevance may pass to the input at a position; False only if it is always 0."""
        return True

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and _contents(self) == _contents(other)

    def __hash__(self) -> int:
        return hash((type(self), _contents(self)))

    def __str__(self) -> str:
        shown = [
            f"{f.name}={_short(getattr(self, f.name))}"
            for f in dataclasses.fields(self)
            if f.repr and not _equal(getattr(self, f.name), f.default)
        ]
        return f"{type(self).__name__}({', '.join(shown)})"


@dataclasses.dataclass(frozen=True)
class LinearRule(Rule):
    """Base class of the rules for linear layers, with the stabiliser and the policy for biases.

    Args:
      epsilon: stabiliser of the denominator, >= 0, in units of the layer's output.
      bias: the treatment of the bias's share of the denominator. `"absorb"`: the bias stays there,
        and its relevance is lost (and listed by the ledger). `"ignore"`: the denominator is formed
        without the bias; activations stay those of the true network. `"distribute"`: the relevance
        that bias and stabiliser took is shared equally over the in-bounds inputs of that output.

    Raises:
      RuleError: epsilon is negative or not finite, or the bias policy is unknown.
    """

    epsilon: float = dataclasses.field(default=1e-6, kw_only=True)
    bias: BiasPolicy = dataclasses.field(default="absorb", kw_only=True)

    fits: ClassVar[frozenset[str] | None] = LINEAR_KINDS | SUM_KINDS

    def __post_init__(self) -> None:
        check_number(self, "epsilon", self.epsilon)
        if self.bias not in ("absorb", "ignore", "distribute"):
            raise RuleError(
                f"{type(self).__name__}: bias={self.bias!r} was given; "
                "expected 'absorb', 'ignore' or 'distribute'."
            )

    def what_it_carries(self, arriving: Carries, layer: PlannedLayer) -> Carries:
        if self.bias == "distribute":
            return "relevance"
        return super().what_it_carries(arriving, layer)

    def settle(self, layer: LayerView, back: Inputs, kept: Output | Callable[[], Output]) -> Inputs:
        """Finish a rule: `back` (density or relevance) as it is, or with its loss distributed.

        `kept` is the relevance of each output that reaches the inputs, or a function that computes
        it if it is needed. Under `bias="distribute"` the rest goes to all in-bounds inputs in equal
        parts.
        """
        if self.bias != "distribute":
            return back
        kept = kept() if callable(kept) else kept
        relevance = times(layer.x, back) if self.carries == "density" else back
        ones = layer.ones()
        count = ones(layer.constant(1.0))
        rest = safe_divide(layer.relevance - kept, count)
        return jax.tree.map(jnp.add, relevance, ones.T(rest))


def check_number(rule: Any, name: str, value: Any, low: float = 0.0) -> None:
    """Raise unless a rule's parameter is a finite number of at least `low`."""
    if not is_concrete(value):
        return
    try:
        number = float("nan") if isinstance(value, (bool, str)) else float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not low <= number < float("inf"):
        raise RuleError(
            f"{type(rule).__name__}: {name}={value!r} was given; expected a finite number >= "
            f"{low:g}."
        )


@dataclasses.dataclass(frozen=True)
class _Same:
    """A value that is compared by identity: a traced array, or an object of the user's own."""

    value: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


def _contents(rule: Any) -> Hashable:
    """The fields of a rule, arrays by content."""
    values: dict[str, Any] = {f.name: getattr(rule, f.name) for f in dataclasses.fields(rule)}
    if "__dataclass_fields__" not in type(rule).__dict__:
        values |= vars(rule)
    leaves, structure = jax.tree.flatten(values)
    return structure, tuple(map(_content, leaves))


def _content(leaf: Any) -> Hashable:
    if hasattr(leaf, "shape") and hasattr(leaf, "dtype"):
        if not is_concrete(leaf):
            return _Same(leaf)
        array: np.ndarray[Any, Any] = np.asarray(leaf)
        return array.shape, str(array.dtype), array.tobytes()
    try:
        hash(leaf)
    except TypeError:
        return _Same(leaf)
    return leaf


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else repr(value)


def _equal(a: Any, b: Any) -> bool:
    try:
        return bool(a == b)
    except (TypeError, ValueError):
        return False
