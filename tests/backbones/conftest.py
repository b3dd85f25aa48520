"""Every backbone on tiny widths."""

from typing import Any

from memmeta_exp.config import Conv4Config, MlpConfig, Resnet12Config, TimmConfig, WideResnetConfig

TINY: dict[str, Any] = {
    "conv4": Conv4Config(filters=[4, 5, 6, 7]),
    "resnet12": Resnet12Config(filters=[4, 5, 6, 8]),
    "resnet12 dropped": Resnet12Config(filters=[4, 5, 6, 8], drop_rate=0.2, drop_block=2),
    "wrn": WideResnetConfig(depth=10, width=1),
    "mlp": MlpConfig(hidden=[7, 6]),
    "timm resnet": TimmConfig(model="test_resnet", frozen=1),
    "timm vit": TimmConfig(model="test_vit"),
}
