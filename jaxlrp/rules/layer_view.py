"""What a rule sees of a layer: an interface, and no jaxpr behind it that a rule could touch."""

from __future__ import annotations

from typing import Any, Literal, Protocol

Carries = Literal["density", "relevance", "same"]


class PlannedLayer(Protocol):
    """What a rule may ask of a layer while it is planned, before there are arrays."""

    @property
    def kind(self) -> str:
        """What sort of layer it is."""
        ...

    @property
    def zero_at_zero(self) -> bool:
        """Of an activation: whether f(0) = 0."""
        ...


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
    """What a rule sees of one layer while relevance passes it; read-only.

    Inputs, and what goes back to them, are an array for a layer with one active input, a tuple of
    arrays for several (`add`, `concatenate`, products). "Shape of x" is that of the input(s),
    "shape of z" that of the output. Arrays are float32 at least, whatever the network computes in.
    """

    @property
    def x(self) -> Any:
        """Value of the active input(s)."""
        ...

    @property
    def z(self) -> Any:
        """Value of the output, in the network that is explained, before any later activation."""
        ...

    @property
    def bias(self) -> Any:
        """The output for a zero input, b: what the layer adds; broadcasts against z."""
        ...

    @property
    def linear(self) -> Any:
        """xW, which is z without the bias: a product of its own, no difference; shape of z."""
        ...

    @property
    def arriving(self) -> Carries:
        """Which of the two came to the output: `"density"` or `"relevance"`."""
        ...

    @property
    def arrived(self) -> Any:
        """What came to the output; shape of z."""
        ...

    @property
    def carries(self) -> Carries:
        """What is to be returned: `"density"` or `"relevance"`; see `Rule.what_it_carries`."""
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
        """Of an activation: whether it is max(x, 0), in whatever spelling."""
        ...

    @property
    def transport(self) -> str:
        """Of a structural equation: `"move"`, `"scale"` (one number times x) or `"linear"`."""
        ...

    @property
    def factors(self) -> Any:
        """Of a product: how many factors it has; an array where that differs by element."""
        ...

    @property
    def powers(self) -> tuple[int, ...]:
        """Of a product: how often each input is a factor; less than 0 if it divides."""
        ...

    @property
    def gates(self) -> tuple[int, ...]:
        """Of a product: positions of the gates that the graph shows."""
        ...

    @property
    def gate(self) -> int | None:
        """Of a product of two: position of its gate, if the graph shows one."""
        ...

    @property
    def reciprocal(self) -> int | None:
        """Of a product: position of the input that divides, if exactly one does."""
        ...

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
