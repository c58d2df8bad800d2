"""One run of step 6, from the files to the report.

What is left to do after runs that did not come to their end: moves, links, an undo, a deletion for good.

Taking a run back: the files with all that follows them, the groups, and what a person said in it.
"""

from __future__ import annotations

import json
import os
from argparse import Namespace
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from lib.db import Database, journal
from lib.db.context import Context
from lib.db.duplicates import forget_duplicates, page_urls, record_duplicates, reported_run
from lib.db.hashes import forget_apart, known_apart, set_apart
from lib.dedup.fingerprints import CrashGuard, FingerprintStore, places_of
from lib.dedup.grouping import STRENGTH
from lib.dedup.groups import DuplicateGroup, KeepPolicy, find_groups
from lib.dedup.inputs import (
    Decision,
    by_queries,
    decide,
    normal_folders,
    not_followed,
    query_places,
    read_decisions,
    read_files,
)
from lib.dedup.judge import MatchOptions
from lib.dedup.keep import is_below
from lib.dedup.options import EXIT_LEAK
from lib.dedup.plan import (
    QuarantinePlan,
    as_rows,
    brake,
    clear_emptied,
    joined,
    removals,
    settle_purge,
    without,
    without_far_links,
)
from lib.dedup.report import as_result, full_path, write_reports
from lib.dedup.semantic import LEAST_COSINE, ClipOptions, Likeness, find_likeness
from lib.errors import EXIT_OK, GleanerError, UsageError
from lib.files.pictures import PictureFile, folder_pictures
from lib.hashing.kinds import DEFAULT_SIZE, HashChoice
from lib.journal import files as journal_files
from lib.pages import write_page
from lib.pages.index import refresh_index
from lib.progress import BarFactory
from lib.times import utc_now
from lib.workspace import Workspace


@dataclass
class Run:
    """Finds, then applies. `note` says afterwards where the page is."""

    args: Namespace
    db: Database
    workspace: Workspace
    run_id: int
    dry_run: bool
    stopping: Callable[[], bool]
    bar: BarFactory
    files: list[PictureFile] = field(default_factory=list)
    groups: list[DuplicateGroup] = field(default_factory=list)
    broken: Counter[str] = field(default_factory=Counter)
    references: list[PictureFile] = field(default_factory=list)
    moved: dict[Path, Path] = field(default_factory=dict)
    apart: list[tuple[str, str]] = field(default_factory=list)
    decoded: int = 0
    not_followed: int = 0
    acted: bool = False
    note: str = ""

    def find(self) -> list[DuplicateGroup]:
        """The groups, with every decision made. Empty when stopped before all pictures were read."""
        decisions = {
            name: read_decisions(path) for name in ("apply", "decisions") if (path := getattr(self.args, name))
        }
        folders = normal_folders(self.workspace, self.args.folders)
        remember = not self.dry_run
        self.files, self.broken = read_files(
            self.db, self.workspace, folders, remember=remember, bar=self.bar, limit=self.args.limit
        )
        self._read_references(folders, remember)
        policy = self._policy(folders)
        prints = FingerprintStore(
            self.db,
            places_of([*self.files, *self.references]),
            remember=remember,
            choice=policy.looking.hash,
            suspects=CrashGuard(self.workspace.root),
        )
        try:
            self.groups = self._find(prints, policy)
            self.decoded = prints.decoded
            self.broken += prints.broken_counts()
        finally:
            prints.close()
        for name, chosen in decisions.items():
            self.groups = decide(self.groups, chosen, others=name == "decisions")
            self.not_followed += not_followed(self.groups, chosen)
            if name == "decisions":
                self._set_apart(chosen)
        if self.args.link == "hard":
            self.groups = without_far_links(self.groups)
        return self.groups

    def _read_references(self, folders: list[Path], remember: bool) -> None:
        """What is only compared against: --reference, the first folder of --leak, and the query pictures."""
        places = normal_folders(self.workspace, self.args.reference)
        if self.args.leak:
            places.append(folders[0])
        elif not places and self._asks_queries():
            places = query_places(self.db, self.workspace)
            if not places:
                raise UsageError("there is no query picture on disk; name a folder of them with --reference.")
        if not places:
            return
        found = folder_pictures(self.db, places, remember=remember, bar=self.bar)
        self.references = list(found)
        there = {os.path.realpath(file.path) for file in self.references}
        self.files = [file for file in self.files if os.path.realpath(file.path) not in there]

    def _asks_queries(self) -> bool:
        return self.args.near_query is not None or self.args.far_query is not None

    def _set_apart(self, chosen: dict[str, Decision]) -> None:
        """Notes what a person kept although it looked like a repeat: the two are not shown together again."""
        self.apart += [
            (group.keeper.sha256, member.file.sha256)
            for group in self.groups
            for member in group.members
            if (decision := chosen.get(full_path(member.file)))
            and decision.word == "keep"
            and decision.is_about(group)
            and group.keeper.sha256 != member.file.sha256
        ]

    def _find(self, prints: FingerprintStore, policy: KeepPolicy) -> list[DuplicateGroup]:
        if policy.looking.pictures and not prints.read(
            workers=self.args.workers, executor=self.args.executor, stopping=self.stopping, bar=self.bar
        ):
            return []
        if policy.looking.likeness:
            policy = replace(policy, likeness=self._likeness(prints))
        asked: list[DuplicateGroup] = []
        if self._asks_queries():
            free = [file for file in self.files if not (policy.protected and is_below(file.path, policy.protected))]
            limits = self.args.near_query, self.args.far_query
            asked = by_queries(free, self.references, prints.hashes, *limits, apart=known_apart(self.db))
        # What goes for what it shows must not be the reason why another file goes.
        going = {member.file.path for group in asked for member in group.members}
        files = [file for file in (*self.references, *self.files) if file.path not in going]
        groups = find_groups(files, prints, policy, workers=self.args.workers, stopping=self.stopping, bar=self.bar)
        prints.remember_used_buffers()
        return [] if self.stopping() else joined(groups, asked)

    def _likeness(self, prints: FingerprintStore) -> Likeness:
        whole = {content: path for content, path in prints.places.items() if content not in prints.broken}
        least = self.args.least_cosine if self.args.least_cosine is not None else LEAST_COSINE
        choice = ClipOptions(self.args.clip_model, self.args.models_dir, self.args.device, least)
        return find_likeness(
            self.db,
            whole,
            choice,
            remember=not self.dry_run,
            workers=self.args.workers,
            stopping=self.stopping,
            bar=self.bar,
        )

    def _policy(self, folders: list[Path]) -> KeepPolicy:
        mode = self.args.mode
        choice = HashChoice(self.args.hash, self.args.hash_size or DEFAULT_SIZE[self.args.hash])
        looking = MatchOptions(
            exact=mode != "filename",
            similar=mode in ("similar", "semantic", "all"),
            names=mode in ("filename", "all"),
            likeness=mode == "semantic",
            same_bits=choice.same_bits if self.args.threshold is None else self.args.threshold,
            hash=choice,
        )
        return KeepPolicy(
            looking,
            frozenset() if self.args.leak else frozenset(self.args.remove) - {"none"},
            self.args.keep,
            tuple(folder.resolve() for folder in self.args.protect),
            tuple(folders),
            frozenset(file.path for file in self.references),
            only_references=self.args.leak,
        )

    def accept(self, left_alone: set[int], refused: set[int]) -> list[DuplicateGroup]:
        """Leaves groups alone; those that a person refused are remembered as no repeats."""
        chosen = (m for group in self.groups if group.number in refused for m in group.members)
        self._set_apart({full_path(member.file): Decision("keep") for member in chosen})
        self.groups = without(self.groups, left_alone)
        return self.groups

    def apply(self) -> None:
        """Records the groups, moves what is to go and writes the report; with --plan only the plan.

        Raises GleanerError when more would go than --max-share allows; the page is written all the same.
        """
        going = sum(1 for _ in removals(self.groups))
        if self.args.plan:
            self._write_plan()
        if self.dry_run or self.args.plan:
            self._warn_of_brake(going)
        elif not self.args.interactive or self.args.max_share is not None:
            self._brake(going)
        if not self.dry_run:  # nor where the brake held: a run that did nothing leaves nothing to take back
            set_apart(self.db, self.run_id, self.apart, utc_now())
        if self.dry_run or self.args.plan:
            return
        plan = self._plan() if going else None
        with self.db.transaction():  # a run that was killed has left all of it or nothing
            new = record_duplicates(self.db, self.run_id, as_rows(self.workspace, self.groups))
            journal_files.plan(self.db, self.run_id, plan.actions if plan else ())
        if plan:
            self._move(plan)
            if self.stopping() and not self.moved:  # nothing to tell of: the next run finds it all again
                return
        page = self.workspace.reports / "dedup.html"
        if new or not page.exists():
            self._report()
        self.note = f"page: {page}"

    def _plan(self) -> QuarantinePlan:
        roots, link = normal_folders(self.workspace, self.args.folders), self.args.link or ""
        return QuarantinePlan(self.workspace, self.run_id, self.groups, sidecars=bool(roots), link=link, roots=roots)

    def _move(self, plan: QuarantinePlan) -> None:
        self.acted = True
        context = Context(self.db, self.workspace, self.run_id, stopping=self.stopping, bar=self.bar)
        journal_files.apply(context, check=plan.check)
        moves = (a for a in plan.actions if a.kind == "move")
        places = ((self.workspace.to_path(a.source), self.workspace.to_path(a.target)) for a in moves)
        linked = {self.workspace.to_path(target) for target in plan.links}
        self.moved = {s: t for s, t in places if (s in linked or not s.exists()) and t.exists()}

    def _report(self) -> None:
        about = f"Mode {self.args.mode}, {len(self.files):,} files"
        urls = page_urls(self.db, sorted({m.file.sha256 for g in self.groups for m in g.members}))
        write_reports(self.workspace, self.groups, self.counts(), self.run_id, about, urls, self.moved)
        refresh_index(self.workspace)

    def _brake(self, going: int) -> None:
        try:
            brake(going, len(self.files), self.args.max_share)
        except GleanerError:
            self._report()
            raise

    def _warn_of_brake(self, going: int) -> None:
        try:
            brake(going, len(self.files), self.args.max_share)
        except GleanerError as error:
            self.note = f"without --dry-run this would be refused: {error}"

    def _write_plan(self) -> None:
        plan = as_result(self.groups, self.counts())
        write_page(self.args.plan, json.dumps(plan, ensure_ascii=False, indent=1) + "\n")
        self.note = f"plan: {self.args.plan} (apply it with --apply)"

    @property
    def exit_code(self) -> int:
        """3 where --leak found anything."""
        return EXIT_LEAK if self.args.leak and self.groups else EXIT_OK

    def counts(self) -> dict[str, int | float | str]:
        """The numbers of the summary line."""
        members = [member for group in self.groups for member in group.members]
        only_shown = self.dry_run or self.args.plan
        going = [m for m in members if m.decision == "remove" and (only_shown or m.file.path in self.moved)]
        found: dict[str, int | float | str] = {"files": len(self.files), "groups": len(self.groups)}
        found["to_remove" if only_shown else "removed"] = len(going)
        if self.acted and (left := sum(1 for _ in removals(self.groups)) - len(going)):
            found["not_moved"] = left
        if self.not_followed:
            found["not_followed"] = self.not_followed
        kinds = Counter(member.kind for member in going)
        found.update((kind, kinds[kind]) for kind in STRENGTH if kinds[kind])
        if self.references:
            found["compared_against"] = len(self.references)
        found["for_review"] = sum(member.decision == "review" for member in members)
        found["broken"] = sum(self.broken.values())
        found.update((reason, count) for reason, count in sorted(self.broken.items()))
        found["decoded"] = self.decoded
        return found


def settle(db: Database, workspace: Workspace, run_id: int, *, purging: bool = False) -> None:
    """Finishes what killed runs had begun (`lib.journal.files.finish_interrupted`), for a step that is alone.

    With `purging` the run is to delete for good itself, and goes on with what a killed one was deleting.
    """
    journal_files.finish_interrupted(Context(db, workspace, run_id), "dedup", tidy=True)
    last = journal.broken_off(db, "dedup", run_id)
    number = journal_files.broken_undo(db, "dedup", run_id)
    if number is not None:
        close(db, workspace, number)
    elif last and last.purge and not purging:
        settle_purge(db, workspace, last.purge)
    if last and last.purge:
        clear_emptied(db, workspace)
    journal_files.finish_others(Context(db, workspace, run_id), ("sort",))
    if last and workspace.reports.is_dir():  # the index is written last
        refresh_index(workspace)


def undo(
    db: Database, workspace: Workspace, reference: str, *, before: int, dry_run: bool, bar: BarFactory
) -> dict[str, int | float | str]:
    """The counts of what was undone; only `undone` where there was nothing. `before` is the run that asks."""
    number = journal_files.run_to_undo(db, "dedup", reference, before)
    if number is None:
        return {"undone": 0}
    counts = journal_files.undo(Context(db, workspace, dry_run=dry_run, bar=bar), number)
    if not dry_run:
        forget_apart(db, number)
        close(db, workspace, number)
    return {"run": number, **counts}


def close(db: Database, workspace: Workspace, number: int) -> None:
    """Takes back what a run found, once nothing that it moved is left; to be repeated where it was broken off."""
    if journal_files.left(db, number):
        return
    # The report was last written by the newest run that found something new.
    if reported_run(db) == number:
        _take_report_away(workspace)
    forget_duplicates(db, number)


def _take_report_away(workspace: Workspace) -> None:
    """The report tells of a run that did not happen after all."""
    for suffix in (".html", ".json", ".csv"):
        (workspace.reports / "dedup").with_suffix(suffix).unlink(missing_ok=True)
    refresh_index(workspace)
