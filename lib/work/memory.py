"""The memory of a process that handles large arrays all day long: what it keeps, and what a worker may take at most."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys

KEPT_BYTES = 1 << 29
# Bytes of address space that a decoder may map: that of step 5 in all, those of other steps beyond what their process
# has when it is ready. A picture takes 640 MB at most, and the largest of each format are decoded in 1.25 GiB, the
# interpreter with NumPy and Pillow included.
DECODER_BYTES = 3 << 29
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # as malloc.h of glibc has them


def prepare_decoder() -> None:
    """Prepares a process for decoding: it keeps its memory and, where it is a worker of ours, has a bound of it.

    A codec that would take more fails there with MemoryError, or brings down a process that has nothing else to lose.
    What runs in the main process or in one of Ray's has no such bound: it would hit the models and databases beside.
    """
    from multiprocessing import parent_process  # late: it makes --help slow

    import numpy as np  # what is mapped later counts as the picture's
    from PIL import Image

    del np, Image
    keep_memory()
    if parent_process() is not None:
        bound_memory(DECODER_BYTES)


def bound_memory(room: int) -> None:
    """Bounds this process's address space to what it has mapped by now and `room` bytes more (Linux only).

    Relative, since a limit counts every mapping, and libraries reserve gigabytes that they never touch.
    """
    if sys.platform != "linux":
        return
    import resource

    with contextlib.suppress(ValueError, OSError):  # the system's own limit may be lower
        with open("/proc/self/statm", encoding="ascii") as file:
            mapped = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (mapped + room, most))


def keep_memory() -> None:
    """Lets freed memory stay with this process (the C library of Linux only).

    By default every large array is fetched from the system page by page and given back when it is freed. Networks on a
    CPU make hundreds of them a picture, and a third of their time goes there; of the technical score it is half. The
    peak stays the same.
    """
    if sys.platform != "linux":
        return
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(_M_MMAP_MAX, 0)
        library.mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)
