"""One digest of a picture's own pixels: equal only where nothing a viewer shows differs."""

from __future__ import annotations

import hashlib
from pathlib import Path

from PIL import Image, ImageOps, ImageSequence

from lib.decode import MAX_FRAMES, DecodeError, opened

KIND = "pixels"


def pixel_digest(path: Path | str) -> bytes:
    """SHA-256 over every frame's mode, upright size, palette and pixels, and its duration where it is animated.

    The bytes alone would not do: 300x200 and 200x300 pixels can have the same bytes, and equal palette indices can
    stand for other colours. Raises lib.decode.DecodeError.
    """
    digest = hashlib.sha256()
    try:
        with opened(Path(path)) as image:
            if getattr(image, "n_frames", 1) > MAX_FRAMES:
                raise DecodeError("too_many_frames")
            for frame in ImageSequence.Iterator(image):
                _add_frame(digest, frame)
    except DecodeError:
        raise
    except Exception as error:  # the codec boundary: plugins raise whatever their parser met
        raise DecodeError("undecodable", f"{type(error).__name__}: {error}"[:200]) from error
    return digest.digest()


def _add_frame(digest: hashlib._Hash, frame: Image.Image) -> None:
    mode = frame.mode
    clear = frame.info.get("transparency")
    # As the colours that it shows: the order of a palette is the encoder's business.
    coloured = frame.convert("RGBA") if mode in ("P", "PA") or clear is not None else frame
    upright = ImageOps.exif_transpose(coloured) if frame.getexif().get(0x0112, 1) != 1 else coloured
    size = frame.size if upright is coloured else upright.size
    digest.update(f"{mode} {upright.mode} {size} {frame.info.get('duration', 0)};".encode())
    digest.update(upright.tobytes())
