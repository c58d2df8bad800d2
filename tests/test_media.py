"""Magic bytes, what is no picture, and whether a picture's end is there."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator

import pytest
from hostile_server import HTML, SVG, picture
from PIL import Image
from rare_pictures import FAKES, JXL, made

from lib.download.options import VerifyLimits
from lib.download.verify import UNDECODABLE, Verifier
from lib.images import formats, structure

FORMATS = ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "ICO"]
EXTENSIONS = dict(zip(FORMATS, "jpg png webp gif bmp tif avif jp2 ico".split(), strict=True))


def noisy(form: str) -> bytes:
    image = Image.effect_noise((64, 64), 80).convert("RGB")
    made = io.BytesIO()
    image.save(made, form)
    return made.getvalue()


def animation() -> bytes:
    frames = [Image.effect_noise((20, 20), 50 + n) for n in range(4)]
    made = io.BytesIO()
    frames[0].save(made, "GIF", save_all=True, append_images=frames[1:], duration=50)
    return made.getvalue()


@pytest.mark.parametrize("form", FORMATS)
def test_a_picture_is_known_by_its_bytes_and_whole(form: str) -> None:
    data = noisy(form)
    found = formats.sniff(data)
    assert found is not None and found.extension == EXTENSIONS[form]
    assert structure.find_fault(data, found)[0] == ""
    assert formats.refusal(data) == ("", "")


@pytest.mark.parametrize("form", FORMATS)
def test_trailing_bytes_do_no_harm(form: str) -> None:
    data = noisy(form) + b"\0trailing rubbish\0"
    found = formats.sniff(data)
    assert found is not None and structure.find_fault(data, found)[0] == ""


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_a_cut_picture_is_truncated(form: str, share: float) -> None:
    data = noisy(form)
    found = formats.sniff(data)
    assert found is not None
    assert structure.find_fault(data[: int(len(data) * share)], found)[0] == structure.TRUNCATED


def test_a_picture_that_lacks_four_bytes_is_truncated() -> None:
    for form in ("JPEG", "PNG", "GIF", "WEBP", "BMP"):
        data = noisy(form)
        found = formats.sniff(data)
        assert found is not None and structure.find_fault(data[:-4], found)[0] == structure.TRUNCATED, form


def test_the_end_of_an_embedded_thumbnail_is_not_the_end() -> None:
    """A cut photograph carries the end marker of the thumbnail in its EXIF block."""
    whole, thumbnail = noisy("JPEG"), picture(3)
    block = b"Exif\0\0" + thumbnail
    data = whole[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + whole[2:]
    assert structure.find_fault(data, formats.JPEG)[0] == ""
    assert structure.find_fault(data[:-200], formats.JPEG)[0] == structure.TRUNCATED


def test_an_animation_is_walked_to_its_trailer() -> None:
    data = animation()
    assert structure.find_fault(data, formats.GIF)[0] == ""
    for cut in range(20, len(data) - 1, 97):
        assert structure.find_fault(data[:cut], formats.GIF)[0] == structure.TRUNCATED


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "TIFF", "AVIF", "ICO", "BMP", "WEBP"])
def test_no_cut_and_no_garbage_raises(form: str) -> None:
    data = noisy(form)
    found = formats.sniff(data)
    assert found is not None
    for cut in range(min(len(data), 400)):
        formats.refusal(data[:cut])
        structure.find_fault(data[:cut], found)
        structure.find_fault(data[:cut] + b"\xff" * 50, found)
        structure.find_fault(data[:cut] + b"\0" * 50, found)


@pytest.mark.parametrize(
    ("head", "reason", "detail"),
    [
        (HTML, "not_an_image", "a web page: Sign in"),
        (b"  \n<html><body>", "not_an_image", "a web page"),
        (b'{"error": 1}', "not_an_image", "JSON"),
        (SVG, "svg_refused", "an SVG document"),
        (b"\xef\xbb\xbf<svg>", "svg_refused", "an SVG document"),
        (b"<!-- x --><svg>", "svg_refused", "an SVG document"),
        (b"%PDF-1.4", "not_an_image", "a PDF document"),
        (b"PK\x03\x04zip", "not_an_image", "a ZIP archive"),
        (b"\0\0\0\x20ftypisom\0\0\0\0isommp42", "not_an_image", "a film"),
        (b"\x1f\x8b\x08", "not_an_image", "gzip data"),
        (b"Not found", "not_an_image", "text"),
        (b"\x01\x02\x03\x04", "not_an_image", "unknown data"),
        (b"", "not_an_image", "unknown data"),
        (b"BMW is a car maker, not a bitmap", "not_an_image", "text"),
        (b"SIMPLE  =                    T", "not_an_image", "text"),
    ],
)
def test_what_is_no_picture_says_what_it_is(head: bytes, reason: str, detail: str) -> None:
    assert formats.refusal(head) == (reason, detail)


@pytest.mark.parametrize(
    ("head", "extension"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "heic"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0avifmif1miaf", "avif"),
        (b"\xff\x0a\xfa\x7f", "jxl"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "jxl"),
        (b"\xff\x4f\xff\x51\x00", "j2k"),
    ],
)
def test_formats_that_the_decoder_may_not_know(head: bytes, extension: str) -> None:
    found = formats.sniff(head)
    assert found is not None and found.extension == extension


@pytest.mark.parametrize(
    ("claimed", "found", "mismatch"),
    [
        ("image/jpeg", formats.JPEG, False),
        ("image/jpg; charset=binary", formats.JPEG, False),
        ("image/png", formats.JPEG, True),
        ("application/octet-stream", formats.JPEG, False),
        ("", formats.PNG, False),
        ("IMAGE/WEBP", formats.WEBP, False),
    ],
)
def test_a_claimed_type_that_differs_is_noticed(claimed: str, found: formats.Format, mismatch: bool) -> None:
    assert formats.mime_mismatch(claimed, found) is mismatch


@pytest.mark.parametrize("form", ["AVIF", "JPEG2000"])
def test_the_size_of_a_rare_picture_needs_no_decoder(form: str) -> None:
    data = noisy(form)
    found = formats.sniff(data)
    assert found is not None and structure.size_of_structure(data, found) == (64, 64)


def many_pages(pages: int) -> bytes:
    """A TIFF of the smallest pages that there can be."""
    made = bytearray(b"II*\0" + struct.pack("<I", 8))
    for _ in range(pages):
        made += struct.pack("<HHHIII", 1, 256, 4, 1, 10, len(made) + 18)
    return bytes(made)


def many_blocks(form: str) -> bytes:
    """A sound picture with a million parts of a few bytes in it, over which every reader has to walk."""
    sound = picture(3, form=form)
    after, part = {
        "JPEG": (2, b"\xff\xfe\0\2"),
        "PNG": (33, struct.pack(">I4sI", 0, b"abCd", zlib.crc32(b"abCd"))),
        "GIF": (sound.find(b"\x2c"), b"\x21\xfe\x01a\0"),
    }[form]
    return sound[:after] + part * 1_000_000 + sound[after:]


@pytest.mark.parametrize(
    "data",
    [
        *map(many_blocks, ("JPEG", "PNG", "GIF")),
        many_pages(20_000),
        noisy("JPEG2000") + struct.pack(">I4s", 8, b"free") * 999_999,
    ],
    ids=["JPEG", "PNG", "GIF", "TIFF", "JPEG2000"],
)
def test_a_picture_of_a_million_parts_is_not_read(data: bytes) -> None:
    found = formats.sniff(data)
    assert found is not None and structure.find_fault(data, found)[0] == structure.TOO_MANY_PARTS


def test_pictures_of_many_parts_are_sound() -> None:
    """Pages, frames and chunks as a long scan, a long animation and a picky encoder make them."""
    for data in (many_pages(2000), many_blocks("PNG")[: 33 + 12 * 5000] + picture(3, form="PNG")[33:]):
        found = formats.sniff(data)
        assert found is not None and structure.find_fault(data, found)[0] == ""


def fault(data: bytes) -> str:
    """What step 5 says of a body before it asks a decoder."""
    found = formats.sniff(data)
    return formats.refusal(data)[0] if found is None else structure.find_fault(data, found)[0]


@pytest.fixture(scope="module", name="decoder")
def decoder_fixture() -> Iterator[Verifier]:
    verifier = Verifier(1, VerifyLimits())
    yield verifier
    verifier.close()


def fault_or_undecodable(data: bytes, decoder: Verifier) -> str:
    """The same, and of JPEG XL, whose structure is left to its decoder, what that says."""
    reason = fault(data)
    return decoder.check(data, 1)[0] if not reason and formats.sniff(data) is formats.JXL else reason


# A black strip, or a TIFF's page whose strip is a page of HTML, is a picture to everything but a decoder.
@pytest.mark.parametrize("name", FAKES)
def test_what_only_begins_like_a_picture_is_none(name: str, decoder: Verifier) -> None:
    assert fault_or_undecodable(FAKES[name], decoder) in (structure.TRUNCATED, formats.NOT_AN_IMAGE, UNDECODABLE)


def rare() -> dict[str, tuple[tuple[int, int], bytes]]:
    """Real pictures of the formats that are walked, with their sizes."""
    found = {f"jxl, {name}": sample for name, sample in JXL.items()}
    for mode in ("RGB", "L", "RGBA"):
        found[f"avif {mode}"] = (70, 51), made("AVIF", (70, 51), mode)
        found[f"jp2 {mode}"] = (70, 51), made("JPEG2000", (70, 51), mode)
    found["avif, lossless"] = (64, 48), made("AVIF", quality=100, subsampling="4:4:4")
    found["avif, frames"] = (64, 48), made("AVIF", save_all=True, append_images=[Image.new("RGB", (64, 48))] * 3)
    found["j2k"] = (64, 48), made("JPEG2000", no_jp2=True)
    found["j2k, tiles"] = (300, 200), made("JPEG2000", (300, 200), no_jp2=True, tile_size=(64, 64))
    found["jp2, layers"] = (64, 48), made("JPEG2000", irreversible=True, quality_layers=[40, 10, 2])
    return found


@pytest.mark.parametrize("name", rare())
def test_a_rare_picture_is_seen_to_its_end(name: str, decoder: Verifier) -> None:
    size, data = rare()[name]
    found = formats.sniff(data)
    assert found is not None and structure.find_fault(data, found) == ("", "")
    assert structure.size_of_structure(data, found) == size
    assert fault_or_undecodable(data + b"<script>alert(1)</script>", decoder) == ""
    for tenth in range(1, 10):
        assert fault_or_undecodable(data[: len(data) * tenth // 10], decoder), tenth
    assert fault_or_undecodable(data[:-1], decoder)


def test_heic_is_walked_to_its_end() -> None:
    heif = pytest.importorskip("pillow_heif")
    data = io.BytesIO()
    heif.from_pillow(Image.effect_noise((700, 90), 80).convert("RGB")).save(data)
    found = formats.sniff(data.getvalue())
    assert found is formats.HEIC and structure.find_fault(data.getvalue(), found) == ("", "")
    assert structure.size_of_structure(data.getvalue(), found) == (700, 90)
    for tenth in range(1, 10):
        assert fault(data.getvalue()[: len(data.getvalue()) * tenth // 10])


@pytest.mark.parametrize("name", rare())
def test_no_damage_raises_or_takes_long(name: str) -> None:
    """Every byte of the head changed, one after the other, in three ways."""
    _, data = rare()[name]
    for at in range(min(len(data), 300)):
        for value in (0, 255, data[at] ^ 16):
            fault(data[:at] + bytes([value]) + data[at + 1 :])
