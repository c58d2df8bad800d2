"""How an answer's shape differs from the one that a parser was written for.

The report is a small dictionary, empty when nothing is new:

    unknown          {"entity.newKey": how many results have it}
    missing          {"entity.alt": how many results lack a key that all should have}
    empty_originals  share of results without the address of the original, 0..1
    repaired         true when the JSON had to be mended before it could be read
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from typing import Any

MOST_KEYS = 40  # names kept: a hostile answer may have a million
NAME_LENGTH = 60


@dataclass
class Drift:
    """Counts while a parser walks over an answer; `report()` gives the dictionary."""

    unknown: Counter[str] = field(default_factory=Counter)
    missing: Counter[str] = field(default_factory=Counter)
    results: int = 0
    empty_originals: int = 0
    repaired: bool = False
    plain: dict[str, tuple[str, ...]] = field(default_factory=dict)  # the last keys of each part that were as expected
    usual: tuple[Any, ...] = ()  # for parsers of many parts: the last shape in which each of them was as expected

    def see(self, part: str, found: Mapping[str, Any], known: Set[str], expected: Set[str]) -> bool:
        """Notes the keys of one object that are new, and those that it should have and has not; True without any.

        What is known and expected may depend on the part and on the object's keys only.
        """
        keys = tuple(found)
        if self.plain.get(part) == keys:
            return True
        if found.keys() <= known and expected <= found.keys():
            self.plain[part] = keys
            return True
        if not found.keys() <= known:
            for key in found.keys() - known:
                name = f"{part}.{key[:NAME_LENGTH]}"
                if name in self.unknown or len(self.unknown) < MOST_KEYS:
                    self.unknown[name] += 1
        if not expected <= found.keys():
            self.missing.update(f"{part}.{key}" for key in expected - found.keys())
        return False

    def report(self) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for name, counts in (("unknown", self.unknown), ("missing", self.missing)):
            if counts:
                made[name] = dict(sorted(counts.items()))
        if self.empty_originals:
            made["empty_originals"] = round(self.empty_originals / self.results, 4)
        if self.repaired:
            made["repaired"] = True
        return made
