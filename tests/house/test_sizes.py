"""One idea a file, and functions that fit on a page."""

import ast
from pathlib import Path

import jaxlrp as lrp

ROOT = Path(lrp.__file__).parent
MOST_LINES_OF_A_FILE = 400
MOST_LINES_OF_A_FUNCTION = 60  # without its docstring


def lines_of(function):
    """The lines of a function without its docstring."""
    first = function.body[0]
    lines = function.end_lineno - function.lineno + 1
    if ast.get_docstring(function) is not None:
        lines -= first.end_lineno - first.lineno + 1
    return lines


def test_functions_are_counted_without_docstrings():
    (function,) = ast.parse('def f():\n    """One\n\n    two."""\n    x = 1\n    return x\n').body
    assert lines_of(function) == 3


def test_files_and_functions_are_short():
    long = {}
    for path in sorted(ROOT.rglob("*.py")):
        text, name = path.read_text(), path.relative_to(ROOT).as_posix()
        long[name] = len(text.splitlines()) - MOST_LINES_OF_A_FILE
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                long[f"{name}::{node.name}"] = lines_of(node) - MOST_LINES_OF_A_FUNCTION
    assert not {name: excess for name, excess in long.items() if excess > 0}
