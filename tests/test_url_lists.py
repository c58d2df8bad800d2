"""Lists of addresses as people have them: with stray lines, other separators, fields without end; nothing vanishes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support import as_rows, load_step
from yandex_answers import entity, make_workspace, xhr

step = load_step("ingest")

GOOD = ["https://a.example/1.jpg", "https://b.example/2.jpg"]
LISTS = {
    "stray.txt": (f"{GOOD[0]}\n# a comment\n\nhere comes another\n{GOOD[1]}\n", {"failed_no_address": 1}),
    "semicolons.csv": (f"url;caption\n{GOOD[0]};A cat\n{GOOD[1]};\n", {}),
    "empty.csv": (f"url,caption\n{GOOD[0]},A cat\n,none\nnowhere,none\n{GOOD[1]},\n", {"failed_no_address": 2}),
    "endless.csv": (f"url,caption\n{GOOD[0]},A cat\n{'x' * 2**21},y\n{GOOD[1]},z\n", {"failed_broken_line": 1}),
    "broken.jsonl": (
        f'{{"url": "{GOOD[0]}"}}\n{{"url": \n\n[1]\n{{"caption": "x"}}\n{{"url": "{GOOD[1]}"}}\n',
        {"failed_broken_line": 2, "failed_no_address": 1},
    ),
}


@pytest.mark.parametrize("name", LISTS)
def test_what_is_no_address_is_counted_and_the_others_come_in(tmp_path: Path, name: str, capsys) -> None:
    text, reasons = LISTS[name]
    (tmp_path / name).write_text(text)
    assert step.main(["--import", str(tmp_path / name), "--workspace", str(tmp_path / "w"), "--json"]) == 0
    counts = json.loads(capsys.readouterr().out)["counts"]
    assert {key: value for key, value in counts.items() if key.startswith("failed_")} == reasons
    assert counts["new_pictures"] == 2 and counts["failed"] == sum(reasons.values()) and "answers" not in counts
    urls = as_rows(tmp_path / "w/gleaner.db", "SELECT url FROM image_variants ORDER BY id")
    assert [url for (url,) in urls] == GOOD


def test_reasons_stand_with_what_they_are_the_reasons_of(tmp_path: Path, capsys) -> None:
    (tmp_path / "broken.jsonl").write_text(LISTS["broken.jsonl"][0])
    assert step.main(["--import", str(tmp_path / "broken.jsonl"), "--workspace", str(tmp_path / "w")]) == 0
    assert "ingest: 3 failed (2 broken line, 1 no address), 2 results" in capsys.readouterr().err


def test_nothing_new_is_said(tmp_path: Path, capsys) -> None:
    make_workspace(tmp_path / "w", {("q", 0, "xhr"): xhr([entity(1)])})
    for told in (False, True):
        assert step.main(["--workspace", str(tmp_path / "w")]) == 0
        assert ("everything had been read before" in capsys.readouterr().err) is told


def test_a_list_with_rows_left_out_is_no_success_where_strictness_was_asked_for(tmp_path: Path) -> None:
    (tmp_path / "urls.txt").write_text(LISTS["stray.txt"][0])
    arguments = ["--import", str(tmp_path / "urls.txt"), "--workspace", str(tmp_path / "w"), "-q"]
    assert step.main([*arguments, "--strict"]) == 3 and step.main(arguments) == 0


COMMAS = [
    # The address stands last: what follows its first comma is a part of it.
    ("id,url\n0,https://a.example/1,2.jpg\n1,https://b.example/2.jpg\n", ["https://a.example/1,2.jpg", GOOD[1]], 0),
    # Elsewhere nobody can tell whose comma it is: no part of an address is taken for the whole.
    ("url,caption\nhttps://a.example/1,2.jpg,A cat\nhttps://b.example/2.jpg,A dog\n", [GOOD[1]], 1),
    # Empty fields at the end are no content.
    ("url,caption\nhttps://a.example/1.jpg,A cat,,\n", GOOD[:1], 0),
    # An address on the first line is an address, whatever stands between its commas.
    ("https://a.example/1,src,2.jpg\n", ["https://a.example/1,src,2.jpg"], 0),
]


@pytest.mark.parametrize(("text", "urls", "broken"), COMMAS, ids=["last", "elsewhere", "trailing", "first line"])
def test_commas_in_addresses_survive_or_are_told_of(tmp_path: Path, text: str, urls: list[str], broken: int, capsys):
    (tmp_path / "urls").write_text(text)
    assert step.main(["--import", str(tmp_path / "urls"), "--workspace", str(tmp_path / "w"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["counts"].get("failed_broken_line", 0) == broken
    found = as_rows(tmp_path / "w/gleaner.db", "SELECT url FROM image_variants ORDER BY id")
    assert [url for (url,) in found] == urls


def test_the_number_0_is_an_id_like_any_other(tmp_path: Path) -> None:
    (tmp_path / "urls.jsonl").write_text("".join(f'{{"url": "{url}", "id": {n}}}\n' for n, url in enumerate(GOOD)))
    assert step.main(["--import", str(tmp_path / "urls.jsonl"), "--workspace", str(tmp_path / "w"), "-q"]) == 0
    assert as_rows(tmp_path / "w/gleaner.db", "SELECT extra ->> 'list_id' FROM images ORDER BY id") == [("0",), ("1",)]


@pytest.mark.parametrize("text", ["just some\nlines of text\nhttps://a.example/1.jpg\n", "a;b\n1;2\n"])
def test_what_is_no_list_is_not_taken_for_one(tmp_path: Path, text: str, capsys) -> None:
    (tmp_path / "it").write_text(text)
    assert step.main(["--import", str(tmp_path / "it"), "--workspace", str(tmp_path / "w")]) == 2
    assert "holds neither" in capsys.readouterr().err


def test_a_folder_of_pictures_is_shown_the_way(tmp_path: Path, capsys) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"x")
    assert step.main(["--import", str(tmp_path / "photos"), "--workspace", str(tmp_path / "w")]) == 2
    assert "--import-folder" in capsys.readouterr().err


WRAPPED = {
    "https://wsrv.nl/?url=photos.example.org/a.jpg&w=300": "http://photos.example.org/a.jpg",
    "https://i0.wp.com/blog.example.org/b.png?ssl=1": "https://blog.example.org/b.png",
    "https://shop.example.org/_next/image?url=https%3A%2F%2Fc.example.org%2Fc.webp&w=640": "https://c.example.org/c.webp",
    "https://search.pstatic.net/sunny/?src=https%3A%2F%2Fd.example.org%2Fd.jpg": "https://d.example.org/d.jpg",
}


@pytest.mark.parametrize("link", WRAPPED)
@pytest.mark.parametrize("kind", ["csv", "txt", "jsonl"])
def test_what_a_proxy_wraps_is_the_original_and_the_proxy_stays(tmp_path: Path, link: str, kind: str):
    inner = WRAPPED[link]
    text = {"csv": f"url,width\n{link},4000\n", "txt": f"{link}\n", "jsonl": json.dumps({"url": link}) + "\n"}[kind]
    (tmp_path / f"list.{kind}").write_text(text, encoding="utf-8")
    assert step.main(["--workspace", str(tmp_path / "w"), "--import", str(tmp_path / f"list.{kind}")]) == 0
    (tmp_path / "bare.txt").write_text(inner + "\n", encoding="utf-8")
    assert step.main(["--workspace", str(tmp_path / "w"), "--import", str(tmp_path / "bare.txt")]) == 0
    found = as_rows(tmp_path / "w" / "gleaner.db", "SELECT kind, url FROM image_variants ORDER BY id")
    assert [tuple(row) for row in found] == [("original", inner), ("preview", link)]
    assert len(as_rows(tmp_path / "w" / "gleaner.db", "SELECT id FROM images")) == 1, "one picture in both lists"


@pytest.mark.parametrize("content", [None, "", "no list at all\n", "PAR1", "SQLite format 3\0", "a,b\n1,2\n"])
def test_what_cannot_be_taken_in_creates_nothing(tmp_path: Path, content: str | None, capsys) -> None:
    source = tmp_path / "source"
    if content is not None:
        source.write_text(content, encoding="utf-8")
    damaged = content in ("PAR1", "SQLite format 3\0")  # known by their first bytes, and broken behind them
    refused(tmp_path, "--import", source, capsys, 1 if damaged else 2)


def test_a_folder_without_answers_and_a_missing_one_create_nothing(tmp_path: Path, capsys) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "read me.txt").write_text("nothing", encoding="utf-8")
    refused(tmp_path, "--import", tmp_path / "notes", capsys)
    refused(tmp_path, "--import-folder", tmp_path / "missing", capsys)


def refused(place: Path, job: str, source: Path, capsys, code: int = 2) -> None:
    assert step.main(["--workspace", str(place / "w"), job, str(source)]) == code
    assert capsys.readouterr().err.startswith("error: ")
    assert not (place / "w").exists()
