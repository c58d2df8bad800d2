"""A workspace is a folder of its own: no root, no home, nobody else's files; a Python without requirements."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support import ROOT, drawing, load_step, snapshot

from lib import errors
from lib.errors import UsageError, broken_installation
from lib.workspace import Workspace


def refusal(folder: Path, *inputs: Path) -> str:
    try:
        Workspace(folder).refuse_foreign(inputs)
    except UsageError as error:
        return str(error)
    return ""


def filled(folder: Path, *names: str) -> Path:
    """A folder with these files and, by a slash at the end, folders."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        path = folder / name
        if name.endswith("/"):
            path.mkdir(parents=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"")
    return folder


@pytest.mark.parametrize(
    "names",
    [
        [],
        ["gleaner.toml"],
        ["gleaner.db", "thesis.docx"],
        ["gleaner.toml", "notes.txt"],
        ["xhr/", "photos/"],
        ["images/", "reports/", "sorted/", "backups/"],
        [".git/", ".DS_Store", "Thumbs.db", "desktop.ini", "lost+found/", ".collect-bing.lock"],
        ["export/", "browser-profile/", "reports/"],
        ["gleaner.db-wal", "gleaner.db.broken-1"],
    ],
    ids=str,
)
def test_a_folder_that_is_or_may_be_a_workspace(names: list[str], tmp_path: Path) -> None:
    assert refusal(filled(tmp_path / "ws", *names)) == ""


@pytest.mark.parametrize(
    "names",
    [["thesis.docx"], ["photos/"], ["images/", "index.html"], ["yandex_images.db"], ["a", "b", "c", "d", "e"]],
    ids=str,
)
def test_a_folder_of_other_files_is_refused(names: list[str], tmp_path: Path) -> None:
    said = refusal(filled(tmp_path / "ws", *names))
    assert "is no workspace and holds other files" in said and said.count(".") >= 1
    assert len(names) < 5 or "and 2 more" in said


def test_a_folder_that_is_not_there_is_fine(tmp_path: Path) -> None:
    assert refusal(tmp_path / "new" / "ws") == ""


def test_the_root_is_refused_by_whatever_name(tmp_path: Path) -> None:
    root = Path(tmp_path.anchor)
    (tmp_path / "link").symlink_to(root)
    for path in (root, root / "..", tmp_path / "link"):
        assert "is the root of a file system" in refusal(path)


def test_the_home_folder_is_refused_unless_it_is_a_workspace(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert refusal(tmp_path) == ""  # an empty one, as in a container
    filled(tmp_path, ".bashrc")
    assert "is your home folder" in refusal(tmp_path)
    filled(tmp_path, "gleaner.db")
    assert refusal(tmp_path) == ""


def test_what_the_command_names_may_lie_inside(tmp_path: Path) -> None:
    folder = filled(tmp_path / "ws", "photos/a.jpg", "words.txt")
    assert "holds other files (words.txt)" in refusal(folder, folder / "photos")
    assert refusal(folder, folder / "photos" / "a.jpg", folder / "words.txt") == ""
    assert refusal(folder, folder) != ""  # the folder itself: its files would be pictures and workspace in one


STEPS = [
    ("collect", ["--keywords", "a", "--engine", "openverse"]),
    ("ingest", ["--import", "LIST"]),
    ("report", []),
    ("cleanup", ["--dry-run"]),
    ("download", []),
    ("dedup", ["exact", "PHOTOS"]),
    ("sort", ["orientation", "PHOTOS", "-n"]),
]


@pytest.mark.parametrize(("step", "words"), STEPS, ids=[case[0] for case in STEPS])
def test_every_step_refuses_before_anything_is_written(step: str, words: list[str], tmp_path: Path, capsys) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    drawing(1).save(photos / "a.png")
    (tmp_path / "list.txt").write_text("http://a.example/1.jpg\n", encoding="utf-8")
    before = snapshot(tmp_path)
    given = [word.replace("PHOTOS", str(photos)).replace("LIST", str(tmp_path / "list.txt")) for word in words]
    assert load_step(step).main([*given, "--workspace", str(photos)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: --workspace") and said.count("\n") == 1 and "holds other files (a.png)" in said
    assert snapshot(tmp_path) == before


def test_query_pictures_in_the_workspace_are_welcome(tmp_path: Path, capsys) -> None:
    photos = tmp_path / "ws" / "photos"
    photos.mkdir(parents=True)
    drawing(1).save(photos / "a.png")
    words = ["--images", str(photos), "--engine", "baidu-graph", "-n", "--workspace", str(tmp_path / "ws")]
    assert load_step("collect").main(words) == 0
    words = ["orientation", str(photos), "--workspace", str(tmp_path / "ws")]
    assert load_step("sort").main(words) == 0 == load_step("sort").main(words[:1] + words[2:] + ["--undo", "last"])


# --- outside the environment


def test_outside_the_environment_a_missing_requirement_names_how_to_enter(tmp_path: Path, monkeypatch) -> None:
    missing = ModuleNotFoundError("No module named 'numpy'", name="numpy")
    monkeypatch.setattr(errors, "ENVIRONMENT", str(tmp_path / "my code" / ".venv"))
    assert "0_setup.py" in broken_installation(missing) and "has no numpy" in broken_installation(missing)
    for platform, folder, said in (("linux", "bin", "source "), ("win32", "Scripts", "activate")):
        monkeypatch.setattr("lib.errors.sys.platform", platform)
        filled(tmp_path / "my code" / ".venv" / folder, "activate")
        sentence = broken_installation(missing)
        assert said in sentence and folder in sentence and '"' in sentence and "\n" not in sentence
    # A module of ours, or one that is there and broken, is another matter.
    assert "is broken" in broken_installation(ModuleNotFoundError("No module named 'lib.x'", name="lib.x"))
    assert "is broken" in broken_installation(ImportError("libwebp.so.7: cannot open shared object file", name="PIL"))


def test_a_step_in_a_bare_python_says_one_sentence(tmp_path: Path) -> None:
    """`-S` leaves out the folder of packages, and `-I` what the environment adds: a Python without requirements."""
    words = [sys._base_executable, "-S", "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); sys.argv[0] = '6'; "
             "sys.prefix = '/usr'; import runpy; runpy.run_path(sys.argv.pop(1), run_name='__main__')"]  # fmt: skip
    photos = tmp_path / "photos"
    photos.mkdir()
    drawing(1).save(photos / "a.png")
    script = [str(ROOT / "6_dedup.py"), "exact", str(photos), "--workspace", str(tmp_path / "ws")]
    done = subprocess.run([*words, *script], capture_output=True, text=True, timeout=120, cwd=tmp_path, check=False)
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
    assert "activate" in done.stderr or "0_setup.py" in done.stderr
