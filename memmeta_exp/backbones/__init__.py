"""Feature extractors z = backbone(images; theta), and the meta-model of a backbone and phi_0."""

from memmeta_exp.backbones.backbone import Backbone, Keys
from memmeta_exp.backbones.conv4 import Conv4
from memmeta_exp.backbones.custom import CustomConfig
from memmeta_exp.backbones.memory_layout import image_layout
from memmeta_exp.backbones.meta_model import MetaModel, QuadraticModel, build_model
from memmeta_exp.backbones.mlp import MLP
from memmeta_exp.backbones.registry import apply_memory_options, require
from memmeta_exp.backbones.resnet12 import ResNet12
from memmeta_exp.backbones.task_norm import STATS_ITERATIONS, running_weight
from memmeta_exp.backbones.timm_backbone import TimmConfig
from memmeta_exp.backbones.wide_resnet import WideResNet

__all__ = [
    "MLP",
    "STATS_ITERATIONS",
    "Backbone",
    "Conv4",
    "CustomConfig",
    "Keys",
    "MetaModel",
    "QuadraticModel",
    "ResNet12",
    "TimmConfig",
    "WideResNet",
    "apply_memory_options",
    "build_model",
    "image_layout",
    "require",
    "running_weight",
]
