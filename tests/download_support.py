"""What the tests of step 5 share: a workspace with rows, a run in this process or another, and what came of it."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import replace
from typing import Any

from hostile_server import Site
from support import ROOT, load_step

from lib.db import Context, open_database
from lib.db.download_queue import Recheck
from lib.download.options import DownloadOptions
from lib.download.report import DownloadReport, RunStats
from lib.download.run import download
from lib.files.names import read_name
from lib.net.request import FetchLimits
from lib.times import utc_now
from lib.workspace import Workspace

step = load_step("download")

Rows = dict[str, list[tuple[Any, ...]]]  # image id -> (kind, url, width, height, referer)


def fill(workspace: Workspace, rows: Rows, page_url: str = "") -> None:
    """Writes pictures and their addresses, as step 2 would."""
    workspace.root.mkdir(exist_ok=True)
    with open_database(workspace.database) as db, db.transaction():
        for key, variants in rows.items():
            image_id = db.execute(
                "INSERT INTO images (key, engine, page_url, first_seen_at) VALUES (?, 'test', ?, ?)",
                (key, page_url, utc_now()),
            ).lastrowid
            for kind, url, *rest in variants:
                width, height, referer = (*rest, *(None, None, "")[len(rest) :])
                db.execute(
                    "INSERT INTO image_variants (image_id, kind, url, width, height, referer)"
                    " VALUES (?, ?, ?, ?, ?, ?)",
                    (image_id, kind, url, width, height, referer or ""),
                )


def originals(site: Site, *paths: str) -> Rows:
    return {f"test:{n:04d}": [("original", site.address(path))] for n, path in enumerate(paths)}


CALM = FetchLimits(timeout=60, deadline=240, max_bytes=1 << 20, speed_window=60)


def limits_for(path: str) -> FetchLimits:
    """Short ones where a test waits until they are passed; what is to end otherwise has time on any machine."""
    if path in ("/silent/1", "/raw/headers"):
        return replace(CALM, timeout=0.4)
    return replace(CALM, min_speed=2000, speed_window=0.3) if path == "/loris/1" else CALM


def options(**changes: Any) -> DownloadOptions:
    return DownloadOptions(**{"limits": CALM, "retries": 1, "backoff": 0.01, "allow_private": True, **changes})


def run(workspace: Workspace, **changes: Any) -> RunStats:
    """One run in this process, as the step would do it; its tally."""
    return report(workspace, **changes).stats


def report(workspace: Workspace, retry: list[str] | None = None, **changes: Any) -> DownloadReport:
    """One run in this process, as the step would do it."""
    if retry is not None:
        changes["again"] = Recheck(tuple(retry))
    with open_database(workspace.database) as db:
        run_id = db.execute(
            "INSERT INTO runs (step, started_at, version) VALUES ('download', ?, '0')", (utc_now(),)
        ).lastrowid
        made = download(Context(db, workspace, int(run_id or 0)), options(**changes))
        db.execute("UPDATE runs SET exit_code = 0, finished_at = ? WHERE id = ?", (utc_now(), run_id))
        return made


def rows(workspace: Workspace) -> dict[str, dict[str, Any]]:
    with open_database(workspace.database) as db:
        found = db.rows("SELECT key, downloads.* FROM downloads JOIN images ON images.id = image_id ORDER BY key")
        return {row["key"]: dict(row) for row in found}


def only(workspace: Workspace) -> dict[str, Any]:
    (row,) = rows(workspace).values()
    return row


def files(workspace: Workspace) -> dict[str, bytes]:
    """Everything below images/, by path."""
    return {
        path.relative_to(workspace.root).as_posix(): path.read_bytes()
        for path in sorted(workspace.images.rglob("*"))
        if path.is_file()
    }


def consistent(workspace: Workspace) -> None:
    """Every file has a row that is true, every row a whole file, and no temporary file is left."""
    with open_database(workspace.database) as db:
        known = {row["path"]: row["sha256"] for row in db.rows("SELECT * FROM files WHERE state = 'present'")}
        assert {row[0] for row in db.rows("SELECT sha256 FROM downloads WHERE state = 'done'")} <= set(known.values())
        assert db.value("SELECT count(*) FROM downloads WHERE lease <> ''") == 0
    assert {path: hashlib.sha256(data).hexdigest() for path, data in files(workspace).items()} == known
    assert not (workspace.images / ".part").exists()


def command(workspace: Workspace, *more: str) -> list[str]:
    return ["--workspace", str(workspace.root), "--allow-private", "--backoff", "0.01", *more]


def mixed(site: Site, count: int) -> Rows:
    """Good ones, repeats, failures and ladders, the same for every run."""
    made: Rows = {}
    for n in range(count):
        paths = {0: "/missing/1", 1: "/html/1", 2: "/good/3"}
        variants = [("original", site.address(paths.get(n % 10, f"/good/{n}")))]
        if n % 10 == 1:
            variants.append(("thumb", site.address(f"/good/{n}")))
        made[f"test:{n:04d}"] = variants
    return made


def outcome(workspace: Workspace) -> tuple[Any, ...]:
    """What must be the same however often a run was killed."""
    with open_database(workspace.database) as db:
        downloads = db.rows("SELECT image_id, state, reason, kind, sha256, variant_id FROM downloads ORDER BY 1")
        contents = db.rows("SELECT sha256, bytes, format, width, height, state FROM files ORDER BY 1")
    return [tuple(row) for row in downloads], [tuple(row) for row in contents]


def start(workspace: Workspace, *more: str, **options: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, str(ROOT / "5_download.py"), *command(workspace, *more)],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=ROOT, **options,
    )  # fmt: skip


def whole_files_only(workspace: Workspace) -> None:
    """Under a final name there is never a half file."""
    for path in workspace.images.glob("??/*"):
        named = read_name(path.name)
        assert named is not None and hashlib.sha256(path.read_bytes()).hexdigest().startswith(named[2])
