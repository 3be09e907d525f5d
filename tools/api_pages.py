"""The reference as Markdown files, which are read in the repository without a build.

    python tools/api_pages.py           # writes docs/api/
    python tools/api_pages.py --check   # fails if they are stale

The objects and their order are those of the directives (`::: name`) of the reference pages, so a
page of `docs/api/` has what its page of the site has. Texts are the docstrings.
"""

import argparse
import re
import sys
from pathlib import Path
from typing import Any

import griffe
import yaml

ROOT = Path(__file__).parents[1]
DOCS, API = ROOT / "docs", ROOT / "docs" / "api"
PAGES = {
    "transformations": ["reference.md"],
    "rules": ["rules.md"],
    "composites": ["composites.md"],
    "methods": ["methods/*.md"],
    "heatmaps": ["heatmap.md"],
    "errors": ["errors.md"],
}
DIRECTIVE = re.compile(r"^::: (\S+)\n(?:    options:(.*(?:\n      .*)*))?", re.MULTILINE)
STYLE = {"returns_multiple_items": False, "returns_named_value": False}
NOTE = "<!-- Written by tools/api_pages.py from the docstrings; do not edit. -->"


def slug(heading: str) -> str:
    """The anchor that a reader of Markdown makes of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def directives(page: str) -> list[tuple[str, dict[str, Any]]]:
    """The objects of a page, and the options with which each is shown."""
    found = []
    for pattern in PAGES[page]:
        for path in sorted(DOCS.glob(pattern)):
            for name, options in DIRECTIVE.findall(path.read_text()):
                found.append((name, yaml.safe_load(options or "{}") or {}))
    return found


class Reference:
    def __init__(self) -> None:
        self.package = griffe.load("jaxlrp", search_paths=[ROOT])
        self.home = {  # where an object is described: (page, anchor)
            name: (page, slug(name.removeprefix("jaxlrp.")))
            for page in PAGES
            for name, _ in self.objects(page)
        }
        headings = re.findall(
            r"^### (.*\{#(\w+)\})$", (DOCS / "bibliography.md").read_text(), re.MULTILINE
        )
        self.papers = {paper: slug(heading) for heading, paper in headings}

    def get(self, name: str) -> griffe.Object:
        return self.package[name.removeprefix("jaxlrp.")]

    def objects(self, page: str) -> list[tuple[str, dict[str, Any]]]:
        """What a page describes; a module stands for its public names."""
        found: list[tuple[str, dict[str, Any]]] = []
        for name, options in directives(page):
            item = self.get(name)
            if not item.is_module:
                found.append((name, options))
            elif name != "jaxlrp.composites":  # whose names are listed one by one
                inside = item.exports or [n for n, m in item.members.items() if m.is_class]
                found += [(f"{name}.{n}", {}) for n in map(str, inside) if not n.startswith("_")]
        return found

    def linked(self, text: str, page: str) -> str:
        """Cross references of the site become links between files."""

        def link(match: re.Match[str]) -> str:
            label, target = match[1], match[2]
            if target in self.papers:
                return f"[{label}](../bibliography.md#{self.papers[target]})"
            if target in self.home:
                there, anchor = self.home[target]
                return f"[{label}]({'' if there == page else there + '.md'}#{anchor})"
            return label

        return re.sub(r"\[([^\]]+)\]\[([\w.]+)\]", link, text)

    def page(self, page: str) -> str:
        parts = [f"# {page.capitalize()}", NOTE]
        for name, options in self.objects(page):
            made_by_users = options.get("merge_init_into_class", True)
            parts += self.entry(name, page, "##", made_by_users)
            for member in options.get("members") or []:
                parts += self.entry(f"{name}.{member}", page, "###")
        return "\n\n".join(parts) + "\n"

    def entry(self, name: str, page: str, level: str, signed: bool = True) -> list[str]:
        item = self.get(name)
        item = item.final_target if item.is_alias else item
        title = name.removeprefix("jaxlrp.") if level == "##" else name.rsplit(".", 1)[-1]
        parts = [f"{level} {title}", *(signature(item) if signed else [])]
        sections = item.docstring.parse("google", **STYLE) if item.docstring else []
        return parts + [self.linked(part, page) for part in map(section, sections) if part]


def signature(item: griffe.Object) -> list[str]:
    if item.is_attribute:
        value = f" = {item.value}" if item.value is not None else ""
        kind = f": {item.annotation}" if item.annotation is not None else ""
        return [f"```py\n{item.name}{kind}{value}\n```"]
    parameters = list(item.parameters)[item.is_class or item.parent.is_class :]
    if item.is_class and not parameters:
        return []
    listed = [written(p) for p in parameters]
    named = [n for n, p in enumerate(parameters) if p.kind is griffe.ParameterKind.keyword_only]
    starred = any(p.kind is griffe.ParameterKind.var_positional for p in parameters)
    if named and not starred:
        listed.insert(named[0], "*")
    returns = "" if item.is_class or item.returns is None else f" -> {item.returns}"
    line = f"{item.name}({', '.join(listed)}){returns}"
    if len(line) > 88:
        line = f"{item.name}(\n" + "".join(f"    {p},\n" for p in listed) + f"){returns}"
    return [f"```py\n{line}\n```"]


def written(parameter: griffe.Parameter) -> str:
    stars = {griffe.ParameterKind.var_positional: "*", griffe.ParameterKind.var_keyword: "**"}
    text = stars.get(parameter.kind, "") + parameter.name
    text += f": {parameter.annotation}" if parameter.annotation is not None else ""
    if parameter.default is None or parameter.kind in stars:
        return text
    return text + (" = " if parameter.annotation is not None else "=") + str(parameter.default)


def section(part: griffe.DocstringSection) -> str:
    kind = part.kind.value
    if kind == "text":
        return part.value
    if kind == "examples":
        shown = [f"```pycon\n{t}\n```" if k.value == "examples" else t for k, t in part.value]
        return "**Examples**\n\n" + "\n\n".join(shown)
    if kind == "admonition":
        return f"**{part.title}** {part.value.contents}"
    titles = {"parameters": "Parameters", "returns": "Returns", "raises": "Raises"}
    lines = []
    for item in part.value:
        name = getattr(item, "name", "") or (item.annotation if kind == "raises" else "")
        text = " ".join(item.description.split())
        lines.append(f"- **`{name}`**: {text}" if name else f"- {text}")
    return f"**{titles.get(kind, kind.capitalize())}**\n\n" + "\n".join(lines)


def written_pages() -> dict[Path, str]:
    reference = Reference()
    pages = {API / f"{page}.md": reference.page(page) for page in PAGES}
    index = ["# Reference, as files", NOTE]
    for page in PAGES:
        names = [name.removeprefix("jaxlrp.") for name, _ in reference.objects(page)]
        listed = ", ".join(f"[`{name}`]({page}.md#{slug(name)})" for name in names)
        index.append(f"**[{page.capitalize()}]({page}.md)**: {listed}")
    return {API / "README.md": "\n\n".join(index) + "\n", **pages}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing, fail if stale")
    check = parser.parse_args().check
    pages = written_pages()
    stale = [p.name for p, text in pages.items() if not p.exists() or p.read_text() != text]
    if check and stale:
        sys.exit(f"stale, write anew by tools/api_pages.py: {', '.join(stale)}")
    API.mkdir(exist_ok=True)
    for path, text in pages.items():
        path.write_text(text)


if __name__ == "__main__":
    main()
