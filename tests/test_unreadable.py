"""Step 2 and what may not be read below a folder: it is told of and counted, and all the rest comes in."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support import as_rows, drawing, load_step
from yandex_answers import entity, xhr

ingest = load_step("ingest")


@contextmanager
def somebody() -> Iterator[None]:
    """Every other user is stopped by mode 000; root has to become somebody else for a moment."""
    was = os.geteuid()
    if was == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(was)


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that anybody may use, unlike pytest's own; what was locked in it is opened again."""
    root = Path(tempfile.mkdtemp(prefix="gleaner-"))
    root.chmod(0o777)
    try:
        yield root
    finally:
        for folder, _, _ in os.walk(root):
            for path in (folder, *map(str, Path(folder).iterdir())):
                if not os.path.islink(path) and os.path.isdir(path):
                    os.chmod(path, 0o755)
        shutil.rmtree(root)


@pytest.fixture(autouse=True, scope="module")
def _loaded(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Runs every command once: what Python imports late may lie where only its owner may read."""
    root = tmp_path_factory.mktemp("once")
    drawing(1).save(root / "a.png")
    (root / "0000.json").write_bytes(xhr([entity(1)]))
    for arguments in (["--import", root], ["--import-folder", root], ["--rescan"], ["--check"]):
        ingest.main([*map(str, arguments), "--workspace", str(root / "ws"), "-q", "--json"])


def counts(capsys: pytest.CaptureFixture[str], root: Path, *arguments: object, exit_code: int = 0) -> dict[str, int]:
    assert ingest.main([*map(str, arguments), "--workspace", str(root), "--json"]) == exit_code
    return json.loads(capsys.readouterr().out)["counts"]


def locked_answers(root: Path) -> Path:
    """Two searches' raw answers; the folder of one may not be read."""
    for name, number in (("open", 1), ("locked", 2)):
        folder = root / "old" / "yandex" / name
        folder.mkdir(parents=True)
        (folder / "0000.json").write_bytes(xhr([entity(number)]))
    (root / "old/yandex/locked").chmod(0)
    return root / "old"


@pytest.mark.parametrize("arguments", [[], ["--dry-run"]])
def test_an_import_tells_of_a_folder_that_may_not_be_read(
    place: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    old = locked_answers(place)
    with somebody():
        assert ingest.main(["--import", str(old), *arguments, "--workspace", str(place / "ws"), "--json"]) == 0
        said = capsys.readouterr()
        assert counts(capsys, place / "ws", "--import", old, "--strict", *arguments, exit_code=3)
    found = json.loads(said.out)["counts"]
    assert (found["results"], found["failed"], found["failed_unreadable_folder"]) == (1, 1, 1)
    assert f"{old}/yandex/locked cannot be read (Permission denied)" in said.err


def test_a_rescan_tells_of_a_folder_that_may_not_be_read(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "ws").mkdir(mode=0o777)
    (place / "ws").chmod(0o777)
    shutil.move(locked_answers(place), place / "ws" / "xhr")
    with somebody():
        found = counts(capsys, place / "ws", "--rescan")
    assert (found["results"], found["failed_unreadable_folder"]) == (1, 1)


def test_the_check_tells_of_folders_that_may_not_be_read_and_judges_nothing_in_them(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What lies in a locked folder is not gone: no row may be marked as missing for that."""
    (place / "photos").mkdir()
    drawing(1).save(place / "photos/a.png")
    (place / "ws").mkdir()
    for folder, _, _ in os.walk(place):
        os.chmod(folder, 0o777)
    with somebody():
        counts(capsys, place / "ws", "--import-folder", place / "photos")
        counts(capsys, place / "ws", "--import", locked_answers_of_one(place))
        (file,), (answer,) = (as_rows(place / "ws/gleaner.db", f"SELECT path FROM {t}") for t in ("files", "responses"))
        locked = [(place / "ws" / path[0]).parent for path in (file, answer)]
        for folder in locked:
            folder.chmod(0)
        before = as_rows(place / "ws/gleaner.db", "SELECT state FROM files UNION ALL SELECT state FROM downloads")
        found = counts(capsys, place / "ws", "--check", "--repair", "--strict", exit_code=3)
        after = as_rows(place / "ws/gleaner.db", "SELECT state FROM files UNION ALL SELECT state FROM downloads")
        for folder in locked:
            folder.chmod(0o755)
        assert set(counts(capsys, place / "ws", "--check")) == {"files", "answers", "repaired"}
    assert found["unreadable"] == 2 and found["repaired"] == 0 and before == after
    assert "missing_file" not in found and "missing_answer" not in found


def locked_answers_of_one(place: Path) -> Path:
    folder = place / "one"
    folder.mkdir()
    (folder / "0000.json").write_bytes(xhr([entity(1)]))
    return folder


@pytest.mark.parametrize("kind", ["pipe", "link", "name"])
def test_what_is_no_plain_file_stops_nothing(tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A pipe would be waited for, for ever; a link to nothing and a name that is no text have no content to keep."""
    old, root = tmp_path / "old" / "q", tmp_path / "ws"
    old.mkdir(parents=True)
    (old / "0000.json").write_bytes(xhr([entity(1)]))
    (root / "images").mkdir(parents=True)
    for folder in (old, root / "images"):
        if kind == "pipe":
            os.mkfifo(folder / "0001.json")
            os.mkfifo(folder / "a.jpg")
        elif kind == "link":
            (folder / "0001.json").symlink_to(folder / "nowhere")
            (folder / "a.jpg").symlink_to(folder / "nowhere")
        else:
            (folder / os.fsdecode(b"b\xe9d_xhr_001.json")).write_bytes(xhr([entity(2)]))
            drawing(2).save(folder / os.fsdecode(b"b\xe9d.png"))
    found = counts(capsys, root, "--import", old)
    assert found["results"] == (2 if kind == "name" else 1)
    assert found["failed"] == (0 if kind == "name" else 1)
    found = counts(capsys, root, "--check", "--repair")
    assert found.get("not_a_picture", 0) + found.get("unreadable", 0) == 1


def test_a_folder_whose_name_is_no_text_is_told_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = tmp_path / os.fsdecode(b"ph\xe9tos")
    photos.mkdir()
    drawing(1).save(photos / "a.png")
    found = counts(capsys, tmp_path / "ws", "--import-folder", photos)
    assert found["failed_unreadable_file"] == 1 and found["new_pictures"] == 0


def test_sidecars_that_hold_nothing_usable_stop_no_picture(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Facts that may not be read, and facts that are none: the picture comes in with what is known."""
    photos = place / "photos"
    photos.mkdir()
    for number, name in enumerate("abc"):
        drawing(number).save(photos / f"{name}.png")
    (photos / "a.png.json").write_bytes(b"[" * 100_000)
    (photos / "b.json").write_bytes(b'{"title": "\\ud800", "url": 7, "tags": [[[]]], "width": 1e999}')
    (photos / "c.json").write_text('{"title": "C"}')
    (photos / "metadata.jsonl").write_text('{"file_name": "a.png", "title": "A"}\n')
    for name in ("metadata.jsonl", "c.json"):
        (photos / name).chmod(0)
    photos.chmod(0o755)
    with somebody():
        assert ingest.main(["--import-folder", str(photos), "--workspace", str(place / "ws"), "--json"]) == 0
    said = capsys.readouterr()
    found = json.loads(said.out)["counts"]
    assert (found["files"], found["failed"], found["new_pictures"]) == (3, 0, 3)
    assert "3 sidecars could not be read" in said.err  # one that is no JSON, two that may not be read
    assert as_rows(place / "ws/gleaner.db", "SELECT title FROM images ORDER BY title") == [("a",), ("c",), ("\ufffd",)]
