"""Every backbone on tiny widths."""

from typing import Any

from memmeta_exp.backbones.conv4 import Conv4Config
from memmeta_exp.backbones.custom import CustomConfig
from memmeta_exp.backbones.mlp import MlpConfig
from memmeta_exp.backbones.resnet12 import Resnet12Config
from memmeta_exp.backbones.timm_backbone import TimmConfig
from memmeta_exp.backbones.wide_resnet import WideResnetConfig

TINY: dict[str, Any] = {
    "conv4": Conv4Config(filters=[4, 5, 6, 7]),
    "resnet12": Resnet12Config(filters=[4, 5, 6, 8]),
    "resnet12 dropped": Resnet12Config(filters=[4, 5, 6, 8], drop_rate=0.2, drop_block=2),
    "wrn": WideResnetConfig(depth=10, width=1),
    "mlp": MlpConfig(hidden=[7, 6]),
    "timm resnet": TimmConfig(model="test_resnet", frozen=1),
    "timm vit": TimmConfig(model="test_vit"),
    "custom": CustomConfig(target="tests.backbones.small_net.SmallNet", arguments={"width": 5}),
}
