"""Signatures of the public surface: every parameter has a type, and the type has a name."""

import inspect
import re

import pytest

import jaxlrp as lrp
from jaxlrp import testing

# An array or a number: rules compute with both alike.
ANYTHING = {"LayerView.bias", "LayerView.factors"}


def functions():
    named = {n: getattr(lrp, n) for n in lrp.__all__}
    named |= {n: getattr(lrp.composites, n) for n in lrp.composites.__all__}
    named |= {n: getattr(testing, n) for n in ("check_rule", "assert_same_relevance")}
    for name, value in named.items():
        if inspect.isfunction(value):
            yield name, value
        elif inspect.isclass(value) and not issubclass(value, Exception):
            for member, found in vars(value).items():
                found = getattr(found, "fget", None) or found
                if inspect.isfunction(found) and not member.startswith("_"):
                    yield f"{name}.{member}", found


@pytest.mark.parametrize(("name", "function"), [pytest.param(n, f, id=n) for n, f in functions()])
def test_types_are_named(name, function):
    signature = inspect.signature(function)
    shown = {p.name: p.annotation for p in signature.parameters.values() if p.name != "self"}
    shown.pop("options", None)  # keyword arguments that are handed on to `explain`
    shown["return"] = signature.return_annotation
    assert inspect.Signature.empty not in shown.values()
    found = [n for n, a in shown.items() if re.search(r"\bAny\b", str(a))]
    assert found == (["return"] if name in ANYTHING else [])
