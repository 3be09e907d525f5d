"""Which composite for a ResNet, a Mamba and a table? Measured on small networks.

    python benchmarks/small_networks.py                        # about two minutes on two cores
    python benchmarks/small_networks.py --only Mamba --out out/small

Trains each network on data of scikit-learn: a ResNet with BatchNorm and a Mamba, which reads one
row after another, on digits of 8 x 8 pixels; dense layers on a table of 30 measurements of cells.
For the class of each test example that is classified correctly, the inputs with the highest
relevance are set to 0 (black, or the average of the column). The printed table has the share of
examples that are still right after that, the mean of the seeds; the lower, the better. A picture
of each network goes to `--out`. It needs the extra `examples`.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_breast_cancer, load_digits

import jaxlrp as lrp
from jaxlrp import composites, heatmap, methods


class Residual(nn.Module):
    """A basic block of a ResNet, with a ReLU after the sum."""

    features: int

    @nn.compact
    def __call__(self, x, train: bool):
        h = nn.Conv(self.features, (3, 3), use_bias=False)(x)
        h = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9)(h))
        h = nn.Conv(self.features, (3, 3), use_bias=False)(h)
        h = nn.BatchNorm(use_running_average=not train, momentum=0.9)(h)
        return nn.relu(x + h)


class ResNet(nn.Module):
    @nn.compact
    def __call__(self, x, train: bool = False):
        x = nn.Conv(16, (3, 3), use_bias=False)(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9)(x))
        for _ in range(3):
            x = Residual(16)(x, train)
        return nn.Dense(10)(x.mean((1, 2)))


class Mamba(nn.Module):
    """A block of Mamba: a short convolution, a selective scan and a gate."""

    states: int = 8

    @nn.compact
    def __call__(self, x):
        width = x.shape[-1]
        u, z = jnp.split(nn.Dense(4 * width, use_bias=False)(nn.RMSNorm()(x)), 2, -1)
        u = nn.silu(nn.Conv(2 * width, (4,), padding=[(3, 0)], feature_group_count=2 * width)(u))
        dt = nn.softplus(nn.Dense(2 * width, bias_init=nn.initializers.constant(-2.0))(u))
        b, c = jnp.split(nn.Dense(2 * self.states, use_bias=False)(u), 2, -1)
        decay = -jnp.exp(
            self.param("A", lambda _: jnp.log(jnp.arange(1.0, self.states + 1)))  # of each state
        )

        def step(h, now):
            dt, u, b, c = now
            h = jnp.exp(dt[..., None] * decay) * h + (dt * u)[..., None] * b[:, None]
            return h, (h * c[:, None]).sum(-1)

        start = jnp.zeros((len(x), 2 * width, self.states))
        _, y = jax.lax.scan(step, start, jax.tree.map(lambda v: v.swapaxes(0, 1), (dt, u, b, c)))
        y = y.swapaxes(0, 1) + self.param("D", nn.initializers.ones, (2 * width,)) * u
        return x + nn.Dense(width, use_bias=False)(y * nn.silu(z))


class RowMamba(nn.Module):
    @nn.compact
    def __call__(self, x, train: bool = False):
        steps = x[..., 0]  # the rows of the picture, from the top
        position = self.param("position", nn.initializers.normal(0.1), (steps.shape[1], 16))
        h = nn.Dense(16, use_bias=False)(steps) + position
        for _ in range(2):
            h = Mamba()(h)
        return nn.Dense(10)(nn.RMSNorm()(h).mean(1))


class Table(nn.Module):
    @nn.compact
    def __call__(self, x, train: bool = False):
        for _ in range(2):
            x = nn.relu(nn.Dense(32)(x))
        return nn.Dense(2)(x)


def digits() -> tuple[np.ndarray, np.ndarray]:
    images, labels = load_digits(return_X_y=True)
    return (images / 16).astype(np.float32).reshape(-1, 8, 8, 1), labels


def cells() -> tuple[np.ndarray, np.ndarray]:
    rows, labels = load_breast_cancer(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(rows))
    rows = rows[order]
    return ((rows - rows.mean(0)) / rows.std(0)).astype(np.float32), labels[order]


class Task(NamedTuple):
    network: nn.Module
    data: Callable[[], tuple[np.ndarray, np.ndarray]]
    trained: int  # on the first so many examples
    steps: int
    removed: int
    composites: dict[str, Any]


BOX = composites.epsilon_gamma_box(low=0.0, high=1.0)
TASKS = {
    "ResNet": Task(
        ResNet(),
        digits,
        1400,
        150,
        8,
        {
            "epsilon_gamma_box(0, 1)": BOX,
            "epsilon_plus_flat()": composites.epsilon_plus_flat(),
            "lrp_zero()": composites.lrp_zero(),
        },
    ),
    "Mamba": Task(
        RowMamba(),
        digits,
        1400,
        300,
        8,
        {"mamba_lrp()": composites.mamba_lrp(), "lrp_zero()": composites.lrp_zero()},
    ),
    "table": Task(
        Table(),
        cells,
        400,
        200,
        5,
        {
            "Epsilon(1e-6)": {lrp.kind("dense"): lrp.Epsilon(1e-6)},
            "lrp_zero()": composites.lrp_zero(),
        },
    ),
}


def trainer(task: Task) -> Callable[[int], Any]:
    """A function of a seed that returns trained variables."""
    x, labels = (array[: task.trained] for array in task.data())
    optimiser = optax.adam(optax.cosine_decay_schedule(1e-2, task.steps))

    @jax.jit
    def step(params, rest, state, x, labels):
        def loss(params):
            call = {"params": params, **rest}
            logits, changed = task.network.apply(call, x, True, mutable=[*rest])
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            return losses.mean(), changed

        gradient, rest = jax.grad(loss, has_aux=True)(params)
        update, state = optimiser.update(gradient, state)
        return optax.apply_updates(params, update), rest, state

    def train(seed: int):
        rest = jax.jit(task.network.init)(jax.random.key(seed), x[:1])
        params = rest.pop("params")
        state = optimiser.init(params)
        draw = np.random.default_rng(seed)
        for _ in range(task.steps):
            chosen = draw.integers(0, len(x), 128)
            params, rest, state = step(params, rest, state, x[chosen], labels[chosen])
        return {"params": params, **rest}

    return train


def explanations(task: Task, logits: Callable) -> dict[str, Callable]:
    found = {name: lrp.explain(logits, r, argnums=1) for name, r in task.composites.items()}
    found["gradient × input"] = methods.gradient_x_input(logits, argnums=1)
    if isinstance(task.network, Table):  # 64 steps of a whole test set are small here
        path = methods.integrated_gradients(logits, argnums=1, batch=64)
        found["integrated gradients"] = path
    return {name: jax.jit(call) for name, call in found.items()}


def still_right(task: Task, at: Callable, x, R, labels) -> float:
    """The share of examples that are right without the inputs of highest relevance."""
    flat = np.array(x).reshape(len(x), -1)
    top = np.argsort(R.reshape(len(x), -1), 1)[:, -task.removed :]
    np.put_along_axis(flat, top, 0, 1)
    return float((np.asarray(at(flat.reshape(x.shape))).argmax(-1) == labels).mean())


def draw(name: str, maps: dict[str, np.ndarray], x, labels, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"small_{name.lower()}.png"
    if name == "table":
        first, R = next(iter(maps.items()))
        columns = [str(column) for column in load_breast_cancer().feature_names]
        title = f"Mean of |R| over {len(x)} rows, {first}"
        figure = heatmap.bars(R, columns, title=title)
    else:
        chosen = [int(np.flatnonzero(labels == digit)[0]) for digit in range(8)]
        figure = heatmap.grid(
            np.stack([R[chosen] for R in maps.values()]),
            row_labels=list(maps),
            column_labels=[str(label) for label in labels[chosen]],
            images=x[chosen],
            photographs=False,
            per="image",
            title=f"{name}: relevance for the class of each digit",
        )
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("out/small"), help="folder for pictures")
    args = parser.parse_args()
    print("| network | right of the test set | removed | by | still right |")
    print("| --- | --- | --- | --- | --- |")
    for name in args.only:
        task, shares, right_ones = TASKS[name], {}, []
        x, labels = (array[task.trained :] for array in task.data())
        train, logits = trainer(task), jax.jit(task.network.apply)
        explain = explanations(task, task.network.apply)
        for seed in range(args.seeds):
            variables = train(seed)
            right = np.asarray(logits(variables, x)).argmax(-1) == labels
            right_ones.append(right.mean())
            maps = {
                way: np.asarray(call(variables, x, target=jnp.asarray(labels)))[right]
                for way, call in explain.items()
            }
            if seed == 0:
                draw(name, maps, x[right], labels[right], args.out)
            maps["chance"] = np.random.default_rng(seed).random(x[right].shape)
            for way, R in maps.items():
                at = functools.partial(logits, variables)
                share = still_right(task, at, x[right], R, labels[right])
                shares.setdefault(way, []).append(share)
            print(f"{name}, seed {seed}: done", file=sys.stderr)
        size = np.prod(x.shape[1:])
        for way, values in shares.items():
            print(
                f"| {name} | {np.mean(right_ones):.1%} | {task.removed} of {size} | {way} | "
                f"{np.mean(values):.1%} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
