"""The order of images and activations [n, C, H, W] in memory."""

import torch
from torch import Tensor


def image_layout(device: torch.device) -> torch.memory_format:
    """Channels-last on the CPU, whose fast layout it is; on CUDA, cuDNN's float32 kernels want the other one."""
    return torch.channels_last if device.type == "cpu" else torch.contiguous_format


def layout_of(x: Tensor) -> torch.memory_format:
    """The order that x [n, C, H, W] is in."""
    last = x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format
