"""Tables that are written by hand say what the code does."""

import ast
import dataclasses
import inspect
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp as lrp
from tests.house.test_documentation import RULES, slugs_of
from tests.rules.test_exact import conv, dense, products

ROOT = Path(__file__).parents[2]
ARGUMENTS = {"ZBox": (-3.0, 3.0)}


def numbers(text):
    return {float(number) for number in re.findall(r"\d+(?:\.\d+)?", text)}


def rows(page, heading):
    """The cells of each row of the first table under a heading, or of the page."""
    text = (ROOT / "docs" / page).read_text()
    text = text.split(f"\n## {heading}\n")[1] if heading else text
    lines = re.search(r"(?:^\|.*\n)+", text, re.MULTILINE)[0].splitlines()[2:]
    return [[cell.strip() for cell in line[1:-1].split(" | ")] for line in lines]


def test_each_rule_is_at_a_glance_with_its_defaults():
    calls = [c for row in rows("rules.md", "At a glance") for c in re.findall(r"`([^`]+)`", row[0])]
    found = {call.split("(")[0]: ast.parse(call, mode="eval").body for call in calls}
    assert sorted(found) == sorted(set(RULES) - {"Rule", "LinearRule"})
    assert len(calls) == len(found), "each once"
    for name, call in found.items():
        taken = inspect.signature(getattr(lrp, name)).parameters
        needed = [n for n, parameter in taken.items() if parameter.default is parameter.empty]
        assert [a.id for a in call.args] == needed, name
        for keyword in call.keywords:
            assert taken[keyword.arg].default == ast.literal_eval(keyword.value), name


IN_ONE_TABLE = {row[0].strip("`"): row for row in rows("choosing.md", "Rules, in one table")}


def shared(name, weights):
    """What each input receives of a relevance of 1, without a bias and with epsilon = 0."""
    rule = getattr(lrp, name)(*ARGUMENTS.get(name, ()))
    _, back = lrp.relevance_vjp(lambda x: x @ weights, dataclasses.replace(rule, epsilon=0.0), X)
    return np.asarray(back(jnp.ones(weights.shape[1]))[0])


X = jnp.array([-1.5, -1.0, -0.5, 0.25, 0.5, 1.0, 1.5, 2.0])
MIXED = jnp.array([1.0, 0.5, -0.4, 0.75, -0.6, 0.5, 0.125, 0.125])[:, None] / X[:, None]  # 3 - 1
NEGATIVE = -jnp.abs(MIXED) * jnp.sign(X)[:, None]


@pytest.mark.parametrize("name", IN_ONE_TABLE)
def test_what_a_rule_conserves(name):
    conserves = IN_ONE_TABLE[name][1]
    assert conserves == "yes" or conserves.startswith("unless a unit ")
    np.testing.assert_allclose(shared(name, MIXED).sum(), 1)
    lost = abs(shared(name, NEGATIVE).sum() - 1) > 1e-9
    assert lost == (conserves != "yes")


@pytest.mark.parametrize("name", IN_ONE_TABLE)
def test_the_sign_of_relevance(name):
    sign, relevance = IN_ONE_TABLE[name][2], shared(name, MIXED)
    assert (relevance.min() >= 0) == (sign == "of the arriving one")
    if "favours" in sign or "amplified" in sign:
        plain = abs(shared("Epsilon", MIXED)).sum()  # 2, of which 0.5 is negative
        assert (abs(relevance).sum() < plain) == ("favours" in sign)
        assert (abs(relevance).sum() > plain) == ("amplified" in sign)


@pytest.mark.parametrize("name", IN_ONE_TABLE)
def test_the_products_of_a_rule(name):
    cell = IN_ONE_TABLE[name][3]
    rule, x = getattr(lrp, name)(*ARGUMENTS.get(name, ())), jnp.ones((2, 4), jnp.float32)
    wide = jnp.ones((2, 5, 2), jnp.float32)
    usual, *others = map(int, re.findall(r"\d", cell))
    signed = others[0] if "signed inputs" in cell else usual
    convolution = others[0] if "convolutions" in cell else usual
    assert products(lambda x: dense(jax.nn.relu(x)), rule, x) == usual
    assert products(dense, rule, x) == signed
    assert products(lambda x: conv(jax.nn.relu(x)), rule, wide) == convolution


def test_costs_are_those_of_methods_that_the_benchmark_measures():
    """The numbers are those of benchmarks/README.md: test_documentation.py compares them."""
    text = (ROOT / "docs" / "methods" / "cost.md").read_text()
    shown = re.findall(r"^\| (`\w+`.*) \| [\d.]+ \|$", text, re.MULTILINE)
    program = ast.parse((ROOT / "benchmarks" / "methods.py").read_text())
    (explanations,) = (n for n in program.body if getattr(n, "name", "") == "explanations")
    (labels,) = (n.value.keys for n in ast.walk(explanations) if isinstance(n, ast.Return))
    assert shown == [label.value for label in labels]
    names = {label.split("`")[1] for label in shown}
    assert names <= {*lrp.methods.__all__, "explain"}


CHOICES = {row[0]: row for row in rows("choosing.md", "")}


def section(link):
    """The part of a page that a link on the page of composites leads to."""
    page, _, anchor = link.partition("#")
    text = (ROOT / "docs" / (page or "choosing.md")).read_text()
    _, *parts = re.split(r"^#+ (.*)\n", text, flags=re.MULTILINE)
    found = dict(zip(parts[::2], parts[1::2], strict=True))
    (part,) = (text for title, text in found.items() if anchor in slugs_of(f"# {title}"))
    return part


@pytest.mark.parametrize("network", CHOICES)
def test_figures_of_a_choice_are_those_of_the_measurement(network):
    cell = CHOICES[network][3]
    (measured, *_) = re.findall(r"\]\(([^)]*#[^)]*)\)", cell)
    quoted = numbers(re.sub(r"\[.*?\]\(.*?\)", "", cell))
    assert len(quoted) > 1
    assert quoted - numbers(section(measured)) == set()


@pytest.mark.parametrize("network", CHOICES)
def test_a_choice_has_a_picture(network):
    (link,) = re.findall(r"\]\((.*?)\)", CHOICES[network][4])
    assert "![" in section(link)


def test_small_networks_are_those_that_the_benchmark_explains():
    program = ast.parse((ROOT / "benchmarks" / "small_networks.py").read_text())
    written = {n.value for n in ast.walk(program) if isinstance(n, ast.Constant)}
    table = section("#small-networks-measured")
    shown = re.findall(r"\| ([^|]+) \| [\d.]+ % \|$", table, re.MULTILINE)
    assert {way.strip("`") for way in shown} - {"chance"} <= written
    assert len(shown) == 14
