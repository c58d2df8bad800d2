"""The page of step 6 as things are now: with all that lies in the quarantine, and without what has come back.

What a run found stands in `reports/dedup.csv`, and what has moved since in the journal. A page is made again from both.
"""

from __future__ import annotations

import csv
import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from lib.db import Context
from lib.db.duplicates import TakenPicture, contents_of_places, sources_of, taken_pictures
from lib.dedup.groups import DuplicateGroup, Member
from lib.dedup.keep import Traits, read_traits
from lib.dedup.report import BROKEN, BrokenFile, Shown, write_dedup_page
from lib.files.pictures import PictureFile
from lib.pages.reports import GROUP_LIMIT

log = logging.getLogger(__name__)

BACK = "back from the quarantine"
_DATA = '<script type="application/json" id="page-data">'
_ERRORS = (OSError, ValueError, KeyError, TypeError, csv.Error)


@dataclass
class Quarantine:
    """The pictures that step 6 has moved away and that lie in the quarantine, by their old places."""

    context: Context
    held: dict[Path, TakenPicture] = field(default_factory=dict)

    def __post_init__(self) -> None:
        workspace = self.context.workspace
        for taken in taken_pictures(self.context.db, workspace.quarantine.name + "/"):
            if taken.move.sha256 and os.path.lexists(workspace.to_path(taken.move.target)):
                self.held.setdefault(workspace.to_path(taken.move.source), taken)

    @property
    def moved(self) -> dict[Path, Path]:
        """Returns old place -> the place where it lies now."""
        return {place: self.context.workspace.to_path(taken.move.target) for place, taken in self.held.items()}

    def keeper_of(self, place: Path) -> Path:
        """Returns the picture that stays in the place of this one: its keeper may have gone for another one since."""
        met = set[Path]()
        while (taken := self.held.get(place)) and taken.keeper_path and place not in met:
            met.add(place)
            place = self.context.workspace.to_path(taken.keeper_path)
        return place

    def added_to(self, groups: Iterable[DuplicateGroup]) -> list[DuplicateGroup]:
        """Returns the groups with what earlier runs have moved: beside its keeper, or in a group of its own.

        What the page has no room for is left out.
        """
        found = {group.keeper.path: group for group in groups}
        told = {member.file.path for group in found.values() for member in group.members}
        number = max((group.number for group in found.values()), default=0)
        for place, taken in self.held.items():
            keeper = self.keeper_of(place)
            if place in told or place == keeper:
                continue
            if keeper not in found:
                if len(found) >= GROUP_LIMIT:
                    continue
                number += 1
                file, traits = self._looked_at(keeper, taken.keeper_sha256)
                found[keeper] = DuplicateGroup(number, file, traits, ())
            file, traits = self._looked_at(place, taken.move.sha256)
            reason = taken.reason or f"moved by run {taken.move.run_id}"
            member = Member(file, traits, taken.kind, taken.distance, "remove", reason)
            found[keeper] = replace(found[keeper], members=(*found[keeper].members, member))
        return [group for group in found.values() if group.members]

    def _looked_at(self, place: Path, sha256: str) -> tuple[PictureFile, Traits]:
        taken = self.held.get(place)
        now = self.context.workspace.to_path(taken.move.target) if taken else place
        try:
            status = now.stat()
        except OSError:  # somebody has taken it away
            return PictureFile(place, sha256, 0, 0, place.parent), Traits()
        return PictureFile(place, sha256, status.st_size, status.st_mtime_ns, place.parent), read_traits(now)

    def as_now(self, rows: Iterable[Mapping[str, str]]) -> Iterator[DuplicateGroup]:
        """Yields the groups of a CSV result as far as their files are there; what has come back is kept."""
        groups: dict[Path, list[Member]] = {}
        for row in rows:
            place = Path(row["path"])
            if row["decision"] == BROKEN or place in self.held or not place.is_file():
                continue
            keeper = self.keeper_of(Path(row["keeper"]))
            back = row["decision"] == "remove"
            decision, reason = ("keep", BACK) if back else (row["decision"], row["reason"])
            file, traits = self._looked_at(place, row["sha256"])
            if place != keeper:
                member = Member(file, traits, row["kind"], float(row["distance"]), decision, reason)
                groups.setdefault(keeper, []).append(member)
        contents = contents_of_places(self.context.db)
        for number, (keeper, members) in enumerate(groups.items(), 1):
            file, traits = self._looked_at(keeper, contents.get(self.context.workspace.to_text(keeper), ""))
            yield DuplicateGroup(number, file, traits, tuple(members))


def contents_of(groups: Iterable[DuplicateGroup]) -> list[str]:
    """Returns the contents of all files of groups, each once."""
    return sorted({file.sha256 for group in groups for file in (group.keeper, *(m.file for m in group.members))})


def refresh_page(context: Context) -> None:
    """Makes `reports/dedup.html` again, if there is one, after pictures have come back or have gone again.

    The JSON and CSV beside it stay what their run has found. Whatever is wrong with them is no reason to fail: the page
    then stays as it is, and says when it was made.
    """
    page = context.workspace.reports / "dedup.html"
    if not page.is_file():
        return
    try:
        data = json.loads(page.read_text(encoding="utf-8").rpartition(_DATA)[2].partition("</script>")[0])
        summary = json.loads(page.with_suffix(".json").read_text(encoding="utf-8"))["summary"]
        with page.with_suffix(".csv").open(encoding="utf-8", newline="") as table:
            rows = list(csv.DictReader(table))
        quarantine = Quarantine(context)
        groups = quarantine.added_to(quarantine.as_now(rows))
        shown = Shown(
            context.workspace,
            page,
            int(data["run"] or 0),
            data["about"],
            sources_of(context.db, contents_of(groups)),
            quarantine.moved,
            proposal=False,
            again=data["again"],
            restore=data["restore"],
            key=data["key"],
            note=f"Brought up to date after run {context.run_id}.",
        )
        write_dedup_page(shown, groups, summary, [_broken(row) for row in rows if row["decision"] == BROKEN])
    except _ERRORS as error:
        log.warning("%s is as it was before this run: it could not be made again (%s).", page, error)


def _broken(row: Mapping[str, str]) -> BrokenFile:
    return BrokenFile(Path(row["path"]), row["reason"], int(row["bytes"]) if row["bytes"] else None, row["sha256"])
