"""Tutorials: Python files that Jupyter opens as notebooks, executed into pages of the site.

    python tools/tutorials.py                # runs all of tutorials/, writes docs/tutorials/
    python tools/tutorials.py digits text    # runs these
    python tools/tutorials.py --check        # runs nothing, fails if a page is stale

A page has the text, the code and all outputs of its source; pictures go to
`docs/img/tutorials/`. Its first line has the source's checksum, by which `--check` and the tests
see that it is stale.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import io
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SOURCES, PAGES = ROOT / "tutorials", ROOT / "docs" / "tutorials"
PICTURES = ROOT / "docs" / "img" / "tutorials"
LIMIT = 180  # seconds
DARK = "image/x-dark-png"
# Figures of jaxlrp belong to no window: the kernel has to be told to show them.
SETUP = """%matplotlib inline
%config InlineBackend.figure_formats = ['png']
import runpy
runpy.run_path("tools/tutorials.py")["show_dark_too"](get_ipython())
del runpy
"""


def show_dark_too(shell: Any) -> None:
    """Let a kernel return each figure a second time, as a page in the dark shows it."""
    from IPython.core.formatters import PNGFormatter
    from IPython.core.pylabtools import print_figure
    from matplotlib.figure import Figure

    sys.path.insert(0, str(ROOT / "examples"))
    from dark_figures import darken

    sys.path.pop(0)

    def drawn(figure: Figure) -> bytes:
        darken(figure)  # which the kernel has drawn on white already
        return print_figure(figure, "png")

    class DarkFormatter(PNGFormatter):
        format_type = DARK
        print_method = "_repr_dark_png_"

    formatter = DarkFormatter()
    formatter.for_type(Figure, drawn)
    shell.display_formatter.formatters[DARK] = formatter


def checksum(source: Path) -> str:
    return hashlib.sha256(source.read_bytes()).hexdigest()[:16]


def is_stale(source: Path) -> bool:
    """Whether the page of a source is missing, or was made of another text."""
    page = PAGES / f"{source.stem}.md"
    return not page.exists() or f"sha256 {checksum(source)}" not in page.read_text().split("\n")[0]


def execute(source: Path) -> tuple[Any, float]:
    """The notebook of a source with its outputs, and the seconds that it ran."""
    import jupytext
    import nbformat
    from nbclient import NotebookClient

    notebook = jupytext.read(source)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(SETUP))
    start = time.perf_counter()
    where = {"metadata": {"path": str(ROOT)}}
    NotebookClient(notebook, timeout=2 * LIMIT, resources=where, kernel_name="python3").execute()
    del notebook.cells[0]
    return notebook, time.perf_counter() - start


def page(name: str, notebook: Any, seconds: float) -> Iterator[str]:
    """The parts of the page, in order; writes the pictures."""
    source = SOURCES / f"{name}.py"
    origin = f"tutorials/{name}.py, sha256 {checksum(source)}"
    yield f"<!-- Written by tools/tutorials.py from {origin} -->"
    pictures = 0
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            yield cell.source
            continue
        yield f"```py\n{cell.source}\n```"
        printed = "".join(o.text for o in cell.outputs if o.get("name") == "stdout")
        if printed.strip():
            lines = [line.rstrip() for line in printed.rstrip().split("\n")]
            yield '```text title="printed"\n' + "\n".join(lines) + "\n```"
        for output in cell.outputs:
            if "image/png" in output.get("data", {}):
                pictures += 1
                yield from picture(output.data, f"{name}_{pictures}", title_of(cell.source))
    yield (
        f"*This page is `tutorials/{name}.py`, executed in {seconds:.0f} s on a CPU; with jupytext "
        "Jupyter opens it as a notebook. `make tutorials` runs it again.*"
    )


def picture(data: dict[str, str], stem: str, title: str) -> Iterator[str]:
    """The line of the page that shows a picture, and the one that shows it in the dark."""
    path = write_picture(base64.b64decode(data["image/png"]), PICTURES / stem)
    line = f"![{title}](../img/tutorials/{path.name}"
    if path.suffix == ".png" or DARK not in data:
        yield f"{line})"
        return
    dark = write_picture(base64.b64decode(data[DARK]), PICTURES / f"{stem}_dark")
    yield f"{line}#only-light)\n![{title}](../img/tutorials/{dark.name}#only-dark)"


def title_of(code: str) -> str:
    """The title of a figure, for those who do not see it."""
    found = re.search(r'title="([^"]+)"', code)
    return found[1] if found else "Relevance of the pictures above"


def write_picture(png: bytes, stem: Path) -> Path:
    """The picture as a small file: PNG of 128 colours, or JPEG if it holds a photograph."""
    from PIL import Image

    picture = Image.open(io.BytesIO(png)).convert("RGB")
    if picture.getcolors(2**13) is None:
        path = stem.with_suffix(".jpg")
        picture.save(path, quality=85)
    else:
        path = stem.with_suffix(".png")
        picture.quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", help="of tutorials; all of them by default")
    parser.add_argument("--check", action="store_true", help="run nothing, fail if a page is stale")
    args = parser.parse_args()
    sources = sorted(SOURCES.glob("*.py"))
    names = args.names or [source.stem for source in sources]
    if unknown := set(names) - {source.stem for source in sources}:
        known = ", ".join(source.stem for source in sources)
        sys.exit(f"no tutorial is called {', '.join(unknown)}; there are {known}")
    chosen = [source for source in sources if source.stem in names]
    if args.check:
        if stale := [source.stem for source in chosen if is_stale(source)]:
            sys.exit(f"stale, run again by tools/tutorials.py: {', '.join(stale)}")
        return
    PAGES.mkdir(parents=True, exist_ok=True)
    PICTURES.mkdir(parents=True, exist_ok=True)
    for source in chosen:
        notebook, seconds = execute(source)
        for old in PICTURES.glob(f"{source.stem}_*"):
            old.unlink()
        text = "\n\n".join(page(source.stem, notebook, seconds))
        (PAGES / f"{source.stem}.md").write_text(text + "\n")
        late = f", over the limit of {LIMIT} s" if seconds > LIMIT else ""
        print(f"{source.stem}: {seconds:.0f} s{late}", flush=True)


if __name__ == "__main__":
    main()
