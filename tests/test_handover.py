"""A dataset that others' tools read: what lists brought comes out again, and each loader finds pictures and words."""

from __future__ import annotations

import io
import json
import tarfile
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from support import as_rows, drawing, load_step

from lib.db import open_database
from lib.db.files import FileRow, add_file
from lib.files.pictures import sha256_of
from lib.sort.export.columns import ListColumns, folder_name
from lib.sort.export.options import Encoding
from lib.sort.export.readable import target_size
from lib.sort.export.run import parts_of

step, ingest = load_step("sort"), load_step("ingest")
COUNT = 12
ROWS = [
    {
        "url": f"https://site{number}.example/{number}.jpg", "caption": f"Picture number {number}",
        "similarity": number / 8, "punsafe": number, "NSFW": ("UNLIKELY", None)[number % 2 == 0],
        "good": number % 2 == 0,
        "sha256": "0" * 64, "tags": ["a", str(number)], "key": f"{number:09}", "status": "success",
    }
    for number in range(COUNT)
]  # fmt: skip


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """Twelve pictures of a list: ten downloaded, of them one broken and one missing; one failed and one opted out."""
    (tmp_path / "list.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    root = tmp_path / "ws"
    assert ingest.main(["--import", str(tmp_path / "list.jsonl"), "--workspace", str(root), "-q"]) == 0
    (root / "images").mkdir()
    with open_database(root / "gleaner.db") as db:
        db.execute("UPDATE downloads SET state = 'failed', reason = 'http_404' WHERE image_id = 11")
        db.execute("UPDATE downloads SET state = 'opted_out', reason = 'opted_out' WHERE image_id = 12")
        for number in range(10):
            path = root / f"images/{number:02}.{'png' if number == 3 else 'jpg'}"
            drawing(number, 160 + 10 * number, 120).save(path)
            sha256 = sha256_of(path)
            add_file(db, FileRow(sha256, f"images/{path.name}", path.stat().st_size, path.suffix[1:], 160, 120))
            db.execute(
                "UPDATE downloads SET state = 'done', sha256 = ?, final_url = ? WHERE image_id = ?",
                (sha256, ROWS[number]["url"], number + 1),
            )
            label = ("high", "high", "low")[number % 3]
            db.execute(
                "INSERT INTO labels (sha256, criterion, label, score, reason, version, run_id, created_at)"
                " VALUES (?, 'quality', ?, 50, '', '', 1, '')",
                (sha256, label),
            )
    (root / "images/00.jpg").write_bytes((root / "images/00.jpg").read_bytes()[:900])
    (root / "images/01.jpg").unlink()
    return root


def export(workspace: Path, *arguments: object) -> Path:
    assert run(workspace, *arguments) == 0
    return workspace / "export"


def run(workspace: Path, *arguments: object) -> int:
    return step.main(["export", *map(str, arguments), "--workspace", str(workspace), "--workers", "1"])


def content(place: Path) -> dict[str, bytes]:
    with tarfile.open(place) as shard:
        return {entry.name: shard.extractfile(entry).read() for entry in shard}  # type: ignore[union-attr]


def lines(place: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for path in sorted(place.rglob("metadata.jsonl")) for line in path.open(encoding="utf-8")]


def test_a_shard_has_words_columns_and_statuses_as_img2dataset_writes_them(workspace: Path) -> None:
    place = export(workspace, "--as", "webdataset", "--split", "1")
    files = content(place / "00000.tar")
    keys = sorted({name.partition(".")[0] for name in files})
    assert len(files) == 3 * 8 and all(len(key) == 9 and key.startswith("00000") for key in keys)
    table = pq.read_table(place / "00000.parquet")
    rows = {row["key"]: row for row in table.to_pylist()}
    kinds = {name: str(table.schema.field(name).type) for name in table.column_names}
    assert [kinds[name] for name in ("width", "height", "original_width", "original_height")] == ["int32"] * 4
    words = ("caption", "url", "key", "status", "error_message", "exif", "sha256", "NSFW", "list_key", "list_status")
    assert {kinds[name] for name in words} == {"string"}
    assert (kinds["similarity"], kinds["punsafe"], kinds["good"]) == ("double", "int64", "bool")
    assert kinds["tags"].startswith("list<")
    for key in keys:
        record = json.loads(files[f"{key}.json"])
        number = record["punsafe"]
        assert record == rows[key] and list(record) == table.column_names
        assert files[f"{key}.txt"].decode() == record["caption"] == f"Picture number {number}"
        assert record["url"] == ROWS[number]["url"] and record["tags"] == ["a", str(number)]
        assert record["NSFW"] == ROWS[number]["NSFW"] and record["good"] is (number % 2 == 0)
        assert record["list_sha256"] == "0" * 64 != record["sha256"] and record["list_key"] == f"{number:09}"
        assert Image.open(io.BytesIO(files[f"{key}.jpg"])).size == (record["width"], record["height"])
    failed = {row["url"]: (row["status"], row["error_message"]) for row in rows.values() if row["status"] != "success"}
    assert failed == {
        ROWS[0]["url"]: ("failed_to_resize", "truncated"),
        ROWS[1]["url"]: ("failed_to_download", "missing_file"),
        ROWS[10]["url"]: ("failed_to_download", "http_404"),
    }
    assert all(row["width"] is None for row in rows.values() if row["status"] != "success")
    counted = json.loads((place / "00000_stats.json").read_text())
    assert {name: type(counted[name]) for name in ("duration", "start_time", "end_time")} == dict.fromkeys(
        ("duration", "start_time", "end_time"), float
    )
    numbers = [counted[name] for name in ("count", "successes", "failed_to_download", "failed_to_resize")]
    assert numbers == [11, 8, 2, 1]
    assert counted["status_dict"] == {"success": 8, "truncated": 1, "missing_file": 1, "http_404": 1}


def test_columns_of_lists_are_exported_in_every_form(workspace: Path) -> None:
    for record in lines(export(workspace)):
        number = record["punsafe"]
        assert record["similarity"] == number / 8 and record["tags"] == ["a", str(number)]
        assert record["good"] is (number % 2 == 0) and record["list_status"] == "success" and "caption" not in record
    place = export(workspace, "--as", "parquet", "--replace", "--split", "1", "--caption", "tags")
    rows = pq.read_table(place / "train-00000.parquet").to_pylist()
    assert all(row["caption"] == f"a, {row['punsafe']}" and row["similarity"] == row["punsafe"] / 8 for row in rows)


@pytest.mark.parametrize(
    ("caption", "expected"),
    [("label", {"high", "low"}), ("NSFW", {"UNLIKELY", ""}), ("nsfw", {"UNLIKELY", ""}), ("engine", {"list"})],
)
def test_the_caption_is_any_column(workspace: Path, caption: str, expected: set[str]) -> None:
    place = export(workspace, "--as", "webdataset", "--split", "1", "--caption", caption, "--label", "quality")
    files = content(place / "00000.tar")
    assert {text.decode() for name, text in files.items() if name.endswith(".txt")} == expected
    labels = {json.loads(text)["label"] for name, text in files.items() if name.endswith(".json")}
    assert labels == {"high", "low"}


def test_failed_downloads_are_told_where_all_pictures_were_asked_for(workspace: Path) -> None:
    place = export(workspace, "--as", "webdataset", "--split", "1", "--where", "quality = high")
    assert all("10.jpg" not in row["url"] for row in pq.read_table(place / "00000.parquet").to_pylist())


def test_sides_have_folders_and_shards_are_numbered_in_each(workspace: Path) -> None:
    place = export(workspace, "--as", "webdataset", "--split", "40,30,30", "--shard-size", 1)
    shards = sorted(path.relative_to(place).as_posix() for path in place.rglob("*.tar"))
    assert "train/00000.tar" in shards and all(name.rpartition("/")[0] in ("train", "val", "test") for name in shards)
    listed = (place / "attribution.csv").read_text("utf-8")
    assert "train/0000000" in listed


def test_a_shard_of_img2dataset_size_has_ten_thousand_rows_at_most(tmp_path: Path) -> None:
    from lib.sort.export.shards import MOST_ROWS, TarShards

    picture = tmp_path / "a.jpg"
    drawing(1, 20, 20).save(picture)
    record = {"sha256": "0" * 64, "format": "jpeg", "image_url": "https://x.example/", "width": 20, "height": 20}
    writer = TarShards(tmp_path, "jpg", 10**9, sides=False)
    writer.add("train", picture, record)
    for _ in range(MOST_ROWS):
        writer.fail("train", record, "http_404", downloaded=False)
    writer.close()
    assert pq.read_table(tmp_path / "00000.parquet").num_rows == MOST_ROWS
    (row,) = pq.read_table(tmp_path / "00001.parquet").to_pylist()
    assert row["key"] == "000010000" and row["status"] == "failed_to_download"


RESIZED = [
    # (own size, mode, only if bigger, expected) at 100 pixels
    ((400, 200), "keep-ratio", False, (200, 100)),
    ((200, 400), "keep-ratio", False, (100, 200)),
    ((400, 200), "center-crop", False, (100, 100)),
    ((400, 200), "border", False, (100, 100)),
    ((40, 20), "keep-ratio", False, (200, 100)),
    ((40, 20), "keep-ratio", True, (40, 20)),
    ((40, 20), "center-crop", True, (40, 20)),
    ((40, 20), "border", True, (40, 20)),
    ((400, 90), "keep-ratio", True, (400, 90)),
    ((333, 101), "keep-ratio", False, (330, 100)),
]


@pytest.mark.parametrize(("size", "mode", "only", "expected"), RESIZED)
def test_sizes_are_those_of_img2dataset(
    size: tuple[int, int], mode: str, only: bool, expected: tuple[int, int]
) -> None:
    assert target_size(Encoding("jpeg", 100, mode, only), *size) == expected


@pytest.mark.parametrize("form", ["jpg", "png", "webp"])
@pytest.mark.parametrize("mode", ["keep-ratio", "center-crop", "border"])
def test_pictures_are_resized_upright_in_their_colours(tmp_path: Path, form: str, mode: str) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    halves = Image.new("RGB", (240, 120), (220, 30, 30))
    halves.paste((30, 30, 220), (120, 0, 240, 120))
    turned = Image.Exif()
    turned[0x0112] = 6  # to be turned by a quarter: red comes to stand above
    halves.save(folder / "turned.jpg", exif=turned, quality=95)
    clear = halves.convert("RGBA")
    clear.putalpha(Image.new("L", halves.size, 255))
    clear.paste((0, 0, 0, 0), (0, 0, 120, 120))
    clear.save(folder / "clear.png")
    frames = [halves, Image.new("RGB", halves.size, (0, 200, 0))]
    frames[0].save(folder / "moving.gif", save_all=True, append_images=frames[1:], duration=90)
    Image.new("CMYK", (200, 100), (0, 255, 255, 0)).save(folder / "print.jpg", quality=95)
    arguments = ("--resize", 64, "--resize-mode", mode, "--encode-format", form, "--split", "1")
    place = export(tmp_path / "ws", folder, *arguments)
    found = {record["source_name"]: (place / "train" / record["file_name"], record) for record in lines(place)}
    assert len(found) == 4
    square = mode != "keep-ratio"
    for name, (path, record) in found.items():
        assert path.suffix == f".{form}"
        with Image.open(path) as image:
            expected = (64, 64) if square else (64, 128) if name == "turned.jpg" else (128, 64)
            assert image.size == (record["width"], record["height"]) == expected
            assert "icc_profile" not in image.info and record["original_height"] in (100, 120, 240)
            pixels = np.asarray(image.convert("RGBA")).astype(int)
        if name == "turned.jpg":
            above, below = pixels[20, 32], pixels[-20, 32]
            assert above[0] > 180 > 90 > above[2] and below[2] > 180 > 90 > below[0]
        if name == "print.jpg":
            assert pixels[32, 32, 0] > 180 and pixels[32, 32, 1] < 90
        if name == "moving.gif":
            assert record["original_frames"] == 2 and pixels[32, 20, 1] < 120
        if name == "clear.png" and form != "jpg":
            middle = pixels[32, 8 if mode != "border" else 10]
            assert middle[3] == 0 and pixels[32, -10, 3] == 255
        if mode == "border" and name != "turned.jpg":
            assert (pixels[2, 32] == 255).all() and (pixels[-3, 32] == 255).all()
    card = (place / "README.md").read_text("utf-8")
    assert "Resized to 64 pixels" in card and "of 1 the first frame alone" in card


@pytest.mark.parametrize("resize", [(), ("--resize", 32)])
def test_the_tags_of_the_downloaded_file_are_told_but_for_its_place(tmp_path: Path, resize: tuple[Any, ...]) -> None:
    (tmp_path / "mine").mkdir()
    tags = Image.Exif()
    tags[0x010F] = "Maker"
    tags.get_ifd(0x8825)[1] = "N"
    tags.get_ifd(0x8825)[2] = (47.0, 22.0, 30.0)
    drawing(1, 80, 60).save(tmp_path / "mine/a.jpg", exif=tags)
    place = export(tmp_path / "ws", tmp_path / "mine", "--as", "webdataset", "--split", "1", *resize)
    (row,) = pq.read_table(place / "00000.parquet").to_pylist()
    assert json.loads(row["exif"]) == {"Image Make": "Maker"}


def test_a_strip_that_would_grow_without_end_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    Image.new("RGB", (60_000, 8), "red").save(tmp_path / "mine/strip.png")
    drawing(1, 200, 100).save(tmp_path / "mine/a.jpg")
    place = export(tmp_path / "ws", tmp_path / "mine", "--resize", 256)
    assert len(lines(place)) == 1 and "1 too_large" in (place / "README.md").read_text("utf-8").replace("\\_", "_")


def test_take_is_an_exact_number_and_the_same_one_each_time(workspace: Path, capsys: Any) -> None:
    first = {record["sha256"] for record in lines(export(workspace, "--take", 5))}
    again = {record["sha256"] for record in lines(export(workspace, "--take", 5, "--as", "imagefolder"))}
    other = {record["sha256"] for record in lines(export(workspace, "--take", 5, "--seed", 1, "--replace"))}
    assert len(first) == len(other) == 5 and first == again and first != other
    capsys.readouterr()
    assert len(lines(export(workspace, "--take", 50, "--replace"))) == 8
    told = capsys.readouterr().err
    assert "--take 50: there are 8 pictures only" in told
    assert "there are 8 pictures only" in (workspace / "export/README.md").read_text("utf-8")


def test_take_is_balanced_over_labels_on_wish(workspace: Path, capsys: Any) -> None:
    place = export(workspace, "--take", 4, "--balance", "--label", "quality")
    assert Counter(record["label"] for record in lines(place)) == {"high": 2, "low": 2}
    capsys.readouterr()
    place = export(workspace, "--take", 7, "--balance", "--label", "quality", "--replace")
    assert Counter(record["label"] for record in lines(place)) == {"high": 4, "low": 3}
    assert Counter(as_rows(workspace / "gleaner.db", "SELECT label FROM labels WHERE criterion = 'quality'"))
    place = export(workspace, "--take", 8, "--balance", "--label", "quality", "--replace")
    assert Counter(record["label"] for record in lines(place)) == {"high": 5, "low": 3}
    assert "fewer than 4 pictures have the label low (3)" in capsys.readouterr().err


def test_parts_make_up_for_each_other() -> None:
    assert parts_of({"a": 10, "b": 10, "c": 10}, 10) == {"a": 3, "b": 3, "c": 4}
    assert parts_of({"a": 1, "b": 2, "c": 100}, 50) == {"a": 1, "b": 2, "c": 47}
    assert parts_of({"a": 1, "b": 2}, 50) == {"a": 1, "b": 2} and parts_of({}, 5) == {}


def test_a_column_has_one_type() -> None:
    def typed(*values: Any) -> tuple[str, list[Any]]:
        columns = ListColumns()
        for value in values:
            columns.note({"x": value})
        columns.scan(None, iter(()))  # type: ignore[arg-type]
        return columns.kinds["x"], [columns.of({"x": value})["x"] for value in values]

    assert typed(1, 2.5, None, "") == ("float64", [1.0, 2.5, None, None])
    assert typed(0.5, "0.250") == ("float64", [0.5, 0.25])
    assert typed(1984, "Lolita") == ("string", ["1984", "Lolita"])
    assert typed("12", "13") == ("string", ["12", "13"])
    assert typed(1, True) == ("string", ["1", "true"])
    assert typed([1], [2.5], []) == ("list:float64", [[1.0], [2.5], []])
    assert typed([1], ["a"]) == ("json", ["[1]", '["a"]'])
    assert typed({"a": None}, None) == ("json", ['{"a": null}', None])
    assert folder_name("a/b: c.") == "a_b_ c" and folder_name("con") == "con_" and folder_name("...") == "unlabelled"


def test_an_imagefolder_loads_with_its_label_and_its_sides(workspace: Path, tmp_path: Path) -> None:
    import datasets

    place = export(workspace, "--label", "quality", "--split", "60,20,20")
    cache = str(tmp_path / "cache")
    loaded = datasets.load_dataset("imagefolder", data_dir=str(place), cache_dir=cache)
    assert set(loaded) <= {"train", "validation", "test"} and sum(map(len, loaded.values())) == 8
    for side in loaded.values():
        assert side.features["label"].dtype == "string" and set(side["label"]) <= {"high", "low"}
        assert side.features["tags"].feature.dtype == "string" and side[0]["image"].size[0] >= 160
    by_place = datasets.load_dataset(str(place), cache_dir=cache)
    for name, side in by_place.items():
        assert side["label"] == loaded[name]["label"] and side["similarity"] == loaded[name]["similarity"]
    assert by_place["train"].class_encode_column("label").features["label"].names == ["high", "low"]


def test_a_column_that_one_side_says_nothing_of_loads_all_the_same(tmp_path: Path) -> None:
    """`datasets` takes types from the first rows of each side, and nothing has none."""
    import datasets

    root, mine = tmp_path / "ws", tmp_path / "mine"
    mine.mkdir()
    for number in range(12):
        drawing(number, 80, 60).save(mine / f"{number}.png")
    place = export(root, mine, "--split", "50,50")
    (one,) = [record["sha256"] for record in lines(place / "train")][:1]
    with open_database(root / "gleaner.db") as db:
        db.execute(
            "INSERT INTO labels (sha256, criterion, label, score, reason, version, run_id, created_at)"
            " VALUES (?, 'quality', 'high', 50.5, '', '', 1, '')",
            (one,),
        )
    place = export(root, mine, "--split", "50,50", "--replace")
    loaded = datasets.load_dataset("imagefolder", data_dir=str(place), cache_dir=str(tmp_path / "cache"))
    assert sum(map(len, loaded.values())) == 12 and set(loaded["train"]["score_quality"]) == {"", "50.5"}


def test_parquet_loads_with_datasets_and_pandas(workspace: Path, tmp_path: Path) -> None:
    import datasets
    import pandas

    place = export(workspace, "--as", "parquet", "--label", "quality", "--split", "60,20,20")
    loaded = datasets.load_dataset(str(place), cache_dir=str(tmp_path / "cache"))
    side = loaded["train"]
    assert side.features["label"].names == ["high", "low"] and side[0]["image"].size[1] == 120
    named = datasets.load_dataset("parquet", data_dir=str(place), cache_dir=str(tmp_path / "cache"))
    assert sum(map(len, named.values())) == 8
    frame = pandas.read_parquet(place / "train-00000.parquet")
    assert len(frame) == len(side) and frame["similarity"].dtype == "float64" and frame["good"].dtype == "bool"


def test_shards_load_with_datasets_webdataset_and_pandas(workspace: Path, tmp_path: Path) -> None:
    import datasets
    import pandas
    import webdataset

    place = export(workspace, "--as", "webdataset", "--split", "60,20,20")
    loaded = datasets.load_dataset(str(place), cache_dir=str(tmp_path / "cache"))
    assert sum(map(len, loaded.values())) == 8
    for row in loaded["train"]:
        assert row["txt"] == row["json"]["caption"] and row["jpg"].size == (row["json"]["width"], row["json"]["height"])
    files = {"train": str(place / "train/*.tar")}
    named = datasets.load_dataset("webdataset", data_files=files, cache_dir=str(tmp_path / "cache"))
    assert len(named["train"]) == len(loaded["train"])
    shards = [str(path) for path in sorted(place.rglob("*.tar"))]
    samples = list(webdataset.WebDataset(shards, shardshuffle=False).decode("pil"))
    assert len(samples) == 8 and all(sample["txt"].startswith("Picture number") for sample in samples)
    assert all(sample["jpg"].size[0] == sample["json"]["width"] for sample in samples)
    frame = pandas.concat(pandas.read_parquet(path) for path in sorted(place.rglob("*.parquet")))
    assert Counter(frame["status"]) == {"success": 8, "failed_to_download": 2, "failed_to_resize": 1}


def test_open_clip_finds_picture_and_text_in_each_sample(workspace: Path) -> None:
    from open_clip_train.data import get_wds_dataset

    place = export(workspace, "--as", "webdataset", "--split", "1", "--resize", 64, "--resize-mode", "center-crop")
    args = SimpleNamespace(
        train_data=None, val_data=str(place / "00000.tar"), train_num_samples=None, val_num_samples=8, batch_size=3,
        workers=0, world_size=1, seed=0, dataset_resampled=False, train_data_upsampling_factors=None,
    )  # fmt: skip
    found = get_wds_dataset(args, lambda image: np.asarray(image.convert("RGB")), False, tokenizer=lambda text: [text])
    batches = list(found.dataloader)
    assert sum(len(images) for images, _ in batches) == 8 and batches[0][0].shape[1:] == (64, 64, 3)
    assert {text for _, texts in batches for text in texts} == {f"Picture number {number}" for number in range(2, 10)}


def test_a_picture_leaves_its_shard_when_its_owner_opts_out(workspace: Path) -> None:
    place = export(workspace, "--as", "webdataset", "--split", "1", "--resize", 64)
    with open_database(workspace / "gleaner.db") as db:
        (sha256,) = db.column("SELECT sha256 FROM downloads WHERE image_id = 5")
        db.execute("UPDATE downloads SET state = 'opted_out', sha256 = NULL WHERE image_id = 5")
        db.execute("INSERT INTO superseded (image_id, sha256) VALUES (5, ?)", (sha256,))
    assert run(workspace, "--drop-opted-out") == 0
    rows = pq.read_table(place / "00000.parquet").to_pylist()
    assert len(content(place / "00000.tar")) == 3 * 7 and all(row["punsafe"] != 4 for row in rows)
    counted = json.loads((place / "00000_stats.json").read_text())
    assert (counted["count"], counted["successes"], counted["status_dict"]["success"]) == (10, 7, 7)
    assert len((place / "attribution.csv").read_text("utf-8").splitlines()) == 8


@pytest.mark.parametrize("form", ["parquet", "webdataset", "imagefolder"])
def test_datasets_loads_what_lies_there_now(form: str, workspace: Path, tmp_path: Path) -> None:
    """`datasets` keeps what it has prepared: another export in the same place, under the same name, is another one."""
    import datasets

    loaded = []
    for count in (6, 3):
        place = export(workspace, "--as", form, "--split", 1, "--take", count, "--replace")
        loaded.append(datasets.load_dataset(str(place), cache_dir=str(tmp_path / "cache"))["train"].num_rows)
    assert loaded == [6, 3]
