# %% [markdown]
# # A photograph
#
# EfficientNet-Lite0 with its published weights looks at two photographs. The weights come as a package, the photographs with
# scikit-image, so nothing else is downloaded. `examples/imagenet_networks.py` rebuilds the network in Flax, with ordinary BatchNorm: jaxlrp
# finds by itself that each norm belongs to its convolution.

# %%
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
from skimage import data

import jaxlrp as lrp
from jaxlrp import heatmap

sys.path.append("examples")
from imagenet_networks import centre_crop, efficientnet_lite0
from pictures import class_names

network, variables = efficientnet_lite0()
names = class_names()
photographs = np.stack([centre_crop(image, 224) for image in (data.chelsea(), data.coffee())])
logits = np.asarray(jax.jit(network.apply)(variables, photographs))
best, second = np.argsort(logits, axis=1)[:, ::-1][:, :2].T
share = jax.nn.softmax(logits)
for n in range(2):
    print(", ".join(f"{names[c]} {share[n, c]:.0%}" for c in (best[n], second[n])))

# %% [markdown]
# ## Plan
#
# There are 49 convolutions and as many norms, but no norm is in the plan: each is part of its convolution.

# %%
rules = lrp.composites.epsilon_gamma_box(low=0.0, high=255.0)
plan = lrp.plan(network.apply, rules, argnums=1)(variables, photographs)
print({kind: plan.count(kind) for kind in ("conv", "norm", "affine", "activation", "add", "dense")})
print(plan.table().split("\n", 3)[2])

# %% [markdown]
# ## Explain

# %%
explain = jax.jit(lrp.explain(network.apply, rules, argnums=1))
R = explain(variables, photographs, target=jnp.asarray(best))
heatmap.show(
    R,
    images=photographs,
    labels=[names[c] for c in best],
)

# %% [markdown]
# ## Read the ledger before the picture
#
# Batch normalisation adds large biases, and they take nearly all of the logits. The map shows the pattern of the small rest.

# %%
ledger = lrp.ledger(network.apply, rules, argnums=1)
verdict = ledger(variables, photographs, target=jnp.asarray(best)).verdict
print(textwrap.fill(verdict, 95))

# %% [markdown]
# ## This class rather than that
#
# Much of a map is common to both classes. The difference of the logits shows what tells them apart.

# %%
weights = jax.nn.one_hot(best, 1000) - jax.nn.one_hot(second, 1000)
contrast = explain(variables, photographs, target=weights)
heatmap.show(
    contrast,
    images=photographs,
    labels=[f"{names[a]}, not {names[b]}" for a, b in zip(best, second)],
)
