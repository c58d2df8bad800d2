"""Steps 2 and 4: raw answers, lists, folders, repairs; cleaning, forgetting, backups and their return."""

from __future__ import annotations

import shutil
import sqlite3

from made import own_pictures, steady
from scenarios_dedup import after
from support import drawing
from torture import Folder, Scenario
from yandex_answers import entity, make_workspace, xhr

ONE = ("--workers", "1", "-q")
INGEST = ("ingest", *ONE)


def answers(folder: Folder) -> None:
    """Two searches with three answers each, which overlap; one answer that cannot be read."""
    pages = {
        (f"q{query}", page, "xhr"): xhr([entity(n) for n in range(page * 4 + query, page * 4 + query + 6)])
        for query in range(2)
        for page in range(3)
    }
    folder.ws.mkdir(parents=True)
    make_workspace(folder.ws, {**pages, ("q1", 3, "xhr"): b"<html>not an answer"})


def url_list(folder: Folder) -> None:
    folder.photos.mkdir()
    lines = ["url,title", *(f"https://site{n % 3}.example/{n}.jpg,Picture {n}" for n in range(12))]
    (folder.photos / "urls.csv").write_text("\n".join(lines) + "\n")


def folder_of_pictures(folder: Folder) -> None:
    folder.photos.mkdir()
    for seed in range(4):
        drawing(seed % 3, 96, 64).save(folder.photos / f"{seed}.jpg", quality=90)
    (folder.photos / "1.json").write_text('{"title": "a sidecar", "license": "CC0"}')
    steady(folder)


def parsed_by_an_old_one(folder: Folder) -> None:
    """Ingested by a parser that is not the present one, and that saw a picture and an address too many."""
    after(answers, INGEST)(folder)
    _execute(
        folder,
        "UPDATE responses SET parser = 'yandex 0' WHERE parser <> ''",
        "INSERT INTO images (id, key, engine, first_seen_at) VALUES (900, 'yandex:none', 'yandex', '')",
        "INSERT INTO image_variants (image_id, kind, url) VALUES (900, 'original', 'https://none.example/1.jpg')",
        "INSERT INTO results (query_id, image_id, response_id, rank) VALUES (1, 900, 1, 99)",
    )


def damaged_on_disk(folder: Folder) -> None:
    """A picture that has gone, one without a row, one of no bytes, and a half file."""
    own_pictures(folder)
    pictures = sorted((folder.ws / "images").rglob("*.jpg"))
    pictures[0].unlink()
    shutil.copy2(pictures[1], pictures[1].with_name("stray.jpg"))
    pictures[2].write_bytes(b"")
    (pictures[3].parent / ".part").mkdir(exist_ok=True)


def faulty_rows(folder: Folder) -> None:
    """Addresses that no step can fetch, pictures without an address."""
    after(answers, INGEST)(folder)
    _execute(
        folder,
        "UPDATE image_variants SET url = 'ftp://x/' || id WHERE kind = 'dup'",
        "DELETE FROM image_variants WHERE image_id IN (1, 2)",
        "UPDATE image_variants SET url = 'ftp://x/' || id WHERE image_id = 5",
    )


def other_rows(folder: Folder) -> None:
    """Cleaned, and changed since: a backup to return to."""
    after(faulty_rows, CLEAN)(folder)
    _execute(folder, "UPDATE images SET title = 'changed'", "DELETE FROM results WHERE image_id > 4")


def loose_room(folder: Folder) -> None:
    after(answers, INGEST)(folder)
    _execute(
        folder,
        "CREATE TABLE waste AS WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 4000)"
        " SELECT i, hex(randomblob(60)) FROM n",
        "DROP TABLE waste",
    )


def _execute(folder: Folder, *statements: str) -> None:
    connection = sqlite3.connect(folder.ws / "gleaner.db")
    with connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


CLEAN = ("cleanup", "-q")
TAKE_BACK = ("cleanup", "--undo", "last")

ROWS = [
    Scenario("ingest", answers, INGEST),
    Scenario("ingest-two-workers", answers, ("ingest", "--workers", "2", "-q"), slow=True),
    Scenario("ingest-list", url_list, ("ingest", "--import", "{photos}/urls.csv", *ONE)),
    Scenario("ingest-folder", folder_of_pictures, ("ingest", "--import-folder", "{photos}", *ONE)),
    Scenario(
        "ingest-reparse",
        parsed_by_an_old_one,
        ("ingest", "--reparse", *ONE),
        undo=("ingest", "--undo", "last"),
        kept=("responses",),
    ),
    Scenario("ingest-repair", damaged_on_disk, ("ingest", "--check", "--repair", *ONE)),
    Scenario("cleanup", faulty_rows, CLEAN, undo=TAKE_BACK),
    Scenario("cleanup-forget", after(answers, INGEST), ("cleanup", "--forget-query", "1", "-q"), undo=TAKE_BACK),
    Scenario("cleanup-undo", after(faulty_rows, CLEAN), TAKE_BACK),
    Scenario("cleanup-restore", other_rows, ("cleanup", "--restore", "last", "-q")),
    Scenario("cleanup-vacuum", loose_room, ("cleanup", "--vacuum", "-q")),
    Scenario("cleanup-reset", own_pictures, ("cleanup", "--reset", "downloads", "-q")),
]
