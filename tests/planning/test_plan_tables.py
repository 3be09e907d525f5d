"""The plan and the ledger as text, HTML, dicts and a diagram."""

import json
import re
from html.parser import HTMLParser

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp as lrp

W = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)
X = np.arange(1.0, 5.0, dtype=np.float32)
LONG = "a_scope_with_a_name_that_is_long/" * 4


def network(x):
    with jax.named_scope(LONG + "first"):
        h = jax.nn.relu(x @ W)
    with jax.named_scope(LONG + "second"):
        h = h.reshape(2, 2).T.reshape(4) @ W
    return h + x


RULES = {"dense": lrp.ZPlus(), "add": lrp.Epsilon(0.25)}


@pytest.fixture(scope="module")
def plan():
    return lrp.plan(network, RULES)(X)


@pytest.fixture(scope="module")
def ledger():
    return lrp.ledger(network, RULES)(X, target=0)


def widest(text):
    return max(map(len, text.split("\n")))


def test_tables_fit_100_columns_and_names_keep_their_ends(plan, ledger):
    for made in (plan, ledger):
        assert widest(str(made)) <= 100 < widest(made.table(width=None))
        assert widest(made.table(width=80)) <= 80
        assert "…" in str(made) and "…" not in made.table(width=None)
        assert re.search(r"…\S*/first", str(made)) and re.search(r"…\S*/second", str(made))
    assert "test_plan_tables.py" in plan.table(width=None)
    assert "test_plan_tables.py" not in str(plan)


def test_a_plan_of_short_names_is_not_cut():
    text = str(lrp.plan(lambda x: x @ W, lrp.Epsilon())(X))
    assert "…" not in text and text.split("\n")[0].split() == "# kind name output rule why".split()


class Cells(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.data = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        self.data.append(data)


def test_html_escapes_names():
    def f(x):
        with jax.named_scope("<script>&"):
            return x @ W

    for made in (lrp.plan(f, lrp.Epsilon())(X), lrp.ledger(f, lrp.Epsilon())(X, target=0)):
        reader = Cells()
        reader.feed(made._repr_html_())
        assert set(reader.tags) == {"table", "thead", "tr", "th", "tbody", "td", "p"}
        assert "<script>&" in reader.data


def test_dicts_are_json_and_have_every_layer(plan, ledger):
    rows = json.loads(json.dumps(plan.to_dicts()))
    assert [row["name"] for row in rows] == [layer.name for layer in plan.layers]
    dense = rows[0]
    assert (dense["kind"], dense["shape"], dense["rule"]) == ("dense", [4], "ZPlus()")
    (last,) = (row for row in ledger.to_dicts() if row["kind"] == "add")
    assert last["relevance_out"] == pytest.approx(float(network(X)[0]), rel=1e-5)
    assert last["loss"] == last["relevance_out"] - last["relevance_in"]
    assert last["rule_loss"] == pytest.approx(last["loss"] - last["stabiliser"] - last["bias"])


def edges(diagram):
    labels = dict(re.findall(r'^  (L\d+)\["(.*?)<br>', diagram, re.MULTILINE))
    found = re.findall(r"^  (\w+) --> (\w+)$", diagram, re.MULTILINE)
    short = {"input": "input", "output": "output"} | {
        k: v.split("/")[-1] for k, v in labels.items()
    }
    return sorted((short[a], short[b]) for a, b in found)


def test_a_diagram_passes_through_moves(plan):
    text = plan.draw()
    (add,) = (layer.name for layer in plan.layers if layer.kind == "add")
    assert edges(text) == sorted(
        [
            ("input", "first"),
            ("input", add),
            ("first", "relu"),
            ("relu", "second"),
            ("second", add),
            (add, "output"),
        ]
    )
    colours = dict(re.findall(r"classDef (rule\d) fill:(#\w+)", text))
    used = re.findall(r'<br>(\S+?)"\]:::(rule\d)', text)
    assert len(set(colours.values())) == len({rule for rule, _ in used}) == 3
    assert len(set(used)) == 3  # one colour for one rule
    assert text.startswith("flowchart TB\n") and plan.draw("LR").startswith("flowchart LR\n")
    with pytest.raises(ValueError, match='"TB", "LR", "BT" or "RL", not \'up\''):
        plan.draw("up")


def test_a_diagram_of_a_loop_and_of_markup():
    def f(x):
        def step(carry, _):
            with jax.named_scope('"]<b>;'):
                return jnp.tanh(carry @ W), None

        return jax.lax.scan(step, x, None, length=3)[0]

    text = lrp.plan(f, lrp.Epsilon())(X).draw()
    assert '"]<b>' not in text and "#34;]#60;b#62;#59;" in text
    found = re.findall(r"^  (\w+) --> (\w+)$", text, re.MULTILINE)
    nodes = re.findall(r"^  (L\d+)\[", text, re.MULTILINE)
    assert len(nodes) == 2
    dense, tanh = nodes
    assert set(found) == {("input", dense), (dense, tanh), (tanh, dense), (tanh, "output")}
