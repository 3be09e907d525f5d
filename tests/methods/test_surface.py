"""What all methods have in common: jit, vmap, derivatives, argnums, aux, wrt, pytrees, devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp as lrp
from jaxlrp import methods
from tests.methods_networks import STORED, mlp
from tests.methods_table import AROUND, DRAW, OF_PICTURES, attending

KEY = jax.random.key(0)
X = jnp.asarray(STORED["mlp.x"])
network = mlp("tanh")
PICTURES = jax.random.normal(jax.random.key(1), (3, 4, 4, 2))
SEGMENTS = np.array([0, 0, 1, 1, 2, 2])

# Each as a function of what is explained; with small samples, since only agreement is tested.
METHODS = {
    "gradient": lambda f, **k: methods.gradient(f, **k),
    "sensitivity": lambda f, **k: methods.sensitivity(f, **k),
    "gradient_x_input": lambda f, **k: methods.gradient_x_input(f, **k),
    "simple_taylor": lambda f, **k: methods.simple_taylor(f, root=0.1, **k),
    "integrated_gradients": lambda f, **k: methods.integrated_gradients(f, steps=5, batch=2, **k),
    "deep_lift": lambda f, **k: methods.deep_lift(f, **k),
    "guided_backprop": lambda f, **k: methods.guided_backprop(f, **k),
    "excitation_backprop": lambda f, **k: methods.excitation_backprop(f, **k),
    "occlusion": lambda f, **k: methods.occlusion(f, segments=SEGMENTS, examples=0, **k),
}
WITH_KEY = {
    "expected_gradients": lambda f, **k: methods.expected_gradients(
        f, references=STORED["mlp.references"], samples=6, batch=4, **k
    ),
    "kernel_shap": lambda f, **k: methods.kernel_shap(f, segments=SEGMENTS, examples=0, **k),
    "lime": lambda f, **k: methods.lime(f, segments=SEGMENTS, samples=12, examples=0, **k),
}


def call(name, f, *args, **options):
    """A method's relevance, with a key where it needs one."""
    if name in WITH_KEY:
        return WITH_KEY[name](f, **options.pop("build", {}))(*args, key=KEY, **options)
    return METHODS[name](f, **options.pop("build", {}))(*args, **options)


W6 = jnp.arange(1.0, 7.0)
TABLE = jnp.asarray(STORED["mlp.references"])


@pytest.mark.parametrize("name", [*METHODS, *WITH_KEY])
def test_every_method(name):
    """vmap = loop, the derivative is right, arguments and aux are those of `explain`."""

    def explained(x):
        return call(name, network, x, target=1)

    def f(scale, x, *, shift):
        return scale * network(x + shift), {"scale": scale}

    def shifted(x):
        return call(name, lambda x: 2.0 * network(x + 0.5), x, target=1)

    @jax.jit  # all in one program
    def everything(x, step):
        several = jnp.stack([x[0], x[1], x[0] + step * W6, x[0] - step * W6])
        mapped = jax.vmap(explained)(several)
        value, slope = jax.value_and_grad(lambda x: W6 @ explained(x))(x[0])
        build = {"argnums": 1, "has_aux": True}
        with_aux = call(name, f, 2.0, x[0], build=build, target=1, shift=0.5)
        return mapped, value, slope, with_aux, shifted(x[0])

    step = 1e-5
    mapped, value, slope, (R, aux), expected = everything(X, step)
    assert mapped.shape == (4, 6)
    np.testing.assert_allclose(value, W6 @ mapped[0], rtol=1e-9, atol=1e-12)
    rise = W6 @ (mapped[2] - mapped[3]) / (2 * step)
    np.testing.assert_allclose(slope @ W6, rise, rtol=1e-5, atol=1e-7)
    assert aux == {"scale": 2.0}
    np.testing.assert_allclose(R, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["integrated_gradients", "deep_lift", "kernel_shap"])
def test_eager_is_jit(name):
    def explained(x):
        return call(name, network, x, target=2)

    np.testing.assert_allclose(explained(X[0]), jax.jit(explained)(X[0]), rtol=1e-9, atol=1e-12)


def test_all_methods_are_here():
    assert {*OF_PICTURES, *AROUND, "Expansion"} == set(methods.__all__)


@pytest.mark.parametrize("name", OF_PICTURES)
def test_every_method_takes_argnums_aux_wrt_and_target(name):
    method, key = OF_PICTURES[name], {"key": KEY} if name in DRAW else {}
    target = jnp.array([0, 1])

    def second(scale, x, *, by):
        return by * attending(x), scale

    def looked_up(scale, n):
        return attending(jnp.asarray(PICTURES)[n]), scale

    @jax.jit
    def all_of_them(x, n):
        plain = method(attending)(x, target=target, **key)
        of_second = method(second, argnums=1, has_aux=True)
        inside = method(looked_up, has_aux=True, wrt="embed")
        by_argument = of_second(2.0, x, by=1.0, target=target, **key)
        return plain, by_argument, inside(3.0, n, target=target, **key)

    n = jnp.array([2, 0])
    plain, (R, aux), (by_name, inner_aux) = all_of_them(PICTURES[n], n)
    assert (aux, inner_aux) == (2.0, 3.0)
    by_name = by_name if isinstance(by_name, dict) else {"": by_name}  # a map has no name
    ((_, found),) = by_name.items()
    for other in (R, found):
        np.testing.assert_allclose(other, plain, rtol=1e-9, atol=1e-11)
    assert np.abs(plain).max() > 0.01


@pytest.mark.parametrize(
    "name", ["grad_cam_plus_plus", "guided_grad_cam", "full_grad", "rise", "attention_rollout"]
)
def test_methods_of_pictures_map_and_differentiate(name):
    """As `test_every_method` has it for the others."""
    method, key = OF_PICTURES[name], {"key": KEY} if name in DRAW else {}
    direction = jnp.asarray(np.random.default_rng(0).normal(size=(1, 4, 4, 2)))

    def total(x):
        R = method(attending)(x, target=0, **key)
        return jnp.sum(jnp.cos(jnp.arange(R.size)) * R.ravel())

    @jax.jit
    def all_of_them(x, step):
        several = jnp.stack([x, x + step * direction, x - step * direction])
        return jax.vmap(total)(several), jax.value_and_grad(total)(x)

    step = 1e-6
    mapped, (value, slope) = all_of_them(PICTURES[:1], step)
    np.testing.assert_allclose(mapped[0], value, rtol=1e-9)
    rise = (mapped[1] - mapped[2]) / (2 * step)
    np.testing.assert_allclose(jnp.vdot(slope, direction), rise, rtol=1e-5)
    assert abs(rise) > 1e-6


@pytest.mark.parametrize("around", [methods.smooth_grad, methods.var_grad])
def test_noise_on_values_inside_the_function(around):
    """The explanation chooses wrt; noise is put on values that `as_function_of` gives."""

    def looked_up(n):
        return attending(PICTURES[n]), n

    options = {"samples": 3, "noise": 0.1, "batch": 3}
    n = jnp.array([2, 0])
    explained = methods.gradient(looked_up, has_aux=True, wrt="embed")
    with pytest.raises(lrp.InputError, match="as_function_of"):
        around(explained, **options)(n, target=1, key=KEY)

    @jax.jit
    def both(n):
        x, run = lrp.as_function_of(looked_up, has_aux=True, wrt="embed")(n)
        inside = around(methods.gradient(run, has_aux=True), **options)
        plain = around(methods.gradient(attending), **options)
        return inside(x, target=1, key=KEY), plain(PICTURES[n], target=1, key=KEY)

    (found, _), expected = both(n)
    np.testing.assert_allclose(found["embed_0"], expected, rtol=1e-9, atol=1e-11)
    assert np.abs(expected).max() > 1e-4


def test_references_by_name():
    def reads(n):
        return network(TABLE[n])[0]

    n = jnp.array([2])
    value, _ = lrp.as_function_of(reads, wrt="embed")(n)
    ((name, _),) = value.items()
    method = methods.deep_shap(reads, references={name: TABLE[:2, None]}, wrt="embed", batch=2)
    R = jax.jit(method)(n, target=0)
    plain = jax.jit(methods.deep_shap(network, references=TABLE[:2], batch=2))
    np.testing.assert_allclose(R[name][0], plain(TABLE[2], target=0), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", ["gradient_x_input", "integrated_gradients", "deep_lift"])
def test_pytrees_and_weights(name):
    def f(tree):
        return network(tree["a"] * tree["b"])

    tree = {"a": X, "b": 0.5 + X**2}
    weights = np.linspace(-1, 1, 12).reshape(4, 3)
    R = jax.jit(lambda tree: call(name, f, tree, target=weights))(tree)
    assert jax.tree.map(jnp.shape, R) == {"a": (4, 6), "b": (4, 6)}
    if name != "gradient_x_input":
        zero = jax.tree.map(jnp.zeros_like, tree)
        total = (weights * jax.jit(lambda a, b: f(a) - f(b))(tree, zero)).sum()
        np.testing.assert_allclose(sum(r.sum() for r in R.values()), total, rtol=0.05)


def test_low_precision_input_has_relevance_in_float32():
    x = X.astype(jnp.bfloat16)
    for name in ("gradient", "integrated_gradients"):
        found = jax.eval_shape(lambda x: call(name, lambda x: (x * x).sum(), x), x)
        assert found.dtype == jnp.float32


def test_a_target_out_of_range_and_one_that_does_not_fit():
    with pytest.raises(lrp.TargetError, match="out of range"):
        jax.eval_shape(lambda: methods.gradient(network)(X, target=3))
    with pytest.raises(lrp.TargetError, match="expected one integer"):
        jax.eval_shape(lambda: methods.integrated_gradients(network)(X, target=np.array([0, 1])))


def test_inside_shard_map():
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec("data")
    explained = methods.integrated_gradients(network, steps=5, batch=2)
    mapped = jax.shard_map(
        lambda x: explained(x, target=1), mesh=mesh, in_specs=spec, out_specs=spec
    )
    plain = jax.jit(lambda x: call("integrated_gradients", network, x, target=1))
    np.testing.assert_allclose(jax.jit(mapped)(X), plain(X), rtol=1e-9, atol=1e-12)


def test_every_public_method_says_how_it_is_used():
    for name in methods.__all__:
        text = getattr(methods, name).__doc__
        if name == "Expansion":
            assert "Attributes:" in text
        else:
            assert "Source:" in text, name
