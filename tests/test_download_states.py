"""Step 5 against a server that plays every trick: states and reasons, the ladder, contents and names."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from download_support import (
    consistent,
    files,
    fill,
    limits_for,
    only,
    originals,
    rows,
    run,
)
from hostile_server import Site, jpeg

from lib.db import open_database
from lib.files.names import file_name, read_name, safe_id
from lib.workspace import Workspace

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
    stats = run(workspace, limits=limits_for(path))
    row = only(workspace)
    assert (row["state"], row["reason"], row["sha256"]) == (state, reason, None)
    # Whether the server has read a request before it is given up is not for us to say: then our own count has to do.
    assert (row["attempts"] if reason == "timeout" else site.asked[path]) == requests, site.asked
    assert stats.states == {state: 1} and stats.reasons == {reason: 1}
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


def test_one_content_is_one_file_for_many_rows(workspace: Workspace, site: Site) -> None:
    fill(workspace, originals(site, *["/good/7"] * 20))
    stats = run(workspace)
    assert len(files(workspace)) == 1 and stats.files == 1 and stats.states == {"done": 20}
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
