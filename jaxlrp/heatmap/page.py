"""Coloured text as a self-contained HTML page."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from jaxlrp.heatmap.canvas import plus_minus, short_number
from jaxlrp.heatmap.letters import readable
from jaxlrp.heatmap.palette import STOPS
from jaxlrp.heatmap.tokens import PerText, Text, Tokens, read_texts

# Every rule is below one class, so that the page may be put inside another one (a notebook).
_STYLE = """\
.jaxlrp { max-width: 60em; margin: 0 auto; padding: 1em; background: #fff; color: #222;
  font: 16px/1.5 system-ui, sans-serif; }
.jaxlrp h1 { margin: 0 0 0.6em; font-size: 1.3em; color: #222; }
.jaxlrp h2 { margin: 1.2em 0 0.3em; font-size: 1em; color: #222; }
.jaxlrp .scale { margin-left: 0.6em; font-size: 0.85em; font-weight: normal; color: #595959; }
.jaxlrp .text { line-height: 1.75; white-space: pre-wrap; overflow-wrap: anywhere; }
.jaxlrp .text span { padding: 0.15em 0; }
.jaxlrp .words span { padding: 0.15em 0.2em; border-radius: 0.2em; }
.jaxlrp .mono { font: 14px/1.55 ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
.jaxlrp .legend { margin-top: 1.6em; font-size: 0.85em; color: #595959; }
.jaxlrp .legend i { display: inline-block; width: 14em; height: 0.9em; margin: 0 0.5em;
  vertical-align: -0.1em; border: 1px solid #ccc; background: linear-gradient(to right, BAR); }
"""


class TextPage(str):
    """A page of HTML: a `str` that a notebook renders."""

    def _repr_html_(self) -> str:
        return str(self)


def text_html(
    tokens: Tokens | Mapping[str, Tokens],
    R: Any,
    *,
    separator: str | None = None,
    per: PerText = "text",
    scale: Any = None,
    percentile: float = 99.5,
    title: str | None = None,
) -> TextPage:
    """A page of HTML with text coloured by relevance; hovering over a token shows its number.

    Args:
        tokens: the text. A `str` is one token per letter, `bytes` one per byte; else a sequence of
            tokens, each `str` or `bytes`. A mapping from heading to such a text goes with a
            mapping of relevance.
        R: relevance, one number per token; or a mapping from a heading to such an array, drawn
            below one another: the same text explained in several ways, or several texts.
        separator: the text between two tokens. By default nothing for `str` and `bytes`, a
            space for a sequence of tokens; `""` for tokens that bring their own spaces. Text
            without a separator is set in letters of one width.
        per: `"text"` for one scale a text, `"shared"` for one in all.
        scale: fixes the scale: a positive number, or one per text.
        percentile: of |R|, as in [`scales`][jaxlrp.heatmap.scales].
        title: a line above everything.

    Returns:
        A whole page as a `str`; write it to a file, or let a notebook show it. It loads nothing and
        runs no script, and markup in the text is shown as text. Line ends are shown as ↵, tabs as
        →, characters that cannot be displayed as escapes (`\\x00`), and an empty token as ∅.

    Raises:
        TypeError: tokens are not text, or relevance is not floating.
        ValueError: not one finite number per token, or headings that disagree.

    Examples:
        >>> page = text_html(["not", "bad"], [-1.5, 2.0], title="Why positive?")
        >>> from pathlib import Path
        >>> _ = Path("why.html").write_text(page, encoding="utf-8")  # doctest: +SKIP
    """
    texts = read_texts(tokens, R, separator, per, scale, percentile)
    title = None if title is None else readable(title)
    one_scale = len({text.scale for text in texts}) == 1
    parts = [f"<h1>{escape(title)}</h1>"] if title else []
    for text in texts:
        parts.append(_heading(text, with_scale=not one_scale))
        kind = "text mono" if text.monospace else "text words"
        parts.append(f'<div class="{kind}">{_spans(text)}</div>')
    parts.append(_legend(short_number(texts[0].scale) if one_scale else "the text's scale"))
    body = "\n".join(part for part in parts if part)
    stops = ", ".join(_hex(stop) for stop in STOPS)
    return TextPage(
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title or 'Relevance')}</title>\n"
        f"<style>\n{_STYLE.replace('BAR', stops)}</style>\n</head>\n<body>\n"
        f'<div class="jaxlrp">\n{body}\n</div>\n</body>\n</html>\n'
    )


def _heading(text: Text, with_scale: bool) -> str:
    scale = f'<span class="scale">{plus_minus(text.scale)}</span>' if with_scale else ""
    return f"<h2>{escape(text.heading)}{scale}</h2>" if text.heading or scale else ""


def _spans(text: Text) -> str:
    spans = []
    for index, (token, shown) in enumerate(zip(text.tokens, text.visible)):
        ink = "#fff" if text.white_ink[index] else "#000"
        number = f"{index}: {token!r} {text.R[index]:+.3g}"
        spans.append(
            f'<span title="{escape(number)}" '
            f'style="background:{_hex(text.background[index])};color:{ink}">{escape(shown)}</span>'
        )
    return escape(text.separator).join(spans)


def _legend(end: str) -> str:
    return (
        f'<div class="legend">against −{end}<i></i>+{end} for'
        " (white is 0; the pointer over a token shows its number)</div>"
    )


def _hex(colour: Any) -> str:
    return "#" + "".join(f"{int(part):02x}" for part in colour)
