"""Has glibc's malloc keep the memory of tensors that are freed."""

import ctypes
import os
from functools import cache

TRIM_THRESHOLD, MMAP_THRESHOLD, ARENA_MAX = -1, -3, -8  # of malloc.h
MOST = 2**31 - 1  # bytes: the largest number that mallopt takes
LARGEST_IN_HEAP = 2**25  # bytes: the largest MMAP_THRESHOLD that an older glibc takes


@cache
def keep_freed_memory() -> bool:
    """From now on, and for this process: a tensor takes the place of one that was freed. By default malloc hands large
    blocks back to the kernel, and the next tensor, made a microsecond later, is paid for page by page: 8 to 11 % of a
    step on a CPU. The process keeps its largest size, up to 2 GiB beyond what it needs.

    False, and nothing is done, where malloc is not glibc's, or the environment says how it should behave.
    """
    if any(name == "GLIBC_TUNABLES" or name.startswith("MALLOC_") for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    in_heap = any(mallopt(MMAP_THRESHOLD, size) == 1 for size in (MOST, LARGEST_IN_HEAP))
    return in_heap and mallopt(TRIM_THRESHOLD, MOST) == 1 and mallopt(ARENA_MAX, 1) == 1
