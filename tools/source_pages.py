"""Links of the documentation to files outside `docs/` lead to pages with their text.

On a server of Git such links open the files. The built site has no such files beside it, so this
hook of MkDocs makes a page of each file that a page links to, and sends the links there. Each
function of a Python file is a heading: `tests/rules/test_exact.py#test_products` leads to a test.
A file that a page includes as a whole (`--8<-- "CHANGELOG.md"`) is that page.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

from markdown import Markdown
from markdown.extensions import Extension
from markdown.treeprocessors import Treeprocessor
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
FOLDER = "source"  # of the generated pages
LINK = re.compile(r"\]\(([^)\s#]+)|^\[[^\]]+\]: +([^\s#]+)", re.MULTILINE)
INCLUDED = re.compile(r'^--8<-- "([^":]+)"$', re.MULTILINE)
FRONT = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
PARTS = re.compile(r'^--8<-- "([^":]+):\w+"$', re.MULTILINE)
FENCE = "`" * 6  # longer than any in a source file

_shown: dict[str, str] = {}  # a file of the repository -> the page that shows it
_rendered = {"page": ""}  # which page links are relative to


def on_config(config: MkDocsConfig) -> None:
    config.markdown_extensions.append(_SourceLinks())  # type: ignore[arg-type]


def on_files(files: Files, config: MkDocsConfig) -> None:
    _shown.clear()
    pages = [f for f in files.documentation_pages() if f.abs_src_path]
    texts = {page.src_uri: Path(str(page.abs_src_path)).read_text() for page in pages}
    for uri, text in texts.items():
        if whole := INCLUDED.fullmatch(FRONT.sub("", text).strip()):
            _shown[whole[1]] = uri
    for uri, text in texts.items():
        included = [*INCLUDED.findall(text), *PARTS.findall(text)]
        for written, at in [(text, f"docs/{uri}"), *((_read(name), name) for name in included)]:
            for path in _outside(written, at):
                if path not in _shown:
                    _shown[path] = f"{FOLDER}/{path}.md"
                    made = File.generated(config, _shown[path], content=_page(path))
                    files.append(made)


def on_page_markdown(markdown: str, page: Any, **_: object) -> None:
    _rendered["page"] = page.file.src_uri


def _read(name: str) -> str:
    return (ROOT / name).read_text()


def _outside(text: str, at: str) -> Iterator[str]:
    """The files of the repository, but not of `docs/`, that a text at some place links to."""
    for found in LINK.finditer(text):
        path = _normal(f"{os.path.dirname(at)}/{found[1] or found[2]}")
        if not path.startswith(("docs/", "..")) and (ROOT / path).is_file():
            yield path


def _normal(path: str) -> str:
    return os.path.normpath(path).removeprefix("/")


def _page(path: str) -> str:
    """A page that shows a file and is not found by the search."""
    head = f"---\nsearch:\n  exclude: true\n---\n\n# {path}\n\n"
    text = _read(path)
    if not path.endswith(".py"):
        return f"{head}{FENCE}text\n{text}\n{FENCE}\n"
    parts = [f"## {name}\n\n{_code(code)}" if name else _code(code) for name, code in _cut(text)]
    return head + "\n".join(parts)


def _code(code: str) -> str:
    return f"{FENCE}python\n{code.strip()}\n{FENCE}\n"


def _cut(text: str) -> Iterator[tuple[str, str]]:
    """The text before the first function or class, and each of these by its name."""
    lines, start, name = text.splitlines(), 0, ""
    for node in ast.parse(text).body:
        if not isinstance(node, ast.FunctionDef | ast.ClassDef):
            continue
        first = min([node.lineno, *(d.lineno for d in node.decorator_list)]) - 1
        while first and lines[first - 1].startswith("#"):
            first -= 1
        if code := "\n".join(lines[start:first]).strip():
            yield name, code
        start, name = first, node.name
    yield name, "\n".join(lines[start:])


class _SourceLinks(Extension):
    def extendMarkdown(self, md: Markdown) -> None:
        md.treeprocessors.register(_Rewrite(md), "source links", 5)  # before MkDocs checks links


class _Rewrite(Treeprocessor):
    """Links are relative to the page, or to the root where a part of the README is included."""

    def run(self, root: Element) -> None:
        for link in root.iter("a"):
            path, hash_, anchor = link.get("href", "").partition("#")
            if path and ":" not in path and (uri := _target(path)):
                link.set("href", os.path.relpath(uri, _folder()) + hash_ + anchor)


def _folder() -> str:
    return os.path.dirname(_rendered["page"])


def _target(path: str) -> str | None:
    """The page that a link leads to, as a path below `docs/`, if the link has to be changed."""
    own = _normal(f"docs/{_folder()}/{path}")
    if own in _shown:
        return _shown[own]
    if (ROOT / own).exists():
        return None
    return _shown.get(path) or (path.removeprefix("docs/") if (ROOT / path).is_file() else None)
