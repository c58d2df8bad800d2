"""Step 6 over the formats of phones and of the web, and spread by Ray."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image, features
from support import drawing, flat, run_step

from lib.dedup.fingerprints import fingerprint
from lib.dedup.keep import Traits, read_traits
from lib.images.decode import DecodeError, learn_heif, read_header
from lib.pages.thumbnails import thumbnail_data_uri

HIDDEN = 'import sys; sys.modules["pillow_heif"] = None  # importing it raises ImportError'
HEIC_START = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64)


@pytest.fixture(autouse=True)
def unlearned() -> Iterator[None]:
    """Whether the plugin is there is asked once a process."""
    learn_heif.cache_clear()
    yield
    learn_heif.cache_clear()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A drawing, a stranger, and what no step can read."""
    made = tmp_path / "photos"
    made.mkdir()
    drawing(1, 640, 480).save(made / "a.png")
    drawing(2, 640, 480).save(made / "b.png")
    (made / "page.jpg").write_text("<html>")
    return made


def found(folder: Path, *arguments: str, **environment: str) -> dict:
    words = ["similar", folder, "--json", "--workspace", folder.parent / "ws", "--workers", "2", *arguments]
    done = run_step("dedup", *words, **environment)
    assert done.returncode == 0, done.stderr
    return flat(done.stdout)


def going(answer: dict) -> dict[str, str]:
    """Name -> kind of what is removed."""
    return {
        Path(member["path"]).name: member["kind"]
        for group in answer["groups"]
        for member in group["members"]
        if member["decision"] == "remove"
    }


def test_an_avif_copy_is_a_copy(folder: Path):
    assert features.check("avif"), "Pillow's wheels have AVIF from 11.3 on"
    drawing(1, 640, 480).resize((320, 240)).save(folder / "small.avif", quality=70)
    answer = found(folder, "--dry-run")
    assert going(answer) == {"small.avif": "same"}
    assert answer["summary"]["not_an_image"] == answer["summary"]["broken"] == 1


@pytest.mark.parametrize("name", ["phone.heic", "sent.jpg"])
def test_without_its_plugin_a_heic_file_says_what_is_missing(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (folder / name).write_bytes(HEIC_START)
    with pytest.raises(DecodeError, match="needs_pillow_heif"):
        read_header(folder / name)
    with pytest.raises(DecodeError, match="needs_pillow_heif"):
        read_header(HEIC_START)
    assert thumbnail_data_uri(folder / name) == ""
    hook = folder.parent / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(HIDDEN)
    for _ in range(2):
        answer = found(folder, PYTHONPATH=str(hook))
        assert (answer["summary"]["needs_pillow_heif"], answer["summary"]["not_an_image"]) == (1, 1)
        reasons = {Path(entry["path"]).name: entry["reason"] for entry in answer["broken"]}
        assert reasons == {name: "needs_pillow_heif", "page.jpg": "not_an_image"}


@pytest.mark.parametrize("name", ["phone.heic", "sent.jpg"])
def test_with_its_plugin_a_heic_copy_is_a_copy(name: str, folder: Path):
    import pillow_heif

    small = drawing(1, 640, 480).resize((320, 240))
    pillow_heif.from_pillow(small).save(folder / "made.heic", quality=80)
    (folder / "made.heic").rename(folder / name)
    assert going(found(folder, "--dry-run")) == {name: "same"}
    assert thumbnail_data_uri(folder / name).startswith("data:image/jpeg")


def test_a_heic_original_is_not_taken_away_for_its_smaller_copy(folder: Path):
    import pillow_heif

    large = drawing(3, 640, 480)
    pillow_heif.from_pillow(large).save(folder / "z-phone.heic", quality=90)
    large.resize((320, 240)).save(folder / "sent.jpg", quality=90)
    large.save(folder / "turned.tiff", tiffinfo={0x0112: 6})
    assert going(found(folder, "--dry-run")) == {"sent.jpg": "same"}
    facts = read_traits(folder / "z-phone.heic")
    assert (facts.format, facts.width, facts.height) == ("heif", 640, 480)
    facts = read_traits(folder / "turned.tiff")
    assert (facts.width, facts.height) == read_header(folder / "turned.tiff").upright_size == (480, 640)


def test_ray_finds_what_this_machine_finds(folder: Path):
    pytest.importorskip("ray", reason="the package ray is not installed")
    with Image.open(folder / "a.png") as picture:
        picture.save(folder / "copy.jpg", quality=60)
    spread = found(folder, "--dry-run", "--executor", "ray")
    assert going(spread) == {"copy.jpg": "same"}
    assert spread == found(folder, "--dry-run")


@pytest.mark.parametrize("ending", ["jpg", "png", "gif", "webp", "bmp", "tif", "jp2", "ppm", "avif"])
def test_the_facts_of_a_decode_are_those_of_the_header(tmp_path: Path, ending: str):
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "a camera"
    path = tmp_path / f"a.{ending}"
    drawing(1, 1200, 900).save(path, **({"exif": exif} if ending in ("jpg", "png", "webp", "avif") else {}))
    facts = read_traits(path)
    assert Traits.from_bytes(fingerprint(str(path)).traits) == facts
    assert facts.pixels == 1200 * 900
    path.with_suffix(".txt").write_text("a note")
    assert read_traits(path).has_metadata


def in_rgb(picture: Image.Image, marker: str) -> bytes:
    """A JPEG whose numbers are red, green and blue, told by Adobe's marker or by the names of its components."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=92, keep_rgb=True)
    content = file.getvalue()
    start = content.index(b"\xff\xee")
    return content if marker == "adobe" else content[:start] + content[start + 16 :]


@pytest.mark.parametrize("marker", ["adobe", "components"])
def test_a_jpeg_that_is_stored_in_rgb_is_no_broken_one(folder: Path, marker: str):
    """libjpeg gives it in RGB and grey alone; asked for YCbCr it says that it is broken."""
    (folder / "c.jpg").write_bytes(in_rgb(drawing(1, 640, 480), marker))
    with Image.open(folder / "c.jpg") as image:
        assert bytes(layer[0] for layer in image.layer) == b"RGB" and ("adobe" in image.info) == (marker == "adobe")
    answer = found(folder)
    assert [Path(entry["path"]).name for entry in answer["broken"]] == ["page.jpg"]
    assert going(answer) == {"c.jpg": "same"}


def test_broken_metadata_fills_no_terminal(folder: Path):
    """Pillow warns of every tag, and libtiff tells the terminal; what matters becomes a reason."""
    file = io.BytesIO()
    drawing(4, 200, 150).save(file, "TIFF", compression="tiff_lzw")
    (folder / "bad.tif").write_bytes(file.getvalue()[:8] + b"\xff" * 100 + file.getvalue()[108:])
    for number in range(3):
        file = io.BytesIO()
        drawing(number + 5, 200, 150).save(file, "TIFF", description="x" * 40, software="y" * 40)
        head = file.getvalue()
        for tag in (270, 305):  # their texts are told to be longer than the file
            at = head.index(tag.to_bytes(2, "little") + b"\2\0")
            head = head[: at + 4] + (1 << 20).to_bytes(4, "little") + head[at + 8 :]
        (folder / f"tags{number}.tif").write_bytes(head)
        with pytest.warns(UserWarning, match="larger than file"), Image.open(folder / f"tags{number}.tif") as image:
            image.load()
    for step, *words in (("dedup", "similar", folder), ("sort", "quality", folder), ("sort", "export", folder)):
        done = run_step(step, *words, "--workspace", folder.parent / "ws", "--workers", "2")
        assert done.returncode == 0 and "Warning" not in done.stderr and "not yet in table" not in done.stderr, (
            done.stderr
        )
