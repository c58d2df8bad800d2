"""Step 2 and the disk: pictures already there, sidecars, the check and its repairs, watching, reading again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support import PATIENCE, ROOT, as_rows, drawing, dump, load_step, run_step, snapshot, wait_until
from yandex_answers import entity, key_of, make_workspace, put_answer, xhr

from lib.db import open_database
from lib.files import answers as files_answers
from lib.ingest.columns import sidecar_record

ingest = load_step("ingest")


def run(root: Path, *arguments: object) -> int:
    return ingest.main([*map(str, arguments), "--workspace", str(root), "-q"])


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Four files with three contents, three kinds of sidecar, and one file that is no picture."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    drawing(1).save(folder / "a.jpg")
    (folder / "a.jpg.json").write_text(
        json.dumps({"category": "flickr", "url": "https://img.example.org/a.jpg", "author": {"name": "Ann"},
                    "title": "A <b>bridge</b>", "tags": ["stone", "river"], "license": "CC BY 4.0"})
    )  # fmt: skip
    drawing(2).save(folder / "b.png")
    (folder / "b.json").write_text(json.dumps({"img_url": "//img.example.net/b.png", "keyword": "tower", "width": 5}))
    drawing(3).save(folder / "more" / "c.webp")
    (folder / "more" / "metadata.jsonl").write_text('{"file_name": "c.webp", "page_url": "https://p.example.com/c"}\n')
    (folder / "more" / "again.jpg").write_bytes((folder / "a.jpg").read_bytes())
    (folder / "broken.jpg").write_bytes(b"<html>not a picture</html>")
    return folder


def test_pictures_on_disk_come_in_once_with_their_facts(tmp_path: Path, photos: Path) -> None:
    root, before = tmp_path / "ws", snapshot(photos)
    assert run(root, "--import-folder", photos) == 0
    database = root / "gleaner.db"
    assert as_rows(database, "SELECT title, creator, license, registrable_domain FROM images ORDER BY title") == [
        ("A bridge", "Ann", "CC BY 4.0", "example.org"),
        ("b", "", "", "example.net"),
        ("c", "", "", "example.com"),
    ]
    assert as_rows(database, "SELECT kind, url FROM image_variants ORDER BY url") == [
        ("original", "https://img.example.net/b.png"),
        ("original", "https://img.example.org/a.jpg"),
    ]
    assert as_rows(database, "SELECT DISTINCT state, kind FROM downloads") == [("done", "original")]
    for path, size in as_rows(database, "SELECT path, bytes FROM files"):
        assert (root / path).stat().st_size == size and path.startswith("images/")
    assert as_rows(database, "SELECT width, height FROM images WHERE title = 'b'") == [(320, 240)]
    assert snapshot(photos) == before


def test_a_second_import_of_a_folder_changes_nothing(tmp_path: Path, photos: Path) -> None:
    root = tmp_path / "ws"
    run(root, "--import-folder", photos)
    before, files = dump(root / "gleaner.db"), snapshot(root / "images")
    run(root, "--import-folder", photos)
    assert dump(root / "gleaner.db") == before and snapshot(root / "images") == files


def test_a_dry_import_of_a_folder_writes_nothing_and_counts_alike(tmp_path: Path, photos: Path, capsys) -> None:
    root = make_workspace(tmp_path / "ws", {}).parent
    before = snapshot(root)
    counts = []
    for arguments in (["--dry-run"], []):
        ingest.main(["--import-folder", str(photos), "--workspace", str(root), "-q", "--json", *arguments])
        counts.append(json.loads(capsys.readouterr().out)["counts"])
        if arguments:
            assert snapshot(root) == before
    for name in ("files", "failed", "results", "new_pictures", "known_pictures"):
        assert counts[0][name] == counts[1][name], name
    assert counts[1]["failed_not_an_image"] == 1 and counts[1]["new_pictures"] == 3


SIDECARS = [
    ({}, ("", "", ())),
    ({"url": "flickr", "title": 5, "user": [{"nick": "Bo"}]}, ("5", "Bo", ())),
    ({"file_url": "https://x.example/1.jpg", "caption": None, "alt": "An alt"}, ("An alt", "", ("https://x.example/1.jpg",))),
    ({"url": ["https://x.example/1.jpg"], "artist": {"id": 7}}, ("", "7", ())),
]  # fmt: skip


@pytest.mark.parametrize(("facts", "expected"), SIDECARS)
def test_what_a_sidecar_says(facts: dict, expected: tuple) -> None:
    record = sidecar_record("x", 0, facts)
    assert (record.title, record.creator, tuple(v.url for v in record.variants)) == expected


TOOLS = {
    "gallery-dl, Flickr": (
        {"category": "flickr", "license": "4", "license_name": "Attribution License", "id": 5, "title": "Bridge",
         "owner": {"nsid": "1@N01", "username": "ann", "realname": "Ann B."}, "url": "https://live.example/5_o.jpg",
         "tags": ["stone"], "date": "2020-05-01 10:00:00", "width": 640, "height": 480},
        ("https://live.example/5_o.jpg", "", "Ann B.", "Attribution License"),
    ),
    "gallery-dl, Flickr without names": (
        {"category": "flickr", "license": "0", "owner": "1@N01", "url": "https://live.example/6_o.jpg"},
        ("https://live.example/6_o.jpg", "", "1@N01", ""),
    ),
    "gallery-dl, a booru": (
        {"category": "danbooru", "file_url": "https://cdn.example/f.png", "source": "https://art.example/works/7",
         "tag_string": "sky sea", "tag_string_artist": "bo", "rating": "g"},
        ("https://cdn.example/f.png", "https://art.example/works/7", "bo", ""),
    ),
    "SceneImg": (
        {"source": "https://img.example/a.jpg?x=1", "sha1": "0", "content_type": "image/jpeg", "status": 200,
         "final_url": "https://cdn.example/a.jpg", "width": 800, "height": 600, "format": "JPEG"},
        ("https://img.example/a.jpg?x=1", "", "", ""),
    ),
    "img2dataset": (
        {"key": "000000001", "status": "success", "url": "https://img.example/b.jpg", "caption": "A b", "width": 256,
         "height": 256, "original_width": 900, "original_height": 700, "sha256": "0", "exif": "{}"},
        ("https://img.example/b.jpg", "", "", ""),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("facts", "expected"), TOOLS.values(), ids=TOOLS)
def test_what_each_tool_calls_things(facts: dict, expected: tuple) -> None:
    record = sidecar_record("x", 0, facts)
    url = record.variants[0].url if record.variants else ""
    assert (url, record.page_url, record.creator, record.license) == expected
    if "original_width" in facts:
        assert (record.variants[0].width, record.variants[0].height) == (900, 700)


@pytest.fixture
def checked(tmp_path: Path, photos: Path) -> Path:
    """A workspace with every problem that a check can find."""
    root = make_workspace(tmp_path / "ws", {("q", page, "xhr"): xhr([entity(page)]) for page in range(3)}).parent
    run(root, "--import-folder", photos)
    run(root)
    paths = [root / path for (path,) in as_rows(root / "gleaner.db", "SELECT path FROM files ORDER BY path")]
    paths[0].unlink()
    drawing(9).save(paths[1].with_suffix(".new"), "PNG")
    os.replace(paths[1].with_suffix(".new"), paths[1])
    drawing(10).save(root / "images" / "stranger.png")
    (root / "images" / "notes.txt").write_text("not a picture")
    (root / "xhr/yandex/q/0000.json").unlink()
    (root / "xhr/yandex/q/0001.json").write_bytes(b"{}")
    (root / "xhr/yandex/q/0007.json").write_bytes(xhr([entity(77)]))
    with open_database(root / "gleaner.db") as db:
        db.execute(
            "DELETE FROM downloads WHERE image_id = (SELECT id FROM images WHERE key = ?)", (f"yandex:{key_of(2)}",)
        )
    return root


def test_the_check_finds_and_mends_both_ways(checked: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = snapshot(checked)
    ingest.main(["--check", "--dry-run", "--workspace", str(checked), "-q", "--json"])
    found = json.loads(capsys.readouterr().out)["counts"]
    assert snapshot(checked) == before
    expected = {"missing_file": 1, "changed_file": 1, "unknown_file": 1, "not_a_picture": 1, "no_download": 1}
    expected |= {"missing_answer": 1, "changed_answer": 1, "unknown_answer": 1, "repaired": 0}
    assert {name: found.get(name) for name in expected} == expected
    assert run(checked, "--check", "--strict") == 3
    assert run(checked, "--check", "--repair") == 0
    database = checked / "gleaner.db"
    assert sorted(as_rows(database, "SELECT state, count(*) FROM files GROUP BY 1")) == [("missing", 2), ("present", 3)]
    pending = as_rows(
        database,
        "SELECT count(*) FROM downloads WHERE state = 'pending' AND image_id IN"
        " (SELECT id FROM images WHERE key LIKE 'folder:%')",
    )
    assert pending == [(2,)]
    reasons = as_rows(database, "SELECT ingest_reason FROM responses WHERE ingest_reason <> '' ORDER BY 1")
    assert reasons == [("changed_file",), ("missing_file",)]
    run(checked)
    assert as_rows(database, "SELECT count(*) FROM images WHERE key = ?", f"yandex:{key_of(77)}") == [(1,)]
    capsys.readouterr()
    ingest.main(["--check", "--workspace", str(checked), "-q", "--json"])
    again = json.loads(capsys.readouterr().out)["counts"]
    left = {"files", "answers", "repaired", "not_a_picture", "missing_answer", "changed_answer"}
    assert set(again) == left


def test_a_repair_is_proposed_where_one_would_help(checked: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for mended in (False, True):
        assert ingest.main(["--check", "--workspace", str(checked)]) == 0
        said = capsys.readouterr()
        assert "not_a_picture" in said.out and ("--check --repair" in said.err) is not mended
        run(checked, "--check", "--repair")
        run(checked)  # the raw answer that had no row
        capsys.readouterr()


def test_a_file_that_came_back_counts_again(tmp_path: Path, photos: Path) -> None:
    root = tmp_path / "ws"
    run(root, "--import-folder", photos)
    path = root / as_rows(root / "gleaner.db", "SELECT path FROM files ORDER BY path")[0][0]
    body = path.read_bytes()
    path.unlink()
    run(root, "--check", "--repair")
    path.write_bytes(body)
    run(root, "--check", "--repair")
    assert as_rows(root / "gleaner.db", "SELECT DISTINCT state FROM files") == [("present",)]
    run(root, "--import-folder", photos)
    assert as_rows(root / "gleaner.db", "SELECT DISTINCT state FROM downloads") == [("done",)]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--repair"], "--check"),
        (["--check", "--reparse"], "--check and --reparse"),
        (["--watch", "--dry-run"], "--watch"),
        (["--import-folder", "nowhere"], "no folder"),
    ],
)
def test_what_makes_no_sense_is_one_sentence(tmp_path: Path, arguments: list[str], words: str, capsys) -> None:
    root = make_workspace(tmp_path / "ws", {}).parent
    assert ingest.main([*arguments, "--workspace", str(root)]) == 2
    assert words in capsys.readouterr().err


def test_reading_again_replaces_what_an_older_parser_read(tmp_path: Path) -> None:
    answers = {("q", 0, "xhr"): xhr([entity(1), entity(2)]), ("r", 0, "xhr"): xhr([entity(1, alt="other")])}
    root = make_workspace(tmp_path / "ws", answers).parent
    run(root)
    good = dump(root / "gleaner.db")
    with open_database(root / "gleaner.db") as db:
        db.execute(
            "UPDATE images SET title = 'wrong', extra = '{\"old\": 1}', is_gif = 1 WHERE key = ?",
            (f"yandex:{key_of(1)}",),
        )
        db.execute("DELETE FROM image_variants WHERE kind = 'thumb'")
        db.execute("UPDATE downloads SET state = 'failed', reason = 'http_404'")
    run(root)
    assert as_rows(root / "gleaner.db", "SELECT count(*) FROM images WHERE title = 'wrong'") == [(1,)]
    before = snapshot(root)
    assert run(root, "--reparse", "--dry-run") == 0 and snapshot(root) == before
    run(root, "--reparse")
    now = dump(root / "gleaner.db")
    assert now["images"] == good["images"]
    assert len(now["image_variants"]) == len(good["image_variants"])
    assert as_rows(root / "gleaner.db", "SELECT DISTINCT state, reason FROM downloads") == [("failed", "http_404")]
    run(root, "--reparse")
    assert dump(root / "gleaner.db") == now


COUNT = "SELECT count(*) FROM images"


def test_watching_reads_what_still_comes(tmp_path: Path) -> None:
    root = make_workspace(tmp_path / "ws", {("q", 0, "xhr"): xhr([entity(0)])}).parent
    command = [sys.executable, str(ROOT / "2_ingest_db.py"), "--watch", "--workspace", str(root)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        for page in range(1, 4):
            with open_database(root / "gleaner.db") as db:
                put_answer(db, root, "q", page, xhr([entity(page)]))
            wait_until(lambda: as_rows(root / "gleaner.db", COUNT) == [(page + 1,)], "it is read")  # noqa: B023
    finally:
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130 and "4 answers" in said and "Traceback" not in said
    assert as_rows(root / "gleaner.db", "SELECT exit_code FROM runs WHERE step = 'ingest'") == [(130,)]


def test_watching_ends_by_itself_when_nothing_comes(tmp_path: Path) -> None:
    root = make_workspace(tmp_path / "ws", {("q", 0, "xhr"): xhr([entity(0)])}).parent
    done = run_step("ingest", "--watch", 1, "--workspace", root)
    assert done.returncode == 0, done.stderr
    assert as_rows(root / "gleaner.db", "SELECT count(*) FROM images") == [(1,)]


def test_answers_of_another_workspace_bring_their_queries_along(tmp_path: Path) -> None:
    """Two machines that collect for one dataset: what was asked there is known here, also after a loss."""
    there, here = tmp_path / "there", tmp_path / "here"
    wanted = [("yandex", "image", "", "cd" * 32, "{}"), ("yandex", "keyword", "old bridge", "", '{"site":"a.example"}')]
    for number, (engine, kind, text, sha256, params) in enumerate(wanted):
        folder = there / "xhr" / engine / files_answers.folder_name(kind, text, sha256, params)
        files_answers.write_note(folder, engine, kind, text, sha256, json.loads(params))
        for page in (0, 1):
            files_answers.write_whole(folder / f"{page}.json", xhr([entity(number * 10 + page)]))
    asked = "SELECT engine, kind, text, image_sha256, params FROM queries ORDER BY kind"
    assert run(here, "--import", there / "xhr", "--dry-run") == 0 and not here.exists()
    for _ in range(2):
        assert run(here, "--import", there / "xhr") == 0
        assert as_rows(here / "gleaner.db", asked) == wanted
        assert as_rows(here / "gleaner.db", "SELECT count(*) FROM responses") == [(4,)]
    (here / "gleaner.db").unlink()
    assert run(here, "--rescan") == 0
    assert as_rows(here / "gleaner.db", asked) == wanted
    assert as_rows(here / "gleaner.db", "SELECT count(*) FROM results") == [(4,)]


@pytest.mark.parametrize(
    "note", ["[]", "{", '{"engine": "yandex", "kind": "keyword", "text": 5, "params": "x"}', "null"]
)
def test_a_note_that_tells_nothing_stops_no_import(tmp_path: Path, note: str) -> None:
    folder = tmp_path / "xhr" / "yandex" / "q"
    folder.mkdir(parents=True)
    (folder / "query.json").write_text(note)
    (folder / "0.json").write_bytes(xhr([entity(1)]))
    assert run(tmp_path / "ws", "--import", tmp_path / "xhr") == 0
    assert as_rows(tmp_path / "ws/gleaner.db", "SELECT count(*) FROM images") == [(1,)]


def test_the_note_beside_the_answers_gives_the_query_back(tmp_path: Path) -> None:
    """Step 1 notes what it asked for; with the database lost, the very same query comes back with its answers."""
    root = tmp_path / "ws"
    wanted = [("yandex", "image", "", "ab" * 32, '{"host":"yandex.com","site":"a \\"b\\""}')]
    wanted.append(("yandex", "keyword", "старый мост", "", "{}"))
    for number, (engine, kind, text, sha256, params) in enumerate(wanted):
        folder = root / "xhr" / engine / files_answers.folder_name(kind, text, sha256, params)
        files_answers.write_note(folder, engine, kind, text, sha256, json.loads(params))
        files_answers.write_whole(folder / "0.json", xhr([entity(number)]))
    before = snapshot(root)
    files_answers.write_note(folder, engine, kind, text, sha256, json.loads(params))
    assert snapshot(root) == before
    assert run(root, "--rescan") == 0
    found = as_rows(root / "gleaner.db", "SELECT engine, kind, text, image_sha256, params FROM queries ORDER BY kind")
    assert found == wanted
    assert as_rows(root / "gleaner.db", "SELECT count(*) FROM results") == [(2,)]
