"""The interface through which a rule sees a layer; it shows arrays and maps, never a jaxpr."""

from __future__ import annotations

from typing import Any, Literal, Protocol, TypeAlias

import jax
from jax.typing import ArrayLike

Carries = Literal["density", "relevance", "same"]

# An array, or a tuple of arrays for a layer with several active inputs. A union would force each
# rule to distinguish the two, although most rules fit layers of one sort only.
Inputs: TypeAlias = Any
# A `jax.Array`. The arrays of a layer are made on demand, by `functools.cached_property`, which the
# type checker does not accept as an array in a protocol.
Output: TypeAlias = Any


class PlannedLayer(Protocol):
    """The members of a layer that a rule may read while planning, before there are arrays."""

    @property
    def kind(self) -> str:
        """Kind of the layer, for example `"dense"`."""
        ...

    @property
    def zero_at_zero(self) -> bool:
        """Whether f(0) = 0, for an activation f."""
        ...

    @property
    def gates(self) -> tuple[int, ...]:
        """Positions of the gates of a product that the graph shows."""
        ...

    @property
    def n_inputs(self) -> int:
        """The number of active inputs."""
        ...


class LinearMap(Protocol):
    """The linear part of a layer, with its weights W replaced by a function of them."""

    def __call__(self, x: Inputs) -> jax.Array:
        """The map applied to inputs: `"*in"` to `"*out"`."""
        ...

    def T(self, s: jax.Array) -> Inputs:
        """The transposed map applied to `s`: `"*out"` to `"*in"`."""
        ...


class SplitMap(Protocol):
    """The linear part of a layer with W⁺ and W⁻ apart, for pairs of inputs u and v.

    Each result is a sum of products of its own, never a difference, so a sum of one sign has that
    sign and is accurate however small it is beside the other.
    """

    def __call__(self, u: Inputs, v: Inputs | None = None) -> jax.Array:
        """W⁺u + W⁻v; without v two products become one."""
        ...

    def other(self, u: Inputs, v: Inputs | None = None) -> jax.Array:
        """W⁻u + W⁺v."""
        ...

    def T(self, s: jax.Array, other: jax.Array | None = None, *, both: bool = True) -> Inputs:
        """The transposed map: `s` belongs to W⁺u + W⁻v, `other` to W⁻u + W⁺v.

        Returns the pair that belongs to u and v; without `both` the first of the pair alone.
        """
        ...


class Contributions(Protocol):
    """The contributions x_i w_ij of a layer's inputs to its outputs, by their sign; no bias.

    Attributes:
      positive: sum of the positive contributions, x⁺W⁺ + x⁻W⁻, `Float[Array, "*out"]`.
      negative: sum of the negative contributions, x⁻W⁺ + x⁺W⁻, `Float[Array, "*out"]`.
    """

    positive: Output
    negative: Output

    def T(self, positive: jax.Array | None = None, negative: jax.Array | None = None) -> Inputs:
        """The density at the input: weights times the values given for the sums they are in."""
        ...


class LayerView(Protocol):
    """A layer as a rule sees it while relevance passes; read-only.

    Values at the inputs, and the values returned for them, are an array `Float[Array, "*in"]` for a
    layer with one active input, and a tuple of arrays for several (`add`, `concatenate`, products);
    signatures call them `Inputs`. Values at the output are `Float[Array, "*out"]`, called `Output`.
    Arrays are float32 at least, whatever the network computes in.
    """

    @property
    def x(self) -> Inputs:
        """Value of the active input(s), `"*in"`."""
        ...

    @property
    def z(self) -> Output:
        """Value of the output in the explained network, before any later activation, `"*out"`."""
        ...

    @property
    def bias(self) -> Any:  # an array or a number: rules compute with both alike
        """The output for a zero input, b: an array that broadcasts to `"*out"`, or the number 0."""
        ...

    @property
    def linear(self) -> Output:
        """xW, which is z without the bias, `"*out"`; a product of its own, not a difference."""
        ...

    @property
    def arriving(self) -> Carries:
        """Which quantity arrived at the output: `"density"` or `"relevance"`."""
        ...

    @property
    def arrived(self) -> Output:
        """The quantity that arrived at the output, `"*out"`."""
        ...

    @property
    def carries(self) -> Carries:
        """Which quantity to return: `"density"` or `"relevance"`; see `Rule.what_it_carries`."""
        ...

    @property
    def nonnegative(self) -> bool:
        """Whether x >= 0 is proven, and the layer has no scale whose sign is open."""
        ...

    @property
    def sign_split(self) -> bool:
        """Whether outputs z < 0 may carry relevance: False before a ReLU."""
        ...

    @property
    def is_relu(self) -> bool:
        """Whether an activation is max(x, 0), however it is written."""
        ...

    @property
    def relu_slopes(self) -> tuple[float, float] | None:
        """The slopes for x < 0 and x > 0 of a number times a ReLU of x or -x; one of them is 0.

        (0, 1) for max(x, 0), (-1, 0) for max(-x, 0). None for other activations.
        """
        ...

    @property
    def transport(self) -> str:
        """How a structural equation acts: `"move"`, `"scale"` (a number times x) or `"linear"`."""
        ...

    @property
    def factors(self) -> Any:  # an array or a number: rules compute with both alike
        """How many factors a product has: an int, or an array if that differs by element."""
        ...

    @property
    def powers(self) -> tuple[int, ...]:
        """How often each input is a factor of a product; negative if it divides."""
        ...

    @property
    def gates(self) -> tuple[int, ...]:
        """Positions of the gates of a product that the graph shows."""
        ...

    @property
    def gate(self) -> int | None:
        """Position of the gate of a product of two, if the graph shows one."""
        ...

    @property
    def reciprocal(self) -> int | None:
        """Position of the input that divides in a product, if exactly one does."""
        ...

    @property
    def relevance(self) -> Output:
        """Relevance R that arrives at the output, `"*out"`."""
        ...

    @property
    def density(self) -> Output:
        """R / z at the output, 0 where z = 0, `"*out"`."""
        ...

    def over(
        self,
        denominator: ArrayLike,
        *,
        bias: ArrayLike = 0.0,
        share: ArrayLike = 1.0,
        epsilon: ArrayLike = 0.0,
    ) -> jax.Array:
        """s = share * R / stab(denominator), 0 where the denominator is 0, `"*out"`.

        `bias` is the part of the denominator that comes from the bias, so that the ledger can list
        its share. stab(z) = z + epsilon * sgn(z), with sgn(0) = +1.
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
        """The linear part with weights signed·W + positive·W⁺ + negative·W⁻ + absolute·|W|."""
        ...

    def contributions(self) -> Contributions:
        """Positive and negative contributions, each summed up by products of its own."""
        ...

    def split(self) -> SplitMap:
        """The linear part with W⁺ and W⁻ apart."""
        ...

    def squares(self) -> LinearMap:
        """The layer's linear part with weights W²."""
        ...

    def ones(self) -> LinearMap:
        """The layer's linear part with every weight 1; padding counts for nothing."""
        ...

    def constant(self, value: ArrayLike) -> Inputs:
        """`value` as an input for the layer's maps, of size 1 along axes that hold examples."""
        ...

    def function(self, *inputs: jax.Array) -> jax.Array:
        """The layer's output for other values of its active inputs."""
        ...

    def vjp(self, cotangent: jax.Array, *, detach: bool = True) -> Inputs:
        """The transposed derivative of the layer at its input, applied to `cotangent`.

        With `detach` the factor by which a norm divides is held constant.
        """
        ...

    def secant(self, density: jax.Array) -> Inputs:
        """density * f(x)/x for an activation f, 0 where x is 0."""
        ...

    def route(self, arrived: jax.Array) -> Inputs:
        """Sends the value that arrived at each output to its winner; ties go to the first."""
        ...

    def rms(self, z: jax.Array) -> jax.Array:
        """Root mean square of `z` over the features of one example; broadcasts against `z`."""
        ...
