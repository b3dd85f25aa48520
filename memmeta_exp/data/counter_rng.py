"""A counter-based generator of 64-bit keys: each draw is a pure function of its key, equal on every device.

splitmix64 (Steele, Lea, Flood 2014, variant 13 of Stafford) in int64 tensors, whose arithmetic is modulo 2^64.
"""

import hashlib

import torch
from torch import Tensor


def _signed(word: int) -> int:
    """The int64 with the bits of a 64-bit word."""
    return word - (1 << 64) if word >> 63 else word


GAMMA = _signed(0x9E3779B97F4A7C15)
_FACTORS = (_signed(0xBF58476D1CE4E5B9), _signed(0x94D049BB133111EB))


def hashed(text: str) -> int:
    """A 64-bit hash of `text`, equal in all processes, versions and platforms, unlike hash()."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def root_key(name: str) -> int:
    """`hashed` as an int64."""
    return _signed(hashed(name))


def children(key: Tensor, count: int) -> Tensor:
    """The first `count` words of the splitmix64 sequence of each key: int64 [*key.shape, count]."""
    counter = torch.arange(1, count + 1, device=key.device) * GAMMA
    return mix(key[..., None] + counter)


def mix(x: Tensor) -> Tensor:
    """The finaliser of splitmix64, in place."""
    for shift, factor in zip((30, 27), _FACTORS, strict=True):
        x = x.bitwise_xor_(_shift_right(x, shift)).mul_(factor)
    return x.bitwise_xor_(_shift_right(x, 31))


def smallest(keys: Tensor, count: int) -> Tensor:
    """Indices of the `count` smallest keys along the last dimension, in ascending order of key."""
    return keys.topk(count, largest=False, sorted=True).indices


def uniform(keys: Tensor) -> Tensor:
    """float64 numbers in [0, 1) from the upper 53 bits of each key, equal on every device."""
    return _shift_right(keys, 11).double().mul_(2.0**-53)


def _shift_right(x: Tensor, bits: int) -> Tensor:
    """The logical right shift; torch's >> copies the sign bit, which the mask removes."""
    return (x >> bits).bitwise_and_((1 << (64 - bits)) - 1)
