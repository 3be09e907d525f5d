"""Rules for products of values that all depend on the input."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Container
from typing import Any, ClassVar

import jax.numpy as jnp
from jax import lax

from jaxlrp.errors import RuleError
from jaxlrp.rules.arithmetic import as_tuple
from jaxlrp.rules.base import Rule, check_number
from jaxlrp.rules.layer_view import Inputs, LayerView, PlannedLayer


@dataclasses.dataclass(frozen=True)
class Uniform(Rule):
    r"""Each of the n factors of a product gets 1/n of the relevance, a half if there are two.

    $$R_a = a \frac{\partial z}{\partial a}^{\top} \frac{R}{n z}, \qquad z = a b c \cdots$$

    The product may be elementwise, over an axis or up to an element, or a matrix product of two,
    however it is nested. A divisor counts as the factor 1/b; a factor that occurs several times
    counts once. This is the default rule of `matmul` and `product` layers.

    Shapes: a and $R_a$ are `Float[Array, "*a"]` (each factor has a shape of its own); z and R are
    `Float[Array, "*out"]`.

    Use it in attention (both matrix products), and where no factor is a gate. It is not a first
    choice in recurrent cells: `SignalTakesAll` gives the gates' half to the signal there.

    Source: [Achtibat et al. 2024][achtibat2024], proposition 3.3.
    """

    fits: ClassVar[frozenset[str] | None] = frozenset({"matmul", "product"})

    def propagate(self, layer: LayerView) -> Inputs:
        return _shared(layer, 1 / layer.factors)


def _shared(layer: LayerView, share: Any, signals: Container[int] | None = None) -> Any:
    """Give `share` of the arriving relevance to each factor, or to each of the signals."""
    back = layer.vjp(layer.over(layer.z, share=share))
    if not isinstance(back, tuple):
        return back
    # The density of a factor a^n is n times that of a; n < 0 turns the sign for a divisor.
    parts = as_tuple(back)
    powers = layer.powers or (1,) * len(parts)
    pairs = enumerate(zip(parts, powers, strict=True))
    return tuple(
        (c if n == 1 else c / n) if signals is None or i in signals else lax.full_like(c, 0)
        for i, (c, n) in pairs
    )


@dataclasses.dataclass(frozen=True)
class SignalTakesAll(Rule):
    r"""The gates of a product get no relevance, and the signal gets all of it.

    $$R_{\text{gate}} = 0, \qquad R_{\text{signal}} = R$$

    Several signals get equal shares. If no factor is a gate, `Uniform` applies, and the plan says
    so.

    Shapes: as for [`Uniform`][jaxlrp.Uniform].

    Use it in recurrent cells, gated MLPs, and attention whose weights are to be constants. It is
    not for products in which both factors carry evidence (query times key): name the signal there,
    or use `Uniform`.

    Source: [Arras et al. 2019][arras2019].

    Args:
      signal: position of the signal among the factors. With None the graph decides: a factor that
        divides is a gate, then one that lies in [0, 1], then one that comes from a softmax, then
        one that is an activation's output.

    Raises:
      RuleError: `signal` is not None, 0, 1, ..., or exceeds the number of factors of a product.
    """

    signal: int | None = None

    fits: ClassVar[frozenset[str] | None] = frozenset({"matmul", "product"})

    def __post_init__(self) -> None:
        whole = isinstance(self.signal, int) and not isinstance(self.signal, bool)
        if self.signal is not None and not (whole and self.signal >= 0):
            raise RuleError(
                f"SignalTakesAll(signal={self.signal!r}): expected 0, 1, ..., or None to let the "
                "graph decide."
            )

    def sends_to(self, position: int, layer: PlannedLayer) -> bool:
        if layer.n_inputs == 1:
            return True
        return position not in layer.gates if self.signal is None else position == self.signal

    def propagate(self, layer: LayerView) -> Inputs:
        square = not isinstance(layer.x, tuple)
        if square:
            return Uniform().propagate(layer)
        count = len(as_tuple(layer.x))
        signals = [i for i in range(count) if i not in layer.gates]
        if self.signal is not None:
            if self.signal >= count:
                raise RuleError(
                    f"{self} was given to a product of {count} factors; signal must be less "
                    "than their number."
                )
            signals = [self.signal]
        return _shared(layer, 1 / len(signals), signals)


@dataclasses.dataclass(frozen=True)
class Proportional(Rule):
    r"""Each factor of a product gets a share in proportion to its own value.

    $$R_a = \frac{a}{\text{stab}(a + b + c + \cdots)} R, \qquad z = a b c \cdots$$

    With `absolute` the share is $|a| / (|a| + |b| + |c| + \cdots)$. A divisor counts as the factor
    1/b. The product must be elementwise.

    Shapes: a and $R_a$ are `Float[Array, "*a"]` (each factor has a shape of its own); z and R are
    `Float[Array, "*out"]`.

    Use it to reproduce LRP-prop and LRP-abs. It is not a first choice: a gate takes a share of what
    its signal contributed, and with signed values the denominator may cancel.

    Source: [Ding et al. 2017][ding2017], section 4; both forms are compared with `SignalTakesAll`
    in [Arras et al. 2019][arras2019].

    Args:
      absolute: divide by the magnitudes instead of the signed values.
      epsilon: stabiliser of the denominator, >= 0, in units of the factors.
    """

    absolute: bool = False
    epsilon: float = dataclasses.field(default=1e-6, kw_only=True)

    fits: ClassVar[frozenset[str] | None] = frozenset({"product"})

    def __post_init__(self) -> None:
        check_number(self, "epsilon", self.epsilon)

    def propagate(self, layer: LayerView) -> Inputs:
        inputs = as_tuple(layer.x)
        powers = layer.powers or (1,) * len(inputs)
        shares = [
            jnp.sign(x) * jnp.abs(x) ** (n - 1) if self.absolute else x ** (n - 1)
            for x, n in zip(inputs, powers, strict=True)
        ]
        whole = functools.reduce(jnp.add, (x * c for x, c in zip(inputs, shares, strict=True)))
        s = layer.over(jnp.broadcast_to(whole, layer.z.shape), epsilon=self.epsilon)
        back = tuple(_summed(s * c, x.shape) for x, c in zip(inputs, shares, strict=True))
        return back if isinstance(layer.x, tuple) else back[0]


def _summed(array: Any, shape: tuple[int, ...]) -> Any:
    """The sum of `array` over the axes along which a value of `shape` was broadcast."""
    axes = tuple(i for i, (n, m) in enumerate(zip(array.shape, shape, strict=True)) if n != m)
    return jnp.sum(array, axes, keepdims=True) if axes else array
