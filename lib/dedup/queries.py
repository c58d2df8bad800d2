"""Pictures that are too near to what was searched for, or have nothing to do with it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from lib.db import Database
from lib.db.duplicates import query_picture_paths
from lib.dedup.facts import read_facts
from lib.dedup.find import Group, Member
from lib.hashing.hamming import to_words
from lib.pictures import PictureFile
from lib.workspace import Workspace


def query_places(db: Database, workspace: Workspace) -> list[Path]:
    """The query pictures of step 1 that lie on disk."""
    paths = (workspace.to_path(text) for text in query_picture_paths(db))
    return [path for path in paths if path.is_file()]


def by_queries(
    files: Sequence[PictureFile],
    queries: Sequence[PictureFile],
    hashes: Mapping[str, bytes | None],
    near: int | None,
    far: int | None,
    apart: Collection[frozenset[str]] = (),
) -> list[Group]:
    """One group a query picture with the files that are to go: within `near` bits of it, or beyond `far` of them all.

    A file is in the group of the query picture that it is nearest to. Files and queries without a hash are left alone,
    and files that a person kept before that very picture (`apart`).
    """
    asked = [file for file in queries if hashes.get(file.sha256)]
    known = [file for file in files if hashes.get(file.sha256)]
    if not asked or not known:
        return []
    targets = to_words(
        np.frombuffer(b"".join(hashes[q.sha256] or b"" for q in asked), np.uint8).reshape(len(asked), -1)
    )
    members: dict[int, list[Member]] = {}
    for file in known:
        value = to_words(np.frombuffer(hashes[file.sha256] or b"", np.uint8).reshape(1, -1))
        distances = np.bitwise_count(targets ^ value).sum(axis=1)
        place = int(distances.argmin())
        bits = int(distances[place])
        if frozenset((asked[place].sha256, file.sha256)) in apart:
            continue
        if near is not None and bits <= near:
            chosen = Member(file, read_facts(file.path), "edited", bits, "remove", "nearly the query picture")
        elif far is not None and bits > far:
            chosen = Member(file, read_facts(file.path), "semantic", bits, "remove", "nothing like a query picture")
        else:
            continue
        members.setdefault(place, []).append(chosen)
    return [
        Group(number, asked[place], read_facts(asked[place].path), tuple(members[place]))
        for number, place in enumerate(sorted(members), 1)
    ]
