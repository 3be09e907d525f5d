"""The core suite under several Pythons, each with the oldest and the newest JAX that it can have.

    make test-matrix                                   # every Python that is found
    make test-matrix ARGS="--python /opt/py/bin/python3.13 --only newest"
    make test-matrix ARGS="-- -k control_flow"         # arguments for pytest

Each combination has an environment of its own in `.venv-matrix/`, with the log of its run beside
it, and prints one line. "Oldest" is what pyproject.toml admits of jax and flax; all else is the
newest that fits.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".venv-matrix"
SUPPORTED = [(3, 11), (3, 12), (3, 13), (3, 14)]
SHOWN = ("jax", "flax")


def version(python: Path | str) -> str | None:
    """Its version, or None where it does not start."""
    ask = "import platform, ssl, venv; print(platform.python_version())"
    try:
        done = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def find() -> list[Path]:
    """One interpreter of each supported version: on the path, or where pyenv and uv keep them."""
    names = [f"python{major}.{minor}" for major, minor in SUPPORTED]
    on_path = [Path(p) for name in names if (p := shutil.which(name))]
    kept = [
        *Path.home().glob(".pyenv/versions/3.*/bin/python3"),
        *Path.home().glob(".local/share/uv/python/cpython-3.*/bin/python3"),
    ]
    found: dict[tuple[int, int], Path] = {}
    for python in [Path(sys.executable), *on_path, *kept]:
        if (text := version(python)) is not None:
            major, minor = map(int, text.split(".")[:2])
            if (major, minor) in SUPPORTED:
                found.setdefault((major, minor), python)
    return [found[key] for key in sorted(found)]


def oldest() -> list[str]:
    """jax, jaxlib and flax pinned to the lowest version that pyproject.toml admits."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["test"]]
    lowest = dict(re.match(r"([\w-]+)>=([\d.]+)", w).groups() for w in wanted if ">=" in w)
    return [
        f"jax=={lowest['jax']}",
        f"jaxlib=={lowest['jax']}",
        f"flax=={lowest['flax']}",
    ]


def run(python: Path, which: str, pytest_args: list[str]) -> tuple[bool, str]:
    """Install and test one combination; whether it passed, and its line."""
    text = version(python)
    if text is None:
        return False, f"| {python} | {which} | | | does not start, or lacks ssl or venv |"
    where = HOME / f"{text}-{which}"
    log = where.with_suffix(where.suffix + ".log")
    HOME.mkdir(exist_ok=True)
    its = where / "bin" / "python"
    install = ["-m", "pip", "install", "--quiet", "--upgrade", "--editable", f"{ROOT}[test]"]
    steps = [
        [python, "-m", "venv", where],
        [its, *install, *(oldest() if which == "oldest" else ["--upgrade-strategy", "eager"])],
    ]
    with log.open("w") as file:
        for step in steps:
            if subprocess.run(step, stdout=file, stderr=file, check=False).returncode != 0:
                return False, f"| {text} | {which} | | | cannot be installed, see {log} |"
    ask = f"from importlib.metadata import version as v; print(*map(v, {SHOWN}))"
    shown = subprocess.run([its, "-c", ask], capture_output=True, text=True, check=True).stdout
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    with log.open("a") as file:
        test = [its, "-m", "pytest", "-q", "-n", "auto", "--dist", "worksteal", *pytest_args]
        code = subprocess.run(
            test, stdout=file, stderr=file, cwd=ROOT, env=environment, check=False
        ).returncode
    closing = log.read_text().strip().splitlines()[-1].strip("= ")
    return code == 0, f"| {text} | {which} | {' | '.join(shown.split())} | {closing} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", action="append", type=Path, help="instead of what is found")
    parser.add_argument("--only", choices=["oldest", "newest"])
    parser.add_argument("pytest", nargs="*", help="arguments for pytest, after --")
    args = parser.parse_args()
    pythons = args.python or find()
    if not pythons:
        sys.exit("No supported Python was found; name one: --python /path/to/python3.13")
    print("| Python | versions | jax | flax | tests |\n| --- | --- | --- | --- | --- |", flush=True)
    good = True
    for python in pythons:
        for which in [args.only] if args.only else ["oldest", "newest"]:
            passed, line = run(python, which, args.pytest)
            good &= passed
            print(line, flush=True)
    sys.exit(not good)


if __name__ == "__main__":
    main()
