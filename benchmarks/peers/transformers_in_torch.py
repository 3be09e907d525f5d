"""ViT-B/16 and BERT-base of `benchmarks/networks.py` as PyTorch modules, with the same weights.

torchvision's ViT and Hugging Face's are both here: LXT has rules for the first, and its parts fit
the second. Flax's GELU is the one by tanh, so the modules use that one too. Flax numbers the outer
one of two nested dense layers first.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import operators  # noqa: F401
import torch
from torch import nn
from torch_networks import numbers
from torchvision.models import vision_transformer
from transformers import BertConfig, ViTConfig
from transformers.models.bert import modeling_bert
from transformers.models.vit import modeling_vit

WIDTH, DEPTH = 768, 12
ACTIVATION = "gelu_pytorch_tanh"

Weights = dict[str, torch.Tensor]


def _norm(to: str, weights: Mapping[str, Any]) -> Weights:
    return {
        f"{to}.weight": numbers(weights["scale"]),
        f"{to}.bias": numbers(weights["bias"]),
    }


def _dense(to: str, weights: Mapping[str, Any], inputs: int = WIDTH) -> Weights:
    """A dense layer; of a projection to heads or from them, the heads are one axis."""
    kernel = np.asarray(weights["kernel"]).reshape(inputs, -1)
    return {f"{to}.weight": numbers(kernel.T), f"{to}.bias": numbers(weights["bias"]).flatten()}


def _blocks(params: Mapping[str, Any], names: Mapping[str, str]) -> Weights:
    """All blocks in Hugging Face's names; `names` gives those that its models do not share."""
    found: Weights = {}
    for number in range(DEPTH):
        start, block = f"encoder.layer.{number}.", params[f"Block_{number}"]
        for name in ("query", "key", "value"):
            to = f"{start}{names['attention']}.{name}"
            found |= _dense(to, block["Attention_0"][name])
        found |= _dense(f"{start}attention.output.dense", block["Attention_0"]["out"])
        found |= _dense(f"{start}intermediate.dense", block["Dense_1"])
        found |= _dense(f"{start}output.dense", block["Dense_0"], 4 * WIDTH)
        found |= _norm(f"{start}{names['first norm']}", block["LayerNorm_0"])
        found |= _norm(f"{start}{names['second norm']}", block["LayerNorm_1"])
    return found


def _patches(to: str, weights: Mapping[str, Any]) -> Weights:
    kernel = np.asarray(weights["kernel"]).transpose(3, 2, 0, 1)
    return {f"{to}.weight": numbers(kernel), f"{to}.bias": numbers(weights["bias"])}


def torchvision_vit(params: Mapping[str, Any]) -> nn.Module:
    module = vision_transformer.vit_b_16()
    found: Weights = {
        "class_token": numbers(params["token"]),
        "encoder.pos_embedding": numbers(params["position"]),
        **_patches("conv_proj", params["Conv_0"]),
        **_norm("encoder.ln", params["LayerNorm_0"]),
        **_dense("heads.head", params["Dense_0"]),
    }
    for number in range(DEPTH):
        start, block = f"encoder.layers.encoder_layer_{number}.", params[f"Block_{number}"]
        three = [_dense("", block["Attention_0"][name]) for name in ("query", "key", "value")]
        for kind in ("weight", "bias"):
            joint = torch.cat([one[f".{kind}"] for one in three])
            found[f"{start}self_attention.in_proj_{kind}"] = joint
        found |= _dense(f"{start}self_attention.out_proj", block["Attention_0"]["out"])
        found |= _norm(f"{start}ln_1", block["LayerNorm_0"])
        found |= _norm(f"{start}ln_2", block["LayerNorm_1"])
        found |= _dense(f"{start}mlp.0", block["Dense_1"])
        found |= _dense(f"{start}mlp.3", block["Dense_0"], 4 * WIDTH)
    module.load_state_dict(found)
    for part in module.modules():
        if isinstance(part, nn.GELU):
            part.approximate = "tanh"
    return module


def huggingface_vit(params: Mapping[str, Any]) -> nn.Module:
    config = ViTConfig(layer_norm_eps=1e-6, num_labels=1000, hidden_act=ACTIVATION)
    module = modeling_vit.ViTForImageClassification(config)
    names = {
        "attention": "attention.attention",
        "first norm": "layernorm_before",
        "second norm": "layernorm_after",
    }
    inner: Weights = {
        "embeddings.cls_token": numbers(params["token"]),
        "embeddings.position_embeddings": numbers(params["position"]),
        **_patches("embeddings.patch_embeddings.projection", params["Conv_0"]),
        **_blocks(params, names),
        **_norm("layernorm", params["LayerNorm_0"]),
    }
    found = {f"vit.{name}": weight for name, weight in inner.items()}
    module.load_state_dict(found | _dense("classifier", params["Dense_0"]))
    return module


def huggingface_bert(params: Mapping[str, Any]) -> nn.Module:
    """Positions and token types are zero: the network of `networks.py` takes embedded tokens."""
    config = BertConfig(layer_norm_eps=1e-6, num_labels=2, hidden_act=ACTIVATION)
    # Looked up when it is called, since LXT puts classes of its own in the place of these.
    module = modeling_bert.BertForSequenceClassification(config)
    names = {
        "attention": "attention.self",
        "first norm": "attention.output.LayerNorm",
        "second norm": "output.LayerNorm",
    }
    inner: Weights = {
        **_norm("embeddings.LayerNorm", params["LayerNorm_0"]),
        **_blocks(params, names),
        **_dense("pooler.dense", params["Dense_1"]),
    }
    for name, weight in module.bert.embeddings.named_parameters():
        if "LayerNorm" not in name:
            inner[f"embeddings.{name}"] = torch.zeros_like(weight)
    found = {f"bert.{name}": weight for name, weight in inner.items()}
    module.load_state_dict(found | _dense("classifier", params["Dense_0"]))
    return module


MODULES: dict[str, Callable[[Mapping[str, Any]], nn.Module]] = {
    "vit_torchvision": torchvision_vit,
    "vit_huggingface": huggingface_vit,
    "bert": huggingface_bert,
}
