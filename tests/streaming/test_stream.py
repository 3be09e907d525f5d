"""`stream`: every example once and in its place, from any data, stopped and gone on with."""

import functools
import signal
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp as lrp
from jaxlrp.errors import InputError
from jaxlrp.streaming.interrupts import uninterrupted

RNG = np.random.default_rng(3)
W = RNG.normal(size=(4, 3))
X = RNG.normal(size=(11, 4))
Y = RNG.integers(0, 3, size=11)


def network(w, x):
    return jnp.tanh(x @ w)


@jax.jit
def explained(w, x, target):
    both = lrp.value_and_relevance(network, lrp.Epsilon(0.1), argnums=1)
    logits, relevance = both(w, x, target=target)
    return {"relevance": relevance, "out": {"logits": logits}}


EXPECTED = explained(W, X, Y)
explain = functools.partial(explained, W)
stream = functools.partial(lrp.stream, progress=False)


def assert_all(found):
    np.testing.assert_allclose(found["relevance"], EXPECTED["relevance"], rtol=1e-9)
    np.testing.assert_allclose(found["out"]["logits"], EXPECTED["out"]["logits"], rtol=1e-9)


class Counting:
    """A function that counts its batches, and stops the program at one of them."""

    def __init__(self, function=explain, stop=None):
        self.function, self.stop, self.count = function, stop, 0

    def __call__(self, *batch):
        if self.count == self.stop:
            raise KeyboardInterrupt
        self.count += 1
        return self.function(*batch)


class Loader:
    """Batches of its own size, each time it is asked for them."""

    def __iter__(self):
        return ([X[i : i + 4], Y[i : i + 4]] for i in range(0, len(X), 4))


DATA = {
    "arrays": lambda: (X, Y),
    "jax arrays": lambda: (jnp.asarray(X), jnp.asarray(Y)),
    "list of batches": lambda: [(X[:5], Y[:5]), (X[5:], Y[5:])],
    "generator": lambda: ((X[i : i + 1], Y[i : i + 1]) for i in range(11)),
    "loader": Loader,
}


@pytest.mark.parametrize("size", [1, 3, 4, 11, 100])
@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("stored", [False, True])
def test_every_example_once_and_in_its_place(data, size, stored, tmp_path):
    if stored:
        pytest.importorskip("zarr")
    store = tmp_path / "new" / "store" if stored else None
    counting = Counting()
    found = stream(counting, DATA[data](), batch_size=size, store=store)
    assert_all({k: found[k] for k in ("relevance", "out")})
    assert found["relevance"].shape == (11, 4)
    assert counting.count == -(-11 // size)


def test_the_size_of_a_loader_is_kept_by_default():
    sizes = []
    stream(lambda x, y: sizes.append(len(x)) or explain(x, y), Loader())
    assert sizes == [4, 4, 4]  # the last one is filled up: one shape, one compilation


def test_a_single_array_and_a_dict():
    relevance = jax.jit(lrp.explain(lambda x: network(W, x), lrp.Epsilon()))
    np.testing.assert_allclose(stream(relevance, X, batch_size=4), relevance(X), rtol=1e-9)
    by_name = jax.jit(lambda batch: explained(W, batch["x"], batch["y"]))
    assert_all(stream(by_name, {"x": X, "y": Y}, batch_size=4))


def test_only_slices_are_read_and_two_batches_are_in_memory():
    class Lazy:
        shape, dtype = X.shape, X.dtype
        read: list[int] = []

        def __getitem__(self, part):
            self.read.append(part.start)
            assert part.stop - part.start <= 2
            return X[part]

    kept = []

    def watched(x):
        kept.append(len(Lazy.read))
        return explain(x, jnp.zeros(2, int))

    stream(watched, Lazy(), batch_size=2)
    assert kept == [1, 2, 3, 4, 5, 6]  # read when its turn comes


@pytest.mark.parametrize("data", ["arrays", "loader"])
def test_stopped_and_gone_on_with(data, tmp_path):
    pytest.importorskip("zarr")
    store = tmp_path / "store"
    with pytest.raises(KeyboardInterrupt, match=r"stopped after 2( of 6)? batches; start the same"):
        stream(Counting(stop=3), DATA[data](), batch_size=2, store=store)
    counting = Counting()
    group = stream(counting, DATA[data](), batch_size=2, store=store)
    assert counting.count == 1 + 4  # one to compare, and the rest
    assert_all(group)
    assert group["relevance"].shape == (11, 4) and group["done"].shape == (6,)
    counting = Counting()
    stream(counting, DATA[data](), batch_size=2, store=store, check=False)
    assert counting.count == 0


def test_an_interrupt_waits_for_the_end_of_a_step(interruptible):
    steps = []

    def step():
        with uninterrupted():
            signal.raise_signal(signal.SIGINT)
            steps.append("written")

    with pytest.raises(KeyboardInterrupt):
        step()
    assert steps == ["written"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def chunk(store, number, name="relevance"):
    return next(p for p in (store / name / "c" / str(number)).rglob("*") if p.is_file())


def truncate(path):
    path.write_bytes(path.read_bytes()[:-3])


def alter(path):
    """Other numbers, in a file that can be read."""
    other = path.parents[1] / "1" / path.name
    path.write_bytes(other.read_bytes())


@pytest.mark.parametrize("damage", [Path.unlink, truncate, alter, lambda p: p.write_bytes(b"")])
@pytest.mark.parametrize("number", [0, 3, 5])
def test_what_was_lost_or_damaged_is_done_again(damage, number, tmp_path):
    pytest.importorskip("zarr")
    store = tmp_path / "store"
    stream(explain, (X, Y), batch_size=2, store=store)
    damage(chunk(store, number))
    (store / "relevance" / "c" / "stray.txt").write_text("stray")
    counting = Counting()
    assert_all(stream(counting, (X, Y), batch_size=2, store=store, check=False))
    assert counting.count == 1
    mark = store / "done" / "c" / "2"
    truncate(mark)
    counting = Counting()
    assert_all(stream(counting, (X, Y), batch_size=2, store=store, check=False))
    assert counting.count == 1


def test_results_of_two_networks_are_never_mixed(tmp_path):
    pytest.importorskip("zarr")
    store = tmp_path / "store"
    with pytest.raises(KeyboardInterrupt):
        stream(Counting(stop=2), (X, Y), batch_size=2, store=store, settings={"rule": "epsilon"})
    arguments = {"data": (X, Y), "batch_size": 2, "store": store, "settings": {"rule": "epsilon"}}
    for fn, change, message in [
        (functools.partial(explained, W + 0.5), {}, "other results than explain_fn gives now"),
        (explain, {"data": (X + 1.0, Y)}, "other results than explain_fn gives now"),
        (explain, {"batch_size": 3}, "other settings: batch_size. Here {'batch_size': 3}"),
        (explain, {"settings": {"rule": "gamma"}}, "other settings: rule. Here"),
        (explain, {"data": (X[:9], Y[:9])}, "other settings: examples"),
        (lambda x, y: explain(x, y)["relevance"], {}, r"holds .* explain_fn returns 'relevance'"),
    ]:
        with pytest.raises(InputError, match=message):
            stream(fn, **{**arguments, **change})
    assert_all(stream(explain, **arguments))


def test_a_store_that_is_none(tmp_path):
    pytest.importorskip("zarr")
    (tmp_path / "file").write_text("text")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "photo.png").write_text("")
    for name, message in [
        ("file", "is a file; give a folder"),
        ("folder", r"stream did not make it \(it holds photo.png\)"),
        ("file/store", "cannot be made"),
    ]:
        with pytest.raises(InputError, match=message):
            stream(explain, (X, Y), batch_size=2, store=tmp_path / name)
    assert (tmp_path / "file").read_text() == "text"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 0}, "batch_size=0: expected a whole number"),
        ({"batch_size": 2.0}, "batch_size=2.0: expected a whole number"),
        ({"batch_size": True}, "batch_size=True: expected"),
        ({"batch_size": None}, "data are arrays: give batch_size"),
        ({"data": (X, Y[:5])}, r"shapes \[\(11, 4\), \(5,\)\]"),
        ({"data": (X[:0], Y[:0])}, "there are no examples"),
        ({"data": []}, "yields no batches"),
        ({"data": iter(())}, "yields no batches"),
        ({"data": 3}, "data of type int was given"),
        ({"data": "text"}, "data of type str was given"),
        ({"data": (X, "cat")}, "data of type tuple was given .it holds ndarray, str"),
        ({"data": [(X, Y), X]}, "batch 1 has the structure"),
        ({"explain_fn": lambda x, y: x.sum()}, r"returned 'relevance' of shape \(\) for a batch"),
        ({"explain_fn": lambda x, y: None}, "returned no arrays"),
        ({"settings": {"a": 1}}, "settings are kept with a store"),
        ({"devices": []}, "devices is empty"),
    ],
)
def test_refused(change, message):
    arguments = {"explain_fn": explain, "data": (X, Y), "batch_size": 2, **change}
    with pytest.raises(InputError, match=message):
        stream(arguments.pop("explain_fn"), arguments.pop("data"), **arguments)


def test_what_a_store_cannot_hold(tmp_path):
    pytest.importorskip("zarr")
    store = tmp_path / "store"
    for fn, settings, message in [
        (lambda x, y: {"done": x}, {}, "is named 'done'"),
        (lambda x, y: np.zeros(len(x), jax.dtypes.float0), {}, "has dtype"),
        (explain, {"a": object()}, "settings must be a mapping from names"),
        (explain, {"examples": 3}, "use other names"),
    ]:
        with pytest.raises(InputError, match=message):
            stream(fn, (X, Y), batch_size=2, store=store, settings=settings)
    assert not store.exists()
    low = stream(lambda x, y: x.astype(jnp.bfloat16), (X, Y), batch_size=2, store=store)
    assert low["relevance"].dtype == np.float32


def test_without_the_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(
        ImportError, match=r"pip install 'jaxlrp\[stream\]', or give progress=False"
    ):
        lrp.stream(explain, (X, Y), batch_size=2)
    with pytest.raises(ImportError, match=r"pip install 'jaxlrp\[stream\]', or give no store"):
        stream(explain, (X, Y), batch_size=2, store=tmp_path / "store")
    assert_all(stream(explain, (X, Y), batch_size=2))


def test_the_bar_counts_what_was_done(tmp_path, capsys):
    pytest.importorskip("zarr")
    pytest.importorskip("tqdm")
    store = tmp_path / "store"
    with pytest.raises(KeyboardInterrupt):
        stream(Counting(stop=4), (X, Y), batch_size=2, store=store)
    lrp.stream(explain, (X, Y), batch_size=2, store=store)
    assert "6/6" in capsys.readouterr().err
