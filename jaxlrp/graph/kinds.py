"""The kinds of layers, and the traits of each."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Traits:
    """The traits of all layers of a kind.

    Attributes:
      linear: a linear map with weights of its own.
      sums: adds up its inputs, without weights.
      multiplies: several active factors.
      keeps_shares: from a share of a whole, or a gate, it makes one that still says how much of the
        other factor counts: moved, scaled, mixed, renormalised, clipped.
      hands_on: its output carries the value of its input, and computes nothing new from it.
    """

    linear: bool = False
    sums: bool = False
    multiplies: bool = False
    keeps_shares: bool = False
    hands_on: bool = False


TRAITS: dict[str, Traits] = {
    "dense": Traits(linear=True, keeps_shares=True),
    "conv": Traits(linear=True),
    "embed": Traits(linear=True),
    "matmul": Traits(multiplies=True),
    "product": Traits(multiplies=True),
    "add": Traits(sums=True, hands_on=True),
    "activation": Traits(keeps_shares=True),
    "softmax": Traits(),
    "norm": Traits(keeps_shares=True, hands_on=True),
    "affine": Traits(linear=True, keeps_shares=True, hands_on=True),
    "avg_pool": Traits(sums=True, keeps_shares=True, hands_on=True),
    "max_pool": Traits(),
    "reduce": Traits(sums=True, keeps_shares=True, hands_on=True),
    "structural": Traits(sums=True, keeps_shares=True, hands_on=True),
}
KINDS = tuple(TRAITS)


def kinds_that(trait: str) -> frozenset[str]:
    """The kinds that have a trait."""
    return frozenset(kind for kind, traits in TRAITS.items() if getattr(traits, trait))


def keeps_shares(*kinds: str) -> bool:
    """Whether layers of these kinds, one after the other, turn a share into a share.

    A mix may be negative; if an activation clips it, it no longer says how much counts.
    """
    if not all(kind in TRAITS and TRAITS[kind].keeps_shares for kind in kinds):
        return False
    return "dense" not in kinds or "activation" not in kinds[kinds.index("dense") :]


def is_product(kind: str) -> bool:
    """Whether layers of a kind multiply active factors."""
    return kind in TRAITS and TRAITS[kind].multiplies
