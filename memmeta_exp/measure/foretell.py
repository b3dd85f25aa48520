"""Metering a step on meta tensors, as it would allocate on a GPU.

Constants are those of torch 2.13's CUDA caching allocator and cuBLAS handles.
"""

from typing import Any

import torch
from torch import Tensor

from memmeta_exp.measure.peak_memory import MIB, PeakMeter

CUBLAS_WORKSPACE = 8_519_680  # bytes that each thread's handle holds from its first matrix product on
CUBLAS_WORKSPACE_HOPPER = 32 * MIB
SMALL = MIB  # bytes: larger requests are served from blocks that are split only where more than this would be left

_aten = torch.ops.aten
CONVOLUTIONS = {_aten.convolution, _aten.convolution_backward}
MATRIX_PRODUCTS = {_aten.mm, _aten.addmm, _aten.bmm, _aten.baddbmm}


class ForetellingMeter(PeakMeter):
    """A `PeakMeter` of meta tensors that also finds what else a GPU would hold. Tensors of the CPU (counters of steps)
    do not count. persistent: all that is there before the step.

    ceiling: upper bound on the peak in allocator blocks: a block that serves more than 1 MiB may be up to 1 MiB larger;
    at_convolution: bytes in blocks during the convolution with the most, its results included; forward_products,
    backward_products: whether there are matrix products in the calling thread, and in autograd's.
    """

    def __init__(self, *persistent: Any) -> None:
        self.ceiling = self.at_convolution = self._large = 0
        self.forward_products = self.backward_products = False
        super().__init__(*persistent, device="meta")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = super().__torch_dispatch__(func, types, args, kwargs)
        self.ceiling = max(self.ceiling, self.current + SMALL * self._large)
        if func.overloadpacket in CONVOLUTIONS:
            self.at_convolution = max(self.at_convolution, self.current)
        elif func.overloadpacket in MATRIX_PRODUCTS:
            in_backward = torch._C._current_graph_task_id() != -1
            self.backward_products |= in_backward
            self.forward_products |= not in_backward
        return result

    def _count(self, requested: int, sign: int) -> None:
        super()._count(requested, sign)
        if self._rounded(requested) > SMALL:
            self._large += sign


def held_bytes(tensors: list[Tensor]) -> int:
    """Bytes requested for the storages of those of `tensors` that are meta tensors, each storage once."""
    storages = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in tensors if t.is_meta}
    return sum(storages.values())
