"""What depends on the version of JAX stands in one file, and an unknown JAX is a clear error."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax import lax

import jaxlrp as lrp
from jaxlrp import compat

ROOT = Path(lrp.__file__).parent
# Parameters of control flow, calls and derivatives, under any version's names.
OF_JAX_ALONE = """num_consts num_carry ft_in ft_out linear _split_transpose unroll branches
cond_jaxpr body_jaxpr cond_nconsts body_nconsts call_jaxpr fun_jaxpr jvp_jaxpr_fun
fwd_jaxpr_thunk in_specs out_specs in_names out_names newly_manual_axes check_vma
prevent_cse""".split()


def scans(fn, *args):
    return [e for e in jax.make_jaxpr(fn)(*args).eqns if e.primitive.name == "scan"]


@pytest.mark.parametrize("n_consts", [0, 1, 2])
@pytest.mark.parametrize("n_carry", [0, 1, 3])
@pytest.mark.parametrize("n_sequences", [0, 1, 2])
@pytest.mark.parametrize("n_stacked", [0, 2])
def test_parts_of_a_scan_are_read_off_its_shapes(n_consts, n_carry, n_sequences, n_stacked):
    def fn(consts, carry, sequences):
        def step(carry, parts):
            total = sum([c.sum() for c in (*consts, *carry, *parts)], jnp.zeros(()))
            return tuple(c + total for c in carry), tuple(total + i for i in range(n_stacked))

        return lax.scan(step, carry, sequences, length=4)

    # Shapes that would be mistaken for one another: 4 steps of arrays of 4.
    consts = tuple(jnp.ones((4,)) for _ in range(n_consts))
    carry = tuple(jnp.ones((4,)) for _ in range(n_carry))
    sequences = tuple(jnp.ones((4, 4)) for _ in range(n_sequences))
    for eqn in scans(fn, consts, carry, sequences):
        (body,) = compat.bodies(eqn)
        lists = (eqn.invars, eqn.outvars, body.jaxpr.invars, body.jaxpr.outvars)
        parts = compat.scan_parts(*([v.aval.ndim for v in values] for values in lists))
        assert parts.carry == n_carry
        assert len(eqn.invars) - sum(parts) == n_sequences
        assert sum(parts) <= n_consts + n_carry  # constants that are not read may be dropped


def test_operands_in_another_order_are_an_error():
    with pytest.raises(lrp.JaxVersionError, match=re.escape(jax.__version__)):
        compat.scan_parts([2, 1], [1], [1, 1], [1])


def test_a_parameter_that_is_gone_names_the_versions_tried():
    params = compat.Params("scan", {"length": 3, "backwards": False, "unroll": 1})
    assert params["length"] == 3
    with pytest.raises(lrp.JaxVersionError) as raised:
        compat.scan_settings(params)
    message = str(raised.value)
    assert "'scan'" in message and "'reverse'" in message and "backwards" in message
    assert jax.__version__ in message
    assert all(version in message for version in compat.TESTED)


def test_such_an_error_reaches_the_user(monkeypatch):
    """As under a JAX that calls a scan's body by another name."""
    real = compat.Params

    def renamed(primitive, params):
        changed = {("body" if k == "jaxpr" else k): v for k, v in params.items()}
        return real(primitive, changed if primitive == "scan" else params)

    monkeypatch.setattr(compat, "Params", renamed)
    fn = lambda x: lax.scan(lambda c, _: (jnp.tanh(c), None), x, None, length=2)[0]  # noqa: E731
    with pytest.raises(lrp.JaxVersionError, match="no parameter 'jaxpr'"):
        lrp.explain(fn, lrp.Epsilon())(jnp.ones(3))


def test_parameters_of_jax_are_named_in_one_file():
    wanted = re.compile(rf"""["']({"|".join(OF_JAX_ALONE)})["']""")
    for path in ROOT.rglob("*.py"):
        if path.name == "compat.py":
            assert wanted.search(path.read_text())
            continue
        found = [line for line in path.read_text().splitlines() if wanted.search(line)]
        found = [line for line in found if ".params" in line]
        assert not found, f"{path.name}: {found}"


def test_nothing_private_of_jax_is_used():
    for path in ROOT.rglob("*.py"):
        assert "jax._src" not in path.read_text(), path.name
