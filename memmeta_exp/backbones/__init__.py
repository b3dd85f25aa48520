"""Feature extractors z = backbone(images; theta) and the head's start."""

from memmeta_exp.backbones.conv4 import Conv4
from memmeta_exp.backbones.layout import image_layout
from memmeta_exp.backbones.model import MetaModel, build_model

__all__ = ["Conv4", "MetaModel", "build_model", "image_layout"]
