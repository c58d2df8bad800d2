"""Transparent pictures lie on a ground on which they can be seen, in whatever form they are transparent."""

from __future__ import annotations

import base64
import io
import json
import sqlite3
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw
from support import drawing, load_step

from lib.db.schema import migrations, schema_version, statements
from lib.images.decode import decode, decode_grey
from lib.images.ground import BLACK, GREY, WHITE, ground_of
from lib.models.batches import look
from lib.models.clip import look as look_for_clip
from lib.pages.thumbnails import thumbnail_data_uri
from lib.quality.measure import measure_technical, technical_of
from lib.sort.criteria.judges import _as_sent

WIDTH, HEIGHT = 96, 64


def logo(*inks: tuple[int, int, int, int]) -> Image.Image:
    """A clear picture with a disc and a bar, one of each ink."""
    image = Image.new("RGBA", (WIDTH, HEIGHT), (0, 0, 0, 0))
    draw = ImageDraw.Draw(image)
    for place, ink in enumerate(inks):
        left = place * WIDTH // len(inks)
        draw.ellipse((left + 4, 8, left + 30, 34), fill=ink)
        draw.rectangle((left + 6, 40, left + WIDTH // len(inks) - 8, 50), fill=ink)
    return image


def png(depth: int, kind: int, rows: list[bytes], clear: bytes, palette: bytes = b"") -> bytes:
    """A PNG of 96 columns, written by hand: Pillow saves neither all depths nor all transparent colours."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = struct.pack(">IIBBBBB", WIDTH, len(rows), depth, kind, 0, 0, 0)
    parts = [chunk(b"IHDR", head), chunk(b"PLTE", palette) if palette else b"", chunk(b"tRNS", clear)]
    parts += [chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows))), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def packed(value: int, other: int, bits: int) -> list[bytes]:
    """Rows of greys: the middle third is `value`, the rest `other`."""
    levels = [value if WIDTH // 3 <= column < 2 * WIDTH // 3 else other for column in range(WIDTH)]
    number = "".join(format(level, f"0{bits}b") for level in levels)
    return [int(number, 2).to_bytes(WIDTH * bits // 8, "big")] * HEIGHT


def saved(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def animated(form: str) -> bytes:
    frames = [logo((255, 255, 255, 255)), logo((250, 250, 250, 255), (240, 240, 240, 255))]
    return saved(
        frames[0], form, save_all=True, append_images=frames[1:], **({"lossless": True} if form == "WEBP" else {})
    )


def one_clear_palette_entry() -> Image.Image:
    image = Image.new("P", (WIDTH, HEIGHT), 0)
    image.putpalette([255, 255, 254, 255, 255, 255])
    ImageDraw.Draw(image).rectangle((20, 20, 60, 40), fill=1)
    return image


def colours_of_16_bits() -> bytes:
    clear, white = struct.pack(">3H", 0xFFFF, 0xFFFF, 0x0100), struct.pack(">3H", 0xFFFF, 0xFFFF, 0xFFFF)
    row = b"".join(white if 32 <= column < 64 else clear for column in range(WIDTH))
    return png(16, 2, [row] * HEIGHT, clear)


# All of a white sign; clear is what else there is, its colour white or light too, so that no ground of chance is seen.
WHITE_SIGNS: dict[str, Callable[[], bytes]] = {
    "RGBA": lambda: saved(logo((255, 255, 255, 255)), "PNG"),
    "off white": lambda: saved(logo((240, 244, 248, 255)), "PNG"),
    "half clear": lambda: saved(logo((255, 255, 255, 128)), "PNG"),
    "LA": lambda: saved(logo((255, 255, 255, 255)).convert("LA"), "PNG"),
    "palette": lambda: saved(one_clear_palette_entry(), "PNG", transparency=0),
    "palette of several opacities": lambda: saved(logo((255, 255, 255, 255)).quantize(8, method=2), "PNG"),
    "WebP": lambda: saved(logo((255, 255, 255, 255)), "WEBP", lossless=True),
    "WebP with losses": lambda: saved(logo((255, 255, 255, 255)), "WEBP"),
    "GIF": lambda: saved(one_clear_palette_entry(), "GIF", transparency=0),
    "animated GIF": lambda: animated("GIF"),
    "animated WebP": lambda: animated("WEBP"),
    "TIFF": lambda: saved(logo((255, 255, 255, 255)), "TIFF"),
    "grey of 1 bit": lambda: png(1, 0, packed(1, 0, 1), struct.pack(">H", 0)),
    "grey of 2 bits": lambda: png(2, 0, packed(3, 2, 2), struct.pack(">H", 2)),
    "grey of 4 bits": lambda: png(4, 0, packed(15, 14, 4), struct.pack(">H", 14)),
    "grey of 8 bits": lambda: png(8, 0, packed(255, 254, 8), struct.pack(">H", 254)),
    "grey of 16 bits": lambda: png(16, 0, packed(0xFFFF, 0xFF00, 16), struct.pack(">H", 0xFF00)),
    "colours of 8 bits": lambda: png(
        8,
        2,
        [b"\xff\xff\xfe" * 32 + b"\xff\xff\xff" * 32 + b"\xff\xff\xfe" * 32] * HEIGHT,
        struct.pack(">3H", 255, 255, 254),
    ),
    "colours of 16 bits": colours_of_16_bits,
}


def contrast(rgb: np.ndarray) -> float:
    """The difference between the brightest and the darkest tenth, grey levels."""
    grey = np.asarray(Image.fromarray(rgb).convert("L"), dtype=np.float64)
    return float(np.percentile(grey, 95) - np.percentile(grey, 5))


def sent(path: Path) -> np.ndarray:
    uri, _ = _as_sent(path)
    return picture_in(uri)


def picture_in(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB"))


READERS: dict[str, Callable[[Path], np.ndarray]] = {
    "a vision model": sent,
    "CLIP": lambda path: look_for_clip(path, (64, 64), True).rgb,  # type: ignore[union-attr]
    "CLIP's square": lambda path: look_for_clip(path, (32, 32), False).rgb,  # type: ignore[union-attr]
    "a learned metric": lambda path: look(path, 80, False).rgb,  # type: ignore[union-attr]
    "a page": lambda path: picture_in(thumbnail_data_uri(path, 96)),
    "the technical score": lambda path: np.stack([decode_grey(path)[0]] * 3, axis=2),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", WHITE_SIGNS)
def test_a_white_sign_on_clear_is_seen(name: str, reader: str, tmp_path: Path) -> None:
    path = tmp_path / "sign"
    path.write_bytes(WHITE_SIGNS[name]())
    assert contrast(READERS[reader](path)) > 60


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    "inks",
    [
        [(0, 0, 0, 255)],
        [(0, 0, 0, 100)],
        [(20, 20, 90, 255)],
        [(255, 255, 255, 255), (0, 0, 0, 255)],
        [(255, 255, 255, 255), (255, 255, 255, 255), (0, 0, 0, 255)],
        [(230, 220, 40, 255)],
        [(128, 128, 128, 255)],
    ],
)
def test_other_signs_are_seen_as_well(inks: list[Any], reader: str, tmp_path: Path) -> None:
    logo(*inks).save(tmp_path / "sign.png")
    assert contrast(READERS[reader](tmp_path / "sign.png")) > 60


def test_black_and_white_signs_are_both_seen(tmp_path: Path) -> None:
    image = logo((255, 255, 255, 255), (0, 0, 0, 255))
    image.save(tmp_path / "sign.png")
    rgb = decode(tmp_path / "sign.png", background=None).rgb.astype(int)
    assert ground_of(image) == GREY
    assert {tuple(rgb[15, 15]), tuple(rgb[15, 64]), tuple(rgb[0, 0])} == {WHITE, BLACK, GREY}


def test_white_stays_the_ground_where_it_does() -> None:
    cut_out = drawing(3, 300, 200).convert("RGBA")
    mask = Image.new("L", cut_out.size, 0)
    ImageDraw.Draw(mask).ellipse((40, 20, 260, 180), fill=255)
    cut_out.putalpha(mask)
    assert ground_of(cut_out) == WHITE
    page = Image.new("RGBA", (300, 200), (255, 255, 255, 255))
    page.putpixel((0, 0), (0, 0, 0, 0))  # a rounded corner
    assert ground_of(page) == WHITE
    assert ground_of(Image.new("RGBA", (30, 20), (255, 255, 255, 255))) == WHITE
    assert ground_of(Image.new("RGBA", (30, 20), (255, 255, 255, 0))) == WHITE


def test_a_large_sign_is_seen_too(tmp_path: Path) -> None:
    logo((255, 255, 255, 255)).resize((1920, 1280)).save(tmp_path / "sign.png")
    assert contrast(sent(tmp_path / "sign.png")) > 100


def test_the_technical_score_sees_a_white_sign_as_it_sees_a_black_one(tmp_path: Path) -> None:
    scores = {}
    for name, ink in (("white", (255, 255, 255, 255)), ("black", (0, 0, 0, 255))):
        logo(ink).resize((480, 320)).save(tmp_path / f"{name}.png")
        measure = measure_technical(tmp_path / f"{name}.png")
        assert technical_of(tmp_path / f"{name}.png")[1] == measure
        scores[name] = measure.detail["signals"]
    assert scores["white"]["contrast"] == pytest.approx(scores["black"]["contrast"], rel=0.05)
    assert scores["white"]["contrast"] > 0.1


@pytest.mark.parametrize("size", [(96, 64), (192, 128), (480, 320)])
def test_a_white_sign_gets_the_verdict_of_a_black_one(size: tuple[int, int], tmp_path: Path, capsys: Any) -> None:
    """The same label for the same reason, and never one of light or contrast, which the ground alone would make."""
    for name, ink in (("white", (255, 255, 255, 255)), ("black", (0, 0, 0, 255)), ("off", (245, 245, 240, 255))):
        logo(ink).resize(size, Image.Resampling.NEAREST).save(tmp_path / f"{name}.png")
    arguments = ["quality", str(tmp_path), "--workspace", str(tmp_path / "ws"), "--json"]
    assert load_step("sort").main(arguments) == 0
    verdicts = {(one["label"], one["reason"]) for one in json.loads(capsys.readouterr().out)["result"]["pictures"]}
    assert len(verdicts) == 1 and verdicts <= {("low", "near blank"), ("low", "tiny")}


def test_measures_from_before_are_made_again_of_what_was_not_seen(tmp_path: Path, capsys: Any) -> None:
    folder, workspace = tmp_path / "pictures", tmp_path / "ws"
    folder.mkdir()
    logo((255, 255, 255, 255)).save(folder / "white.png")
    logo((0, 0, 0, 255)).save(folder / "black.png")
    drawing(1, 96, 64).save(folder / "opaque.png")
    drawing(2, 96, 64).save(folder / "photo.jpg")
    step = load_step("sort")
    arguments = ["quality", str(folder), "--workspace", str(workspace), "--json"]
    assert step.main(arguments) == 0
    capsys.readouterr()
    connection = sqlite3.connect(workspace / "gleaner.db")
    with connection:  # as an older version left it
        connection.execute("DROP TABLE unchecked_grounds")
        connection.execute("UPDATE scores SET value = 1, reason = 'stale' WHERE metric = 'technical'")
        (number, path) = next((n, p) for n, p in migrations() if "unchecked_grounds" in p.read_text())
        for statement in statements(path.read_text(encoding="utf-8")):
            connection.execute(statement)
        assert number <= schema_version()
    assert step.main([*arguments, "--dry-run"]) == 0
    assert json.loads(capsys.readouterr().out)["counts"]["measured"] == 1
    before = connection.execute("SELECT count(*) FROM scores WHERE reason = 'stale'").fetchone()
    assert before == (4,)
    for measured in (1, 0):
        assert step.main(arguments) == 0
        assert json.loads(capsys.readouterr().out)["counts"]["measured"] == measured
    assert connection.execute("SELECT count(*) FROM scores WHERE reason = 'stale'").fetchone() == (3,)
    assert connection.execute("SELECT count(*) FROM unchecked_grounds").fetchone() == (0,)
    connection.close()
