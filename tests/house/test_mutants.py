"""The list of mutants names places and tests that are there; `tools/mutants.py` runs them."""

import runpy
from pathlib import Path

ROOT = Path(__file__).parents[2]
MUTANTS = runpy.run_path(str(ROOT / "tools" / "mutant_list.py"))["MUTANTS"]


def test_places_and_tests_are_there():
    text = {p: p.read_text() for p in (*ROOT.glob("jaxlrp/**/*.py"), *ROOT.glob("tests/**/*.py"))}
    gone = [m.name for m in MUTANTS if m.old not in text.get(ROOT / "jaxlrp" / m.file, "")]
    for mutant in MUTANTS:
        file, _, test = mutant.tests.partition("::")
        name = test.partition("[")[0].rpartition("::")[2]
        definitions = (f"def {name}(", f"class {name}:") if name else ("def test_",)
        if not any(d in text.get(ROOT / "tests" / file, "") for d in definitions):
            gone.append(mutant.tests)
    assert len(MUTANTS) > 100 and not gone
