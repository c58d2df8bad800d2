"""Whether an engine's answers have changed their shape: this run's pages against the earlier ones of the workspace."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from lib.db import Database
from lib.db import queries as table

NEWEST = 2000  # pages that are looked at
JUMP = 0.20  # by how much more of the results lack their original before that is worth a word
MOST = 0.5  # a key on more results than this is a matter of the engine, not of a picture
RARE = 0.05  # and one that stood on no more than this before is new
NAMED = 5  # keys that a sentence names


@dataclass
class Shape:
    """What the pages of one run, or of several, had in common. Counts are of results."""

    run: int = 0
    day: str = ""
    pages: int = 0
    results: int = 0
    empty_originals: float = 0.0
    unknown: Counter[str] = field(default_factory=Counter)
    missing: Counter[str] = field(default_factory=Counter)

    def add(self, results: int, drift: dict[str, Any]) -> None:
        self.pages += 1
        self.results += results
        self.empty_originals += results * float(drift.get("empty_originals", 0))
        self.unknown.update(drift.get("unknown", {}))
        self.missing.update(drift.get("missing", {}))

    def merge(self, other: Shape) -> None:
        self.pages += other.pages
        self.results += other.results
        self.empty_originals += other.empty_originals
        self.unknown += other.unknown
        self.missing += other.missing

    @property
    def empty_share(self) -> float:
        return self.empty_originals / self.results if self.results else 0.0


def shapes_by_run(db: Database, engine: str) -> list[Shape]:
    """One shape a run, oldest first, over the newest pages."""
    shapes: dict[int, Shape] = {}
    for run, fetched_at, results, drift in table.newest_drift(db, engine, NEWEST):
        shapes.setdefault(run, Shape(run, fetched_at[:10])).add(results, drift)
    return list(shapes.values())


def drift_warning(db: Database, engine: str, run_id: int) -> str:
    """One sentence where this run's answers differ from the earlier ones; empty where they do not, or are the first."""
    now, before = Shape(), Shape()
    for shape in shapes_by_run(db, engine):
        (now if shape.run == run_id else before).merge(shape)
    changes = jumps(before, now)
    if not changes:
        return ""
    return f"{engine} answers in another shape than before: {'; '.join(changes)} (--drift shows more)."


def jumps(before: Shape, now: Shape) -> list[str]:
    """What has changed so much that a person should look; nothing where there is nothing to compare with. Pure."""
    if not before.results or not now.results:
        return []
    found = []
    if now.empty_share >= before.empty_share + JUMP:
        found.append(f"{now.empty_share:.0%} of the results lack their original, {before.empty_share:.0%} did before")
    for word, new, old in (("unknown", now.unknown, before.unknown), ("missing", now.missing, before.missing)):
        keys = [key for key in new if new[key] / now.results > MOST and old[key] / before.results <= RARE]
        if keys:
            found.append(f"{word} on most results: {_listed(keys)}")
    return found


def _listed(keys: Iterable[str]) -> str:
    names = sorted(keys)
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
