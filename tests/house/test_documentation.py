"""The README and the documentation tell the truth: their code runs, their links lead somewhere."""

import pydoc
import re
import subprocess
import sys
from pathlib import Path

import pytest

import jaxlrp as lrp
from jaxlrp.graph.kinds import KINDS
from jaxlrp.planning.kinds import DEFAULTS, MIXED, MOVED
from tests.documentation_blocks import run, same_text

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


RULES = [
    name
    for name in lrp.__all__
    if isinstance(rule := getattr(lrp, name), type) and issubclass(rule, lrp.Rule)
]


def page_id(page):
    return str(page.relative_to(ROOT))


@pytest.mark.pages
@pytest.mark.parametrize("page", [p for p in PAGES if "```python\n" in p.read_text()], ids=page_id)
def test_code_runs_and_prints_what_the_page_says(page, tmp_path, monkeypatch, x32):
    monkeypatch.chdir(tmp_path)  # a page may write a picture
    shown = list(run(page.read_text(), page_id(page)))
    stale = [(line, found) for line, stored, found, by in shown if not same_text(stored, found, by)]
    assert stale == [], "write it anew: python -m tests.documentation_blocks PAGE"


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_code_fits_the_column_of_the_site(page):
    inside, long = False, []
    for number, line in enumerate(page.read_text().split("\n"), 1):
        inside ^= line.startswith("```")
        if inside and len(line) > 100 and "api" not in page.parts:
            long.append((number, line))
    assert long == []


def test_stale_output_is_seen():
    page = "```python\nprint('share', 0.123)\n```\n\n```text title=\"printed\"\nshare 0.125\n```\n"
    ((line, stored, printed, tolerance),) = run(page, "page")
    assert (line, stored, printed, tolerance) == (1, "share 0.125\n", "share 0.123\n", 0)
    assert not same_text(stored, printed)
    assert same_text("share 0.124", printed), "one unit of the last digit may differ"
    assert not same_text("part 0.123", printed)
    assert same_text("share 130", "share 120", 0.1)
    assert same_text("share\n-----\n0.1", "share\n------\n0.1"), "a table's lines"
    assert not same_text("share 150", "share 120", 0.1)
    assert not same_text("share 0.123 more", printed)


LINK = re.compile(r"\]\(([^)\s]+)[^)]*\)|^\[[^\]]+\]: +(\S+)", re.MULTILINE)


def leads_nowhere(target, page):
    """Whether a link of a page names a file, or a function or heading of one, that is not there.

    The strict build checks links to headings between pages of the site.
    """
    path, _, anchor = target.partition("#")
    place = page.parent / path if path else page
    if target.startswith(("http:", "https:")):
        return False
    if not place.exists() or not anchor:
        return not place.exists()
    if place.suffix == ".py":
        return not re.search(rf"^(def|class) {anchor}\b", place.read_text(), re.MULTILINE)
    if place.suffix == ".md" and "docs" not in page.parts:
        return anchor not in slugs_of(place.read_text())
    return False


def slugs_of(text, level="#+"):
    """The anchors that a reader of Markdown makes of the headings of a page."""
    headings = re.findall(rf"^{level} (.*)", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_lead_to_files_and_their_parts(page):
    targets = [inline or defined for inline, defined in LINK.findall(page.read_text())]
    assert [target for target in targets if leads_nowhere(target, page)] == []


def table_of_peers():
    text = (ROOT / "README.md").read_text()
    part = text.split("[start:peers]")[1].split("[end:peers]")[0]
    lines = [line for line in part.split("\n") if line.startswith("|")]
    rows = [[cell.strip() for cell in line[1:-1].split("|")] for line in lines]
    return rows[0], rows[2:]


def test_each_cell_of_the_table_of_peers_has_a_link():
    _, rows = table_of_peers()
    assert len(rows) > 10
    assert [cell for row in rows for cell in row[1:] if not re.match(r"\[.*\]\[\w+\]", cell)] == []


def test_each_claim_about_a_peer_has_its_place_in_the_release():
    (_, ours, *peers), rows = table_of_peers()
    page = (ROOT / "docs" / "peers.md").read_text()
    _, *parts = re.split(r"^## (.*)", page, flags=re.MULTILINE)
    parts, others = parts[: 2 * len(peers)], parts[2 * len(peers) :: 2]
    assert ours == "jaxlrp" and peers == parts[::2]
    assert all(title.endswith("without a release") for title in others)
    for number, (peer, section) in enumerate(zip(parts[::2], parts[1::2]), 2):
        assert re.search(r" \d+\.\d+", peer), "its release"
        labels = re.findall(r"^\| ([^|]+) \|(?=.*`)", section, re.MULTILINE)
        has_place = {label for several in labels for label in several.split(" · ")}
        claimed = {row[0] for row in rows if not re.match(r"\[not (checked|count)", row[number])}
        assert claimed == has_place, peer


def test_reference_pages_name_what_exists():
    directives = [
        directive
        for page in PAGES
        for directive in re.findall(r"^::: (\S+)", page.read_text(), re.MULTILINE)
    ]
    assert [name for name in directives if pydoc.locate(name) is None] == []


def test_every_method_is_in_the_reference():
    pages = "".join(page.read_text() for page in (ROOT / "docs" / "methods").glob("*.md"))
    names = lrp.methods.__all__
    assert [name for name in names if f"::: jaxlrp.methods.{name}\n" not in pages] == []


def test_every_public_rule_is_in_the_reference():
    reference = (ROOT / "docs" / "rules.md").read_text()
    assert len(RULES) > 15
    assert [name for name in RULES if f"::: jaxlrp.{name}\n" not in reference] == []


def test_version_is_the_same_in_the_citation():
    citation = (ROOT / "CITATION.cff").read_text()
    assert re.search(r"^version: (.*)$", citation, re.MULTILINE)[1] == lrp.__version__


def test_every_composite_is_in_both_tables():
    page = (ROOT / "docs" / "composites.md").read_text()
    assert [name for name in lrp.composites.__all__ if f"`{name}(" not in page] == []
    assert [name for name in lrp.composites.__all__ if page.count(f"\n{name} ") != 2] == []


def test_the_default_rule_of_each_kind_is_in_the_table():
    page = (ROOT / "docs" / "concepts.md").read_text()
    rows = re.findall(r"^\| (`[a-z_`, ]+) \| .* \| (.*) \|$", page, re.MULTILINE)
    shown = {kind: rule for kinds, rule in rows for kind in re.findall(r"`(\w+)`", kinds)}
    assert shown.keys() == set(KINDS)
    assert {k: r for k, r in shown.items() if k in DEFAULTS} == {
        kind: f"`{rule}`" for kind, rule in DEFAULTS.items()
    }
    assert shown["structural"] == f"`{MOVED}`; where it adds, `{MIXED}`"


def test_each_error_has_a_remedy_and_a_message():
    page = (ROOT / "docs" / "errors.md").read_text()
    printed = page.split("## What they say")[1].split("## Warnings")[0]
    raised = {name for name in lrp.__all__ if name.endswith("Error")} - {"LRPError"}
    remedies = re.findall(r"^\| `(\w+)` \| .+ \| .+ \|$", page, re.MULTILINE)
    assert set(remedies) == raised
    unseen = {name for name in raised if f": {name}\n" not in printed}
    assert unseen == {"JaxVersionError"}, "which no call can cause under a JAX that is known"
    warned = {name for name in lrp.__all__ if name.endswith("Warning")}
    assert {name for name in warned if f"`lrp.{name}`" not in page} == set()


def test_reference_as_files_is_current():
    command = [sys.executable, "tools/api_pages.py", "--check"]
    checked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr


def test_badges_are_current():
    command = [sys.executable, "tools/badges.py", "--check"]
    checked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr


def test_summary_of_the_benchmarks_has_their_numbers():
    command = [sys.executable, "tools/benchmark_summary.py", "--check"]
    checked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr


def test_tutorials_are_those_of_their_sources():
    command = [sys.executable, "tools/tutorials.py", "--check"]
    checked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    names = {source.stem for source in (ROOT / "tutorials").glob("*.py")}
    assert {page.stem for page in (ROOT / "docs" / "tutorials").glob("*.md")} == names | {"index"}


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_each_photograph_has_a_picture_for_the_dark(page):
    """A drawing is inverted by the style sheet, and a photograph cannot be."""
    found = re.findall(r"!\[([^\]]+)\]\(([^)]+)\.jpg(?:#([\w-]+))?\)", page.read_text())
    light, dark = found[::2], found[1::2]
    assert [(text, f"{name}_dark") for text, name, _ in light] == [d[:2] for d in dark]
    assert {scheme for *_, scheme in light} <= {"only-light"}
    assert {scheme for *_, scheme in dark} <= {"only-dark"}


def test_every_demo_is_in_the_gallery_of_demos():
    page = (ROOT / "docs" / "demos.md").read_text()
    links = re.findall(r"\[(?:!\[[^\]]+\]\(img/[\w.#-]+\))+\]\(([^)]+)\)", page)
    assert set(links) == {f"#{slug}" for slug in slugs_of(page, "##")} | {"gallery.md"}


def test_every_composite_has_a_seed_and_a_unit():
    rows = [
        line for line in (ROOT / "docs" / "seeds.md").read_text().split("\n") if line[:1] == "|"
    ]
    assert [n for n in lrp.composites.__all__ if sum(f"`{n}(" in row for row in rows) != 1] == []
