"""The sums of a ledger: the accounts of all layers, and the seeded and arrived relevance."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from jaxlrp.rules.arithmetic import times
from jaxlrp.run.accounts import gross, total
from jaxlrp.run.bound_call import BoundCall
from jaxlrp.run.probes import ACCOUNT
from jaxlrp.run.pull_back import pull_back

# The entries of a ledger besides the accounts of the layers, summed over the examples. `size` is
# the sum of |seeded|, `apart` that of |seeded - arrived|; `broken` counts the examples with NaN.
# `arrived`, `bias`, `stabiliser` and `constants` are summed times the sign of the example's seed.
TOTALS = (
    "samples",
    "broken",
    "relevance_out",
    "relevance_in",
    "size",
    "apart",
    "gross_out",
    "gross_in",
    "arrived",
    "bias",
    "stabiliser",
    "constants",
)


def of_call(call: BoundCall, weights: list[Any]) -> tuple[Any, Any]:
    """The accounts of all layers and the totals, of a planned function on arrays.

    Accounts have the shape (layers, 2, `ACCOUNT`): the sums over the examples, and the sums over
    the examples times the sign of the seed of each. Totals have the shape (`TOTALS`,).
    """
    plan = call.plan
    values, _, relevance, brought = pull_back(call, weights, list(plan.layers))
    seeds = [
        w if plan.seeds.get(o) == "relevance" else times(v, w)
        for o, w, v in zip(call.outputs, weights, values, strict=True)
    ]
    pairs = list(zip(call.outputs, seeds, strict=True))
    static = [(o, s) for o, s in pairs if o not in plan.activity.reached]
    seeded, arrived = total(plan, call.outputs, seeds), total(plan, plan.explained, relevance)
    stray = total(plan, *zip(*static, strict=True)) if static else jnp.zeros_like(seeded)
    sign = jnp.where(seeded < 0, -1.0, 1.0)
    rows = jnp.stack([brought[y] for y in plan.layers]) if plan.layers else _no_rows(weights)
    accounts = jnp.stack([rows.sum(1), (rows * sign[:, None]).sum(1)], axis=1)
    taken = dict(zip(ACCOUNT, accounts[:, 1].sum(0), strict=True))
    found = {
        "samples": jnp.ones_like(seeded),
        "broken": 1.0 - jnp.isfinite(seeded + arrived),
        "relevance_out": seeded,
        "relevance_in": arrived,
        "size": jnp.abs(seeded),
        "arrived": arrived * sign,
        "apart": jnp.abs(seeded - arrived),
        "gross_out": gross(plan, call.outputs, seeds),
        "gross_in": gross(plan, plan.explained, relevance),
        "bias": taken["bias"],
        "stabiliser": taken["stabiliser"],
        "constants": taken["constants"] + jnp.sum(stray * sign),
    }
    return accounts, jnp.stack([jnp.sum(found[name]).astype(accounts.dtype) for name in TOTALS])


def _no_rows(weights: list[Any]) -> Any:
    return jnp.zeros((0, 1, len(ACCOUNT)), jnp.result_type(*weights, jnp.float32))
