"""Random programs in two spellings: does the relevance depend on how a function is written?

    make fuzz ARGS="--seed 1 --count 3000"

A run can be stopped and goes on where it stood (the state is a file under out/). A program that
fails is made smaller and printed as Python. The last line is the verdict, the exit status 1 if
anything failed or too much was drawn again.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax

jax.config.update("jax_enable_x64", True)
warnings.simplefilter("ignore")

from tests import fuzzing  # noqa: E402
from tests.random_programs import RULES  # noqa: E402

ATTEMPTS = 8  # programs drawn for one case before it is left out
MOST_REDRAWN = 0.1


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=200, help="cases, rule maps in turn")
    parser.add_argument("--shrink", type=int, default=60, help="trials to make a failure smaller")
    parser.add_argument("--only", type=int, help="one case by its number, whatever the state")
    parser.add_argument("--fresh", action="store_true", help="forget the state of this seed")
    parser.add_argument("--out", type=Path, default=Path("out"))
    return parser.parse_args()


def case(seed: int, number: int) -> tuple[fuzzing.Case, fuzzing.Outcome, list[str]]:
    """The first program of a case that is not to be drawn again, and why others were."""
    again = []
    for attempt in range(ATTEMPTS):
        drawn = fuzzing.draw(seed, number, attempt)
        outcome = fuzzing.run(drawn)
        if not outcome.redrawn:
            break
        again.append(outcome.verdict)
    return drawn, outcome, again


def fresh() -> dict[str, Any]:
    return {"next": 0, "seconds": 0.0, "verdicts": {}, "redrawn": {}, "maps": {}, "failures": []}


def count(state: dict[str, Any], what: str, name: str) -> None:
    state[what][name] = state[what].get(name, 0) + 1


def step(state: dict[str, Any], seed: int, number: int, shrink: int) -> None:
    start = time.perf_counter()
    drawn, outcome, again = case(seed, number)
    for why in again:
        count(state, "redrawn", why)
    enter(state, number, drawn, outcome, shrink)
    if not outcome.redrawn:
        # Odd cases meet a second rule map, even ones are run in float32 too.
        if number % 2:
            other = fuzzing.under(drawn, RULES[number // 2 % len(RULES)])
            if other.chain:
                enter(state, number, other, fuzzing.run(other), shrink)
        elif not outcome.failed:
            single = fuzzing.in_float32(drawn)
            count(state, "verdicts", f"float32: {single.verdict}")
            if single.failed:
                enter_failure(state, number, drawn, (), single)
    state["seconds"] += time.perf_counter() - start
    state["next"] = number + 1


def enter(
    state: dict[str, Any], number: int, drawn: fuzzing.Case, outcome: fuzzing.Outcome, shrink: int
) -> None:
    count(state, "verdicts", outcome.verdict)
    if not outcome.redrawn:
        count(state, "maps", drawn.rules)
    if outcome.referenced:
        count(state, "verdicts", "compared with the reference")
    if outcome.failed:
        chain, outcome = fuzzing.shrunk(drawn, shrink)
        enter_failure(state, number, drawn, chain, outcome)


def enter_failure(
    state: dict[str, Any],
    number: int,
    drawn: fuzzing.Case,
    chain: fuzzing.Chain,
    outcome: fuzzing.Outcome,
) -> None:
    report = fuzzing.report(drawn, chain, outcome)
    print(f"\n##### case {number}\n{report}", flush=True)
    # What differs from the reference, or in float32, does so in any spelling.
    alone = outcome.verdict.split(":")[0]
    names = [alone] if alone in ("reference", "float32") else [name for name, _ in chain]
    entry = {"case": number, "rules": drawn.rules, "chain": names, "report": report}
    state["failures"].append(entry)


def summary(state: dict[str, Any]) -> bool:
    met = Counter({rules: state["maps"].get(rules, 0) for rules in RULES})
    print("\nprograms under each rule map:")
    for rules, n in met.most_common():
        print(f"{n:6d}  {rules}")
    for verdict, n in sorted(state["verdicts"].items()):
        print(f"{n:6d}  {verdict}")
    redrawn = sum(state["redrawn"].values())
    drawn = redrawn + sum(state["maps"].values())
    share = redrawn / max(drawn, 1)
    why = ", ".join(f"{n} {w.removeprefix('redrawn: ')}" for w, n in state["redrawn"].items())
    for name, why in fuzzing.KNOWN.items():
        print(f"left out: {name} ({why})")
    print(f"drawn again: {redrawn} of {drawn} ({share:.1%}){': ' if why else ''}{why}")
    failures = Counter(
        name for f in state["failures"] for name in (f["chain"] if len(f["chain"]) == 1 else ())
    )
    if failures:
        print("failed alone:", ", ".join(f"{k} {n}" for k, n in failures.most_common()))
    clean = not state["failures"] and share < MOST_REDRAWN
    hours = state["seconds"] / 3600
    print(
        f"{'CLEAN' if clean else 'NOT CLEAN'}: {state['next']} cases, "
        f"{len(state['failures'])} failed, least {min(met.values())} programs a rule map, "
        f"{share:.1%} drawn again, {hours:.2f} hours"
    )
    return clean


def main() -> int:
    options = arguments()
    if options.only is not None:
        state = fresh()
        step(state, options.seed, options.only, options.shrink)
        print("verdict:", state["verdicts"])
        return int(bool(state["failures"]))
    gc.set_threshold(100_000)  # tracing makes many small objects that stay
    options.out.mkdir(exist_ok=True)
    path = options.out / f"fuzz-{options.seed}.json"
    state = fresh()
    if path.exists() and not options.fresh:
        state = json.loads(path.read_text())
        print(f"going on with {path} at case {state['next']}")
    for number in range(state["next"], options.count):
        step(state, options.seed, number, options.shrink)
        path.with_suffix(".new").write_text(json.dumps(state, indent=1))
        path.with_suffix(".new").replace(path)
        if number % 50 == 49:
            jax.clear_caches()
            print(f"{number + 1} cases, {len(state['failures'])} failed", flush=True)
    return 0 if summary(state) else 1


if __name__ == "__main__":
    sys.exit(main())
