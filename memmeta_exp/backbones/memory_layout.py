"""The memory format of images and activations [n, C, H, W]."""

import torch
from torch import Tensor


def image_layout(device: torch.device) -> torch.memory_format:
    """The fast format: channels-last on a CPU, channels-first for cuDNN's float32 kernels on CUDA."""
    return torch.channels_last if device.type == "cpu" else torch.contiguous_format


def layout_of(x: Tensor) -> torch.memory_format:
    """The memory format of x [n, C, H, W]."""
    last = x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format
