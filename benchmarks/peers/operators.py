"""Import before Zennit or LXT: operators that torchvision expects.

torchvision registers kernels for these operators, unless it was built for another PyTorch; then
somebody has to say that they exist. Nothing here calls them.
"""

import torch

_operators = torch.library.Library("torchvision", "DEF")
_operators.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
_operators.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
