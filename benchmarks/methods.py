"""What each companion method costs, in gradients of the same function in the same process.

Processor time, of all threads: other programs on the machine matter little.

python benchmarks/methods.py            # a table in Markdown
python benchmarks/methods.py --size 64 --rounds 20
python benchmarks/methods.py --only smooth_grad occlusion
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

import jaxlrp as lrp
from jaxlrp import composites, methods

LAST = lrp.last("activation")


def network(key, width: int = 32):
    """Six convolutions with biases, two maxima, a mean and a dense layer; ten classes."""
    channels = [3, width, width, 2 * width, 2 * width, 4 * width, 4 * width]
    keys = jax.random.split(key, 7)
    kernels = [
        jax.random.normal(k, (3, 3, a, b)) * np.sqrt(2 / (9 * a))
        for k, a, b in zip(keys, channels[:-1], channels[1:], strict=False)
    ]
    biases = [0.01 * jnp.ones(b) for b in channels[1:]]
    head = jax.random.normal(keys[-1], (channels[-1], 10)) / np.sqrt(channels[-1])

    def logits(params, x):
        kernels, biases, head = params
        for n, (kernel, bias) in enumerate(zip(kernels, biases, strict=True)):
            numbers = ("NHWC", "HWIO", "NHWC")
            x = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=numbers)
            x = jax.nn.relu(x + bias)
            if n in (1, 3):
                window = (1, 2, 2, 1)
                x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, window, "VALID")
        return x.mean((1, 2)) @ head

    return logits, (kernels, biases, head)


def explanations(f: Callable, size: int) -> dict[str, tuple[Callable, bool]]:
    """By name: a function of (params, x, target[, key]), and whether it takes a key."""
    k = {"argnums": 1}
    squares = np.arange(size)
    segments = (squares[:, None] * 4 // size * 4 + squares * 4 // size)[..., None]
    black = np.zeros((10, 1, 1, 1, 1), np.float32)
    plus = lrp.explain(f, composites.epsilon_plus(), argnums=1)
    return {
        "`gradient`": (methods.gradient(f, **k), False),
        "`gradient_x_input`": (methods.gradient_x_input(f, **k), False),
        "`sensitivity`": (methods.sensitivity(f, **k), False),
        "`explain`, `epsilon_plus`": (plus, False),
        "`explain`, `epsilon_plus_flat`": (
            lrp.explain(f, composites.epsilon_plus_flat(), argnums=1),
            False,
        ),
        "`guided_backprop`": (methods.guided_backprop(f, **k), False),
        "`deconvnet`": (methods.deconvnet(f, **k), False),
        "`excitation_backprop`": (methods.excitation_backprop(f, **k), False),
        "`grad_cam`": (methods.grad_cam(f, LAST, **k), False),
        "`layer_cam`": (methods.layer_cam(f, LAST, **k), False),
        "`guided_grad_cam`": (methods.guided_grad_cam(f, LAST, **k), False),
        "`full_grad`": (methods.full_grad(f, **k), False),
        "`deep_lift`": (methods.deep_lift(f, **k), False),
        "`deep_lift`, reveal-cancel": (methods.deep_lift(f, rule="reveal_cancel", **k), False),
        "`deep_shap`, 10 references": (methods.deep_shap(f, references=black, **k), False),
        "`simple_taylor`, root given": (methods.simple_taylor(f, root=0.0, **k), False),
        "`simple_taylor`, ray of 32": (methods.simple_taylor(f, examples=1, **k), False),
        "`integrated_gradients`, 64 steps, `batch=8`": (
            methods.integrated_gradients(f, **k),
            False,
        ),
        "`integrated_gradients`, 64 steps, `batch=64`": (
            methods.integrated_gradients(f, batch=64, **k),
            False,
        ),
        "`expected_gradients`, 64 samples, `batch=8`": (
            methods.expected_gradients(f, references=black, **k),
            True,
        ),
        "`smooth_grad` of `gradient`, 32 samples, `batch=8`": (
            methods.smooth_grad(methods.gradient(f, **k), 1),
            True,
        ),
        "`smooth_grad` of `epsilon_plus`, 32 samples, `batch=8`": (
            methods.smooth_grad(plus, 1),
            True,
        ),
        "`var_grad` of `gradient`, 32 samples, `batch=8`": (
            methods.var_grad(methods.gradient(f, **k), 1),
            True,
        ),
        "`occlusion`, 16 segments": (
            methods.occlusion(f, segments=segments, examples=1, **k),
            False,
        ),
        "`rise`, 128 masks": (methods.rise(f, samples=128, examples=1, **k), True),
        "`kernel_shap`, 128 coalitions": (
            methods.kernel_shap(f, segments=segments, samples=128, examples=1, **k),
            True,
        ),
        "`lime`, 128 samples": (
            methods.lime(f, segments=segments, samples=128, examples=1, **k),
            True,
        ),
    }


def seconds(call: Callable, *args, rounds: int) -> list[float]:
    """Processor time of each call."""
    jax.block_until_ready(call(*args))  # compiled and warm
    taken = []
    for _ in range(rounds):
        start = time.process_time()
        jax.block_until_ready(call(*args))
        taken.append(time.process_time() - start)
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", type=int, default=32, help="height and width of a picture")
    parser.add_argument("--examples", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", default=[""], help="rows that hold one of these words")
    args = parser.parse_args()
    f, params = network(jax.random.key(0))
    shape = (args.examples, args.size, args.size, 3)
    x = jax.random.uniform(jax.random.key(1), shape)
    target = jnp.arange(args.examples)
    key = jax.random.key(2)

    def chosen(x, params, target):
        return jnp.take_along_axis(f(params, x), target[:, None], -1).sum()

    plain = jax.jit(jax.value_and_grad(chosen))
    print(
        f"{args.examples} pictures of {args.size} x {args.size}, {jax.devices()[0].device_kind}\n"
    )
    print("| method | gradients |\n| --- | --- |")
    for name, (method, takes_key) in explanations(f, args.size).items():
        if not any(word in name for word in args.only):
            continue

        def call(params, x, target, key, method=method, takes_key=takes_key):
            options = {"key": key} if takes_key else {}
            return method(params, x, target=target, **options)

        # Each beside gradients measured just before and after: a slow moment hits both.
        rounds = args.rounds
        before = seconds(plain, x, params, target, rounds=3 * rounds)
        taken = seconds(jax.jit(call), params, x, target, key, rounds=rounds)
        before += seconds(plain, x, params, target, rounds=3 * rounds)
        ratio = np.median(taken) / np.median(before)
        print(f"| {name} | {ratio:.1f} |", flush=True)


if __name__ == "__main__":
    main()
