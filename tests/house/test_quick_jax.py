"""A JAX that is made in another way makes the tests slower, and fails none of them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from tests import quick_jax

PLACE = "jax._src.interpreters.mlir"
mlir = pytest.importorskip(PLACE)


def lowered():
    return jax.jit(lambda x: jnp.sin(x) + 3.0).lower(1.0).as_text()


def test_without_the_function(monkeypatch):
    monkeypatch.delattr(mlir, "make_ir_context", raising=False)
    assert quick_jax.lower_in_one_context() is False
    assert not hasattr(mlir, "make_ir_context")


def test_without_the_module(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, PLACE, None)
    monkeypatch.delattr("jax._src.interpreters.mlir")
    assert quick_jax.lower_in_one_context() is False


def test_programs_that_may_not_share_a_context(monkeypatch):
    if not hasattr(mlir, "make_ir_context"):
        pytest.skip("this JAX has no such function")
    make, made = mlir.make_ir_context, []

    def once(*args, **options):
        made.append(make(*args, **options))
        if len(made) == 1:
            return object()  # a context that lowering does not take
        return made[-1]

    monkeypatch.setattr(mlir, "make_ir_context", once)
    assert quick_jax.lower_in_one_context() is False
    assert mlir.make_ir_context is once
    assert "sine" in lowered()


def test_a_setting_that_is_gone(capsys):
    quick_jax._set("jax_has_no_such_setting", 1)
    assert "jax_has_no_such_setting: JAX" in capsys.readouterr().err


def test_what_is_lowered_stays_the_same(monkeypatch):
    if not hasattr(mlir, "make_ir_context"):
        pytest.skip("this JAX has no such function")
    before = lowered()
    monkeypatch.setattr(mlir, "make_ir_context", mlir.make_ir_context)
    assert quick_jax.lower_in_one_context() is True
    assert lowered() == before
