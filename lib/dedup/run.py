"""One run of step 6, from the files to the report."""

from __future__ import annotations

import json
from argparse import Namespace
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from lib import actions
from lib.db import Database
from lib.db.duplicates import page_urls, record_duplicates
from lib.dedup.find import Group, Policy, find_groups
from lib.dedup.fingerprints import Fingerprints, places_of
from lib.dedup.grouping import STRENGTH
from lib.dedup.judge import Looking
from lib.dedup.page import as_result, write_reports
from lib.dedup.plan import Plan, as_rows, brake, removals, without
from lib.dedup.sources import decide, normal_folders, read_decisions, read_files
from lib.errors import GleanerError
from lib.pages import write_page
from lib.pictures import PictureFile
from lib.progress import BarFactory
from lib.reports_index import refresh_index
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
    groups: list[Group] = field(default_factory=list)
    broken: Counter[str] = field(default_factory=Counter)
    moved: dict[Path, Path] = field(default_factory=dict)
    decoded: int = 0
    note: str = ""

    def find(self) -> list[Group]:
        """The groups, with every decision made. Empty when stopped before all pictures were read."""
        decisions = {
            name: read_decisions(path) for name in ("apply", "decisions") if (path := getattr(self.args, name))
        }
        folders = normal_folders(self.workspace, self.args.folders)
        remember = not self.dry_run
        self.files, self.broken = read_files(self.db, self.workspace, folders, remember=remember, bar=self.bar)
        policy = self._policy(folders)
        prints = Fingerprints(self.db, places_of(self.files), remember=remember)
        try:
            self.groups = self._find(prints, policy)
            self.decoded = prints.decoded
            self.broken += prints.broken_counts()
        finally:
            prints.close()
        for name, chosen in decisions.items():
            self.groups = decide(self.groups, chosen, others=name == "decisions")
        return self.groups

    def _find(self, prints: Fingerprints, policy: Policy) -> list[Group]:
        if policy.looking.pictures and not prints.read(
            workers=self.args.workers, executor=self.args.executor, stopping=self.stopping, bar=self.bar
        ):
            return []
        groups = find_groups(
            self.files, prints, policy, workers=self.args.workers, stopping=self.stopping, bar=self.bar
        )
        prints.remember_used_buffers()
        return [] if self.stopping() else groups

    def _policy(self, folders: list[Path]) -> Policy:
        mode = self.args.mode
        looking = Looking(
            exact=mode != "filename",
            similar=mode in ("similar", "all"),
            names=mode in ("filename", "all"),
            same_bits=self.args.threshold,
        )
        return Policy(
            looking,
            frozenset(self.args.remove) - {"none"},
            self.args.keep,
            tuple(folder.resolve() for folder in self.args.protect),
            tuple(folders),
        )

    def accept(self, refused: set[int]) -> list[Group]:
        """Leaves alone the groups that a person refused."""
        self.groups = without(self.groups, refused)
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
            return
        if not self.args.interactive:
            self._brake(going)
        new = record_duplicates(self.db, self.run_id, as_rows(self.workspace, self.groups))
        if going:
            self._move()
        page = self.workspace.reports / "dedup.html"
        if new or not page.exists():
            self._report()
        self.note = f"page: {page}"

    def _move(self) -> None:
        plan = Plan(self.workspace, self.run_id, self.groups, sidecars=bool(self.args.folders))
        actions.plan(self.db, self.run_id, plan.actions)
        actions.apply(self.db, self.workspace, self.run_id, check=plan.check, stopping=self.stopping, bar=self.bar)
        places = ((self.workspace.to_path(a.source), self.workspace.to_path(a.target)) for a in plan.actions)
        self.moved = {source: target for source, target in places if not source.exists() and target.exists()}

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

    def counts(self) -> dict[str, int | float | str]:
        """The numbers of the summary line."""
        members = [member for group in self.groups for member in group.members]
        only_shown = self.dry_run or self.args.plan
        going = [m for m in members if m.decision == "remove" and (only_shown or m.file.path in self.moved)]
        found: dict[str, int | float | str] = {"files": len(self.files), "groups": len(self.groups)}
        found["to_remove" if only_shown else "removed"] = len(going)
        kinds = Counter(member.kind for member in going)
        found.update((kind, kinds[kind]) for kind in STRENGTH if kinds[kind])
        found["for_review"] = sum(member.decision == "review" for member in members)
        found["broken"] = sum(self.broken.values())
        found.update((reason, count) for reason, count in sorted(self.broken.items()))
        found["decoded"] = self.decoded
        return found
