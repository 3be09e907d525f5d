"""The README and the documentation tell the truth: their code runs, their links lead somewhere."""

import pydoc
import re
from pathlib import Path

import pytest

import jaxlrp as lrp

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def page_id(page):
    return str(page.relative_to(ROOT))


def python_blocks(page):
    text = page.read_text()
    for block in re.finditer(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        yield text[: block.start()].count("\n") + 1, block[1]


@pytest.mark.parametrize("page", [p for p in PAGES if list(python_blocks(p))], ids=page_id)
def test_code_runs_from_top_to_bottom(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a page may write a picture
    namespace = {"__name__": "documentation"}
    for line, code in python_blocks(page):
        padded = "\n" * line + code  # so that a traceback shows the page's own line
        exec(compile(padded, page_id(page), "exec"), namespace)


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_lead_to_files(page):
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
    missing = [
        target
        for target in targets
        if not target.startswith(("http:", "https:")) and not (page.parent / target).exists()
    ]
    assert missing == []


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
    rules = [
        name
        for name in lrp.__all__
        if isinstance(getattr(lrp, name), type) and issubclass(getattr(lrp, name), lrp.Rule)
    ]
    assert len(rules) > 15
    assert [name for name in rules if f"::: jaxlrp.{name}\n" not in reference] == []


def test_every_composite_is_in_the_readme():
    readme = (ROOT / "README.md").read_text()
    assert [name for name in lrp.composites.__all__ if f"`{name}(" not in readme] == []
