"""Makes a torchvision built for CUDA importable with a CPU torch. Import it through `import_torchvision` only."""

import importlib
from types import ModuleType

import torch

_LIBRARY: list[torch.library.Library] = []  # kept alive: a Library removes its definitions when it is collected
_OPERATORS = ("nms", "qnms")


def import_torchvision() -> ModuleType:
    """The torchvision package. Raises ImportError if it cannot be imported.

    With a CPU torch, a torchvision built for CUDA does not declare its operators, but registers code for two of them,
    which fails. Declaring the two makes the import work. They are never called: memmeta and timm use only torchvision's
    dataset helpers and image transforms.
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
