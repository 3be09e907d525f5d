"""A tie: a value as the network computes it, and the same in another order of operations.

Forward it is the network's own value, to the last bit. Its derivative, and relevance, go to the
other one alone, in which the order is the one that recognition looks for.
"""

from __future__ import annotations

from typing import Any

import jax

from jaxlrp.graph.ir import Eqn, Value


@jax.custom_jvp
def _tied(ordered: Any, own: Any) -> Any:
    return own


@_tied.defjvp
def _(primals: tuple[Any, Any], tangents: tuple[Any, Any]) -> tuple[Any, Any]:
    return _tied(*primals), tangents[0]


class _Tie:
    """What an equation asks of a primitive."""

    name = "tie"
    multiple_results = False

    @staticmethod
    def get_bind_params(params: dict[str, Any]) -> dict[str, Any]:
        return params

    @staticmethod
    def bind(ordered: Any, own: Any) -> Any:
        return _tied(ordered, own)


_PRIMITIVE = _Tie()
_PARAMS: dict[str, Any] = {}  # one for all: repeated calls are compared by it


def tie(ordered: Value, own: Eqn) -> Eqn:
    """An equation after `own` that makes its output; `own` makes another value from now on."""
    out = own.out
    value = Value(out.aval, own)
    own.outputs = [value]
    place = own.scope, own.source_info, own.region
    eqn = Eqn(_PRIMITIVE, _PARAMS, [ordered, value], [out], *place)
    out.producer, out.index = eqn, 0
    return eqn
