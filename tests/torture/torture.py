"""The torture suite: every step disturbed at every operation on a file and at every commit.

    python -m pytest tests/torture                               the quick slice, part of the ordinary tests
    python -m pytest tests/torture --torture all                 every point of every scenario: an hour or two
    python -m pytest tests/torture --torture all -k dedup-hard   one scenario

A `Scenario` says how a folder is prepared, which command is run in it, and how that is taken back. The checks are

    check_kills(...)       killed at a point, then run again, or taken back
    check_full_disk(...)   the disk is full at a point: one sentence, exit code 1; then run again
    check_interrupts(...)  Ctrl-C at a point, once or twice: exit code 130; then run again
    check_pair(...)        two commands at once

Each compares the end with that of an undisturbed run: see state.py for what is compared. Every run starts from a copy
of the prepared folder at the same path, so that nothing else can differ. The points are found by an undisturbed run
that counts them, so a scenario needs no list of its own, and a new operation in the code is a new point by itself.

To add a scenario, write `prepare(folder)`, which fills `folder.photos` and the like and may run steps, and add it to
the table of a test module, whose tests end in `check_…(folder, scenario, points).fail()`:

    Scenario("dedup-hard", prepare=two_equal_jpegs, command=("dedup", "exact", "{photos}", "--link", "hard"),
             undo=("dedup", "--undo", "last"))

Words in braces are places: {ws} the workspace (given to every command by itself), {photos} and {more} user folders.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from fork_server import Ended, ForkServer
from points import GROWING
from state import State, contents, state_of

Command = tuple[str, ...]
SHOWN = 12  # differences of a point that a failure shows
EXIT_INTERRUPTED = 130
QUICK = 2  # points of a check in the quick slice, and as many more at commits
PAGES = {"quick": (0, 2), "all": tuple(range(13))}  # by which a database may grow


@dataclass(frozen=True)
class Folder:
    """Where a scenario takes place: a workspace and folders of a user, side by side."""

    root: Path
    server: ForkServer
    site: str = ""  # the address of a server with pictures, for step 5

    @property
    def ws(self) -> Path:
        return self.root / "ws"

    @property
    def photos(self) -> Path:
        return self.root / "photos"

    @property
    def more(self) -> Path:
        return self.root / "more"

    def words(self, command: Command) -> tuple[str, list[str]]:
        """The step and its arguments, places filled in."""
        places = {"ws": self.ws, "photos": self.photos, "more": self.more, "root": self.root, "site": self.site}
        return command[0], [*(word.format(**places) for word in command[1:]), "--workspace", str(self.ws)]

    def run(self, *command: str, expect: int | None = 0, kind: str = "", at: int = 0, answer: str = "") -> Ended:
        """Runs a step; with `expect` it must end with that exit code."""
        step, words = self.words(command)
        ended = self.server.run(step, words, kind=kind, at=at, root=self.root, answer=answer)
        assert expect is None or ended.code == expect, f"{' '.join(command)}: {ended}"
        return ended

    def state(self) -> State:
        return state_of(self.root, self.ws)


@dataclass(frozen=True)
class Scenario:
    """One command and what it starts from.

    prepare     fills the folder; may run steps
    command     the step and its arguments
    undo        what takes it back, if anything does
    answer      what is typed when the command asks; AS_ASKED for the number that it asks for
    again       what is run after a disturbance, where that is not the command itself
    deletes     whether the command is meant to delete files for good
    ignore      tables that are not compared
    caches      tables that an undo leaves as they are: a run that came less far has measured less
    kept        tables of which an undo brings only a part back
    slow        whether it starts processes: not in the quick slice
    """

    name: str
    prepare: Callable[[Folder], None]
    command: Command
    undo: Command = ()
    answer: str = ""
    again: Command = ()
    deletes: bool = False
    ignore: tuple[str, ...] = ()
    caches: Iterable[str] = ("hashes", "near_hashes", "near_pairs", "relations", "scores", "embeddings", "labels")
    kept: tuple[str, ...] = ()
    slow: bool = False


@dataclass
class Report:
    """What a check found, and how much it looked at."""

    scenario: str
    points: int = 0
    tried: int = 0
    faults: list[str] = field(default_factory=list)

    def add(self, point: int, label: str, what: str, lines: Sequence[str]) -> None:
        if lines:
            shown = [*lines[:SHOWN], *([f"… and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else [])]
            text = "\n      ".join(line[:400] for line in shown)
            self.faults.append(f"point {point} ({label}), then {what}:\n      {text}")

    def join(self, other: Report) -> None:
        self.points += other.points
        self.tried += other.tried
        self.faults += other.faults

    def fail(self) -> None:
        """Fails the test where there are faults."""
        if self.faults:
            pytest.fail(str(self), pytrace=False)

    def __str__(self) -> str:
        head = f"{self.scenario}: {len(self.faults)} faults at {self.tried} of {self.points} points"
        return "\n    ".join([head, *self.faults[:40]])


def check_kills(folder: Folder, scenario: Scenario, points: str = "quick") -> Report:
    """Kills the command at its points."""

    # A run with threads need not come by the same way twice: it may reach its end before that point.
    return _check(folder, scenario, "kill", points, lambda ended, code: ended.killed or ended.code == code)


def check_full_disk(folder: Folder, scenario: Scenario, points: str = "quick") -> Report:
    """The disk is full at a point, and has room again afterwards; the run ends with 1, or can do without.

    Then the same with a database that SQLite itself may not let grow by more than some pages.
    """
    report = _check(folder, scenario, "full", points, lambda ended, code: ended.code in (1, code))
    report.join(_check(folder, scenario, "pages", points, lambda ended, code: ended.code in (1, code)))
    return report


def check_interrupts(folder: Folder, scenario: Scenario, points: str = "quick", *, twice: bool = False) -> Report:
    """Ctrl-C at a point: the run ends with 130, or had nothing more to do."""
    kind = "interrupt-twice" if twice else "interrupt"
    return _check(folder, scenario, kind, points, lambda ended, code: ended.code in (EXIT_INTERRUPTED, code))


def _check(
    folder: Folder, scenario: Scenario, kind: str, points: str, well: Callable[[Ended, int], bool]
) -> Report:  # fmt: skip
    """Disturbs the command at its points and goes on, once by running it again and once by taking it back."""
    tests = prepared(folder, scenario)
    numbers = PAGES[points] if kind == "pages" else tests.numbers(growing=kind == "full")
    report = Report(f"{scenario.name}, {kind}", len(numbers))
    before = contents(tests.stock)
    for point in numbers if kind == "pages" else tests.chosen(numbers, points):
        label = f"{point} pages more" if kind == "pages" else tests.labels[point - 1]
        folder.server.tally[kind] += 1
        tests.start_over()
        ended = tests.disturb(kind, point)
        report.tried += 1
        if not well(ended, tests.code) or "Traceback" in ended.err:
            report.add(point, label, "nothing", [f"it ended so: {ended}"])
        if not scenario.deletes and (lost := before - contents(tests.folder.root)):
            report.add(point, label, "nothing", [f"{len(lost)} files are lost"])
        if scenario.undo:
            tests.keep()
        report.add(point, label, "run again", tests.run_again())
        if scenario.undo:
            tests.come_back()
            report.add(point, label, "taken back", tests.take_back())
    return report


def check_pair(folder: Folder, prepare: Callable[[Folder], None], commands: Sequence[Command]) -> list[str]:
    """Runs two commands at once, then both again, one after the other. Gives what is wrong with how they ended.

    One may say that the other is at work, or that there is nothing for it to do. In the end no file is lost, and the
    database and the disk tell the same.
    """
    server = folder.server
    folder = Folder(folder.root / "pair" / "at", server, folder.site)
    clear(folder.root)
    prepare(folder)
    before = contents(folder.root)
    server.tally["pair"] += 1
    faults = []
    for command, ended in zip(
        commands, server.run_together([folder.words(command) for command in commands]), strict=True
    ):
        busy = ended.code == 1 and "at work" in ended.err
        if "Traceback" in ended.err or (ended.code not in (0, 2) and not busy):
            faults.append(f"{' '.join(command)}: {ended}")
    for command in commands:
        ended = folder.run(*command, expect=None)
        if "Traceback" in ended.err or ended.code not in (0, 2):
            faults.append(f"{' '.join(command)}, run again: {ended}")
    if lost := before - contents(folder.root):
        faults.append(f"{len(lost)} files are lost")
    checked = folder.run("ingest", "--check", "--strict", expect=None)
    return faults + ([f"--check says: {checked}"] if checked.code else [])


class Disturbed:
    """A scenario, prepared once, with the ends of its undisturbed runs."""

    def __init__(self, root: Path, server: ForkServer, scenario: Scenario, site: str) -> None:
        self.scenario = scenario
        self.folder = folder = Folder(root / "at", server, site)
        self.stock, self.spare = root / "stock", root / "spare"
        clear(folder.root)
        scenario.prepare(folder)
        copy_tree(folder.root, self.stock)
        ended = self.disturb("count", 0)
        assert "Traceback" not in ended.err, str(ended)
        self.code, self.labels = ended.code, ended.points
        self.end = folder.state()
        if scenario.undo:
            self.keep()
        self.again = folder.run(*(scenario.again or scenario.command), expect=None, answer=scenario.answer)
        self.second = folder.state()
        if scenario.undo:
            self.come_back()
            folder.run(*scenario.undo)
            self.undone = folder.state()

    def numbers(self, *, growing: bool = False) -> Sequence[int]:
        """The points; only those that may need room on the disk."""
        return [number for number, label in enumerate(self.labels, 1) if not growing or label.split()[0] in GROWING]

    def chosen(self, numbers: Sequence[int], points: str) -> Sequence[int]:
        """The points to try: all, or some and some of those at commits, always the same.

        Where a scenario begins to choose depends on its name, so that all of them together meet every kind of point.
        """
        if points == "all":
            return numbers
        commits = [number for number in numbers if self.labels[number - 1].startswith("commit")]
        start = sum(self.scenario.name.encode())
        return sorted({*_spread(numbers, start), *_spread(commits, start)})

    def start_over(self) -> None:
        copy_tree(self.stock, self.folder.root)

    def keep(self) -> None:
        copy_tree(self.folder.root, self.spare)

    def come_back(self) -> None:
        copy_tree(self.spare, self.folder.root)

    def disturb(self, kind: str, at: int) -> Ended:
        return self.folder.run(*self.scenario.command, expect=None, kind=kind, at=at, answer=self.scenario.answer)

    def second_run(self) -> list[str]:
        """What a second run changes, which is nothing but the groups that it sees now."""
        return self.end.differences(self.second, tables={*self.scenario.ignore, "duplicates"})

    def run_again(self) -> list[str]:
        """The differences after the next run, from the end of an undisturbed one.

        Where the disturbance came late, the next run is a second one, and may end as a second one does.
        """
        words = self.scenario.again or self.scenario.command
        ended = self.folder.run(*words, expect=None, answer=self.scenario.answer)
        if ended.code not in (self.code, self.again.code) or "Traceback" in ended.err:
            return [f"exit code {self.code} expected: {ended}"]
        state = self.folder.state()
        allowed = {*self.end.rows.get("duplicates", []), *self.second.rows.get("duplicates", [])}
        state.rows["duplicates"] = [
            row for row in state.rows.get("duplicates", []) if row not in allowed or row in self.end.rows["duplicates"]
        ]
        return self.end.differences(state, tables=self.scenario.ignore)

    def take_back(self) -> list[str]:
        """The differences after the undo, which has nothing to do where the disturbance came early.

        Then a run has left no entry that could be called undone, no report and no backup, and it has measured less. A
        run that was asked to stop before it moved anything has written its report, which stays.
        """
        if not (self.folder.ws / "gleaner.db").exists():
            return []
        ended = self.folder.run(*self.scenario.undo, expect=None)
        if ended.code or "Traceback" in ended.err:
            return [str(ended)]
        state = self.folder.state()
        tables = {*self.scenario.ignore, *self.scenario.kept}
        moved = any('"undone"' in row for row in state.rows.get("actions", []))
        if not moved:
            tables.add("duplicates")
        less = ["actions", *self.scenario.caches]
        allowed = (
            *(f"- {table}: " for table in less),
            "- ws/reports/",
            "- ws/backups/",
            *([] if moved else ["+ ws/reports/dedup"]),
        )
        return [line for line in self.undone.differences(state, tables=tables) if not line.startswith(allowed)]


def prepared(folder: Folder, scenario: Scenario) -> Disturbed:
    """The scenario, prepared when it is first asked for: several checks share it."""
    known: dict[str, Disturbed] = folder.server.prepared
    if scenario.name not in known:
        known[scenario.name] = Disturbed(folder.root / scenario.name, folder.server, scenario, folder.site)
    return known[scenario.name]


def _spread(numbers: Sequence[int], start: int) -> Sequence[int]:
    step = -(-len(numbers) // QUICK) or 1
    return numbers[start % step :: step]


def clear(root: Path) -> None:
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)


def copy_tree(source: Path, target: Path) -> None:
    """Makes `target` a copy of `source`: times, links and names that share one file included."""
    shutil.rmtree(target, ignore_errors=True)
    made: dict[tuple[int, int], str] = {}
    for folder, folders, files in os.walk(source):
        there = os.path.join(target, os.path.relpath(folder, source))
        os.makedirs(there, exist_ok=True)
        for name in (*folders, *files):
            path, copy = os.path.join(folder, name), os.path.join(there, name)
            about = os.lstat(path)
            if os.path.islink(path):
                os.symlink(os.readlink(path), copy)
            elif name in files:
                first = made.setdefault((about.st_dev, about.st_ino), copy)
                if first == copy:
                    shutil.copy2(path, copy)
                else:
                    os.link(first, copy)
