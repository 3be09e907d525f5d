"""Identities with a backward pass of their own: a conversion, a probe, a mask."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxlrp import compat
from jaxlrp.rules.arithmetic import safe_divide, times


@jax.custom_vjp
def as_relevance(x: Any) -> Any:
    """The identity; an arriving density becomes the relevance of x."""
    return x


def _as_relevance_forward(x: Any) -> tuple[Any, Any]:
    return x, x


def _as_relevance_backward(x: Any, density: Any) -> tuple[Any]:
    return (times(x, density),)


as_relevance.defvjp(_as_relevance_forward, _as_relevance_backward)


def tap(y: Any, probe: Any, arriving: str, known: dict[str, Any]) -> Any:
    """The identity of y; the quantities that its probe asks for become the probe's cotangent.

    The probe is a dict of zeros. The cotangent under `"relevance"` and `"density"` is the quantity
    that arrives at y, under `"value"` it is y itself, and under any other word the entry of
    `known`.
    """

    @jax.custom_vjp
    def tapped(y: Any, known: dict[str, Any], probe: Any) -> Any:
        return y

    def tap_forward(y: Any, known: dict[str, Any], probe: Any) -> tuple[Any, Any]:
        return y, (y, known, probe)

    def tap_backward(kept: Any, arrived: Any) -> tuple[Any, Any, Any]:
        y, known, probe = kept
        by_density = arriving == "density"
        found = {"value": y, **known}
        if "relevance" in probe:
            found["relevance"] = times(y, arrived) if by_density else arrived
        if "density" in probe:
            found["density"] = arrived if by_density else safe_divide(arrived, y)
        brought = {
            word: jax.tree.map(
                lambda x, z: compat.typed_like(jnp.asarray(x, z.dtype), z), found[word], zeros
            )
            for word, zeros in probe.items()
        }
        return arrived, None, brought

    tapped.defvjp(tap_forward, tap_backward)
    return tapped(y, known, probe)


def masked(y: Any, mask: Any) -> Any:
    """The identity of y; the arriving quantity is multiplied by a mask."""

    @jax.custom_vjp
    def passed(y: Any, mask: Any) -> Any:
        return y

    def backward(mask: Any, arrived: Any) -> tuple[Any, Any]:
        return (arrived * mask).astype(arrived.dtype), None

    passed.defvjp(lambda y, mask: (y, mask), backward)
    return passed(y, mask)
