"""Passwords and keys in addresses stand nowhere; the database is for its owner; folders that are links are refused."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import pytest
from download_support import fill, originals
from hostile_server import Site
from support import ROOT, STEPS, as_rows, drawing, load_step, run_step, snapshot

from lib.text import hide, redact, redact_any, redacted, replacements, without_user
from lib.workspace import FLOORS, Workspace

SECRET, TOKEN = "s3cret-Wort", "t0ken-Wort"

ADDRESSES = [
    ("http://me:s3cret@host/v1", "http://***@host/v1"),
    ("see https://s3cret@host:8080/x?y=1, or not", "see https://***@host:8080/x?y=1, or not"),
    ("s3://AKIA:s3cret@bucket/pictures", "s3://***@bucket/pictures"),
    ("simplecache::s3://a:s3cret@bucket", "simplecache::s3://***@bucket"),
    ("s3:/a:s3cret@bucket", "s3:/***@bucket"),  # as a `Path` writes it
    ("socks5://me:s3:c@ret@proxy:1", "socks5://***@proxy:1"),
    ("http://h/?token=s3cret&a=1", "http://h/?token=***&a=1"),
    ("http://h/?a=1&api_key=s3cret#x", "http://h/?a=1&api_key=***#x"),
    ("http://h/?X-Amz-Signature=s3cret&X-Amz-Date=2026", "http://h/?X-Amz-Signature=***&X-Amz-Date=2026"),
    ("http://h/?key=s3cret", "http://h/?key=***"),
    ("http://h/#access_token=s3cret", "http://h/#access_token=***"),
    ("http://h/?keywords=boat&monkey=1&design=2", "http://h/?keywords=boat&monkey=1&design=2"),
    ("https://medium.com/@somebody/x", "https://medium.com/@somebody/x"),
    ("mail me@example.org: a = b", "mail me@example.org: a = b"),
]


@pytest.mark.parametrize(("text", "expected"), ADDRESSES)
def test_addresses_lose_what_is_secret_and_nothing_else(text: str, expected: str) -> None:
    assert redact(text) == redact(redact(text)) == expected
    assert redacted([Path("a"), {"x": (text, 3)}]) == ["a", {"x": [expected, 3]}]


def test_secrets_are_found_among_options() -> None:
    address = f"http://me:{SECRET}@h/?token={TOKEN}"
    found = replacements([address, ["x", 3], None, Path("a")])
    assert found.keys() == {address, f"me:{SECRET}", SECRET, TOKEN}
    assert hide(f"a {SECRET} b me:{SECRET} {address}", found) == "a *** b *** http://***@h/?token=***"
    assert replacements(["http://e:1@h"]) == {"http://e:1@h": "http://***@h"}  # a short one is part of any text
    assert without_user(f"s3://me:{SECRET}@bucket/a") == "s3://bucket/a"
    assert redact_any(f"'me:{SECRET}@host' is no host") == "'***@host' is no host"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    drawing(1).save(tmp_path / "photos/a.png")
    return tmp_path / "photos"


class _Refusing(BaseHTTPRequestHandler):
    """A server that takes no key and repeats what it was asked."""

    def do_POST(self) -> None:
        body = json.dumps({"error": {"message": f"no: http://{self.headers['Host']}{self.path}"}}).encode()
        self.send_response(401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def port() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def written(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


@pytest.mark.parametrize("extra", [[], ["--json"], ["-vv"], ["--dry-run"]], ids=["plain", "json", "verbose", "preview"])
@pytest.mark.parametrize("by", ["flag", "environment"])
def test_a_password_of_the_model_is_kept_nowhere(
    by: str, extra: list[str], pictures: Path, tmp_path: Path, port: int
) -> None:
    address = f"http://me:{SECRET}@127.0.0.1:{port}/v1?token={TOKEN}"
    given = ["--vlm-url", address] if by == "flag" else []
    environment = {"GLEANER_VLM_URL": address} if by == "environment" else {}
    words = ["vlm", pictures, "--vlm-model", "m", "--subject", "boats", *extra]
    done = run_step("sort", *words, *given, "--workspace", tmp_path / "ws", **environment)
    said = done.stdout + done.stderr
    assert "Traceback" not in said and SECRET not in said and TOKEN not in said
    data = written(tmp_path / "ws")
    assert SECRET.encode() not in data and TOKEN.encode() not in data
    if "--dry-run" not in extra:
        assert (
            f"http://***@127.0.0.1:{port}/v1?token=***"
            in as_rows(tmp_path / "ws/gleaner.db", "SELECT arguments FROM runs")[0][0]
        )


def test_a_password_of_the_store_is_kept_nowhere(
    workspace: Workspace, site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    """Pictures go to the address; rows and messages name it without its password, and the next run finds them there."""
    fill(workspace, originals(site, "/good/1", "/good/2"))
    address = f"memory://me:{SECRET}@store/here"
    step = load_step("download")
    for extra in (["--dry-run"], [], ["--json"], ["-vv"], ["--refresh"], ["--dry-run", "--json"]):
        words = ["--workspace", str(workspace.root), "--to", address, "--allow-private", *extra]
        assert step.main(words) == 0
        shown = capsys.readouterr()
        assert SECRET not in shown.out + shown.err
    assert SECRET.encode() not in written(workspace.root)
    paths = [path for (path,) in as_rows(workspace.database, "SELECT path FROM files WHERE state = 'present'")]
    assert len(paths) == 2 and all(path.startswith("memory://store/here/") for path in paths)
    store, root = fsspec.core.url_to_fs(address)
    assert len([path for path in store.find(root) if path.endswith(".jpg")]) == 2


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ("download", ["--to", f"nothing://me:{SECRET}@host/x?token={TOKEN}"]),
        ("download", ["--to", f"s3://me:{SECRET}@/"]),
        ("sort", ["vlm", "--vlm-model", "m", "--vlm-url", f"ftp://me:{SECRET}@host/?token={TOKEN}"]),
        ("sort", ["vlm", "--vlm-model", "m", "--vlm-url", f"http://me:{SECRET}@ho st/?token={TOKEN}"]),
        ("sort", ["export", "--to", f"s3://me:{SECRET}@host/x"]),
        ("collect", ["--keywords", "x", "--proxy", f"http://me:{SECRET}@host:1/?token={TOKEN}"]),
        ("collect", ["--keywords", "x", "--host", f"http://me:{SECRET}@host"]),
        ("collect", ["--keywords", "x", "--host", f"me:{SECRET}@host"]),
        ("report", ["--extract", "VK", "--to", f"s3://me:{SECRET}@host/x"]),
    ],
)
@pytest.mark.parametrize("extra", [[], ["--json"]], ids=["plain", "json"])
def test_a_wrong_address_is_not_repeated_with_its_password(
    step: str, words: list[str], extra: list[str], workspace: Workspace, tmp_path: Path
) -> None:
    fill(workspace, {})
    done = run_step(step, *words, *extra, "--workspace", workspace.root)
    said = done.stdout + done.stderr
    assert done.returncode in (0, 1, 2) and "Traceback" not in said
    assert SECRET not in said and TOKEN not in said
    assert SECRET.encode() not in written(workspace.root)


def test_a_traceback_does_not_repeat_a_password(tmp_path: Path) -> None:
    code = (
        "import sys; from lib import cli\n"
        "def work(session): raise KeyError('http://me:s3cret@host/?token=t0ken')\n"
        "sys.exit(cli.run(cli.parser('Try.', 'report'), None, work))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "--workspace", str(tmp_path)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 1 and "KeyError" in done.stderr and "work" in done.stderr
    assert "s3cret" not in done.stderr and "t0ken" not in done.stderr


def test_the_database_is_for_its_owner(pictures: Path, tmp_path: Path) -> None:
    workspace = tmp_path / "ws"
    before = os.umask(0o022)
    try:
        assert run_step("ingest", "--import-folder", pictures, "--workspace", workspace).returncode == 0
        database = workspace / "gleaner.db"
        assert stat.S_IMODE(database.stat().st_mode) == 0o600
        database.chmod(0o644)
        assert run_step("report", "--workspace", workspace, "--dry-run").returncode == 0
        assert stat.S_IMODE(database.stat().st_mode) == 0o644, "a dry run writes nothing"
        assert run_step("report", "--workspace", workspace).returncode == 0
        assert stat.S_IMODE(database.stat().st_mode) == 0o600
        assert stat.S_IMODE((workspace / "reports/domains.html").stat().st_mode) == 0o644  # meant to be passed on
    finally:
        os.umask(before)


LINKS = [
    *FLOORS,
    *("images/ab", "quarantine/2", "quarantine/3", "sorted/orientation", "sorted/orientation/landscape"),
    *("reports/thumbs", "reports/dedup_thumbnails/ab", "xhr/yandex", "xhr/yandex/1"),
]


@pytest.mark.parametrize("place", LINKS)
@pytest.mark.parametrize("step", STEPS)
def test_a_folder_that_is_a_link_is_refused(
    step: str, place: str, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the steps write would end up outside the workspace, over somebody else's files."""
    workspace, outside = tmp_path / "ws", tmp_path / "outside"
    outside.mkdir()
    (workspace / place).parent.mkdir(parents=True)
    (workspace / place).symlink_to(outside)
    before = snapshot(tmp_path)
    words: dict[str, list[Any]] = {
        "collect": ["--list"], "ingest": ["--import-folder", pictures], "sort": ["orientation", pictures],
        "dedup": ["exact", pictures],
    }  # fmt: skip
    for preview in ([], ["--dry-run"]):
        given = [*map(str, words.get(step, [])), *preview, "--workspace", str(workspace)]
        assert load_step(step).main(given) == 2
        said = capsys.readouterr().err
        assert said.startswith("error: ") and f"{place} is a link; put a folder in its place" in said
    assert snapshot(tmp_path) == before


def test_a_workspace_that_is_a_link_is_somebodys_choice(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "ws").symlink_to(tmp_path / "real")
    words = ["--import-folder", str(pictures), "--workspace", str(tmp_path / "ws")]
    assert load_step("ingest").main(words) == 0
    assert load_step("sort").main(["orientation", "--mode", "symlink", "--workspace", str(tmp_path / "ws")]) == 0
    assert load_step("sort").main(["orientation", "--mode", "symlink", "--workspace", str(tmp_path / "ws")]) == 0
