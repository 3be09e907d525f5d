"""One case: a random program under one rule map, and the same program in another spelling.

A case is plain data (a seed, a rule map as text, the names and places of rewrites), so that it can
be run again, made smaller and printed.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

import jaxlrp as lrp
from tests import numpy_jaxpr, rewrites
from tests import random_programs as draws
from tests.layer_reference import ACTIVATIONS, relevance
from tests.program_layers import layers_of, reference_rules
from tests.programs import Program, script

TOLERANCE = 1e-9  # of the largest relevance
SENSITIVE = 1e-10  # what one unit in the last place of the input may change
SINGLE = 1e-4  # how far relevance in float32 may be from that in float64
ENORMOUS = 1e8  # relevance in units of the output: shares too large for float32
OVERFLOWS = 300.0  # of an argument of exp
UNITS = 50  # or how often what a unit in the last place of float32 changes

# No case is drawn with one of these.
KNOWN = rewrites.KNOWN

Chain = tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Case:
    seed: int
    rules: str
    chain: Chain


@dataclass(frozen=True, eq=False)
class Outcome:
    """What came of a case.

    `verdict` is same, differs, error, refused (both spellings, alike), value, reference (another
    relevance than that of the slow reference), float32 (another relevance there), or why it was
    redrawn.
    """

    verdict: str
    one: Program
    other: Program | None = None
    distance: float = 0.0
    detail: str = ""
    referenced: bool = False  # compared with the reference too

    @property
    def failed(self) -> bool:
        return self.verdict.split(":")[0] in (
            "differs",
            "error",
            "value",
            "reference",
            "float32",
        )

    @property
    def redrawn(self) -> bool:
        return self.verdict.startswith("redrawn")


def draw(run: int, number: int, attempt: int = 0) -> Case:
    """Case `number` of a run: rule maps in turn, a program, one to four rewrites of it."""
    rng = random.Random(f"{run}/{number}/{attempt}")
    rules = draws.RULES[number % len(draws.RULES)]
    seed = rng.randrange(2**31)
    program, chain = draws.program(seed), []
    for name in rng.choices(rewrites.NAMES, k=80):
        place = rng.randrange(2**31)
        if name in KNOWN or not draws.fits(name, rules):
            continue
        if any(name in pair and pair & {n for n, _ in chain} - {name} for pair in rewrites.APART):
            continue
        written = rewrites.apply(program, name, place)
        if written is not None:
            program = written
            chain.append((name, place))
            if len(chain) == 1 + number % 4 or name in rewrites.LAST:
                break
    return Case(seed, rules, tuple(chain))


def under(case: Case, rules: str) -> Case:
    """The same program and rewrites, as far as they fit, under another rule map."""
    return Case(case.seed, rules, tuple(c for c in case.chain if draws.fits(c[0], rules)))


def rewritten(program: Program, chain: Chain) -> Program | None:
    for name, place in chain:
        program = rewrites.apply(program, name, place)
        if program is None:
            return None
    return program


def value_of(program: Program) -> np.ndarray:
    return flat(numpy_jaxpr.run(program.build(), program.x, program.passed))


def flat(outputs: np.ndarray | tuple[np.ndarray, ...]) -> np.ndarray:
    """All outputs in a row, each in units of its own size."""
    if not isinstance(outputs, tuple):
        return outputs
    if len(outputs) == 1:
        return outputs[0]
    sizes = [np.abs(v).max(initial=0.0) or 1.0 for v in outputs]
    return np.concatenate([v.reshape(-1) / size for v, size in zip(outputs, sizes)])


def explained(program: Program, rules: str) -> tuple[np.ndarray, np.ndarray] | str:
    """Value and relevance, or the error as text."""
    both = lrp.value_and_relevance(program.build(), draws.rule_map(rules))
    try:
        value, relevance = numpy_jaxpr.run(both, program.x, program.passed)
        return flat(value), relevance
    except Exception as e:  # any error at all is a finding
        return f"{type(e).__name__}: {str(e)[:300]}"


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """The largest difference, in units of the largest relevance."""
    scale = np.abs(a).max(initial=0.0)
    gap = np.abs(a - b).max(initial=0.0)
    if not np.isfinite(gap):
        return float("inf")
    return float(gap / scale) if scale else float(gap)


def is_steady(relevance: np.ndarray) -> bool:
    """Whether the two halves of the batch, a unit in the last place apart, are explained alike."""
    half = len(relevance) // 2
    if not np.isfinite(relevance).all() or not np.abs(relevance).max(initial=0.0):
        return False
    return distance(relevance[:half], relevance[half:]) <= SENSITIVE


def compare(one: Program, other: Program, rules: str) -> Outcome:
    if draws.ties(one):
        return Outcome("redrawn: ties", one, other)
    if draws.adds_sum_of_same(one) or draws.adds_sum_of_same(other):
        return Outcome("redrawn: a sum within a sum", one, other)
    a = explained(one, rules)
    if not isinstance(a, str) and not is_steady(a[1]):
        return Outcome("redrawn: sensitive", one, other)
    b = explained(other, rules)
    if isinstance(a, str) or isinstance(b, str):
        kinds = [r.split(":")[0] if isinstance(r, str) else "" for r in (a, b)]
        verdict = "refused" if kinds[0] == kinds[1] == "UnsupportedPrimitiveError" else "error"
        verdict += f": {kinds[0] or kinds[1]}"
        return Outcome(verdict, one, other, detail=a if isinstance(a, str) else b)
    if distance(a[0], b[0]) > TOLERANCE:
        if distance(value_of(one), value_of(other)) > TOLERANCE:
            return Outcome("value: the rewrite changes the function", one, other)
        return Outcome("value: the plan changes the function", one, other)
    gap = distance(a[1], b[1])
    verdict = "same" if gap <= TOLERANCE else "differs"
    expected = reference(one, rules) if verdict == "same" else None
    if expected is not None:
        gap = distance(expected, a[1])
        verdict = "same" if gap <= TOLERANCE else "reference"
    if verdict != "same" and (_saturates(one) or _saturates(other)):
        verdict = "redrawn: an activation loses digits"
    if verdict != "same" and draws.at_a_kink(one):
        verdict = "redrawn: a rounded number at a kink"
    if verdict == "reference" and draws.cancels(one):  # 0 / 0, where a density passes on
        verdict = "redrawn: the terms of a sum cancel"
    return Outcome(verdict, one, other, gap, referenced=expected is not None)


def _saturates(one: Program) -> bool:
    """Whether an activation, as it is written, is inexact by itself.

    Far below 0, 1 + erf(x) is 0, and the relevance of such a unit is lost or not by its spelling;
    an `exp` that overflows has no derivative.
    """
    values = one.values()
    for node in one.nodes:
        if node.op not in ACTIVATIONS or node.body or len(node.args) != 1:
            continue
        given = np.asarray(values[node.args[0]])
        if "exp(" in node.text and np.abs(given).max() > OVERFLOWS:
            return True
        exact = ACTIVATIONS[node.op][0](given)
        gap = np.abs(np.asarray(values[node.name]) - exact)
        if (gap > TOLERANCE * np.abs(exact)).any():
            return True
    return False


def reference(one: Program, rules: str) -> np.ndarray | None:
    """The relevance of a feed-forward program, contribution by contribution; None for others."""
    found, named = layers_of(one), reference_rules(rules)
    if found is None or named is None:
        return None
    if any(n.op == "straight_through" for n in one.nodes) and not draws.fits(
        "straight_through: ", rules
    ):
        return None  # a rounding has the derivative 0, and here 1
    layers, outputs = found
    rows = [relevance(layers, row.reshape(-1), *named, outputs=outputs) for row in one.x]
    return np.stack(rows).reshape(one.x.shape)


def run(case: Case) -> Outcome:
    one = draws.program(case.seed)
    if not case.chain:
        return Outcome("redrawn: nothing to rewrite", one)
    other = rewritten(one, case.chain)
    assert other is not None
    return compare(one, other, case.rules)


def in_float32(case: Case) -> Outcome:
    """Whether relevance in float32 is that of float64, as far as rounded numbers can tell."""
    one = draws.program(case.seed)
    a, b = explained(one, case.rules), explained(_cast(one), case.rules)
    if isinstance(a, str) or isinstance(b, str):
        kinds = [r.split(":")[0] if isinstance(r, str) else "" for r in (a, b)]
        return Outcome("refused" if kinds[0] == kinds[1] else "float32: error", one, detail=str(b))
    # As where a spectrum of rounded numbers is 0 but for the last digit, and its square is shared.
    enormous = np.abs(a[1]).max() > ENORMOUS * np.abs(a[0]).max()
    if enormous or draws.ties(one) or draws.cancels(one) or not is_steady(a[1]):
        return Outcome("redrawn: sensitive", one)
    gap = distance(a[1], b[1].astype(np.float64))
    if gap <= SINGLE:
        return Outcome("same", one, distance=gap)
    if _loses_digits(one):
        return Outcome("redrawn: an activation loses digits", one)
    moved = [explained(_shaken(one, number), case.rules) for number in range(4)]
    spread = max(distance(a[1], m[1]) for m in moved if not isinstance(m, str))
    return Outcome("same" if gap <= UNITS * spread else "float32", one, distance=gap)


def _loses_digits(one: Program) -> bool:
    """Whether an activation, as it is written, is inexact in float32 by itself.

    1 - 2 / (exp(2x) + 1) has the error of numbers near 1, however small tanh(x) is: the function
    has lost the digits before anything is explained.
    """
    values = _cast(one).values()
    for node in one.nodes:
        if node.op not in ACTIVATIONS or node.body:
            continue
        read = {name: np.asarray(values[name]) for name in node.args}
        exact = {name: array.astype(np.float64) for name, array in read.items()}
        single, double = (
            np.asarray(value_of(Program((node,), node.name, one.x, arrays)), np.float64)
            for arrays in (read, exact)
        )
        gap = np.abs(single - double)
        if not (gap <= UNITS * 2.0**-23 * np.abs(double)).all():  # or inf / inf
            return True
    return False


def _cast(one: Program) -> Program:
    def cast(array: np.ndarray) -> np.ndarray:
        return array.astype(np.float32) if array.dtype == np.float64 else array

    arrays = {name: cast(array) for name, array in one.arrays.items()}
    return dataclasses.replace(one, x=cast(one.x), arrays=arrays)


def _shaken(one: Program, number: int) -> Program:
    """The program with all its numbers moved by about one unit in the last place of float32."""
    draw = np.random.default_rng(number)

    def shaken(array: np.ndarray) -> np.ndarray:
        if array.dtype != np.float64:
            return array
        return array * (1 + 2.0**-23 * draw.uniform(-1, 1, array.shape))

    arrays = {name: shaken(array) for name, array in one.arrays.items()}
    return dataclasses.replace(one, x=shaken(one.x), arrays=arrays)


def smaller(one: Program) -> Iterable[Program]:
    """Programs with a part dropped, the largest parts first."""
    for number in range(len(one.also)):
        yield dataclasses.replace(one, also=one.also[:number] + one.also[number + 1 :]).pruned()
    for node in one.nodes[:-1]:
        if node.name in one.active and node.name not in one.outputs:
            yield dataclasses.replace(one, output=node.name).pruned()
    for node in one.nodes:
        for arg in node.args:
            if arg in one.active and one.shapes[arg] == one.shapes[node.name]:
                yield draws.without(one, node.name, arg)
    for node in one.nodes:
        if node.name in one.active and one.shapes[node.name] == one.x.shape:
            yield draws.without(one, node.name, "x")


def shrunk(case: Case, budget: int = 60) -> tuple[Chain, Outcome]:
    """A smaller program and chain that fail in the same way."""
    one = draws.program(case.seed)
    chain, found = case.chain, run(case)
    tries = 0

    def fails(one: Program, chain: Chain) -> Outcome | None:
        nonlocal tries
        tries += 1
        try:
            other = rewritten(one, chain)
            if other is None or tries > budget:
                return None
            outcome = compare(one, other, case.rules)
        except Exception:  # a part dropped too much
            return None
        alike = outcome.failed and outcome.verdict == found.verdict
        return outcome if alike else None

    again = True
    while again and tries <= budget:
        again = False
        for position in range(len(chain)):
            fewer = chain[:position] + chain[position + 1 :]
            if fewer and (outcome := fails(one, fewer)):
                chain, found, again = fewer, outcome, True
                break
        for program in smaller(one):
            # Where a rewrite lands depends on the program: other places are tried too.
            for shift in range(3):
                moved = tuple((name, place + shift) for name, place in chain)
                if outcome := fails(program, moved):
                    one, chain, found, again = program, moved, outcome, True
                    break
            if again:
                break
    return chain, found


def report(case: Case, chain: Chain, outcome: Outcome) -> str:
    """A runnable text with both spellings, and what came of them."""
    names = ", ".join(name for name, _ in chain)
    head = f"# {outcome.verdict}, {outcome.distance:.2e} of the largest; {names}; {case.rules}\n"
    head += f"# {outcome.detail}\n" if outcome.detail else ""
    return head + script(outcome.one, outcome.other, case.rules)
