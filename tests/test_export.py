"""Step 7's export: the same pictures in three forms, split stably, with a card; repeatable, previewable, undoable."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import signal
import subprocess
import sys
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support import PATIENCE, ROOT, all_rows, as_rows, drawing, dump, load_step, snapshot, touched

from lib.db import open_database
from lib.db.files import FileRow, add_file
from lib.files.pictures import sha256_of
from lib.sort.export import building as settle
from lib.sort.export.options import parse_shares
from lib.sort.export.run import Groups, Sides

step = load_step("sort")
COUNT = 40


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """Forty downloaded pictures; every fourth repeats the one before it by its hash, two by step 6's finding."""
    root = tmp_path / "ws"
    (root / "images").mkdir(parents=True)
    with open_database(root / "gleaner.db") as db:
        for number in range(COUNT):
            add_picture(db, root, number)
        contents = [row["sha256"] for row in db.rows("SELECT sha256 FROM files ORDER BY path")]
        for number, sha256 in enumerate(contents):
            value = (number - (number % 4 == 3)).to_bytes(8, "big")
            db.execute(
                "INSERT INTO hashes (sha256, kind, bits, value, algorithm) VALUES (?, 'phash', 64, ?, '')",
                (sha256, value),
            )
        db.execute("INSERT INTO runs (id, step, started_at, version) VALUES (90, 'dedup', '', '')")
        db.execute(
            "INSERT INTO duplicates (run_id, path, sha256, group_no, keeper_path, keeper_sha256, kind, distance,"
            " decision) VALUES (90, 'x', ?, 1, 'y', ?, 'same', 0, 'review')",
            (contents[0], contents[1]),
        )
    return root


def add_picture(db: Any, root: Path, number: int) -> None:
    path = root / f"images/{number:02}.{'png' if number % 2 else 'jpg'}"
    drawing(number, 60 + number, 50).save(path)
    sha256, license_ = sha256_of(path), ("CC BY 4.0", "")[number % 2]
    add_file(db, FileRow(sha256, f"images/{path.name}", path.stat().st_size, path.suffix[1:], 60 + number, 50))
    db.execute(
        "INSERT INTO images (key, engine, page_url, title, license, creator, first_seen_at)"
        " VALUES (?, 'bing', ?, ?, ?, 'Ann', '')",
        (f"b:{number}", f"https://site{number % 3}.example/p|{number}", f"=HYPER|LINK {number}", license_),
    )
    db.execute(
        "INSERT INTO downloads (image_id, state, sha256, final_url, updated_at)"
        " VALUES (last_insert_rowid(), 'done', ?, 'https://x/', '')",
        (sha256,),
    )


def sort(workspace: Path, *arguments: object) -> int:
    return step.main([*map(str, arguments), "--workspace", str(workspace), "--workers", "1", "-q"])


def split_of(workspace: Path) -> dict[str, str]:
    return dict(as_rows(workspace / "gleaner.db", "SELECT sha256, label FROM labels WHERE criterion = 'split'"))


def metadata(folder: Path) -> list[dict[str, Any]]:
    return [
        json.loads(line) for path in folder.rglob("metadata.jsonl") for line in path.read_text("utf-8").splitlines()
    ]


def test_an_imagefolder_holds_the_pictures_with_everything_known(workspace: Path) -> None:
    assert sort(workspace, "orientation") == 0
    assert sort(workspace, "export", "--split", "50,25,25") == 0
    place = workspace / "export"
    lines = metadata(place)
    assert len(lines) == COUNT
    for split in ("train", "val", "test"):
        for record in metadata(place / split):
            assert sha256_of(place / split / record["file_name"]) == record["sha256"]
            assert record["label_orientation"] in ("landscape", "portrait", "square")
            assert record["creator"] == "Ann" and record["width"] >= 60
    assert len({tuple(record) for record in lines}) == 1  # the same columns everywhere
    card = (place / "README.md").read_text("utf-8")
    assert card.startswith("---\npretty_name: ") and f"{COUNT} pictures" in card
    assert "| CC-BY-4.0 | 20 |" in card and "| unknown | 20 |" in card and "sort orientation" in card
    rows = list(csv.DictReader((place / "attribution.csv").open(encoding="utf-8")))
    assert len(rows) == COUNT and all(row["title"].startswith("'=HYPER") for row in rows)


def test_tar_shards_hold_picture_caption_and_record_of_each_key(workspace: Path) -> None:
    assert sort(workspace, "export", "--as", "webdataset", "--to", workspace / "wds") == 0
    seen = []
    for path in sorted((workspace / "wds").glob("*/*.tar")):
        assert path.name == "00000.tar"
        with tarfile.open(path) as shard:
            names = shard.getnames()
            for number, (picture, words, text) in enumerate(zip(names[::3], names[1::3], names[2::3], strict=True)):
                key = f"00000{number:04}"
                assert (picture, words, text) == (f"{key}.jpg", f"{key}.txt", f"{key}.json")
                content = shard.extractfile(picture)
                record = json.load(shard.extractfile(text))  # type: ignore[arg-type]
                assert content and np.asarray(Image.open(io.BytesIO(content.read()))).shape[1] == record["width"]
                # One extension, as loaders want it; half of these are PNG inside.
                assert record["key"] == key and record["status"] == "success" and record["error_message"] is None
                assert shard.extractfile(words).read().decode() == record["caption"] == record["title"]
                seen.append(record["sha256"])
    assert len(seen) == len(set(seen)) == COUNT


@pytest.mark.parametrize("pictures", ["embed", "reference"])
def test_parquet_has_pictures_inside_or_by_path(pictures: str, workspace: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    assert sort(workspace, "export", "--as", "parquet", "--parquet-pictures", pictures) == 0
    tables = [parquet.read_table(path) for path in sorted((workspace / "export").glob("*.parquet"))]
    assert sum(table.num_rows for table in tables) == COUNT
    assert all(b'"image": {"_type": "Image"}' in table.schema.metadata[b"huggingface"] for table in tables)
    for row in tables[0].to_pylist():
        source = io.BytesIO(row["image"]["bytes"]) if pictures == "embed" else row["image"]["path"]
        assert Image.open(source).size == (row["width"], row["height"])


def test_shards_are_cut_by_size(workspace: Path) -> None:
    from lib.sort.export.shards import TarShards

    writer = TarShards(workspace, "jpg", 20_000, sides=False)
    for number, path in enumerate(sorted((workspace / "images").iterdir())):
        record = {"sha256": f"{number:064}", "format": "jpeg", "image_url": "", "width": 1, "height": 1}
        writer.add("train", path, record)
    writer.close()
    shards = sorted(workspace.glob("*.tar"))
    assert len(shards) > 3 and [path.name for path in shards] == [f"{n:05}.tar" for n in range(len(shards))]
    names = []
    for path in shards:
        with tarfile.open(path) as shard:
            names += shard.getnames()
        counts = json.loads(path.with_name(f"{path.stem}_stats.json").read_text())
        assert counts["count"] == counts["successes"] == counts["status_dict"]["success"]
    assert len(set(names)) == 3 * COUNT


def test_repeats_stay_on_one_side_and_sides_stay_when_pictures_come(workspace: Path) -> None:
    assert sort(workspace, "export", "--split", "40,30,30") == 0
    before = split_of(workspace)
    hashes = as_rows(workspace / "gleaner.db", "SELECT hex(value), group_concat(sha256) FROM hashes GROUP BY 1")
    assert any("," in contents for _, contents in hashes)
    assert all(len({before[content] for content in contents.split(",")}) == 1 for _, contents in hashes)
    first, second = (
        row[0] for row in as_rows(workspace / "gleaner.db", "SELECT sha256 FROM files ORDER BY path LIMIT 2")
    )
    assert before[first] == before[second]
    assert len(Counter(before.values())) == 3
    with open_database(workspace / "gleaner.db") as db:
        for number in range(COUNT, COUNT + 10):
            add_picture(db, workspace, number)
    assert sort(workspace, "export", "--split", "40,30,30", "--replace") == 0
    after = split_of(workspace)
    assert len(after) == COUNT + 10 and {content: after[content] for content in before} == before


def test_pictures_that_were_never_compared_are_told_of(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    card, words = workspace / "export/README.md", "had not been compared with the others"
    assert sort(workspace, "export") == 0
    assert words not in card.read_text("utf-8") and not capsys.readouterr().err
    with open_database(workspace / "gleaner.db") as db:
        hashes = db.rows("SELECT * FROM hashes LIMIT 3")
        db.execute("DELETE FROM hashes WHERE sha256 IN (SELECT sha256 FROM hashes LIMIT 3)")
    assert sort(workspace, "export", "--replace") == 0
    assert f"3 pictures {words}" in card.read_text("utf-8")
    assert "step 6 has not looked at 3 of the pictures" in capsys.readouterr().err
    with open_database(workspace / "gleaner.db") as db:
        db.executemany(
            "INSERT INTO hashes (sha256, kind, bits, value, algorithm) VALUES (?, ?, ?, ?, ?)",
            [(row["sha256"], row["kind"], row["bits"], row["value"], row["algorithm"]) for row in hashes],
        )
    assert sort(workspace, "export", "--replace") == 0  # the same pictures, and now they have been
    assert words not in card.read_text("utf-8")


def test_a_second_export_changes_nothing_and_another_takes_no_others_place(workspace: Path, capsys: Any) -> None:
    assert sort(workspace, "export") == 0
    files, rows = without_database(workspace), dump(workspace / "gleaner.db")
    assert sort(workspace, "export") == 0
    assert without_database(workspace) == files and dump(workspace / "gleaner.db") == rows
    assert sort(workspace, "export", "--where", "format = png") == 2
    assert "holds something else; give another --to, or --replace" in capsys.readouterr().err
    assert sort(workspace, "export", "--where", "format = png", "--replace") == 0
    assert len(metadata(workspace / "export")) == COUNT // 2
    assert sort(workspace, "--undo", "last") == 0
    back = {name: digest for name, digest in without_database(workspace).items() if name.startswith("export/")}
    assert {n: d for n, d in back.items() if d} == {n: d for n, d in files.items() if n.startswith("export/") and d}


@pytest.mark.parametrize(
    "form",
    ["imagefolder", "imagefolder --label orientation", "webdataset", "parquet", "parquet --parquet-pictures reference"],
)
def test_a_second_export_writes_nothing_in_any_form(form: str, workspace: Path) -> None:
    """No file is touched, none made for a moment, no row written but the run's own."""
    assert sort(workspace, "orientation") == 0
    arguments = ["export", "--as", *form.split()]
    assert sort(workspace, *arguments) == 0
    before, rows = touched(workspace), all_rows(workspace / "gleaner.db")
    assert sort(workspace, *arguments) == 0
    assert touched(workspace) == before and all_rows(workspace / "gleaner.db") == rows


def without_database(workspace: Path) -> dict[str, str]:
    return {name: digest for name, digest in snapshot(workspace).items() if not name.startswith("gleaner.db")}


def test_a_dry_run_writes_nothing_and_undo_takes_all_back(workspace: Path) -> None:
    before = snapshot(workspace)
    assert sort(workspace, "export", "-n") == 0
    assert snapshot(workspace) == before
    assert sort(workspace, "orientation", "--mode", "symlink") == 0
    before = snapshot(workspace)
    assert sort(workspace, "export", "--mode", "hardlink", "--label", "orientation") == 0
    assert {path.name for path in (workspace / "export/train").iterdir()} >= {"landscape", "metadata.jsonl"}
    assert sort(workspace, "--undo", "last") == 0
    assert set(without_database(workspace)) == {name for name in before if not name.startswith("gleaner.db")}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--mode", "move"], "never moves them"),
        (["--split", "a,b"], "is no list of shares"),
        (["--balance", "--take", "3"], "among the labels of --label"),
        (["--resize-mode", "border"], "belongs to --resize"),
        (["--resize", "64", "--convert", "png"], "--encode-format in place of --convert"),
        (["--resize", "64", "--encode-format", "png", "--encode-quality", "90"], "from 0 to 9"),
        (["--public"], "belongs to --push"),
        (["--push", "nobody"], "write USER/NAME"),
        (["--caption", "colour"], "no picture has such a column"),
        (["--label", "quality"], "nothing is labelled by 'quality' yet"),
        (["--where", "width > 5000"], "no picture fulfils --where"),
    ],
)
def test_what_cannot_be_exported_is_said(arguments: list[str], sentence: str, workspace: Path, capsys: Any) -> None:
    assert sort(workspace, "export", *arguments) == 2
    assert sentence in capsys.readouterr().err
    assert not (workspace / "export").exists()


def test_a_folder_of_ones_own_is_exported(workspace: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    for number in range(4):
        drawing(number + 90, 80, 60).save(folder / f"{number}.png")
    (folder / "broken.png").write_bytes(b"no picture")
    assert sort(tmp_path / "other", "export", folder, "--to", tmp_path / "set") == 0
    assert len(metadata(tmp_path / "set")) == 4


def test_shares_are_kept_and_a_side_depends_on_its_content_alone() -> None:
    shares = parse_shares("80,10,10")
    sides = Counter(shares.side(f"content {number}") for number in range(20_000))
    assert abs(sides["train"] / 20_000 - 0.8) < 0.01 and abs(sides["val"] / 20_000 - 0.1) < 0.01
    assert parse_shares("1").side("x") == "train" and parse_shares("0,0,3").side("x") == "test"


def test_groups_join_through_chains() -> None:
    groups = Groups()
    for one, other in (("d", "c"), ("b", "a"), ("c", "b"), ("x", "y")):
        groups.join(one, other)
    assert {groups.of(name) for name in "abcd"} == {"a"} and groups.of("y") == "x" and groups.of("z") == "z"
    sides = Sides(parse_shares("50,50"), groups)
    sides.remember([("d", "val")])
    assert {sides.side(name) for name in "abcd"} == {"val"}


def test_undo_outside_the_workspace_leaves_no_empty_folder_and_a_dry_run_counts_alike(
    workspace: Path, tmp_path: Path, capsys: Any
) -> None:
    place = tmp_path / "sets/birds"
    assert sort(workspace, "orientation") == 0
    assert sort(workspace, "export", "--to", place) == 0
    before = snapshot(place)
    assert sort(workspace, "export", "--to", place, "--label", "orientation", "--replace") == 0
    capsys.readouterr()
    assert sort(workspace, "--undo", "last", "--dry-run", "--json") == 0
    would = json.loads(capsys.readouterr().out)["counts"]
    assert sort(workspace, "--undo", "last", "--json") == 0
    assert json.loads(capsys.readouterr().out)["counts"] == would == {"undone": would["undone"]}
    assert snapshot(place) == before
    assert sort(workspace, "--undo", "last") == 0
    assert not place.exists()


def test_a_kill_while_an_old_dataset_is_put_away_loses_no_trace(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process dies in the middle of the moves; the next run settles them and undo brings every file back."""
    assert sort(workspace, "export") == 0
    before = snapshot(workspace / "export")
    move, moved = settle.move_without_overwriting, []

    def dies(source: Path, target: Path) -> None:
        if len(moved) == 10:
            raise KeyboardInterrupt
        moved.append(move(source, target))

    monkeypatch.setattr(settle, "move_without_overwriting", dies)
    assert sort(workspace, "export", "--where", "format = png", "--replace") == 130
    monkeypatch.undo()
    killed = as_rows(workspace / "gleaner.db", "SELECT max(id) FROM runs")[0][0]
    assert len(snapshot(workspace / "export")) < len(before)
    assert sort(workspace, "--undo", killed) == 0
    assert snapshot(workspace / "export") == before


def test_what_the_technical_score_found_broken_is_not_exported(tmp_path: Path, capsys: Any) -> None:
    folder, workspace = tmp_path / "mine", tmp_path / "ws"
    folder.mkdir()
    for number in range(4):
        drawing(number + 90, 200, 160).save(folder / f"{number}.jpg")
    (folder / "half.jpg").write_bytes((folder / "0.jpg").read_bytes()[:2000])  # its header is whole
    assert sort(workspace, "quality", folder) == 0
    capsys.readouterr()
    assert sort(workspace, "export", folder, "--json") == 0
    counts = json.loads(capsys.readouterr().out)["counts"]
    assert (counts["pictures"], counts["unreadable"]) == (4, 1)
    card = (workspace / "export/README.md").read_text("utf-8")
    assert "sort quality technical: 5 pictures" in card and "\\['" not in card


KILLED_AFTER = {
    "the folder was told of": ("lib.sort.export.building.Path.mkdir", 0),
    "a picture was written": ("lib.sort.export.formats._put", 7),
    "the plan began to be written": ("lib.sort.export.building.files_below", 0),
    "the plan was written": ("lib.sort.export.run.commit", 0),
    "all is committed": ("lib.sort.export.run.finish", 0),
    "some files were put away": ("lib.sort.export.building.move_without_overwriting", 5),
    "all files were put away": ("lib.sort.export.building.os.rename", 0),
    "the dataset is in its place": ("lib.sort.export.building._record", 0),
}
DYING = """
import importlib, json, os, sys
sys.path[:0] = [{root!r}, {tests!r}]
from support import load_step
step = load_step("sort")
import lib.sort.export.run, lib.sort.export.formats, lib.sort.export.building
owner, name = {name!r}.rsplit(".", 1)
place = importlib.import_module(owner) if owner.count(".") == 2 else eval(owner)
real, calls = getattr(place, name), []
def dies(*given, **named):
    if {path!r} in str(given):
        if len(calls) == {after}:
            os.kill(os.getpid(), 9)
        calls.append(1)
    return real(*given, **named)
setattr(place, name, dies)
step.main(json.loads(sys.argv[1]))
"""


def kill_export(workspace: Path, moment: str, *arguments: str) -> None:
    """Runs an export that is killed at that moment."""
    name, after = KILLED_AFTER[moment]
    path = ".part" if name.endswith("mkdir") else ""
    code = DYING.format(root=str(ROOT), tests=str(ROOT / "tests"), name=name, after=after, path=path)
    words = ["export", *arguments, "--workspace", str(workspace), "--workers", "1", "-q"]
    done = subprocess.run([sys.executable, "-c", code, json.dumps(words)], cwd=ROOT, timeout=PATIENCE, check=False)
    assert done.returncode == -signal.SIGKILL


def left_of(workspace: Path) -> dict[str, str]:
    """What lies in the workspace, quarantined files by their names only: runs have numbers, and the front page has
    all of them."""
    found = without_database(workspace)
    return {re.sub(r"^quarantine/\d+", "quarantine", name): digest for name, digest in found.items()
            if not name.endswith((".lock", "reports/index.html"))}  # fmt: skip


def done_by(workspace: Path) -> list[tuple[str, str]]:
    """What the journal says was done, without the runs' numbers."""
    rows = as_rows(workspace / "gleaner.db", "SELECT kind, target FROM actions WHERE state = 'done'")
    return sorted((kind, re.sub(r"^quarantine/\d+", "quarantine", target)) for kind, target in rows)


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX here")
@pytest.mark.parametrize("moment", KILLED_AFTER)
def test_a_killed_export_is_finished_or_cleared_by_the_next_one(moment: str, workspace: Path, tmp_path: Path) -> None:
    assert sort(workspace, "export", "--as", "webdataset") == 0
    mine = workspace / "export" / "mine" / "notes.txt"
    mine.parent.mkdir()
    mine.write_text("a person's")
    before = left_of(workspace)
    (workspace / "export.part").mkdir()  # a person's too, for all that anybody knows
    (workspace / "export.part" / "notes.txt").write_text("a person's")
    theirs = {"export.part/", "export.part/notes.txt"}
    shutil.copytree(workspace, tmp_path / "calm")
    assert sort(tmp_path / "calm", "export", "--replace") == 0
    end = left_of(tmp_path / "calm")
    kill_export(workspace, moment, "--replace")
    shutil.copytree(workspace, tmp_path / "back")
    assert sort(workspace, "export", "--replace") == 0
    assert left_of(workspace) == end
    assert dump(workspace / "gleaner.db", without=("runs", "actions")) == dump(
        tmp_path / "calm" / "gleaner.db", without=("runs", "actions")
    )
    assert done_by(workspace) == done_by(tmp_path / "calm")
    assert sort(workspace, "--undo", "last") == 0
    assert {name: it for name, it in left_of(workspace).items() if name not in theirs} == before
    killed = as_rows(tmp_path / "back" / "gleaner.db", "SELECT max(id) FROM runs")[0][0]
    assert sort(tmp_path / "back", "--undo", killed) == 0
    assert {name: it for name, it in left_of(tmp_path / "back").items() if name not in theirs} == before


def test_a_file_that_came_meanwhile_stays_and_stops_no_later_run(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    assert sort(workspace, "export") == 0
    before, commit = left_of(workspace), settle.commit

    def comes(*given: Any) -> None:
        commit(*given)
        (workspace / "export" / "new.txt").write_text("a person's")

    monkeypatch.setattr("lib.sort.export.run.commit", comes)
    assert sort(workspace, "export", "--as", "webdataset", "--replace") == 1
    assert "holds files that came while the dataset was written" in capsys.readouterr().err
    monkeypatch.undo()
    assert sort(workspace, "orientation", "-n") == 0
    assert sort(workspace, "--undo", "last") == 0  # gives it up, and takes back what was put away
    assert (workspace / "export" / "new.txt").read_text() == "a person's"
    (workspace / "export" / "new.txt").unlink()
    assert left_of(workspace) == before
