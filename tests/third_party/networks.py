"""Networks from other people's packages, with random weights, as plain functions.

Every builder returns a `Network`: a function `fn(params, x)` that ends in logits, its parameters,
an input, and the number of layers of each kind that one finds by reading the architecture. No
builder changes how a network computes; the few shims below stand in for functions that newer
versions of JAX no longer have, and take off a softmax head where the package offers no option.

BatchNorm statistics and scales are drawn at random, so that folding them wrongly shows.
"""

import os
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax
import jax.numpy as jnp
import numpy as np
import pytest

CLASSES = 10


@dataclass(frozen=True)
class Network:
    """A network to explain: `fn(params, x)` gives logits of shape (batch, classes)."""

    fn: Callable[[Any, jax.Array], jax.Array]
    params: Any
    x: jax.Array
    counts: dict[str, int]
    """Layers of each kind; BatchNorm counts only where no linear layer can take it in."""


BUILDERS: dict[str, Callable[[str], Network]] = {}


def network(build: Callable[[str], Network]) -> Callable[[str], Network]:
    """Registers a builder, which takes the name of a dtype, under its own name."""
    BUILDERS[build.__name__] = build
    return build


# --- random weights -----------------------------------------------------------------------------


def draw(path: str, shape: tuple[int, ...], dtype: Any, rng: np.random.Generator) -> np.ndarray:
    """A plausible value for the parameter at `path`, told by the last part of its name.

    Every shift is small and not above 0. With biases ignored, a unit hands on its relevance times
    z / (z - b): at most 1 behind a ReLU if b <= 0, and unbounded, or lost, if a bias b > 0 alone
    makes the unit fire (a depthwise convolution over nine zeros).
    """
    name = path.rsplit("/", 1)[-1]
    if name == "gamma" and "stages" in path:  # ConvNeXt's layer scale: branches start out small
        value = rng.uniform(0.05, 0.15, shape)
    elif name in ("var", "moving_variance", "scale", "gamma") or "var_ema" in path:
        value = rng.uniform(0.5, 1.5, shape)
    elif name in ("mean", "moving_mean") or "mean_ema" in path:
        value = rng.uniform(0.0, 0.03, shape)
    elif name in ("bias", "b", "beta", "offset"):
        value = -rng.uniform(0.0, 0.03, shape)
    elif len(shape) > 1:
        # He's scale keeps the signal alive through fifty layers. Equinox has the outputs first,
        # and Keras writes a depthwise kernel as (height, width, channels, 1).
        depthwise = len(shape) == 4 and shape[-1] == 1 and name == "kernel"
        inputs = shape[1:] if name == "weight" else shape[: -2 if depthwise else -1]
        fan_in = int(np.prod(inputs))
        value = rng.standard_normal(shape, dtype=np.float32) * np.sqrt(2.0 / fan_in)
    elif name == "weight":  # the scale of an Equinox norm
        value = rng.uniform(0.5, 1.5, shape)
    else:  # a counter
        value = np.zeros(shape)
    return value.astype(dtype)


def randomise(tree: Any, dtype: Any, seed: int = 0) -> Any:
    """Draws every leaf of a tree of shapes; equal trees give equal weights."""
    rng = np.random.default_rng(seed)

    def leaf(path, aval):
        names = "/".join(str(getattr(key, "key", getattr(key, "name", key))) for key in path)
        kind = dtype if jnp.issubdtype(aval.dtype, jnp.floating) else aval.dtype
        return jnp.asarray(draw(names, aval.shape, kind, rng))

    return jax.tree_util.tree_map_with_path(leaf, tree)


def picture(shape: tuple[int, ...], dtype: str, seed: int = 1) -> jax.Array:
    """Pixels in [0, 1]."""
    return jnp.asarray(np.random.default_rng(seed).uniform(0.0, 1.0, shape), dtype)


def replace_names(module: types.ModuleType, alias: str, **names: Any) -> None:
    """Lets `module` see `alias` (an imported namespace) with some of its names replaced."""
    namespace = getattr(module, alias)
    setattr(module, alias, types.SimpleNamespace(**{**vars(namespace), **names}))


# --- Flax Linen ---------------------------------------------------------------------------------


def linen(model: Any, x: jax.Array, **kwargs: Any) -> tuple[Callable, Any]:
    shapes = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, **kwargs), x)
    return lambda params, x: model.apply(params, x, **kwargs), randomise(shapes, x.dtype)


# The counts of a bottleneck ResNet50: a stem, 3 + 4 + 6 + 3 blocks of three convolutions, four
# projections; a ReLU after the stem and three in each block.
RESNET50 = {
    "conv": 1 + 16 * 3 + 4,
    "dense": 1,
    "activation": 1 + 16 * 3,
    "add": 16,
    "max_pool": 1,
    "avg_pool": 1,
}


@network
def flaxmodels_vgg16(dtype: str) -> Network:
    flaxmodels = pytest.importorskip("flaxmodels")
    # The head insists on 224 x 224. Inputs are normalised inside the network.
    x = picture((1, 224, 224, 3), dtype)
    model = flaxmodels.VGG16(output="logits", pretrained=None, num_classes=CLASSES, dtype=dtype)
    fn, params = linen(model, x, train=False)
    counts = {"conv": 13, "dense": 3, "activation": 15, "max_pool": 5}
    return Network(fn, params, x, counts)


@network
def flaxmodels_resnet50(dtype: str) -> Network:
    flaxmodels = pytest.importorskip("flaxmodels")
    from flaxmodels.resnet import ops

    # The package's own BatchNorm computes in single precision whatever it is asked.
    replace_names(ops, "jnp", float32=jnp.dtype(dtype))
    x = picture((2, 64, 64, 3), dtype)
    model = flaxmodels.ResNet50(output="logits", pretrained=None, num_classes=CLASSES, dtype=dtype)
    fn, params = linen(model, x, train=False)
    return Network(fn, params, x, RESNET50)


@network
def jax_resnet_resnest50(dtype: str) -> Network:
    jax_resnet = pytest.importorskip("jax_resnet")
    x = picture((2, 64, 64, 3), dtype)
    model = jax_resnet.ResNeSt50(n_classes=CLASSES)
    fn, params = linen(model, x)
    counts = {
        # three in the stem; each block: 1x1, grouped 3x3, two of the attention, 1x1; projections
        "conv": 3 + 16 * 5 + 4,
        "dense": 1,
        "activation": 3 + 16 * 4,
        "softmax": 16,
        # each half of the channels times its attention
        "product": 16 * 2,
        # the halves before and after attention, and the skip connection
        "add": 16 * 3,
        "max_pool": 1,
        # the mean in each attention, three strided blocks with their skips, the head
        "avg_pool": 16 + 3 * 2 + 1,
    }
    return Network(fn, params, x, counts)


@network
def jax_models_convnext(dtype: str) -> Network:
    pytest.importorskip("jax_models")
    from jax_models.models import convnext

    # The rates of stochastic depth are read off an array with .item(), which a trace cannot do.
    replace_names(convnext, "jnp", linspace=np.linspace)
    x = picture((2, 64, 64, 3), dtype)
    model = convnext.ConvNeXt(num_classes=CLASSES)  # the tiny one
    fn, params = linen(model, x, deterministic=True)
    blocks = 3 + 3 + 9 + 3
    counts = {
        "conv": 1 + 3 + blocks,
        "dense": 2 * blocks + 1,
        "norm": 1 + 3 + blocks + 1,
        "activation": blocks,
        "add": blocks,
        "avg_pool": 1,
    }
    return Network(fn, params, x, counts)


@network
def jax_models_mixer(dtype: str) -> Network:
    pytest.importorskip("jax_models")
    from jax_models.models import mlp_mixer

    # The package's head has no option to leave its softmax out.
    replace_names(mlp_mixer, "nn", softmax=lambda x, axis: x)
    x = picture((2, 64, 64, 3), dtype)
    model = mlp_mixer.mlpmixer_s16(attach_head=True, num_classes=CLASSES)
    fn, params = linen(model, x, deterministic=True)
    layers = 8
    counts = {
        "conv": 1,
        "dense": 4 * layers + 1,
        "norm": 2 * layers,
        "activation": 2 * layers,
        "add": 2 * layers,
        "avg_pool": 1,
    }
    return Network(fn, params, x, counts)


# --- Haiku --------------------------------------------------------------------------------------


def haiku(build: Callable[[], Callable], x: jax.Array) -> tuple[Callable, Any]:
    import haiku as hk

    @hk.without_apply_rng
    @hk.transform_with_state
    def forward(x, is_training):
        return build()(x, is_training)

    # statistics come into being in training only
    shapes = jax.eval_shape(lambda x: forward.init(jax.random.key(0), x, True), x)
    return lambda params, x: forward.apply(*params, x, False)[0], randomise(shapes, x.dtype)


@network
def haiku_resnet50(dtype: str) -> Network:
    hk = pytest.importorskip("haiku")
    x = picture((2, 64, 64, 3), dtype)
    fn, params = haiku(lambda: hk.nets.ResNet50(CLASSES), x)
    return Network(fn, params, x, RESNET50)


@network
def haiku_mobilenet_v1(dtype: str) -> Network:
    hk = pytest.importorskip("haiku")
    x = picture((2, 64, 64, 3), dtype)
    fn, params = haiku(lambda: hk.nets.MobileNetV1(num_classes=CLASSES), x)
    # a stem, then thirteen pairs of depthwise and pointwise convolution
    counts = {"conv": 1 + 13 * 2, "dense": 1, "activation": 1 + 13 * 2, "avg_pool": 1}
    return Network(fn, params, x, counts)


# --- Keras on JAX -------------------------------------------------------------------------------


def keras_application(application: str, dtype: str) -> tuple[Callable, Any, jax.Array]:
    keras = pytest.importorskip("keras")
    # The backend is chosen once per process, when keras is imported; `make third-party` sets it.
    if keras.backend.backend() != "jax":
        pytest.skip("Keras runs on another backend; set KERAS_BACKEND=jax")
    x = picture((2, 64, 64, 3), dtype)
    from keras.src.backend.common import dtypes

    # Keras on JAX takes every float64 result back to float32, and input layers to its own default.
    dtypes.BIT64_TO_BIT32_DTYPE["float64"] = "float64"
    before = keras.config.dtype_policy(), keras.config.floatx()
    keras.config.set_dtype_policy(dtype)
    keras.config.set_floatx(dtype)
    try:
        with pytest.MonkeyPatch.context() as patch:
            # Keras compiles a generator for every shape of kernel, for weights replaced below.
            patch.setattr(
                jax.random, "uniform", lambda key, shape, dtype, **_: np.zeros(shape, dtype)
            )
            model = getattr(keras.applications, application)(
                weights=None, classes=CLASSES, classifier_activation=None, input_shape=x.shape[1:]
            )
    finally:
        keras.config.set_dtype_policy(before[0])
        keras.config.set_floatx(before[1])
    rng = np.random.default_rng(0)

    def values(variables):
        return [jnp.asarray(draw(v.path, v.shape, v.dtype, rng)) for v in variables]

    def fn(params, x):
        return model.stateless_call(*params, x, training=False)[0]

    params = (values(model.trainable_variables), values(model.non_trainable_variables))
    return fn, params, x


@network
def keras_densenet121(dtype: str) -> Network:
    fn, params, x = keras_application("DenseNet121", dtype)
    blocks = 6 + 12 + 24 + 16
    counts = {
        "conv": 1 + 2 * blocks + 3,
        "dense": 1,
        # BatchNorm between a concatenation (or pooling) and a ReLU has no neighbour to fold into
        "affine": blocks + 3 + 1,
        "activation": 1 + 2 * blocks + 3 + 1,
        "max_pool": 1,
        "avg_pool": 3 + 1,
    }
    return Network(fn, params, x, counts)


@network
def keras_mobilenet_v2(dtype: str) -> Network:
    fn, params, x = keras_application("MobileNetV2", dtype)
    counts = {
        # stem; a first block of two; sixteen of three; the last 1x1
        "conv": 1 + 2 + 16 * 3 + 1,
        "dense": 1,
        "activation": 1 + 1 + 16 * 2 + 1,
        "add": 10,
        "avg_pool": 1,
    }
    return Network(fn, params, x, counts)


# --- Equinox ------------------------------------------------------------------------------------


@network
def equimo_mobilenet_v3(dtype: str) -> Network:
    eqx = pytest.importorskip("equinox")
    models = pytest.importorskip("equimo.models")
    x = picture((2, 3, 64, 64), dtype)
    key = jax.random.key(0)
    shapes = eqx.filter_eval_shape(models.mobilenetv3_small, num_classes=CLASSES, key=key)
    shapes, rest = eqx.partition(shapes, lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct))

    def fn(arrays, x):
        model = eqx.combine(arrays, rest)
        return jax.vmap(lambda image: model(image, key=key, inference=True))(x)

    blocks, excited = 11, 9  # inverted bottlenecks, and those with squeeze-and-excitation
    counts = {
        "conv": 1 + 3 * blocks + 2 * excited,
        "dense": 1,
        "norm": 1 + 3 * blocks,
        "activation": 1 + 2 * blocks + 2 * excited,
        "product": excited,
        "add": 3,
        "avg_pool": excited + 1,
    }
    return Network(fn, randomise(shapes, x.dtype), x, counts)
