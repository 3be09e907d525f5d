"""What the table of kinds says, by hand."""

import pytest

from jaxlrp.graph.kinds import keeps_shares


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        ((), True),
        (("structural", "affine", "norm"), True),
        (("dense",), True),  # a mix over heads
        (("activation", "dense"), True),  # shares are clipped, then mixed
        (("dense", "activation"), False),  # a mix may be negative
        (("dense", "affine", "activation"), False),
        (("activation", "dense", "activation"), False),
        (("conv",), False),
        (("structural", "softmax"), False),
        (("unsupported",), False),
    ],
)
def test_what_keeps_shares(kinds, expected):
    assert keeps_shares(*kinds) == expected
