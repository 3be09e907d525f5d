"""What compiled explanations cost beside the gradient: counted, not timed.

Products, transposed arrays and bytes of temporaries are read off the program that XLA made.
Collectives are counted in test_devices.py, equations in test_traced_size.py, the products that a
rule asks for in test_exact.py.
"""

import functools
import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import pytest

import jaxlrp as lrp
from tests.cost_networks import NETWORKS

COMPOSITES = lrp.composites
RULES = {
    "lrp_zero": COMPOSITES.lrp_zero(),
    "zplus": lrp.ZPlus(),
    "plus_flat": COMPOSITES.epsilon_plus_flat(),
    "gamma_box": COMPOSITES.epsilon_gamma_box(low=-3.0, high=3.0),
    "alpha2_beta1": COMPOSITES.epsilon_alpha2_beta1(),
    "attn": COMPOSITES.attn_lrp(),
    "cp": COMPOSITES.cp_lrp(),
    "lstm": COMPOSITES.lstm_lrp_all(),
}


class Extra(NamedTuple):
    """What an explanation takes beside the gradient: products, transposes, times the temporaries.

    It takes exactly these products, and of the others at most as much.
    """

    products: int
    transposes: int
    temporaries: float
    why: str


EXPECTED = {
    ("perceptron", "lrp_zero"): Extra(0, 0, 1.05, "the same derivative"),
    ("perceptron", "zplus"): Extra(
        6,
        0,
        10.7,
        "one for each layer, three for the first, whose input has both signs; the splits",
    ),
    ("perceptron", "zplus, prepared"): Extra(6, 0, 1.9, "the splits are arguments"),
    ("convolutional", "plus_flat"): Extra(
        3, 0, 1.2, "one for each of two convolutions; a window sum for the first"
    ),
    ("convolutional", "gamma_box"): Extra(
        5, 1, 1.4, "one for each of two convolutions, three for the box; a kernel for each sign"
    ),
    ("residual", "alpha2_beta1"): Extra(
        19, 5, 2.9, "three for each of four convolutions, seven for the first; all splits at once"
    ),
    ("residual", "alpha2_beta1, prepared"): Extra(
        19, -5, 2.3, "kernels are held transposed; contributions of all layers at once"
    ),
    ("transformer", "attn"): Extra(0, 0, 1.0, "the same products"),
    # Below 0.8 under JAX 0.10.2; 0.83 under 0.12 (285 of 345 kB).
    ("recomputed", "cp"): Extra(-3, 0, 0.85, "none for stopped weights of attention"),
    ("scanned", "attn"): Extra(0, 0, 1.1, "the same products, in the loop too"),
    ("gated", "attn"): Extra(0, 0, 0.9, "the same products"),
    ("recurrent", "lstm"): Extra(0, 0, 1.1, "the same products, in the loop too"),
}


class Cost(NamedTuple):
    products: int
    transposes: int
    temporaries: int


def cost(step, *args):
    compiled = jax.jit(step).lower(*args).compile()
    text = compiled.as_text()
    products = re.findall(r"[\s)}] (?:dot|convolution)\(", text)
    products += re.findall(r'custom_call_target="[^"]*(?:matmul|dot|conv)', text)
    transposes = re.findall(r"[\s)}] transpose\(", text)
    memory = compiled.memory_analysis().temp_size_in_bytes
    return Cost(len(products), len(transposes), memory)


@functools.cache
def of_gradient(name):
    fn, p, x = NETWORKS[name]
    return cost(lambda p, x: jax.value_and_grad(lambda x: fn(p, x)[:, 1].sum())(x), p, x)


def of_explanation(name, rules, prepared):
    fn, p, x = NETWORKS[name]
    explain = lrp.value_and_relevance(fn, rules, argnums=1)
    examples = jax.eval_shape(fn, p, x).shape[0]
    if prepared:
        p = jax.eval_shape(lrp.prepare(fn, rules, argnums=1), p, x)
    return cost(lambda p, x: explain(p, x, target=jnp.ones(examples, int)), p, x)


@pytest.mark.usefixtures("x32")
@pytest.mark.parametrize(("name", "rules"), EXPECTED)
def test_cost_beside_the_gradient(name, rules):
    expected, gradient = EXPECTED[name, rules], of_gradient(name)
    rule, _, prepared = rules.partition(", ")
    found = of_explanation(name, RULES[rule], bool(prepared))
    assert found.products - gradient.products == expected.products, expected.why
    assert found.transposes - gradient.transposes <= expected.transposes, expected.why
    assert found.temporaries <= expected.temporaries * gradient.temporaries, expected.why


def test_every_network_is_counted():
    assert {name for name, _ in EXPECTED} == set(NETWORKS)
