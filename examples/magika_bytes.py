"""Why does this file look like Python? Relevance per byte, with the real weights of Magika.

Magika is Google's classifier of file types. Its network reads the first and the last 1,024 bytes of
a file. It is rebuilt here in plain JAX from the weights in its package, and compared with the
original. Then every byte of a file gets its relevance for the predicted type and for the runner-up,
as coloured text. At last the most relevant bytes are replaced by random letters, here and in other
files of Python's own library, to see whether the prediction hangs on them more than on others.

    python examples/magika_bytes.py                  # this.py, of Python's own library
    python examples/magika_bytes.py path/to/a/file
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import json
import sysconfig
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import magika
import numpy as np
import onnx
from tqdm import tqdm

import jaxlrp as lrp
from jaxlrp import composites, heatmap

MODEL = Path(magika.__file__).parent / "models" / "standard_v3_3"
WINDOW = 1024  # bytes from the beginning, and as many from the end
BLOCK = 4096  # bytes at either end that may be looked at once blanks are stripped
PADDING = 256  # the token where a file is shorter than the window
LETTERS = np.frombuffer(b"abcdefghijklmnopqrstuvwxyz", np.uint8)
METHODS = {"LRP-0": composites.lrp_zero(), "LRP-ε and z⁺": composites.epsilon_plus()}
GRADIENT = "gradient × input"

# Where each weight stands in the ONNX file, which was made from JAX by way of TensorFlow.
_SCOPE = "jax2tf_get_logits_/pjit_get_logits_/MagikaV2/"
WEIGHTS = {
    "embed": "jax2tf_get_logits_/Const:0",  # (257, 64)
    "embed_bias": f"{_SCOPE}Dense_0/Reshape:0",  # (1, 1, 64)
    "norm_0_scale": f"{_SCOPE}LayerNorm_0/Reshape_2:0",  # (1, 512, 1)
    "norm_0_bias": f"{_SCOPE}LayerNorm_0/Reshape_3:0",  # (1, 512, 1)
    "conv": f"{_SCOPE}Conv_0/transpose_3:0",  # (512, 256, 5, 1): out, in, width
    "conv_bias": "const_fold_opt__209",  # (1, 512, 1)
    "norm_1_scale": f"{_SCOPE}LayerNorm_1/Reshape_2:0",  # (1, 512)
    "norm_1_bias": f"{_SCOPE}LayerNorm_1/Reshape_3:0",  # (1, 512)
    "head": "jax2tf_get_logits_/Const_24:0",  # (512, 214)
    "head_bias": f"{_SCOPE}Dense_1/Reshape:0",  # (1, 214)
}


def load_weights() -> dict[str, np.ndarray]:
    graph = onnx.load(MODEL / "model.onnx").graph
    arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    return {name: arrays[path] for name, path in WEIGHTS.items()}


def logits(weights: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    """Magika's network: one-hot bytes (files, 2048, 257) to logits (files, 214)."""
    gelu = functools.partial(jax.nn.gelu, approximate=True)
    with jax.named_scope("embed"):
        h = gelu(x @ weights["embed"] + weights["embed_bias"])
    h = h.reshape(-1, 512, 256)  # four bytes become one position
    with jax.named_scope("norm_0"):  # over positions, not over features
        h = normalise(h, 1) * weights["norm_0_scale"] + weights["norm_0_bias"]
    with jax.named_scope("conv"):
        layout = ("NWC", "OIW", "NWC")
        kernel = weights["conv"][..., 0]
        h = jax.lax.conv_general_dilated(h, kernel, (1,), "VALID", dimension_numbers=layout)
        h = gelu(h + weights["conv_bias"][..., 0])
    h = h.max(axis=1)
    with jax.named_scope("norm_1"):
        h = normalise(h, -1) * weights["norm_1_scale"] + weights["norm_1_bias"]
    with jax.named_scope("head"):
        return h @ weights["head"] + weights["head_bias"]


def normalise(h: jax.Array, axis: int) -> jax.Array:
    mean = h.mean(axis, keepdims=True)
    variance = jnp.maximum((h * h).mean(axis, keepdims=True) - mean * mean, 0.0)
    return (h - mean) * jax.lax.rsqrt(variance + 1e-6)


def read(file: bytes) -> tuple[np.ndarray, np.ndarray]:
    """The network's input for a file: 2,048 tokens, and the place in the file of each, or -1."""
    head, tail = file[:BLOCK], file[-BLOCK:]
    begin = len(head) - len(head.lstrip())
    end = len(file) - (len(tail) - len(tail.rstrip()))
    first = np.arange(begin, min(begin + WINDOW, len(head)))
    last = np.arange(max(end - WINDOW, len(file) - len(tail)), end)
    place = np.full(2 * WINDOW, -1)
    place[: len(first)] = first
    place[2 * WINDOW - len(last) :] = last
    tokens = np.frombuffer(file, np.uint8).astype(np.int32)[place]
    return np.where(place >= 0, tokens, PADDING), place


def one_hot(tokens: np.ndarray) -> jax.Array:
    return jax.nn.one_hot(tokens, PADDING + 1)


def per_byte(R: jax.Array, place: np.ndarray, length: int) -> np.ndarray:
    """Relevance (2048, 257) summed for each byte of the file: both windows may show it."""
    total = np.zeros(length)
    np.add.at(total, place[place >= 0], np.asarray(R).sum(-1)[place >= 0])
    return total


def gradient_times_input(weights, x, target):
    return x * jax.grad(lambda x: logits(weights, x)[:, target].sum())(x)


def explainers() -> dict[str, Callable]:
    """Each takes weights, one-hot bytes and a class; compiled once."""

    def relevance(rules: lrp.RuleMap) -> Callable:
        explain = lrp.explain(logits, rules, argnums=1)
        return lambda weights, x, target: explain(weights, x, target=target)

    calls = {name: relevance(rules) for name, rules in METHODS.items()}
    calls[GRADIENT] = gradient_times_input
    return {name: jax.jit(call) for name, call in calls.items()}


def library_files(rng: np.random.Generator, count: int) -> list[Path]:
    """Some files of Python's own library, none of them tiny."""
    root = Path(sysconfig.get_path("stdlib"))
    files = [p for p in sorted(root.glob("*.py")) if p.stat().st_size > 500]
    chosen = rng.choice(len(files), min(count, len(files)), replace=False)
    return [files[i] for i in chosen]


def compare_with_original(predict: Callable, labels: list[str], files: list[Path]) -> None:
    original = magika.Magika()
    same, difference = 0, 0.0
    for path in tqdm(files, desc="comparing with the original", unit="file"):
        theirs = original.identify_path(path)
        ours = softmax(predict(read(path.read_bytes())[0][None]))[0]
        same += labels[ours.argmax()] == str(theirs.dl.label)
        difference = max(difference, abs(float(ours.max()) - theirs.score))
    print(
        f"The rebuilt network and the original agree on {same} of {len(files)} files; "
        f"the greatest difference of their scores is {difference:.1e}.\n"
    )


def replaced(
    file: bytes, place: np.ndarray, scores: np.ndarray | None, count: int, draws: int, rng
) -> np.ndarray:
    """Tokens (draws, 2048) of the file with `count` bytes replaced by random letters.

    The bytes are those with the highest scores, or, without scores, others in each draw.
    """
    seen = np.unique(place[place >= 0])
    tokens = []
    for _ in range(draws):
        if scores is None:
            chosen = rng.choice(seen, count, replace=False)
        else:
            chosen = np.argsort(-scores)[:count]
        changed = np.frombuffer(file, np.uint8).copy()
        changed[chosen] = rng.choice(LETTERS, count)
        tokens.append(read(changed.tobytes())[0])
    return np.stack(tokens)


def replace_and_classify(
    predict: Callable, calls: dict[str, Callable], weights, files: list[bytes], count, draws, rng
) -> dict[str, np.ndarray]:
    """Means over files and draws, before and after: probability, lead and how often it stays.

    The probability is that of the type predicted at first, and its lead is its logit minus the
    highest other one.
    """
    found: dict[str, list] = {name: [] for name in ("nothing", "random bytes", *calls)}
    for file in tqdm(files, desc="replacing bytes", unit="file", disable=len(files) == 1):
        tokens, place = read(file)
        target = int(predict(tokens[None])[0].argmax())
        for name, rows in found.items():
            if name == "nothing":
                changed = tokens[None]
            else:
                scores = None
                if name in calls:
                    R = calls[name](weights, one_hot(tokens[None]), target)[0]
                    scores = per_byte(R, place, len(file))
                changed = replaced(file, place, scores, count, draws, rng)
            rows.append(standing(predict(changed), target))
    return {name: np.mean(rows, axis=0) for name, rows in found.items()}


def standing(z: np.ndarray, target: int) -> np.ndarray:
    """Probability of the target, its lead, and whether it is first: means over logits (n, 214)."""
    lead = z[:, target] - np.delete(z, target, axis=-1).max(-1)
    return np.array([softmax(z)[:, target].mean(), lead.mean(), (lead > 0).mean()])


def softmax(z: np.ndarray) -> np.ndarray:
    p = np.exp(z - z.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True)


def print_replacement(found: dict[str, np.ndarray]) -> None:
    print("  probability of the type, lead of its logit, and how often it is still first:")
    print(f"  {'replaced':<20} {'probability':>12} {'lead':>7} {'still first':>12}")
    for name, (probability, lead, first) in found.items():
        print(f"  {name:<20} {probability:>12.3f} {lead:>7.2f} {first:>12.0%}")
    print()


def print_top(file: bytes, R: np.ndarray, count: int) -> None:
    print(f"The {count} bytes with the most relevance, with the text around them:")
    for i in np.argsort(-R)[:count]:
        before, byte, after = escaped(
            file[max(0, i - 12) : i], file[i : i + 1], file[i + 1 : i + 9]
        )
        print(f"  {i:>6}  {R[i]:>+6.2f}  {before:>18}[{byte}]{after}")
    print()


def escaped(*texts: bytes) -> list[str]:
    return [text.decode("latin-1").encode("unicode_escape").decode() for text in texts]


def draw(
    file: bytes, place: np.ndarray, maps: dict[str, np.ndarray], title: str, out: Path
) -> None:
    """The bytes that the network saw, in HTML and as a picture; a gap between the windows is ⋯."""
    seen = np.unique(place[place >= 0])
    tokens: list[str | bytes] = [file[i : i + 1] for i in seen]
    gaps = np.flatnonzero(np.diff(seen) > 1) + 1
    for gap in gaps:
        tokens.insert(gap, "\n⋯\n")
    numbers = {name: np.insert(R[seen], gaps, 0.0) for name, R in maps.items()}
    options = {"separator": "", "per": "shared", "title": title}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_suffix(".html").write_text(
        heatmap.text_html(tokens, numbers, **options), encoding="utf-8"
    )
    heatmap.text_figure(tokens, numbers, **options).savefig(out, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    this = importlib.util.find_spec("this")  # found, not imported: it prints when it is
    parser.add_argument("file", type=Path, nargs="?", default=Path(this.origin))
    parser.add_argument("--out", type=Path, default=Path("out/magika_bytes.png"))
    parser.add_argument("--replace", type=int, default=10, help="how many bytes to replace")
    parser.add_argument("--files", type=int, default=40, help="how many library files to try")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    rng = np.random.default_rng(args.seed)
    weights = load_weights()
    labels = json.loads((MODEL / "config.min.json").read_text())["target_labels_space"]
    run = jax.jit(lambda weights, tokens: logits(weights, one_hot(tokens)))

    def predict(tokens: np.ndarray) -> np.ndarray:
        return np.asarray(run(weights, tokens))

    others = library_files(rng, args.files)
    files = list(dict.fromkeys(path.resolve() for path in (args.file, *others)))
    compare_with_original(predict, labels, files)

    file = args.file.read_bytes()
    tokens, place = read(file)
    p = softmax(predict(tokens[None]))[0]
    first, second = np.argsort(-p)[:2]
    print(
        f"{args.file.name}, {len(file)} bytes: {labels[first]} {p[first]:.3f}, "
        f"then {labels[second]} {p[second]:.3f}.\n"
    )
    calls = explainers()
    x = one_hot(tokens[None])
    name = next(iter(METHODS))
    R = {target: calls[name](weights, x, int(target))[0] for target in (first, second)}
    maps = {f"for {labels[t]}": per_byte(R[t], place, len(file)) for t in R}
    print(lrp.ledger(logits, METHODS[name], argnums=1)(weights, x, target=int(first)))
    padding = float(np.asarray(R[first]).sum(-1)[place < 0].sum())
    bytes_sum = maps[f"for {labels[first]}"].sum()
    print(f"The bytes received {bytes_sum:.3f} of this relevance, the padding {padding:.3f}.\n")
    print_top(file, maps[f"for {labels[first]}"], args.replace)
    draw(file, place, maps, f"Why does {args.file.name} look like {labels[first]}?", args.out)

    replace = functools.partial(replace_and_classify, predict, calls, weights)
    print(f"{args.replace} bytes of {args.file.name} replaced by random letters, 50 draws:")
    print_replacement(replace([file], args.replace, 50, rng))
    result = replace([path.read_bytes() for path in others], args.replace, 5, rng)
    print(f"The same in {len(others)} files of Python's library, 5 draws each, on average:")
    print_replacement(result)
    print(f"The text is in {args.out.with_suffix('.html')} and {args.out}.")


if __name__ == "__main__":
    main()
