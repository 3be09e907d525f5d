"""The blocks of a page: Python that runs, and beside it what it prints.

A block of text with the title "printed" after a block of Python is what that block prints.
`same_text` compares the two: words exactly, numbers to one unit of their last digit, as another
machine rounds differently; to ten units or a tenth under "printed, about", after a training.
`python -m tests.documentation_blocks PAGE ...` writes what was printed into the pages.
"""

import contextlib
import io
import re
import sys
from pathlib import Path

BLOCK = re.compile(
    r"^```python\n(?P<code>.*?)^```"
    r"(?P<between>\n+```text title=\"printed(?P<about>, about)?\"\n)?"
    r"(?(between)(?P<printed>.*?)^```)",
    re.MULTILINE | re.DOTALL,
)
NUMBER = re.compile(r"[-−+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")


def blocks(text):
    """Each block's line, code, what it prints (None if the page does not say), and how exactly."""
    for found in BLOCK.finditer(text):
        tolerance = 0.1 if found["about"] else 0.0
        yield text[: found.start()].count("\n") + 1, found["code"], found["printed"], tolerance


def unit(number):
    """One unit of the last digit of a number as it is written."""
    digits, _, power = number.partition("e")
    return 10.0 ** (int(power or 0) - len(digits.partition(".")[2]))


def same_text(stored, printed, tolerance=0.0):
    """Whether the words are equal, and the numbers to a unit of their last digit or `tolerance`."""
    # The lines under a table's heads are as long as its longest number is.
    trimmed = [" ".join(re.sub("--+", "--", text).split()) for text in (stored, printed)]
    if len({NUMBER.sub("0", text) for text in trimmed}) > 1:
        return False
    a, b = ([n.replace("−", "-") for n in NUMBER.findall(text)] for text in trimmed)
    units = [max(unit(m), unit(n)) for m, n in zip(a, b)]
    pairs = [(float(m), float(n)) for m, n in zip(a, b)]
    return all(
        abs(m - n) <= max((10 if tolerance else 1.001) * u, tolerance * abs(m))
        for (m, n), u in zip(pairs, units)
    )


def run(text, name):
    """Runs a page's blocks in turn; yields (line, stored, printed, tolerance) where it says."""
    namespace = {"__name__": "documentation"}
    for line, code, stored, tolerance in blocks(text):
        padded = "\n" * line + code  # so that a traceback shows the page's own line
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(compile(padded, name, "exec"), namespace)
        if stored is not None:
            yield line, stored, out.getvalue(), tolerance


def rewrite(page):
    text = page.read_text()
    found = iter([printed for _, _, printed, _ in run(text, str(page))])

    def put(match):
        if match["printed"] is None:
            return match[0]
        printed = "\n".join(line.rstrip() for line in next(found).rstrip().split("\n"))
        return f"```python\n{match['code']}```{match['between']}{printed}\n```"

    page.write_text(BLOCK.sub(put, text))


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        rewrite(Path(argument))
