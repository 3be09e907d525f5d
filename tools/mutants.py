"""Breaks the library on purpose, one place at a time: which breaks do the tests see?

    python tools/mutants.py                   all of them
    python tools/mutants.py --only axes norm  those whose file or name holds a word
    python tools/mutants.py --by              and the test that saw each

The list is in `tools/mutant_list.py`. Each mutant is a replacement of text in a copy of the
repository; the test named with it runs there. One that changes no number (a fact that is only
weaker) says so under `harmless`, and is expected to survive. Exit status 1 if another one
survives, or if its text is not there any more.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from mutant_list import MUTANTS, Mutant

ROOT = Path(__file__).resolve().parents[1]
BASE = ("-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist")
PATIENCE = 300  # seconds


def run(mutant: Mutant, where: Path) -> tuple[str, float, str]:
    """caught, survived, or missing (the text to replace); the seconds; the test that failed."""
    path = where / "jaxlrp" / mutant.file
    if not path.exists() or mutant.old not in path.read_text():
        return "missing", 0.0, ""
    whole = path.read_text()
    path.write_text(whole.replace(mutant.old, mutant.new, 1))
    start = time.perf_counter()
    command = [sys.executable, "-m", "pytest", *BASE, f"tests/{mutant.tests}"]
    environment = {**os.environ, "PYTHONPATH": str(where), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            command,
            cwd=where,
            env=environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        verdict = {0: "survived", 1: "caught"}.get(done.returncode, "broken run")
        failed = re.search(r"^FAILED (.+)", done.stdout, re.MULTILINE)
        by = failed.group(1) if failed else ""
    except subprocess.TimeoutExpired:
        verdict, by = "too long", ""
    finally:
        path.write_text(whole)
    return verdict, time.perf_counter() - start, by


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", default=[], help="words of the mutants' names")
    parser.add_argument("--by", action="store_true", help="which test saw it, and how")
    options = parser.parse_args()
    chosen = [m for m in MUTANTS if not options.only or any(w in m.name for w in options.only)]
    start, counts = time.perf_counter(), Counter()
    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder) / "jaxlrp"
        ignored = shutil.ignore_patterns(
            ".git", ".venv*", "out", "__pycache__", "benchmarks", "site"
        )
        shutil.copytree(ROOT, where, ignore=ignored)
        for mutant in chosen:
            verdict, seconds, by = run(mutant, where)
            if verdict == "survived" and mutant.harmless:
                verdict, by = "harmless", mutant.harmless
            counts[verdict] += 1
            shown = by if options.by or verdict == "harmless" else ""
            print(f"{verdict:10s} {seconds:5.0f} s  {mutant.name}  {shown}".rstrip(), flush=True)
    found = ", ".join(f"{n} {verdict}" for verdict, n in counts.items())
    print(f"{len(chosen)} mutants: {found}; {time.perf_counter() - start:.0f} s")
    return int(counts["caught"] + counts["harmless"] < len(chosen))


if __name__ == "__main__":
    sys.exit(main())
