"""The meta-model: theta (the backbone) and phi_0, the point from which every task's head starts."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from memmeta_exp.backbones.backbone import Keys, linear
from memmeta_exp.backbones.linear_map import Theta
from memmeta_exp.backbones.registry import build_backbone


def scaled_cosines(z: Tensor, weight: Tensor, scale: float) -> Tensor:
    """scale <z_i / |z_i|, w_c / |w_c|>: [.., n, C], for points z [.., n, d] and rows weight [C, d]."""
    return scale * F.normalize(z, dim=-1) @ F.normalize(weight, dim=-1).mT


class MetaModel(nn.Module):
    """A backbone and phi_0, from which every task's head starts.

    head_start: phi_0 [C, d+1], last column the bias; a parameter where `learned`, else a buffer. Its entries are drawn
    from U(-1/sqrt d, 1/sqrt d), as in torch's Linear. cosine: None, or the scale of a cosine head. classes: None, or
    the number of classes of a classifier that training fits. classifier: V [classes, d+1], drawn as phi_0; None without
    `classes`, and after training.

    `forward` takes images [T, n, C, H, W] and returns the outputs [T, n, ways] of the head phi_0: W z + b, or `cosine`
    times the cosines of z and the rows of W.
    """

    head_start: Tensor
    classifier: Tensor | None

    def __init__(
        self,
        backbone: nn.Module,
        features: int,
        ways: int,
        learned: bool,
        generator: torch.Generator,
        classes: int | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.ways = ways
        self.cosine: float | None = None
        bound = 1 / math.sqrt(features)

        def drawn(rows: int) -> Tensor:
            return torch.empty(rows, features + 1).uniform_(-bound, bound, generator=generator)

        start = drawn(ways)
        if learned:
            self.head_start = nn.Parameter(start)
        else:
            self.register_buffer("head_start", start)
        self.register_parameter("classifier", None if classes is None else nn.Parameter(drawn(classes)))

    def with_ways(self, ways: int, seed: int) -> "MetaModel":
        """A model on the same backbone whose head has `ways` rows: the first ones of phi_0, and where there are more,
        further ones drawn as those of a fixed phi_0 are."""
        learned, rows = isinstance(self.head_start, nn.Parameter), self.head_start.detach()
        generator = torch.Generator().manual_seed(seed)
        other = MetaModel(self.backbone, rows.size(1) - 1, ways, learned, generator).to(rows)
        other.head_start.detach()[: len(rows)] = rows[:ways]
        other.cosine = self.cosine
        return other

    def classify(self, z: Tensor, scale: float | None = None) -> Tensor:
        """The classifier's logits [T, n, classes] of features z [T, n, d].

        They are V (z, 1), or with a `scale`, that times the cosines of z and the rows of V without their last entry.
        """
        assert self.classifier is not None, "a model without a classifier"
        weight, bias = self.classifier[:, :-1], self.classifier[:, -1]
        return linear(z, weight, bias) if scale is None else scaled_cosines(z, weight, scale)

    def forward(self, images: Tensor, keys: Keys | None = None) -> Tensor:
        z = self.backbone(images) if keys is None else self.backbone(images, keys)
        z = z.to(self.head_start.dtype)
        device = "cpu" if z.is_meta else z.device.type  # torch has no autocast of meta tensors
        with torch.autocast(device, enabled=False):  # autocast is for the backbone alone
            weight, bias = self.head_start[..., :-1], self.head_start[..., -1]
            if self.cosine is None:
                return linear(z, weight, bias)
            return scaled_cosines(z, weight, self.cosine)


class QuadraticModel(MetaModel):
    """theta [p] and phi_0 [1, q] of quadratic tasks. `forward` on T tasks returns both joined, [T, p + q]."""

    def __init__(self, dim_theta: int, dim_phi: int, learned: bool, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        super().__init__(Theta(dim_theta, generator), dim_phi - 1, ways=1, learned=learned, generator=generator)

    def forward(self, images: Tensor, keys: Keys | None = None) -> Tensor:
        return torch.cat([self.backbone(images), self.head_start.expand(len(images), -1)], -1)


def build_model(
    backbone: Any,
    channels: int,
    image_size: int,
    ways: int,
    learned: bool,
    seed: int,
    materialise: bool = True,
    classes: int | None = None,
) -> MetaModel:
    """The meta-model on the backbone that a configuration describes.

    Initial values are a pure function of `seed` and of the weights that the configuration names. learned, classes: see
    `MetaModel`. materialise: False for meta tensors; nothing is then read.

    Raises ConfigError where the backbone cannot be made, or the image is too small for it.
    """
    generator = torch.Generator().manual_seed(seed)
    net, features = build_backbone(backbone, channels, image_size, generator, materialise)
    model = MetaModel(net, features, ways, learned, generator, classes)
    return model if materialise else model.to("meta")
