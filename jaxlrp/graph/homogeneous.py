"""Properties of a function of one value, from a few of its points."""

from __future__ import annotations

import math
from collections.abc import Sequence

from jaxlrp.graph.groups import Workbench
from jaxlrp.graph.ir import Eqn, Value
from jaxlrp.graph.primitives import ADDITIONS, COMPARISONS, COPIES, rounds

_FAR = (30.0, 1e4)  # here activations are the identity, or 1, up to rounding
_EITHER = ADDITIONS | {"max", "min"}


def is_homogeneous(bench: Workbench, eqns: Sequence[Eqn], source: Value, output: Value) -> bool:
    """Whether f(c x) = c f(x) for every c > 0, by the equations of f.

    Each value has a degree: 1 if it grows with c, 0 if it stays the same; a zero has any (None).
    """
    degrees: dict[Value, int | None] = {source: 1}

    def degree(value: Value) -> int | None:
        if value in degrees:
            return degrees[value]
        return None if bench.intervals.constant(value) == 0.0 else 0

    for eqn in eqns:
        if len(eqn.outputs) != 1 or any(v not in degrees and _varies(bench, v) for v in eqn.inputs):
            return False
        found = [degree(v) for v in eqn.inputs]
        if eqn.name in COMPARISONS:
            if len(set(found) - {None}) > 1:
                return False
            degrees[eqn.out] = 0
        elif eqn.name in COPIES and (found[0] in (0, None) or not rounds(eqn)):
            degrees[eqn.out] = found[0]  # a number that is rounded is still a number
        elif eqn.name in ("neg", "abs"):
            degrees[eqn.out] = found[0]
        elif eqn.name == "sign":
            degrees[eqn.out] = 0
        elif eqn.name in ("mul", "div"):
            first, second = found
            if eqn.name == "div" and second is None:
                return False
            if first is None or second is None:
                degrees[eqn.out] = None
            else:
                degrees[eqn.out] = first + second if eqn.name == "mul" else first - second
        elif eqn.name in _EITHER or eqn.name == "select_n":
            if eqn.name == "select_n" and found[0] == 1:
                return False
            several = set(found[1:] if eqn.name == "select_n" else found) - {None}
            if len(several) > 1:
                return False
            degrees[eqn.out] = several.pop() if several else None
        else:
            return False
    return degrees.get(output) == 1


def _varies(bench: Workbench, value: Value) -> bool:
    """Whether a value from outside is not a written number."""
    return bench.intervals.constant(value) is None


def is_complete(bench: Workbench, eqns: Sequence[Eqn], source: Value, output: Value) -> bool:
    """Whether an activation has its usual sign and scale, unlike 2 * relu(h)."""
    for far in _FAR:
        bounds = bench.intervals.image(eqns, source, (far, far), output)
        if any(all(math.isclose(b, y, rel_tol=1e-6) for b in bounds) for y in (far, 1.0)):
            return True
    return False
