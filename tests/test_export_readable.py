"""Step 7's export and pictures that cannot be read, or not by all loaders: left out by reason, named, or converted."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms, features
from support import PATIENCE, ROOT, drawing, load_step, snapshot

from lib.files.pictures import sha256_of

ingest, dedup, step = load_step("ingest"), load_step("dedup"), load_step("sort")
needs_avif = pytest.mark.skipif(not features.check("avif"), reason="this build of Pillow has no AVIF")


def run(script: Any, workspace: Path, *arguments: object) -> int:
    return script.main([*map(str, arguments), "--workspace", str(workspace), "-q"])


def export(workspace: Path, capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    """Runs an export; gives its counts and, as `said`, what it tells a person."""
    capsys.readouterr()
    assert step.main(["export", *map(str, arguments), "--workspace", str(workspace), "--json"]) == 0
    said = capsys.readouterr()
    return {**json.loads(said.out)["counts"], "said": said.err}


def metadata(workspace: Path) -> dict[str, dict[str, Any]]:
    """The records of an imagefolder, by the name that the picture came with."""
    files = (workspace / "export").rglob("metadata.jsonl")
    rows = [json.loads(line) | {"at": path.parent} for path in files for line in path.read_text("utf-8").splitlines()]
    return {row["source_name"]: row | {"file": row["at"] / row["file_name"]} for row in rows}


def as_bytes(image: Image.Image, form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 0x55]) + content[at + 1 :]


def damaged(folder: Path) -> dict[str, str]:
    """Three sound pictures and damaged ones of several formats; gives the reason of each of the latter."""
    folder.mkdir(parents=True)
    for number in range(3):
        drawing(number + 20, 200, 160).save(folder / f"sound{number}.jpg")
    jpeg, png = as_bytes(drawing(30, 220, 160), "JPEG"), as_bytes(drawing(31, 200, 170), "PNG")
    frames = [drawing(number + 40, 90, 80) for number in range(4)]
    gif = as_bytes(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=90)
    tiff = as_bytes(drawing(33, 150, 120), "TIFF", compression="tiff_lzw")
    made = {
        "half.jpg": (jpeg[: len(jpeg) // 2], "truncated"),
        "flipped.png": (flipped(png, len(png) // 2), "undecodable"),
        "half.png": (png[: len(png) // 2], "truncated"),
        "half.gif": (gif[: len(gif) - len(gif) // 5], "truncated"),
        "half.tif": (tiff[:8] + bytes(400) + tiff[408:], "undecodable"),
    }
    for name, (content, _) in made.items():
        (folder / name).write_bytes(content)
    return {name: reason for name, (_, reason) in made.items()}


@pytest.mark.parametrize("seen", [True, False], ids=["after step 6", "unseen"])
@pytest.mark.parametrize("form", ["imagefolder", "webdataset"])
def test_what_cannot_be_read_is_left_out_by_reason(seen: bool, form: str, tmp_path: Path, capsys: Any) -> None:
    reasons = damaged(tmp_path / "mine")
    workspace = tmp_path / "ws"
    assert run(ingest, workspace, "--import-folder", tmp_path / "mine") == 0
    assert not seen or run(dedup, workspace) == 0
    preview = export(workspace, capsys, "--dry-run", "--as", form)
    counts = export(workspace, capsys, "--as", form)
    told = {reason: list(reasons.values()).count(reason) for reason in reasons.values()}
    assert counts["pictures"] == 3 and counts["unreadable"] == len(reasons)
    assert told.items() <= counts.items()
    assert {**preview, "said": ""} == {**counts, "said": ""}
    words = (
        f"{len(reasons)} pictures (" + ", ".join(f"{count} {reason}" for reason, count in sorted(told.items())) + ")"
    )
    assert words in counts["said"]
    assert words in (workspace / "export/README.md").read_text("utf-8").replace("\\", "")
    if form == "imagefolder":
        assert [Path(name).suffix for name in metadata(workspace)] == [".jpg"] * 3
    before = snapshot(workspace / "export")
    again = export(workspace, capsys, "--as", form)
    assert snapshot(workspace / "export") == before and "holds this dataset already" in again["said"]
    assert told.items() <= again.items()  # it says again what is not in it


def test_files_that_went_or_changed_are_told_apart_and_looked_for_again(tmp_path: Path, capsys: Any) -> None:
    folder, workspace = tmp_path / "mine", tmp_path / "ws"
    folder.mkdir()
    for number in range(5):
        drawing(number + 60, 210, 160).save(folder / f"{number}.jpg")
    assert run(ingest, workspace, "--import-folder", folder) == 0 and run(dedup, workspace) == 0
    places = {path.read_bytes(): path for path in workspace.rglob("*.jpg")}
    gone, changed, cut = (places[(folder / f"{number}.jpg").read_bytes()] for number in range(3))
    held = gone.read_bytes()
    gone.unlink()
    for path, content in ((changed, as_bytes(drawing(77, 210, 160), "JPEG")), (cut, cut.read_bytes()[:3000])):
        path.unlink()  # a hard link to a person's file, or a file of its own
        path.write_bytes(content)
    counts = export(workspace, capsys)
    wanted = {"pictures": 2, "unreadable": 3, "missing_file": 1, "changed": 1, "truncated": 1}
    assert wanted.items() <= counts.items()
    before = snapshot(workspace / "export")
    assert "holds this dataset already" in export(workspace, capsys)["said"]
    assert snapshot(workspace / "export") == before
    gone.write_bytes(held)
    counts = export(workspace, capsys, "--replace")
    assert counts["pictures"] == 3 and "missing_file" not in counts


def test_nothing_that_can_be_read_is_no_dataset(tmp_path: Path, capsys: Any) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "half.jpg").write_bytes(as_bytes(drawing(1, 300, 200), "JPEG")[:3000])
    for form in ("imagefolder", "webdataset", "parquet"):
        assert run(step, tmp_path / "ws", "export", folder, "--as", form) == 1
        assert "none of the pictures can be read (1 truncated)" in capsys.readouterr().err
    assert not (tmp_path / "ws/export").exists()


def rare(folder: Path) -> None:
    """A photograph that all loaders open, others that they do not, and some that a conversion would spoil."""
    folder.mkdir(parents=True)
    photo = drawing(90, 120, 80)
    photo.save(folder / "plain.jpg")
    photo.save(folder / "plain.avif", quality=90)
    exif = Image.Exif()
    exif[0x0112] = 6
    drawing(91, 120, 80).save(folder / "turned.avif", quality=95, exif=exif)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    drawing(92, 100, 80).save(folder / "profile.avif", quality=90, icc_profile=profile)
    logo = Image.new("RGBA", (96, 64), (255, 255, 255, 0))
    logo.paste((255, 255, 255, 255), (20, 10, 70, 50))
    logo.save(folder / "logo.avif", quality=95)
    frames = [drawing(number + 93, 70, 60) for number in range(3)]
    frames[0].save(folder / "moving.avif", save_all=True, append_images=frames[1:], duration=100)
    frames[0].save(folder / "moving.gif", save_all=True, append_images=frames[1:], duration=100)
    deep = (np.arange(64 * 48, dtype=np.uint32).reshape(48, 64) * 21 % 65536).astype(np.uint16)
    Image.fromarray(deep).save(folder / "deep.png")
    logo.save(folder / "logo.png")


@needs_avif
@pytest.mark.parametrize("form", ["imagefolder", "webdataset", "parquet"])
def test_formats_that_not_all_loaders_open_are_named(form: str, tmp_path: Path, capsys: Any) -> None:
    rare(tmp_path / "mine")
    counts = export(tmp_path / "ws", capsys, tmp_path / "mine", "--as", form)
    assert (counts["pictures"], counts["unopened_by_loaders"]) == (9, 5)
    assert "5 pictures (5 avif); --convert jpeg, png or webp" in counts["said"]
    assert "5 pictures (5 avif)" in (tmp_path / "ws/export/README.md").read_text("utf-8")


@needs_avif
@pytest.mark.parametrize("wanted", ["jpeg", "png", "webp"])
def test_they_are_converted_on_wish_and_others_keep_their_bytes(wanted: str, tmp_path: Path, capsys: Any) -> None:
    mine, workspace = tmp_path / "mine", tmp_path / "ws"
    rare(mine)
    counts = export(workspace, capsys, mine, "--convert", wanted)
    assert (counts["pictures"], counts["converted"]) == (9, 5) and "unopened_by_loaders" not in counts
    assert "of 1 the first frame alone" in counts["said"]
    found = metadata(workspace)
    assert len({tuple(row) for row in found.values()}) == 1  # the same columns everywhere
    for name, row in found.items():
        content = row["file"].read_bytes()
        with Image.open(io.BytesIO(content)) as image:
            assert row["sha256"] == sha256_of(row["file"]) and image.size == (row["width"], row["height"])
            assert image.format.lower() == row["format"]
        if name.endswith(".avif"):
            assert (row["format"], row["original_format"]) == (wanted, "avif")
            assert row["original_sha256"] == sha256_of(mine / name)
        else:
            assert content == (mine / name).read_bytes() and row["original_sha256"] == ""
    assert (found["turned.avif"]["width"], found["turned.avif"]["height"]) == (80, 120)
    turned = np.asarray(Image.open(found["turned.avif"]["file"]).convert("RGB"), np.int16)
    right = np.asarray(drawing(91, 120, 80).convert("RGB").transpose(Image.Transpose.ROTATE_270), np.int16)
    assert np.abs(turned - right).mean() < 14 < np.abs(turned - right[::-1]).mean()
    assert not Image.open(found["turned.avif"]["file"]).getexif().get(0x0112)
    with Image.open(mine / "profile.avif") as image:
        assert Image.open(found["profile.avif"]["file"]).info["icc_profile"] == image.info["icc_profile"]
    logo = Image.open(found["logo.avif"]["file"])
    if wanted == "jpeg":  # white on clear: a ground on which it can be seen
        assert logo.getpixel((2, 2)) != (255, 255, 255) and min(logo.getpixel((45, 30))) > 245
    else:
        assert logo.convert("RGBA").getpixel((2, 2))[3] == 0 and logo.convert("RGBA").getpixel((45, 30))[3] == 255
    assert found["moving.avif"]["original_frames"] == 3
    before = snapshot(workspace / "export")
    again = export(workspace, capsys, mine, "--convert", wanted)
    assert snapshot(workspace / "export") == before and again["converted"] == 5
    assert not list((workspace / "export").rglob(".*"))


@needs_avif
def test_converted_pictures_are_in_shards_and_tables(tmp_path: Path, capsys: Any) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    mine = tmp_path / "mine"
    rare(mine)
    export(tmp_path / "ws", capsys, mine, "--as", "webdataset", "--convert", "jpeg", "--split", "1")
    with tarfile.open(tmp_path / "ws/export/00000.tar") as shard:
        content = {entry.name: shard.extractfile(entry).read() for entry in shard}  # type: ignore[union-attr]
    records = {name[:-5]: json.loads(text) for name, text in content.items() if name.endswith(".json")}
    assert len(records) == 9
    for key, record in records.items():
        picture = next(
            part for name, part in content.items() if name.startswith(key) and not name.endswith(("json", "txt"))
        )
        assert Image.open(io.BytesIO(picture)).format != "AVIF"
        assert record["format"] != "avif"
    export(tmp_path / "ws", capsys, mine, "--as", "parquet", "--convert", "png", "--split", "1", "--to", tmp_path / "p")
    rows = parquet.read_table(tmp_path / "p/train-00000.parquet").to_pylist()
    assert sorted(row["original_frames"] or 0 for row in rows) == [0, 0, 0, 0, 1, 1, 1, 1, 3]
    assert {Image.open(io.BytesIO(row["image"]["bytes"])).format for row in rows} == {"JPEG", "PNG", "GIF"}


@needs_avif
def test_a_side_that_a_format_cannot_have_is_a_reason(tmp_path: Path, capsys: Any) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    drawing(1, 80, 60).save(mine / "a.jpg")
    Image.new("RGB", (16_400, 16), (9, 80, 200)).save(mine / "long.avif", speed=10)
    counts = export(tmp_path / "ws", capsys, mine, "--convert", "webp")
    assert (counts["pictures"], counts["too_large"], counts["unreadable"]) == (1, 1, 1)
    assert export(tmp_path / "ws", capsys, mine, "--convert", "jpeg", "--replace")["converted"] == 1


def test_sixteen_bits_stay_where_the_format_has_them(tmp_path: Path, capsys: Any) -> None:
    if not features.check("jpg_2000"):
        pytest.skip("this build of Pillow has no JPEG 2000")
    mine, deep = tmp_path / "mine", np.linspace(0, 65535, 64 * 48).astype(np.uint16).reshape(48, 64)
    mine.mkdir()
    Image.fromarray(deep).save(mine / "deep.jp2")
    export(tmp_path / "ws", capsys, mine, "--convert", "png")
    assert np.array_equal(np.asarray(Image.open(metadata(tmp_path / "ws")["deep.jp2"]["file"])), deep)
    export(tmp_path / "ws", capsys, mine, "--convert", "jpeg", "--replace")
    grey = np.asarray(Image.open(metadata(tmp_path / "ws")["deep.jp2"]["file"]).convert("L"), np.int32)
    assert np.abs(grey - deep // 257).max() <= 6


def test_heic_is_converted(tmp_path: Path, capsys: Any) -> None:
    heif = pytest.importorskip("pillow_heif")
    heif.register_heif_opener()
    mine = tmp_path / "mine"
    mine.mkdir()
    drawing(4, 128, 96).save(mine / "a.heic", quality=90)
    assert export(tmp_path / "ws", capsys, mine)["unopened_by_loaders"] == 1
    assert export(tmp_path / "ws", capsys, mine, "--convert", "jpeg", "--replace")["converted"] == 1
    row = metadata(tmp_path / "ws")["a.heic"]
    assert (row["width"], row["height"], row["original_format"]) == (128, 96, "heif")
    assert row["file"].suffix == ".jpg" and Image.open(row["file"]).format == "JPEG"


def test_paths_cannot_name_converted_files(tmp_path: Path, capsys: Any) -> None:
    arguments = ["--as", "parquet", "--parquet-pictures", "reference", "--convert", "jpeg"]
    assert run(step, tmp_path / "ws", "export", tmp_path, *arguments) == 2
    assert "--parquet-pictures embed" in capsys.readouterr().err


DYING = """
import os, sys
sys.path[:0] = [{root!r}, {tests!r}]
from support import load_step
step = load_step("sort")
import lib.sort.export.run as run
run.DatasetCard = lambda *given: os.kill(os.getpid(), 9)
step.main(sys.argv[1:])
"""


@needs_avif
@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX here")
def test_a_kill_after_converting_leaves_nothing_and_the_next_run_does_it_all(tmp_path: Path, capsys: Any) -> None:
    mine = tmp_path / "mine"
    rare(mine)
    workspace = tmp_path / "ws"
    words = ["export", str(mine), "--convert", "png", "--workspace", str(workspace), "-q"]
    code = DYING.format(root=str(ROOT), tests=str(ROOT / "tests"))
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=ROOT, timeout=PATIENCE, check=False)
    assert done.returncode == -signal.SIGKILL
    assert [name for name in os.listdir(workspace) if name.endswith(".part")]
    assert not (workspace / "export").exists()
    export(workspace, capsys, mine, "--convert", "png")
    assert not [name for name in os.listdir(workspace) if name.endswith(".part")]
    export(tmp_path / "calm", capsys, mine, "--convert", "png")
    names = ("train", "val", "test")
    calm, again = (
        {path: digest for path, digest in snapshot(place / "export").items() if path.startswith(names)}
        for place in (tmp_path / "calm", workspace)
    )
    assert calm == again and calm


@pytest.mark.parametrize("size", [(5, 5), (7, 256), (300, 1)])
def test_a_small_jpeg_can_be_read(size: tuple[int, int], tmp_path: Path, capsys: Any) -> None:
    """It is decoded for an eighth of the pixels, and an eighth of seven is none."""
    (folder := tmp_path / "mine").mkdir()
    drawing(3, 300, 256).resize(size).save(folder / "small.jpg")
    cut = as_bytes(drawing(4, 300, 256).resize(size), "JPEG")
    (folder / "cut.jpg").write_bytes(cut[:-24])
    counts = export(tmp_path / "ws", capsys, folder)
    assert counts["pictures"] == 1 and counts["truncated"] == 1


@pytest.mark.parametrize("seen", [True, False], ids=["after step 6", "unseen"])
def test_a_frame_that_step_6_did_not_look_at_is_decoded(seen: bool, tmp_path: Path, capsys: Any) -> None:
    """Step 6 looks at some frames of a picture that it compares with no other."""
    (folder := tmp_path / "mine").mkdir()
    drawing(3, 300, 256).save(folder / "sound.jpg")
    frames = [drawing(number + 50, 90, 80) for number in range(9)]
    content = as_bytes(frames[0], "PNG", save_all=True, append_images=frames[1:], duration=90)
    last = content.rindex(b"fcTL")
    data = content[last : last + 4] + (99).to_bytes(4, "big") + content[last + 8 : last + 30]
    head = content[:last] + data + zlib.crc32(data).to_bytes(4, "big")
    (folder / "gap.png").write_bytes(head + content[last + 34 :])  # the last frame's number does not follow
    workspace = tmp_path / "ws"
    assert run(ingest, workspace, "--import-folder", folder) == 0
    assert not seen or run(dedup, workspace) == 0
    counts = export(workspace, capsys)
    assert counts["pictures"] == 1 and counts["undecodable"] == 1
