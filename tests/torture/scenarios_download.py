"""Step 5: originals and previews, asked again, upgraded, what step 6 took away, files put elsewhere."""

from __future__ import annotations

import hashlib
import shutil

from hostile_server import jpeg
from scenarios_dedup import after
from torture import Folder, Scenario

from lib.db import open_database

CALM = ("--allow-private", "--min-free", "0", "--retries", "1", "--backoff", "0.01", "-q")
FETCH = ("download", *CALM)


def rows(*ladders: tuple[str, ...]) -> object:
    """A workspace with one picture for each ladder of addresses, as step 2 leaves it; the last is a preview."""

    def prepare(folder: Folder) -> None:
        folder.ws.mkdir(parents=True)
        with open_database(folder.ws / "gleaner.db") as db, db.transaction():
            for number, paths in enumerate(ladders):
                image = db.execute(
                    "INSERT INTO images (key, engine, page_url, first_seen_at) VALUES (?, 'test', '', '')",
                    (f"test:{number:04d}",),
                ).lastrowid
                kinds = ["original", *["dup"] * len(paths)]
                for kind, path in zip(kinds, paths, strict=False):
                    db.execute(
                        "INSERT INTO image_variants (image_id, kind, url) VALUES (?, ?, ?)",
                        (image, "preview" if path.startswith("/tagged") else kind, folder.site + path),
                    )

    return prepare


# No content twice: which of two pictures has the file depends on which of them came first.
PLAIN = rows(("/good/1",), ("/good/2",), ("/missing/3", "/good/3"), ("/html/1",), ("/good/4",), ("/noai/1",))
TAGGED = rows(("/tagged/1",), ("/tagged/2",), ("/good/3",))


def changed_since(folder: Folder) -> None:
    """Fetched, and the entity tags are those of an older version."""
    after(TAGGED, FETCH)(folder)
    with open_database(folder.ws / "gleaner.db") as db:
        for row in db.rows("SELECT image_id, path, files.sha256 FROM downloads JOIN files USING (sha256) LIMIT 2"):
            older = jpeg(int(row["image_id"]) + 500)
            digest = hashlib.sha256(older).hexdigest()
            name = row["path"].replace(row["sha256"][:8], digest[:8])
            (folder.ws / row["path"]).unlink()
            (folder.ws / name).write_bytes(older)
            with db.transaction():
                db.execute("PRAGMA defer_foreign_keys = ON")
                db.execute("UPDATE files SET sha256 = ?, path = ? WHERE sha256 = ?", (digest, name, row["sha256"]))
                db.execute(
                    "UPDATE downloads SET sha256 = ?, etag = '\"old\"' WHERE image_id = ?", (digest, row["image_id"])
                )


def taken_away(folder: Folder) -> None:
    """Step 6 has taken the repeats away; then every row is pending again."""
    PLAIN(folder)
    folder.run(*FETCH)
    folder.photos.mkdir()
    keeper = next(path for path in sorted((folder.ws / "images").rglob("*_original_*")))
    shutil.copy2(keeper, folder.photos / "mine.jpg")
    folder.run("dedup", "exact", "{ws}/images", "--reference", "{photos}", "--workers", "1", "-q")
    with open_database(folder.ws / "gleaner.db") as db:
        db.execute("UPDATE downloads SET state = 'pending', sha256 = NULL, variant_id = NULL, kind = ''")


DOWNLOAD = [
    Scenario("download", PLAIN, FETCH),
    Scenario("download-sidecar", PLAIN, (*FETCH, "--sidecar", "json")),
    Scenario("download-to", PLAIN, (*FETCH, "--to", "{root}/elsewhere")),
    Scenario("download-refresh", changed_since, (*FETCH, "--refresh")),
    Scenario("download-retry", after(PLAIN, FETCH), (*FETCH, "--retry-failed")),
    Scenario("download-originals", after(PLAIN, (*FETCH, "--stage", "thumbs")), (*FETCH, "--stage", "originals")),
    Scenario("download-removed", taken_away, FETCH),
    Scenario("download-two-workers", PLAIN, (*FETCH, "--workers", "2"), slow=True),
]
