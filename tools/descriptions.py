"""The first sentences of a page are its description, which search engines and shared links show."""

import html
import re
from typing import Any

_PARAGRAPH = re.compile(r"<p>(.*?)</p>", re.DOTALL)
_TAG = re.compile(r"<[^>]+>")
_END = re.compile(r"(?<!et al)\. ")
LENGTH = 200


def on_page_content(content: str, page: Any, **_: object) -> None:
    """A hook of MkDocs. The first page has the description of the site, from `mkdocs.yml`."""
    name = page.file.src_uri
    if name == "index.md" or name.startswith("source/") or "description" in page.meta:
        return
    for paragraph in _PARAGRAPH.findall(content.split("<h2", maxsplit=1)[0]):
        text = " ".join(html.unescape(_TAG.sub("", paragraph)).split())
        if text and "<math" not in paragraph:
            page.meta["description"] = html.escape(_shortened(text))
            return


def _shortened(text: str) -> str:
    """As many whole sentences as fit, or as many words."""
    if len(text) <= LENGTH:
        return text.rstrip(":")
    ends = [end.start() for end in _END.finditer(text, 0, LENGTH)]
    return text[: ends[-1] + 1] if ends else text[:LENGTH].rpartition(" ")[0] + " …"
