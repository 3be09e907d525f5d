"""Tables made of the results in `benchmarks/README.md`.

They are the table at its head, and that of the companion methods in `docs/methods/cost.md`.

python tools/benchmark_summary.py           # writes the tables
python tools/benchmark_summary.py --check   # fails if one is stale
"""

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "README.md"
METHODS = "Companion methods"
PLACE = r"(<!-- {0}: .*? -->\n\n)(.*?)(?=\n<!-- end of the {0} -->)"

MAIN = "Results"
LOOPS = "Loops and repeated calls"
LLAMA = "Seven billion parameters on eight devices"
GAMMA, ALPHA_BETA = "epsilon_gamma_box", "epsilon_alpha2_beta1"
ROWS = [  # how a row is called, the section and the row that have its numbers, and the rules
    ("VGG16, batch 2", MAIN, "vgg16, 2", ["epsilon", "epsilon_plus_flat"]),
    (
        "ResNet50, batch 2",
        MAIN,
        "resnet50, 2",
        ["epsilon", "epsilon_plus_flat", GAMMA, ALPHA_BETA],
    ),
    ("ResNet50, batch 8", MAIN, "resnet50, 8", [ALPHA_BETA]),
    ("12 dense layers, batch 256", MAIN, "mlp, 256", ["epsilon", "zplus"]),
    ("ViT-B/16, batch 2", MAIN, "vit, 2", ["attn_lrp", "cp_lrp"]),
    ("BERT-base, batch 2", MAIN, "bert, 2", ["attn_lrp", "cp_lrp"]),
    ("LSTM, 64 steps", LOOPS, "lstm", ["lstm_lrp_all"]),
    ("Mamba's scan", LOOPS, "mamba_scan", ["mamba_lrp"]),
    ("LLaMA, 7 billion parameters", LLAMA, "attn_lrp", [""]),
]
TIME, MEMORY, BUILD = ["run"], ["memory", "times the gradient's"], ["build", "trace"]


def results_of(text: str) -> dict[tuple[str, str, str], dict[str, str]]:
    """The cells of each row, by its section, network and rules."""
    found = {}
    for section in re.split(r"^#{2,} ", text, flags=re.MULTILINE)[1:]:
        title = section.split("\n", 1)[0]
        for head, *rows in _tables(section):
            network = ""
            for row in rows[1:]:
                network = row[0].split(" (")[0] or network
                cells = dict(zip(head, row, strict=True))
                found.setdefault((title, network, cells.get("rules", "")), cells)
    return found


def _tables(text: str) -> Iterator[list[list[str]]]:
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        yield [[cell.strip() for cell in row[1:-1].split("|")] for row in table.split("\n") if row]


def summary(text: str) -> str:
    found = results_of(text)
    lines = [
        "| network | rules | time | memory | trace and compilation |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    for name, title, row, several in ROWS:
        link = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        for n, rules in enumerate(several):
            cells = found[title, row, rules]
            first = f"[{name}](#{link})" if name and n == 0 else ""
            numbers = [_number(cells, names) for names in (TIME, MEMORY, BUILD)]
            lines.append(f"| {' | '.join([first, f'`{rules or row}`', *numbers])} |")
    return "\n".join(lines) + "\n"


def _number(cells: dict[str, str], names: list[str]) -> str:
    """The number of the first of these columns that the table has, without what is said of it."""
    return next((cells[name].split()[0] for name in names if cells.get(name)), "")


def methods(text: str) -> str:
    """The table of the companion methods, as it is."""
    section = text.split(f"\n## {METHODS}\n")[1]
    found = re.search(r"(?:^\|.*\n)+", section, re.MULTILINE)
    assert found, "which the section has"
    return found[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing, fail if stale")
    check = parser.parse_args().check
    results = RESULTS.read_text()
    pages = {
        RESULTS: ("summary", summary(results)),
        ROOT / "docs" / "methods" / "cost.md": ("methods", methods(results)),
    }
    for page, (name, table) in pages.items():
        text = page.read_text()
        place = re.compile(PLACE.format(name), re.DOTALL)
        made, places = place.subn(lambda found, table=table: found[1] + table, text)
        assert places == 1, f"where in {page.name} is the table?"
        if check and made != text:
            sys.exit(f"stale, write anew by tools/benchmark_summary.py: {page.name}")
        page.write_text(made)


if __name__ == "__main__":
    main()
