"""Full decodes in worker processes with limits on memory and time: a broken picture can cost one of them, no more."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import sys
from importlib.util import find_spec
from multiprocessing import connection
from pathlib import Path

from lib.download.options import VerifyLimits
from lib.errors import GleanerError, broken_installation, is_broken_installation
from lib.images.decode import MOST_FRAME_PIXELS, DecodeError, opened
from lib.images.formats import is_built_in
from lib.work import describe
from lib.work.processes import Child, start_child

DECODE_TIMEOUT, DECODE_CRASHED, UNDECODABLE = "decode_timeout", "decode_crashed", "undecodable"
MEMORY = "decode_memory", "more memory than a picture may need"
BROKEN = "broken_installation"  # no picture's reason: it ends the run
MOST_FRAMES = 500  # of an animation that are decoded, and fewer of large ones
# Seconds more on the clock than of processor time, for a worker that has just been started on a busy machine.
GRACE = 30
# What may be opened here: what servers send. An MPO is one of Pillow's JPEGs.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "ICO", "CUR", "JXL", "HEIF")

# What decodes a format that Pillow may lack: a part of its own, or a plugin beside it.
_BUILT_IN = {"avif": "avif", "jpeg2000": "jpg_2000"}
_PLUGINS = {"heic": "pillow_heif"}


class Verifier:
    """A few processes that decode. `check` may be called from as many threads as there are processes."""

    def __init__(self, workers: int, limits: VerifyLimits):
        self.limits = limits
        self.idle: queue.Queue[Child | None] = queue.Queue()
        for _ in range(workers):
            self.idle.put(None)  # started when first needed

    def check(self, picture: bytes | str, frames: int = MOST_FRAMES) -> tuple[str, str]:
        """(reason, detail) for a picture, given as bytes or as a path, that does not decode; ("", "") when it does.

        Of an animation so many frames are decoded at most. Raises GleanerError for a broken installation.
        """
        worker = self.idle.get()
        too_long = DECODE_TIMEOUT, f"more than {self.limits.seconds:g} s"
        try:
            worker = worker or start_child(serve, self.limits)
            worker.channel.send((picture, frames))
            if worker.channel.poll(self.limits.seconds + GRACE):
                found: tuple[str, str] = worker.channel.recv()
                if found[0] == BROKEN:
                    raise GleanerError(broken_installation(found[1]))
                return found
            worker.end()
            worker = None
            return too_long
        except (EOFError, OSError):
            if worker is None:
                return DECODE_CRASHED, "no decoder could be started"
            ended, worker = worker, None
            ended.process.join(1)
            code = ended.process.exitcode
            ended.end()
            ran_out = code == -getattr(signal, "SIGXCPU", 0)
            return too_long if ran_out else (DECODE_CRASHED, f"the decoder ended with {code}")
        finally:
            self.idle.put(worker)

    def close(self) -> None:
        while not self.idle.empty():
            worker = self.idle.get()
            if worker is not None:
                worker.channel.close()
                worker.end()


def serve(channel: connection.Connection, limits: VerifyLimits) -> None:
    """One worker process: picture in, (reason, detail) out, until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    while True:
        try:
            picture, frames = channel.recv()
        except (EOFError, OSError):
            return
        _limit(limits)
        channel.send(decode_fully(picture, frames))


def has_decoder(name: str) -> bool:
    """Tells if a format can be decoded here. Raises ImportError where its decoder is there and does not load."""
    built_in, plugin = _BUILT_IN.get(name), _PLUGINS.get(name)
    if built_in:
        return is_built_in(built_in)
    return plugin is None or find_spec(plugin) is not None


def decode_fully(picture: bytes | str, frames: int = MOST_FRAMES) -> tuple[str, str]:
    """(reason, detail) for what does not decode to its last row, every one of the first frames of it."""
    try:
        with opened(picture if isinstance(picture, bytes) else Path(picture), FORMATS) as image:
            image.load()
            frames = min(frames, MOST_FRAME_PIXELS // (image.width * image.height))
            for frame in range(1, min(int(getattr(image, "n_frames", 1)), frames)):
                image.seek(frame)
                image.load()
    except DecodeError as error:
        if error.reason == "out_of_memory":
            return MEMORY
        return UNDECODABLE if error.reason == "not_an_image" else error.reason, error.detail
    except MemoryError:
        return MEMORY
    except Exception as error:  # Pillow's plugins raise whatever their parser met
        if is_broken_installation(error):
            return BROKEN, describe(error)
        if isinstance(error, ImportError):
            return MEMORY
        return UNDECODABLE, " ".join(f"{type(error).__name__}: {error}".split())[:200]
    return "", ""


def _limit(limits: VerifyLimits) -> None:
    """Bounds the address space, and the processor time from now on; waiting is watched by the parent."""
    if sys.platform == "win32":
        return
    import resource

    with contextlib.suppress(ValueError, OSError):  # the system's own limit may be lower
        resource.setrlimit(resource.RLIMIT_AS, (limits.memory, limits.memory))
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(used.ru_utime + used.ru_stime + limits.seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.getrlimit(resource.RLIMIT_CPU)[1]))
