"""Right for the right reason: training that keeps relevance off a planted mark.

Every training digit bears a small mark in its corner that gives the class away, as a hospital's
stamp on an X-ray may. A network trained plainly reads the mark and is lost when it lies. A second
one is trained on the same digits with a penalty: the share of |relevance| inside the corner, whose
gradient with respect to the weights is an ordinary `jax.grad` through `lrp.explain`. The table says
how many digits each gets right with a true mark, none and a false one, and how much of the
relevance lies in the corner, also under a rule that the penalty never saw.

    python examples/guided_training.py --out out/guided_training.png
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from mnist import CLASSES, LeNet, load_digits
from tqdm import tqdm

import jaxlrp as lrp
from jaxlrp import composites, heatmap

CORNER = (slice(None), slice(0, 6), slice(0, 6))  # of images (n, 28, 28, 1)
PENALISED = "LRP-ε, z⁺ and flat"
METHODS = {
    PENALISED: composites.epsilon_plus_flat(),
    "LRP-ε, γ and box": composites.epsilon_gamma_box(low=0.0, high=1.0),
    "LRP-0": composites.lrp_zero(),
}
SHOWN = (PENALISED, "LRP-0")
PLAIN, GUIDED = "trained plainly", "trained with the penalty"


def mark(images: np.ndarray, digits: np.ndarray) -> np.ndarray:
    """Writes digit + 1 in binary into the corner: four cells of 3 × 3 pixels, white for a one."""
    bits = ((digits[:, None] + 1) >> np.arange(4) & 1).reshape(-1, 2, 2)
    marked = images.copy()
    marked[CORNER] = bits.repeat(3, axis=1).repeat(3, axis=2)[..., None]
    return marked


def share_in_corner(R):
    """For each map (n, 28, 28, 1): |relevance| in the corner over |relevance| everywhere."""
    everywhere = jnp.abs(R).sum(axis=(1, 2, 3))
    return jnp.abs(R[CORNER]).sum(axis=(1, 2, 3)) / jnp.maximum(everywhere, 1e-9)


def train(explain: Callable | None, images, labels, seed: int, epochs: int, weight: float, name):
    """Adam on the cross-entropy, plus `weight` times the share in the corner if there is one."""
    network, batch = LeNet(), 50
    rng = np.random.default_rng(seed)
    params = network.init(jax.random.key(seed), images[:1])
    steps = epochs * (len(images) // batch)
    optimiser = optax.adamw(optax.cosine_decay_schedule(3e-3, steps), weight_decay=1e-2)
    state = optimiser.init(params)

    def loss_fn(params, x, y):
        logits = network.apply(params, x)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()
        if explain is None:
            return loss
        return loss + weight * share_in_corner(explain(params, x, target=y)).mean()

    @jax.jit
    def step(params, state, x, y):
        loss, gradient = jax.value_and_grad(loss_fn)(params, x, y)
        update, state = optimiser.update(gradient, state, params)
        return optax.apply_updates(params, update), state, loss

    start = time.perf_counter()
    step(params, state, images[:batch], labels[:batch])  # compiles
    with tqdm(total=steps, desc=name, unit="step", mininterval=0.5) as bar:
        for _ in range(epochs):
            order = rng.permutation(len(images))
            for first in range(0, len(order) - batch + 1, batch):
                chosen = order[first : first + batch]
                params, state, loss = step(params, state, images[chosen], labels[chosen])
                bar.update()
            bar.set_postfix(loss=f"{loss:.4f}")
    return params, time.perf_counter() - start


def draw(explain: dict, params: dict, says: dict, x, truth, lie, out: Path) -> None:
    """Digits with false marks, explained for the answer that each network gives."""
    maps, labels = {}, {}
    for name, weights in params.items():
        heading = f"{name}: digit, mark → answer"
        R = [explain[method](weights, x, target=says[name]) for method in SHOWN]
        maps[heading] = np.stack(R)
        labels[heading] = [f"{t}, {m} → {a}" for t, m, a in zip(truth, lie, says[name])]
    figure = heatmap.grid(
        maps,
        row_labels=SHOWN,
        column_labels=labels,
        images=x,
        photographs=False,
        per="image",
        title="Digits with a false mark in the corner: why this answer?",
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=150)


def pick_digits(truth: np.ndarray, misled: np.ndarray, count: int = 8) -> np.ndarray:
    """The first digit of each class that the mark misleads, as many classes as have one."""
    firsts = [np.flatnonzero((truth == digit) & misled)[:1] for digit in range(CLASSES)]
    return np.concatenate(firsts)[:count]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("out/guided_training.png"))
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--digits", type=int, default=1000, help="how many to train on")
    parser.add_argument("--weight", type=float, default=3.0, help="of the penalty")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    rng = np.random.default_rng(args.seed)
    (images, labels), (x, truth) = load_digits(rng)
    few = rng.permutation(len(images))[: args.digits]
    images, labels = images[few], labels[few]
    lie = (truth + rng.integers(1, CLASSES, size=len(truth))) % CLASSES
    marked = mark(images, labels)
    tests = {"a true mark": mark(x, truth), "no mark": x, "a false mark": mark(x, lie)}

    fn = LeNet().apply
    explain = {name: lrp.explain(fn, rules, argnums=1) for name, rules in METHODS.items()}
    params = {}
    for name, penalty in ((PLAIN, None), (GUIDED, explain[PENALISED])):
        params[name], seconds = train(
            penalty, marked, labels, args.seed, args.epochs, args.weight, name
        )
        print(f"{name}: {seconds:.0f} s")
    print()

    run = jax.jit(fn)
    explain = {name: jax.jit(call) for name, call in explain.items()}
    says = {}
    print(f"Share of {len(x)} test digits that are right, with")
    print(f"  {'':<25}" + "".join(f" {what:>13}" for what in tests))
    for name, weights in params.items():
        says[name] = {what: np.asarray(run(weights, y)).argmax(-1) for what, y in tests.items()}
        right = [np.mean(answer == truth) for answer in says[name].values()]
        print(f"  {name:<25}" + "".join(f" {share:>13.1%}" for share in right))
    for name in params:
        obeyed = np.mean(says[name]["a false mark"] == lie)
        print(f"  {name}: the answer is that of the false mark in {obeyed:.1%} of the digits")

    answers = {name: answer["a false mark"] for name, answer in says.items()}
    for what in ("a true mark", "a false mark"):
        print(
            f"\nShare of |relevance| that lies in the corner, for the answer to digits with {what}"
        )
        print(f"  {'':<25}" + "".join(f" {method:>20}" for method in METHODS))
        for name, weights in params.items():
            found = [
                share_in_corner(call(weights, tests[what], target=says[name][what])).mean()
                for call in explain.values()
            ]
            print(f"  {name:<25}" + "".join(f" {share:>20.1%}" for share in found))

    chosen = pick_digits(truth, answers[PLAIN] == lie)
    if not len(chosen):
        print("\nNo false mark misled the network that was trained plainly: there is no picture.")
        return
    answers = {name: answer[chosen] for name, answer in answers.items()}
    x = tests["a false mark"][chosen]
    draw(explain, params, answers, x, truth[chosen], lie[chosen], args.out)
    print(f"\nThe picture is in {args.out}.")


if __name__ == "__main__":
    main()
