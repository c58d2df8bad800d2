"""The processor that a model runs on, and batches that fit its memory."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from lib.errors import UsageError, is_broken_installation
from lib.work.memory import keep_memory

T = TypeVar("T")
R = TypeVar("R")

log = logging.getLogger("gleaner.models")

DEVICES = ("auto", "cpu", "cuda", "mps")
# Pixels in one batch. A learned metric keeps about a kilobyte and a half a pixel alive, so that two megapixels on a CPU
# stay well below 2 GB beside the model; a GPU gets a quarter of what is free.
CPU_PIXELS = 1_600_000
BYTES_A_PIXEL = 1_500
GPU_PIXELS = (4_000_000, 64_000_000)


def prepare(name: str) -> str:
    """The device that `--device` names, as `choose` says, in a process that is then ready for models."""
    device = choose(name)
    if device == "cpu":
        keep_memory()
    return device


def choose(name: str) -> str:
    """The device that `--device` names; `auto` is the fastest that works. Raises UsageError for one that does not."""
    import torch

    has = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return next(device for device in ("cuda", "mps", "cpu") if has[device])
    if not has[name]:
        raise UsageError(f"torch finds no {name} device here; use --device auto.")
    return name


def pixels_in_batch(device: str) -> int:
    """The number of pixels of pictures to give a metric at once."""
    if device != "cuda":
        return CPU_PIXELS
    import torch

    free, _ = torch.cuda.mem_get_info()
    return max(GPU_PIXELS[0], min(GPU_PIXELS[1], free // 4 // BYTES_A_PIXEL))


@lru_cache(maxsize=1)
def has_bfloat16() -> bool:
    """True where this processor multiplies bfloat16 natively (AVX-512 BF16, AMX); else it is slower than float32."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def half(device: str) -> AbstractContextManager[Any]:
    """Half precision where that is faster: on GPUs. A CPU without bf16 units is 2.5 times slower with it."""
    if device != "cuda":
        return nullcontext()
    import torch

    return torch.autocast("cuda", dtype=torch.float16)


def batched(run: Callable[[Sequence[T]], Sequence[R]], items: Sequence[T]) -> list[R | Exception]:
    """`run` over the items, in halves, quarters, … where memory runs out; an item that fails alone gives its error.

    An error that is not about memory is narrowed down in the same way, so that one bad picture costs only itself.
    """
    try:
        return list(run(items))
    except Exception as error:  # whatever a network of another package makes of a strange picture
        if is_broken_installation(error):
            raise
        full = out_of_memory(error)
        if len(items) == 1:
            return [MemoryError("too_large_for_device") if full else error.with_traceback(None)]
    # Outside of the handler: the error's traceback holds the tensors that did not fit.
    if full:
        log.info("a batch of %d did not fit into memory; trying halves", len(items))
        _free()
    middle = len(items) // 2
    return batched(run, items[:middle]) + batched(run, items[middle:])


def out_of_memory(error: BaseException) -> bool:
    """True where an error of torch says that memory has run out, on whatever device."""
    words = str(error).lower()
    return isinstance(error, MemoryError) or any(
        text in words for text in ("out of memory", "can't allocate memory", "not enough memory", "cannot allocate")
    )


def _free() -> None:
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
