"""What `--import PATH` was given, told by its content and said aloud."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lib.db.reference import MAGIC
from lib.errors import UsageError
from lib.raw_files import Found, find_answers

LAYOUTS = {
    "ours": "a folder of raw answers",
    "reference": "the reference pipeline's XHR folder",
    "single": "raw answers told by their content",
}


@dataclass(frozen=True)
class Source:
    """What a path holds: raw answers, or a reference pipeline's database (then `answers` is empty)."""

    path: Path
    kind: str  # answers or reference_database
    description: str
    answers: tuple[Found, ...] = ()


def recognise(path: Path) -> Source:
    """Looks at what is there. Raises UsageError where it is nothing that can be imported."""
    if not path.exists():
        raise UsageError(f"--import: {path} does not exist; check the path.")
    if path.is_file():
        with path.open("rb") as handle:
            head = handle.read(len(MAGIC))
        if head == MAGIC:
            return Source(path, "reference_database", "the reference pipeline's database")
    answers = tuple(find_answers(path))
    if not answers:
        raise UsageError(
            f"--import: {path} holds neither raw answers nor a reference pipeline's database; give one of those."
        )
    layouts = dict.fromkeys(LAYOUTS[entry.layout] for entry in answers)
    count = f"{len(answers):,} file{'s' if len(answers) != 1 else ''}"
    return Source(path, "answers", f"{' and '.join(layouts)} ({count})", answers)
