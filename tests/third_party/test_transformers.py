"""Attention models that jaxlrp has no code for: what the plan finds, and what relevance obeys.

The expected numbers of layers stand in `text_networks.py` and `senses_networks.py`, worked out from
each architecture: a norm or a softmax that was missed would change them.
"""

import functools
from typing import Any

import jax
import numpy as np
import pytest

import jaxlrp as lrp

from . import by_hand, senses_networks, text_networks  # noqa: F401 (register their models)
from .test_networks import KINDS
from .transformers_networks import BUILDERS, Attention

pytestmark = [
    pytest.mark.third_party,
    pytest.mark.filterwarnings("default"),  # what these packages import warns of its own age
]
every_model = pytest.mark.parametrize("name", list(BUILDERS))

COMPOSITES = {
    "attn": lrp.composites.attn_lrp(),
    "cp": lrp.composites.cp_lrp(),
    "cp without biases": lrp.composites.cp_lrp(bias="ignore"),
}
# Compilation is most of the time that these tests take.
QUICK = {"xla_backend_optimization_level": 0}


@functools.cache
def load(name: str, dtype: str) -> Attention:
    with jax.enable_x64(dtype == "float64"):
        return BUILDERS[name](dtype)


@functools.cache
def explained(name: str, dtype: str, rules: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The logits that were asked for, and relevance by name of what was explained."""
    with jax.enable_x64(dtype == "float64"):
        model = load(name, dtype)
        fn = lrp.value_and_relevance(model.fn, COMPOSITES[rules], **model.explained)
        jitted = jax.jit(lambda *args: fn(*args, target=target(model)), compiler_options=QUICK)
        logits, relevance = jitted(*model.args)
        relevance = relevance if model.embeddings else {"": relevance}
        assert logits.dtype == dtype
        assert all(r.dtype == dtype for r in relevance.values())
        asked = np.take_along_axis(np.asarray(logits), target(model)[:, None], axis=1)[:, 0]
        return asked, {key: np.asarray(value) for key, value in relevance.items()}


def target(model: Attention) -> np.ndarray:
    return np.arange(model.args[1].shape[0]) % 2


def total(relevance: dict[str, np.ndarray]) -> Any:
    """The sum over everything that was explained, per sample."""
    return sum(r.reshape(len(r), -1).sum(axis=1) for r in relevance.values())


@every_model
@pytest.mark.usefixtures("x32")
@pytest.mark.parametrize("rules", ["attn", "cp"])
def test_plan_finds_every_layer(name, rules):
    model = load(name, "float32")
    shapes = jax.eval_shape(lambda *args: args, *model.args)
    plan = lrp.plan(model.fn, COMPOSITES[rules], **model.explained)(*shapes)
    found = {kind: plan.count(kind) for kind in KINDS if plan.count(kind)}
    assert found == model.counts, str(plan)
    names = [layer.name for layer in plan.layers if layer.kind == "embed"]
    assert all(sum(n.endswith(end) for n in names) == 1 for end in model.embeddings), names


@every_model
@pytest.mark.parametrize("rules", ["attn", "cp"])
def test_single_precision_agrees_with_double(name, rules):
    # Single precision rounds at 6e-8; the sums in a few dozen layers cancel to some extent.
    value, relevance = explained(name, "float32", rules)
    exact_value, exact = explained(name, "float64", rules)
    np.testing.assert_allclose(value, exact_value, rtol=1e-4)
    assert relevance.keys() == exact.keys()
    for key, r in exact.items():
        assert np.isfinite(relevance[key]).all()
        assert np.linalg.norm(r) > 0
        assert np.linalg.norm(relevance[key] - r) <= 1e-5 * np.linalg.norm(r), key


@every_model
def test_cp_lrp_conserves_without_biases(name):
    model = load(name, "float64")
    if model.loses is None:
        value, relevance = explained(name, "float64", "cp without biases")
        mass = total({key: np.abs(r) for key, r in relevance.items()})
        assert (np.abs(total(relevance) - value) <= 1e-10 * mass).all()
    else:
        fn = lrp.ledger(model.fn, COMPOSITES["cp without biases"], **model.explained)
        ledger = fn(*model.args, target=target(model))
        bound = 1e-10 * max(abs(entry.relevance_out) for entry in ledger.layers)
        assert {e.kind for e in ledger.layers if abs(e.loss) > bound} == {model.loses}


@every_model
@pytest.mark.parametrize("rules", ["attn", "cp"])
def test_what_a_mask_hides_gets_exactly_nothing(name, rules):
    model = load(name, "float32")
    if model.unseen is None:
        pytest.skip("this model hides nothing from itself: it has no mask")
    part, hidden = model.unseen
    _, relevance = explained(name, "float32", rules)
    chosen = [r for key, r in relevance.items() if part in key]
    assert chosen
    for r in chosen:
        np.testing.assert_array_equal(np.abs(r).max(axis=-1) == 0, hidden)


BY_HAND = """bert roberta albert electra distilbert roformer bigbird gpt2 gptj gpt_neo llama mistral
    gemma opt bloom bart""".split()


@pytest.mark.parametrize("name", BY_HAND)
def test_attn_lrp_is_what_one_gets_by_hand(name, monkeypatch):
    model = load(name, "float64")
    _, relevance = explained(name, "float64", "attn")
    wanted = by_hand.attn_lrp(model, target(model), monkeypatch)
    assert len(wanted) == len(relevance)
    for key, r in relevance.items():
        distance = min(np.linalg.norm(r - w) for w in wanted.values() if w.shape == r.shape)
        assert distance <= 1e-12 * np.linalg.norm(r), key
