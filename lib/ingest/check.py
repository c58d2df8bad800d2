"""`--check`: the database compared with the disk, both ways, and what can be put right.

Rows without files, files without rows, bytes that are no longer those that were kept, raw answers that have gone. A
repair deletes nothing but what a killed run left half written: a lost file makes its picture pending, so that step 5
fetches it again; a file without a row gets one.
"""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lib.db import Context
from lib.db import maintenance as table
from lib.db.files import FileRow, add_or_restore_files
from lib.files.pictures import plain_files, sha256_of, text_name
from lib.images.decode import DecodeError, read_header
from lib.ingest.raw_files import register_in_place, unregistered
from lib.progress import chunked
from lib.temporary import dead_files

EXAMPLES = 10  # kept of every kind of problem
BATCH = 500
GONE = (FileNotFoundError, NotADirectoryError, IsADirectoryError)  # any other error says nothing of the file
EFFECTIVE = os.access in os.supports_effective_ids  # not on every system

# What each problem is called, and what a repair does about it.
PROBLEMS = {
    "missing_file": "the row's file is gone: marked as missing",
    "changed_file": "its bytes are not those that were kept: marked as missing, the new content gets a row",
    "came_back": "a missing file lies in its place again: marked as present",
    "unknown_file": "a picture without a row: gets one",
    "unfinished_file": "a temporary file of a run that was killed: removed",
    "not_a_picture": "a file among the pictures that is none: left alone",
    "unreadable": "a file or folder that may not be read: nothing is known of it, check its permissions",
    "done_without_file": "counts as downloaded and has no file: pending again, for step 5",
    "no_download": "a picture without a row in downloads: gets a pending one",
    "missing_answer": "a raw answer is gone: its pictures stay, the reason is noted",
    "changed_answer": "a raw answer has other bytes than those that were received: the reason is noted",
    "unknown_answer": "a raw answer without a row: gets one, to be ingested",
    "broken_reference": "a row belongs to nothing: left to 4_db_cleanup.py --rule orphan",
    "damaged_database": "SQLite finds the database damaged: put back a backup (4_db_cleanup.py --restore)",
}

# What no repair puts right: a raw answer that has gone is noted and stays gone.
LEFT = {"not_a_picture", "unreadable", "missing_answer", "changed_answer", "broken_reference", "damaged_database"}


@dataclass
class Findings:
    """Everything that a check found, by the names of `PROBLEMS`: how often, and the first few places.

    `files` and `answers` are how many were looked at.
    """

    files: int = 0
    answers: int = 0
    found: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    repaired: int = 0
    unread: set[str] = field(default_factory=set)

    def add(self, kind: str, where: str) -> None:
        self.found[kind] += 1
        if self.found[kind] <= EXAMPLES:
            self.examples.setdefault(kind, []).append(where)

    def add_unread(self, where: str) -> None:
        """Notes what may not be read, once: the same folder stands in the way of many files."""
        if where not in self.unread:
            self.unread.add(where)
            self.add("unreadable", where)

    @property
    def mendable(self) -> int:
        """The number of problems that a repair would put right."""
        return sum(count for kind, count in self.found.items() if kind not in LEFT)

    def lines(self) -> Iterator[str]:
        """The findings for a person: each kind with what becomes of it, and its examples."""
        for kind, count in self.counts().items():
            yield f"{kind}  {count:,}  ({PROBLEMS[kind]})"
            yield from (f"    {where}" for where in self.examples[kind])

    def rows(self) -> list[dict[str, Any]]:
        """The findings for `--json`: kind, number, what becomes of it, examples."""
        about = self.counts().items()
        return [{"kind": k, "count": n, "meaning": PROBLEMS[k], "examples": list(self.examples[k])} for k, n in about]

    def counts(self) -> dict[str, int]:
        return {kind: self.found[kind] for kind in PROBLEMS if kind in self.found}


@dataclass(frozen=True)
class Checker:
    """A check of one workspace; with `repair`, what it finds is put right on the way, a transaction a batch."""

    context: Context
    repair: bool = False
    findings: Findings = field(default_factory=Findings)

    def run(self) -> Findings:
        """Looks at everything. The database itself comes first: what is damaged can prove nothing."""
        for fault in table.damage(self.context.db):
            self.findings.add("damaged_database", fault)
        if self.findings.found:
            return self.findings
        for part in (self.unfinished, self.files, self.strange_files, self.rows, self.answers, self.strange_answers):
            if self.context.stopping():
                break
            part()
        return self.findings

    def unread(self, path: Path, error: OSError) -> None:
        """Notes a file that may not be read, or the folder in which it lies."""
        locked = error.errno == errno.EACCES and not os.access(path.parent, os.X_OK, effective_ids=EFFECTIVE)
        self.findings.add_unread(self.context.workspace.to_text(path.parent if locked else path))

    @contextmanager
    def _mending(self, count: int) -> Iterator[None]:
        """A transaction that puts `count` findings right."""
        with self.context.db.transaction():
            yield
        self.findings.repaired += count

    def unfinished(self) -> None:
        """Temporary files of processes that are no more, wherever they lie in the workspace."""
        for path in dead_files(self.context.workspace.root, deep=True):
            self.findings.add("unfinished_file", self.context.workspace.to_text(path))
            if self.repair:
                with suppress(OSError):
                    path.unlink()
                    self.findings.repaired += 1

    def files(self) -> None:
        """Every row of `files` against its file."""
        db = self.context.db
        with self.context.bar(None, "Checking", "file") as progress:
            for claims in chunked(table.iter_files(db), BATCH):
                states: dict[str, str] = {}
                changed: list[FileRow] = []
                for claim in claims:
                    if "://" in claim.path:  # what lies at another place than this machine's disks is not asked for
                        continue
                    path = self.context.workspace.to_path(claim.path)
                    if found := self._fault_of_file(path, claim):
                        self.findings.add(found, claim.path)
                        states[claim.sha256] = "present" if found == "came_back" else "missing"
                    if found == "changed_file":
                        with suppress(DecodeError):
                            changed += filter(None, [self._file_row(path)])
                self.findings.files += len(claims)
                progress.update(len(claims))
                if self.repair and states:
                    with self._mending(len(states)):
                        for state in ("missing", "present"):
                            table.set_file_state(db, [sha256 for sha256, new in states.items() if new == state], state)
                        add_or_restore_files(db, changed)
                if self.context.stopping():
                    return

    def strange_files(self) -> None:
        """Every file below images/ that no row tells of. Names that begin with a dot belong to work in progress."""
        db, to_text = self.context.db, self.context.workspace.to_text
        endings = (".json", ".part")
        found = plain_files(
            self.context.workspace.images,
            self.unread,
            lambda name: not name.startswith(".") and not name.endswith(endings),
            hidden=False,
        )
        for paths in chunked(found, BATCH):
            texts = {to_text(path): path for path in paths}
            rows = []
            for path in sorted(texts[text] for text in texts.keys() - table.known_paths(db, list(texts))):
                # A changed file was told of already; without a repair its new content has no row yet.
                try:
                    row = self._file_row(path)
                except DecodeError:
                    self.findings.add("not_a_picture", to_text(path))
                    continue
                if row:
                    self.findings.add("unknown_file", row.path)
                    rows.append(row)
            if self.repair and rows:
                with self._mending(len(rows)):
                    add_or_restore_files(db, rows)
            if self.context.stopping():
                return

    def rows(self) -> None:
        """Rows that contradict each other."""
        db = self.context.db
        for kind, pictures, mend in (
            ("done_without_file", table.without_file(db), table.ask_again),
            ("no_download", table.without_download(db), table.add_downloads),
        ):
            for _, key in pictures:
                self.findings.add(kind, key)
            if self.repair and pictures:
                with self._mending(len(pictures)):
                    mend(db, [number for number, _ in pictures])
        for where in table.broken_references(db):
            self.findings.add("broken_reference", where)

    def answers(self) -> None:
        """Every raw answer against its file."""
        with self.context.bar(None, "Checking", "answer") as progress:
            for claims in chunked(table.iter_answers(self.context.db), BATCH):
                notes = []
                for claim in claims:
                    if found := self._fault_of_answer(self.context.workspace.to_path(claim.path), claim.sha256):
                        self.findings.add(found, claim.path)
                        notes.append((claim.id, found.replace("answer", "file")))
                self.findings.answers += len(claims)
                progress.update(len(claims))
                if self.repair and notes:
                    with self._mending(len(notes)):
                        table.fail_answers(self.context.db, notes)
                if self.context.stopping():
                    return

    def strange_answers(self) -> None:
        """Raw answers that no row tells of."""
        found = unregistered(self.context.db, self.context.workspace, self.unread)
        for entry in found:
            self.findings.add("unknown_answer", self.context.workspace.to_text(entry.file))
        if self.repair and found:
            self.findings.repaired += register_in_place(self.context, found, self.unread)

    def _fault_of_file(self, path: Path, claim: table.FileClaim) -> str:
        """The fault of a file; empty when there is none, or nothing can be known."""
        try:
            same = path.stat().st_size == claim.bytes and sha256_of(path) == claim.sha256
        except GONE:
            return "" if claim.state == "missing" else "missing_file"
        except OSError as error:
            self.unread(path, error)
            return ""
        if claim.state == "missing":
            return "came_back" if same else ""
        return "" if same else "changed_file"

    def _fault_of_answer(self, path: Path, sha256: str) -> str:
        try:
            return "changed_answer" if sha256_of(path) != sha256 and sha256 else ""
        except GONE:
            return "missing_answer"
        except OSError as error:
            self.unread(path, error)
            return ""

    def _file_row(self, path: Path) -> FileRow | None:
        """The row that a picture file should have; None where it may not be read. Raises DecodeError for another."""
        try:
            size, digest, where = path.stat().st_size, sha256_of(path), text_name(path, self.context.workspace)
        except OSError as error:
            self.unread(path, error)
            return None
        header = read_header(path)
        sides = (header.width, header.height)
        return FileRow(digest, where, size, header.format, *sides, header.frames, header.orientation)
