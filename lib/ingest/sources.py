"""The content of what `--import` names: raw answers, lists of addresses, another pipeline's database.

A path is a file, a folder, or a pattern such as `part-*.parquet`. All of them are looked at before anything is written.
A folder is raw answers where it holds any, else the lists in it; pictures and the files beside them are neither.
"""

from __future__ import annotations

import glob
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lib.db.reference import MAGIC
from lib.errors import GleanerError, UsageError
from lib.files.pictures import SUFFIXES, UnreadableFiles, plain_files
from lib.ingest.lists import LIST_ENGINE, list_layout, list_records, reference_records
from lib.ingest.raw_files import RawFile, find_answers, holds_answers
from lib.ingest.sidecars import METADATA
from lib.records import ImageRecord
from lib.text import counted

log = logging.getLogger("gleaner")

# Endings of lists in a folder; a file that is named may have any. The second kind may be anything, so that one which is
# no list is passed over there, while a table without addresses is told.
TABLES = frozenset({".parquet", ".csv", ".tsv", ".jsonl", ".ndjson"})
TEXTS = frozenset({".json", ".txt"})
STATISTICS = "_stats.json"  # beside each shard of img2dataset
SHOWN = 10  # lists that are named one by one

LAYOUTS = {
    "ours": "a folder of raw answers",
    "reference": "the reference pipeline's XHR folder",
    "single": "raw answers told by their content",
}


@dataclass(frozen=True)
class ImportSource:
    """The content of a path: raw answers, which become rows of their own, or records of an `engine` as they are.

    `unread` tells what could not be looked at, `left_out` counts by reason what has no place in a record.
    """

    path: Path
    description: str
    answers: tuple[RawFile, ...] = ()
    engine: str = ""
    records: Callable[[], Iterator[ImageRecord]] | None = None
    unread: UnreadableFiles = field(default_factory=UnreadableFiles)
    left_out: Counter[str] = field(default_factory=Counter)


def recognise(paths: Sequence[Path], encoding: str = "", column: str = "") -> list[ImportSource]:
    """Returns the content of each path. Raises UsageError where one is nothing that can be imported."""
    sources: list[ImportSource] = []
    for path in _expanded(paths):
        if path.is_dir():
            sources += _recognise_folder(path, encoding, column)
        elif source := _recognise_file(path, encoding, column):
            sources.append(source)
        else:
            sources.append(_answers_of(path))
    return sources


def describe(sources: Sequence[ImportSource]) -> Iterator[str]:
    """Yields a sentence on each source, and one on all beyond the first ten."""
    for source in sources[:SHOWN]:
        yield f"took {source.path} for {source.description}"
    if more := sources[SHOWN:]:
        kinds = Counter(source.description for source in more)
        told = ", ".join(f"{number:,} {kind}" for kind, number in kinds.most_common(SHOWN))
        yield f"took {counted(len(more), 'further file')} for: {told}"


def refuse_unknown(paths: Sequence[Path], encoding: str = "", column: str = "") -> None:
    """Raises UsageError where `recognise` would, and where the first record cannot be read; reads no more than that."""
    if all(path.is_dir() and holds_answers(path) for path in paths):
        return
    first = next((source for source in recognise(paths, encoding, column) if source.records), None)
    if first and first.records:
        next(iter(first.records()), None)


def _expanded(paths: Sequence[Path]) -> Iterator[Path]:
    """Yields the paths that exist and those that patterns match, each once. Raises UsageError for what is not there."""
    seen = set[Path]()
    for path in paths:
        found = [path] if path.exists() else []
        if not found and glob.has_magic(str(path)):
            found = [Path(name) for name in sorted(glob.glob(str(path), recursive=True))]
            if not found:
                raise UsageError(f"--import: nothing matches {path}; check the pattern.")
        if not found:
            raise UsageError(f"--import: {path} does not exist; check the path.")
        for one in found:
            if (place := one.resolve()) not in seen:
                seen.add(place)
                yield one


def _recognise_file(path: Path, encoding: str, column: str) -> ImportSource | None:
    unread, left_out = UnreadableFiles(), Counter[str]()
    with path.open("rb") as handle:
        head = handle.read(len(MAGIC))
    if head == MAGIC:
        description, engine = "the reference pipeline's database", "yandex"
        return ImportSource(path, description, (), engine, lambda: reference_records(path, unread.reasons), unread)
    is_answer = head.lstrip()[:1] in (b"{", b"[", b"<") and any(find_answers(path, unread))
    if is_answer or not (layout := list_layout(path, encoding, column)):
        return None
    return ImportSource(
        path, f"a list of URLs ({layout.description})", (), LIST_ENGINE,
        lambda: list_records(path, layout, unread.reasons, left_out), unread, left_out,
    )  # fmt: skip


def _answers_of(path: Path) -> ImportSource:
    unread = UnreadableFiles()
    answers = tuple(find_answers(path, unread))
    if not answers:
        raise _nothing(path)
    layouts = dict.fromkeys(LAYOUTS[entry.layout] for entry in answers)
    return ImportSource(path, f"{' and '.join(layouts)} ({counted(len(answers), 'file')})", answers, unread=unread)


def _nothing(path: Path) -> UsageError:
    return UsageError(
        f"--import: {path} holds neither raw answers nor a list of URLs nor a reference pipeline's database;"
        " give one of those. A folder of pictures is for --import-folder."
    )


def _recognise_folder(folder: Path, encoding: str, column: str) -> list[ImportSource]:
    """Returns what a folder was taken for; what else lies in it is said."""
    unread = UnreadableFiles()
    files = list(plain_files(folder, unread, lambda name: Path(name).suffix.lower() in TABLES | TEXTS | SUFFIXES))
    lists, pictures, beside = _lists_among(files)
    if any(entry.file not in beside for entry in _answers_below(folder)):
        if others := sum(path.suffix.lower() in TABLES for path in lists):
            log.warning("%s holds raw answers; the %s in it are left: name them", folder, counted(others, "list"))
        return [_answers_of(folder)]
    sources, reasons, left_out = list[ImportSource](), unread.reasons, Counter[str]()
    for path in lists:
        try:
            source = _recognise_file(path, encoding, column)
        except (UsageError, GleanerError, OSError) as error:
            if path.suffix.lower() in TABLES:
                log.warning("%s is left out: %s", path, error)
                reasons["unusable_list"] += 1
            source = None
        if source:
            sources.append(source)
        elif path.suffix.lower() in TEXTS:
            left_out["not_a_list"] += 1
    if not sources:
        raise _nothing(folder)
    sources[0].unread.reasons.update(reasons)
    sources[0].left_out.update(left_out)
    if pictures:
        log.warning("took %s for lists; the %s in it are for --import-folder", folder, counted(pictures, "picture"))
    return sources


def _answers_below(folder: Path) -> Iterator[RawFile]:
    return find_answers(folder, UnreadableFiles()) if holds_answers(folder) else iter(())


def _lists_among(files: Iterable[Path]) -> tuple[list[Path], int, set[Path]]:
    """Returns the files that may be lists, the number of pictures, and the files that stand beside one: they tell of it
    alone, as img2dataset and other downloaders write them."""
    lists, pictures, folders = list[Path](), set[Path](), set[Path]()
    for path in files:
        if path.suffix.lower() in SUFFIXES:
            pictures |= {path.with_suffix(""), path}
            folders |= {path.parent, *path.parent.parents}
        elif not path.name.endswith(STATISTICS):
            lists.append(path)

    def is_beside(path: Path) -> bool:
        if path.name in METADATA:
            return path.parent in folders
        return path.suffix.lower() in TEXTS and path.with_suffix("") in pictures

    beside = set(filter(is_beside, lists))
    return [path for path in lists if path not in beside], len(pictures) // 2, beside
