"""Random feed-forward programs against a slow reference that shares no code with the library."""

from __future__ import annotations

import numpy as np
import pytest

from tests import fuzzing
from tests import random_programs as draws
from tests.layer_reference import forward
from tests.program_layers import layers_of, reference_rules


def compared(seed: int) -> tuple[float, int] | None:
    """Distance of library and reference for one program, and its layers; None if it has none."""
    one, rules = draws.program(seed), draws.RULES[seed % len(draws.RULES)]
    read, named = layers_of(one), reference_rules(rules)
    if read is None or named is None or draws.ties(one):
        return None
    layers, outputs = read
    found = fuzzing.explained(one, rules)
    assert not isinstance(found, str), f"{seed}: {found}"
    value, actual = found
    if not fuzzing.is_steady(actual):
        return None
    made = [forward(layers, row.reshape(-1)) for row in one.x]
    values = tuple(np.stack([row[number] for row in made]) for number in outputs)
    gap = fuzzing.distance(value.reshape(-1), fuzzing.flat(values).reshape(-1))
    assert gap < 1e-12, f"{seed}: the layers compute something else"
    return fuzzing.distance(fuzzing.reference(one, rules), actual), len(layers)


@pytest.mark.parametrize("start", range(0, 80, 20))
def test_programs_are_explained_as_their_layers(start):
    met = 0
    for seed in range(start, start + 20):
        found = compared(seed)
        if found is not None:
            assert found[0] <= fuzzing.TOLERANCE, f"{seed}: {found[0]:.1e} of the largest"
            met += 1
    assert met > 0
