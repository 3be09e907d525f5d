"""Rules that hold a reference: the inputs of a layer for another input of the network.

They carry multipliers, as `Gradient` carries derivatives: a contribution is a multiplier times a
difference from the reference.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxlrp.rules import Rule

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(8)


@dataclasses.dataclass(frozen=True)
class _WithReference(Rule):
    reference: Any = dataclasses.field(repr=False)  # a tuple, one for each input of the layer

    carries: ClassVar[Any] = "relevance"
    from_weight: ClassVar[bool] = True


@dataclasses.dataclass(frozen=True)
class Rescale(_WithReference):
    """m_x = m_y (f(x) - f(x0)) / (x - x0) at an activation; the derivative where x is near x0."""

    fits: ClassVar[frozenset[str] | None] = frozenset({"activation"})

    def propagate(self, layer: Any) -> Any:
        x, (x0,) = layer.x, self.reference
        d = x - x0
        near = _is_near(d, x, x0)
        slope = (layer.z - layer.function(x0)) / jnp.where(near, 1.0, d)
        _, back = jax.vjp(layer.function, (x + x0) / 2)
        return jnp.where(near, back(layer.relevance)[0], slope * layer.relevance)


@dataclasses.dataclass(frozen=True)
class MaxRescale(_WithReference):
    """The difference of a maximum goes to one input: x's winner if it rose, x0's if it fell."""

    fits: ClassVar[frozenset[str] | None] = frozenset({"max_pool"})

    def propagate(self, layer: Any) -> Any:
        x = _tuple(layer.x)
        z0, back0 = jax.vjp(layer.function, *self.reference)
        z, back = jax.vjp(layer.function, *x)
        d = jax.tree.map(lambda a, b, m: (a - b) * m, z, z0, layer.relevance)
        rose = jax.tree.map(lambda a, b, r: jnp.where(a >= b, r, jnp.zeros_like(r)), z, z0, d)
        fell = jax.tree.map(jnp.subtract, d, rose)
        found = tuple(
            _ratio(up + down, a - b, _is_near(a - b, a, b))
            for up, down, a, b in zip(back(rose), back0(fell), x, self.reference, strict=True)
        )
        return found if isinstance(layer.x, tuple) else found[0]


@dataclasses.dataclass(frozen=True)
class AlongLine(_WithReference):
    """The mean derivative on the line from the reference: integrated gradients of one layer.

    For products it is exact: half of each factor's difference. For softmax and norms the error is
    that of eight Gauss-Legendre nodes.
    """

    def propagate(self, layer: Any) -> Any:
        x = _tuple(layer.x)

        def at(node: float, weight: float) -> tuple[Any, ...]:
            share = (node + 1) / 2
            point = tuple(b + share * (a - b) for a, b in zip(x, self.reference, strict=True))
            _, back = jax.vjp(layer.function, *point)
            return tuple(weight / 2 * m for m in back(layer.relevance))

        parts = [at(float(n), float(w)) for n, w in zip(_NODES, _WEIGHTS, strict=True)]
        found = tuple(sum(p[1:], p[0]) for p in zip(*parts, strict=True))
        return found if isinstance(layer.x, tuple) else found[0]


@dataclasses.dataclass(frozen=True)
class HandOn(Rule):
    """Multipliers pass unchanged, at a ReLU whose preceding layer shares them out."""

    carries: ClassVar[Any] = "relevance"
    fits: ClassVar[frozenset[str] | None] = frozenset({"activation"})
    from_weight: ClassVar[bool] = True

    def propagate(self, layer: Any) -> Any:
        return layer.relevance


@dataclasses.dataclass(frozen=True)
class RevealCancel(_WithReference):
    """Positive and negative contributions to a ReLU apart, each averaged over the order of both.

    This is the rule of a layer with weights that only a ReLU f reads, which itself passes
    multipliers on. With z0 at the reference, and p and q the positive and negative contributions to
    z - z0: m+ = ((f(z0 + p) - f(z0)) + (f(z0 + q + p) - f(z0 + q))) / (2 p), and m- likewise.
    """

    fits: ClassVar[frozenset[str] | None] = frozenset({"dense", "conv", "embed", "affine"})

    def propagate(self, layer: Any) -> Any:
        (x0,) = self.reference
        d = layer.x - x0
        up, down = jnp.maximum(d, 0), jnp.minimum(d, 0)
        split = layer.split()
        p, q = split(up, down), split.other(up, down)
        z0 = layer.function(x0)
        f = jax.nn.relu
        whole = f(z0 + p + q)
        plus = (f(z0 + p) - f(z0) + whole - f(z0 + q)) / 2
        minus = (f(z0 + q) - f(z0) + whole - f(z0 + p)) / 2
        m_plus = layer.relevance * _ratio(plus, p, p == 0)
        m_minus = layer.relevance * _ratio(minus, q, q == 0)
        to_up, to_down = split.T(m_plus, m_minus)
        return jnp.where(d < 0, to_down, to_up)


def _is_near(d: Any, x: Any, x0: Any) -> Any:
    # At smaller distances the quotient of differences has fewer correct digits than the derivative.
    return jnp.abs(d) <= jnp.sqrt(jnp.finfo(d.dtype).eps) * (jnp.abs(x) + jnp.abs(x0)) / 8


def _ratio(a: Any, b: Any, near: Any) -> Any:
    return jnp.where(near, 0.0, a / jnp.where(near, 1.0, b))


def _tuple(x: Any) -> tuple[Any, ...]:
    return x if isinstance(x, tuple) else (x,)
