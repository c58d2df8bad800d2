"""Wrong paths, addresses and flags: one sentence, one JSON object where it was asked for, and nothing that was made."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
from download_support import command, fill, originals, rows, step
from fsspec.implementations.memory import MemoryFileSystem
from hostile_server import Site, picture
from support import flat, load_step

from lib.cli.run import explain_os
from lib.download.targets import RemoteTarget
from lib.errors import GleanerError
from lib.workspace import Workspace


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to stand in, with a workspace, some pictures and files that are no pictures."""
    monkeypatch.chdir(tmp_path)
    for number in range(2):
        (tmp_path / "pics").mkdir(exist_ok=True)
        (tmp_path / f"pics/{number}.png").write_bytes(picture(number, form="PNG"))
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").write_text("x")
    (tmp_path / "list.txt").write_text("http://127.0.0.1:1/a.jpg\n")
    for source in (["--import-folder", "pics"], ["--import", "list.txt"]):
        assert load_step("ingest").main(["--workspace", "ws", "-q", *source]) == 0
    return tmp_path


def tree(folder: Path) -> list[str]:
    """Every path, but what SQLite and the locks leave beside a database that was there."""
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*"))
    return sorted(name for name in names if not name.endswith(("-wal", "-shm", ".lock")))


def code_of(name: str, words: list[str]) -> int:
    try:
        return int(load_step(name).main(words))
    except SystemExit as end:
        return int(end.code or 0)


NEW, OLD = ["--workspace", "wrokspace"], ["--workspace", "ws"]
WRONG = [
    ("collect", [*NEW, "--list"]),
    ("collect", [*NEW, "--images", "nopics"]),
    ("collect", [*NEW, "--keywords-file", "no.txt"]),
    ("collect", [*NEW, "--replay", "no.har", "--keywords", "a"]),
    ("collect", [*NEW, "--replay", "empty", "--keywords", "a"]),
    ("collect", [*NEW, "--keywords", "a", "--host", "nonsense host"]),
    ("collect", [*NEW, "--keywords", "a", "--engine", "yandx"]),
    ("collect", ["--workspace", "s3://bucket/x", "--keywords", "a"]),
    ("ingest", NEW),
    ("ingest", [*NEW, "--import", "no.csv"]),
    ("ingest", [*NEW, "--import", "empty"]),
    ("ingest", [*NEW, "--import", "file.txt"]),
    ("ingest", [*NEW, "--import", "s3://bucket/list.csv"]),
    ("ingest", [*NEW, "--import-folder", "nopics"]),
    ("ingest", [*NEW, "--import-folder", "file.txt"]),
    ("ingest", [*NEW, "--rescan"]),
    ("ingest", ["--workspace", "a/b/c", "--import", "no.csv"]),
    ("ingest", ["--workspace", "file.txt", "--import", "list.txt"]),
    ("ingest", ["--workspace"]),
    ("report", NEW),
    ("report", [*OLD, "--by", "nonsense"]),
    ("report", [*OLD, "--blocklist", "nodir/b.txt"]),
    ("report", [*OLD, "--extract", "127.0.0.1", "--to", "nodir/x.db"]),
    ("cleanup", [*NEW, "--restore", "last"]),
    ("cleanup", [*NEW, "--reset", "everything", "--yes", "wrokspace"]),
    ("cleanup", [*OLD, "--blocklist", "no.txt"]),
    ("cleanup", [*OLD, "--rule", "nonsense"]),
    ("download", [*NEW, "--to", "memory://x"]),
    ("dedup", NEW),
    ("dedup", [*NEW, "exact", "nopics"]),
    ("dedup", [*NEW, "exact", "pics", "--decisions", "no.json"]),
    ("dedup", [*NEW, "exact", "pics", "--plan", "nodir/p.json"]),
    ("dedup", [*NEW, "semantic", "pics", "--models-dir", "no"]),
    ("dedup", [*OLD, "--apply", "no.json"]),
    ("sort", [*NEW, "quality"]),
    ("sort", [*NEW, "quality", "nopics"]),
    ("sort", [*OLD, "export", "--to", "s3://bucket/x"]),
    ("sort", [*OLD, "nonsense"]),
    ("dedup", [*NEW, "exact", "pics", "--plan", "empty"]),
    ("dedup", [*NEW, "exact", "pics", "--plan", "a" * 300]),
    ("dedup", [*NEW, "exact", "pics", "--plan", "s3://"]),
    ("dedup", [*NEW, "semantic", "pics", "--models-dir", "a" * 300]),
    ("dedup", [*NEW, "exact", "pics", "--purge", "9"]),
    ("report", [*OLD, "--blocklist", "pics"]),
    ("sort", [*NEW, "export", "empty"]),
    ("sort", [*OLD, "orientation", "--nonsense"]),
]


@pytest.mark.parametrize(("name", "words"), WRONG, ids=[" ".join([name, *words]) for name, words in WRONG])
def test_a_typing_error_makes_nothing(
    desk: Path, capsys: pytest.CaptureFixture[str], name: str, words: list[str]
) -> None:
    before = tree(desk)
    code = code_of(name, [*words, "--json"])
    out, err = capsys.readouterr()
    assert code in (1, 2) and "Traceback" not in err
    said = flat(out)
    assert said["exit_code"] == code and said["error"] and "\n" not in said["error"].strip()
    assert tree(desk) == before


UNSET = [
    # As "$FOLDER" is where nobody set it: an empty path would be the folder that one stands in.
    ("collect", ["--images", ""]),
    ("collect", ["--keywords", "a", "--proxy", ""]),
    ("collect", ["--keywords", ""]),
    ("ingest", ["--import-folder", ""]),
    ("ingest", ["--import", "list.txt", "--url-column", ""]),
    ("report", ["--blocklist", ""]),
    ("cleanup", ["--allowlist", ""]),
    ("download", ["--to", ""]),
    ("download", ["--placeholders", ""]),
    ("dedup", ["exact", ""]),
    ("dedup", ["exact", "pics", ""]),
    ("dedup", ["exact", "pics", "--reference", ""]),
    ("dedup", ["exact", "pics", "--protect", ""]),
    ("dedup", ["exact", "pics", "--plan", ""]),
    ("dedup", ["--workspace", "", "exact", "pics"]),
    ("sort", ["quality", ""]),
    ("sort", ["quality", "pics", "--where", ""]),
    ("sort", ["export", "--to", ""]),
]


@pytest.mark.parametrize(("name", "words"), UNSET, ids=[" ".join([name, *words]) for name, words in UNSET])
def test_an_empty_value_stands_for_nothing(
    desk: Path, capsys: pytest.CaptureFixture[str], name: str, words: list[str]
) -> None:
    before = tree(desk)
    assert code_of(name, [*OLD, *words, "--json"]) == 2
    out, err = capsys.readouterr()
    assert "empty" in json.loads(out)["result"]["error"] and "Traceback" not in err
    assert tree(desk) == before


TARGETS = [
    "s3://bucket/x",  # its package is not installed here
    "gs://bucket/x",
    "az://box/x",
    "s4://x",
    "memroy://x",
    "flie:///x",
    "htp://x",
    "http://127.0.0.1:1/x",
    "github://a:b@/x",
    "zip://a.zip",
    "simplecache::memory://x",
    "memory//x",
    "s3:/bucket/x",
    "s3:bucket",
    "://x",
    "file://nodir/x",
    "local://x/y",
    "file.txt",
    "file.txt/sub",
    "~nobody/x",
]


@pytest.mark.parametrize("preview", [False, True])
@pytest.mark.parametrize("address", TARGETS)
def test_a_mistyped_address_makes_no_folder(
    desk: Path, capsys: pytest.CaptureFixture[str], address: str, preview: bool
) -> None:
    before = tree(desk)
    words = [*OLD, "--to", address, "--json", *(["--dry-run"] if preview else [])]
    code = code_of("download", words)
    out, err = capsys.readouterr()
    assert code == 2 and json.loads(out)["result"]["error"].startswith("--to ") and "Traceback" not in err
    assert tree(desk) == before


class Broken(MemoryFileSystem):
    """A store whose library raises what such libraries raise, when asked for anything or only when written to."""

    protocol = "gleanerbroken"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    error: ClassVar[Exception] = RuntimeError()
    asked = False

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return MemoryFileSystem._strip_protocol(path.replace("gleanerbroken://", "memory://"))

    def info(self, path: str, **options: Any) -> Any:
        if self.asked:
            raise self.error
        return super().info(path, **options)

    def pipe_file(self, path: str, *args: Any, **options: Any) -> Any:
        raise self.error

    def rm_file(self, path: str) -> None:
        raise self.error


fsspec.register_implementation("gleanerbroken", Broken, clobber=True)
ADDRESS = "gleanerbroken://user:secret@bucket/here"


class NoCredentialsError(Exception):
    """As the libraries of several stores have one, derived from nothing in particular."""


ERRORS: list[Exception] = [
    NoCredentialsError("Unable to locate credentials"),
    PermissionError("Access Denied"),
    PermissionError(errno.EACCES, "Access Denied"),
    FileNotFoundError("The specified bucket does not exist"),
    OSError("[Errno 5] An error occurred (InternalError)"),
    OSError(errno.EIO, "Input/output error"),
    TimeoutError("timed out"),
    ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"),
    KeyError("Bucket"),
    TypeError("unexpected keyword argument 'endpoint'"),
    ValueError("Bad Request\n<html>a page</html>"),
    NotImplementedError(),
    AssertionError(),
]


@pytest.fixture
def broken() -> Iterator[type[Broken]]:
    Broken.store.clear()
    yield Broken
    Broken.asked = False


@pytest.mark.parametrize("asked", [False, True], ids=["written to", "asked"])
@pytest.mark.parametrize("error", ERRORS, ids=[f"{n}-{type(error).__name__}" for n, error in enumerate(ERRORS)])
def test_whatever_a_store_raises_is_a_sentence(
    workspace: Workspace,
    site: Site,
    broken: type[Broken],
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    asked: bool,
) -> None:
    fill(workspace, originals(site, "/good/1"))
    broken.error, broken.asked = error, asked
    assert step.main(command(workspace, "--to", ADDRESS, "--json")) == 1
    out, err = capsys.readouterr()
    said = flat(out)
    assert said["exit_code"] == 1 and "gleanerbroken://" in said["error"] and "secret" not in out + err
    assert "\n" not in said["error"] and "Traceback" not in err
    assert all(row["state"] == "pending" for row in rows(workspace).values())
    assert not (workspace.images / ".part").exists()


def test_a_store_that_is_only_being_made_is_no_error(workspace: Workspace) -> None:
    RemoteTarget(workspace, "memory://not/there/yet").probe()
    with pytest.raises(GleanerError):
        Broken.asked, Broken.error = True, PermissionError("no")
        try:
            RemoteTarget(workspace, "gleanerbroken://a/b").probe()
        finally:
            Broken.asked = False


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EIO, "Input/output error", "/a"),
        OSError("no number"),
        ConnectionResetError(errno.ECONNRESET, "reset"),
        OSError(errno.ESTALE, "Stale file handle", "/nfs/a"),
        TimeoutError(),
        BlockingIOError(errno.EAGAIN, "again"),
        OSError(errno.ENODEV, "No such device"),
    ],
)
def test_every_error_of_the_system_is_a_sentence(error: OSError) -> None:
    sentence = explain_os(error)
    assert sentence and sentence.endswith(".") and "\n" not in sentence
