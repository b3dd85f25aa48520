"""Makes a torchvision built for CUDA import beside a CPU torch; `import_torchvision` is the one way in."""

import importlib
from types import ModuleType

import torch

_LIBRARY: list[torch.library.Library] = []  # a Library undoes its definitions when it is collected
_OPERATORS = ("nms", "qnms")


def import_torchvision() -> ModuleType:
    """The torchvision package; ImportError where it does not import.

    A torchvision built for CUDA declares no operators beside a CPU torch, yet registers code for two of them. Only its
    data-set helpers and image transforms are used here and by timm, which call neither, so declaring the two lets it
    import.
    """
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "operator torchvision::" not in str(error) or _LIBRARY:
            raise ImportError(f"torchvision: {error}") from None
        _LIBRARY.append(torch.library.Library("torchvision", "FRAGMENT"))
        for name in _OPERATORS:
            _LIBRARY[0].define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        return import_torchvision()
