"""All frames and pages take part in what step 6 compares, and so does the colour space of the pixels."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageDraw
from support import drawing, peak_of_step, result

from lib.dedup.sequences import frames_differ
from lib.hashing.kinds import pixel_digest
from lib.images.colours import ColourSpace
from lib.images.decode import DecodeError
from lib.images.frames import opened_frames

SIZE = (160, 120)
ANIMATED = ["gif", "webp", "png", "avif", "tiff"]


def film(*seeds: int, size: tuple[int, int] = SIZE) -> list[Image.Image]:
    return [drawing(seed, *SIZE).resize(size) for seed in seeds]


def save(path: Path, frames: list[Image.Image], **more: Any) -> bytes:
    """Writes an animation, or a document of pages."""
    lossless = {"webp": {"lossless": True}, "avif": {"quality": 95, "speed": 8}}.get(path.suffix[1:], {})
    timed = {} if path.suffix in (".tiff", ".mpo") else {"duration": 200}
    frames[0].save(path, save_all=True, append_images=frames[1:], **timed | lossless | more)
    return path.read_bytes()


def jpeg(image: Image.Image, **more: Any) -> bytes:
    held = io.BytesIO()
    image.save(held, "JPEG", quality=92, **more)
    return held.getvalue()


def mpo(folder: Path, name: str, *seeds: int) -> bytes:
    save(folder / "x.mpo", film(*seeds), quality=92)
    return (folder / "x.mpo").rename(folder / name).read_bytes()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "photos"
    made.mkdir()
    return made


def judged(folder: Path, capsys: pytest.CaptureFixture[str]) -> list[tuple[str, str, str]]:
    """(kind, decision, name) of every member of a group in a dry run; nothing may be broken."""
    found = result(folder, capsys, "all", folder, "--dry-run")
    assert found["summary"]["broken"] == 0, found["summary"]
    members = [member for group in found["groups"] for member in group["members"]]
    return [(m["kind"], m["decision"], Path(m["path"]).name) for m in members]


@pytest.mark.parametrize("ending", ANIMATED)
@pytest.mark.parametrize("place", [1, 3])
def test_a_file_whose_one_frame_is_another_is_not_removed(ending: str, place: int, folder: Path, capsys: Any) -> None:
    seeds = [1, 2, 3, 4]
    save(folder / f"a.{ending}", film(*seeds))
    seeds[place] = 9
    save(folder / f"b.{ending}", film(*seeds))
    assert {(kind, decision) for kind, decision, _ in judged(folder, capsys)} <= {("edited", "review")}


@pytest.mark.parametrize("ending", ANIMATED)
def test_a_file_whose_frames_are_all_the_same_is_a_copy(ending: str, folder: Path, capsys: Any) -> None:
    save(folder / f"a.{ending}", film(1, 2, 3, 4))
    save(folder / f"b.{ending}", film(1, 2, 3, 4, size=(120, 90)))
    assert judged(folder, capsys) == [("same", "remove", f"b.{ending}")]


def test_another_format_holds_the_same_film(folder: Path, capsys: Any) -> None:
    save(folder / "a.png", film(1, 2, 3, 4))
    save(folder / "b.webp", film(1, 2, 3, 4), lossless=False, quality=80)
    assert judged(folder, capsys) == [("same", "remove", "b.webp")]


def test_a_caption_in_one_frame_is_seen(folder: Path, capsys: Any) -> None:
    frames = film(1, 2, 3, 4, 5)
    save(folder / "a.webp", frames)
    ImageDraw.Draw(frames[3]).rectangle((40, 90, 120, 112), fill="white")
    save(folder / "b.webp", frames)
    assert [row[:2] for row in judged(folder, capsys)] == [("edited", "review")]


@pytest.mark.parametrize("ending", ["gif", "webp", "png", "avif"])
def test_other_durations_are_another_film(ending: str, tmp_path: Path) -> None:
    for name, durations in (("a", 200), ("b", [200, 200, 900, 200]), ("c", 204)):
        save(tmp_path / f"{name}.{ending}", film(1, 2, 3, 4), duration=durations)
    assert "frame 3 of 4: shown for" in frames_differ(tmp_path / f"a.{ending}", tmp_path / f"b.{ending}")
    assert frames_differ(tmp_path / f"a.{ending}", tmp_path / f"c.{ending}") == ""


def test_empty_frames_are_compared_by_their_colour(tmp_path: Path) -> None:
    for name, colour in (("a", "black"), ("b", "black"), ("c", "navy")):
        save(tmp_path / f"{name}.webp", [*film(1, 2), Image.new("RGB", SIZE, colour), *film(3)], quality=80)
    assert frames_differ(tmp_path / "a.webp", tmp_path / "b.webp") == ""
    assert "frame 3 of 4" in frames_differ(tmp_path / "a.webp", tmp_path / "c.webp")
    assert frames_differ(tmp_path / "a.webp", tmp_path / "c.webp").startswith("frame 3")


def test_pages_of_other_sizes_are_pages(tmp_path: Path) -> None:
    one, large = film(1)[0], film(2, size=(320, 240))[0]
    save(tmp_path / "a.tiff", [one, large])
    save(tmp_path / "b.tiff", [one, film(2)[0]])
    save(tmp_path / "c.tiff", [one, film(3)[0]])
    assert frames_differ(tmp_path / "a.tiff", tmp_path / "b.tiff") == ""
    assert "frame 2 of 2" in frames_differ(tmp_path / "a.tiff", tmp_path / "c.tiff")


# --- what metadata say of the number of frames ---


def with_chunk_count(data: bytes, count: int | None) -> bytes:
    """An animated PNG that names another number of frames, or none at all."""
    at = data.index(b"acTL") - 4
    body = b"" if count is None else png_chunk(b"acTL", struct.pack(">II", count, 0))
    return data[:at] + body + data[at + 20 :]


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


@pytest.mark.parametrize("told", [0, 1, 2, 4, 6, 99, None])
def test_a_png_with_a_wrong_number_of_frames_shows_them_all(told: int | None, folder: Path, capsys: Any) -> None:
    for name, seeds in (("a.png", (1, 2, 3, 4, 5)), ("b.png", (1, 2, 3, 4, 9))):
        (folder / name).write_bytes(with_chunk_count(save(folder / name, film(*seeds)), told))
    with opened_frames(folder / "a.png") as frames:
        assert frames.count == 5 and sum(1 for _ in frames) == 5
    assert {row[1] for row in judged(folder, capsys)} <= {"review"}


def test_a_sequence_under_the_brand_of_a_picture_is_one(tmp_path: Path) -> None:
    for name, seeds in (("a.avif", (1, 2, 3)), ("b.avif", (1, 2, 9))):
        data = save(tmp_path / name, film(*seeds))
        assert data[8:12] == b"avis"
        (tmp_path / name).write_bytes(data[:8] + b"avif" + data[12:])
    assert "frame 3 of 3" in frames_differ(tmp_path / "a.avif", tmp_path / "b.avif")


@pytest.mark.parametrize("ending", ["webp", "tiff", "png"])
def test_broken_metadata_hide_no_frame(ending: str, folder: Path, capsys: Any) -> None:
    broken = b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01"
    for name, seeds in (("a", (1, 2, 3, 4, 5)), ("b", (1, 9, 3, 4, 5))):
        more = {} if ending == "tiff" else {"exif": broken}
        data = save(folder / f"{name}.{ending}", film(*seeds), **more)
        if ending == "tiff":  # the tag of EXIF leads nowhere
            data = data.replace(b"\x12\x01\x03\x00", b"\x69\x87\x04\x00")
            (folder / f"{name}.{ending}").write_bytes(data)
    assert {row[1] for row in judged(folder, capsys)} <= {"review"}


def stale(data: bytes) -> bytes:
    """An MPO whose list of pictures is out of date: the place of the second one is wrong."""
    at = data.index(b"MPF\0")
    return data[: at + 60] + b"\x11" * 24 + data[at + 84 :]


def without_list(data: bytes) -> bytes:
    return data.replace(b"MPF\0", b"XXX\0", 1)


@pytest.mark.parametrize("spoil", [bytes, stale, without_list])
def test_pictures_behind_a_jpeg_are_found_without_their_list(spoil: Any, folder: Path, capsys: Any) -> None:
    for name, seeds in (("a.jpg", (1, 2, 3)), ("b.jpg", (1, 9, 3)), ("c.jpg", (1, 2))):
        (folder / name).write_bytes(spoil(mpo(folder, name, *seeds)))
        with opened_frames(folder / name) as frames:
            assert frames.count == len(seeds)
    assert {row[1] for row in judged(folder, capsys)} <= {"review"}


def test_an_mpo_whose_second_picture_is_gone_is_its_first(folder: Path, capsys: Any) -> None:
    with_both = mpo(folder, "both.jpg", 1, 2)
    end = with_both.index(b"\xff\xd8\xff", with_both.index(b"\xff\xda"))
    (folder / "gone.jpg").write_bytes(with_both[:end])
    (folder / "both.jpg").unlink()
    (folder / "plain.jpg").write_bytes(jpeg(film(1)[0]))
    assert [row[:2] for row in judged(folder, capsys)] == [("pixels", "remove")]


def test_half_a_second_picture_is_no_sound_file(tmp_path: Path) -> None:
    data = mpo(tmp_path, "a.jpg", 1, 2)
    (tmp_path / "a.jpg").write_bytes(data[:-2000])
    with pytest.raises(DecodeError, match="truncated"):
        pixel_digest(tmp_path / "a.jpg")


def test_a_film_behind_a_jpeg_is_no_further_picture(tmp_path: Path) -> None:
    chance = b"\0\0\0\x18ftypmp42" + bytes(40) + b"\xff\xd8\xff\xd8\xff\xff\xd8\xff\xe0\x00" + bytes(5000)
    (tmp_path / "motion.jpg").write_bytes(jpeg(film(1)[0]) + chance)
    with opened_frames(tmp_path / "motion.jpg") as frames:
        assert frames.count == 1


def test_a_picture_that_is_not_a_still_of_a_film_is_no_copy(folder: Path, capsys: Any) -> None:
    save(folder / "a.webp", film(1, 2, 3))
    film(1)[0].save(folder / "b.png")
    assert [row[1] for row in judged(folder, capsys)] == ["review"]


def test_many_frames_are_held_one_at_a_time(folder: Path) -> None:
    shapes = [Image.new("P", (800, 500), 0) for _ in range(2)]
    for number, image in enumerate(shapes):
        image.putpalette([value for level in range(256) for value in (level, level, level)])
        ImageDraw.Draw(image).rectangle((100 + 300 * number, 100, 400 + 300 * number, 400), fill=200)
    for name in ("a", "b"):  # 200 frames of 1.2 MB in each
        frames = [shapes[number % 2] for number in range(200)]
        frames[0].save(folder / f"{name}.gif", save_all=True, append_images=frames[1:], duration=100, loop=ord(name))
    arguments = ["all", folder, "--dry-run", "--workspace", folder.parent / "ws", "--workers", "1", "-q"]
    assert peak_of_step("dedup", *arguments) < 250


# --- colours ---


def profile(primaries: tuple[float, ...] = (), gamma: float = 2.2, padding: int = 0) -> bytes:
    """An ICC profile of version 2 with three primaries (XYZ for D50) and one exponent."""
    p3 = (0.5151, 0.2412, -0.0011, 0.2920, 0.6922, 0.0419, 0.1571, 0.0666, 0.7841)
    numbers = primaries or p3

    def xyz(*values: float) -> bytes:
        return b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(value * 65536)) for value in values)

    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    text = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + bytes(79) + b"x" * padding
    tags = [(b"desc", text), (b"wtpt", xyz(0.9642, 1.0, 0.8249)), (b"cprt", b"text\0\0\0\0none\0\0\0\0")]
    tags += [(name, xyz(*numbers[at : at + 3])) for name, at in ((b"rXYZ", 0), (b"gXYZ", 3), (b"bXYZ", 6))]
    tags += [(name, curve) for name in (b"rTRC", b"gTRC", b"bTRC")]
    place, table, body = 128 + 4 + 12 * len(tags), b"", b""
    for name, content in tags:
        content += bytes(-len(content) % 4)
        table += name + struct.pack(">II", place + len(body), len(content))
        body += content
    size = place + len(body)
    head = struct.pack(">I4sI4s4s4s", size, b"\0\0\0\0", 0x02100000, b"mntr", b"RGB ", b"XYZ ") + bytes(12) + b"acsp"
    head = head.ljust(68, b"\0") + struct.pack(">iii", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


PRIMARIES = (0.4361, 0.2225, 0.0139, 0.3851, 0.7169, 0.0971, 0.1431, 0.0606, 0.7141)  # of sRGB
SWAPPED = (0.1571, 0.0666, 0.7841, 0.5151, 0.2412, -0.0011, 0.2920, 0.6922, 0.0419)  # red is blue, and so on
SRGB_PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
LONG = profile(padding=150_000)  # three blocks of a JPEG


def png(*chunks: bytes) -> bytes:
    held = io.BytesIO()
    drawing(1, *SIZE).save(held, "PNG")
    data = held.getvalue()
    return data[:33] + b"".join(chunks) + data[33:]


def with_profile(form: str, icc: bytes | None) -> bytes:
    held = io.BytesIO()
    lossless = {"WEBP": {"lossless": True}}.get(form, {"quality": 90})
    drawing(1, *SIZE).save(held, form, icc_profile=icc, **lossless)
    return held.getvalue()


def avif(primaries: int, curve: int) -> bytes:
    data = with_profile("AVIF", None)
    at = data.index(b"colrnclx") + 8
    return data[:at] + struct.pack(">HH", primaries, curve) + data[at + 4 :]


def gamma(value: float) -> bytes:
    return png_chunk(b"gAMA", struct.pack(">I", round(value * 100_000)))


def chromaticity(*values: float) -> bytes:
    return png_chunk(b"cHRM", struct.pack(">8I", *(round(value * 100_000) for value in values)))


BT709 = (0.3127, 0.329, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
OTHERS = {
    "jpeg": (with_profile("JPEG", None), with_profile("JPEG", profile())),
    "jpeg in several blocks": (with_profile("JPEG", None), with_profile("JPEG", LONG)),
    "webp": (with_profile("WEBP", None), with_profile("WEBP", profile())),
    "tiff": (with_profile("TIFF", None), with_profile("TIFF", profile())),
    "png profile": (png(), with_profile("PNG", profile())),
    "png gamma": (png(), png(gamma(1.0))),
    "png primaries": (png(), png(chromaticity(0.3127, 0.329, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06))),
    "png code points": (png(), png(png_chunk(b"cICP", bytes((12, 13, 0, 1))))),
    "png of high range": (png(), png(png_chunk(b"cICP", bytes((9, 16, 0, 1))))),
    "avif profile": (avif(1, 13), with_profile("AVIF", profile())),
    "avif code points": (avif(1, 13), avif(12, 13)),
    "two profiles": (with_profile("JPEG", profile()), with_profile("JPEG", profile(gamma=1.8))),
    "a broken profile": (with_profile("JPEG", None), with_profile("JPEG", b"broken" * 40)),
}
ALIKE = {
    "jpeg": (with_profile("JPEG", None), with_profile("JPEG", SRGB_PROFILE)),
    "webp": (with_profile("WEBP", None), with_profile("WEBP", SRGB_PROFILE)),
    "png profile": (png(), with_profile("PNG", SRGB_PROFILE)),
    "png intent": (png(), png(png_chunk(b"sRGB", b"\0"))),
    "png numbers": (png(), png(gamma(0.45455), chromaticity(*BT709))),
    "png intent before numbers": (png(), png(png_chunk(b"sRGB", b"\0"), gamma(1.0))),
    "png code points": (png(), png(png_chunk(b"cICP", bytes((1, 13, 0, 1))), gamma(1.0))),
    "avif": (avif(2, 2), avif(1, 13)),
}


def written(folder: Path, one: bytes, other: bytes) -> tuple[Path, Path]:
    paths = folder / "a.img", folder / "b.img"
    for path, data in zip(paths, (one, other), strict=True):
        path.write_bytes(data)
    return paths


@pytest.mark.parametrize("name", OTHERS)
def test_equal_numbers_in_other_colours_are_other_pixels(name: str, tmp_path: Path) -> None:
    one, other = written(tmp_path, *OTHERS[name])
    assert np.array_equal(np.asarray(Image.open(one)), np.asarray(Image.open(other)))
    assert pixel_digest(one) != pixel_digest(other)


@pytest.mark.parametrize("name", ALIKE)
def test_a_space_that_is_srgb_says_no_more_than_none(name: str, tmp_path: Path) -> None:
    one, other = written(tmp_path, *ALIKE[name])
    assert pixel_digest(one) == pixel_digest(other)


@pytest.mark.parametrize("names", [("a.jpg", "b.jpg"), ("b.jpg", "a.jpg")])
@pytest.mark.parametrize("icc", [SRGB_PROFILE, profile(), LONG], ids=["srgb", "p3", "long"])
def test_the_copy_that_names_its_colours_stays(names: tuple[str, str], icc: bytes, folder: Path, capsys: Any) -> None:
    (folder / names[0]).write_bytes(with_profile("JPEG", icc))
    plain = with_profile("JPEG", None)
    # As many bytes as the other has, so that these do not decide.
    (folder / names[1]).write_bytes(plain + bytes((folder / names[0]).stat().st_size + 99 - len(plain)))
    rows = judged(folder, capsys)
    assert [row[2] for row in rows] == [names[1]]
    assert (rows[0][0] == "pixels") == (icc is SRGB_PROFILE)


def test_colours_that_a_profile_exchanges_are_another_picture(folder: Path, capsys: Any) -> None:
    (folder / "a.jpg").write_bytes(with_profile("JPEG", profile(SWAPPED)))
    (folder / "b.jpg").write_bytes(with_profile("JPEG", None))
    assert "remove" not in {row[1] for row in judged(folder, capsys)}


def test_a_copy_without_its_profile_takes_no_tagged_ones_place(folder: Path, capsys: Any) -> None:
    (folder / "tagged.jpg").write_bytes(with_profile("JPEG", profile(PRIMARIES, gamma=1.8)))
    Image.open(folder / "tagged.jpg").save(folder / "plain.png", icc_profile=None)
    assert [(row[1], row[2]) for row in judged(folder, capsys)] == [("keep", "tagged.jpg")]


def test_a_picture_that_was_turned_into_srgb_is_the_same_picture(folder: Path, capsys: Any) -> None:
    (folder / "wide.png").write_bytes(with_profile("PNG", profile()))
    source, target = ImageCms.ImageCmsProfile(io.BytesIO(profile())), ImageCms.createProfile("sRGB")
    ImageCms.profileToProfile(drawing(1, *SIZE), source, target).save(folder / "web.jpg", quality=90)
    assert [row[:2] for row in judged(folder, capsys)] == [("same", "remove")]


def test_the_space_of_a_profile_is_told_by_what_it_does() -> None:
    assert ColourSpace(profile=SRGB_PROFILE).is_srgb
    assert not ColourSpace(profile=profile()).is_srgb
    assert ColourSpace(profile=profile()).digest == ColourSpace(profile=profile(), tagged=True).digest
