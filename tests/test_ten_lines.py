"""A run prints ten lines of detail at most unless -v asks for all; CSV and JSON stay whole; a bar stays a bar."""

from __future__ import annotations

import csv
import io
import json
import logging
import os
import sys
from argparse import Namespace
from pathlib import Path

import pytest
from support import ROOT, drawing, load_step

from lib.cli.output import DETAIL_LINES, start_logging
from lib.progress import ALWAYS
from lib.report.tables import DomainReport, Row
from lib.text import first_lines

COUNT = 25


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Pictures of which many repeat and many are broken, and a workspace that knows a list of addresses."""
    folder = tmp_path_factory.mktemp("ten")
    photos, workspace = folder / "photos", folder / "ws"
    photos.mkdir()
    for number in range(COUNT):
        drawing(number, 48, 36).save(photos / f"{number:02}.png")
        (photos / f"{number:02}-again.png").write_bytes((photos / f"{number:02}.png").read_bytes())
        (photos / f"{number:02}-broken.jpg").write_bytes(b"\xff\xd8\xff\xe0" + bytes(60))
    rows = "".join(f"https://host{number}.example{number}.org/{number}.jpg\n" for number in range(COUNT))
    (folder / "list.txt").write_text(rows + "http://127.0.0.1/a.jpg\nhttp://10.0.0.1/b.jpg\n", encoding="utf-8")
    words = ["--workspace", str(workspace), "--import", str(folder / "list.txt"), "-q"]
    assert load_step("ingest").main(words) == 0
    return photos, workspace


RUNS = [
    ("collect", ["--engine", "baidu-graph", "--images", "PHOTOS", "-n"], COUNT),
    ("collect", ["--engine", "openverse", "--keywords", *(f"w{number}" for number in range(COUNT)), "-n"], COUNT),
    ("report", [], COUNT),
    ("report", ["--by", "host", "-n"], COUNT),
    ("cleanup", ["-n", "--blocklist", "BLOCKED"], COUNT),
    ("download", ["-n"], COUNT),
    ("dedup", ["exact", "PHOTOS", "-n"], 2 * COUNT),
    ("sort", ["orientation", "PHOTOS", "-n"], 2 * COUNT),
    ("sort", ["orientation", "PHOTOS"], COUNT),
]


@pytest.mark.parametrize(
    ("step", "words", "all_of_them"), RUNS, ids=[" ".join([case[0], *case[1][:2]]) for case in RUNS]
)
def test_a_run_prints_ten_lines_unless_all_are_asked_for(
    step: str, words: list[str], all_of_them: int, made: tuple[Path, Path], tmp_path: Path, capsys
) -> None:
    photos, workspace = made
    blocked = tmp_path / "blocked.txt"
    blocked.write_text("".join(f"example{number}.org\n" for number in range(COUNT)), encoding="utf-8")
    if step == "sort":
        workspace = tmp_path / "ws"
    given = [word.replace("PHOTOS", str(photos)).replace("BLOCKED", str(blocked)) for word in words]
    given += ["--workspace", str(workspace)]
    capsys.readouterr()
    assert load_step(step).main(given) == 0
    printed, said = capsys.readouterr()
    # A head and a blank line of a table beside the ten, and the numbers of what is left out.
    told = [
        line for line in printed.splitlines() if line and not line.startswith(("…", "rule  ", "domain  ", "host  "))
    ]
    assert len(told) <= DETAIL_LINES + 2 and "… and " in printed and "-v " in printed, printed
    assert len(said.splitlines()) <= DETAIL_LINES + 4
    if step == "cleanup":
        return
    assert load_step(step).main([*given, "-v"]) == 0
    assert len(capsys.readouterr().out.splitlines()) >= all_of_them


def test_what_programs_read_stays_whole(made: tuple[Path, Path], tmp_path: Path, capsys) -> None:
    photos, workspace = made
    capsys.readouterr()
    assert load_step("report").main(["--format", "csv", "-n", "--workspace", str(workspace)]) == 0
    assert len(list(csv.DictReader(io.StringIO(capsys.readouterr().out)))) >= COUNT
    for words in (["orientation", str(photos)], ["exact", str(photos)]):
        step = "sort" if words[0] == "orientation" else "dedup"
        given = [*words, "-n", "--workspace", str(tmp_path / "ws")]
        assert load_step(step).main([*given, "--format", "csv"]) == 0
        assert len(list(csv.DictReader(io.StringIO(capsys.readouterr().out)))) >= COUNT
        assert load_step(step).main([*given, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)["result"]
        assert len(found["pictures" if step == "sort" else "groups"]) >= COUNT


def test_a_number_that_was_asked_for_holds(made: tuple[Path, Path], capsys) -> None:
    capsys.readouterr()
    assert load_step("report").main(["--top", "20", "-n", "--workspace", str(made[1])]) == 0
    assert "… and" not in (printed := capsys.readouterr().out) and printed.count("█") >= 20
    assert load_step("cleanup").main(["-n", "--rule", "no_result", "--workspace", str(made[1])]) == 0


def test_the_first_lines_and_the_number_of_the_others() -> None:
    assert list(first_lines("abc", 2)) == ["a", "b", "… and 1 more (-v prints all)"]
    assert list(first_lines("abc", 3)) == list(first_lines("abc", None)) == list("abc")
    assert list(first_lines(iter("abcd"), 0, "words")) == ["… and 4 words"]


def test_families_stand_on_one_line_where_the_table_is_long() -> None:
    from lib.db.report import ReportTotals
    from lib.pages.model import FamilyRow

    rows = tuple(Row(f"d{n}.org", "", 1, 0.01, 0.01, 1, 0, 0, 0, None, "") for n in range(40))
    families = tuple(FamilyRow(f"F{n}", 9 - n, 0.1, 1) for n in range(7))
    fields = ReportTotals.__dataclass_fields__
    totals = ReportTotals(**{name: "" if name == "as_of" else 40 for name in fields})
    report = DomainReport("domain", totals, 40, 0, rows, families)
    short, long = report.as_text(10).splitlines(), report.as_text().splitlines()
    assert sum(line.startswith("d") and ".org" in line for line in short) == 10
    assert "… and 30 more (-v prints all, --top N the largest)" in short
    assert short[-1].startswith("families: F0 9 (10.0%)") and short[-1].endswith("and 2 more")
    assert sum(".org" in line for line in long) == 40 and sum(line.startswith("F") for line in long) == 7


def test_log_lines_of_one_kind_are_ten(capsys) -> None:
    log = logging.getLogger("gleaner.test")

    def tell(verbose: int) -> list[str]:
        start_logging(Namespace(quiet=False, verbose=verbose))
        for number in range(COUNT):
            log.warning("%d is left out", number)
            log.warning("%d must be seen", number, extra=ALWAYS)
            log.error("%d failed", number)
        return capsys.readouterr().err.splitlines()

    said = tell(0)
    assert [sum(word in line for line in said) for word in ("left out", "must be", "failed")] == [10, COUNT, COUNT]
    assert logging.getLogger().handlers[0].left_out() == COUNT - 10
    assert len(tell(1)) == 3 * COUNT


# --- the bar

BAR = """
import sys
sys.path.insert(0, {root!r})
from lib.progress import terminal_bar
with terminal_bar(1000, "Downloading", "file") as bar:
    bar.update(123)
    bar.set_postfix_str("12.3 MiB/s, 1200 done, 34 failed, 5 blocked, slowest images.a-long-host.example.org 12.3 s")
    bar.update(100)
    bar.expect(50)
    bar.refresh()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="a pseudo-terminal is POSIX")
@pytest.mark.parametrize("columns", [40, 60, 80, 120, 200])
def test_a_bar_stays_a_bar(columns: int) -> None:
    import fcntl
    import pty
    import struct
    import termios

    process, terminal = pty.fork()
    if process == 0:
        fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        os.execv(sys.executable, [sys.executable, "-c", BAR.format(root=str(ROOT))])
    shown = b""
    try:
        while block := os.read(terminal, 4096):
            shown += block
    except OSError:  # how Linux says that the other end is closed
        pass
    os.waitpid(process, 0)
    os.close(terminal)
    last = [line for line in shown.decode().replace("\x1b[A", "").split("\r") if "%" in line][-1].rstrip()
    assert len(last) <= columns and "21%" in last, last
    assert len(last.partition("|")[2].partition("|")[0]) >= 10, last
    assert ("slowest" in last) == (columns >= 200) and ("MiB/s" in last or columns < 120)
