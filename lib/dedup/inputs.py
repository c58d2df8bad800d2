"""The input of a run of step 6: the files, what a person has decided about them, and the query pictures."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lib.db import Context, Database
from lib.db.duplicates import present_file_count, query_picture_paths
from lib.dedup.grouping import PROTECTED
from lib.dedup.groups import DuplicateGroup, Member
from lib.dedup.judge import ONE_FILE
from lib.dedup.keep import read_traits
from lib.dedup.report import BrokenFile, full_path
from lib.errors import UsageError
from lib.files.pictures import PassedOver, PictureFile, folder_pictures, workspace_pictures
from lib.hashing.hamming import to_words
from lib.workspace import Workspace


def read_files(
    context: Context, folders: Sequence[Path], limit: int | None, passed_over: PassedOver
) -> tuple[list[PictureFile], list[BrokenFile]]:
    """Returns the files to look at, at most `limit`, and those that could not be read; counts what is passed over.

    Raises UsageError for a folder that is none, and for a workspace without pictures.
    """
    db, workspace = context.db, context.workspace
    if not folders:
        if not present_file_count(db):
            raise UsageError("the workspace holds no picture yet; run 5_download.py first, or name a folder.")
        return list(workspace_pictures(db, workspace, limit)), []
    unreadable: list[BrokenFile] = []
    ours = tuple(folder.resolve() for folder in (workspace.quarantine, workspace.sorted))
    inside: dict[str, bool] = {}  # asked once a folder: to resolve every path costs more than all else of a second run

    def is_ours(path: Path) -> bool:
        parent = os.path.dirname(path)
        if parent not in inside:
            real = Path(parent).resolve()
            inside[parent] = any(folder == real or folder in real.parents for folder in ours)
        return inside[parent]

    def note(path: Path, error: OSError) -> None:
        if not is_ours(path):
            unreadable.append(could_not_read(path, error))

    remember = not context.dry_run
    found = folder_pictures(
        db, folders, remember=remember, unreadable=note, bar=context.bar, limit=limit, passed_over=passed_over
    )
    return [file for file in found if not is_ours(file.path)], unreadable


def could_not_read(path: Path, error: OSError) -> BrokenFile:
    """Returns a file or folder that could not be read, with the reason."""
    known = {errno.EILSEQ: "name_not_utf8", errno.ENOENT: "missing_file"}
    unreadable = "unreadable_folder" if path.is_dir() else "unreadable_file"
    return BrokenFile(path, known.get(error.errno or 0, unreadable))


def normal_folders(workspace: Workspace, folders: Iterable[Path]) -> list[Path]:
    """Returns the folders, absolute, each once, and inside the workspace written as the database writes it."""
    found: dict[Path, Path] = {}
    root = workspace.root.resolve()
    for folder in folders:
        real = folder.resolve()
        inside = real == root or root in real.parents
        chosen = workspace.root / real.relative_to(root) if inside else Path(os.path.abspath(folder))
        found.setdefault(real, chosen)
    return list(found.values())


@dataclass(frozen=True)
class PersonDecision:
    """A decision that a person made on a file, and the keeper beside which it was shown; empty where nobody says."""

    word: str
    keeper: str = ""

    def is_about(self, group: DuplicateGroup) -> bool:
        return self.keeper in ("", full_path(group.keeper))


def read_decisions(path: Path) -> dict[str, PersonDecision]:
    """Returns path -> decision, from a file that the page saved or `--plan` wrote. Raises UsageError for any other.

    `keeper` says of a file that it takes the place of the keeper beside which it was shown.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if "decisions" in data:
            members = data["decisions"]
        else:
            members = [{"keeper": g.get("keeper"), **member} for g in data["groups"] for member in g["members"]]
        found = {str(m["path"]): PersonDecision(str(m["decision"]), str(m.get("keeper") or "")) for m in members}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{path} holds no decisions ({error}); give a file saved from the page or by --plan."
        ) from error
    if wrong := {decision.word for decision in found.values()} - {"remove", "review", "keep", "keeper"}:
        raise UsageError(f"{path} holds the decision {min(wrong)!r}; it is one of remove, review, keep, keeper.")
    return found


def decide(
    groups: Sequence[DuplicateGroup], decisions: dict[str, PersonDecision], *, others: bool
) -> list[DuplicateGroup]:
    """Returns the groups under a person's decisions. Without `others`, files not decided on stay.

    That a file goes holds beside the keeper that was shown with it, and no other. Nobody can decide that a file goes
    which other files of the plan rely on, or which must stay. A keeper that was replaced by another copy goes for it.
    """
    keepers = {full_path(group.keeper) for group in groups}

    def decided(group: DuplicateGroup, member: Member) -> Member:
        path = full_path(member.file)
        wanted = member.decision if others else "keep"
        decision = decisions.get(path)
        if decision and (decision.word != "remove" or decision.is_about(group)):
            wanted = "keep" if decision.word == "keeper" else decision.word
        chosen = decisions.get(full_path(group.keeper))
        if chosen and chosen.word == "keeper" and chosen.keeper == path and path not in keepers:
            # That the copy without colour is to stay, say, is for the person to judge.
            stays = member.decision == "keep" and member.reason in (ONE_FILE, PROTECTED)
            reason = "another copy was made the keeper by hand"
            return member if stays else replace(member, decision="remove", reason=reason)
        if wanted == member.decision:
            return member
        if wanted == "remove" and (path in keepers or member.decision == "keep"):
            return member
        return replace(member, decision=wanted, reason=f"{member.reason}; decided by hand")

    return [replace(group, members=tuple(decided(group, m) for m in group.members)) for group in groups]


def not_followed(groups: Iterable[DuplicateGroup], decisions: dict[str, PersonDecision]) -> int:
    """Counts files that were to go by a person's decision and do not: not looked at, relied upon, of another keeper.

    So does a keeper in whose place another copy was to stay.
    """
    going = {full_path(m.file): full_path(g.keeper) for g in groups for m in g.members if m.decision == "remove"}
    left = [path for path, decision in decisions.items() if decision.word == "remove" and path not in going]
    for path, decision in decisions.items():
        if decision.word == "keeper" and os.path.lexists(path) and going.get(decision.keeper) != path:
            left.append(decision.keeper)
    return sum(os.path.lexists(path) for path in left)


def without_kept(
    groups: Iterable[DuplicateGroup], kept: Mapping[tuple[str, str], Collection[str]], workspace: Workspace
) -> Iterator[DuplicateGroup]:
    """Yields the groups without what a person has kept beside that very keeper; beside another one it is shown, and
    stays.

    `kept`: (path, content) -> contents of the keepers.
    """
    for group in groups:
        members = []
        for member in group.members:
            beside = kept.get((workspace.to_text(member.file.path), member.file.sha256))
            if beside is None:
                members.append(member)
            elif group.keeper.sha256 not in beside:
                members.append(replace(member, decision="keep", reason="kept by hand"))
        if members:
            yield replace(group, members=tuple(members))


def query_places(db: Database, workspace: Workspace) -> list[Path]:
    """Returns the query pictures of step 1 that lie on disk."""
    paths = (workspace.to_path(text) for text in query_picture_paths(db))
    return [path for path in paths if path.is_file()]


def by_queries(
    files: Sequence[PictureFile],
    queries: Sequence[PictureFile],
    hashes: Mapping[str, bytes | None],
    near: int | None,
    far: int | None,
    apart: Collection[frozenset[str]] = (),
) -> list[DuplicateGroup]:
    """Returns one group a query picture with the files that go: within `near` bits of it, or beyond `far` of them all.

    A file is in the group of the query picture that it is nearest to. Files and queries without a hash are left alone,
    and files that a person kept before that very picture (`apart`).
    """
    asked = [file for file in queries if hashes.get(file.sha256)]
    known = [file for file in files if hashes.get(file.sha256)]
    if not asked or not known:
        return []
    packed = b"".join(hashes[query.sha256] or b"" for query in asked)
    targets = to_words(np.frombuffer(packed, np.uint8).reshape(len(asked), -1))
    members: dict[int, list[Member]] = {}
    for file in known:
        value = to_words(np.frombuffer(hashes[file.sha256] or b"", np.uint8).reshape(1, -1))
        distances = np.bitwise_count(targets ^ value).sum(axis=1)
        place = int(distances.argmin())
        bits = int(distances[place])
        if frozenset((asked[place].sha256, file.sha256)) in apart:
            continue
        if near is not None and bits <= near:
            chosen = Member(file, read_traits(file.path), "edited", bits, "remove", "nearly the query picture")
        elif far is not None and bits > far:
            chosen = Member(file, read_traits(file.path), "semantic", bits, "remove", "nothing like a query picture")
        else:
            continue
        members.setdefault(place, []).append(chosen)
    return [
        DuplicateGroup(number, asked[place], read_traits(asked[place].path), tuple(members[place]))
        for number, place in enumerate(sorted(members), 1)
    ]
