"""Step 7: what it plans, what it writes, and that it can be repeated, stopped and taken back."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support import PATIENCE, ROOT, all_rows, as_rows, drawing, dump, flat, load_step, run_step, snapshot, touched

from lib.db import Database, open_database
from lib.db.files import FileRow, add_file
from lib.files.pictures import sha256_of
from lib.quality.measure import Measure
from lib.sort.criteria.sizes import Megapixels, Orientation
from lib.sort.sheet import SortTotals
from lib.times import utc_now

step = load_step("sort")
SIZES = {"wide": (320, 200), "tall": (200, 320), "even": (240, 240)}


def sort(workspace: Path, *arguments: object) -> int:
    """Runs the step in this process, on one worker."""
    return step.main([*map(str, arguments), "--workspace", str(workspace), "--workers", "1"])


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """Three downloaded pictures; where the wide one came from is known in full."""
    root = tmp_path / "ws"
    with open_database(root / "gleaner.db") as db:
        for number, (name, size) in enumerate(SIZES.items()):
            add_picture(db, root, name, drawing(number, *size))
        db.execute(
            "INSERT INTO queries (engine, kind, text, created_at, updated_at)"
            " VALUES ('yandex', 'keyword', 'lake', '', '')"
        )
        db.execute(
            "INSERT INTO results (query_id, image_id, rank) SELECT 1, id, 0 FROM images WHERE key = 'yandex:wide'"
        )
    return root


def add_picture(db: Database, root: Path, name: str, image: Image.Image) -> None:
    path = root / "images" / name[:2] / f"{name}.jpg"
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, quality=92)
    sha256 = sha256_of(path)
    text = path.relative_to(root).as_posix()
    add_file(db, FileRow(sha256, text, path.stat().st_size, "jpeg", *image.size))
    db.execute(
        "INSERT INTO images (key, engine, page_url, title, license, creator, first_seen_at)"
        " VALUES (?, 'yandex', ?, ?, 'CC BY 4.0', 'Ann', '')",
        (f"yandex:{name}", f"https://pages.example/{name}", f"A {name} one"),
    )
    db.execute(
        "INSERT INTO downloads (image_id, state, sha256, final_url, updated_at)"
        " VALUES (last_insert_rowid(), 'done', ?, ?, '')",
        (sha256, f"https://files.example/{name}.jpg"),
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Somebody's own folder: two pictures of one name, one that looks like a temporary file, a broken one."""
    root = tmp_path / "holiday"
    for number, name in enumerate(("a/same.jpg", "b/same.jpg", "b/deep/er/x_resized.jpg")):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        drawing(number + 20, 300, 200).save(path, quality=92)
    (root / "broken.jpg").write_bytes((root / "a/same.jpg").read_bytes()[:900])
    return root


def records(workspace: Path, criterion: str, bucket: str) -> list[dict[str, Any]]:
    path = workspace / "sorted" / criterion / bucket / "metadata.jsonl"
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def placed(workspace: Path, criterion: str) -> dict[str, list[str]]:
    """The pictures on disk, by bucket; checks on the way that metadata.jsonl names exactly them."""
    found = {}
    for bucket in sorted((workspace / "sorted" / criterion).iterdir()):
        names = sorted(path.name for path in bucket.iterdir() if path.name != "metadata.jsonl")
        assert [record["file_name"] for record in records(workspace, criterion, bucket.name)] == names
        found[bucket.name] = names
    return found


@pytest.mark.parametrize(
    ("size", "options", "bucket"),
    [
        ((300, 200), {}, "landscape"),
        ((200, 300), {}, "portrait"),
        ((200, 200), {}, "square"),
        ((203, 200), {}, "square"),
        ((200, 203), {}, "square"),
        ((203, 200), {"tolerance": 0.01}, "landscape"),
        ((200, 300), {"tolerance": 0.5}, "square"),
        ((200, 200), {"square": "landscape"}, "landscape"),
        ((200, 200), {"square": "portrait"}, "portrait"),
        ((1, 60000), {}, "portrait"),
    ],
)
def test_orientation(size: tuple[int, int], options: dict[str, Any], bucket: str) -> None:
    label = Orientation(**options).label(Measure(1.0, "", *size))
    assert label.bucket == bucket
    assert label.reason.startswith(f"{size[0]}x{size[1]}, ratio ")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ["0-0.5mp", "0.5-2mp", "0.5-2mp", "8mp_and_more"]),
        ({"edges": (1.0,)}, ["0-1mp", "0-1mp", "1mp_and_more", "1mp_and_more"]),
        ({"strategy": "coarse"}, ["small", "small", "medium", "large"]),
        ({"strategy": "step"}, ["0-1mp", "0-1mp", "1-2mp", "12-13mp"]),
        ({"strategy": "step", "step": 0.1}, ["0.3-0.4mp", "0.5-0.6mp", "1.5-1.6mp", "12-12.1mp"]),
        ({"strategy": "quantiles", "parts": 2}, ["part_1", "part_1", "part_2", "part_2"]),
        ({"strategy": "quantiles", "parts": 4}, ["part_1", "part_2", "part_3", "part_4"]),
    ],
)
def test_megapixels(options: dict[str, Any], expected: list[str]) -> None:
    measures = [Measure(value, "", 1000, int(value * 1000)) for value in (0.3, 0.5, 1.5, 12.0)]
    criterion = Megapixels(**options).fit(measures)
    assert [criterion.label(measure).bucket for measure in measures] == expected
    if criterion.strategy != "step":
        assert set(expected) <= {name for name, _ in criterion.buckets()}


def test_quantiles_never_split_a_size() -> None:
    measures = [Measure(1.0, "", 1000, 1000)] * 9 + [Measure(5.0, "", 1000, 5000)]
    criterion = Megapixels("quantiles", parts=4).fit(measures)
    assert len({criterion.label(measure).bucket for measure in measures[:9]}) == 1


def test_metadata_tells_everything_that_is_known(workspace: Path) -> None:
    assert sort(workspace, "orientation") == 0
    assert placed(workspace, "orientation") == {
        "landscape": ["wide.jpg"],
        "portrait": ["tall.jpg"],
        "square": ["even.jpg"],
    }
    assert records(workspace, "orientation", "landscape") == [
        {
            "file_name": "wide.jpg",
            "sha256": sha256_of(workspace / "images/wi/wide.jpg"),
            "width": 320,
            "height": 200,
            "format": "jpeg",
            "criterion": "orientation",
            "label": "landscape",
            "score": 1.6,
            "reason": "320x200, ratio 1.60",
            "query": "lake",
            "engine": "yandex",
            "image_url": "https://files.example/wide.jpg",
            "page_url": "https://pages.example/wide",
            "title": "A wide one",
            "license": "CC-BY-4.0",
            "creator": "Ann",
        }
    ]
    assert "query" not in records(workspace, "orientation", "portrait")[0]


@pytest.mark.parametrize("criterion", ["orientation", "megapixels", "quality"])
def test_a_dry_run_writes_nothing_and_says_what_it_would_do(
    criterion: str, workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = snapshot(workspace)
    assert sort(workspace, criterion, "--dry-run") == 0
    assert snapshot(workspace) == before
    out = capsys.readouterr().out
    for name in SIZES:
        assert f"would copy  images/{name[:2]}/{name}.jpg -> sorted/{criterion}/" in out


def test_a_dry_run_on_a_folder_makes_no_workspace(folder: Path, tmp_path: Path) -> None:
    before = snapshot(tmp_path)
    assert sort(tmp_path / "none", "quality", folder, "--dry-run") == 0
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("mode", ["copy", "move", "hardlink", "symlink"])
@pytest.mark.parametrize("criterion", ["orientation", "quality"])
def test_a_second_run_changes_nothing(mode: str, criterion: str, workspace: Path) -> None:
    assert sort(workspace, criterion, "--mode", mode) == 0
    files, rows = snapshot_without_database(workspace), dump(workspace / "gleaner.db")
    assert sort(workspace, criterion, "--mode", mode) == 0
    assert snapshot_without_database(workspace) == files
    assert dump(workspace / "gleaner.db") == rows


def snapshot_without_database(workspace: Path) -> dict[str, str]:
    return {name: digest for name, digest in snapshot(workspace).items() if not name.startswith("gleaner.db")}


def test_modes_do_what_they_are_called(workspace: Path, tmp_path: Path) -> None:
    for mode in ("copy", "move", "hardlink", "symlink"):
        root = tmp_path / mode
        shutil.copytree(workspace, root)
        assert sort(root, "orientation", "--mode", mode) == 0
        source, target = root / "images/wi/wide.jpg", root / "sorted/orientation/landscape/wide.jpg"
        assert source.exists() == (mode != "move")
        assert target.is_symlink() == (mode == "symlink")
        assert target.resolve() == (source if mode == "symlink" else target).resolve()
        assert (mode == "hardlink") == (mode != "move" and mode != "symlink" and os.path.samefile(source, target))
        row = as_rows(root / "gleaner.db", "SELECT path, state FROM files WHERE path LIKE '%wide%'")
        place = "sorted/orientation/landscape/wide.jpg" if mode == "move" else "images/wi/wide.jpg"
        assert row == [(place, "present")]


@pytest.mark.parametrize("mode", ["copy", "move", "hardlink", "symlink"])
def test_undo_puts_everything_back(mode: str, workspace: Path) -> None:
    before = snapshot_without_database(workspace)
    assert sort(workspace, "orientation", "--mode", mode) == 0
    assert sort(workspace, "--undo", "last", "--dry-run") == 0
    assert (workspace / "sorted/orientation/landscape/wide.jpg").exists()
    assert sort(workspace, "--undo", "last") == 0
    left = ("reports", ".sort.lock")
    after = {name: v for name, v in snapshot_without_database(workspace).items() if not name.startswith(left)}
    assert after == before
    assert as_rows(workspace / "gleaner.db", "SELECT count(*) FROM files WHERE path LIKE 'images/%'") == [(3,)]


def test_what_was_moved_by_one_criterion_can_be_moved_on_by_another(workspace: Path) -> None:
    assert sort(workspace, "orientation", "--mode", "move") == 0
    assert sort(workspace, "quality", "--mode", "move") == 0
    assert not (workspace / "sorted/orientation").exists()
    assert [name for names in placed(workspace, "quality").values() for name in names] == [
        "even.jpg",
        "tall.jpg",
        "wide.jpg",
    ]
    assert sort(workspace, "--undo", "last") == 0
    assert placed(workspace, "orientation")["square"] == ["even.jpg"]
    assert not (workspace / "sorted/quality").exists()


@pytest.mark.parametrize("mode", ["copy", "move", "symlink"])
def test_new_thresholds_move_what_is_sorted_and_measure_nothing(
    mode: str, workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sort(workspace, "quality", "--mode", mode, "--high", 0, "--medium", 0) == 0
    assert list(placed(workspace, "quality")) == ["high"]
    capsys.readouterr()
    assert sort(workspace, "quality", "--mode", mode, "--high", 100, "--medium", 100, "--json", "-n") == 0
    plan = flat(capsys.readouterr().out)
    assert {action["kind"] for action in plan["actions"]} == {"move"}
    assert plan["counts"]["to_rebucket"] == 3
    assert sort(workspace, "quality", "--mode", mode, "--high", 100, "--medium", 100, "--json") == 0
    summary = json.loads(capsys.readouterr().out)["counts"]
    assert (summary["rebucketed"], summary["sorted"], summary["measured"]) == (3, 0, 0)
    assert placed(workspace, "quality") == {"low": ["even.jpg", "tall.jpg", "wide.jpg"]}
    with Image.open(workspace / "sorted/quality/low/wide.jpg") as image:
        assert image.size == (320, 200)
    assert sort(workspace, "--undo", "last") == 0
    assert list(placed(workspace, "quality")) == ["high"]


def test_quantiles_of_quality_fill_the_buckets(workspace: Path) -> None:
    assert sort(workspace, "quality", "--strategy", "quantiles") == 0
    assert {bucket: len(names) for bucket, names in placed(workspace, "quality").items()} == {
        "high": 1,
        "low": 1,
        "medium": 1,
    }


def test_a_lowest_score_leaves_the_rest_where_it_is(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sort(workspace, "quality", "--min-score", 100, "--json") == 0
    told = flat(capsys.readouterr().out)
    assert told["counts"]["below_min_score"] == 3
    assert {entry["path"] for entry in told["left_out"]} == {f"images/{n[:2]}/{n}.jpg" for n in SIZES}
    assert not (workspace / "sorted").exists()


def test_a_copy_that_somebody_deleted_comes_back(workspace: Path) -> None:
    assert sort(workspace, "orientation") == 0
    (workspace / "sorted/orientation/square/even.jpg").unlink()
    assert sort(workspace, "orientation") == 0
    assert placed(workspace, "orientation")["square"] == ["even.jpg"]


@pytest.mark.parametrize(
    ("condition", "names"),
    [
        ("orientation = square", {"even"}),
        ("orientation in (square, 'portrait')", {"even", "tall"}),
        ("not orientation in (square, portrait)", {"wide"}),
        ("orientation != square and orientation.score > 1", {"wide"}),
        ("orientation.score >= 1 or query = lake", {"even", "wide"}),
        ("query = LAKE", set()),
        ("query like 'LAK%'", {"wide"}),
        ("width > height", {"wide"}),
        ("width >= 240 and format = jpeg and bytes > 100", {"even", "wide"}),
        ("megapixels < 0.06", {"even"}),
        ("license = 'CC BY 4.0' and title like '%tall%'", {"tall"}),
        ("quality is null", {"even", "tall", "wide"}),
        ("quality is not null or quality.score > 3", set()),
        ("engine = \"it's\" or orientation.reason like '200x%'", {"tall"}),
    ],
)
def test_earlier_labels_choose_the_pictures(condition: str, names: set[str], workspace: Path) -> None:
    assert sort(workspace, "orientation") == 0
    before = dump(workspace / "gleaner.db")
    assert sort(workspace, "megapixels", "--where", condition, "--dry-run") == 0
    assert dump(workspace / "gleaner.db") == before
    assert sort(workspace, "megapixels", "--where", condition) == 0
    assert (workspace / "reports/sort_megapixels.html").exists()
    found = placed(workspace, "megapixels") if names else {}
    assert {Path(name).stem for bucket in found.values() for name in bucket} == names


@pytest.mark.parametrize(
    ("condition", "names"),
    [
        ("width >= '240'", {"even", "wide"}),
        ("orientation.score < '1.2'", {"even", "tall"}),
        ("query = 2020", {"wide"}),
        ("query in (1, 2020)", {"wide"}),
        ("title like 7", {"tall"}),
    ],
)
def test_numbers_are_compared_with_numbers_and_texts_with_texts(
    condition: str, names: set[str], workspace: Path
) -> None:
    """SQLite holds every text for larger than every number: `< '70'` was all, and `query = 2020` none."""
    with open_database(workspace / "gleaner.db") as db:
        db.execute("UPDATE queries SET text = '2020'")
        db.execute("UPDATE images SET title = '7' WHERE key = 'yandex:tall'")
    assert sort(workspace, "orientation") == 0
    assert sort(workspace, "megapixels", "--where", condition) == 0
    found = placed(workspace, "megapixels")
    assert {Path(name).stem for bucket in found.values() for name in bucket} == names


@pytest.mark.parametrize(
    "condition", ["quality.score < high", "width > '1o0'", "vlm.score in (0.7, nan)", "bytes > 1e999"]
)
def test_a_number_that_is_none_is_refused(condition: str, workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sort(workspace, "megapixels", "--where", condition) == 2
    assert f"{condition.split()[0]} is a number, and" in capsys.readouterr().err


def test_a_condition_on_what_was_never_sorted_by_says_so(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sort(workspace, "orientation") == 0
    capsys.readouterr()
    assert sort(workspace, "export", "--where", "orientation = square and vlm.score >= 0.7 and quality = high") == 2
    assert "nothing is labelled by vlm or quality yet; sort by it first." in capsys.readouterr().err
    assert sort(workspace, "export", "--where", "orientation = square and width > 9999") == 2
    assert "no picture fulfils --where; see the labels" in capsys.readouterr().err


def test_a_folder_is_sorted_by_content_and_left_as_it_was(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, workspace = snapshot(folder), tmp_path / "ws"
    assert sort(workspace, "quality", folder, "--high", 0, "--medium", 0, "--json") == 0
    told = flat(capsys.readouterr().out)
    assert snapshot(folder) == before
    assert placed(workspace, "quality") == {"high": ["same.jpg", "same_2.jpg", "x_resized.jpg"]}
    assert told["unreadable"] == [{"path": (folder / "broken.jpg").as_posix(), "reason": "truncated"}]
    contents = {record["sha256"] for record in records(workspace, "quality", "high")}
    assert contents == {sha256_of(path) for path in folder.rglob("*.jpg") if path.name != "broken.jpg"}


def test_two_folders_share_a_criterion_and_one_run_touches_one(folder: Path, workspace: Path) -> None:
    assert sort(workspace, "megapixels") == 0
    assert sort(workspace, "megapixels", folder / "a", folder / "b") == 0
    names = ["even.jpg", "same.jpg", "same_2.jpg", "tall.jpg", "wide.jpg", "x_resized.jpg"]
    assert placed(workspace, "megapixels") == {"0-0.5mp": names}
    assert sort(workspace, "megapixels", folder / "a", "--edges", "0.01") == 0
    assert placed(workspace, "megapixels")["0.01mp_and_more"] == ["same.jpg"]


def test_pictures_moved_out_of_a_folder_are_still_its_pictures(folder: Path, tmp_path: Path) -> None:
    workspace = tmp_path / "ws"
    assert sort(workspace, "megapixels", folder / "b", "--mode", "move") == 0
    assert not list((folder / "b").rglob("*.jpg"))
    assert sort(workspace, "megapixels", folder / "b", "--mode", "move", "--edges", "0.01") == 0
    assert placed(workspace, "megapixels") == {"0.01mp_and_more": ["same.jpg", "x_resized.jpg"]}


def test_a_folder_that_holds_the_workspace_is_not_sorted_twice(folder: Path) -> None:
    workspace = folder / "workspace"
    for _ in range(2):
        assert sort(workspace, "orientation", folder) == 0
        assert placed(workspace, "orientation") == {
            "landscape": ["broken.jpg", "same.jpg", "same_2.jpg", "x_resized.jpg"]
        }


def test_exif_turns_a_picture_and_only_the_header_is_read(tmp_path: Path) -> None:
    root = tmp_path / "in"
    root.mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    drawing(1, 300, 200).save(root / "turned.jpg", exif=exif)
    whole = (root / "turned.jpg").read_bytes()
    (root / "cut.jpg").write_bytes(whole[: whole.index(b"\xff\xda") + 20])  # the header is whole, the pixels are gone
    assert sort(tmp_path / "ws", "orientation", root) == 0
    found = records(tmp_path / "ws", "orientation", "portrait")
    assert [(r["file_name"], r["width"], r["height"]) for r in found] == [
        ("cut.jpg", 200, 300),
        ("turned.jpg", 200, 300),
    ]


def hostile_pictures(root: Path) -> dict[str, str | None]:
    """Makes one file of each kind that breaks programs; gives the reason expected, None where there must be a score."""
    image = drawing(5, 200, 150)
    png = io.BytesIO()
    image.save(png, "PNG")
    huge = Image.new("1", (20_000, 12_000))
    made: dict[str, tuple[str | None, Any]] = {
        "text.jpg": ("not_an_image", b"<html>no picture</html>"),
        "empty.png": ("not_an_image", b""),
        "cut.png": ("truncated", png.getvalue()[:-2000]),
        "huge.png": ("too_many_pixels", huge),
        "cmyk.jpg": (None, image.convert("CMYK")),
        "grey.jpg": (None, image.convert("L")),
        "palette.gif": (None, image.convert("P")),
        "transparent.png": (None, image.convert("RGBA").rotate(30, expand=True)),
        "deep.png": (None, Image.fromarray((np.asarray(image.convert("L")).astype("uint16")) * 257)),
        "bits.png": (None, image.convert("1")),
        "dot.png": (None, Image.new("RGB", (1, 1))),
        "strip.png": (None, image.resize((900, 3))),
        "float.tif": (None, image.convert("F")),
    }
    for name, (_, content) in made.items():
        if isinstance(content, bytes):
            (root / name).write_bytes(content)
        else:
            content.save(root / name)
    image.save(root / "moving.gif", save_all=True, append_images=[drawing(6, 200, 150)])
    (root / "wrong.png").write_bytes((root / "grey.jpg").read_bytes())
    return {name: reason for name, (reason, _) in made.items()} | {"moving.gif": None, "wrong.png": None}


def test_every_hostile_picture_gets_a_score_or_a_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "in"
    root.mkdir()
    expected = hostile_pictures(root)
    before = snapshot(root)
    assert sort(tmp_path / "ws", "quality", root, "--json") == 0
    told = flat(capsys.readouterr().out)
    reasons = {Path(entry["path"]).name: entry["reason"] for entry in told["unreadable"]}
    assert reasons == {name: reason for name, reason in expected.items() if reason}
    sorted_names = sorted(name for names in placed(tmp_path / "ws", "quality").values() for name in names)
    assert sorted_names == sorted(name for name, reason in expected.items() if not reason)
    assert snapshot(root) == before
    assert sort(tmp_path / "ws", "quality", root, "--json") == 0
    assert json.loads(capsys.readouterr().out)["counts"]["measured"] == 0  # a broken content stays broken


def test_a_name_that_is_no_text_is_reported_and_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "in"
    root.mkdir()
    drawing(1, 300, 200).save(root / "good.jpg")
    try:
        os.rename(os.fsencode(root / "good.jpg"), os.fsencode(root) + b"/bad\xff.jpg")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    drawing(2, 300, 200).save(root / "Ünïcøde 图 name.jpg")
    assert sort(tmp_path / "ws", "quality", root, "--json") == 0
    told = flat(capsys.readouterr().out)
    assert [entry["reason"] for entry in told["unreadable"]] == ["name_not_utf8"]
    assert [n for names in placed(tmp_path / "ws", "quality").values() for n in names] == ["Ünïcøde 图 name.jpg"]


def test_the_report_shows_the_pictures_where_they_lie(workspace: Path, folder: Path) -> None:
    assert sort(workspace, "quality", folder) == 0
    data = json.loads((workspace / "reports/sort_quality.json").read_text())
    assert all((workspace / row["path"]).exists() for row in data["pictures"])
    assert {row["source"] for row in data["pictures"]} == {
        path.as_posix() for path in folder.rglob("*.jpg") if path.name != "broken.jpg"
    }
    page = (workspace / "reports/sort_quality.html").read_text("utf-8")
    assert "x_resized.jpg" in page
    assert "broken.jpg was not sorted: truncated." in page
    assert (workspace / "reports/sort_quality.csv").read_text().startswith("path,label,score,reason,")
    assert (workspace / "reports/index.html").exists()


def test_a_bucket_loads_as_an_imagefolder(workspace: Path) -> None:
    """The rule of Hugging Face's loader: every line names an existing picture, and all lines have like types."""
    assert sort(workspace, "quality", "--high", 0, "--medium", 0) == 0
    folder = workspace / "sorted/quality/high"
    pyarrow_json = pytest.importorskip("pyarrow.json")
    table = pyarrow_json.read_json(folder / "metadata.jsonl")
    assert table.num_rows == 3
    assert all((folder / name.as_py()).is_file() for name in table["file_name"])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "say what to sort by: orientation, megapixels, quality"),
        (["quality", "--where", "quality = "], "ends too early"),
        (["quality", "--where", "qualty = high"], "knows no 'qualty'; names are orientation, megapixels, quality"),
        (["quality", "--where", "not technical.reason = dark"], "knows no 'technical.reason'"),
        (["quality", "--where", "quality.score >> 3"], "is not understood at '>'"),
        (["quality", "--where", "quality = 1; drop table images"], "is not understood at 'drop'"),
        (["quality", "--medium", "80", "--high", "60"], "--medium 80 is above --high 60"),
        (["quality", "--strategy", "step"], "quality knows no --strategy step"),
        (["orientation", "/nowhere/at/all"], "/nowhere/at/all does not exist"),
        (["quality"], "run 5_download.py first."),
        (["--undo", "7"], "so there is nothing to undo"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(
    arguments: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sort(tmp_path / "ws", *arguments) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["colour"],
        ["megapixels", "--edges", "2,1"],
        ["megapixels", "--edges", "a"],
        ["megapixels", "--every", "0"],
        ["megapixels", "--parts", "1"],
        ["quality", "--high", "101"],
        ["quality", "--high", "nan"],
        ["quality", "--metric", "a b"],
        ["quality", "--long-side", "20"],
        ["orientation", "--tolerance", "2"],
    ],
)
def test_senseless_values_are_refused_by_the_parser(arguments: list[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        sort(tmp_path / "ws", *arguments)
    assert ended.value.code == 2
    assert not (tmp_path / "ws").exists()


MODELS = "models-dir device"
FLAGS = {  # what each criterion takes besides the common flags
    "orientation": "square tolerance",
    "megapixels": "strategy edges every parts",
    "quality": f"strategy metric combine long-side high medium min-score {MODELS}",
    "filter": f"name keep drop keep-file drop-file labels margin near-query clip-model {MODELS}",
    "topic": f"clip-model eps min-samples topic-text topic-top {MODELS}",
    "objects": f"classes min-objects max-objects min-confidence detector {MODELS}",
    "vlm": "vlm-url vlm-model vlm-key-env subject vlm-prompt vlm-min-score max-images vlm-workers vlm-timeout "
    "vlm-tries",
    "export": "to as split label shard-size parquet-pictures convert title replace drop-opted-out caption take seed "
    "balance resize resize-mode resize-only-if-bigger encode-format encode-quality push public",
}
COMMON = {
    *"help version workspace json verbose quiet dry-run limit workers executor undo page mode where format".split(),
}
VALUES = {"edges": "1,2", "to": "x", "as": "parquet", "square": "separate", "strategy": "fixed", "combine": "min"}
VALUES |= {"parquet-pictures": "embed", "device": "cpu", "long-side": "300", "min-score": "1", "split": "1"}
VALUES |= {"convert": "png", "caption": "title", "resize-mode": "border", "encode-format": "png", "push": "me/mine"}
VALUES |= {"name": "indoor", "resize": "300"}
VALUES |= dict.fromkeys("max-objects min-objects max-images parts min-samples topic-top vlm-workers".split(), "3")
VALUES |= dict.fromkeys("vlm-tries shard-size take seed encode-quality".split(), "3")
SWITCHES = "replace drop-opted-out balance resize-only-if-bigger public".split()
ALL_FLAGS = sorted({flag for flags in FLAGS.values() for flag in flags.split()})


def help_of(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as ended:
        step.main([*words])
    assert ended.value.code == 0
    return capsys.readouterr().out


def flags_in(text: str) -> set[str]:
    """The flags that have a line of their own."""
    return set(re.findall(r"^  (?:-\w, )?--([a-z-]+)", text, re.MULTILINE))


@pytest.mark.parametrize("words", [(0, "--help"), ("-h", 0), ("--where", "a = topic", "--title", "export", 0, "-h")])
@pytest.mark.parametrize("criterion", FLAGS)
def test_the_help_of_a_criterion_is_its_own(
    criterion: str, words: tuple[Any, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    text = help_of(capsys, *(word or criterion for word in words))
    assert flags_in(text) == COMMON | set(FLAGS[criterion].split())
    usage = text.partition("\n\n")[0]
    assert set(re.findall(r"--([a-z-]+)", usage)) - COMMON == set(FLAGS[criterion].split())
    assert f"7_sort_quality.py {criterion} " in text.partition("\ncommon:")[0], "examples stand before the flags"
    assert not [name for name in FLAGS if name != criterion and f"7_sort_quality.py {name} " in text]


@pytest.mark.parametrize("words", [["--help"], ["-n", "-h"], ["photos", "--help", "quality"]])
def test_the_help_alone_lists_the_criteria(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of(capsys, *words)
    assert flags_in(text) == COMMON
    above = text.partition("\ncommon:")[0]
    for name in FLAGS:
        assert re.search(rf"^    {name} +\S", above, re.MULTILINE)
        assert f"7_sort_quality.py {name} " in above, "examples stand before the flags"


@pytest.mark.parametrize("flag", ALL_FLAGS)
@pytest.mark.parametrize("criterion", FLAGS)
def test_a_flag_of_another_criterion_is_refused(
    criterion: str, flag: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [f"--{flag}"] if flag in SWITCHES else [f"--{flag}={VALUES.get(flag, '0.5')}"]
    owners = [name for name, flags in FLAGS.items() if flag in flags.split()]
    for line in ([criterion, *given], [*given, criterion]):
        assert sort(tmp_path / "ws", *line) == 2
        said = capsys.readouterr().err
        if criterion in owners:
            assert f", not to {criterion}" not in said
        else:
            assert f"error: --{flag} belongs to {' and '.join(owners)}, not to {criterion};" in said
    assert not (tmp_path / "ws").exists()


def test_flags_may_stand_before_the_criterion(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sort(workspace, "--dry-run", "quality") == 0
    assert sort(workspace, "--high", "80", "-n", "quality", "--where", "quality is null") == 0
    assert sort(workspace, "--dry-run", "--", "quality") == 0


def test_settings_of_other_criteria_are_no_fault(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (workspace / "gleaner.toml").write_text('[sort]\nkeep = ["a cat"]\nhigh = 80\n')
    monkeypatch.setenv("GLEANER_SUBJECT", "lakes")
    assert sort(workspace, "orientation", "--dry-run") == 0


def test_an_empty_workspace_names_the_step_to_run_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    open_database(tmp_path / "gleaner.db").close()
    assert sort(tmp_path, "orientation") == 2
    assert "run 5_download.py first" in capsys.readouterr().err


def test_csv_and_json_list_the_pictures(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sort(workspace, "orientation", "--format", "csv") == 0
    assert capsys.readouterr().out.splitlines()[0].startswith("path,label,score")
    assert sort(workspace, "orientation", "--format", "json") == 0
    listed = json.loads(capsys.readouterr().out)
    assert {row["label"] for row in listed} == {"landscape", "portrait", "square"}
    assert sort(workspace, "orientation", "--json") == 0
    assert json.loads(capsys.readouterr().out)["result"]["pictures"] == listed


# Kills itself for good at the n-th time that it opens a picture or changes a name on disk.
KILLED = """
import os, signal, sys
left = int(sys.argv[1])
def watch(event, arguments):
    global left
    opened = event == "open" and str(arguments[0]).endswith(".jpg")
    if opened or event in ("os.link", "os.remove", "os.rename", "os.mkdir"):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(watch)
from support import load_step
load_step("sort").main(sys.argv[2:])
"""


@pytest.mark.parametrize("mode", ["copy", "move"])
def test_a_killed_run_is_finished_by_the_next(mode: str, tmp_path: Path) -> None:
    folder, workspace, twin = tmp_path / "in", tmp_path / "ws", tmp_path / "twin"
    folder.mkdir()
    for number in range(12):
        drawing(number % 11, 120 + number % 3 * 80, 160).save(folder / f"{number:02}.jpg")
    shutil.copytree(folder, twin / "in")
    assert sort(twin / "ws", "quality", twin / "in", "--mode", mode) == 0
    arguments = ["quality", str(folder), "--mode", mode, "--workspace", str(workspace), "--workers", "1", "-q"]
    kills = 0
    for instant in (6, 16, 20, 20, 25, 3, 9, 5, 24):
        command = [sys.executable, "-c", KILLED, str(instant), *arguments]
        modules = os.pathsep.join((str(ROOT), str(ROOT / "tests")))
        process = subprocess.run(command, env={**os.environ, "PYTHONPATH": modules}, capture_output=True)
        assert process.returncode in (-signal.SIGKILL, 0), process.stderr
        kills += process.returncode == -signal.SIGKILL
        for path in workspace.glob("sorted/quality/*/*.jpg"):
            Image.open(path).load()  # a file under its final name is whole
    assert kills >= 5
    assert run_step("sort", *arguments).returncode == 0
    disturbed, undisturbed = (snapshot_without_database(root) for root in (workspace, twin / "ws"))
    assert sorted(disturbed) == sorted(undisturbed)
    # The reports name the folder that the pictures came from, which differs.
    differing = {name for name in disturbed if disturbed[name] != undisturbed[name]}
    assert all(name.startswith("reports/") for name in differing), differing
    assert snapshot(folder) == snapshot(twin / "in")
    tables = ("runs", "actions", "contents", "written_reports")
    assert dump(workspace / "gleaner.db", without=tables) == dump(twin / "ws/gleaner.db", without=tables)


def test_what_a_killed_run_left_half_done_is_settled(workspace: Path) -> None:
    """A plan was written, one copy was made but not marked, a temporary file was left."""
    assert sort(workspace, "orientation", "-q") == 0
    target = workspace / "sorted/orientation/square"
    with open_database(workspace / "gleaner.db") as db:
        db.execute("UPDATE actions SET state = 'planned'")
    (target / f".{'0' * 32}.part").write_bytes(b"half")
    (target / "even.jpg").unlink()
    assert sort(workspace, "orientation", "-q") == 0
    assert placed(workspace, "orientation")["square"] == ["even.jpg"]
    assert utc_now() > as_rows(workspace / "gleaner.db", "SELECT max(finished_at) FROM actions")[0][0]


def with_a_repeat(workspace: Path) -> None:
    """A paler copy of the wide picture, which step 6 will find."""
    with open_database(workspace / "gleaner.db") as db:
        image = Image.open(workspace / "images/wi/wide.jpg")
        add_picture(db, workspace, "zwide", image.point(lambda level: level * 0.95))


@pytest.mark.parametrize("mode", ["copy", "hardlink", "symlink"])
def test_copies_of_what_went_to_quarantine_leave_and_come_back(mode: str, workspace: Path) -> None:
    with_a_repeat(workspace)
    assert sort(workspace, "orientation", "--mode", mode) == 0
    sorted_first = placed(workspace, "orientation")
    assert sorted_first["landscape"] == ["wide.jpg", "zwide.jpg"]
    assert load_step("dedup").main(["--workspace", str(workspace)]) == 0
    kept, gone = sorted(
        ("wide.jpg", "zwide.jpg"), key=lambda name: not (workspace / "images" / name[:2] / name).exists()
    )
    assert not (workspace / "images" / gone[:2] / gone).exists()
    before = snapshot(workspace)
    assert sort(workspace, "orientation", "--dry-run") == 0
    assert snapshot(workspace) == before
    assert sort(workspace, "orientation", "--mode", mode) == 0
    assert placed(workspace, "orientation") == {**sorted_first, "landscape": [kept]}
    (away,) = workspace.glob("quarantine/*/sorted/orientation/landscape/*")  # a link leads nowhere now
    assert (away.name, away.is_symlink()) == (gone, mode == "symlink")
    files = snapshot_without_database(workspace)
    assert sort(workspace, "orientation", "--mode", mode) == 0
    assert snapshot_without_database(workspace) == files
    assert sort(workspace, "--undo", "last") == 0
    assert placed(workspace, "orientation") == sorted_first


def test_a_lowest_score_takes_out_what_is_sorted_already(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sort(workspace, "quality") == 0
    before = placed(workspace, "quality")
    assert sum(map(len, before.values())) == 3
    capsys.readouterr()
    assert sort(workspace, "quality", "--min-score", 100, "--json") == 0
    told = flat(capsys.readouterr().out)
    assert told["counts"]["withdrawn"] == 3
    assert as_rows(workspace / "gleaner.db", "SELECT count(*) FROM labels") == [(0,)]  # for --where
    assert not (workspace / "sorted").exists()
    page = json.loads((workspace / "reports/sort_quality.json").read_text("utf-8"))
    assert page["pictures"] == [] and len(page["left_out"]) == 3
    assert sort(workspace, "--undo", "last") == 0
    assert placed(workspace, "quality") == before


def test_what_was_moved_goes_back_to_its_place_below_the_lowest_score(workspace: Path) -> None:
    files = {path: path.read_bytes() for path in (workspace / "images").rglob("*.jpg")}
    assert sort(workspace, "quality", "--mode", "move") == 0
    assert not list((workspace / "images").rglob("*.jpg"))
    assert sort(workspace, "quality", "--mode", "move", "--min-score", 100) == 0
    assert {path: path.read_bytes() for path in (workspace / "images").rglob("*.jpg")} == files
    assert not (workspace / "sorted").exists()
    assert as_rows(workspace / "gleaner.db", "SELECT count(*) FROM files WHERE path LIKE 'images/%'") == [(3,)]


def test_a_changed_copy_is_somebodys_work_and_stays(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sort(workspace, "quality") == 0
    changed = next(workspace.glob("sorted/quality/*/wide.jpg"))
    drawing(9, 64, 64).save(changed)
    capsys.readouterr()
    assert sort(workspace, "quality", "--min-score", 100, "--json") == 0
    told = json.loads(capsys.readouterr().out)["counts"]
    assert (told["withdrawn"], told["changed_copies_left"]) == (2, 1)
    assert changed.exists() and not list(workspace.glob("sorted/quality/*/even.jpg"))


def test_a_copy_of_what_a_file_held_before_leaves_and_one_whose_original_was_deleted_stays(
    folder: Path, workspace: Path
) -> None:
    assert sort(workspace, "orientation", folder) == 0
    first = placed(workspace, "orientation")["landscape"]
    drawing(77, 320, 200).save(folder / "a/same.jpg", quality=92)
    (folder / "b/deep/er/x_resized.jpg").unlink()
    assert sort(workspace, "orientation", folder) == 0
    assert len(placed(workspace, "orientation")["landscape"]) == len(first)
    assert len(list(workspace.glob("quarantine/*/sorted/orientation/landscape/*.jpg"))) == 1
    sizes = {Image.open(path).size for path in (workspace / "sorted/orientation/landscape").glob("same*.jpg")}
    assert sizes == {(320, 200), (300, 200)}


def test_the_page_says_what_is_usual_and_shows_no_empty_bucket(workspace: Path) -> None:
    assert sort(workspace, "quality", "--high", 1, "--medium", 0) == 0
    page = (workspace / "reports/sort_quality.html").read_text("utf-8")
    for label in ("Pictures", "Median size", "Median score", "Named most"):
        assert f"<dt>{label}</dt>" in page
    assert page.count('class="bucket-head"') == 1
    assert page.count(" disabled>") == 2  # the buttons of the two empty buckets


@pytest.mark.parametrize(
    ("reasons", "named"),
    [
        (["tiny", "tiny", "no defect found"], "tiny"),
        (["musiq 71.2", "musiq 50.3"], ""),
        (["no defect found"], ""),
    ],
)
def test_what_is_named_most_is_a_defect(reasons: list[str], named: str) -> None:
    row = {"label": "high", "criterion": "quality", "score": 60.0, "width": 40, "height": 30}
    cards = {card.label: card.value for card in SortTotals.of({**row, "reason": reason} for reason in reasons).cards()}
    assert cards.get("Named most", "") == named and cards["Pictures"] == len(reasons)


@pytest.fixture
def six(tmp_path: Path) -> Path:
    """Six pictures and a broken one."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(6):
        drawing(number, 90 + 20 * number, 120).save(folder / f"{number}.png")
    (folder / "broken.jpg").write_bytes(b"nothing")
    return folder


@pytest.mark.parametrize("criterion", ["orientation", "megapixels", "quality"])
def test_a_second_run_with_nothing_new_writes_nothing(
    criterion: str, six: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    """No file is touched, none made for a moment, and no row is written but the run's own; nor is anything compared."""
    from lib.sort import output

    workspace, database = tmp_path / "ws", tmp_path / "ws/gleaner.db"
    assert sort(workspace, criterion, six) == 0
    before, rows = touched(workspace), all_rows(database)
    made: list[Path] = []
    kept = output.replace_with
    monkeypatch.setattr(output, "replace_with", lambda path, lines: (made.append(path), kept(path, lines))[1])
    for _ in range(2):
        assert sort(workspace, criterion, six) == 0
        assert touched(workspace) == before and all_rows(database) == rows and not made
    # What somebody has changed or taken away is made good, and then it is known again.
    for path in (next(workspace.glob("sorted/*/*/metadata.jsonl")), *workspace.glob(f"reports/sort_{criterion}.[cj]*")):
        right = path.read_bytes()
        for spoil in (
            lambda path=path, right=right: path.write_bytes(right[:-9]),
            lambda path=path, right=right: path.write_bytes(right + b"{}"),
            lambda path=path, right=right: path.write_bytes(right.replace(b"landscape", b"LANDSCAPE")),
            path.unlink,
        ):
            spoil()
            assert sort(workspace, criterion, six) == 0 and path.read_bytes() == right
    made.clear()
    assert sort(workspace, criterion, six) == 0 and not made


@pytest.mark.parametrize("other", ["answers", "label", "living", "settings", "version", "copy"])
def test_what_a_report_is_made_of_is_noticed(other: str, workspace: Path, monkeypatch: Any) -> None:
    """A run that sorts nothing writes what others have changed since, and compares while another step is at work."""
    from lib.sort import output

    assert sort(workspace, "orientation") == 0
    data = workspace / "reports/sort_orientation.json"
    before = data.read_bytes()
    database = sqlite3.connect(workspace / "gleaner.db")
    arguments, differs = ["orientation"], True
    with database:
        if other == "answers":
            database.execute("UPDATE images SET title = 'Another title' WHERE key = 'yandex:wide'")
            database.execute(
                "INSERT INTO runs (step, started_at, finished_at, version) VALUES ('ingest', ?, ?, '')",
                (utc_now(), utc_now()),
            )
        elif other == "living":
            database.execute("UPDATE images SET title = 'Another title' WHERE key = 'yandex:wide'")
            database.execute(
                "INSERT INTO runs (step, started_at, version, host, pid) VALUES ('ingest', ?, '', 'elsewhere', 1)",
                (utc_now(),),
            )
        elif other == "label":
            database.execute("UPDATE labels SET reason = 'x', run_id = 0 WHERE label = 'square'")
    database.close()
    if other == "settings":
        arguments += ["--tolerance", "0.03"]
    elif other == "version":
        monkeypatch.setattr(output, "__version__", "another")
        differs = False
    elif other == "copy":  # what is not asked for is not put back, but it is not told of either
        next(workspace.glob("sorted/orientation/square/*.jpg")).unlink()
        arguments += ["--where", "format = png"]
    made: list[Path] = []
    kept = output.replace_with
    monkeypatch.setattr(output, "replace_with", lambda path, lines: (made.append(path), kept(path, lines))[1])
    assert sort(workspace, *arguments) == 0
    if other == "label":  # it is set right, and the report with it
        assert data in made and data.read_bytes() == before
    else:
        assert data in made and (data.read_bytes() != before) == differs
    made.clear()
    assert sort(workspace, *arguments) == 0
    assert bool(made) == (other == "living")


def test_lines_that_are_right_are_not_written_again(tmp_path: Path) -> None:
    """Files of several lengths against one that is the same, shorter, longer or different anywhere."""
    from lib.sort.output import replace_with

    path = tmp_path / "a/lines"
    wanted = [f"line {number} é\n" for number in range(50)]
    assert replace_with(path, wanted) and path.read_text("utf-8") == "".join(wanted)
    for old in (wanted[:20], [*wanted, "more"], ["x", *wanted[1:]], [*wanted[:30], "other", *wanted[31:]], []):
        path.write_text("".join(old), "utf-8")
        assert replace_with(path, iter(wanted)) and path.read_text("utf-8") == "".join(wanted)
    before = touched(tmp_path)
    assert not replace_with(path, iter(wanted)) and touched(tmp_path) == before
    assert replace_with(path, []) and not path.exists() and not replace_with(path, [])


@pytest.mark.parametrize("words", [["--workers", "1"], ["--workers", "2"], ["-n", "--workers", "1"]])
def test_a_codec_that_crashes_costs_its_own_picture(words: list[str], tmp_path: Path) -> None:
    """In a format that is not decoded in the main process, where the crash would end the run and every run after it."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for seed in range(3):
        drawing(seed).save(photos / f"{seed}.png")
    drawing(3).save(photos / "whole.tif")
    Image.new("RGB", (13, 7)).save(photos / "odd.tif")
    hook = tmp_path / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(
        "import os\n"
        "from PIL import ImageFile\n"
        "load = ImageFile.ImageFile.load\n"
        "ImageFile.ImageFile.load = lambda self: os._exit(9) if self.size == (13, 7) else load(self)\n"
    )
    step = [sys.executable, str(ROOT / "7_sort_quality.py"), "quality", str(photos), "--json", *words]
    done = subprocess.run(
        [*step, "--workspace", str(tmp_path / "ws")],
        env={**os.environ, "PYTHONPATH": str(hook)}, capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = flat(done.stdout)
    (odd,) = found["unreadable"]
    assert Path(odd["path"]).name == "odd.tif" and odd["reason"] == "worker_killed"
    assert len(found["pictures"]) == 4
