"""The term of a sum to which a stopped one belongs: that whose value it replaces or restores.

`x + stop_gradient(round(x) - x) + y` is `round(x) + y`: the stopped term cancels x, and replaces
it. With a stopped maximum m, `log(sum(exp(z - m))) + m + y` is `logsumexp(z) + y`: m was subtracted
within the term to which it is added. Other stopped terms belong to the sum as a whole.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from jaxlrp.graph import trees
from jaxlrp.graph.groups import Workbench
from jaxlrp.graph.ir import Eqn, Value
from jaxlrp.graph.primitives import ADDITIONS, COPIES, MOVES
from jaxlrp.graph.trees import Operand

_MOST = 100  # equations before a term that are searched
_SAME = COPIES | MOVES


def owned(
    bench: Workbench, active: list[Operand], stopped: list[Operand]
) -> dict[Value, list[int]]:
    """Positions of the stopped terms that belong to an active one; each belongs to one at most."""
    restores: dict[Operand, list[int]] = {}
    replaces: dict[Operand, list[int]] = {}
    for i, (value, sign) in enumerate(stopped):
        restores.setdefault((_stopped(bench, value), sign), []).append(i)
        for part in _parts(value, sign):
            replaces.setdefault(part, []).append(i)
    found: dict[Value, list[int]] = {}
    taken: set[int] = set()
    for value, sign in active if stopped else ():
        mine = set()
        for shifted, by in dict.fromkeys(_shifts(bench, value)):
            # One of them restores the shift; the others stand beside it.
            left = (i for i in restores.get((shifted, -by * sign), ()) if i not in taken)
            mine.update(itertools.islice(left, 1))
        cancels = replaces.get((value, -sign), [])
        mine.update(cancels)
        if cancels and all(_is_only(stopped[i][0], value) for i in cancels):
            # The replacement stands apart: `stop_gradient(round(x)) + (x - stop_gradient(x))`.
            mine.update(i for i, (v, _) in enumerate(stopped) if _is_made_from(v, value))
        if own := sorted(mine - taken):
            found[value] = own
            taken.update(own)
    return found


def _parts(value: Value, sign: int) -> list[Operand]:
    """The summands of a stopped term, each with its sign."""
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
    """The stopped value of a term, before moves and copies."""
    while (eqn := value.producer) is not None and eqn.name in _SAME:
        if eqn.inputs[0] in bench.activity.active:
            break
        value = eqn.inputs[0]
    return value


def _is_only(term: Value, value: Value) -> bool:
    """Whether a stopped term is another value, or its negative, and nothing else."""
    while term is not value and (eqn := term.producer) is not None:
        if eqn.name not in ("stop_gradient", "neg") and not trees.is_copy(eqn):
            return False
        term = eqn.inputs[0]
    return term is value


def _shifts(bench: Workbench, value: Value) -> Iterator[Operand]:
    """Stopped values that are added or subtracted on the way to a value, with their signs."""
    for eqn in _before(value):
        for v, sign in trees.terms(eqn) or () if eqn.name in ADDITIONS else ():
            if v in bench.activity.depends and v not in bench.activity.active:
                yield _stopped(bench, v), sign


def _is_made_from(value: Value, source: Value) -> bool:
    return any(source in eqn.inputs for eqn in _before(value))


def _before(value: Value) -> list[Eqn]:
    """The equations before a value, the nearest ones."""
    found: dict[Eqn, None] = {}
    queue = [value]
    for v in queue:
        eqn = v.producer
        if eqn is not None and eqn not in found and len(found) < _MOST:
            found[eqn] = None
            queue += eqn.inputs
    return list(found)
