"""The C library's memory in a process that handles large arrays all day long."""

from __future__ import annotations

import contextlib
import ctypes
import sys

KEPT_BYTES = 1 << 29
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # as malloc.h of glibc has them


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
