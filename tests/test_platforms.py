"""Linux, macOS and Windows: the steps held to the rules of Windows, names and texts that are fit for all three."""

from __future__ import annotations

import ast
import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path, PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import PATIENCE, ROOT, STEPS, as_rows, drawing

from demo import running_gallery
from lib.errors import UsageError
from lib.files import answers
from lib.files.names import file_name, fitting_name, portable_name
from lib.journal import moves
from lib.temporary import remove_file, temporary_beside
from lib.text import command_line
from lib.web import find_browser

RULES = ROOT / "tests" / "windows_rules"
OURS = sorted([*ROOT.glob("*.py"), *(path for top in ("lib", "demo", "bench") for path in (ROOT / top).rglob("*.py"))])


def under_rules(place: Path, step: str, *words: object) -> subprocess.CompletedProcess[str]:
    """Runs a step as it would run on Windows, as far as another system can show that."""
    return subprocess.run(
        [sys.executable, str(ROOT / STEPS[step]), *map(str, words), "--workspace", "ws"],
        cwd=place,
        capture_output=True,
        encoding="cp1252",
        timeout=PATIENCE,
        env={
            **os.environ,
            "PYTHONPATH": str(RULES),
            "WINDOWS_RULES_PLACE": str(place),
            "PYTHONIOENCODING": "cp1252",
            "GLEANER_CONTACT": "me@example.org",
        },
    )


def ran(place: Path, step: str, *words: object, expect: int = 0) -> str:
    done = under_rules(place, step, *words)
    assert done.returncode == expect and "Traceback" not in done.stderr, (step, words, done.stdout, done.stderr)
    assert "stays where it is" not in done.stderr, (step, words, done.stderr)
    return done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc to know which files are open; Windows knows by itself")
def test_the_rules_are_in_force(tmp_path: Path) -> None:
    """What holds the steps to the rules would otherwise pass everything."""
    probe = """
import os, sys
place = sys.argv[1]
def refused(act):
    try: act()
    except OSError as error: return type(error).__name__
    return "allowed"
print(sys.platform, hasattr(os, "fork"), hasattr(os, "O_NOFOLLOW"))
held = open(f"{place}/held", "w")
print(*(refused(act) for act in (
    lambda: os.unlink(f"{place}/held"), lambda: os.rename(f"{place}/held", f"{place}/other"),
    lambda: os.symlink("held", f"{place}/link"), lambda: open(f"{place}/aux.jpg", "w"),
    lambda: os.mkdir(f"{place}/a:b"), lambda: open(f"{place}/fine.jpg", "w").close(),
)))
try: import fcntl
except ImportError: print("no fcntl")
"""
    environment = {**os.environ, "PYTHONPATH": str(RULES), "WINDOWS_RULES_PLACE": str(tmp_path)}
    file = str(ROOT / "lib" / "probe.py")  # never made: only the name that the code goes by
    code = f"exec(compile({probe!r}, {file!r}, 'exec'), {{'__file__': {file!r}}})"
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout.splitlines() == [
        "win32 False False",
        "PermissionError PermissionError OSError OSError OSError allowed",
        "no fcntl",
    ]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc to know which files are open; Windows knows by itself")
def test_the_seven_steps_run_under_the_rules_of_windows(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number, size in enumerate([(320, 240), (240, 320), (256, 256)]):
        drawing(number, *size).save(photos / f"{number}.jpg")
    for name in ("again.jpg", "copy.jpg"):
        (photos / name).write_bytes((photos / "0.jpg").read_bytes())
    (photos / "copy.jpg").chmod(0o444)  # as from a disc; Windows removes no such file unasked
    (photos / "broken.gif").write_bytes(b"GIF89a")
    with running_gallery(pictures=60, page_size=20, results=40) as gallery:
        words = ("--engine", "openverse", "--host", gallery.url, "--keywords", "photo drawing", "--max-pages", 1)
        assert " 0 new results" not in ran(tmp_path, "collect", *words)
        ran(tmp_path, "ingest")
        ran(tmp_path, "ingest", "--import-folder", "photos")
        ran(tmp_path, "report", "--by", "host")
        ran(tmp_path, "cleanup")
        ran(tmp_path, "download", "--allow-private", "--workers", 2)
    found = as_rows(tmp_path / "ws/gleaner.db", "SELECT path FROM files")
    assert len(found) > 10 and not any("\\" in path or path.startswith("/") for (path,) in found)
    ran(tmp_path, "dedup", "--max-share", "100%", "--workers", 2)
    ran(tmp_path, "dedup", "photos", "--max-share", "100%", "--link", "hard", "--workers", 1)
    assert (photos / "0.jpg").stat().st_nlink + (photos / "again.jpg").stat().st_nlink > 2
    ran(tmp_path, "dedup", "--undo", "last")
    assert "symbolic links cannot be made" in ran(tmp_path, "dedup", "photos", "--link", "sym", expect=2)
    ran(tmp_path, "sort", "orientation")
    ran(tmp_path, "sort", "quality", "--mode", "hardlink")
    assert "symbolic links cannot be made" in ran(tmp_path, "sort", "megapixels", "--mode", "symlink", expect=2)
    ran(tmp_path, "sort", "megapixels", "photos", "--mode", "move")
    assert not (photos / "copy.jpg").exists()
    ran(tmp_path, "sort", "--undo", "last")
    assert (photos / "copy.jpg").exists()
    ran(tmp_path, "sort", "export", "--to", "set", "--as", "webdataset")
    ran(tmp_path, "sort", "export", "--to", "set", "--as", "parquet", "--replace")
    ran(tmp_path, "sort", "--undo", "last")
    ran(tmp_path, "cleanup", "--forget-query", 1)
    ran(tmp_path, "cleanup", "--undo", "last")
    ran(tmp_path, "cleanup", "--restore", "last")
    ran(tmp_path, "ingest", "--check", "--repair")


# Names

DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{digit}" for port in ("com", "lpt") for digit in "0123456789")}
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=300) | st.builds(
    "{}{}{}".format,
    st.sampled_from([*sorted(DEVICES), "CON", "Aux", "a:b", "x. ", ".hidden", "nul "]),
    st.sampled_from(["", ".", " ", ":", "?"]),
    st.sampled_from(["", ".jpg", ".tar.gz", ". ", ".JPEG"]),
)


def fits_everywhere(name: str) -> bool:
    """True for a name that Windows takes: neither forbidden letters, nor a device, nor a dot or blank at the end."""
    body = name.partition(".")[0].rstrip(" ").casefold()
    return (
        not re.search(r'[<>:"/\\|?*\x00-\x1f]', name)
        and not name.endswith((".", " "))
        and body not in DEVICES
        and len(name.encode()) <= 255
    )


@given(NAMES)
def test_names_that_are_made_fit_every_platform(name: str) -> None:
    made = portable_name(name)
    assert fits_everywhere(made) and portable_name(made) == made
    assert fits_everywhere(fitting_name(made, "_12"))
    assert fits_everywhere(temporary_beside(Path(made)).name)
    assert fits_everywhere(file_name(name, "original", 1, None, "0" * 64, "jpg"))


@given(NAMES, st.sampled_from(["{}", '{"host": "http://127.0.0.1:8080"}']), st.sampled_from(answers.MARK_LENGTHS))
def test_folders_of_queries_fit_every_platform(text: str, params: str, length: int) -> None:
    assert fits_everywhere(answers.folder_name("keyword", text, "", params, length))
    assert fits_everywhere(answers.folder_name("image", "", "ab" * 32, params, length))


# Texts and commands


def calls(path: Path) -> Iterator[ast.Call]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def lacks_encoding(call: ast.Call) -> bool:
    """True for a call that opens a file as text in the encoding of the system: Windows has one of its own."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    given = {keyword.arg for keyword in call.keywords}
    if {"encoding", None} & given:  # None: by way of **
        return False
    texts = [a.value for a in call.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
    if name in ("run", "Popen", "check_output", "check_call"):
        return any(k.arg in ("text", "universal_newlines") for k in call.keywords)
    if name in ("read_text", "write_text"):
        is_path = isinstance(call.func, ast.Attribute)
        return is_path and not (name == "read_text" and call.args) and len(call.args) < 2
    if name in ("TemporaryFile", "NamedTemporaryFile"):
        return any(re.fullmatch(r"[rwax]\+?t?\+?", text) for text in texts)
    if name != "open":
        return False
    if getattr(getattr(call.func, "value", None), "id", "") == "tarfile":
        return False
    if isinstance(call.func, ast.Attribute):  # of a path: `open(mode)`; `Image.open`, `os.open`, `web.open` take others
        return any(re.fullmatch(r"[rwax]t?\+?", text) for text in texts) or (
            not call.args and not call.keywords and getattr(call.func.value, "id", "") not in ("self",)
        )
    modes = [a.value for a in call.args[1:2] if isinstance(a, ast.Constant)]
    modes += [k.value.value for k in call.keywords if k.arg == "mode" and isinstance(k.value, ast.Constant)]
    return (
        not any("b" in str(mode) for mode in modes) and len(call.args) < 4 and not (modes == [] and len(call.args) > 1)
    )


def test_every_text_is_opened_in_a_named_encoding() -> None:
    found = [f"{path.relative_to(ROOT)}:{call.lineno}" for path in OURS for call in calls(path) if lacks_encoding(call)]
    assert found == []


@pytest.mark.parametrize(
    ("source", "lacking"),
    [
        ("open(p)", True),
        ("open(p, 'w')", True),
        ("open(p, 'rb')", False),
        ("open(p, 'w', encoding='utf-8')", False),
        ("p.open('w')", True),
        ("p.open('rb')", False),
        ("p.open()", True),
        ("p.read_text()", True),
        ("p.read_text('utf-8')", False),
        ("p.write_text(t)", True),
        ("p.write_text(t, 'utf-8')", False),
        ("subprocess.run(c, text=True)", True),
        ("subprocess.run(c, text=True, encoding='utf-8')", False),
        ("TemporaryFile('w+')", True),
        ("Image.open(p)", False),
    ],
)
def test_what_opens_a_text_is_recognised(source: str, lacking: bool) -> None:
    call = ast.parse(source, mode="eval").body
    assert isinstance(call, ast.Call) and lacks_encoding(call) is lacking


@pytest.mark.parametrize(
    ("word", "posix", "windows"),
    [
        ("photos", "photos", "photos"),
        ("my photos", "'my photos'", '"my photos"'),
        ("C:\\photos\\", "'C:\\photos\\'", "C:\\photos\\"),
        ("C:\\my photos\\", "'C:\\my photos\\'", '"C:\\my photos\\\\"'),
        ("a&b", "'a&b'", '"a&b"'),
        ("100%", "100%", '"100%"'),
        ("it's", "'it'\"'\"'s'", '"it\'s"'),
        ("", "''", '""'),
    ],
)
def test_commands_are_quoted_for_the_shell_of_the_platform(word: str, posix: str, windows: str) -> None:
    assert command_line(["python", word], "linux") == f"python {posix}"
    assert command_line(["python", word], "darwin") == f"python {posix}"
    assert command_line(["python", word], "win32") == f"python {windows}"


# Parts that other platforms have


def test_edge_and_chrome_are_found_on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    environ = {"PROGRAMFILES": "C:/Program Files", "PROGRAMFILES(X86)": "C:/Program Files (x86)"}
    names = [PureWindowsPath(path).name for path in find_browser.usual_paths(environ)]
    assert names == ["chrome.exe"] * 4 + ["msedge.exe"] * 2
    monkeypatch.setattr(sys, "platform", "darwin")
    assert any("Microsoft Edge.app" in str(path) for path in find_browser.usual_paths({"HOME": "/Users/me"}))


def test_a_link_that_windows_refuses_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moves.require_symbolic_links(tmp_path)
    assert list(tmp_path.iterdir()) == []

    def refused(*_: object) -> None:
        error = OSError(22, "A required privilege is not held by the client")
        error.winerror = 1314  # type: ignore[attr-defined]
        raise error

    monkeypatch.setattr(os, "symlink", refused)
    with pytest.raises(UsageError, match="hard links or copies"):
        moves.require_symbolic_links(tmp_path)
    monkeypatch.setattr(os, "symlink", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        moves.require_symbolic_links(tmp_path)


def test_a_file_that_may_not_be_written_is_removed_on_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, real = tmp_path / "a.jpg", os.unlink
    path.write_bytes(b"x")
    path.chmod(0o444)

    def as_on_windows(name: Path) -> None:
        if not name.stat().st_mode & stat.S_IWUSR:
            raise PermissionError(13, "Access is denied")
        real(name)

    monkeypatch.setattr(os, "unlink", as_on_windows)
    with pytest.raises(PermissionError):
        remove_file(path)
    monkeypatch.setattr(sys, "platform", "win32")
    remove_file(path)
    assert not path.exists()


def test_the_documented_tests_and_the_workflow_know_the_three_platforms() -> None:
    source = (ROOT / "0_setup.py").read_text(encoding="utf-8")
    workflow = (ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8")
    for platform, machine in (("linux", "ubuntu"), ("darwin", "macos"), ("win32", "windows")):
        assert f"mypy --platform {platform} --cache-dir .mypy_cache/{platform} lib" in source
        assert f"os: {machine}-latest" in workflow
