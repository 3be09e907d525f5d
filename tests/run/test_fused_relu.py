"""A layer that runs together with the ReLU after it: the same relevance as apart."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp as lrp
from tests.compare import assert_close
from tests.numpy_jaxpr import in_numpy

RNG = np.random.default_rng(3)
W, V, U = RNG.normal(size=(6, 7)), RNG.normal(size=(7, 5)), RNG.normal(size=(5, 3))
SHIFT, X = RNG.normal(size=7), RNG.normal(size=(4, 6))
KERNEL = RNG.normal(size=(3, 1, 2))


def network(x):
    h = jax.lax.conv_general_dilated(
        x[..., None], KERNEL, (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC")
    )
    h = jax.nn.relu(jax.nn.relu(h).reshape(len(x), -1) @ jnp.tile(W, (2, 1)) + SHIFT)
    return jax.nn.relu(h @ V) @ U


class OfDensity(lrp.LinearRule):
    """Epsilon(0) written on the density that arrives."""

    def propagate(self, layer):
        return layer.vjp(layer.density)


class OfArrived(lrp.LinearRule):
    """And on what arrives, whatever it is."""

    def propagate(self, layer):
        arrived = layer.arrived if layer.arriving == "density" else layer.density
        return layer.vjp(arrived)


class OfSize(lrp.LinearRule):
    """A denominator that looks at z where it is negative too."""

    def propagate(self, layer):
        size = jnp.abs(layer.z).sum(-1, keepdims=True)
        return layer.vjp(layer.over(jnp.broadcast_to(size, layer.z.shape)))


RULES = [
    lrp.Epsilon,
    functools.partial(lrp.Epsilon, relative=True),
    lrp.ZPlus,
    lrp.AlphaBeta,
    lrp.Gamma,
    lrp.Flat,
    lrp.WSquare,
    lambda **options: lrp.ZBox(-9.0, 9.0, **options),
    OfDensity,
    OfArrived,
    OfSize,
]


@pytest.mark.parametrize(
    ("epsilon", "bias"), [(0.0, "absorb"), (0.0, "ignore"), (1e-3, "distribute")]
)
@pytest.mark.parametrize("rule", RULES)
def test_a_layer_and_the_relu_after_it(rule, epsilon, bias):
    """A ReLU runs apart where somebody looks between: relevance there is what `layers=` asks."""
    rules = {kind: rule(epsilon=epsilon, bias=bias) for kind in ("dense", "conv")}
    together = in_numpy(lrp.explain(network, rules))(X)
    apart, _ = in_numpy(lrp.explain(network, rules, layers=[lambda layer: True]))(X)
    assert_close(together, apart, tolerance=1e-12)


COMPOSITES = {name: getattr(lrp.composites, name) for name in lrp.composites.__all__}
COMPOSITES["epsilon_gamma_box"] = functools.partial(COMPOSITES["epsilon_gamma_box"], -9.0, 9.0)
COMPOSITES["deep_taylor_bounded"] = functools.partial(COMPOSITES["deep_taylor_bounded"], -9.0, 9.0)


@pytest.mark.parametrize("name", COMPOSITES)
def test_the_ledger_accounts_for_what_explain_returns(name):
    """The ledger runs every layer apart: what it lists as arrived is what `explain` returns."""
    maps = [COMPOSITES[name]()]
    if "bias" in inspect.signature(COMPOSITES[name]).parameters:
        maps.append(COMPOSITES[name](bias="ignore"))
    for rules in maps:
        relevance = in_numpy(lrp.explain(network, rules))(X)
        account = in_numpy(lrp.ledger(network, rules))(X)
        np.testing.assert_allclose(account.relevance_in, jnp.sum(relevance), rtol=1e-9)
