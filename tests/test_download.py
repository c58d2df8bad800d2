"""Step 5 against a server that plays every trick: states and reasons, files and rows, kills and full disks."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hostile_server import Site, hostile_server, jpeg, picture

from lib.db import open_database
from lib.db.downloads import claim
from lib.download import download
from lib.downloading.engine import Options
from lib.downloading.keeper import PictureLimits
from lib.downloading.names import file_name, read_name, safe_id
from lib.net.client import Limits
from lib.times import utc_in, utc_now
from lib.workspace import Workspace

ROOT = Path(__file__).resolve().parents[1]
Rows = dict[str, list[tuple[Any, ...]]]  # image id -> (kind, url, width, height, referer)


def load_step() -> Any:
    spec = importlib.util.spec_from_file_location("step_5_download", ROOT / "5_download.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


step = load_step()


@pytest.fixture(scope="module")
def server() -> Iterator[Site]:
    with hostile_server() as running:
        yield running


@pytest.fixture
def site(server: Site) -> Site:
    server.asked.clear()
    server.headers.clear()
    server.peers.clear()
    server.slow = 0.0
    server.most_at_once = 0
    return server


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "ws")


def fill(workspace: Workspace, rows: Rows, page_url: str = "") -> None:
    """Writes pictures and their addresses, as step 2 would."""
    workspace.root.mkdir(exist_ok=True)
    with open_database(workspace.database) as db, db.transaction():
        for image_id, variants in rows.items():
            db.execute(
                "INSERT INTO images (id, engine, page_url, first_seen_at) VALUES (?, 'test', ?, ?)",
                (image_id, page_url, utc_now()),
            )
            for kind, url, *rest in variants:
                width, height, referer = (*rest, *(None, None, "")[len(rest) :])
                db.execute(
                    "INSERT INTO image_variants (image_id, kind, url, width, height, referer)"
                    " VALUES (?, ?, ?, ?, ?, ?)",
                    (image_id, kind, url, width, height, referer or ""),
                )


def originals(site: Site, *paths: str) -> Rows:
    return {f"test:{n:04d}": [("original", site.address(path))] for n, path in enumerate(paths)}


QUICK = Limits(timeout=0.4, deadline=8, max_bytes=1 << 20, min_speed=2000, speed_window=0.3)


def options(**changes: Any) -> Options:
    return Options(**{"limits": QUICK, "retries": 1, "backoff": 0.01, "allow_private": True, **changes})


def run(workspace: Workspace, retry: list[str] | None = None, **changes: Any) -> Any:
    """One run in this process, as the step would do it."""
    with open_database(workspace.database) as db:
        run_id = db.execute(
            "INSERT INTO runs (step, started_at, version) VALUES ('download', ?, '0')", (utc_now(),)
        ).lastrowid
        report = download(db, workspace, int(run_id or 0), options(**changes), retry=retry)
        db.execute("UPDATE runs SET exit_code = 0, finished_at = ? WHERE id = ?", (utc_now(), run_id))
        return report


def rows(workspace: Workspace) -> dict[str, dict[str, Any]]:
    with open_database(workspace.database) as db:
        return {row["image_id"]: dict(row) for row in db.rows("SELECT * FROM downloads ORDER BY image_id")}


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


# --- states and reasons --------------------------------------------------------------------------------------------

FAILURES = [
    # path, state, reason, requests (with one retry)
    ("/missing/1", "failed", "http_404", 1),
    ("/gone/1", "failed", "http_410", 1),
    ("/legal/1", "failed", "http_451", 1),
    ("/error/1", "failed", "http_500", 2),
    ("/html/1", "failed", "not_an_image", 1),
    ("/json/1", "failed", "not_an_image", 1),
    ("/noise/1", "failed", "not_an_image", 1),
    ("/svg/1", "failed", "svg_refused", 1),
    ("/empty/1", "failed", "empty", 1),
    ("/cut/1", "failed", "truncated", 2),
    ("/raw/closed", "failed", "truncated", 2),
    ("/endless/1", "failed", "too_large", 1),
    ("/huge/1", "failed", "too_large", 1),
    ("/gzip/1", "failed", "too_large", 1),
    ("/brotli/1", "failed", "encoded_body", 1),
    ("/loris/1", "failed", "too_slow", 2),
    ("/silent/1", "failed", "timeout", 2),
    ("/bomb/1", "failed", "too_many_pixels", 1),
    ("/loop/1", "failed", "too_many_redirects", 6),
    ("/file/1", "failed", "bad_redirect", 1),
    ("/raw/status", "failed", "bad_response", 2),
    ("/raw/hangup", "failed", "disconnected", 4),  # aiohttp itself asks once more over a new connection
    ("/noai/1", "opted_out", "opted_out", 1),
    ("/ours/1", "opted_out", "opted_out", 1),
    ("/tdm/1", "opted_out", "opted_out", 1),
]


@pytest.mark.parametrize(("path", "state", "reason", "requests"), FAILURES)
def test_every_way_to_fail_has_its_reason(
    workspace: Workspace, site: Site, path: str, state: str, reason: str, requests: int
) -> None:
    fill(workspace, originals(site, path))
    report = run(workspace)
    row = only(workspace)
    assert (row["state"], row["reason"], row["sha256"]) == (state, reason, None)
    assert site.asked[path] == requests, site.asked
    assert report.states == {state: 1} and report.reasons == {reason: 1}
    assert files(workspace) == {}
    consistent(workspace)


@pytest.mark.parametrize(
    ("url", "state", "reason"),
    [
        ("file:///etc/hostname", "failed", "bad_url"),
        ("data:image/png;base64,iVBORw0KGgo=", "failed", "bad_url"),
        ("", "failed", "bad_url"),
        ("http://127.0.0.1:1/a.jpg", "blocked", "private_address"),
        ("http://[::ffff:127.0.0.1]/a.jpg", "blocked", "private_address"),
        ("http://localhost/a.jpg", "blocked", "private_address"),
    ],
)
def test_addresses_that_are_never_asked(workspace: Workspace, url: str, state: str, reason: str) -> None:
    fill(workspace, {"test:1": [("original", url)]})
    run(workspace, allow_private=False)
    assert (only(workspace)["state"], only(workspace)["reason"]) == (state, reason)


def test_a_refused_connection_and_an_unknown_name(workspace: Workspace) -> None:
    fill(workspace, {"test:1": [("original", "http://127.0.0.1:1/a")], "test:2": [("original", "http://no.invalid/a")]})
    run(workspace)
    assert [row["reason"] for row in rows(workspace).values()] == ["connect_error", "dns_error"]


def test_a_429_at_the_last_try_is_called_by_its_name(workspace: Workspace, site: Site) -> None:
    fill(workspace, originals(site, "/wait/1"))
    run(workspace, retries=0)
    assert (only(workspace)["state"], only(workspace)["reason"]) == ("failed", "http_429")


def test_a_server_that_speaks_no_tls(workspace: Workspace, site: Site) -> None:
    fill(workspace, {"test:1": [("original", site.address("/good/1").replace("http:", "https:"))]})
    run(workspace)
    assert only(workspace)["reason"] == "tls_error"


def test_more_bytes_than_announced(workspace: Workspace, site: Site) -> None:
    """Whether the surplus is seen depends on how it arrives; the picture is cut off either way."""
    fill(workspace, originals(site, "/raw/longer"))
    run(workspace)
    assert only(workspace)["reason"] in ("bad_response", "truncated") and files(workspace) == {}


def test_a_picture_without_addresses_fails(workspace: Workspace) -> None:
    fill(workspace, {"test:1": []})
    run(workspace)
    assert (only(workspace)["state"], only(workspace)["reason"]) == ("failed", "no_address")


@pytest.mark.parametrize(
    ("path", "extension", "requests"),
    [
        ("/octet/1", "jpg", 1),
        ("/png/1", "png", 1),  # sent as image/jpeg
        ("/theirs/1", "jpg", 1),
        ("/packed/1", "jpg", 1),
        ("/flaky/1", "jpg", 2),
        ("/wait/1", "jpg", 2),
        ("/date/1", "jpg", 2),
        ("/garbage/1", "jpg", 2),
        ("/moved/1", "jpg", 1),
        ("/raw/whole", "jpg", 1),
    ],
)
def test_what_ends_well(workspace: Workspace, site: Site, path: str, extension: str, requests: int) -> None:
    fill(workspace, originals(site, path))
    run(workspace)
    row = only(workspace)
    assert (row["state"], row["kind"], row["http_status"], row["attempts"]) == ("done", "original", 200, requests)
    (name,) = files(workspace)
    assert name.endswith(f"_{row['sha256'][:8]}.{extension}") and "_original_" in name
    assert site.asked[path] == requests
    consistent(workspace)


def test_the_row_says_how_it_was_fetched(workspace: Workspace, site: Site) -> None:
    fill(workspace, originals(site, "/moved/1"))
    run(workspace)
    row = only(workspace)
    assert row["final_url"] == site.address("/good/77") and row["etag"] == '"77"'
    assert row["bytes"] == len(jpeg(77)) and row["content_type"] == "image/jpeg" and row["variant_id"] == 1
    with open_database(workspace.database) as db:
        found = db.row("SELECT * FROM files")
    assert found is not None
    assert [found[name] for name in ("format", "width", "height", "frames", "orientation")] == ["jpeg", 48, 32, 1, 1]
    assert found["sha256"] == hashlib.sha256(jpeg(77)).hexdigest()


# --- the ladder ----------------------------------------------------------------------------------------------------


def test_the_ladder_is_climbed_down_and_logged(workspace: Workspace, site: Site) -> None:
    fill(
        workspace,
        {
            "test:1": [
                ("thumb", site.address("/good/1"), 10, 10),
                ("dup", site.address("/good/2"), 900, 900),
                ("preview", site.address("/html/1"), 500, 500),
                ("preview", site.address("/error/1"), 800, 800),
                ("original", site.address("/missing/1")),
            ]
        },
    )
    run(workspace)
    row = only(workspace)
    assert (row["state"], row["kind"], row["attempts"]) == ("done", "dup", 5)
    tried = [(entry["kind"], entry["reason"], entry["tries"]) for entry in json.loads(row["log"])]
    assert tried == [
        ("original", "http_404", 1),
        ("preview", "http_500", 2),
        ("preview", "not_an_image", 1),
        ("dup", "", 1),
    ]
    assert site.asked["/good/1"] == 0


def test_the_reason_of_a_failed_row_is_that_of_its_best_address(workspace: Workspace, site: Site) -> None:
    fill(workspace, {"test:1": [("thumb", site.address("/empty/1")), ("original", site.address("/missing/1"))]})
    run(workspace)
    assert (only(workspace)["reason"], only(workspace)["http_status"]) == ("http_404", 404)


def test_an_opt_out_ends_the_ladder(workspace: Workspace, site: Site) -> None:
    """The preview shows the same picture, whose owner has said no."""
    fill(workspace, {"test:1": [("original", site.address("/noai/1")), ("preview", site.address("/good/1"))]})
    run(workspace)
    assert only(workspace)["state"] == "opted_out" and site.asked["/good/1"] == 0


@pytest.mark.parametrize(
    ("want", "stored", "page", "requests"),
    [
        ("http://page.example/x", "http://page.example/x", "", 1),
        ("", "http://page.example/x", "", 2),
        ("https://page.example/", "", "https://page.example/a", 1),
        ("https://page.example/a", "", "https://page.example/a", 2),
    ],
)
def test_the_referer_is_sent_and_changed_after_a_403(
    workspace: Workspace, site: Site, want: str, stored: str, page: str, requests: int
) -> None:
    url = site.address(f"/referer/1?want={want}")
    fill(workspace, {"test:1": [("original", url, 1, 1, stored)]}, page_url=page)
    run(workspace)
    assert only(workspace)["state"] == "done" and site.asked["/referer/1"] == requests


def test_a_second_referer_that_fails_too_ends_the_address(workspace: Workspace, site: Site) -> None:
    fill(workspace, {"test:1": [("original", site.address("/referer/1?want=never"))]}, "https://page.example/a")
    run(workspace)
    assert only(workspace)["reason"] == "http_403" and site.asked["/referer/1"] == 2


# --- one content, many rows ----------------------------------------------------------------------------------------


def test_one_content_is_one_file_for_many_rows(workspace: Workspace, site: Site) -> None:
    fill(workspace, originals(site, *["/good/7"] * 20))
    report = run(workspace)
    assert len(files(workspace)) == 1 and report.files == 1 and report.states == {"done": 20}
    consistent(workspace)


def test_quarantined_content_is_not_fetched_back(workspace: Workspace, site: Site) -> None:
    fill(workspace, originals(site, "/good/7"))
    run(workspace)
    (name,) = files(workspace)
    (workspace.root / name).unlink()
    with open_database(workspace.database) as db:
        db.execute("UPDATE files SET state = 'quarantined', path = 'quarantine/1/x.jpg'")
    fill(workspace, {"other:1": [("original", site.address("/good/7"))]})
    run(workspace)
    assert rows(workspace)["other:1"]["state"] == "done" and files(workspace) == {}
    with open_database(workspace.database) as db:
        assert db.rows("SELECT state FROM files")[0]["state"] == "quarantined"


@pytest.mark.parametrize("state", ["missing", "present"])
def test_missing_content_is_restored(workspace: Workspace, site: Site, state: str) -> None:
    fill(workspace, originals(site, "/good/7"))
    run(workspace)
    (name,) = files(workspace)
    (workspace.root / name).unlink()
    with open_database(workspace.database) as db:
        db.execute("UPDATE files SET state = ?", (state,))
    fill(workspace, {"other:1": [("original", site.address("/good/7"))]})
    run(workspace)
    assert len(files(workspace)) == 1
    consistent(workspace)


# --- names ---------------------------------------------------------------------------------------------------------


def test_names_are_ours_and_never_meet(workspace: Workspace, site: Site) -> None:
    """Ids with dots, traversal, reserved words and letters of either case: other names, all inside images/."""
    ids = [
        "t:a.b",
        "t:a.c",
        "t:a",
        "../../x",
        "t:../../x",
        "t:CON",
        "t:con",
        "t:AUX.jpg",
        "t:é",
        "t:\u202egpj",
        "t:" + "l" * 5000,
    ]
    fill(workspace, {image_id: [("original", site.address(f"/good/{n}"))] for n, image_id in enumerate(ids)})
    run(workspace)
    assert {row["state"] for row in rows(workspace).values()} == {"done"}
    names = [Path(path).name for path in files(workspace)]
    assert len({name.casefold() for name in names}) == len(ids)
    assert all(name.isascii() and len(name) < 200 and read_name(name) for name in names)
    consistent(workspace)


def test_safe_ids() -> None:
    assert safe_id("yandex:0af3-9") == "yandex-0af3-9"
    assert len({safe_id(x) for x in ("a:b.c", "a:b-c", "a-b:c", "a:b_c", "A:b-c", "a:b/c")}) == 6
    assert read_name(file_name("a:b_c", "dup", None, None, "ab" * 32, "heic"))[1:] == ("dup", "abababab")  # type: ignore[index]


# --- running again -------------------------------------------------------------------------------------------------


def test_a_second_run_asks_nobody_and_changes_nothing(workspace: Workspace, site: Site) -> None:
    fill(workspace, originals(site, "/good/1", "/missing/1", "/noai/1", "/html/1", "/flaky/3"))
    run(workspace)
    before, shown = rows(workspace), files(workspace)
    site.asked.clear()
    assert run(workspace).states == {}
    assert not site.asked and rows(workspace) == before and files(workspace) == shown


def test_the_limit_counts_pictures(workspace: Workspace, site: Site) -> None:
    fill(workspace, originals(site, *[f"/good/{n}" for n in range(9)]))
    assert run(workspace, limit=4).states == {"done": 4}
    assert run(workspace).states == {"done": 5}
    assert set(site.asked.values()) == {1}


def test_an_address_that_step_4_took_away_meanwhile(workspace: Workspace, site: Site) -> None:
    site.slow = 0.3
    fill(workspace, originals(site, "/good/1"))
    process = start(workspace)
    while not site.asked and process.poll() is None:
        time.sleep(0.01)
    with open_database(workspace.database) as db:
        db.execute("DELETE FROM image_variants")
    assert process.wait(30) == 0
    assert (only(workspace)["state"], only(workspace)["variant_id"]) == ("done", None)
    consistent(workspace)


def test_retry_failed_all_or_by_reason(workspace: Workspace, site: Site) -> None:
    fill(workspace, originals(site, "/good/1", "/missing/1", "/html/1", "/noai/1"))
    run(workspace)
    site.asked.clear()
    run(workspace, retry=["not_an_image"])
    assert site.asked == {"/html/1": 1}
    run(workspace, retry=[])
    assert site.asked == {"/html/1": 2, "/missing/1": 1}
    assert rows(workspace)["test:0002"]["attempts"] == 3


def test_a_long_retry_after_leaves_the_row_for_a_later_run(workspace: Workspace, site: Site) -> None:
    """Ten rows of one host, asked one at a time: the first answer speaks for all of them."""
    fill(workspace, originals(site, *[f"/late/{n}" for n in range(10)]))
    report = run(workspace, per_host=1)
    found = list(rows(workspace).values())
    assert {row["state"] for row in found} == {"pending"} and sum(site.asked.values()) == 1
    assert {row["reason"] for row in found} == {"http_429", "host_paused"}
    assert all(utc_in(3000) < row["next_try_at"] <= utc_in(3600) for row in found)
    assert report.waiting == 10
    before = rows(workspace)
    run(workspace)
    assert rows(workspace) == before and sum(site.asked.values()) == 1


def test_a_busy_host_keeps_nobody_waiting(workspace: Workspace, site: Site) -> None:
    slow = {f"slow:{n}": [("original", site.address(f"/silent/{n}"))] for n in range(6)}
    good = {f"good:{n}": [("original", site.address(f"/good/{n}").replace("127.0.0.1", "localhost"))] for n in range(6)}
    fill(workspace, slow)
    fill(workspace, good)
    with open_database(workspace.database) as db:
        report = download(db, workspace, 0 or None, options(per_host=1, retries=0, limit=12))  # type: ignore[arg-type]
    assert report.states == {"done": 6, "failed": 6}
    assert max(site.first_asked[f"/good/{n}"] for n in range(6)) < site.first_asked["/silent/5"]


def test_per_host_limit(workspace: Workspace, site: Site) -> None:
    site.slow = 0.02
    fill(workspace, originals(site, *[f"/good/{n}" for n in range(40)]))
    run(workspace, per_host=3, concurrency=20)
    assert site.most_at_once <= 3 and len(site.peers) <= 3


def test_rows_of_another_live_process_are_left_alone(workspace: Workspace, site: Site) -> None:
    fill(workspace, originals(site, "/good/1", "/good/2"))
    run(workspace, limit=1)
    with open_database(workspace.database) as db:
        db.execute("UPDATE downloads SET state = 'pending', lease = 'elsewhere:1', lease_until = ?", (utc_in(60),))
        assert claim(db, "here:2", utc_in(60), ("", -1), 10) == []
        db.execute("UPDATE downloads SET lease_until = ?", (utc_in(-60),))
        assert len(claim(db, "here:2", utc_in(60), ("", -1), 10)) == 2


def test_memory_holds_a_window_of_rows_only(workspace: Workspace, site: Site) -> None:
    """More rows than the window, all to one host: they come out of the database in blocks."""
    fill(workspace, originals(site, *[f"/good/{n}" for n in range(2600)]))
    report = run(workspace, per_host=16)
    assert report.states == {"done": 2600} and sum(site.asked.values()) == 2600
    assert len(site.peers) <= 16  # kept alive, not opened anew
    consistent(workspace)


def test_a_large_picture_goes_through_a_temporary_file(workspace: Workspace, site: Site) -> None:
    fill(workspace, originals(site, "/big/1"))
    run(workspace, limits=Limits(max_bytes=8 << 20))
    ((name, data),) = files(workspace).items()
    assert len(data) > 6 << 20 and data.startswith(jpeg(1)) and name.endswith(".jpg")
    consistent(workspace)
    fill(workspace, {"other:1": [("original", site.address("/big/2"))]})
    run(workspace, limits=Limits(max_bytes=5 << 20))
    assert rows(workspace)["other:1"]["reason"] == "too_large"
    consistent(workspace)


def test_the_limit_on_pixels_is_an_option(workspace: Workspace, site: Site) -> None:
    fill(workspace, originals(site, "/good/1"))
    run(workspace, pictures=PictureLimits(1000))
    assert only(workspace)["reason"] == "too_many_pixels" and files(workspace) == {}


def test_no_cookie_is_kept_and_no_password_sent(workspace: Workspace, site: Site) -> None:
    fill(workspace, originals(site, "/cookie/1", "/good/1"))
    with open_database(workspace.database) as db:
        db.execute("UPDATE image_variants SET url = replace(url, '//', '//me:secret@')")
    run(workspace, concurrency=1)
    assert {row["state"] for row in rows(workspace).values()} == {"done"}
    assert all("Cookie" not in h and "Authorization" not in h for h in site.headers.values())


# --- the command ---------------------------------------------------------------------------------------------------


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else b"" for p in sorted(folder.rglob("*"))}


def command(workspace: Workspace, *more: str) -> list[str]:
    return ["--workspace", str(workspace.root), "--allow-private", "--backoff", "0.01", *more]


def test_a_dry_run_asks_nobody_and_leaves_the_workspace_as_it_is(
    workspace: Workspace, site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(workspace, originals(site, "/good/1", "/missing/1"))
    before = snapshot(workspace.root)
    assert step.main(command(workspace, "--dry-run")) == 0
    out, err = capsys.readouterr()
    assert f"would fetch  test:0000  original  {site.address('/good/1')}" in out
    assert "2 to fetch, 1 hosts" in err
    assert snapshot(workspace.root) == before and not site.asked
    assert step.main(command(workspace)) == 0
    before = snapshot(workspace.root)
    assert step.main(command(workspace, "--dry-run", "--retry-failed")) == 0
    assert "1 to fetch" in capsys.readouterr().err
    assert snapshot(workspace.root) == before


def test_the_summary_counts_states_and_reasons(
    workspace: Workspace, site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(workspace, originals(site, "/good/1", "/missing/1", "/noai/1", "/html/1"))
    assert step.main(command(workspace, "--json")) == 0
    counts = json.loads(capsys.readouterr().out)["counts"]
    assert {"done": 1, "failed": 2, "opted_out": 1, "http_404": 1, "not_an_image": 1}.items() <= counts.items()


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["--retry-failed", "timeuot"], 2, "no row failed with timeuot"),
        (["--max-bytes", "0"], 2, "--max-bytes 0 keeps nothing"),
    ],
)
def test_wrong_use_is_one_sentence(
    workspace: Workspace, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, sentence: str
) -> None:
    fill(workspace, {})
    assert step.main(command(workspace, *arguments)) == code
    assert sentence in capsys.readouterr().err


def test_it_says_what_to_run_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert step.main(["--workspace", str(tmp_path / "none")]) == 2
    assert "1_collect.py" in capsys.readouterr().err


# --- kills and disks -----------------------------------------------------------------------------------------------


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


def test_killed_at_any_moment_and_run_again_it_ends_the_same(workspace: Workspace, site: Site, tmp_path: Path) -> None:
    site.slow = 0.004
    undisturbed = Workspace(tmp_path / "undisturbed")
    fill(undisturbed, mixed(site, 300))
    run(undisturbed, limits=Limits())
    rng = random.Random(5)
    fill(workspace, mixed(site, 300))
    site.asked.clear()
    kills = 0
    for _ in range(6):
        process = start(workspace, "--per-host", "4")
        while not any(site.asked.values()) and process.poll() is None:
            time.sleep(0.005)
        time.sleep(rng.uniform(0.0, 0.25))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kills += process.returncode == -signal.SIGKILL
        whole_files_only(workspace)
    assert kills >= 3
    assert step.main(command(workspace, "-q")) == 0
    assert outcome(workspace) == outcome(undisturbed)
    consistent(workspace)
    good = {path: n for path, n in site.asked.items() if path.startswith("/good/") and path != "/good/3"}
    assert sum(good.values()) - len(good) <= kills * 4  # asked again: only what was in flight
    site.asked.clear()
    assert step.main(command(workspace, "-q")) == 0
    assert not site.asked


def test_two_runs_at_once_share_the_work(workspace: Workspace, site: Site) -> None:
    site.slow = 0.004
    fill(workspace, originals(site, *[f"/good/{n // 2}" for n in range(1200)]))  # every content twice
    both = [start(workspace, "--per-host", "8") for _ in range(2)]
    messages = [process.communicate(timeout=60)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], messages
    assert {row["state"] for row in rows(workspace).values()} == {"done"}
    assert set(site.asked.values()) == {2} and len(files(workspace)) == 600
    consistent(workspace)


def test_ctrl_c_finishes_what_is_in_flight(workspace: Workspace, site: Site) -> None:
    site.slow = 0.02
    fill(workspace, originals(site, *[f"/good/{n}" for n in range(400)]))
    process = start(workspace, "--per-host", "2")
    while sum(site.asked.values()) < 20 and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130 and b"Traceback" not in err
    done = [row for row in rows(workspace).values() if row["state"] == "done"]
    assert 0 < len(done) < 400 and len(done) == sum(site.asked.values())
    consistent(workspace)
    assert step.main(command(workspace, "-q", "--per-host", "32")) == 0
    assert set(site.asked.values()) == {1} and len(site.asked) == 400


def small_disk(folder: Path, kilobytes: int) -> bool:
    """A file system of its own for the pictures, where this may be had."""
    folder.mkdir(parents=True)
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)], capture_output=True, check=False
    )
    return made.returncode == 0


def full_disk_rows(site: Site) -> Rows:
    return originals(site, *[f"/big/{n}" for n in range(4)], *[f"/good/{n}" for n in range(8)])


def test_a_full_disk_stops_the_run_and_leaves_rows_pending(workspace: Workspace, site: Site) -> None:
    fill(workspace, full_disk_rows(site))
    more = ["--min-free", "0", "--per-host", "2"]
    if small_disk(workspace.images, 15_000):
        try:
            process = start(workspace, *more)
            _, err = process.communicate(timeout=60)
            whole_files_only(workspace)
            saved = workspace.root.parent / "saved"
            shutil.copytree(workspace.images, saved)
        finally:
            subprocess.run(["umount", str(workspace.images)], check=True)
        workspace.images.rmdir()
        saved.rename(workspace.images)
        assert b"no space is left" in err
    else:  # without the right to mount, a limit on the size of a file fails the write in the same place
        process = start(workspace, *more, preexec_fn=lambda: limit_file_size(1 << 22))
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1 and b"Traceback" not in err, err
    states = [row["state"] for row in rows(workspace).values()]
    assert "pending" in states and "failed" not in states
    assert step.main(command(workspace, "-q", *more)) == 0
    assert {row["state"] for row in rows(workspace).values()} == {"done"}
    consistent(workspace)


def limit_file_size(size: int) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def test_too_little_room_is_seen_before_it_is_used_up(
    workspace: Workspace, site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(workspace, originals(site, "/good/1"))
    assert step.main(command(workspace, "--min-free", "900000G")) == 1
    assert "--min-free" in capsys.readouterr().err
    assert not site.asked and only(workspace)["state"] == "pending"


def test_a_folder_that_vanishes_stops_the_run(workspace: Workspace, site: Site) -> None:
    site.slow = 0.01
    fill(workspace, originals(site, *[f"/good/{n}" for n in range(600)]))
    process = start(workspace, "--per-host", "2")
    while sum(site.asked.values()) < 30 and process.poll() is None:
        time.sleep(0.01)
    shutil.rmtree(workspace.images, ignore_errors=True)
    shutil.rmtree(workspace.images, ignore_errors=True)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 1 and b"Traceback" not in err, err
    assert "pending" in {row["state"] for row in rows(workspace).values()}


def test_stale_temporary_files_are_swept_but_only_our_own(workspace: Workspace, site: Site) -> None:
    from lib.downloading.keeper import part_owner

    fill(workspace, originals(site, "/good/1"))
    parts = workspace.images / ".part"
    parts.mkdir(parents=True)
    machine = part_owner().partition("-")[0]
    (parts / f"{machine}-999999999-0.part").write_bytes(b"half")
    (parts / f"{machine}-{os.getppid()}-0.part").write_bytes(b"at work")
    (parts / "ffffff-1-0.part").write_bytes(b"of another machine")
    run(workspace)
    assert {path.name for path in parts.iterdir()} == {f"{machine}-{os.getppid()}-0.part", "ffffff-1-0.part"}


def test_a_file_without_a_row_is_adopted_only_if_it_is_what_its_name_says(workspace: Workspace, site: Site) -> None:
    """What a kill between the rename and the commit leaves; the second file was tampered with."""
    fill(workspace, originals(site, "/good/1", "/good/2"))
    run(workspace)
    expected = outcome(workspace)
    with open_database(workspace.database) as db:
        db.execute("UPDATE downloads SET state = 'pending', sha256 = NULL, kind = '', variant_id = NULL")
        db.execute("DELETE FROM files")
        db.execute("UPDATE runs SET exit_code = NULL")
    second = next(name for name in files(workspace) if "test-0001" in name)
    (workspace.root / second).write_bytes(picture(99))
    site.asked.clear()
    run(workspace)
    assert site.asked == {"/good/2": 1} and outcome(workspace) == expected
    consistent(workspace)


def test_a_symlink_in_the_way_is_not_written_through(workspace: Workspace, site: Site, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    data = jpeg(1)
    name = file_name("test:0000", "original", 48, 32, hashlib.sha256(data).hexdigest(), "jpg")
    shelf = workspace.images / hashlib.sha256(b"test:0000").hexdigest()[:2]
    shelf.mkdir(parents=True)
    (shelf / name).symlink_to(victim)
    fill(workspace, originals(site, "/good/1"))
    run(workspace)
    assert victim.read_bytes() == b"precious" and not (shelf / name).is_symlink()
    consistent(workspace)


def test_the_database_functions_need_no_network() -> None:
    code = "import sys; import lib.db.downloads; assert not {'aiohttp', 'PIL', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys, runpy; sys.argv = ['5_download.py', '--help']\n"
        "try: runpy.run_path('5_download.py', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "assert not {'aiohttp', 'PIL', 'numpy', 'yarl'} & set(sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, stdout=subprocess.DEVNULL, env=environment)
