"""Step 2 on real workspaces: what it writes, what it refuses, and that it may be killed at any time."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from support import ROOT, STEPS, as_rows, dump, load_step, peak_of_step, run_step, snapshot
from yandex_answers import entity, key_of, make_workspace, put_answer, results_page, serp_list, xhr

from lib.db import open_database
from lib.records import address_digest

STEP = load_step("ingest")
TWO_QUERIES = {
    ("cats", 0, "page"): results_page([entity(number) for number in range(20)]),
    ("cats", 1, "xhr"): xhr([entity(number) for number in range(15, 40)]),
    ("dogs", 0, "page"): results_page([entity(number, pos=number - 30) for number in range(30, 50)]),
}


def ingest(root: Path, *arguments: object) -> dict[str, Any]:
    """Runs the step in this process and gives the counts that it recorded."""
    assert STEP.main(["--workspace", str(root), *map(str, arguments)]) == 0
    if "--dry-run" in arguments:
        return {}
    (counts,) = as_rows(root / "gleaner.db", "SELECT counts FROM runs WHERE step = 'ingest' ORDER BY id DESC LIMIT 1")[
        0
    ]
    return json.loads(counts)


def states(database: Path) -> list[tuple[Any, ...]]:
    return as_rows(database, "SELECT ingest_state, ingest_reason, items FROM responses ORDER BY id")


def test_pictures_addresses_and_results_are_written(tmp_path: Path) -> None:
    database = make_workspace(tmp_path, TWO_QUERIES)
    counts = ingest(tmp_path)
    assert counts == {
        "answers": 3, "failed": 0, "results": 65, "new_pictures": 50, "known_pictures": 15,
        "new_addresses": 150, "new_results": 60,
    }  # fmt: skip
    assert states(database) == [("done", "", 20), ("done", "", 25), ("done", "", 20)]
    row = as_rows(
        database,
        "SELECT engine, page_url, title, domain, registrable_domain, width, bytes FROM images WHERE key = ?",
        f"yandex:{key_of(3)}",
    )
    assert row == [
        ("yandex", "https://site3.example.org/pages/3", "Page of 3", "site3.example.org", "example.org", 1920, 345678)
    ]
    assert as_rows(database, "SELECT count(*), min(state), max(state) FROM downloads") == [(50, "pending", "pending")]
    assert as_rows(database, "SELECT DISTINCT parser FROM responses ORDER BY 1") == [
        ("yandex-page/1",),
        ("yandex-xhr/1",),
    ]


def test_the_same_picture_keeps_every_query_and_rank(tmp_path: Path) -> None:
    database = make_workspace(tmp_path, TWO_QUERIES)
    ingest(tmp_path)
    found = as_rows(
        database,
        "SELECT queries.text, rank, response_id FROM results JOIN queries ON queries.id = query_id"
        " WHERE image_id = (SELECT id FROM images WHERE key = ?) ORDER BY 1",
        f"yandex:{key_of(35)}",
    )
    assert found == [("cats", 35, 2), ("dogs", 5, 3)]


def test_the_better_rank_within_a_query_stays(tmp_path: Path) -> None:
    answers = {("q", 0, "page"): results_page([entity(1, pos=9)]), ("q", 1, "xhr"): xhr([entity(1, pos=4)])}
    answers[("q", 2, "xhr")] = xhr([entity(1, pos=30)])
    database = make_workspace(tmp_path, answers)
    ingest(tmp_path)
    assert as_rows(database, "SELECT rank, response_id FROM results") == [(4, 2)]


def test_empty_fields_are_filled_and_known_ones_kept(tmp_path: Path) -> None:
    poor = entity(1, snippet=None, alt=None, origWidth=None, gifLabel=None, docid=None)
    poor["viewerData"] = {"preview": [{"url": poor["origUrl"]}]}
    rich = entity(1, gifLabel=True)
    other = entity(
        1, alt="Another", origWidth=50, snippet={**rich["snippet"], "title": "Another", "url": "https://b.example/"}
    )
    database = make_workspace(
        tmp_path, {("a", 0, "xhr"): xhr([poor]), ("b", 0, "xhr"): xhr([rich]), ("c", 0, "xhr"): xhr([other])}
    )
    ingest(tmp_path)
    columns = "title, page_url, domain, width, height, bytes, is_gif"
    assert as_rows(database, f"SELECT {columns} FROM images") == [
        ("Page of 1", "https://site1.example.org/pages/1", "site1.example.org", 1920, 1280, 345678, 1)
    ]
    (extra,) = as_rows(database, "SELECT extra FROM images")[0]
    assert json.loads(extra)["docid"] == f"Z{1:016X}"
    assert as_rows(database, "SELECT width, bytes, referer FROM image_variants WHERE kind = 'original'") == [
        (1920, 345678, "https://site1.example.org/pages/1")
    ]


def test_a_second_run_changes_nothing(tmp_path: Path) -> None:
    database = make_workspace(tmp_path, TWO_QUERIES | {("dogs", 1, "xhr"): b"<html>"})
    ingest(tmp_path)
    before = dump(database)
    assert ingest(tmp_path)["answers"] == 0
    assert dump(database) == before


def test_reading_everything_again_changes_nothing_either(tmp_path: Path) -> None:
    database = make_workspace(tmp_path, TWO_QUERIES)
    ingest(tmp_path)
    before = dump(database)
    with open_database(database) as db, db.transaction():
        db.execute("UPDATE responses SET ingest_state = 'pending'")
    assert ingest(tmp_path)["new_addresses"] == 0
    assert dump(database) == before


@pytest.mark.parametrize("arguments", [[], ["--rescan"], ["--retry-failed"], ["--limit", "1"]])
def test_a_dry_run_touches_nothing(tmp_path: Path, arguments: list[str]) -> None:
    make_workspace(tmp_path, TWO_QUERIES | {("dogs", 1, "xhr"): b"<html>"})
    (tmp_path / "xhr/yandex/dogs/0007.json").write_bytes(xhr([entity(70)]))
    before = snapshot(tmp_path)
    ingest(tmp_path, "--dry-run", *arguments)
    assert snapshot(tmp_path) == before


def test_a_dry_run_says_what_the_run_then_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_workspace(tmp_path, TWO_QUERIES | {("dogs", 1, "xhr"): b'{"type":"captcha"}'})
    ingest(tmp_path, "--dry-run", "--json")
    promised = json.loads(capsys.readouterr().out)["counts"]
    assert promised["failed_captcha"] == 1
    done = ingest(tmp_path)
    assert {name: done[name] for name in promised} == promised


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"<html>blocked</html>", "not_json"),
        (b"<form action='/checkcaptcha'>", "captcha"),
        (b'{"type": "captcha"}', "captcha"),
        (b'{"blocks": []}', "parse_error:no_serp_list"),
        (b"[" * 1_000_001, "too_complex"),
        (b'{"blocks":' + b" " * 17_000_000 + b"[]}", "too_large"),
        (b'{"a":' * 200_000 + b"1" + b"}" * 200_000, "not_json"),
        (b"\x00" * 1000, "not_json"),
        (b"", "not_json"),
    ],
    ids=["html", "captcha-page", "captcha-json", "no-list", "nested", "huge", "deep", "nuls", "empty"],
)
def test_an_answer_that_cannot_be_read_is_a_row_with_a_reason(tmp_path: Path, raw: bytes, reason: str) -> None:
    database = make_workspace(tmp_path, {("bad", 0, "xhr"): raw, ("good", 0, "xhr"): xhr([entity(1)])})
    assert ingest(tmp_path)[f"failed_{reason}"] == 1
    assert states(database) == [("failed", reason, 0), ("done", "", 1)]


def test_missing_and_changed_files(tmp_path: Path) -> None:
    database = make_workspace(tmp_path, {("q", number, "xhr"): xhr([entity(number)]) for number in range(4)})
    folder = tmp_path / "xhr/yandex/q"
    kept = (folder / "0000.json").read_bytes()
    (folder / "0000.json").unlink()
    (folder / "0001.json").write_bytes(xhr([entity(99)]))
    (folder / "0002.json").unlink()
    (folder / "0002.json").mkdir()
    ingest(tmp_path)
    assert [state[1] for state in states(database)] == ["missing_file", "changed_file", "missing_file", ""]
    (folder / "0000.json").write_bytes(kept)
    assert ingest(tmp_path)["answers"] == 0
    assert ingest(tmp_path, "--retry-failed")["failed"] == 2
    assert states(database)[0] == ("done", "", 1)


@pytest.mark.parametrize(
    ("outcome", "path", "state", "reason"),
    [
        ("end", "", "done", ""),
        ("empty", "", "done", ""),
        ("captcha", "x.json", "failed", "captcha"),
        ("network", "", "failed", "network"),
        ("ok", "", "failed", "missing_file"),
    ],
)
def test_answers_without_results(tmp_path: Path, outcome: str, path: str, state: str, reason: str) -> None:
    database = make_workspace(tmp_path, {("q", 0, "xhr"): b"404"})
    with open_database(database) as db, db.transaction():
        db.execute("UPDATE responses SET outcome = ?, path = ?", (outcome, path))
    ingest(tmp_path)
    assert states(database) == [(state, reason, 0)]


def test_strict_ends_with_three(tmp_path: Path) -> None:
    make_workspace(tmp_path, {("q", 0, "xhr"): b"404"})
    assert STEP.main(["--workspace", str(tmp_path), "--strict"]) == 3


def test_drift_is_kept_with_the_answer(tmp_path: Path) -> None:
    database = make_workspace(tmp_path, {("q", 0, "xhr"): xhr([entity(1, brandNew=1), entity(2, origUrl="")])})
    ingest(tmp_path)
    (drift,) = as_rows(database, "SELECT drift FROM responses")[0]
    assert json.loads(drift) == {"unknown": {"entity.brandNew": 1}, "empty_originals": 0.5}


def test_limit_takes_the_first_ones(tmp_path: Path) -> None:
    database = make_workspace(tmp_path, TWO_QUERIES)
    assert ingest(tmp_path, "--limit", 2)["answers"] == 2
    assert [state[0] for state in states(database)] == ["done", "done", "pending"]


def test_a_lost_database_is_rebuilt_from_the_files(tmp_path: Path) -> None:
    database = make_workspace(tmp_path, TWO_QUERIES)
    ingest(tmp_path)
    before = dump(database)
    database.unlink()
    (tmp_path / "xhr/yandex/cats/query.json").write_text('{"engine": "yandex", "kind": "keyword", "text": "cats"}')
    assert ingest(tmp_path, "--rescan")["new_pictures"] == 50
    after = dump(database)
    for table in ("images", "image_variants", "downloads"):
        assert len(after[table]) == len(before[table])
    assert after["images"] == before["images"]
    assert as_rows(database, "SELECT kind, text FROM queries ORDER BY id") == [("keyword", "cats"), ("import", "dogs")]
    rebuilt = dump(database)
    ingest(tmp_path, "--rescan")
    assert dump(database) == rebuilt


def test_a_stray_file_joins_the_query_of_its_folder(tmp_path: Path) -> None:
    database = make_workspace(tmp_path, TWO_QUERIES)
    (tmp_path / "xhr/yandex/cats/0002.json").write_bytes(xhr([entity(80)]))
    (tmp_path / "xhr/yandex/cats/.0003.part").write_bytes(b"half")
    ingest(tmp_path)
    assert ingest(tmp_path, "--rescan")["new_pictures"] == 1
    assert as_rows(database, "SELECT count(*) FROM queries") == [(2,)]


def reference_folder(folder: Path) -> Path:
    folder.mkdir()
    for name in ("a photo", "b"):
        for number in (1, 2):
            first = number * 10 + (100 if name == "b" else 0)
            (folder / f"{name}_xhr_{number:03d}.json").write_bytes(xhr([entity(first + i) for i in range(10)]))
    (folder / "b_xhr_003.json").write_bytes(b'{"blocks": []}')
    (folder / "b_xhr_004_NOT_JSON.txt").write_text("captcha")
    return folder


def reference_database(path: Path, *, wide: bool = True) -> Path:
    """A database with the reference pipeline's columns (or only the oldest few of them)."""
    connection = sqlite3.connect(path)
    extra = (
        ", docid TEXT, freshness_counter INTEGER, is_gif BOOLEAN, snippet_url TEXT, domain TEXT, title TEXT"
        if wide
        else ""
    )
    connection.execute(
        f"CREATE TABLE images (id TEXT PRIMARY KEY, pos INTEGER, origUrl TEXT, image_url TEXT, alt TEXT,"
        f" origWidth INTEGER, origHeight INTEGER{extra})"
    )
    connection.execute(
        "CREATE TABLE image_variants (id INTEGER PRIMARY KEY, image_id TEXT, variant_type TEXT, url TEXT,"
        " width INTEGER, height INTEGER, file_size_bytes INTEGER, is_mixed_image BOOLEAN, origin_url TEXT,"
        " origin_width INTEGER, origin_height INTEGER)"
    )
    for number in range(30):
        values = [f"{number:032x}", number, f"https://a.example/{number}.jpg", f"//t.example/{number}", "alt", 800, 600]
        values += (
            ["Z1", "normal", 1, f"https://pages.example/{number}", "pages.example", f"Title {number}"] if wide else []
        )
        connection.execute(f"INSERT INTO images VALUES ({', '.join('?' * len(values))})", values)
        for kind, link in (
            ("preview", f"https://a.example/{number}.jpg"),
            ("dups", f"https://b.example/{number}"),
            ("thumb", None),
        ):
            # Imported twice by the reference, which has no key that would forbid it.
            for _ in range(2):
                connection.execute(
                    "INSERT INTO image_variants (image_id, variant_type, url, width, height, file_size_bytes,"
                    " is_mixed_image) VALUES (?, ?, ?, 800, 600, 1000, 0)",
                    (f"{number:032x}", kind, link),
                )
    connection.execute(
        "INSERT INTO image_variants (image_id, variant_type, url) VALUES ('nobody', 'dups', 'https://x/')"
    )
    connection.commit()
    connection.close()
    return path


def test_the_reference_folder_is_taken_in(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = reference_folder(tmp_path / "XHR")
    before = snapshot(source)
    root = tmp_path / "w"
    counts = ingest(root, "--import", source)
    assert f"took {source} for the reference pipeline's XHR folder (5 files)" in capsys.readouterr().err
    assert counts["new_pictures"] == 40
    assert counts["failed_parse_error:no_serp_list"] == 1
    assert as_rows(root / "gleaner.db", "SELECT kind, text FROM queries ORDER BY id") == [
        ("import", "XHR/a photo"),
        ("import", "XHR/b"),
    ]
    again = dump(root / "gleaner.db")
    assert ingest(root, "--import", source)["answers"] == 0
    assert dump(root / "gleaner.db") == again
    assert snapshot(source) == before
    paths = [path for (path,) in as_rows(root / "gleaner.db", "SELECT path FROM responses")]
    assert all((root / path).is_file() and path.isascii() for path in paths)


def test_another_answer_of_the_same_name_is_not_lost(tmp_path: Path) -> None:
    for number, place in enumerate(("one", "two")):
        (tmp_path / place / "XHR").mkdir(parents=True)
        (tmp_path / place / "XHR" / "cat_xhr_001.json").write_bytes(xhr([entity(number)]))
    for place in ("one", "two", "one", "two"):
        ingest(tmp_path / "w", "--import", tmp_path / place / "XHR")
    assert as_rows(tmp_path / "w/gleaner.db", "SELECT page FROM responses ORDER BY 1") == [(1,), (2,)]
    assert as_rows(tmp_path / "w/gleaner.db", "SELECT count(*) FROM images") == [(2,)]


def test_our_own_layout_and_single_files(tmp_path: Path) -> None:
    make_workspace(tmp_path / "old", TWO_QUERIES)
    assert ingest(tmp_path / "w", "--import", tmp_path / "old/xhr")["new_pictures"] == 50
    (tmp_path / "saved page.html").write_bytes(results_page([entity(200)]))
    (tmp_path / "answer.json").write_bytes(xhr([entity(201)]))
    for name in ("saved page.html", "answer.json"):
        assert ingest(tmp_path / "w", "--import", tmp_path / name)["new_pictures"] == 1


@pytest.mark.parametrize("wide", [True, False])
def test_the_reference_database_is_taken_in(tmp_path: Path, wide: bool, capsys: pytest.CaptureFixture[str]) -> None:
    source = reference_database(tmp_path / "yandex_images.db", wide=wide)
    before = snapshot(tmp_path)
    root = tmp_path / "w"
    counts = ingest(root, "--import", source)
    assert "for the reference pipeline's database" in capsys.readouterr().err
    assert (counts["new_pictures"], counts["new_addresses"], counts["new_results"]) == (30, 90, 30)
    assert snapshot(tmp_path).items() >= before.items()
    key = f"yandex:{address_digest('https://a.example/7.jpg')}"
    row = as_rows(root / "gleaner.db", "SELECT title, width, is_gif, page_url FROM images WHERE key = ?", key)
    assert row == [("Title 7", 800, 1, "https://pages.example/7") if wide else ("alt", 800, 0, "")]
    variants = as_rows(
        root / "gleaner.db",
        "SELECT kind, url, bytes FROM image_variants"
        " WHERE image_id = (SELECT id FROM images WHERE key = ?) ORDER BY id",
        key,
    )
    assert variants == [
        ("original", "https://a.example/7.jpg", 1000),
        ("dup", "https://b.example/7", 1000),
        ("thumb", "https://t.example/7", None),
    ]
    again = dump(root / "gleaner.db")
    ingest(root, "--import", source)
    assert dump(root / "gleaner.db") == again


def test_a_dry_import_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sources = [reference_folder(tmp_path / "XHR"), reference_database(tmp_path / "yandex_images.db")]
    before = snapshot(tmp_path)
    for source, pictures in zip(sources, (40, 30), strict=True):
        ingest(tmp_path / "w", "--import", source, "--dry-run", "--json")
        assert json.loads(capsys.readouterr().out)["counts"]["new_pictures"] == pictures
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.write_text("just text"), "holds neither raw answers"),
        (lambda path: path.mkdir(), "holds neither raw answers"),
        (lambda path: sqlite3.connect(path).executescript("CREATE TABLE t (a); INSERT INTO t VALUES (1)"), "no tables"),
        (lambda path: path.write_bytes(b"SQLite format 3\0" + b"\xff" * 5000), "is damaged"),
    ],
    ids=["missing", "text", "empty-folder", "other-database", "damaged"],
)
def test_what_cannot_be_imported_is_one_sentence(
    tmp_path: Path, make: Any, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path / "it")
    assert STEP.main(["--workspace", str(tmp_path / "w"), "--import", str(tmp_path / "it")]) in (1, 2)
    lines = capsys.readouterr().err.strip().splitlines()
    assert sentence in lines[-1]
    assert not any("Traceback" in line for line in lines)


def test_a_gleaner_database_is_not_imported_into_another(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    database = make_workspace(tmp_path / "old", {})
    assert STEP.main(["--workspace", str(tmp_path / "w"), "--import", str(database)]) == 2
    assert "is a Gleaner database already" in capsys.readouterr().err


def test_too_early_names_the_step_to_run_first(tmp_path: Path) -> None:
    done = run_step("ingest", "--workspace", tmp_path / "none")
    assert (done.returncode, done.stderr.strip()) == (
        2,
        f"error: there is no database in {tmp_path / 'none'}; run 1_collect.py first.",
    )
    assert not (tmp_path / "none").exists()


def test_a_damaged_database_is_one_sentence(tmp_path: Path) -> None:
    database = make_workspace(tmp_path, TWO_QUERIES)
    raw = bytearray(database.read_bytes())
    raw[4096:] = b"\xa5" * (len(raw) - 4096)
    database.write_bytes(raw)
    done = run_step("ingest", "--workspace", tmp_path)
    assert done.returncode == 1
    assert "damaged" in done.stderr
    assert "Traceback" not in done.stderr


def many_answers() -> dict[tuple[str, int, str], bytes]:
    """Enough small answers for several batches and for worker processes; pictures recur across queries."""
    return {
        (f"q{number % 5}", number, "xhr"): b"<html>" if number % 97 == 0 else xhr([entity(number), entity(number // 3)])
        for number in range(700)
    }


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[str]]]:
    """(a workspace with everything pending, the tables after an undisturbed run with one process)."""
    root = tmp_path_factory.mktemp("pending")
    make_workspace(root, many_answers())
    other = root.with_name("done")
    shutil.copytree(root, other)
    ingest(other, "--workers", 1)
    return root, dump(other / "gleaner.db")


def test_worker_processes_write_the_same(tmp_path: Path, undisturbed: tuple[Path, dict[str, list[str]]]) -> None:
    root = tmp_path / "w"
    shutil.copytree(undisturbed[0], root)
    done = run_step("ingest", "--workspace", root, "--workers", 2)
    assert done.returncode == 0, done.stderr
    assert dump(root / "gleaner.db") == undisturbed[1]


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL on Windows")
@pytest.mark.parametrize("enough", [0, 1, 250, 450])
def test_killed_and_run_again_it_ends_the_same(
    tmp_path: Path, undisturbed: tuple[Path, dict[str, list[str]]], enough: int
) -> None:
    root = tmp_path / "w"
    shutil.copytree(undisturbed[0], root)
    command = [sys.executable, str(ROOT / STEPS["ingest"]), "--workspace", str(root), "--workers", "2"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while process.poll() is None and _done(root) < enough:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert as_rows(root / "gleaner.db", "PRAGMA integrity_check") == [("ok",)]
    # What counts as read is wholly there.
    lacking = "SELECT count(*) FROM responses WHERE ingest_state = 'done' AND items > 0 AND NOT EXISTS"
    assert as_rows(
        root / "gleaner.db", f"{lacking} (SELECT 1 FROM results WHERE results.query_id = responses.query_id)"
    ) == [(0,)]
    ingest(root, "--workers", 1)
    assert dump(root / "gleaner.db") == undisturbed[1]


def _done(root: Path) -> int:
    return as_rows(root / "gleaner.db", "SELECT count(*) FROM responses WHERE ingest_state <> 'pending'")[0][0]


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL on Windows")
@pytest.mark.parametrize("enough", [0, 3, 60])
def test_an_import_killed_and_run_again_ends_the_same(tmp_path: Path, enough: int) -> None:
    source = tmp_path / "XHR"
    source.mkdir()
    for number in range(300):
        (source / f"q{number % 4}_xhr_{number:03d}.json").write_bytes(xhr([entity(number), entity(number // 2)]))
    ingest(tmp_path / "calm", "--import", source)
    root = tmp_path / "w"
    command = [sys.executable, str(ROOT / STEPS["ingest"]), "--workspace", str(root), "--import", str(source)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while process.poll() is None and len(list(root.glob("xhr/*/*/*.json"))) < enough:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    ingest(root, "--import", source)
    assert dump(root / "gleaner.db") == dump(tmp_path / "calm/gleaner.db")
    digests = as_rows(root / "gleaner.db", "SELECT path, sha256 FROM responses")
    assert all(hashlib.sha256((root / path).read_bytes()).hexdigest() == digest for path, digest in digests)


def test_ingest_goes_on_while_answers_arrive(tmp_path: Path) -> None:
    database = make_workspace(tmp_path, TWO_QUERIES)
    ingest(tmp_path)
    with open_database(database) as db:
        put_answer(db, tmp_path, "cats", 2, xhr([entity(90)]))
        assert ingest(tmp_path)["new_pictures"] == 1


LINKS = ["https://a.example/1,2.jpg", "https://b.example/x.png?a=1,2&b=3", "//c.example/no-scheme.webp"]


def write_list(folder: Path, kind: str) -> Path:
    """The same three addresses in one of the forms that lists come in."""
    path = folder / f"list.{kind}"
    captions = ["first, with a comma", "", "third \u00e9"]
    if kind in ("txt", "headed.txt"):
        head = "url\n" if kind == "headed.txt" else "# a note\n\n"
        path.write_text(
            head + "\n".join(LINKS[:2]) + "\n" + (LINKS[2] if kind == "headed.txt" else "https:" + LINKS[2])
        )
    elif kind in ("csv", "tsv"):
        with path.open("w", newline="", encoding="utf-8-sig") as handle:
            table = csv.writer(handle, delimiter="," if kind == "csv" else "\t")
            table.writerow(["ID", "URL", "caption", "width"])
            table.writerows([n, link, text, 100] for n, (link, text) in enumerate(zip(LINKS, captions, strict=True)))
            table.writerow([9, "", "no address", ""])
    elif kind == "jsonl":
        rows = [{"url": link, "caption": text, "width": "100"} for link, text in zip(LINKS, captions, strict=True)]
        path.write_text("\n".join(map(json.dumps, rows)) + "\nnot json\n[]\n{}\n")
    else:
        import pyarrow
        import pyarrow.parquet

        columns = {"url": LINKS, "caption": captions, "width": [100, 100, 100], "other": [b"x"] * 3}
        pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


@pytest.mark.parametrize("kind", ["txt", "headed.txt", "csv", "tsv", "jsonl", "parquet"])
def test_lists_of_urls(tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_list(tmp_path, kind)
    root = tmp_path / "w"
    assert ingest(root, "--import", source)["new_pictures"] == 3
    assert "for a list of URLs" in capsys.readouterr().err
    urls = as_rows(root / "gleaner.db", "SELECT url FROM image_variants ORDER BY id")
    assert urls == [(LINKS[0],), (LINKS[1],), ("https:" + LINKS[2],)]
    if "txt" not in kind:
        assert as_rows(
            root / "gleaner.db", "SELECT title, width FROM images JOIN results ON image_id = images.id ORDER BY rank"
        ) == [
            ("first, with a comma", 100),
            ("", 100),
            ("third \u00e9", 100),
        ]
    before = dump(root / "gleaner.db")
    ingest(root, "--import", source)
    assert dump(root / "gleaner.db") == before


def test_two_lists_may_use_the_same_ids(tmp_path: Path) -> None:
    for name, link in (("a.csv", "https://a.example/1"), ("b.csv", "https://b.example/1")):
        (tmp_path / name).write_text(f"id,url\n1,{link}\n")
        ingest(tmp_path / "w", "--import", tmp_path / name)
    assert as_rows(tmp_path / "w/gleaner.db", "SELECT count(*) FROM images") == [(2,)]


def test_a_cut_parquet_file_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_list(tmp_path, "parquet")
    source.write_bytes(source.read_bytes()[:-20])
    assert STEP.main(["--workspace", str(tmp_path / "w"), "--import", str(source)]) == 1
    assert "cannot be read as Parquet" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such limits on Windows")
def test_no_room_leaves_what_was_written_and_the_rest_pending(tmp_path: Path) -> None:
    import resource

    answers = {("q", number, "xhr"): xhr([entity(number * 100 + i) for i in range(100)]) for number in range(120)}
    database = make_workspace(tmp_path, answers)
    done = subprocess.run(
        [sys.executable, str(ROOT / STEPS["ingest"]), "--workspace", str(tmp_path), "--workers", "1"],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (8 * 2**20,) * 2),
    )
    assert done.returncode == 1
    assert done.stderr.count("error:") == 1
    assert "Traceback" not in done.stderr
    assert as_rows(database, "PRAGMA integrity_check") == [("ok",)]
    ingest(tmp_path)
    assert as_rows(database, "SELECT count(*), count(DISTINCT image_id) FROM results") == [(12_000, 12_000)]


def test_two_at_once_do_not_disturb_each_other(tmp_path: Path, undisturbed: tuple[Path, dict[str, list[str]]]) -> None:
    root = tmp_path / "w"
    shutil.copytree(undisturbed[0], root)
    commands = [
        (STEPS["ingest"], "--workers", "1"),
        (STEPS["ingest"], "--workers", "2"),
        (STEPS["cleanup"], "--dry-run"),
    ]
    processes = [
        subprocess.Popen(
            [sys.executable, str(ROOT / step), "--workspace", str(root), *more],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for step, *more in commands
    ]
    spoken = [process.communicate()[1] for process in processes]
    first, second, preview = (process.returncode for process in processes)
    # The preview may look before the first batch is written: then it says that step 2 has to run first.
    assert (first, second) == (0, 0) and (preview == 0 or "run 2_ingest_db.py first" in spoken[2]), spoken
    assert dump(root / "gleaner.db") == undisturbed[1]


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is no signal to another process on Windows")
def test_ctrl_c_ends_in_order_and_the_same_command_continues(
    tmp_path: Path, undisturbed: tuple[Path, dict[str, list[str]]]
) -> None:
    root = tmp_path / "w"
    shutil.copytree(undisturbed[0], root)
    command = [sys.executable, str(ROOT / STEPS["ingest"]), "--workspace", str(root), "--workers", "2"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while process.poll() is None and _done(root) < 1:
        time.sleep(0.005)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGINT)
    spoken = process.communicate()[1]
    assert process.returncode in (0, 130), spoken
    assert "Traceback" not in spoken
    if process.returncode == 130:
        assert "run the same command to continue" in spoken
    ingest(root, "--workers", 1)
    assert dump(root / "gleaner.db") == undisturbed[1]


MEGABYTE = 2**20
HOSTILE = {
    "nesting": (lambda: b"[" * (100 * MEGABYTE), "too_large"),
    "deep": (lambda: b'{"a":' * 250_000, "not_json"),
    "keys": (lambda: b"{" + b",".join(b'"k%d":0' % n for n in range(1_000_000)) + b"}", "parse_error:no_serp_list"),
    "nuls": (lambda: b"\x00" * MEGABYTE, "not_json"),
    "surrogates": (lambda: b'{"blocks":["' + b"\\ud800" * 200_000 + b'"]}', "parse_error:no_serp_list"),
    "number": (lambda: b'{"blocks":' + b"9" * (4 * MEGABYTE) + b"}", ""),
    "captcha": (lambda: b"<html>" + b"/checkcaptcha" * 100_000, "captcha"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_a_row_with_a_reason_in_bounded_memory(tmp_path: Path, name: str) -> None:
    make, reason = HOSTILE[name]
    hostile = [entity(1, origWidth="9" * MEGABYTE, alt="a\x00b\ud800" if name == "surrogates" else "x")]
    good = json.dumps({"blocks": [{"params": {"adapterData": {"serpList": serp_list(hostile)}}}]}).encode()
    database = make_workspace(tmp_path / "ws", {("q", 0, "xhr"): make(), ("q", 1, "xhr"): good})
    peak = peak_of_step("ingest", "--workers", "1", "--workspace", database.parent)
    states = as_rows(database, "SELECT ingest_state, ingest_reason FROM responses ORDER BY page")
    assert states[1] == ("done", "")
    assert states[0][0] == "failed" and (states[0][1] == reason or not reason), states
    assert as_rows(database, "SELECT width FROM images")[0][0] in (None, 1920)
    assert peak < 400
