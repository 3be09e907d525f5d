"""Which term of a sum a stopped one belongs to: that whose value it replaces or restores.

`x + stop_gradient(round(x) - x) + y` is `round(x) + y`: what is stopped cancels x, and takes its
place. `log(sum(exp(z - m))) + m + y`, m a stopped maximum, is `logsumexp(z) + y`: m was taken from
within the term that it is added to. Other stopped terms belong to the sum as a whole.
"""

from __future__ import annotations

from jaxlrp.graph import trees
from jaxlrp.graph.groups import Workbench
from jaxlrp.graph.ir import Value
from jaxlrp.graph.primitives import ADDITIONS, COPIES, MOVES
from jaxlrp.graph.trees import Operand

_MOST = 100  # equations before a term that are looked at
_SAME = COPIES | MOVES


def owned(
    bench: Workbench, active: list[Operand], stopped: list[Operand]
) -> dict[Value, list[Operand]]:
    """The stopped terms of each active one that has some; each belongs to one at most."""
    sources: dict[Value, list[Operand]] = {}
    parts: dict[Operand, list[Operand]] = {}
    for term in stopped:
        sources.setdefault(_stopped(bench, term[0]), []).append(term)
        for part in _parts(*term):
            parts.setdefault(part, []).append(term)
    found: dict[Value, list[Operand]] = {}
    taken: set[Operand] = set()
    for value, sign in active if stopped else ():
        mine = dict.fromkeys(term for v in _before(value) for term in sources.get(v, ()))
        if cancels := parts.get((value, -sign)):
            mine |= dict.fromkeys(cancels)
            mine |= dict.fromkeys(term for term in stopped if value in _before(term[0]))
        if own := [term for term in mine if term not in taken]:
            found[value] = own
            taken.update(own)
    return found


def _parts(value: Value, sign: int) -> list[Operand]:
    """What a stopped term adds up, each with its sign."""
    found, stack = [], [(value, sign)]
    while stack and len(found) < _MOST:
        v, s = stack.pop()
        eqn = v.producer
        if eqn is not None and (eqn.name in ADDITIONS or eqn.name == "neg"):
            stack += [(w, s * turn) for w, turn in trees.terms(eqn) or ()]
        elif eqn is not None and (eqn.name == "stop_gradient" or trees.is_copy(eqn)):
            stack.append((eqn.inputs[0], s))
        else:
            found.append((v, s))
            continue
        found.append((v, s))
    return found


def _stopped(bench: Workbench, value: Value) -> Value:
    """The stopped value that a term is, before moves and copies."""
    while (eqn := value.producer) is not None and eqn.name in _SAME:
        if eqn.inputs[0] in bench.activity.active:
            break
        value = eqn.inputs[0]
    return value


def _before(value: Value) -> set[Value]:
    """Values that a value is made of, the nearest ones."""
    found: set[Value] = set()
    stack = [value]
    while stack and len(found) < _MOST:
        eqn = stack.pop(0).producer
        for v in eqn.inputs if eqn is not None else ():
            if v not in found:
                found.add(v)
                stack.append(v)
    return found
