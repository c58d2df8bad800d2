"""Lists in, several at once, with all their columns: what has no place of its own in a record is kept with its type."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support import as_rows, drawing, load_step
from yandex_answers import entity, xhr

from lib.db.images import merged_extra

step = load_step("ingest")


def run(workspace: Path, *arguments: object) -> int:
    return step.main([*map(str, arguments), "--workspace", str(workspace)])


def counts(workspace: Path, capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    capsys.readouterr()
    assert run(workspace, "--json", *arguments) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)["counts"]
    return found


def kept(workspace: Path) -> dict[str, Any]:
    sql = "SELECT url, extra FROM images JOIN image_variants ON image_id = images.id WHERE kind = 'original'"
    rows = as_rows(workspace / "gleaner.db", sql)
    return {url: json.loads(extra).get("columns", {}) for url, extra in rows}


def address(number: int) -> str:
    return f"https://site{number}.example/{number}.jpg"


def test_a_folder_of_lists_comes_in_with_every_format(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "lists"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.csv").write_text(f"url,caption\n{address(1)},one\n")
    (folder / "b.tsv").write_text(f"url\tcaption\n{address(2)}\ttwo\n")
    (folder / "c.jsonl").write_text(json.dumps({"url": address(3)}) + "\n")
    (folder / "d.txt").write_text(address(4) + "\n")
    pq.write_table(pa.table({"url": [address(5)]}), folder / "deep/e.parquet")
    (folder / "README.txt").write_text("These are lists.\n")
    (folder / "00000_stats.json").write_text('{"count": 1}')
    found = counts(tmp_path / "w", capsys, "--import", folder)
    assert found["new_pictures"] == 5 and found["failed"] == 0 and found["left_out_not_a_list"] == 1
    assert set(kept(tmp_path / "w")) == {address(number) for number in range(1, 6)}
    names = as_rows(tmp_path / "w/gleaner.db", "SELECT text FROM queries ORDER BY 1")
    assert [name for (name,) in names] == ["a.csv", "b.tsv", "c.jsonl", "d.txt", "e.parquet"]


def test_files_folders_and_patterns_in_one_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(4):
        pq.write_table(pa.table({"url": [address(number)]}), tmp_path / f"part-{number}.parquet")
    (tmp_path / "more").mkdir()
    (tmp_path / "more/x.csv").write_text(f"url\n{address(8)}\n")
    (tmp_path / "one.txt").write_text(address(9) + "\n")
    given = (tmp_path / "part-*.parquet", tmp_path / "more", tmp_path / "one.txt", tmp_path / "part-0.parquet")
    preview = counts(tmp_path / "w", capsys, "--import", *given, "--dry-run")
    assert preview["new_pictures"] == 6 and not (tmp_path / "w").exists()
    assert counts(tmp_path / "w", capsys, "--import", *given)["new_pictures"] == 6
    assert counts(tmp_path / "w", capsys, "--import", *given)["new_results"] == 0
    assert counts(tmp_path / "v", capsys, "--import", *given, "--limit", 3)["new_pictures"] == 3
    capsys.readouterr()
    assert run(tmp_path / "w", "--import", tmp_path / "none-*.csv") == 2
    assert "nothing matches" in capsys.readouterr().err


def test_a_mixed_folder_is_told_for_what_it_was_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answers = tmp_path / "answers"
    answers.mkdir()
    (answers / "lake_xhr_001.json").write_bytes(xhr([entity(1)]))
    (answers / "more.csv").write_text(f"url\n{address(1)}\n")
    assert run(tmp_path / "w", "--import", answers) == 0
    told = capsys.readouterr().err
    assert "the reference pipeline's XHR folder" in told and "the 1 list in it are left" in told
    photos = tmp_path / "photos"
    photos.mkdir()
    drawing(1, 60, 50).save(photos / "a.jpg")
    (photos / "a.txt").write_text("https://not.a.list.example/ is where it was\n")
    (photos / "metadata.jsonl").write_text('{"file_name": "a.jpg", "title": "A"}\n')
    assert run(tmp_path / "w", "--import", photos) == 2
    assert "--import-folder" in capsys.readouterr().err
    (photos / "list.csv").write_text(f"url\n{address(2)}\n")
    assert run(tmp_path / "w", "--import", photos) == 0
    assert "the 1 picture in it are for --import-folder" in capsys.readouterr().err


def test_a_broken_part_costs_the_others_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "l").mkdir()
    (tmp_path / "l/a.parquet").write_bytes(b"PAR1 but no more")
    (tmp_path / "l/b.csv").write_text("name,age\nAnn,3\nBob,4\n")
    (tmp_path / "l/c.csv").write_text(f"url\n{address(1)}\n")
    found = counts(tmp_path / "w", capsys, "--import", tmp_path / "l")
    assert found["new_pictures"] == 1 and found["failed_unusable_list"] == 2


VALUES = {
    "similarity": 0.31, "punsafe": 1e-07, "count": 12, "big": 2**53 - 1, "good": True, "bad": False, "nothing": None,
    "labels": ["a", "b"], "box": [1, 2.5, 3], "NSFW": "UNLIKELY", "zip": "00123", "version": "1.10", "empty": "",
    "exif": '{"Make": "x"}',
}  # fmt: skip


def test_values_keep_their_types_in_json(tmp_path: Path) -> None:
    row = {"url": address(1), "caption": "A cat", "WIDTH": 640, "HEIGHT": 480, **VALUES, "deep": {"a": {"b": [None]}}}
    (tmp_path / "l.jsonl").write_text(json.dumps(row) + "\n")
    assert run(tmp_path / "w", "--import", tmp_path / "l.jsonl", "-q") == 0
    assert kept(tmp_path / "w")[address(1)] == {**VALUES, "deep": {"a": {"b": [None]}}}
    assert as_rows(tmp_path / "w/gleaner.db", "SELECT title, width FROM images") == [("A cat", 640)]


def test_values_keep_their_types_in_parquet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = {"url": [address(1), address(2)], **{name: [value, None] for name, value in VALUES.items()}}
    table |= {"jpg": [b"\xff\xd8\xff", None], "embedding": [[0.5] * 768, None], "flags": [[True, False], []]}
    pq.write_table(pa.table(table), tmp_path / "l.parquet")
    found = counts(tmp_path / "w", capsys, "--import", tmp_path / "l.parquet")
    first, second = kept(tmp_path / "w").values()
    assert first == {**VALUES, "embedding": [0.5] * 768, "flags": [True, False]}
    assert second == {**dict.fromkeys(VALUES), "embedding": None, "flags": []}
    assert found["left_out_columns_of_bytes_or_nested"] == 1 and found["failed"] == 0


def test_a_table_of_text_gives_numbers_where_they_are_written_as_one(tmp_path: Path) -> None:
    names = ("similarity", "count", "zip", "version", "good", "word", "long")
    values = ("0.31", "-12", "00123", "1.10", "True", "-", "12345678901234567890")
    (tmp_path / "l.csv").write_text(f"url,{','.join(names)}\n{address(1)},{','.join(values)}\n")
    assert run(tmp_path / "w", "--import", tmp_path / "l.csv", "-q") == 0
    expected = (0.31, -12, "00123", "1.10", True, "-", "12345678901234567890")
    assert kept(tmp_path / "w")[address(1)] == dict(zip(names, expected, strict=True))


def test_what_is_said_already_is_not_kept_twice_and_words_that_are_no_fact_are_kept(tmp_path: Path) -> None:
    row = {
        "url": address(1), "title": "T", "alt": "another", "license": "CC BY 4.0", "source": "flickr", "tags": "a b",
        "key": "000012", "date": "2019", "width": 5, "original_width": 7, "page_url": "https://p.example/",
    }  # fmt: skip
    (tmp_path / "l.jsonl").write_text(json.dumps(row) + "\n")
    assert run(tmp_path / "w", "--import", tmp_path / "l.jsonl", "-q") == 0
    expected = {"alt": "another", "source": "flickr", "tags": "a b", "key": "000012", "date": "2019"}
    assert kept(tmp_path / "w")[address(1)] == expected


def test_lists_without_other_columns_keep_nothing(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text(f"url,caption,width,height\n{address(1)},A cat,5,6\n")
    assert run(tmp_path / "w", "--import", tmp_path / "l.csv", "-q") == 0
    assert as_rows(tmp_path / "w/gleaner.db", "SELECT extra FROM images") == [("{}",)]


def test_a_row_is_bounded_and_what_is_refused_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {"url": address(1), "small": 1, "large": "x" * 70_000, "list": [0.123456789] * 50_000},
        {"url": address(2), "half": "\ud83d", "nul": "a\0b", "huge": 10**30, "deep": [[[[[[[[[[1]]]]]]]]]]},
    ]
    (tmp_path / "l.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = counts(tmp_path / "w", capsys, "--import", tmp_path / "l.jsonl")
    assert found["left_out_values_too_large"] == 2 and found["new_pictures"] == 2
    first, second = kept(tmp_path / "w").values()
    assert first == {"small": 1} and second["half"] == "\ufffd" and second["nul"] == "ab"
    assert second["huge"] == str(10**30)


def test_two_lists_of_one_picture_add_up_and_the_first_counts(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"url": address(1), "score": 1, "gone": None}) + "\n")
    (tmp_path / "b.jsonl").write_text(json.dumps({"url": address(1), "score": 2, "more": [1]}) + "\n")
    for _ in range(2):
        assert run(tmp_path / "w", "--import", tmp_path / "a.jsonl", tmp_path / "b.jsonl", "-q") == 0
    assert kept(tmp_path / "w")[address(1)] == {"score": 1, "gone": None, "more": [1]}
    assert merged_extra('{"b":1}', '{"a":{"x":null}}') == '{"a":{"x":null},"b":1}'


STATUSES = {
    "similarity": [0.5, 0.25], "caption": ["one", "two"], "url": [address(1), address(2)],
    "key": ["000000000", "000000001"], "status": ["success", "failed_to_download"],
    "error_message": [None, "HTTP Error 404: Not Found"], "width": [256, None], "height": [300, None],
    "original_width": [1024, None], "original_height": [1200, None], "exif": ["{}", None], "sha256": ["0" * 64, None],
}  # fmt: skip


def test_the_statuses_of_img2dataset_come_in_as_a_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").mkdir()
    pq.write_table(pa.table(STATUSES), tmp_path / "out/00000.parquet")
    (tmp_path / "out/00000_stats.json").write_text('{"count": 2, "successes": 1}')
    (tmp_path / "out/00000.tar").write_bytes(b"\0" * 1024)
    found = counts(tmp_path / "w", capsys, "--import", tmp_path / "out")
    assert found["new_pictures"] == 2 and found["failed"] == 0
    first, second = kept(tmp_path / "w").values()
    assert first == {"similarity": 0.5, "key": "000000000", "status": "success", "error_message": None, "exif": "{}",
                     "sha256": "0" * 64}  # fmt: skip
    assert second["status"] == "failed_to_download" and second["error_message"].startswith("HTTP Error 404")
    rows = as_rows(tmp_path / "w/gleaner.db", "SELECT title, width, height FROM images ORDER BY id")
    assert rows == [("one", 1024, 1200), ("two", None, None)]


def test_a_folder_of_pictures_with_a_record_each_is_no_folder_of_answers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As img2dataset writes files: a shard's folder with `000000.jpg`, `.json` and `.txt`, its statuses beside it."""
    shard = tmp_path / "out/00000"
    shard.mkdir(parents=True)
    for number in range(2):
        drawing(number, 60, 50).save(shard / f"{number:09}.jpg")
        (shard / f"{number:09}.json").write_text(json.dumps({"url": address(number + 1), "key": f"{number:09}"}))
        (shard / f"{number:09}.txt").write_text("a caption")
    pq.write_table(pa.table(STATUSES), tmp_path / "out/00000.parquet")
    found = counts(tmp_path / "w", capsys, "--import", tmp_path / "out")
    assert found["new_pictures"] == 2 and "answers" not in found
