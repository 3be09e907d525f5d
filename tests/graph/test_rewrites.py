"""Relevance depends on what a function computes, not on how it is written.

Here: every rewrite alone in a program made for it, and one random chain of rewrites under each rule
map. `make fuzz` goes on from there.
"""

from __future__ import annotations

import functools
import random

import jax
import numpy as np
import pytest

import jaxlrp as lrp
from tests import fuzzing, rewrites
from tests import random_programs as draws
from tests.programs import Program
from tests.random_programs import Builder

# Under these a sign, a bias, a reach or a further layer shows.
RULES = (
    "lrp.ZPlus()",
    "lrp.AlphaBeta(2.0, 1.0)",
    "lrp.WSquare(bias='distribute')",
    "lrp.Epsilon(0.1)",
    "lrp.composites.epsilon_plus_flat()",
)


def _spelling(op: str):
    """dense, bias, the op, dense"""

    def home(b: Builder) -> None:
        if op in ("max_pool", "avg_pool"):
            b.conv()
            b.spelled(op, b.v, shape=(2, 2, b.width))
            b.mean()
        elif op in ("scores", "mix", "half", "mask", "softmax"):
            q, k, v = _heads(b)
            scores = b.line("scores", rewrites.SPELLINGS["scores"]["swapped"], q, k, shape=(3, 3))
            b.line("half", rewrites.SPELLINGS["half"]["product"], scores)
            mask = b.learned(3, 3)
            b.arrays[mask] = np.tril(np.ones((3, 3), bool))
            b.line("mask", rewrites.SPELLINGS["mask"]["where"], b.v, mask)
            weights = b.line("softmax", rewrites.SPELLINGS["softmax"]["nn"], b.v)
            b.line("mix", rewrites.SPELLINGS["mix"]["matmul"], weights, v, shape=(3, 3))
        elif op in ("tower", "recur", "fourier", "power", "mean", "straight_through"):
            name = {"recur": "recurrence", "power": "spectrum", "straight_through": "quantised"}
            b.dense()
            getattr(b, name.get(op, op))()
        elif op in ("layer_norm", "rms_norm", "l2_norm", "batch_norm"):
            b.dense(out=4, bias=True)
            b.spelled("relu", b.v)
            count = {"layer_norm": 2, "rms_norm": 1, "l2_norm": 0, "batch_norm": 3}[op]
            args = [b.learned(4, shift=0.5) for _ in range(count)]
            b.spelled(op, b.v, *args, *([b.positive(4)] if op == "batch_norm" else []))
        else:
            b.dense(out=4, bias=True)
            b.spelled(op, b.v)
        b.dense(out=2, bias=False)

    return home


def _heads(b: Builder) -> list[str]:
    start, shape, heads = b.v, b.shape, []
    for _ in range(3):
        b.v, b.shape = start, shape
        heads.append(b.dense(out=3, bias=True))
    return heads


def _linear(b: Builder) -> None:
    """Scales, shifts and views around dense layers."""
    b.scale()
    b.dense(out=4, bias=True)
    b.line("flip", "{0}[..., ::-1]", b.v)
    b.spelled("relu", b.v)
    b.dense(out=3, bias=False)
    b.scale()
    b.line("flip", "{0}[..., ::-1]", b.v)


def _normalised(b: Builder) -> None:
    """A batch norm on either side of a dense layer."""
    for _ in range(2):
        b.batch_norm()
        b.dense(out=4, bias=False)
        b.batch_norm()
        b.spelled("relu", b.v)


def _branches(b: Builder) -> None:
    """Sums of three terms and a value with several readers."""
    b.dense(out=4, bias=True)
    h = b.spelled("tanh", b.v)
    one = b.line("add", "{0} + {1}", h, b.spelled("silu", h))
    b.v = h
    two = b.dense(out=4, bias=False)
    b.line("add", "{0} + {1}", one, two)
    b.spelled("relu", b.v)
    b.dense(out=2, bias=False)


def _gated(b: Builder) -> None:
    """A product of three."""
    start = b.v
    one = b.dense(out=4, bias=True)
    b.v, b.shape = start, (4,)
    two = b.spelled("sigmoid", b.dense(out=4, bias=True))
    b.line("mul", "{0} * {1}", one, two)
    b.line("scale", "{0} * {1}", b.v, b.learned(4, shift=0.5))


def _pictures(b: Builder) -> None:
    w = b.learned(3, 3, 2, 3, scale=0.3)
    text = (
        "lax.conv_general_dilated({0}, {1}, (1, 1), ((1, 1), (1, 1)),"
        " dimension_numbers=('NHWC', 'HWIO', 'NHWC'))"
    )
    b.batch_norm()
    b.line("conv", text, b.v, w, shape=(4, 4, 3), pads=((1, 1), (1, 1)), stride=1)
    b.batch_norm()
    b.spelled("relu", b.v)
    b.dense(out=2, bias=True)


def _sums(b: Builder) -> None:
    """Two biases after one another, and two scales."""
    b.dense(out=4, bias=True)
    b.bias()
    b.spelled("tanh", b.v)
    b.scale()
    b.scale()
    b.dense(out=2, bias=True)


HOMES = {
    "linear": (_linear, (4,)),
    "sums": (_sums, (4,)),
    "normalised": (_normalised, (4,)),
    "branches": (_branches, (4,)),
    "gated": (_gated, (4,)),
    "pictures": (_pictures, (4, 4, 2)),
    **{
        op: (
            _spelling(op),
            (4, 4, 2)
            if op in ("max_pool", "avg_pool")
            else (3, 4)
            if op in ("scores", "mix", "half", "mask", "softmax", "recur", "mean")
            else (4,),
        )
        for op in rewrites.SPELLINGS
    },
}


@functools.cache
def home(name: str) -> Program:
    make, shape = HOMES[name]
    rng = random.Random(sum(map(ord, name)) + (name == "rms_norm"))
    rng.random = lambda: 0.0  # the first spelling of everything
    build = Builder(rng, shape)
    make(build)
    x = np.round(build.draw.normal(size=(2, *shape)), 3)
    x = np.concatenate([x, np.nextafter(x, 9.0)])
    return Program(tuple(build.nodes), build.v, x, build.arrays).pruned()


@functools.cache
def explained(name: str, rules: str):
    return fuzzing.explained(home(name), rules)


def places(name: str) -> tuple[str, Program]:
    """Where a rewrite applies: the home of its op, or a place where it could cut a layer."""
    op = name.split(":")[0]
    for other in [op] if op in rewrites.SPELLINGS else list(HOMES):
        found = [rewrites.apply(home(other), name, place) for place in range(16)]
        found = [p for p in found if p is not None]
        for program in found:
            if name not in rewrites.MOVED or _cuts(program):
                return other, program
    raise AssertionError(f"{name} applies nowhere")


def _cuts(program: Program) -> bool:
    """Whether something stands between a layer and its bias."""
    return any(n.op == "bias" and program.by_name[n.args[0]].op == "text" for n in program.nodes)


FIRST = {f"{op}: {next(iter(texts))}" for op, texts in rewrites.SPELLINGS.items()}


@pytest.mark.parametrize("name", [n for n in rewrites.NAMES if n not in FIRST])
def test_each_rewrite_keeps_value_and_relevance(name, request):
    if name in fuzzing.KNOWN:
        request.applymarker(pytest.mark.xfail(reason=fuzzing.KNOWN[name], strict=True))
    rules = RULES[rewrites.NAMES.index(name) % len(RULES)]
    if not draws.fits(name, rules):
        rules = "lrp.ZPlus()"
    where, program = places(name)
    expected, actual = explained(where, rules), fuzzing.explained(program, rules)
    assert not isinstance(expected, str), expected
    assert fuzzing.is_steady(expected[1])
    assert not isinstance(actual, str), actual
    assert fuzzing.distance(expected[0], actual[0]) <= fuzzing.TOLERANCE
    gap = fuzzing.distance(expected[1], actual[1])
    assert gap <= fuzzing.TOLERANCE, f"{gap:.1e} under {rules}\n{program.source()}"


@pytest.mark.parametrize("number", range(len(draws.RULES)))
def test_random_chains_of_rewrites(number):
    case = fuzzing.draw(0, number)
    outcome = fuzzing.run(case)
    assert not outcome.failed, fuzzing.report(case, case.chain, outcome)


@pytest.mark.parametrize("number", [0, 3, 28, 35])
def test_programs_run_in_numpy_as_in_jax(number):
    case = fuzzing.draw(0, number)
    one = draws.program(case.seed)
    fn = lrp.value_and_relevance(one.build(), draws.rule_map(case.rules))
    value, relevance = jax.tree.map(np.asarray, jax.jit(fn)(one.x, one.passed))
    for compiled, run in zip((fuzzing.flat(value), relevance), fuzzing.explained(one, case.rules)):
        assert fuzzing.distance(compiled, run) < 1e-10


def test_there_are_rewrites_of_many_kinds():
    assert len(rewrites.NAMES) >= 40
    assert set(draws.CHANGES_KIND | draws.SPLITS_FEATURES) <= set(rewrites.NAMES)
