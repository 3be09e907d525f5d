"""The built site: pages, links between them, the reference, and what its search finds."""

import dataclasses
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest

import jaxlrp as lrp
from tests.house.test_documentation import RULES

ROOT = Path(__file__).parents[2]
EQUATIONS = [name for name in RULES if name not in ("Rule", "LinearRule")]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the documentation, built strictly."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet"]
    command += ["--site-dir", str(folder)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site):
    """The HTML of each page, by its path without a suffix."""
    found = {p.parent.relative_to(site).as_posix(): p for p in site.rglob("index.html")}
    return {name: page.read_text() for name, page in found.items()}


@pytest.fixture(scope="module")
def entries(pages):
    """The built reference: the HTML of each object, by its full name."""
    found = {}
    for page in pages.values():
        parts = re.split(r'<h\d id="(jaxlrp[\w.]*)"', page)
        found |= dict(zip(parts[1::2], parts[2::2], strict=True))
    return found


def test_changelog_is_a_page(pages):
    headings = re.findall(r"^### (.*)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    shown = re.findall(r"<h3 id=[^>]*>([^<]*)<", pages["changelog"])
    assert shown == headings != []


def test_links_of_the_site_lead_to_pages_and_their_parts(pages):
    ids = {name: set(re.findall(r'\bid="([^"]+)"', html)) for name, html in pages.items()}
    lost = []
    for name, html in pages.items():
        for path, anchor in re.findall(r'<a [^>]*href="([^":#]*)(?:#([^"]*))?"', html):
            if "." in path.rsplit("/", 1)[-1].strip("."):
                continue  # a file that is no page
            there = os.path.normpath(f"{name}/{path}")
            if there not in pages or (anchor and unquote(anchor) not in ids[there]):
                lost.append((name, path, anchor))
    assert lost == []
    table = pages["."].split("a layer that is used twice")[1]
    assert 'href="source/tests/oracles/test_peers.py/#test_one_dense_used_twice"' in table


def test_every_public_name_is_in_the_reference(entries):
    names = set(lrp.__all__) - {"composites", "methods"}  # modules, with tests of their own
    shown = entries.keys()
    assert {n for n in names if not {f"jaxlrp.{n}", f"jaxlrp.errors.{n}"} & shown} == set()


@pytest.mark.parametrize("name", ["explain", "ledger", "plan", "relevance_vjp"])
def test_transformation_is_a_function_with_parameters(entries, name):
    entry = entries[f"jaxlrp.{name}"]
    assert f'doc-function-name">{name}<' in entry
    for parameter in inspect.signature(getattr(lrp, name)).parameters:
        assert re.search(rf"<b><code>\*?{parameter}</code></b>", entry)


def assert_explained(entry, parameters):
    signature = re.search(r'<div class="doc-signature.*?</pre>', entry, re.DOTALL)
    signature = re.sub("<[^>]+>", "", signature[0]) if signature else ""
    listed = entry.split("Parameters:")[-1] if parameters else ""
    assert [name for name in parameters if not re.search(rf"\b{name}\b", signature)] == []
    assert [name for name in parameters if f"<b><code>{name}</code></b>" not in listed] == []
    assert_has_equation_source_and_use(entry)


def assert_has_equation_source_and_use(entry):
    assert '<math xmlns="http://www.w3.org/1998/Math/MathML" display="block">' in entry
    assert re.search(r'Source: <a [^>]*href="[^"]*bibliography/#\w+"', entry)
    assert re.search(r"\bUse\s+it\b.*\bIt\s+is\s+not\b", entry, re.DOTALL)


@pytest.mark.parametrize("name", EQUATIONS)
def test_rule_has_parameters_equation_and_source(entries, name):
    entry = entries[f"jaxlrp.{name}"]
    assert_explained(entry, [f.name for f in dataclasses.fields(getattr(lrp, name)) if f.init])
    assert "Shapes: " in entry


@pytest.mark.parametrize("name", lrp.composites.__all__)
def test_composite_has_parameters_equation_and_source(entries, name):
    entry = entries[f"jaxlrp.composites.{name}"]
    assert_explained(entry, inspect.signature(getattr(lrp.composites, name)).parameters)


@pytest.mark.parametrize("name", [n for n in lrp.methods.__all__ if n != "Expansion"])
def test_method_has_equation_and_source(entries, name):
    entry = entries[f"jaxlrp.methods.{name}"]
    assert_has_equation_source_and_use(entry)
    assert "<blockquote>" not in entry  # what an example outside `Examples:` becomes


def test_each_page_has_a_description_of_its_own(pages):
    described = {
        name: re.findall(r'<meta (?:name="|property="og:)description" content="([^"]+)">', html)
        for name, html in pages.items()
        if not name.startswith("source")
    }
    twice = {name for name, found in described.items() if found != [*found[:1]] * 2}
    assert twice == set(), "for search engines, and the same for shared links"
    assert len({found[0] for found in described.values()}) == len(described)


def test_a_lost_reader_is_led_on(site):
    lost = (site / "404.html").read_text().split("This page does not exist")[1]
    links = re.findall(r'<a href="/([^"]*)">the ', lost)
    assert len(links) == 3
    assert [link for link in links if not (site / link).exists()] == []


def test_parts_that_scroll_can_have_the_focus(pages):
    shown = {name: html for name, html in pages.items() if not name.startswith("source")}
    for name, html in shown.items():
        assert html.count("<table>") == html.count('aria-label="Table"><table>'), name
        assert html.count('class="equation"') == html.count('class="equation" tabindex="0"'), name
    assert any("<table>" in html for html in shown.values())
    assert any('class="equation"' in html for html in shown.values())


FOUND = {  # words as they are typed, and a page or heading that has to be among the first three
    "attention": "transformers/",
    "batchnorm": "frameworks/",
    "bert": "transformers/",
    "bias": "concepts/",
    "alpha beta": "rules/#jaxlrp.AlphaBeta",
    "box": "rules/#jaxlrp.ZBox",
    "captum": "coming-from/",
    "conservation": "concepts/#conservation",
    "conservation 42": "faq/#what-does-a-conservation-of-42-mean",
    "gpu": "scaling/",
    "heat map": "heatmap/",
    "install": "quickstart/",
    "jit": "quickstart/",
    "ledger": "concepts/",
    "lstm": "recurrent/",
    "nan": "debugging/",
    "plus": "composites/",
    "resnet": "choosing/",
    "zennit": "coming-from/",
    "zbox": "rules/#jaxlrp.ZBox",
    "zplus": "rules/#jaxlrp.ZPlus",
}


@pytest.mark.skipif(shutil.which("node") is None, reason="the search is JavaScript: needs node")
def test_search_finds_the_page_of_a_word(site):
    command = ["node", "tools/search.js", str(site), *FOUND]
    asked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    first = {w: json.loads(line)[:3] for w, line in zip(FOUND, asked.stdout.split("\n"))}
    assert {word: first[word] for word, page in FOUND.items() if page not in first[word]} == {}
    inside = ("design/", "inside/", "changelog/", "bibliography/")
    assert {w: f for w, f in first.items() if f[0].startswith(inside)} == {}
