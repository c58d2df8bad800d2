"""What `--import PATH` was given, told by its content and said aloud."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from lib.db.reference import MAGIC
from lib.errors import UsageError
from lib.plain_files import Unread
from lib.raw_files import Found, find_answers
from lib.records import ImageRecord
from lib.reference_import import reference_records
from lib.sentences import counted
from lib.url_lists import LIST_ENGINE, list_format, list_records

LAYOUTS = {
    "ours": "a folder of raw answers",
    "reference": "the reference pipeline's XHR folder",
    "single": "raw answers told by their content",
}


@dataclass(frozen=True)
class Source:
    """What a path holds: raw answers, which become rows of their own, or records of an `engine` as they are.

    `unread` tells what could not be looked at.
    """

    path: Path
    description: str
    answers: tuple[Found, ...] = ()
    engine: str = ""
    records: Callable[[], Iterator[ImageRecord]] | None = None
    unread: Unread = field(default_factory=Unread)


def recognise(path: Path) -> Source:
    """Looks at what is there. Raises UsageError where it is nothing that can be imported."""
    if not path.exists():
        raise UsageError(f"--import: {path} does not exist; check the path.")
    if path.is_file() and (source := _recognise_file(path)):
        return source
    unread = Unread()
    answers = tuple(find_answers(path, unread))
    if not answers:
        raise UsageError(
            f"--import: {path} holds neither raw answers nor a list of URLs nor a reference pipeline's database;"
            " give one of those. A folder of pictures is for --import-folder."
        )
    layouts = dict.fromkeys(LAYOUTS[entry.layout] for entry in answers)
    return Source(path, f"{' and '.join(layouts)} ({counted(len(answers), 'file')})", answers, unread=unread)


def _recognise_file(path: Path) -> Source | None:
    with path.open("rb") as handle:
        head = handle.read(len(MAGIC))
    if head == MAGIC:
        unread = Unread()
        return Source(
            path, "the reference pipeline's database", engine="yandex", unread=unread,
            records=lambda: reference_records(path, unread.reasons),
        )  # fmt: skip
    if kind := list_format(path):
        unread = Unread()
        return Source(
            path, f"a list of URLs ({kind})", engine=LIST_ENGINE, unread=unread,
            records=lambda: list_records(path, kind, unread.reasons),
        )  # fmt: skip
    return None
