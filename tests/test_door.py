"""The one door for every decode: damaged pictures fail for good, and only known formats are opened, by their bytes."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile
from rare_pictures import JXL
from support import drawing

from lib.dedup.fingerprints import fingerprint
from lib.download.verify import decode_fully
from lib.files.pictures import find_files
from lib.hashing.enlarged import read_details
from lib.hashing.kinds import imagehash_of, pixel_digest
from lib.images.decode import DecodeError, decode, decode_grey, opened, read_header
from lib.models.batches import look
from lib.pages.thumbnails import thumbnail_data_uri
from lib.quality.measure import Measure, measure_technical


def saved(image: Image.Image, name: str, **options: Any) -> bytes:
    held = io.BytesIO()
    image.save(held, name, **options)
    return held.getvalue()


def chunk(kind: bytes, content: bytes, total: int | None = None) -> bytes:
    """A chunk of a PNG, under its checksum or another."""
    total = zlib.crc32(kind + content) if total is None else total
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", total)


def png_of(packed: bytes, total: int | None = None, size: tuple[int, int] = (64, 48)) -> bytes:
    header = struct.pack(">IIBBBBB", *size, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed, total) + chunk(b"IEND", b"")


ROWS = b"".join(bytes([0]) + bytes((x * 7 + y * 13) % 256 for x in range(64 * 3)) for y in range(48))
PACKED = zlib.compress(ROWS)
PHOTO = drawing(3, 320, 240)
JPEG, PNG = saved(PHOTO, "JPEG", quality=88), saved(PHOTO, "PNG")


def rotten(data: bytes, share: float, garbage: bytes = b"\x5a" * 12) -> bytes:
    """A copy with other bytes at one place."""
    at = int(len(data) * share)
    return data[:at] + garbage + data[at + len(garbage) :]


# What a decoder of Pillow's passes over or tells only once. (reason, bytes)
DAMAGED: dict[str, tuple[str, Callable[[], bytes]]] = {
    "checksum of the pixels": ("undecodable", lambda: png_of(PACKED, zlib.crc32(PACKED) ^ 1)),
    "bit rot in the middle of a PNG": ("undecodable", lambda: rotten(PNG, 0.5)),
    "bit rot at the end of a PNG": ("undecodable", lambda: rotten(PNG, 0.99, b"\x01")),
    "packing that breaks off, sums right": ("truncated", lambda: png_of(PACKED[: len(PACKED) // 2])),
    "packing that is broken, sums right": ("truncated", lambda: png_of(rotten(PACKED, 0.5, b"\xff" * 9))),
    "a JPEG cut in the middle": ("truncated", lambda: JPEG[: len(JPEG) // 2]),
    "a JPEG cut at its header": ("undecodable", lambda: JPEG[:200]),
    "a GIF cut in the middle": ("truncated", lambda: saved(PHOTO, "GIF")[:9000]),
    "a TIFF without its directory": ("not_an_image", lambda: saved(PHOTO, "TIFF", compression="tiff_lzw")[:-9000]),
    "a WebP cut in the middle": ("undecodable", lambda: saved(PHOTO, "WEBP")[:2000]),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_picture_is_sound_for_nobody(name: str, tmp_path: Path) -> None:
    reason, made = DAMAGED[name]
    path = tmp_path / "a.bin"
    path.write_bytes(made())
    tasks: dict[str, Callable[[], Any]] = {
        "decode": lambda: decode(path),
        "small": lambda: decode(path, long_side=32),
        "bytes": lambda: decode(path.read_bytes()),
        "grey": lambda: decode_grey(path),
        "digest": lambda: pixel_digest(path),
        "middle": lambda: read_details(path),
        "imagehash": lambda: imagehash_of(path, "phash", 8),
    }
    found = {}
    for task, run in tasks.items():
        with pytest.raises(DecodeError) as error:
            run()
        found[task] = error.value.reason
    measured = look(path, 64, True)
    assert isinstance(measured, Measure)
    found |= {"fingerprint": fingerprint(str(path)).reason, "look": measured.reason}
    found["technical"] = measure_technical(path).reason
    assert found == dict.fromkeys(found, reason)
    assert thumbnail_data_uri(path) == ""


@pytest.mark.parametrize("name", ["bit rot in the middle of a PNG", "a JPEG cut in the middle"])
def test_an_error_that_somebody_swallowed_is_an_error_still(name: str) -> None:
    reason, made = DAMAGED[name]
    with pytest.raises(DecodeError, match=reason) as told, opened(made()) as image:
        with pytest.raises(OSError):
            image.load()
        for again in (image.load, lambda: image.convert("L"), lambda: image.resize((8, 8)), image.tobytes):
            with pytest.raises(DecodeError, match=reason):
                again()
    assert told.value.reason == reason  # at the end of the block, too: nobody inside raised it


def test_no_other_library_can_have_what_is_cut_passed_for_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)  # as pyiqa does
    with pytest.raises(DecodeError, match="truncated"):
        decode(JPEG[: len(JPEG) // 2])


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n%%EndComments\nshowpage\n"
NO_PICTURES: dict[str, tuple[str, bytes]] = {
    "EPS": ("not_an_image", EPS),
    "EPS in a frame of DOS": ("not_an_image", b"\xc5\xd0\xd3\xc6" + struct.pack("<II", 32, 80) + bytes(20) + EPS),
    "BUFR": ("not_an_image", b"BUFR" + bytes(60)),
    "GRIB": ("not_an_image", b"GRIB\0\0\0\1" + bytes(60)),
    "HDF5": ("not_an_image", b"\x89HDF\r\n\x1a\n" + bytes(60)),
    "FITS": ("not_an_image", b"SIMPLE  =                    T".ljust(80) + b" " * 80),
    "WMF": ("not_an_image", b"\xd7\xcd\xc6\x9a\0\0" + bytes(60)),
    "MPEG": ("not_an_image", b"\0\0\1\xb3\x10\x10\x10" + bytes(60)),
    "an SVG document": ("svg_refused", b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
    "a font": ("not_an_image", b"\0\1\0\0\0\x11\1\0\0\4\0\x10" + bytes(60)),
    "Photoshop": ("unsupported_format", b"8BPS\0\1" + bytes(60)),
    "QOI": ("unsupported_format", b"qoif" + struct.pack(">IIBB", 4, 4, 3, 0) + bytes(60)),
    "DirectDraw": ("unsupported_format", b"DDS " + bytes(130)),
    "nothing": ("not_an_image", b""),
    "zeros": ("not_an_image", bytes(4096)),
}


@pytest.mark.parametrize("kind", NO_PICTURES)
def test_what_is_not_on_the_list_is_opened_by_no_plugin(kind: str, tmp_path: Path) -> None:
    reason, data = NO_PICTURES[kind]
    (path := tmp_path / "photo.jpg").write_bytes(data)
    for read in (read_header, decode, decode_grey):
        with pytest.raises(DecodeError) as error:
            read(path)
        assert error.value.reason == reason
    assert fingerprint(str(path)).reason == measure_technical(path).reason == reason


NAMES = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "AVIF", "JPEG2000", "PPM", "TGA", "PCX", "ICO", "DIB")


@pytest.mark.parametrize("name", NAMES)
def test_bytes_and_not_the_name_tell_the_format(name: str, tmp_path: Path) -> None:
    small = PHOTO.resize((48, 48))
    for ending in ("", ".bin", ".jpg_large", ".jpg ", ".eps", ".grib", ".png"):
        (path := tmp_path / f"a{ending}").write_bytes(saved(small, name))
        header = read_header(path)
        assert (header.width, header.height) == (48, 48) and decode(path).rgb.shape == (48, 48, 3)


def test_only_the_plugin_of_the_bytes_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "a.eps").write_bytes(saved(PHOTO, "TIFF"))
    (tmp_path / "b.jpg").write_bytes(EPS)
    code = """
import sys
from pathlib import Path
from lib.images.decode import DecodeError, decode
decode(Path(sys.argv[1]))
try:
    decode(Path(sys.argv[2]))
except DecodeError as error:
    print(error.reason, sorted(n for n in sys.modules if n.startswith("PIL.") and n.endswith("StubImagePlugin")))
from PIL import Image
print("GRIB" in Image.OPEN, "FITS" in Image.OPEN)
"""
    words = [sys.executable, "-c", code, str(tmp_path / "a.eps"), str(tmp_path / "b.jpg")]
    done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=Path(__file__).parent.parent)
    assert done.stdout.split("\n")[:2] == ["not_an_image []", "False False"]


def test_a_jpeg_xl_is_read_and_its_header_without_decoding_it(tmp_path: Path) -> None:
    for size, data in JXL.values():
        (path := tmp_path / "a.jpg").write_bytes(data)
        header = read_header(path)
        assert (header.format, header.width, header.height) == ("jxl", *size)
        assert decode(path).rgb.shape[1::-1] == size
    code = """
import sys
from pathlib import Path
from lib.images.decode import read_header
print(read_header(Path(sys.argv[1])).format, "pillow_jxl" in sys.modules)
"""
    words = [sys.executable, "-c", code, str(path)]
    done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=Path(__file__).parent.parent)
    assert done.stdout.split() == ["jxl", "False"]


def test_the_size_of_a_long_jpeg_xl_in_boxes_is_read(tmp_path: Path) -> None:
    size, data = JXL["boxed"]
    at = next(data.index(kind) for kind in (b"jxlc", b"jxlp") if kind in data) - 4
    long = data[:at] + struct.pack(">I4s", 8 + (2 << 20), b"free") + bytes(2 << 20) + data[at:]
    (path := tmp_path / "a.jxl").write_bytes(long)
    for source in (path, long):
        header = read_header(source)
        assert (header.width, header.height) == size
        assert decode(source).rgb.shape[1::-1] == size


def test_a_jpeg_xl_above_its_level_is_none() -> None:
    bare = b"\xff\x0a" + (3 << 1 | 39_999 << 3 | 1 << 33).to_bytes(5, "little") + bytes(20)  # 40000x40000
    boxed = JXL["boxed"][1][:32]
    stream = struct.pack(">I4s", 8 + len(bare), b"jxlc") + bare
    level = struct.pack(">I4sB", 9, b"jxll", 10)
    for data, reason in (
        (bare, "undecodable"),
        (boxed + stream, "undecodable"),
        (boxed + level + stream, "too_many_pixels"),
    ):
        with pytest.raises(DecodeError, match=reason):
            read_header(data)


def test_a_folders_pictures_are_found_by_their_bytes(tmp_path: Path) -> None:
    names = ["a", "b.bin", "c.jpg_large", "d.jpg!d", "e.jpg ", "f.php", "g.webp", "h.txt"]
    for name in names:
        (tmp_path / name).write_bytes(JPEG)
    (tmp_path / "page.html").write_text("<html></html>")
    (tmp_path / "a.json").write_text("{}")
    (tmp_path / "._b.jpg").write_bytes(JPEG)
    (tmp_path / "page.jpg").write_text("<html></html>")  # it says that it is one, so that somebody is told
    assert [path.name for path, _ in find_files([tmp_path])] == [*names, "page.jpg"]


def gif_beyond(width: int, height: int) -> bytes:
    """A GIF of 100 by 100 pixels whose second picture lies far outside."""
    second = struct.pack("<BHHHHB", 0x2C, width - 1, height - 1, 1, 1, 0)
    first = struct.pack("<BHHHHB", 0x2C, 0, 0, 1, 1, 0)
    code = b"\2\2\x44\1\0"
    head = b"GIF89a" + struct.pack("<HHBBB", 100, 100, 0x80, 0, 0) + b"\0\0\0\xff\0\0"
    return head + first + code + b"\x21\xf9\4\x08\5\0\0\0" + second + code + b"\x3b"


@pytest.mark.parametrize("size", [(20_000, 20_000), (65_535, 65_535), (10_000, 10_000)])
def test_frames_beyond_the_canvas_are_refused_before_they_take_memory(size: tuple[int, int], tmp_path: Path) -> None:
    (path := tmp_path / "a.gif").write_bytes(gif_beyond(*size))
    found = fingerprint(str(path)).reason, decode_fully(str(path))[0]
    assert found == ("too_many_pixels", "too_many_pixels")
    assert decode(gif_beyond(120, 130)).header.frames == 2


def scans_of_one_colour(picture: Image.Image) -> bytes:
    """A JPEG whose first scan names one of its three colours, by its head; the rest is not looked at."""
    data = saved(picture, "JPEG")
    at = data.index(b"\xff\xda")
    return data[:at] + b"\xff\xda\0\x08\1\1\0\0\x3f\0" + data[at + 14 :]


GRADIENT = Image.linear_gradient("L")
# What a picture takes while it is decoded, in bytes a pixel, at least and at most: (mode, format, options).
ROOM = {
    "colour": (1, 4, "RGB", "PNG", {}),
    "grey": (1, 1, "L", "PNG", {}),
    "a palette": (2, 9, "P", "PNG", {}),
    "a palette with transparent colours": (6, 10, "P", "PNG", {"transparency": bytes(range(256))}),
    "grey of 16 bits": (3, 11, "I;16", "PNG", {}),
    "transparent": (5, 9, "RGBA", "PNG", {}),
    "transparent grey": (5, 13, "LA", "PNG", {}),
    "an animation": (5, 16, "RGB", "PNG", {"save_all": True, "append_images": [Image.new("RGB", (256, 256))]}),
    "CMYK": (5, 8, "CMYK", "JPEG", {}),
    "a progressive JPEG": (5, 10, "RGB", "JPEG", {"progressive": True, "subsampling": 0}),
    "a JPEG": (1, 3, "RGB", "JPEG", {}),
    "WebP": (5, 16, "RGB", "WEBP", {}),
    "AVIF": (5, 12, "RGB", "AVIF", {}),
    "JPEG 2000": (5, 22, "RGB", "JPEG2000", {}),
    "TIFF": (5, 8, "RGB", "TIFF", {}),
}


@pytest.mark.parametrize("kind", ROOM)
def test_the_bound_is_bytes_and_not_pixels(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    least, most, mode, name, options = ROOM[kind]
    (path := tmp_path / "a.jpg").write_bytes(saved(GRADIENT.convert(mode), name, **options))
    monkeypatch.setattr("lib.images.decode.MOST_BYTES", 256 * 256 * least - 1)
    found = [fingerprint(str(path)).reason, decode_fully(str(path))[0], measure_technical(path).reason]
    assert found == ["too_many_pixels"] * 3
    with pytest.raises(DecodeError, match="too_many_pixels: 256x256"):
        read_header(path)
    monkeypatch.setattr("lib.images.decode.MOST_BYTES", 256 * 256 * most)
    assert read_header(path).width == 256 and decode_fully(str(path)) == ("", "")


def test_a_jpeg_of_several_scans_is_known_by_its_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lib.images.decode.MOST_BYTES", 256 * 256 * 4)
    picture = GRADIENT.convert("RGB")
    read_header(saved(picture, "JPEG", subsampling=0))
    with pytest.raises(DecodeError, match="too_many_pixels"):
        read_header(scans_of_one_colour(picture))


def test_a_later_page_is_measured_too(monkeypatch: pytest.MonkeyPatch) -> None:
    large = GRADIENT.convert("RGB")
    data = saved(large.resize((16, 16)), "TIFF", save_all=True, append_images=[large])
    assert decode_fully(data) == ("", "")
    monkeypatch.setattr("lib.images.decode.MOST_BYTES", 256 * 256 * 4)
    assert decode_fully(data)[0] == "too_many_pixels"


def test_what_must_be_turned_needs_room_for_two(monkeypatch: pytest.MonkeyPatch) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = saved(GRADIENT.convert("RGB"), "PNG", exif=exif)
    monkeypatch.setattr("lib.images.decode.MOST_BYTES", 256 * 256 * 8)
    decode(data)
    monkeypatch.setattr("lib.images.decode.MOST_BYTES", 256 * 256 * 8 - 1)
    with pytest.raises(DecodeError, match="to be turned"):
        decode(data)
    assert decode(data, long_side=64).rgb.shape == (64, 64, 3)  # reduced before it is turned


@pytest.mark.parametrize("deep", ["I;16", "I", "F"])
def test_deep_greys_are_the_same_band_by_band(deep: str, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(2).integers(0, 60_000, (37, 53))
    picture = Image.fromarray(values.astype({"I;16": np.uint16, "I": np.int32, "F": np.float32}[deep]))
    data = saved(picture, "TIFF")
    full = decode(data).rgb
    top = float(values.max()) if deep == "F" else 65535.0
    assert (full[:, :, 0] == (values.astype(np.float64) / top * 255).astype(np.uint8)).all()
    monkeypatch.setattr("lib.images.ground.BAND", 100)
    assert (decode(data).rgb == full).all()


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P"])
def test_the_digest_of_pixels_does_not_depend_on_bands(
    mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    PHOTO.crop((0, 0, 53, 37)).convert(mode).save(tmp_path / "a.png")
    whole = pixel_digest(tmp_path / "a.png")
    monkeypatch.setattr("lib.hashing.kinds.BAND", 100)
    assert pixel_digest(tmp_path / "a.png") == whole


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("share", [0.4, 0.6, 0.85])
def test_a_picture_that_is_partly_filling_is_incomplete(share: float, orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    noise = np.random.default_rng(1).integers(0, 40, (480, 640, 3), np.uint8)
    picture = Image.fromarray(np.asarray(drawing(3, 640, 480)) // 2 + noise)
    whole = saved(picture, "JPEG", quality=88, exif=exif)
    (path := tmp_path / "a.jpg").write_bytes(whole[: int(len(whole) * share)] + b"\xff\xd9")
    found = measure_technical(path)
    assert found.reason.startswith("incomplete") and found.value is not None and found.value < 30
    with Image.open(path) as image:  # saved by a tool that took it as it is
        image.save(tmp_path / "b.png", exif=exif)
    assert measure_technical(tmp_path / "b.png").reason.startswith("incomplete")
    path.write_bytes(whole)
    assert "incomplete" not in measure_technical(path).reason


def test_a_plain_ground_is_no_filling(tmp_path: Path) -> None:
    for place in ((0, 0), (96, 64), (40, 200), (100, 33)):
        for level in (255, 128, 0):
            page = Image.new("L", (640, 480), level)
            page.paste(drawing(3, 320, 240).convert("L"), place)
            page.save(tmp_path / "a.png")
            assert "incomplete" not in measure_technical(tmp_path / "a.png").reason, (place, level)
