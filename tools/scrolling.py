"""Tables and equations that are wider than a screen scroll, with the arrow keys too.

Browsers scroll with the keys only in what has the focus, so the part that scrolls can have it.
Blocks of code get this from the theme.
"""

import re

_TABLE = re.compile(r"<table>.*?</table>", re.DOTALL)
_SCROLLS = '<div class="scrolls" tabindex="0" role="group" aria-label="Table">'


def on_page_content(content: str, **_: object) -> str:
    """A hook of MkDocs, after the one that makes the equations."""
    content = content.replace('<div class="equation">', '<div class="equation" tabindex="0">')
    return _TABLE.sub(lambda table: f"{_SCROLLS}{table[0]}</div>", content)
