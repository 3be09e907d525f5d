"""Planning looks at each equation a bounded number of times: counted, not timed."""

import sys

import jax
import jax.numpy as jnp
import pytest

import jaxlrp as lrp

W = jnp.ones((4, 4))


def branches(n):
    return lambda x: sum(jax.nn.relu(x @ W * (i + 1)) for i in range(n))


def shifts(n):
    def fn(x):
        y = x
        for _ in range(n):
            y = y + x * 0.01
        return y

    return fn


def activations(n):
    def fn(x):
        for _ in range(n):
            x = jnp.tanh(x)
        return x

    return fn


def blocks(n):
    def fn(x):
        for _ in range(n):
            h = (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-6)
            x = x + jax.nn.gelu(h @ W) @ W
        return x

    return fn


def terms(n):
    """A sum in which biases and stopped terms stand anywhere."""

    def fn(x):
        y = jnp.tanh(x)
        for i in range(n):
            y = jnp.sin(x * i) + (y + W[i % 4]) - jax.lax.stop_gradient(jnp.cos(x * i))
        return y

    return fn


def factors(n):
    """A product of functions of two values in turn."""

    def fn(x):
        a, b = x @ W, jnp.exp(x)
        y = a
        for _ in range(n):
            y = (y * jnp.tanh(b)) / jnp.cosh(a)
        return y

    return fn


def signs(n):
    def fn(x):
        y = x
        for i in range(n):
            y = -(jnp.sin(x * i) - (y + W[0]))
        return jax.nn.relu(y)

    return fn


@pytest.mark.parametrize("make", [branches, shifts, activations, blocks, terms, factors, signs])
def test_twice_the_equations_are_twice_the_work(make):
    def work(n):
        """Lines of jaxlrp that planning runs."""
        fn, lines = make(n), 0

        def trace(frame, event, _):
            nonlocal lines
            if "jaxlrp" not in frame.f_code.co_filename:
                return None
            lines += event == "line"
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            lrp.plan(fn, lrp.composites.epsilon_plus())(jnp.ones((2, 4)))
        finally:
            sys.settrace(before)
        return lines

    work(2)  # what is found out once
    few, some, many = work(8), work(16), work(32)
    assert 0 < many - some <= 2.1 * (some - few)
