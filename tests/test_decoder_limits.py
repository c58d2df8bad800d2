"""Limits of decoding: the address space of worker processes, and the pixels of all frames of one file together."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import textwrap
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import GifImagePlugin, Image
from support import PATIENCE, drawing, load_step, result

from lib.dedup.sequences import frames_differ
from lib.download.verify import decode_fully
from lib.hashing.kinds import pixel_digest
from lib.images import decode, frames
from lib.images.decode import DecodeError, read_header
from lib.images.frames import opened_frames
from lib.sort.export.readable import look
from lib.work import WORKER_KILLED
from lib.work.memory import prepare_decoder
from lib.work.stream import stream

ROOT = Path(__file__).resolve().parents[1]
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="address space is bounded on Linux alone")
HUGE = 1 << 36  # bytes: more than any worker may map, and never touched


def take(size: int) -> int:
    """Maps so many bytes; a negative number ends the process as a codec without a check would."""
    import os

    import numpy as np

    if size < 0:
        os.abort()
    return int(np.empty(size, np.uint8).size)


def import_without_room(_: int) -> None:
    raise ImportError("libheif.so: failed to map segment from shared object")


@LINUX
def test_one_item_that_takes_too_much_is_told_and_its_neighbours_go_on() -> None:
    sizes = [1, 2, HUGE, 3, 1 << 20, HUGE + 1, 4]
    found = list(stream(take, sizes, executor="processes", chunk=4, init=prepare_decoder, ordered=True))
    assert [outcome.error.partition(":")[0] for outcome in found] == [
        "",
        "",
        "out_of_memory",
        "",
        "",
        "out_of_memory",
        "",
    ]
    assert [outcome.value for outcome in found if outcome.ok] == [1, 2, 3, 1 << 20, 4]


@LINUX
def test_a_codec_that_dies_of_it_costs_its_own_picture() -> None:
    found = list(stream(take, [1, -1, 2, 3], executor="processes", chunk=4, init=prepare_decoder, ordered=True))
    assert [outcome.error for outcome in found] == ["", WORKER_KILLED, "", ""]


@LINUX
def test_a_usual_picture_has_room_in_a_worker() -> None:
    (found,) = stream(take, [1_300_000_000], executor="processes", init=prepare_decoder)
    assert found.ok


@pytest.mark.parametrize("executor", ["local", "threads"])
def test_what_runs_in_the_main_process_is_not_bounded(executor: str) -> None:
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_AS)
    assert [outcome.value for outcome in stream(take, [5], executor=executor, init=prepare_decoder)] == [5]
    assert resource.getrlimit(resource.RLIMIT_AS) == before


def test_a_library_that_finds_no_room_is_no_broken_installation() -> None:
    (found,) = stream(import_without_room, [1])
    assert found.error.startswith("out_of_memory: ")


WORK = {
    "step 6": "from lib.dedup.fingerprints import fingerprint; reason = lambda p: fingerprint(str(p)).reason",
    "step 7": "from lib.quality.measure import measure_technical; reason = lambda p: measure_technical(p).reason",
    "models": "from lib.models.batches import look; reason = lambda p: getattr(look(p, 512, True), 'reason', '')",
    "export": "from lib.sort.export.readable import look; reason = lambda p: look((str(p), '', False)).reason",
    "convert": "from lib.sort.export.options import Encoding; from lib.sort.export.readable import convert; "
    "reason = lambda p: convert((str(p), '/dev/null', Encoding('png'))).reason",
}


@LINUX
@pytest.mark.parametrize("form", ["PNG", "TIFF"])
@pytest.mark.parametrize("work", WORK.values(), ids=WORK)
def test_a_picture_that_finds_no_room_is_its_own_reason(work: str, form: str, tmp_path: Path) -> None:
    """In every function that a worker decodes with; what comes before and behind it is measured."""
    small, large = tmp_path / "small", tmp_path / "large"
    drawing(1).save(small, form)
    Image.new("RGB", (7000, 5000)).save(large, form, **({"compression": "tiff_lzw"} if form == "TIFF" else {}))
    probe = textwrap.dedent(f"""
        from pathlib import Path
        from lib.work.memory import bound_memory
        {work}
        before = reason(Path({str(small)!r}))
        bound_memory(64 << 20)
        print([reason(Path({str(large)!r})), reason(Path({str(small)!r})) == before])
    """)
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, cwd=ROOT, timeout=PATIENCE)
    assert done.stdout.strip() == "['out_of_memory', True]", done.stderr[-1000:]


SIDE, COUNT = 100, 10


def encoded(form: str) -> bytes:
    """A file of different frames, all of one size."""
    pictures = [drawing(seed, SIDE, SIDE) for seed in range(COUNT)]
    out = io.BytesIO()
    more = {} if form == "TIFF" else {"duration": 40}
    pictures[0].save(out, form, save_all=True, append_images=pictures[1:], **more)
    return out.getvalue()


def jpegs() -> bytes:
    out = io.BytesIO()
    drawing(1, SIDE, SIDE).save(out, "JPEG")
    return out.getvalue() * COUNT


def gif(canvas: tuple[int, int], places: list[tuple[int, int]]) -> bytes:
    """A GIF whose pictures are single pixels at these places."""
    pictures = b"".join(
        b"\x21\xf9\4\0\x0a\0\0\0\x2c" + struct.pack("<HHHHB", *place, 1, 1, 0) + b"\2\2\x44\1\0" for place in places
    )
    return b"GIF89a" + struct.pack("<HHBBB", *canvas, 0x80, 0, 0) + b"\0\0\0\xff\0\0" + pictures + b"\x3b"


MADE: dict[str, Callable[[], bytes]] = {
    **{form: (lambda form=form: encoded(form)) for form in ("GIF", "WEBP", "PNG", "AVIF", "TIFF")},
    "JPEGs": jpegs,
    "GIF beyond its canvas": lambda: gif((1, 1), [(0, 0), (SIDE - 1, SIDE - 1)] * (COUNT // 2)),
}


@pytest.mark.parametrize("made", MADE.values(), ids=MADE)
def test_the_pixels_of_all_frames_together_are_bounded(
    made: Callable[[], bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "film"
    path.write_bytes(made())
    total = SIDE * SIDE * COUNT
    monkeypatch.setattr(frames, "MOST_FRAME_PIXELS", total)
    assert pixel_digest(path) and not look((str(path), "", False)).reason.startswith("too_many")
    monkeypatch.setattr(frames, "MOST_FRAME_PIXELS", total - 1)
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(DecodeError, match="too_many_frames"), opened_frames(path):
        pass
    assert look((str(path), "", False)).reason == "too_many_frames"


def test_a_small_file_of_many_large_frames_is_refused_by_steps_6_and_7(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    film = gif((6000, 6000), [(0, 0)] * 200)
    (photos / "a.gif").write_bytes(film)
    (photos / "b.gif").write_bytes(film[:-1] + b"\0\x3b")
    drawing(1).save(photos / "c.jpg")
    found = result(photos, capsys, "similar", photos)
    assert {entry["reason"] for entry in found["broken"]} == {"too_many_frames"} and len(found["broken"]) == 2
    words = ["export", str(photos), "--to", str(tmp_path / "set"), "--workspace", str(tmp_path / "w"), "--json"]
    assert load_step("sort").main(words) == 0
    assert '"too_many_frames": 2' in capsys.readouterr().out


def test_step_5_decodes_fewer_frames_of_large_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    data, asked = encoded("GIF"), list[int]()
    plain = GifImagePlugin.GifImageFile.seek
    monkeypatch.setattr(GifImagePlugin.GifImageFile, "seek", lambda self, to: (asked.append(to), plain(self, to)))
    assert decode_fully(data) == ("", "") and max(asked) == COUNT - 1
    asked.clear()
    monkeypatch.setattr("lib.download.verify.MOST_FRAME_PIXELS", SIDE * SIDE * (COUNT - 2))
    assert decode_fully(data) == ("", "") and max(asked) == COUNT - 3


def test_a_gif_of_too_many_parts_is_a_reason_in_every_reader(tmp_path: Path) -> None:
    path = tmp_path / "many.gif"
    path.write_bytes(gif((10, 10), [(0, 0)] * 12_000))
    for read in (read_header, decode.decode, decode.decode_grey, pixel_digest):
        with pytest.raises(DecodeError, match="too_many_parts"):
            read(path)
    assert decode_fully(str(path))[0] == "too_many_parts"


def run_length_bmp(side: int) -> bytes:
    """A BMP of 8 bits in runs, of which the first row alone is there."""
    runs = b"\1\0" * side + b"\0\0"
    header = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, len(runs), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 54 + 1024 + len(runs), 0, 0, 54 + 1024) + header + bytes(1024) + runs


@pytest.mark.parametrize(
    "data",
    [
        b"P3 2000 2000 255\n" + b"1 " * 99,
        b"P2 3000 3000 65535\n" + b"1 " * 99,
        b"P6 2000 2000 254\n" + bytes(99),
        b"P5 3000 3000 100\n" + bytes(99),
        run_length_bmp(3000),
    ],
    ids=["plain colours", "plain greys", "odd depth", "odd greys", "run-length BMP"],
)
def test_what_pillow_decodes_one_by_one_is_bounded(data: bytes) -> None:
    with pytest.raises(DecodeError, match="too_many_pixels: .*one by one"):
        read_header(data)


@pytest.mark.parametrize("form", [b"P3 3 2 255\n", b"P3 3 2 254\n"])
def test_small_ones_of_them_are_decoded(form: bytes) -> None:
    assert decode.decode(form + b"1 2 3 " * 6).rgb.shape == (2, 3, 3)


def test_colours_of_16_bits_are_read_at_once() -> None:
    """As the decoder of Pillow's does for greys; its own loop takes twenty seconds for a photograph."""
    values = np.arange(5000 * 2000 * 3, dtype=np.uint32).astype(">u2").reshape(2000, 5000, 3)
    found = decode.decode(b"P6 5000 2000 65535\n" + values.tobytes()).rgb
    assert np.array_equal(found, (values >> 8).astype(np.uint8))


def jpeg(side: int = 64, **options: object) -> bytes:
    out = io.BytesIO()
    drawing(1, side, side).save(out, "JPEG", **options)
    return out.getvalue()


def with_scans(more: int) -> bytes:
    """A progressive JPEG whose last scan comes again so many times, as a refinement may."""
    data = jpeg(progressive=True)
    tables = data.rindex(b"\xff\xc4", 0, data.rindex(b"\xff\xda"))
    return data[:-2] + data[tables:-2] * more + data[-2:]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"\xff" * 30_000, b"\xff" * 500),
        (b"\0" * 30_000, b"\0" * 500),
        (b"\xff\0" * 30_000, b"\xff\0" * 300),
        (b"\xff\xfe\0\2" * 30_000, b"\xff\xfe\0\2" * 400),
    ],
    ids=["fill", "zeros", "escaped", "comments"],
)
def test_what_stands_before_a_jpegs_pixels_is_bounded(before: bytes, after: bytes) -> None:
    data = jpeg()
    for reader in (read_header, decode.decode, pixel_digest_of):
        with pytest.raises(DecodeError, match="too_many_parts"):
            reader(data[:20] + before + data[20:])  # behind the first segment
    assert read_header(data[:20] + after + data[20:]).width == 64


def pixel_digest_of(data: bytes) -> None:
    with opened_frames(data):
        pass


def test_the_scans_of_a_progressive_jpeg_are_bounded_by_its_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    assert decode.decode(with_scans(0)).rgb.shape == decode.decode(with_scans(50)).rgb.shape == (64, 64, 3)
    monkeypatch.setattr("lib.images.structure.MOST_SCANNED", 64 * 64 * 40)
    assert decode.decode(with_scans(20)).rgb.shape == (64, 64, 3)
    for reader in (read_header, decode.decode, decode.decode_grey):
        with pytest.raises(DecodeError, match="too_many_parts"):
            reader(with_scans(50))
    assert decode_fully(with_scans(50))[0] == "too_many_parts"
    # However large it is, what encoders write is decoded.
    monkeypatch.setattr("lib.images.structure.MOST_SCANNED", 1)
    assert decode.decode(jpeg(progressive=True)).rgb.shape == (64, 64, 3)


def tiled_tiff(tile: int, compression: int) -> bytes:
    """A TIFF of 200 by 200 grey pixels whose one tile has another size."""
    data = zlib.compress(bytes(10_000))
    numbers = {256: 200, 257: 200, 258: 8, 259: compression, 262: 1, 277: 1, 284: 1, 322: tile, 323: tile}
    entries = sorted((numbers | {324: 8, 325: len(data)}).items())
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", tag, 4, 1, n) for tag, n in entries)
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory + bytes(4)


@pytest.mark.parametrize("compression", [1, 5, 8], ids=["none", "LZW", "Deflate"])
@pytest.mark.parametrize("tile", [20_000, 45_000])
def test_a_tile_that_is_larger_than_its_picture_counts(tile: int, compression: int) -> None:
    data = tiled_tiff(tile, compression)
    for reader in (read_header, decode.decode):
        with pytest.raises(DecodeError, match="too_many_pixels"):
            reader(data)
    assert read_header(tiled_tiff(256, compression)).width == 200


def test_small_pictures_behind_a_large_jpeg_count_as_what_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Phones put a gain map and a preview behind a photograph of 200 megapixels."""
    data = jpeg(128) + jpeg(16, progressive=True) + jpeg(8, comment=b"a preview")
    monkeypatch.setattr(frames, "MOST_FRAME_PIXELS", 128 * 128 + 16 * 16 + 8 * 8)
    with opened_frames(data) as found:
        assert found.count == 3
    monkeypatch.setattr(frames, "MOST_FRAME_PIXELS", 128 * 128 + 16 * 16 + 8 * 8 - 1)
    with pytest.raises(DecodeError, match="too_many_frames"), opened_frames(data):
        pass


def test_pages_that_are_larger_than_the_first_count_as_what_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "pages.tif"
    pages = [drawing(seed, SIDE, SIDE) for seed in range(COUNT)]
    drawing(99, 8, 8).save(path, save_all=True, append_images=pages)
    total = 8 * 8 + SIDE * SIDE * COUNT
    monkeypatch.setattr(frames, "MOST_FRAME_PIXELS", total)
    assert pixel_digest(path)
    monkeypatch.setattr(frames, "MOST_FRAME_PIXELS", SIDE * SIDE * (COUNT - 1))
    for reader in (pixel_digest, lambda path: frames_differ(path, path)):
        with pytest.raises(DecodeError, match="too_many_frames"):
            reader(path)
    assert look((str(path), "", False)).reason == "too_many_frames"
