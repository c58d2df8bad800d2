"""Which side of train, val and test a picture is on: pure, stable over runs, repeats together."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from lib.errors import UsageError

NAMES = ("train", "val", "test")


@dataclass(frozen=True)
class Shares:
    """Parts of the whole for train, val and test; they add up to 1."""

    values: tuple[float, float, float]

    @property
    def version(self) -> str:
        return "/".join(f"{value:g}" for value in self.values)

    def side(self, key: str) -> str:
        """The side of a group, by the digest of its name alone: other pictures have no say in it."""
        place = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64
        for name, share in zip(NAMES, self.values, strict=True):
            place -= share
            if place < 0:
                return name
        return NAMES[0]


def parse_shares(text: str) -> Shares:
    """Shares written as 80,10,10 or 0.9,0.1. Raises UsageError."""
    try:
        parts = [float(part) for part in text.split(",")]
    except ValueError:
        parts = []
    if not 1 <= len(parts) <= 3 or min(parts) < 0 or sum(parts) <= 0:
        raise UsageError(f"--split {text!r} is no list of shares; write train,val,test such as 80,10,10.")
    whole = sum(parts)
    first, second, third = [part / whole for part in parts] + [0.0] * (3 - len(parts))
    return Shares((first, second, third))


@dataclass
class Groups:
    """Contents that repeat each other, joined: by step 6's findings and by equal perceptual hashes."""

    parent: dict[str, str] = field(default_factory=dict)
    by_hash: dict[str, str] = field(default_factory=dict)

    def join(self, one: str, other: str) -> None:
        first, second = self.of(one), self.of(other)
        if first != second:
            self.parent[max(first, second)] = min(first, second)

    def add_hashes(self, hashes: Mapping[str, str]) -> None:
        """Perceptual hashes by content."""
        for content, value in hashes.items():
            self.join(content, self.by_hash.setdefault(value, content))

    def of(self, content: str) -> str:
        """The name of the content's group: one of its members."""
        root = content
        while (above := self.parent.get(root, root)) != root:
            root = above
        while (above := self.parent.get(content, content)) != root:
            self.parent[content], content = root, above
        return root


@dataclass
class Sides:
    """Sides of groups. What an earlier export decided (`known`, by content) holds for all that joined a group since."""

    shares: Shares
    groups: Groups
    decided: dict[str, str] = field(default_factory=dict)

    def remember(self, known: Iterable[tuple[str, str]]) -> None:
        """(content, side) of an earlier export with the same shares; the first of a group decides."""
        for content, side in known:
            self.decided.setdefault(self.groups.of(content), side)

    def side(self, content: str) -> str:
        group = self.groups.of(content)
        return self.decided.get(group) or self.shares.side(group)
