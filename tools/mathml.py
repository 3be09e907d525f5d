"""Equations of the documentation become MathML while it is built: a page needs no script."""

import html
import re

from latex2mathml.converter import convert

_EQUATION = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)


def _mathml(match: re.Match[str]) -> str:
    latex = html.unescape(match[2]).strip()
    if match[1] == "span":
        return convert(latex)
    return f'<div class="equation">{convert(latex, display="block")}</div>'


def on_page_content(content: str, **_: object) -> str:
    """A hook of MkDocs: LaTeX that `pymdownx.arithmatex` marked becomes MathML."""
    return _EQUATION.sub(_mathml, content)
