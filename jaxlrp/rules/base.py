"""What a rule is, and what it sees of a layer. Mathematics only: no jaxpr in this room."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Literal, Protocol

import jax
import jax.numpy as jnp
from jax import lax

from jaxlrp.compat import is_concrete, sharded_like
from jaxlrp.errors import RuleError

Array = jax.Array
Carries = Literal["density", "relevance", "same"]
BiasPolicy = Literal["absorb", "ignore", "distribute"]

LINEAR_KINDS = frozenset({"dense", "conv", "embed", "affine"})
SUM_KINDS = frozenset({"add", "avg_pool", "reduce", "structural"})


class LinearMap(Protocol):
    """The linear part of a layer, with its weights W replaced by a function of them."""

    def __call__(self, x: Any) -> Any:
        """The map applied to inputs; shape of the layer's output."""
        ...

    def T(self, s: Any) -> Any:
        """The transposed map applied to `s`; shape of the layer's input."""
        ...


class SplitMap(Protocol):
    """A layer's linear part with W+ and W- apart, for pairs of inputs u and v.

    Each result is a sum of products of its own, never a difference, so a sum of one sign has that
    sign and is accurate however small it is beside the other.
    """

    def __call__(self, u: Any, v: Any = None) -> Any:
        """W+u + W-v; without v two products become one."""
        ...

    def other(self, u: Any, v: Any = None) -> Any:
        """W-u + W+v."""
        ...

    def T(self, s: Any, other: Any = None, *, both: bool = True) -> Any:
        """What `s` at W+u + W-v and `other` at W-u + W+v send back to u and v.

        A pair; without `both` what is sent to u alone.
        """
        ...


class Contributions(Protocol):
    """The contributions x_i w_ij of a layer's inputs to its outputs, by their sign; no bias."""

    positive: Any  # their positive parts' sum, x+W+ + x-W-
    negative: Any  # their negative parts' sum, x-W+ + x+W-

    def T(self, positive: Any = None, negative: Any = None) -> Any:
        """The density at the input: each contribution's weight times what came to its sum."""
        ...


class LayerView(Protocol):
    """What a rule sees of one layer while relevance passes it.

    Inputs and what goes back to them are an array for a layer with one active input, a tuple of
    arrays for several (`add`, `concatenate`, products).
    """

    x: Any  # value of the active input(s)
    z: Any  # value of the layer's output, of the true network, before any later activation
    bias: Any  # what the layer adds: its output for a zero input; broadcasts against `z`
    linear: Any  # xW, `z` without the bias: no difference, but a product of its own
    nonnegative: bool  # x >= 0 is proven, and the layer has no scale whose sign is open
    factors: int  # products: how many
    powers: tuple[int, ...]  # products: how often each input is a factor; less than 0 if it divides
    reciprocal: int | None  # products: position of the input that divides, if it is one
    gates: tuple[int, ...]  # products: positions of the gates that the graph shows
    gate: int | None  # products of two: position of the gate, if the graph shows one
    is_relu: bool  # activations: it is max(x, 0), in whatever spelling
    sign_split: bool  # outputs z < 0 may carry relevance (False below a ReLU)
    arriving: str  # "density" or "relevance": which of the two came to the output
    arrived: Any  # that array

    @property
    def relevance(self) -> Any:
        """R that arrives at the output."""
        ...

    @property
    def density(self) -> Any:
        """R / z at the output (0 where z = 0)."""
        ...

    def over(
        self, denominator: Any, *, bias: Any = 0.0, share: float = 1.0, epsilon: Any = 0.0
    ) -> Any:
        """s = share * R / stab(denominator), 0 where the denominator is 0.

        `bias` is the part of the denominator that comes from the bias: the ledger lists what it
        takes. stab(z) = z + epsilon * sgn(z), sgn(0) = +1.
        """
        ...

    def map(
        self,
        *,
        signed: float = 0.0,
        positive: float = 0.0,
        negative: float = 0.0,
        absolute: float = 0.0,
    ) -> LinearMap:
        """The linear part with weights signed*W + positive*W+ + negative*W- + absolute*|W|."""
        ...

    def contributions(self) -> Contributions:
        """Positive and negative contributions, each summed up by products of its own."""
        ...

    def split(self) -> SplitMap:
        """The linear part with W+ and W- apart."""
        ...

    def squares(self) -> LinearMap:
        """The layer's linear part with weights W**2."""
        ...

    def ones(self) -> LinearMap:
        """The layer's linear part with every weight 1; padding counts for nothing."""
        ...

    def constant(self, value: Any) -> Any:
        """`value` as an input for the layer's maps, of size 1 along axes that hold examples."""
        ...

    def function(self, *inputs: Any) -> Any:
        """The layer's output for other values of its active inputs."""
        ...

    def vjp(self, cotangent: Any, *, detach: bool = True) -> Any:
        """The transposed derivative of the layer at its input, applied to `cotangent`.

        With `detach` the factor by which a norm divides is held constant.
        """
        ...

    def secant(self, density: Any) -> Any:
        """density * f(x)/x for an activation f, 0 where x is 0."""
        ...

    def route(self, arrived: Any) -> Any:
        """To each window's winner what arrived at its output; ties go to the first."""
        ...

    def rms(self, z: Any) -> Any:
        """Root mean square of `z` over the features of one example; broadcasts against `z`."""
        ...


@dataclasses.dataclass(frozen=True)
class Rule:
    """Base class of all rules: how relevance passes from a layer's output to its inputs.

    A rule is a frozen dataclass with one method, `propagate`. The class attribute `carries` says
    what the method returns: the density R / x (`"density"`), the relevance R (`"relevance"`), or
    whatever arrived at the output (`"same"`). `fits` are the kinds of layer that it can be given.
    """

    carries: ClassVar[Carries] = "density"
    fits: ClassVar[frozenset[str] | None] = None  # None: any kind
    # At an output that a layer with this rule makes, the seed is the weight, not weight x value.
    from_weight: ClassVar[bool] = False
    # Bounds are given for the layer's input: the plan says where that is not what is explained.
    bounds_input: ClassVar[bool] = False

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "propagate" in cls.__dict__ and "plain" not in cls.__dict__:
            # A rule that propagates in a way of its own is asked, whatever its base may skip.
            type.__setattr__(cls, "plain", Rule.plain)

    def propagate(self, layer: Any) -> Any:
        """Density or relevance (see `carries`) at the layer's active input(s)."""
        raise NotImplementedError(f"{type(self).__name__} has no method propagate(layer)")

    @property
    def plain(self) -> bool:
        """Whether the rule, on a density, is nothing but the layer's transposed derivative."""
        return False

    def what_it_carries(self, arriving: Carries, layer: Any) -> Carries:
        """Density or relevance at the inputs, given what arrives at the output of `layer`."""
        return arriving if self.carries == "same" else self.carries

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
      bias: what becomes of the bias's share of the denominator. `"absorb"`: it stays there and
        its relevance is lost (and listed by the ledger). `"ignore"`: the denominator is formed
        without the bias; activations stay those of the true network. `"distribute"`: what bias
        and stabiliser took is shared equally over the in-bounds inputs of that output.
    """

    epsilon: float = dataclasses.field(default=1e-6, kw_only=True)
    bias: BiasPolicy = dataclasses.field(default="absorb", kw_only=True)

    fits: ClassVar[frozenset[str] | None] = LINEAR_KINDS | SUM_KINDS

    def __post_init__(self) -> None:
        check_number(self, "epsilon", self.epsilon)
        if self.bias not in ("absorb", "ignore", "distribute"):
            raise RuleError(
                f"{type(self).__name__}: bias={self.bias!r} is not known; "
                "give 'absorb', 'ignore' or 'distribute'."
            )

    def what_it_carries(self, arriving: Carries, layer: Any) -> Carries:
        if self.bias == "distribute":
            return "relevance"
        return super().what_it_carries(arriving, layer)

    def settle(self, layer: Any, back: Any, kept: Any) -> Any:
        """Finish a rule: `back` (density or relevance) as it is, or with its loss distributed.

        `kept` is, per output, the relevance that reaches the inputs. Under
        `bias="distribute"` the rest goes to all in-bounds inputs in equal parts.
        """
        if self.bias != "distribute":
            return back
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


def stabilise(z: Any, epsilon: Any) -> Any:
    """stab(z) = z + epsilon * sgn(z), with sgn(0) = +1."""
    return z + choose(z >= 0, epsilon, -epsilon, z)


def safe_divide(a: Any, b: Any) -> Any:
    """a / b, and 0 where b = 0; differentiable there too."""
    zero = b == 0
    return choose(zero, 0.0, a / choose(zero, 1.0, b, b), a)


def times(x: Any, density: Any) -> Any:
    """x * density for an array or a tuple of arrays; 0 where the density is 0, whatever x is.

    An input of -inf (a mask) that carries nothing has no relevance, not NaN.
    """
    return jax.tree.map(lambda a, c: choose(c == 0, 0.0, a * c, c), x, density)


def choose(where: Any, a: Any, b: Any, like: Any) -> Any:
    """`jnp.where` as one equation, in the dtype of `like`: rules are traced once per layer."""
    shape = jnp.broadcast_shapes(jnp.shape(where), jnp.shape(a), jnp.shape(b))
    cases = (lax.broadcast_to_rank(jnp.asarray(v, like.dtype), len(shape)) for v in (a, b))
    full = [v if v.shape == shape else jnp.broadcast_to(v, shape) for v in cases]
    test = where if where.shape == shape else jnp.broadcast_to(where, shape)
    return lax.select(test, *(sharded_like(v, test) for v in full))


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else repr(value)


def _equal(a: Any, b: Any) -> bool:
    try:
        return bool(a == b)
    except (TypeError, ValueError):
        return False
