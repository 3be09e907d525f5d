"""Foreign text as it is shown: no character of it acts, is hidden, or breaks a file."""

from __future__ import annotations

from typing import Any

EMPTY = "∅"


def visible(token: str | bytes) -> str:
    """A token as it is shown: a line ends after its mark, and no character acts or is hidden.

    >>> visible(b"a\\tb\\n"), visible("\\u202e"), visible(b"\\xff"), visible("")
    ('a→   b↵\\n', '\\\\u202e', '\\\\xff', '∅')
    """
    if not token:
        return EMPTY
    if isinstance(token, bytes):
        return "".join(_visible_letter(chr(byte), byte < 128) for byte in token)
    return "".join(_visible_letter(letter, True) for letter in token)


def _visible_letter(letter: str, known: bool) -> str:
    if letter == "\n":
        return "↵\n"
    if letter == "\t":
        return "→   "
    if known and letter.isprintable():
        return letter
    # Control characters, marks of direction, surrogates, and whatever else cannot be displayed.
    return letter.encode("unicode_escape").decode("ascii")


def readable(label: Any) -> str:
    """A title, heading or label, made from any object with a `str`; lines and spaces are kept.

    >>> readable(7), readable("a\\tb\\nc"), readable("\\u202eabc"), readable("\\ud800")
    ('7', 'a b\\nc', '\\\\u202eabc', '\\\\ud800')
    """
    text = label.decode("utf-8", "backslashreplace") if isinstance(label, bytes) else str(label)
    lines = text.replace("\r\n", "\n").split("\n")
    return "\n".join("".join(map(_readable_letter, line)) for line in lines)


def _readable_letter(letter: str) -> str:
    return " " if letter.isspace() else _visible_letter(letter, True)
