"""The transformers of `against_lxt.py` in JAX and in PyTorch, and the rules that LXT has."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import networks
import numpy as np
import operators  # noqa: F401
import small_llama
import torch
import transformers_in_torch
from lxt.efficient import monkey_patch, patches
from lxt.efficient.models import bert as lxt_bert
from lxt.efficient.models import llama as lxt_llama
from lxt.efficient.models import vit_torch as lxt_vit
from torch import nn
from torchvision.models import vision_transformer
from transformers.activations import ACT2FN
from transformers.models.bert import modeling_bert
from transformers.models.llama import modeling_llama
from transformers.models.vit import modeling_vit


class Case(NamedTuple):
    """`fn(params, x)` and `logits(module(), x)` are the same network; `x` is one example."""

    fn: Callable[..., Any]
    params: Any
    x: np.ndarray
    module: Callable[[], nn.Module]
    logits: Callable[[nn.Module, torch.Tensor], torch.Tensor]
    lxt: dict[str, Callable[[], None]]  # by rules: patches the classes of this process
    target: int


def _tokens(length: int, width: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((1, length, width), np.float32)


def llama(length: int) -> Case:
    stored = small_llama.weights()

    def module() -> nn.Module:
        made = small_llama.huggingface(length)
        made.load_state_dict({name: torch.from_numpy(weight) for name, weight in stored.items()})
        return made

    def logits(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return module(inputs_embeds=x, use_cache=False, logits_to_keep=1).logits[:, -1]

    return Case(
        small_llama.logits,
        small_llama.for_jax(stored),
        _tokens(length, small_llama.WIDTH),
        module,
        logits,
        {
            "attn_lrp": partial(monkey_patch, modeling_llama, patch_map=lxt_llama.attnLRP),
            "cp_lrp": partial(monkey_patch, modeling_llama, patch_map=lxt_llama.cp_LRP),
        },
        target=7,
    )


def _of_flax(
    name: str, x: np.ndarray | None, module: str, logits: Callable[..., Any], lxt: dict[str, Any]
) -> Case:
    network = networks.build(name, 1)
    params = network.params["params"]
    return Case(
        network.fn,
        network.params,
        np.asarray(network.x) if x is None else x,
        lambda: transformers_in_torch.MODULES[module](params),
        logits,
        lxt,
        target=1,
    )


def bert(length: int) -> Case:
    def logits(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return module(inputs_embeds=x).logits

    def patch() -> None:
        monkey_patch(modeling_bert, patch_map=lxt_bert.attnLRP)

    return _of_flax("bert", _tokens(length, 768), "bert", logits, {"attn_lrp": patch})


def _channels_first(x: torch.Tensor) -> torch.Tensor:
    return x.permute(0, 3, 1, 2)


def vit_torchvision(length: int) -> Case:
    def logits(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return module(_channels_first(x))

    def patch() -> None:
        monkey_patch(vision_transformer, patch_map=lxt_vit.cp_LRP)

    return _of_flax("vit", None, "vit_torchvision", logits, {"cp_lrp": patch})


def vit_huggingface(length: int) -> Case:
    """LXT has no map for this module, and for no ViT one of AttnLRP: here is one of its parts."""

    def logits(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return module(_channels_first(x)).logits

    def patch(attention: Callable[[Any], bool]) -> None:
        activation = type(ACT2FN[transformers_in_torch.ACTIVATION])
        parts = {
            nn.LayerNorm: partial(patches.patch_method, patches.layer_norm_forward),
            nn.Dropout: partial(patches.patch_method, patches.dropout_forward),
            activation: partial(
                patches.patch_method, patches.non_linear_forward, keep_original=True
            ),
            modeling_vit: attention,
        }
        monkey_patch(modeling_vit, patch_map=parts)

    rules = {
        "attn_lrp": partial(patch, patches.patch_attention),
        "cp_lrp": partial(patch, patches.patch_cp_attention),
    }
    return _of_flax("vit", None, "vit_huggingface", logits, rules)


CASES: dict[str, Callable[[int], Case]] = {
    "llama": llama,
    "bert": bert,
    "vit_torchvision": vit_torchvision,
    "vit_huggingface": vit_huggingface,
}
# Tokens of each network.
LENGTHS = {
    "llama": (128, 512, 2048),
    "bert": (128, 512),
    "vit_torchvision": (197,),
    "vit_huggingface": (197,),
}
