"""Meters a step on meta tensors, as if it allocated on a GPU.

The constants are those of torch 2.13's CUDA caching allocator and cuBLAS handles.
"""

from collections.abc import Hashable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from memmeta_exp.profiling.peak_memory import MIB, PeakMeter

CUBLAS_WORKSPACE = 8_519_680  # bytes that a thread's handle holds after its first matrix product
CUBLAS_WORKSPACE_HOPPER = 32 * MIB
SMALL = MIB  # bytes: a block for a larger request is split only if more than this would remain

_aten = torch.ops.aten
CONVOLUTIONS = {_aten.convolution, _aten.convolution_backward}
MATRIX_PRODUCTS = {_aten.mm, _aten.addmm, _aten.bmm, _aten.baddbmm}


class MetaKernelCache(TorchDispatchMode):
    """Makes operators on meta tensors several times as fast, by a cache of their results.

    For arguments of known shapes, strides and types it makes the result again without the Python meta kernel, which
    takes 0.3 ms. It caches only operators that neither write to nor return an argument.
    """

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[tuple[Any, Hashable, Hashable], Any] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not _functional(func):
            return func(*args, **kwargs)
        try:
            key = (func, _described(args), _described(tuple(kwargs.items())))
        except _NotMeta:
            return func(*args, **kwargs)
        if key not in self._known:
            result = func(*args, **kwargs)
            if _is_new(result, (args, kwargs)):
                self._known[key] = tree_map_only(Tensor, _TensorSpec, result)
            return result
        return tree_map_only(_TensorSpec, _TensorSpec.again, self._known[key])


class _TensorSpec:
    """Size, stride and type of a result."""

    def __init__(self, tensor: Tensor) -> None:
        self.size, self.stride, self.dtype = tensor.size(), tensor.stride(), tensor.dtype

    def again(self) -> Tensor:
        return torch.empty_strided(self.size, self.stride, dtype=self.dtype, device="meta")


class _NotMeta(Exception):
    """An argument is a tensor with values, and the result's type may depend on them."""


def _described(value: Any) -> Hashable:
    """What a meta kernel sees of an argument, with a number's type: 2 == 2.0, but they promote differently."""
    if isinstance(value, Tensor):
        if not value.is_meta:
            raise _NotMeta
        return (value.size(), value.stride(), value.dtype)
    if isinstance(value, tuple | list):
        return tuple(_described(v) for v in value)
    return (type(value), value)


@cache
def _functional(func: Any) -> bool:
    """Whether `func`, by its schema, takes a tensor, and neither writes to nor returns an argument."""
    schema = func._schema
    aliases = any(a.alias_info is not None for a in (*schema.arguments, *schema.returns))
    return not aliases and any("Tensor" in str(a.type) for a in schema.arguments)


def _is_new(result: Any, arguments: Any) -> bool:
    """Whether every tensor of `result` has its own storage, of exactly the size it needs."""
    taken = {t.untyped_storage()._cdata for t in tree_leaves(arguments) if isinstance(t, Tensor)}
    for leaf in tree_leaves(result):
        if not isinstance(leaf, Tensor):
            continue
        storage = leaf.untyped_storage()
        again = _TensorSpec(leaf).again().untyped_storage()
        if not leaf.is_meta or storage._cdata in taken or storage.nbytes() != again.nbytes():
            return False
        taken.add(storage._cdata)
    return True


class MetaMemoryMeter(PeakMeter):
    """A `PeakMeter` of meta tensors that also finds what else a GPU would hold.

    Tensors on the CPU (counters of steps) do not count. persistent: all that exists before the step. ceiling: upper
    bound on the peak in allocator blocks, where a block for more than 1 MiB may be up to 1 MiB larger. at_convolution:
    the most bytes in blocks during a convolution, its results included. forward_products, backward_products: whether
    the calling thread, and autograd's, compute matrix products.
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
    """Bytes requested for the storages of the meta tensors among `tensors`; each storage counts once."""
    storages = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in tensors if t.is_meta}
    return sum(storages.values())
