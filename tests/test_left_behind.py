"""What killed runs leave behind is cleared by the next run of the step, or by --check --repair; nothing else is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support import ROOT, drawing, left_by_a_dead_process, load_step, snapshot
from yandex_answers import entity, make_workspace, results_page

from lib import temporary
from lib.files.pictures import clear_leftovers
from lib.temporary import becoming, clear_dead, is_temporary, process_lives, temporary_beside, write_whole
from lib.workspace import Workspace

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX here")
# Names that look like temporary files and are a person's, or another program's.
NOT_OURS = (".x.part", "movie.mkv.part", ".notes.1234.part", ".a.abcdef-12.part", "x.abcdef-1-01234567.part",
            ".x.ABCDEF-1-01234567.part", ".x.abcdef-1-01234567.part.txt", "kept.jpg")  # fmt: skip


@pytest.fixture
def used(tmp_path: Path) -> Workspace:
    """A workspace with twelve pictures in its database and one on disk."""
    make_workspace(tmp_path, {("q", 0, "page"): results_page([entity(number) for number in range(12)])})
    assert load_step("ingest").main(["--workspace", str(tmp_path), "-q"]) == 0
    return Workspace(tmp_path)


def files_of_the_dead(workspace: Workspace, folder: Path, *names: str) -> list[Path]:
    """Temporary files of a process that is no more, in a folder of the workspace."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [left_by_a_dead_process(folder / name) for name in names]
    for path in paths:
        path.write_bytes(b"half of it")
    return paths


def test_a_file_becomes_whole_or_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "page.html"
    write_whole(path, b"first")
    with pytest.raises(OSError, match="full"):
        write_whole(path, full_after_a_few_bytes)
    assert path.read_bytes() == b"first" and [entry.name for entry in path.parent.iterdir()] == ["page.html"]
    write_whole(path, lambda file: file.write(b"second"), synced=True)
    assert path.read_bytes() == b"second"
    with pytest.raises(KeyboardInterrupt), becoming(path) as half:
        half.with_name(half.name + "-journal").write_bytes(b"SQLite's own")
        half.write_bytes(b"x")
        raise KeyboardInterrupt
    assert [entry.name for entry in path.parent.iterdir()] == ["page.html"]


def full_after_a_few_bytes(file: object) -> None:
    file.write(b"sec")  # type: ignore[attr-defined]
    raise OSError(28, "the disk is full")


@pytest.mark.parametrize("name", ["a.json", "ä" * 120, "\udcff.bin", ".hidden", "x" * 255])
def test_temporary_names_fit_every_target_and_are_told_from_others(name: str, tmp_path: Path) -> None:
    found = temporary_beside(tmp_path / name)
    assert is_temporary(found.name) and is_temporary(found.name + "-wal") and len(os.fsencode(found.name)) <= 250
    found.write_bytes(b"")
    assert temporary_beside(tmp_path / name) != found


def test_only_files_of_dead_processes_are_cleared(tmp_path: Path) -> None:
    dead = files_of_the_dead(Workspace(tmp_path), tmp_path, "a.json", "b.json")
    mine = temporary_beside(tmp_path / "c.json")
    elsewhere = tmp_path / ".x.000000-1-01234567.part"  # another machine's, written to just now
    for path in (mine, elsewhere, *(tmp_path / name for name in NOT_OURS)):
        path.write_bytes(b"not to be touched")
    os.symlink(tmp_path / "kept.jpg", dead[0].with_name(dead[0].name.replace("a.json", "link")))
    before = snapshot(tmp_path)
    nested = left_by_a_dead_process(dead[0])  # as a database that is being made comes to be
    nested.write_bytes(b"half")
    dead.append(nested)
    assert clear_dead(tmp_path, target="a.json") == 2 and not dead[0].exists() and dead[1].exists()
    assert clear_dead(tmp_path) == 1
    assert snapshot(tmp_path) == {name: digest for name, digest in before.items() if tmp_path / name not in dead}
    os.utime(elsewhere, (1, 1))
    assert clear_dead(tmp_path) == 0  # its time of change is new, whatever else is said of it


@POSIX
def test_a_file_of_a_living_process_stays_and_goes_when_that_was_killed(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from lib.temporary import becoming\n"
        "with becoming(pathlib.Path(sys.argv[1])) as half:\n"
        "    half.write_bytes(b'half'); print(half, flush=True); sys.stdin.read()\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "x.db")], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True, cwd=ROOT,
    )  # fmt: skip
    with child:
        assert child.stdout
        half = Path(child.stdout.readline().strip())
        assert clear_dead(tmp_path) == 0 and half.exists()
        os.kill(child.pid, signal.SIGKILL)
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # ended, and nobody has taken note of it
        assert not process_lives(child.pid)
        assert clear_dead(tmp_path) == 1 and not half.exists()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells when a process began")
def test_a_number_that_was_given_again_is_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = temporary_beside(tmp_path / "x")
    path.write_bytes(b"half")
    assert clear_dead(tmp_path) == 0
    began = temporary._state(os.getpid())[1]
    assert process_lives(os.getpid(), began) and not process_lives(os.getpid(), began - 60)


LEFT = {
    "report": ("reports/domains.html", ["report"]),
    "cleanup": ("backups/gleaner-20260101T000000Z.db", ["cleanup"]),
    "collect": ("xhr/yandex/abc/3.json", ["ingest"]),
    "import": ("xhr/yandex/import-x-0123/0001.json", ["ingest", "--rescan"]),
    "index": ("reports/index.html", ["dedup", "exact"]),
    "page of step 7": ("reports/sort_quality.html", ["sort", "orientation"]),
}


@pytest.mark.parametrize("case", LEFT)
def test_the_next_run_of_the_step_clears_what_a_killed_one_left(case: str, used: Workspace) -> None:
    name, (step, *arguments) = LEFT[case]
    (used.images / "00").mkdir(parents=True)
    drawing(1).save(used.images / "00" / "mine.png")
    (left,) = files_of_the_dead(used, (used.root / name).parent, Path(name).name)
    log = left.with_name(left.name + "-journal")
    log.write_bytes(b"SQLite's own")
    before = snapshot(used.root)
    assert load_step(step).main([*arguments, "--workspace", str(used.root), "-q", "-n"]) in (0, 2)
    assert snapshot(used.root) == before  # a dry run clears nothing
    assert load_step(step).main([*arguments, "--workspace", str(used.root), "-q"]) in (0, 2)
    assert not left.exists() and not log.exists()


def test_an_import_of_pictures_clears_what_a_killed_one_left(used: Workspace, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    drawing(3).save(photos / "a.png")
    (left,) = files_of_the_dead(used, used.images / "ab", "folder-x_original_1x1_00000000.png")
    left.unlink()
    os.link(photos / "a.png", left)  # as an import makes them: an old file under a new name
    assert load_step("ingest").main(["--workspace", str(used.root), "-q", "--import-folder", str(photos)]) == 0
    assert not left.exists() and (photos / "a.png").exists()


@pytest.mark.parametrize("step", ["collect", "ingest", "report", "cleanup", "download", "dedup", "sort"])
def test_no_step_touches_a_file_of_a_person_or_of_a_living_process(step: str, used: Workspace) -> None:
    for folder in (used.root, used.reports, used.backups, used.xhr / "yandex" / "abc", used.images / "00"):
        folder.mkdir(parents=True, exist_ok=True)
        for name in NOT_OURS:
            (folder / name).write_bytes(b"a person's")
        temporary_beside(folder / "living.json").write_bytes(b"a living process's")
    before = snapshot(used.root)
    clear_leftovers(used, step)
    assert snapshot(used.root) == before


def test_check_tells_of_leftovers_and_repair_removes_them(used: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    places = ("images/ab", "images/.part", "xhr/yandex/abc", "sorted/x/y", "quarantine/3/a", "reports", "backups", ".")
    left = [path for place in places for path in files_of_the_dead(used, used.root / place, "half.jpg")]
    (used.root / ".mine.part").write_bytes(b"a person's")
    check = ["--workspace", str(used.root), "--check", "-q"]
    before = snapshot(used.root)
    capsys.readouterr()
    assert load_step("ingest").main([*check, "-n", "--strict"]) == 3
    assert f"unfinished_file  {len(left)}" in capsys.readouterr().out
    assert snapshot(used.root) == before
    assert load_step("ingest").main([*check, "--repair"]) == 0
    assert not [path for path in left if path.exists()] and (used.root / ".mine.part").exists()
    capsys.readouterr()
    assert load_step("ingest").main([*check, "--strict"]) == 0
    assert not capsys.readouterr().out
