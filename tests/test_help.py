"""The help of every step: its docstring first, as wide as the terminal, and nowhere written twice."""

from __future__ import annotations

import fcntl
import os
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from support import PATIENCE, ROOT, STEPS

SCRIPTS = ("0_setup.py", *STEPS.values())


def help_of(script: str, **environment: str) -> str:
    """The help as a program sees it that reads it through a pipe."""
    clean = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    return subprocess.run(
        [sys.executable, script, "--help"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        timeout=PATIENCE,
        env={**clean, **environment},
    ).stdout


def help_on_terminal(script: str, columns: int) -> str:
    """The help as a terminal of so many columns gets it."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    child = subprocess.Popen(
        [sys.executable, script, "--help"], stdin=theirs, stdout=theirs, stderr=theirs, cwd=ROOT, env=environment
    )
    os.close(theirs)
    found = b""
    try:
        while block := os.read(ours, 4096):
            found += block
    except OSError:  # the other end is closed
        pass
    finally:
        os.close(ours)
    assert child.wait(PATIENCE) == 0
    return found.decode().replace("\r\n", "\n")


def commands_in(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if re.match(r"\s+python3? \d_", line)]


def wrapped_lines(text: str) -> list[str]:
    """The lines that may be broken: neither commands, which are shown as they are typed, nor lists of choices."""
    return [line for line in text.splitlines() if not re.match(r"\s+(python3? \d_|\[?--[\w-]+ \{\S+\}\]?$)", line)]


def docstring_of(script: str) -> str:
    text = (ROOT / script).read_text(encoding="utf-8")
    return text[3 : text.index('"""', 3)]


@pytest.mark.parametrize("script", SCRIPTS)
def test_examples_stand_before_the_flags(script: str) -> None:
    shown = help_of(script, COLUMNS="100")
    assert shown.index("Examples") < shown.index("Next") < shown.index("\n  -h, --help ")
    assert shown.index("Next") < shown.index("\n  --workspace DIR ")


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("columns", [60, 120])
def test_help_through_a_pipe_is_as_wide_as_columns(script: str, columns: int) -> None:
    lines = wrapped_lines(help_of(script, COLUMNS=str(columns)))
    assert [line for line in lines if len(line) > columns] == []
    assert max(map(len, lines)) > columns - 20


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_on_a_terminal_is_as_wide_as_that(script: str) -> None:
    lines = wrapped_lines(help_on_terminal(script, 70))
    assert [line for line in lines if len(line) > 70] == []
    assert max(map(len, lines)) > 55


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("columns", [60, 100])
def test_help_holds_the_whole_docstring(script: str, columns: int) -> None:
    shown, written = help_of(script, COLUMNS=str(columns)), docstring_of(script)
    assert commands_in(written) == [line for line in commands_in(shown) if line in commands_in(written)]
    assert " ".join(written.split()) in " ".join(shown.split())


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_says_nothing_twice(script: str) -> None:
    assert Path(ROOT / script).read_text(encoding="utf-8").count("description=") == 0
    assert help_of(script).count("Examples") == 1
