"""The rooms of the library: what may import what, and what modules may be called."""

import ast
from pathlib import Path

import jaxlrp as lrp
from jaxlrp import heatmap
from jaxlrp.graph.kinds import TRAITS, kinds_that
from jaxlrp.planning.kinds import DEFAULTS
from jaxlrp.rules.base import LINEAR_KINDS, SUM_KINDS

ROOT = Path(lrp.__file__).parent
# What the modules of a room may import besides their own; the surface may import all of it.
ARROWS = {
    "errors": set(),
    "compat": {"errors"},
    "compat_bilinear": set(),
    "types": set(),
    "graph": {"errors", "compat"},
    "rules": {"errors", "compat"},
    "planning": {"errors", "compat", "graph", "rules"},
    "run": {"errors", "compat", "compat_bilinear", "types", "graph", "rules", "planning"},
    "heatmap": {"errors"},
    "streaming": {"errors", "compat", "types"},
    # What stands beside the engine sees the public surface alone.
    "methods": {"errors", "transforms", "composites", "explained_function", "planning", "rules"},
}
SURFACE = {
    "__init__",
    "accounts",
    "arguments",
    "checks",
    "composites",
    "explained_function",
    "preparation",
    "prepared",
    "testing",
    "transforms",
}


def modules():
    for path in sorted(ROOT.rglob("*.py")):
        yield path.relative_to(ROOT).with_suffix("").parts, ast.parse(path.read_text())


def imported(tree):
    """The modules of the library that a file imports, as tuples of names; types too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            package, *parts = name.split(".")
            if package == "jaxlrp" and parts:
                yield tuple(parts)


def test_arrows_between_rooms():
    wrong = []
    for parts, tree in modules():
        room = parts[0]
        if room in SURFACE:
            continue
        allowed = ARROWS[room] | {room}
        wrong += [
            f"{'/'.join(parts)} imports {'.'.join(i)}"
            for i in imported(tree)
            if i[0] not in allowed
        ]
    assert not wrong


def test_modules_import_each_other_in_one_direction():
    """No circle between files, not even for types."""
    files = {parts for parts, _ in modules()}
    reads = {}
    for parts, tree in modules():
        found = set()
        for name in imported(tree):
            found |= {p for p in (name, name[:-1], (*name, "__init__")) if p in files} - {parts}
        reads[parts] = found
    done, path = set(), []

    def visit(module):
        assert module not in path, " -> ".join("/".join(m) for m in [*path, module])
        if module in done:
            return
        path.append(module)
        for other in sorted(reads[module]):
            visit(other)
        path.pop()
        done.add(module)

    for module in sorted(files):
        visit(module)


def test_no_module_bears_the_name_of_a_public_function():
    public = {name for name in lrp.__all__ if callable(getattr(lrp, name))}
    public |= {*heatmap.__all__, *lrp.methods.__all__, *lrp.composites.__all__}
    names = {part for parts, _ in modules() for part in parts}
    assert names.isdisjoint(public)


def test_what_a_kind_is_is_said_once():
    assert kinds_that("linear") == LINEAR_KINDS
    assert kinds_that("sums") == SUM_KINDS
    assert set(DEFAULTS) | {"structural"} == set(TRAITS)
