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
    """A backbone and the head's start phi_0 [C, d+1] (last column the bias), torch's default Linear initialisation:
    every entry ~ U(-1/sqrt d, 1/sqrt d). phi_0 is a parameter where it is learned and a buffer where it is fixed.
    Called on images [T, n, C, H, W] it gives the outputs [T, n, ways] of the head phi_0: W z + b, or, where `cosine` is
    a number, that times the cosines of z and the rows of W. classes: where training classifies the classes of its
    split, `classifier` V [classes, d+1], a parameter that begins as phi_0 does; None where it does not, or is over."""

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
        """The classifier's logits [T, n, classes] of features z [T, n, d]: V (z, 1), or where `scale` is a number, that
        times the cosines of z and V's rows but for their last entries."""
        assert self.classifier is not None, "a model without a classifier"
        weight, bias = self.classifier[:, :-1], self.classifier[:, -1]
        return linear(z, weight, bias) if scale is None else scaled_cosines(z, weight, scale)

    def forward(self, images: Tensor, keys: Keys | None = None) -> Tensor:
        z = self.backbone(images) if keys is None else self.backbone(images, keys)
        z = z.to(self.head_start.dtype)
        device = "cpu" if z.is_meta else z.device.type  # torch has no autocast of meta tensors
        with torch.autocast(device, enabled=False):  # precision is the backbone's: the head keeps its own
            weight, bias = self.head_start[..., :-1], self.head_start[..., -1]
            if self.cosine is None:
                return linear(z, weight, bias)
            return scaled_cosines(z, weight, self.cosine)


class QuadraticModel(MetaModel):
    """theta and phi_0 [1, q] of quadratic tasks; called on T tasks it gives both side by side, [T, p + q]."""

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
    """The meta-model that a backbone configuration describes, initial values a pure function of `seed` and of the
    weights that it names. Not materialised, it is of meta tensors, and nothing is read. classes: see `MetaModel`.

    Raises ConfigError where the backbone cannot be made, or the image is too small for it.
    """
    generator = torch.Generator().manual_seed(seed)
    net, features = build_backbone(backbone, channels, image_size, generator, materialise)
    model = MetaModel(net, features, ways, learned, generator, classes)
    return model if materialise else model.to("meta")
