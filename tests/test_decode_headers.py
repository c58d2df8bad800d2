"""Headers are read without decoding: what they say is what a full decode says, and their cost does not grow."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin
from rare_pictures import chunk, made
from support import ROOT

from lib.dedup.keep import read_traits
from lib.images import decode as exif
from lib.images import structure
from lib.images.decode import decode, read_header

SIZE = (60, 40)


def exif_block(orientation: int, *, camera: bool = False) -> bytes:
    block = Image.Exif()
    block[exif.ORIENTATION] = orientation
    if camera:
        block[0x010F] = "Camera"
    return block.tobytes()


def profile(orientation: int) -> str:
    """EXIF as ImageMagick writes it into text."""
    block = exif_block(orientation).hex()
    lines = [block[at : at + 72] for at in range(0, len(block), 72)]
    return "\nexif\n" + f"{len(block) // 2:8d}\n" + "\n".join(lines) + "\n"


def xmp(orientation: int) -> str:
    return f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="{orientation}"/></x:xmpmeta>'


def png(before: bytes = b"", after: bytes = b"", **options: object) -> bytes:
    """A PNG with chunks in front of its pixels and behind them."""
    whole = made("PNG", SIZE, **options)
    at, end = whole.index(b"IDAT") - 4, whole.index(b"IEND") - 4
    return whole[:at] + before + whole[at:end] + after + whole[end:]


def text(kind: bytes, keyword: str, value: str) -> bytes:
    name, plain = keyword.encode() + b"\0", value.encode()
    if kind == b"zTXt":
        return chunk(kind, name + b"\0" + zlib.compress(plain))
    return chunk(kind, name + (b"\0\0\0\0" if kind == b"iTXt" else b"") + plain)


def packed(keyword: str, value: str) -> bytes:
    return chunk(b"iTXt", keyword.encode() + b"\0\1\0\0\0" + zlib.compress(value.encode()))


RAW, XMP = "Raw profile type exif", "XML:com.adobe.xmp"
NOTES = {
    "eXIf": chunk(b"eXIf", exif_block(6).removeprefix(b"Exif\0\0")),
    "tEXt profile": text(b"tEXt", RAW, profile(6)),
    "zTXt profile": text(b"zTXt", RAW, profile(6)),
    "iTXt profile": text(b"iTXt", RAW, profile(6)),
    "XMP": text(b"iTXt", XMP, xmp(6)),
    "packed XMP": packed(XMP, xmp(6)),
    "eXIf before a profile": chunk(b"eXIf", exif_block(6).removeprefix(b"Exif\0\0")) + text(b"tEXt", RAW, profile(3)),
    "XMP and EXIF without an orientation": text(b"iTXt", XMP, xmp(6)) + chunk(b"eXIf", b"II*\0\x08\0\0\0\0\0\0\0\0\0"),
    "other notes": text(b"tEXt", "Comment", "tiff:Orientation=6") + text(b"zTXt", "Author", "me"),
    "a profile that is none": text(b"tEXt", RAW, "\n\n\n\nzz"),
    "EXIF that is none": chunk(b"eXIf", b"rubbish"),
}


def told_by_pillow(data: bytes) -> int:
    """The orientation after a full decode."""
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        try:
            return int(image.getexif().get(exif.ORIENTATION, 1))
        except Exception:  # rubbish, of which Pillow tells in many ways
            return 1


@pytest.mark.parametrize("behind", [False, True], ids=["before the pixels", "behind the pixels"])
@pytest.mark.parametrize("name", NOTES)
@pytest.mark.parametrize("as_file", [False, True], ids=["bytes", "file"])
def test_a_png_is_turned_as_after_a_full_decode(tmp_path: Path, name: str, behind: bool, as_file: bool) -> None:
    data = png(after=NOTES[name]) if behind else png(before=NOTES[name])
    path = tmp_path / "a.png"
    path.write_bytes(data)
    header = read_header(path if as_file else data)
    assert header.orientation == told_by_pillow(data), name
    assert (header.width, header.height) == SIZE
    turned = SIZE[::-1] if header.orientation == 6 else SIZE
    assert header.upright_size == turned and decode(data).rgb.shape[1::-1] == turned
    facts = read_traits(path)
    assert (facts.width, facts.height) == turned


def test_an_animated_png_is_turned_by_what_stands_behind_its_frames() -> None:
    frames = [Image.new("RGB", SIZE, (n * 40, 0, 0)) for n in range(4)]
    file = io.BytesIO()
    frames[0].save(file, "PNG", save_all=True, append_images=frames[1:])
    whole = file.getvalue()
    end = whole.index(b"IEND") - 4
    header = read_header(whole[:end] + NOTES["eXIf"] + whole[end:])
    assert (header.frames, header.orientation) == (4, 6)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_header_and_facts_agree_in_every_format(tmp_path: Path, form: str) -> None:
    path = tmp_path / f"a.{form.lower()}"
    Image.effect_noise(SIZE, 80).convert("RGB").save(path, form, exif=exif_block(8, camera=True))
    header, facts = read_header(path), read_traits(path)
    assert header.upright_size == (facts.width, facts.height) == decode(path).rgb.shape[1::-1]
    assert facts.has_metadata


def test_metadata_behind_the_pixels_count_in_step_6(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(after=chunk(b"eXIf", exif_block(1, camera=True).removeprefix(b"Exif\0\0"))))
    assert read_traits(path).has_metadata


def test_a_header_read_leaves_the_picture_as_it_was() -> None:
    """The place in the file is the decoder's; reading a note must not move it."""
    data = png(after=NOTES["eXIf"])
    source = io.BytesIO(data)
    with Image.open(source) as image:
        place = source.tell()
        assert exif.exif_of(image)[exif.ORIENTATION] == 6 and source.tell() == place
        image.load()
        assert image.tobytes() == Image.open(io.BytesIO(data)).tobytes()
        assert exif.exif_of(image)[exif.ORIENTATION] == 6


PEAK = """
import sys
from pathlib import Path
from PIL import Image, ImageFile
from lib.images.decode import read_header

def refuse(self, *_):
    raise SystemExit("decoded")

for name in ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF", "JPEG2000", "ICO"):
    Image.init()
ImageFile.ImageFile.load = refuse

def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))

read_header(Path(sys.argv[1]))
before = peak()
print(read_header(Path(sys.argv[2])).upright_size, (peak() - before) // 1024)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="the system does not tell a process's memory")
def test_the_header_of_a_vast_png_takes_no_memory(tmp_path: Path) -> None:
    """It was decoded whole: 4000 by 3000 pixels are 36 MB."""
    small, vast = tmp_path / "small.png", tmp_path / "vast.png"
    small.write_bytes(png())
    Image.new("RGB", (4000, 3000), (9, 8, 7)).save(vast)
    data = vast.read_bytes()
    end = data.index(b"IEND") - 4
    vast.write_bytes(data[:end] + NOTES["eXIf"] + data[end:])
    code = [sys.executable, "-c", PEAK, str(small), str(vast)]
    ended = subprocess.run(code, capture_output=True, text=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert ended.returncode == 0, ended.stderr
    size, _, memory = ended.stdout.strip().rpartition(" ")
    assert size == "(3000, 4000)" and int(memory) < 8


@pytest.mark.parametrize(
    ("form", "frames"),
    [
        *((form, 1) for form in ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF", "JPEG2000")),
        *((form, 3) for form in ("PNG", "GIF", "WEBP", "TIFF", "AVIF")),
    ],
)
def test_no_header_is_read_by_decoding(tmp_path: Path, form: str, frames: int) -> None:
    path, small = tmp_path / "picture", tmp_path / "small.png"
    small.write_bytes(png())
    pictures = [Image.effect_noise((64, 64), 40 + n).convert("RGB") for n in range(frames)]
    more = {"save_all": True, "append_images": pictures[1:]} if frames > 1 else {}
    pictures[0].save(path, form, **more)
    code = [sys.executable, "-c", PEAK, str(small), str(path)]
    ended = subprocess.run(code, capture_output=True, text=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert ended.returncode == 0 and ended.stdout.startswith("(64, 64)"), ended.stderr


class Counted(io.BytesIO):
    """Counts what is read."""

    reads = taken = 0

    def read(self, size: int | None = -1, /) -> bytes:
        found = super().read(size)
        self.reads, self.taken = self.reads + 1, self.taken + len(found)
        return found


@pytest.mark.parametrize(
    ("what", "after"),
    [
        ("a million chunks", chunk(b"abCd", b"") * 1_000_000),
        ("chunks that claim more than there is", struct.pack(">I4s", 0xFFFFFFFF, b"eXIf") + b"x" * 100),
        ("a block of EXIF beyond all measure", chunk(b"eXIf", bytes(structure.LONGEST + 1))),
        ("a profile that unpacks without end", text(b"zTXt", RAW, "0" * (64 << 20))),
        ("XMP that unpacks without end", packed(XMP, " " * (64 << 20))),
        ("notes without end", text(b"tEXt", RAW, "\n\n\n" + "00" * 1000) * 2000),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_a_png_hides_behind_its_pixels_is_bounded(what: str, after: bytes) -> None:
    data = png(after=after)
    with Image.open(io.BytesIO(data)) as image:
        image.fp = Counted(data)
        exif.exif_of(image)
        # Two reads for a chunk at most: its head, and its content where that may matter.
        assert image.fp.reads <= 2 * (structure.MOST_CHUNKS + len(data) // structure.BYTES_A_CHUNK)
        assert image.fp.taken <= len(data) + 8
    assert read_header(data).width == SIZE[0]


def test_a_broken_note_costs_neither_size_nor_frames(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    frames = [Image.new("RGB", SIZE, (n * 40, 0, 0)) for n in range(3)]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    whole = path.read_bytes()
    end = whole.index(b"IDAT") - 4
    path.write_bytes(whole[:end] + NOTES["EXIF that is none"] + whole[end:])
    header, facts = read_header(path), read_traits(path)
    assert (header.frames, header.orientation) == (3, 1)
    assert (facts.width, facts.height, facts.format) == (*SIZE, "png")


def test_pillow_still_reads_what_our_walk_reads() -> None:
    """A note that Pillow writes itself, in front of the pixels."""
    info = PngImagePlugin.PngInfo()
    info.add_itxt(XMP, xmp(5))
    file = io.BytesIO()
    Image.new("RGB", SIZE).save(file, "PNG", pnginfo=info)
    assert read_header(file.getvalue()).orientation == 5 == told_by_pillow(file.getvalue())
