"""Several devices, by JAX's own means: shardings under `jit`, `shard_map` around and inside.

The programs in tests/devices/ run on eight simulated devices in processes of their own, so that
the other tests keep the one device that they have. Each runs once and serves all its tests.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHARDINGS = ("data", "tensor", "both")
NETWORK_RULES = {
    "mlp": ("lrp_zero", "attn_lrp", "epsilon_plus_flat", "epsilon_alpha2_beta1"),
    "cnn": ("lrp_zero", "epsilon_plus_flat", "epsilon_alpha2_beta1"),
    "transformer": ("attn_lrp", "epsilon_plus_flat"),
}
RULES = ("lrp_zero", "zplus", "epsilon_plus_flat", "epsilon_alpha2_beta1")
COLLECTIVES = ("psum", "all_gather", "ppermute", "psum_scatter", "all_to_all")


def run(*arguments: str, **environment: str) -> str:
    """What Python printed when started with these arguments, and JAX's own settings."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "XLA_"))}
    done = subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        cwd=ROOT,
        env=kept | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@functools.cache
def results(program: str, *args: str) -> dict[str, dict]:
    """What a program of tests/devices/ found, by case."""
    quick = os.environ.get("XLA_FLAGS", "")  # tests/quick_jax.py; the collectives are the same
    return json.loads(run("-m", f"tests.devices.{program}", *args, XLA_FLAGS=quick))


CASES = [
    pytest.param(network, sharding, rule, id=f"{network}-{sharding}-{rule}")
    for network, rules in NETWORK_RULES.items()
    for sharding in SHARDINGS
    for rule in rules
]


@pytest.mark.parametrize(("network", "sharding", "rule"), CASES)
def test_a_sharding_changes_nothing(network, sharding, rule):
    found = results("sharded", network)[f"{sharding}/{rule}"]
    assert found["distance"] <= 1e-10
    assert found["devices"] == 8


@pytest.mark.parametrize(("network", "sharding", "rule"), CASES)
def test_no_more_communication_than_the_gradient(network, sharding, rule):
    """A stabilised rule reads what the last split layer computes, and a gradient does not.

    So it sums that output over the devices too: the logits of the MLP, and in the transformer,
    whose blocks are recomputed, the output of each block's last layer.
    """
    found = results("sharded", network)[f"{sharding}/{rule}"]
    allowed = dict(found["gradient"])
    assert sharding == "data" or sum(allowed.values()) > 0
    if sharding != "data" and network != "cnn" and rule.startswith("epsilon"):
        allowed["all-reduce"] += 1
    assert found["collectives"] == allowed


@pytest.mark.parametrize("sharding", SHARDINGS)
def test_prepared_parameters_lie_on_the_devices_as_the_parameters(sharding):
    found = results("sharded", "cnn")[f"{sharding}/epsilon_alpha2_beta1"]
    assert found["prepared"]["held"]
    assert found["prepared"]["distance"] <= 1e-10
    assert found["prepared"]["collectives"] == found["collectives"]


def distance(case: str) -> float:
    found = results("mapped")[case]
    assert "error" not in found, found["error"]
    return found["distance"]


@pytest.mark.parametrize("check", ["checked", "unchecked"])
@pytest.mark.parametrize("target", ["", "/all"], ids=["class", "every-output"])
@pytest.mark.parametrize("rule", RULES)
def test_shard_map_around_an_explanation(rule, target, check):
    assert distance(f"around/{rule}/{check}{target}") <= 1e-10


@pytest.mark.parametrize("rule", RULES)
def test_an_explanation_of_psum_inside_shard_map(rule):
    assert distance(f"around/{rule}/psum") <= 1e-10


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("collective", COLLECTIVES)
def test_shard_map_inside_the_function(collective, rule):
    assert distance(f"inside/{collective}/{rule}") <= 1e-10


@pytest.mark.parametrize("rule", ["box", "squares"])
def test_rules_with_a_constant_input_before_a_scattered_sum(rule):
    assert distance(f"inside/psum_scatter/{rule}") <= 1e-10


@pytest.mark.parametrize("collective", COLLECTIVES)
def test_shard_map_inside_the_function_unchecked(collective):
    assert distance(f"inside/{collective}/unchecked") <= 1e-10


@pytest.mark.parametrize("check", ["checked", "unchecked"])
def test_the_ledger_of_layers_inside_shard_map(check):
    """Accounts are of all devices: sums of parts, and once what is the same everywhere."""
    assert distance(f"ledger/{check}") <= 1e-9  # differences of sums that nearly cancel


@pytest.mark.parametrize("rule", [*RULES, "gamma_box", "flat", "ignored"])
@pytest.mark.parametrize("network", ["middle", "two", "before", "repeated", "channels"])
def test_a_sum_over_devices_is_part_of_the_layer_before_it(network, rule):
    """Biases, scales and rules see the whole sum, of which each device computes a part."""
    assert distance(f"split/{network}/{rule}/checked") <= 1e-10
    if rule == "gamma_box":
        assert distance(f"split/{network}/{rule}/unchecked") <= 1e-10


@pytest.mark.parametrize("rule", [*RULES, "unchecked"])
@pytest.mark.parametrize("network", ["joined", "parts"])
def test_scales_and_shifts_that_move_inside_shard_map(network, rule):
    assert distance(f"inside/{network}/{rule}") <= 1e-10


@pytest.mark.parametrize("collective", COLLECTIVES)
def test_collectives_conserve(collective):
    found = results("mapped")[f"inside/{collective}/lrp_zero"]
    assert "error" not in found, found["error"]
    assert abs(found["total"] - found["output"]) <= 1e-10 * abs(found["output"])


@pytest.mark.parametrize("place", ["data", "both", "all"])
@pytest.mark.parametrize("rule", RULES)
def test_a_mesh_with_explicit_axes(rule, place):
    assert distance(f"explicit/{rule}/{place}") <= 1e-10


def test_eager_parts_on_two_devices():
    assert distance("two places") <= 1e-10


def test_two_processes_explain_one_batch():
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"
    said = run("examples/two_processes.py", XLA_FLAGS=flags)
    lines = [line for line in said.splitlines() if line.startswith("process ")]
    assert sorted(line.split(";")[0] for line in lines) == [
        "process 0 of 2: 8 of 16 rows here",
        "process 1 of 2: 8 of 16 rows here",
    ]
    assert all("100.0% of all 16 logits reaches the inputs" in line for line in lines)


def test_a_large_model_costs_the_memory_of_its_gradient():
    """Seven billion parameters' shape with two of its blocks, compiled and never allocated.

    In float32, where both compute alike: over bfloat16 relevance keeps float32 cotangents, and JAX
    0.12's gradient no longer copies its weights to float32 there.
    """
    said = run("benchmarks/llama.py", "--layers", "2", "--length", "128", "--dtype", "float32")
    table = [[cell.strip() for cell in line.split("|")] for line in said.splitlines()[5:]]
    assert [row[1].split(",")[0] for row in table] == ["gradient", "attn_lrp", "cp_lrp", "attn_lrp"]
    assert all(float(row[6]) <= 1.1 for row in table[:3])
    # With wrt= the table of embeddings is one more argument, and no more is computed.
    assert float(table[3][4]) <= 1.1 * float(table[0][4])
    assert table[0][7] == table[1][7] == table[2][7]  # the same collectives
