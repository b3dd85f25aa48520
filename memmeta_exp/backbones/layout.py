"""The order of images and activations [n, C, H, W] in memory."""

import torch


def image_layout(device: torch.device) -> torch.memory_format:
    """Channels-last on the CPU, whose fast layout it is; on CUDA, cuDNN's float32 kernels want the other one."""
    return torch.channels_last if device.type == "cpu" else torch.contiguous_format
