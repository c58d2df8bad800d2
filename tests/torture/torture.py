"""The torture suite: every step disturbed at every operation on a file and at every commit.

    python -m pytest tests/torture                    the quick slice, part of the ordinary tests
    python -m pytest tests/torture --torture all      every point of every scenario; an hour
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
from state import State, contents, state_of

Command = tuple[str, ...]
SHOWN = 12  # differences of a point that a failure shows
EXIT_INTERRUPTED = 130
QUICK = 10  # points of a scenario in the quick slice, besides those at commits


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

    def keep_as(self, stock: Path) -> None:
        copy_tree(self.root, stock)

    def become(self, stock: Path) -> None:
        copy_tree(stock, self.root)


@dataclass(frozen=True)
class Scenario:
    """One command and what it starts from.

    prepare     fills the folder; may run steps
    command     the step and its arguments
    undo        what takes it back, if anything does
    answer      what is typed when the command asks
    again       what is run after a disturbance, where that is not the command itself
    deletes     whether the command is meant to delete files for good
    caches      tables that an undo leaves as they are: what was measured stays measured, as far as the run came
    """

    name: str
    prepare: Callable[[Folder], None]
    command: Command
    undo: Command = ()
    answer: str = ""
    again: Command = ()
    deletes: bool = False
    ignore: frozenset[str] = frozenset()
    caches: frozenset[str] = frozenset(
        {"hashes", "near_hashes", "near_pairs", "relations", "scores", "embeddings", "robots"}
    )


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

    def fail(self) -> None:
        """Fails the test where there are faults."""
        if self.faults:
            pytest.fail(str(self), pytrace=False)

    def __str__(self) -> str:
        head = f"{self.scenario}: {len(self.faults)} faults at {self.tried} of {self.points} points"
        return "\n    ".join([head, *self.faults[:40]])


def check_kills(folder: Folder, scenario: Scenario, points: str = "quick") -> Report:
    """Kills the command at its points and goes on, once by running it again and once by taking it back."""
    tests = Disturbed(folder, scenario)
    report = Report(scenario.name, len(tests.labels))
    before = contents(tests.stock)
    spare = folder.root.with_name(folder.root.name + "-spare")
    for point in chosen(tests.labels, points):
        label = tests.labels[point - 1]
        folder.become(tests.stock)
        ended = folder.run(*scenario.command, expect=None, kind="kill", at=point, answer=scenario.answer)
        report.tried += 1
        if not ended.killed:  # a run with threads need not come by the same way twice
            report.add(point, label, "no kill", [] if ended.code == tests.code else [str(ended)])
        if not scenario.deletes and (lost := before - contents(folder.root)):
            report.add(point, label, "nothing", [f"{len(lost)} files are lost"])
        if scenario.undo:
            folder.keep_as(spare)
        report.add(point, label, "run again", tests.run_again())
        if scenario.undo:
            folder.become(spare)
            report.add(point, label, "taken back", tests.take_back())
    return report


def check_full_disk(folder: Folder, scenario: Scenario, points: str = "quick") -> Report:
    """The disk is full at a point, and has room again afterwards."""
    tests = Disturbed(folder, scenario, kind="full")
    report = Report(scenario.name, len(tests.labels))
    before = contents(tests.stock)
    for point in chosen(tests.labels, points):
        label = tests.labels[point - 1]
        folder.become(tests.stock)
        ended = folder.run(*scenario.command, expect=None, kind="full", at=point, answer=scenario.answer)
        report.tried += 1
        if ended.code not in (1, tests.code) or "Traceback" in ended.err:
            report.add(point, label, "nothing", [f"no sentence: {ended}"])
        if not scenario.deletes and (lost := before - contents(folder.root)):
            report.add(point, label, "nothing", [f"{len(lost)} files are lost"])
        report.add(point, label, "run again", tests.run_again())
    return report


def check_interrupts(folder: Folder, scenario: Scenario, points: str = "quick", *, twice: bool = False) -> Report:
    """Ctrl-C at a point: the run ends with 130, or had nothing more to do; the next one completes it."""
    kind = "interrupt-twice" if twice else "interrupt"
    tests = Disturbed(folder, scenario)
    report = Report(scenario.name, len(tests.labels))
    before = contents(tests.stock)
    for point in chosen(tests.labels, points):
        label = tests.labels[point - 1]
        folder.become(tests.stock)
        ended = folder.run(*scenario.command, expect=None, kind=kind, at=point, answer=scenario.answer)
        report.tried += 1
        if ended.code not in (EXIT_INTERRUPTED, tests.code) or "Traceback" in ended.err:
            report.add(point, label, "nothing", [f"not 130: {ended}"])
        if not scenario.deletes and (lost := before - contents(folder.root)):
            report.add(point, label, "nothing", [f"{len(lost)} files are lost"])
        report.add(point, label, "run again", tests.run_again())
    return report


def check_pair(folder: Folder, prepare: Callable[[Folder], None], commands: Sequence[Command]) -> list[str]:
    """Runs commands at once, then each that refused again. Gives what is wrong with how they ended.

    A run may say that another one is at work; it may not end in a traceback or lose files.
    """
    clear(folder.root)
    prepare(folder)
    before = contents(folder.root)
    words = [folder.words(command) for command in commands]
    faults = []
    for command, ended in zip(commands, folder.server.run_together(words), strict=True):
        busy = "another run" in ended.err or "is at work" in ended.err
        if "Traceback" in ended.err or ended.code not in (0, 1) or (ended.code == 1 and not busy):
            faults.append(f"{' '.join(command)}: {ended}")
        if ended.code:
            folder.run(*command, expect=None)
    if lost := before - contents(folder.root):
        faults.append(f"{len(lost)} files are lost")
    return faults


class Disturbed:
    """A scenario, prepared once, with the ends of its undisturbed runs."""

    def __init__(self, folder: Folder, scenario: Scenario, kind: str = "count") -> None:
        self.folder, self.scenario = folder, scenario
        clear(folder.root)
        scenario.prepare(folder)
        self.stock = folder.root.with_name(folder.root.name + "-stock")
        folder.keep_as(self.stock)
        # A disturbance at a point that never comes: what is counted is what this kind of disturbance counts.
        ended = folder.run(*scenario.command, expect=None, kind=kind, answer=scenario.answer)
        assert "Traceback" not in ended.err, str(ended)
        self.code, self.labels = ended.code, ended.points
        self.end = folder.state()
        if scenario.undo:
            folder.run(*scenario.undo)
            self.undone = folder.state()

    def run_again(self) -> list[str]:
        """The differences after the next run."""
        ended = self.folder.run(
            *(self.scenario.again or self.scenario.command), expect=None, answer=self.scenario.answer
        )
        if ended.code != self.code:
            return [f"exit code {self.code} expected: {ended}"]
        return self.end.differences(self.folder.state(), tables=self.scenario.ignore)

    def take_back(self) -> list[str]:
        """The differences after the undo, which has nothing to do where the disturbance came early.

        Then a run has left no entry that could be called undone, no report, and the groups that it found; an undo that
        did something leaves the reports' index.
        """
        if not (self.folder.ws / "gleaner.db").exists():
            return []
        ended = self.folder.run(*self.scenario.undo, expect=None)
        if ended.code:
            return [str(ended)]
        state = self.folder.state()
        tables = {*self.scenario.ignore, *self.scenario.caches}
        if not any('"undone"' in row for row in state.rows.get("actions", [])):
            tables.add("duplicates")
        lines = self.undone.differences(state, tables=tables)
        return [line for line in lines if not line.startswith(("- actions: ", "- ws/reports/"))]


def chosen(labels: Sequence[str], points: str) -> Iterable[int]:
    """The numbers of the points to try: all, or those at commits and some of the others, always the same."""
    if points == "all":
        return range(1, len(labels) + 1)
    step = max(1, -(-len(labels) // QUICK))
    commits = [number for number, label in enumerate(labels, 1) if label.startswith("commit")]
    some = commits[:: max(1, -(-len(commits) // QUICK))]
    return sorted({*range(1, len(labels) + 1, step), *some})


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
