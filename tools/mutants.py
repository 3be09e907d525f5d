"""Breaks the library on purpose, one place at a time: which breaks do the tests see?

    python tools/mutants.py                   all of them
    python tools/mutants.py --only axes norm  those whose file or name holds a word

Each mutant is a replacement of text in a copy of the repository; the tests named with it run
there. One that changes no number (a fact that is only weaker) says so under `harmless`, and is
expected to survive. Exit status 1 if another one survives, or if its text is not there any more.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FACTS = "tests/test_facts_are_sound.py"
REWRITES = "tests/test_rewrites.py"
LAYERS = "tests/test_layer_reference.py"
RECOGNITION = "tests/test_recognition.py"
# Tests marked as failing today would hide a mutant: what is looked at passes without it.
BASE = ("-q", "-x", "-p", "no:cacheprovider")


@dataclass(frozen=True)
class Mutant:
    file: str  # under jaxlrp/
    old: str
    new: str
    tests: tuple[str, ...]
    harmless: str = ""  # why no number changes

    @property
    def name(self) -> str:
        return f"{self.file}: {' '.join(self.old.split())[:60]}"


MUTANTS: tuple[Mutant, ...] = (
    # Bounds.
    Mutant("graph/intervals.py", '"abs": _even(abs)', '"abs": _monotone(abs)', (FACTS,)),
    Mutant(
        "graph/intervals.py",
        "_plus(a[0], -b[1], -math.inf), _plus(a[1], -b[0], math.inf)",
        "_plus(a[0], -b[0], -math.inf), _plus(a[1], -b[1], math.inf)",
        (FACTS,),
    ),
    Mutant(
        "graph/intervals.py",
        'above = (name in ("gt", "ge")) == taken',
        'above = (name in ("gt", "ge")) != taken',
        (FACTS,),
    ),
    Mutant(
        "graph/intervals.py",
        "return POSITIVE if bounds[0][0] >= 0 else EVERYTHING",
        "return POSITIVE",
        (FACTS,),
    ),
    Mutant(
        "graph/intervals.py",
        "max(bounds[0][0], bounds[1][0]), max(bounds[0][1], bounds[1][1])",
        "max(bounds[0][0], bounds[1][0]), bounds[1][1]",
        (FACTS,),
    ),
    Mutant(
        "graph/intervals.py",
        "return _hull([bounds[0], bounds[2]])",
        "return bounds[0]",
        (FACTS,),
    ),
    Mutant(
        "graph/intervals.py", '"tanh": _monotone(math.tanh)', '"tanh": lambda a: UNIT', (FACTS,)
    ),
    Mutant(
        "graph/intervals.py",
        "products = [_times(x, y) for x in a for y in b]",
        "products = [_times(x, y) for x, y in zip(a, b)]",
        (FACTS,),
    ),
    # Axes.
    Mutant(
        "graph/axes.py",
        "return frozenset(dims[i] for i in inner if eqn.inputs[0].shape[i] != 1) & wide",
        "return frozenset()",
        (FACTS,),
    ),
    Mutant(
        "graph/axes.py",
        "return frozenset().union(*map(self.varying_axes, same_rank)) & wide",
        "return self.varying_axes(same_rank[0]) & wide if same_rank else frozenset()",
        (FACTS,),
    ),
    # Norms.
    Mutant(
        "graph/norm.py",
        'if any(e.name == "dot_general" and not _is_reduction(bench, e) for e in eqns):',
        "if False:",
        (LAYERS, REWRITES, RECOGNITION),
    ),
    Mutant(
        "graph/norm.py",
        "if v is source:\n            return None",
        "if False:\n            return None",
        (LAYERS, REWRITES, RECOGNITION),
    ),
    Mutant(
        "graph/norm.py",
        "return eqns if thin.size < scaled.size else None",
        "return eqns",
        (LAYERS, REWRITES, RECOGNITION),
    ),
    # Linear layers, activations and gates.
    Mutant(
        "graph/linear.py",
        "return None  # the active operand is broadcast",
        "pass  # the active operand is broadcast",
        (LAYERS, REWRITES, RECOGNITION),
    ),
    Mutant(
        "graph/linear.py",
        "if scale.ndim == start.ndim and not bench.statics.varying_axes(scale) <= features:",
        "if False:",
        (LAYERS, REWRITES, RECOGNITION),
    ),
    Mutant(
        "graph/activation.py",
        "if last.name in ADDITIONS and source in last.inputs:",
        "if False:",
        (LAYERS, REWRITES, RECOGNITION),
    ),
    Mutant(
        "graph/activation.py",
        "if affine_operand(bench, last) is not None and not _literal(bench, last):",
        "if False:",
        (LAYERS, REWRITES, RECOGNITION),
    ),
    Mutant(
        "graph/gates.py",
        "return low >= UNIT[0] and high <= UNIT[1]",
        "return low >= UNIT[0]",
        (LAYERS, REWRITES, RECOGNITION),
    ),
    # The mathematics.
    Mutant(
        "rules/positive.py",
        "p = layer.map(positive=1)(layer.x)",
        "p = layer.map(signed=1)(layer.x)",
        (LAYERS,),
    ),
    Mutant(
        "rules/base.py", 'return 0.0 if self.bias == "ignore" else bias', "return bias", (LAYERS,)
    ),
)


def run(mutant: Mutant, where: Path) -> tuple[str, float]:
    """caught, survived, or missing (the text to replace), and the seconds that it took."""
    path = where / "jaxlrp" / mutant.file
    if not path.exists() or mutant.old not in path.read_text():
        return "missing", 0.0
    whole = path.read_text()
    path.write_text(whole.replace(mutant.old, mutant.new, 1))
    start = time.perf_counter()
    try:
        command = [sys.executable, "-m", "pytest", *BASE, *mutant.tests]
        environment = {**os.environ, "PYTHONPATH": str(where), "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(command, cwd=where, env=environment, capture_output=True, check=False)
    finally:
        path.write_text(whole)
    verdict = {0: "survived", 1: "caught", 2: "caught"}.get(done.returncode, "broken run")
    return verdict, time.perf_counter() - start


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", default=[], help="words of the mutants' names")
    options = parser.parse_args()
    chosen = [m for m in MUTANTS if not options.only or any(w in m.name for w in options.only)]
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder) / "jaxlrp"
        ignored = shutil.ignore_patterns(
            ".git", ".venv*", "out", "__pycache__", "benchmarks", "site"
        )
        shutil.copytree(ROOT, where, ignore=ignored)
        for mutant in chosen:
            verdict, seconds = run(mutant, where)
            fine = verdict == "caught" or (verdict == "survived" and mutant.harmless)
            wrong += not fine
            note = f"  ({mutant.harmless})" if mutant.harmless else ""
            print(f"{verdict:10s} {seconds:5.0f} s  {mutant.name}{note}", flush=True)
    print(f"{len(chosen) - wrong} of {len(chosen)} mutants as they should be")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
