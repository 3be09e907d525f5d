"""The badges of the README, from `pyproject.toml`: what is true there is true here.

python tools/badges.py           # writes docs/img/badges/
python tools/badges.py --check   # fails if they are stale
"""

import argparse
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
BADGES = ROOT / "docs" / "img" / "badges"
LETTER, MARGIN = 6.6, 7  # width of a letter, and beside a text


def texts() -> dict[str, str]:
    """What each badge says: its name, and the fact."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    versions = re.findall(r"Python :: (3\.\d+)'", str(project["classifiers"]))
    (jax,) = (d.removeprefix("jax>=") for d in project["dependencies"] if d.startswith("jax>="))
    return {
        "python": f"{versions[0]} – {versions[-1]}",
        "jax": f"{jax} or newer",
        "license": project["license"],
    }


def badge(name: str, fact: str) -> str:
    left, right = (round(len(text) * LETTER + 2 * MARGIN) for text in (name, fact))
    style = 'font-family="Verdana,DejaVu Sans,sans-serif" font-size="11" text-anchor="middle"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + right}" height="20" role="img" '
        f'aria-label="{name}: {fact}"><title>{name}: {fact}</title>'
        f'<clipPath id="r"><rect width="{left + right}" height="20" rx="3"/></clipPath>'
        f'<g clip-path="url(#r)"><rect width="{left}" height="20" fill="#555"/>'
        f'<rect x="{left}" width="{right}" height="20" fill="#2166ac"/></g>'
        f'<g fill="#fff" {style}><text x="{left / 2:g}" y="14">{name}</text>'
        f'<text x="{left + right / 2:g}" y="14">{fact}</text></g></svg>\n'
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing, fail if stale")
    check = parser.parse_args().check
    written = {BADGES / f"{name}.svg": badge(name, fact) for name, fact in texts().items()}
    stale = [p.name for p, text in written.items() if not p.exists() or p.read_text() != text]
    if check and stale:
        sys.exit(f"stale, write anew by tools/badges.py: {', '.join(stale)}")
    BADGES.mkdir(parents=True, exist_ok=True)
    for path, text in written.items():
        path.write_text(text)


if __name__ == "__main__":
    main()
