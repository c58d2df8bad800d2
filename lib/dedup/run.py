"""One run of step 6, from the files to the report; what an interrupted run left; and the undoing of a run."""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lib.db import Context, journal
from lib.db.duplicates import (
    forget_duplicates,
    forget_kept,
    keep_files,
    known_kept,
    record_duplicates,
    reported_run,
    sources_of,
)
from lib.db.hashes import forget_apart, known_apart, set_apart
from lib.dedup.current import Quarantine, contents_of, refresh_page
from lib.dedup.fingerprints import FingerprintStore, places_of
from lib.dedup.grouping import STRENGTH
from lib.dedup.groups import DuplicateGroup, KeepPolicy, Member, find_groups
from lib.dedup.inputs import (
    PersonDecision,
    by_queries,
    could_not_read,
    decide,
    normal_folders,
    not_followed,
    query_places,
    read_decisions,
    read_files,
    without_kept,
)
from lib.dedup.judge import MatchOptions
from lib.dedup.keep import is_below
from lib.dedup.near import find_likeness
from lib.dedup.options import EXIT_LEAK, REMOVED, DedupOptions
from lib.dedup.plan import (
    MOST_REMOVED,
    MOST_REMOVED_OF_A_SEARCH,
    QuarantinePlan,
    as_rows,
    check_removal_limit,
    clear_emptied,
    far_link,
    finish_purge,
    kept_where,
    removals,
)
from lib.dedup.report import (
    BrokenFile,
    Shown,
    as_result,
    full_path,
    reported_broken,
    write_dedup_page,
    write_results,
)
from lib.dedup.restore import Returns
from lib.errors import EXIT_OK, GleanerError, UsageError
from lib.files.pictures import PassedOver, PictureFile, folder_pictures
from lib.hashing.kinds import DEFAULT_SIZE, HashChoice
from lib.journal import files as journal_files
from lib.journal.moves import require_symbolic_links
from lib.pages.render import place_of_page, write_page
from lib.pages.thumbnails import are_all_there, clear_stale
from lib.text import command_line, counted
from lib.times import utc_now

log = logging.getLogger(__name__)


@dataclass
class Run:
    """Finds, then applies. `notes` say afterwards where the page is."""

    context: Context
    options: DedupOptions
    files: list[PictureFile] = field(default_factory=list)
    groups: list[DuplicateGroup] = field(default_factory=list)
    broken: list[BrokenFile] = field(default_factory=list)  # by path
    references: list[PictureFile] = field(default_factory=list)
    moved: dict[Path, Path] = field(default_factory=dict)
    passed_over: PassedOver = field(default_factory=PassedOver)
    apart: list[tuple[DuplicateGroup, Member]] = field(default_factory=list)  # kept by hand beside the keeper
    returns: Returns | None = None
    already_kept: int = 0
    decoded: int = 0
    not_followed: int = 0
    acted: bool = False
    refused: bool = False  # in a preview: more would go than --max-share allows
    page: Path | None = None  # where it has been written
    notes: list[str] = field(default_factory=list)

    def find(self) -> list[DuplicateGroup]:
        """Returns the groups, every file decided on. Empty when stopped before all pictures were read."""
        options = self.options
        if options.link == "sym" and not self.context.dry_run:
            require_symbolic_links(self.context.workspace.root)
        plan = read_decisions(options.apply) if options.apply else None
        choices = read_decisions(options.decisions) if options.decisions else None
        folders = normal_folders(self.context.workspace, options.folders)
        if choices is not None:
            self._bring_back(choices, folders)
        self.passed_over = PassedOver(self.context.workspace.root, [*folders, *options.references])
        self.files, self.broken = read_files(self.context, folders, options.limit, self.passed_over)
        self._read_references(folders)
        policy = self._policy(folders, {**(plan or {}), **(choices or {})})
        places = places_of([*self.files, *self.references])
        fingerprints = FingerprintStore(self.context, places, policy.match.hash)
        try:
            self.groups = self._find(fingerprints, policy)
            self.decoded = fingerprints.decoded
            for file in (*self.references, *self.files):
                if reason := fingerprints.broken.get(file.sha256):
                    self.broken.append(BrokenFile(file.path, reason, file.bytes, file.sha256))
            self.broken.sort(key=lambda file: file.name)
        finally:
            fingerprints.close()
        if plan is not None:
            self._follow(plan, others=False)
        if choices is not None:
            self._follow(choices, others=True)
            self._set_apart(choices)
            self._count_kept(choices)
        if options.link == "hard":
            self.groups = kept_where(self.groups, far_link)
        return self.groups

    def _read_references(self, folders: list[Path]) -> None:
        """Lists what is only compared against: --reference, the first folder of --leak, and the query pictures."""
        context = self.context
        places = normal_folders(context.workspace, self.options.references)
        if self.options.leak:
            places.append(folders[0])
        elif not places and self.options.asks_queries:
            places = query_places(context.db, context.workspace)
            if not places:
                raise UsageError("there is no query picture on disk; name a folder of them with --reference.")
        if not places:
            return

        def note(path: Path, error: OSError) -> None:
            self.broken.append(could_not_read(path, error))

        remember = not context.dry_run
        passed_over = PassedOver() if self.options.leak else self.passed_over  # of --leak it was among the folders
        found = folder_pictures(
            context.db, places, remember=remember, unreadable=note, bar=context.bar, passed_over=passed_over
        )
        self.references = list(found)
        there = {os.path.realpath(file.path) for file in self.references}
        self.files = [file for file in self.files if os.path.realpath(file.path) not in there]

    def _bring_back(self, choices: dict[str, PersonDecision], folders: list[Path]) -> None:
        """Brings back what a person keeps and a run had moved: before the files are looked at, so that it is among
        them."""
        staying = [folder.resolve() for folder in (*self.options.protect, *self.options.references)]
        self.returns = Returns(self.context, folders, staying, self._only_shown)
        self.returns.follow(choices)
        self.returns.carry_out()
        self.returns.tell()

    def _policy(self, folders: list[Path], decisions: dict[str, PersonDecision]) -> KeepPolicy:
        options, mode = self.options, self.options.mode
        choice = HashChoice(options.hash, options.hash_size or DEFAULT_SIZE[options.hash])
        match = MatchOptions(
            exact=mode != "filename",
            similar=mode in ("similar", "semantic", "all"),
            names=mode in ("filename", "all"),
            likeness=mode == "semantic",
            same_bits=choice.same_bits if options.threshold is None else options.threshold,
            hash=choice,
        )
        return KeepPolicy(
            match,
            options.removed,
            options.keep,
            protected=tuple(folder.resolve() for folder in options.protect),
            roots=tuple(folders),
            references=frozenset(file.path for file in self.references),
            chosen=frozenset(
                file.path for file in self.files if (d := decisions.get(full_path(file))) and d.word == "keeper"
            ),
            only_references=options.leak,
        )

    def _find(self, fingerprints: FingerprintStore, policy: KeepPolicy) -> list[DuplicateGroup]:
        context, options = self.context, self.options
        if policy.match.pictures and not fingerprints.read(workers=options.workers, executor=options.executor):
            return []
        if policy.match.likeness:
            whole = {c: path for c, path in fingerprints.places.items() if c not in fingerprints.broken}
            policy = replace(policy, likeness=find_likeness(context, options, whole))
        asked: list[DuplicateGroup] = []
        if options.asks_queries:
            free = [file for file in self.files if not (policy.protected and is_below(file.path, policy.protected))]
            limits = options.near_query, options.far_query
            asked = by_queries(free, self.references, fingerprints.hashes, *limits, apart=known_apart(context.db))
        # What goes for what it shows must not be the reason why another file goes.
        going = {member.file.path for group in asked for member in group.members}
        files = [file for file in (*self.references, *self.files) if file.path not in going]
        groups = find_groups(files, fingerprints, policy, options.workers)
        fingerprints.remember_used_buffers()
        numbered = enumerate(without_kept([*groups, *asked], known_kept(context.db), context.workspace), 1)
        return [] if context.stopping() else [replace(group, number=number) for number, group in numbered]

    def _follow(self, decisions: dict[str, PersonDecision], *, others: bool) -> None:
        self.groups = decide(self.groups, decisions, others=others)
        self.not_followed += not_followed(self.groups, decisions)

    def _set_apart(self, decisions: dict[str, PersonDecision]) -> None:
        """Notes what a person kept although it looked like a repeat: the two are not shown together again."""
        self.apart += [
            (group, member)
            for group in self.groups
            for member in group.members
            if (decision := decisions.get(full_path(member.file)))
            and decision.word == "keep"
            and decision.is_about(group)
        ]

    def _count_kept(self, decisions: dict[str, PersonDecision]) -> None:
        """Counts what a person keeps and nothing would move; says so of what was not looked at, and forgets nothing."""
        back = self.returns.back if self.returns else set()
        members = {full_path(member.file) for group in self.groups for member in group.members}
        kept = {p for p, d in decisions.items() if d.word == "keep" and p not in members | back and os.path.lexists(p)}
        looked_at = {full_path(file) for file in self.files}
        self.already_kept = len(kept & looked_at)
        if others := len(kept - looked_at):
            self.not_followed += others
            log.warning("%s with a decision not looked at; give the folders of that run.",
                        "1 picture was" if others == 1 else f"{others:,} pictures were")  # fmt: skip

    def _remember_kept(self) -> None:
        """Writes down what a person has kept: files that stay, and contents that are not shown together again."""
        db, to_text = self.context.db, self.context.workspace.to_text
        files, contents = list[tuple[str, str, str]](), list[tuple[str, str]]()
        for group, member in self.apart:
            keeper, file = group.keeper, member.file
            files.append((to_text(file.path), file.sha256, keeper.sha256))
            if keeper.sha256 == file.sha256:  # in another order the keeper would be the one to go
                files.append((to_text(keeper.path), keeper.sha256, file.sha256))
            else:
                contents.append((keeper.sha256, file.sha256))
        keep_files(db, self.context.run_id, files)
        set_apart(db, self.context.run_id, contents, utc_now())

    def accept(self, left_alone: set[int], refused: set[int]) -> list[DuplicateGroup]:
        """Leaves groups alone; those that a person refused are remembered as no repeats."""
        chosen = (m for group in self.groups if group.number in refused for m in group.members)
        self._set_apart({full_path(member.file): PersonDecision("keep") for member in chosen})
        self.groups = kept_where(self.groups, lambda group, _: "kept by hand" if group.number in left_alone else "")
        return self.groups

    def apply(self) -> None:
        """Records the groups, moves what is to go and writes the report; with --plan and in a dry run only shows them.

        Raises GleanerError when more would go than --max-share allows; the page is written all the same.
        """
        context, only_shown = self.context, self._only_shown
        going = sum(1 for _ in removals(self.groups))
        if path := self.options.plan:
            text = json.dumps(self.result(self.counts()), ensure_ascii=False, indent=1)
            write_page(path, text + "\n")
            self.notes.append(f"plan: {path} (apply it with --apply)")
        if only_shown or not self.options.interactive or self.options.removal_limit is not None:
            self._check_limit(going)
        if not context.dry_run:  # nor over the limit: a run that did nothing leaves nothing to take back
            self._remember_kept()
        if only_shown:
            self._preview()
            return
        plan = self._plan() if going else None
        with context.db.transaction():  # a run that was killed has left all of it or nothing
            new = record_duplicates(context.db, context.run_id, as_rows(context.workspace, self.groups))
            journal_files.plan(context.db, context.run_id, plan.actions if plan else ())
        if plan:
            self._move(plan)
            if context.stopping() and not self.moved:  # nothing to tell of: the next run finds it all again
                return
        if new or self.options.page or not are_all_there(self._usual_page) or self._has_new_broken():
            self._report()
        elif self.returns and self.returns.back:
            refresh_page(context)
        self.page = self.options.page or self._usual_page
        self.notes.append(f"page: {self.page}")

    @property
    def _only_shown(self) -> bool:
        return self.context.dry_run or self.options.plan is not None

    def _check_limit(self, going: int) -> None:
        try:
            check_removal_limit(going, len(self.files), self.options.removal_limit, self._usual_share())
        except GleanerError as error:
            if not self._only_shown:
                self._report()
                raise
            self.refused = True
            self.notes.append(f"without --dry-run this would be refused: {error}")

    def _usual_share(self) -> float:
        """Returns the share that may go without --max-share: more of a search, for repeats of the usual kinds alone."""
        options, kinds = self.options, {member.kind for _, member in removals(self.groups)}
        strict = options.folders or options.asks_queries or options.threshold is not None or options.hash != "dct"
        return MOST_REMOVED if strict or not kinds <= set(REMOVED) else MOST_REMOVED_OF_A_SEARCH

    def _plan(self) -> QuarantinePlan:
        workspace, link = self.context.workspace, self.options.link or ""
        roots = normal_folders(workspace, self.options.folders)
        return QuarantinePlan(workspace, self.context.run_id, self.groups, sidecars=bool(roots), link=link, roots=roots)

    def _move(self, plan: QuarantinePlan) -> None:
        self.acted = True
        context, to_path = self.context, self.context.workspace.to_path
        journal_files.apply(context, check=plan.check)
        places = ((to_path(a.source), to_path(a.target)) for a in plan.actions if a.kind == "move")
        linked = {to_path(target) for target in plan.links}
        self.moved = {s: t for s, t in places if (s in linked or not os.path.exists(s)) and os.path.exists(t)}

    @property
    def _usual_page(self) -> Path:
        return self.context.workspace.reports / "dedup.html"

    def _preview(self) -> None:
        """Writes the page of what would go, where somebody is told of it.

        That of --plan goes to a temporary place too: the page in `reports/` tells of the last run that moved something.
        """
        if self.options.page is None and self.options.quiet:
            return
        self.page = place_of_page(self.options.page, self._usual_page, only_shown=True)
        self._write_page(self.page)
        self.notes.append(f"page: {self.page}")

    def _report(self) -> None:
        write_results(self.context.workspace.reports, self.groups, self.counts(), self.broken)
        self._write_page(place_of_page(self.options.page, self._usual_page, only_shown=False))

    def _write_page(self, page: Path) -> None:
        context, options = self.context, self.options
        proposal = not self.acted and (self._only_shown or any(removals(self.groups)))
        groups, moved = self.groups, self.moved
        if not proposal:
            quarantine = Quarantine(context)
            groups, moved = quarantine.added_to(groups), quarantine.moved | moved
        shown = Shown(
            context.workspace,
            page,
            context.run_id if not self._only_shown else 0,
            f"Mode {options.mode}, {counted(len(self.files), 'file')}",
            sources_of(context.db, contents_of(groups)),
            moved,
            proposal,
            again=options.again,
            restore=options.restoring,
            workers=options.workers,
        )
        write_dedup_page(shown, groups, self.counts(), self.broken)

    def _has_new_broken(self) -> bool:
        found = {(file.name, file.reason) for file in self.broken}
        return bool(found) and not found <= reported_broken(self.context.workspace)

    def result(self, summary: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the object that `--json` prints."""
        return as_result(self.groups, summary, self.broken)

    @property
    def exit_code(self) -> int:
        """3 where --leak found anything, 1 where a picture that was to come back does not."""
        if self.returns and self.returns.exit_code:
            return self.returns.exit_code
        return EXIT_LEAK if self.options.leak and self.groups else EXIT_OK

    @property
    def following(self) -> str | None:
        """The command to go on with: on the folders of this run, if it had some; None where there is none."""
        options, names = self.options, [str(folder) for folder in self.options.folders]
        if self.refused or not self._compared:
            return None
        if options.leak:
            train, test = names
            taking = ["python", "6_dedup.py", options.mode, test, "--reference", train, "--dry-run"]
            return command_line(taking) if self.groups else None
        return command_line(["python", "7_sort_quality.py", "quality", *names, "--dry-run"])

    @property
    def _compared(self) -> bool:
        """True where at least one file could be looked at."""
        broken = {file.sha256 for file in self.broken}
        return bool(self.groups) or any(file.sha256 not in broken for file in self.files)

    @property
    def remark(self) -> str:
        """Returns the notes about plan and page; before them the reason, where nothing could be compared."""
        note = "\n".join(self.notes)
        if self._compared or not self.broken:
            return note
        reason, count = Counter(file.reason for file in self.broken).most_common(1)[0]
        why = f"no picture could be compared: {count:,} of {counted(len(self.broken), 'file')} failed as {reason}"
        return "; ".join(filter(None, (why, note)))

    def counts(self) -> dict[str, int | float | str]:
        """Returns the numbers of the summary line."""
        members = [member for group in self.groups for member in group.members]
        only_shown = self._only_shown
        going = [m for m in members if m.decision == "remove" and (only_shown or m.file.path in self.moved)]
        found: dict[str, int | float | str] = {"files": len(self.files), "groups": len(self.groups)}
        going_name = "to_remove" if only_shown else "removed"
        found[going_name] = len(going)
        found[f"{going_name}_bytes"] = sum(member.file.bytes for member in going)
        if self.acted and (left := sum(1 for _ in removals(self.groups)) - len(going)):
            found["not_moved"] = left
        if self.returns:
            found |= self.returns.counts()
        if self.already_kept:
            found["already_kept"] = self.already_kept
        if self.not_followed:
            found["not_followed"] = self.not_followed
        kinds = Counter(member.kind for member in going)
        found.update((kind, kinds[kind]) for kind in STRENGTH if kinds[kind])
        if self.references:
            found["compared_against"] = len(self.references)
        found["for_review"] = sum(member.decision == "review" for member in members)
        # Contents: the same broken page may lie there under a thousand names.
        broken = Counter({file.sha256 or file.name: file.reason for file in self.broken}.values())
        found["broken"] = broken.total()
        found.update((reason, count) for reason, count in sorted(broken.items()))
        found |= self.passed_over.counts()
        found["decoded"] = self.decoded
        return found


def finish_interrupted(context: Context, *, purging: bool = False) -> None:
    """Finishes what killed runs had begun (`lib.journal.files.finish_interrupted`), for a step that is alone.

    With `purging` the run is to delete for good itself, and goes on with what a killed one was deleting.
    """
    db, workspace, run_id = context.db, context.workspace, context.run_id
    journal_files.finish_interrupted(context, "dedup", tidy=True)
    last = journal.broken_off(db, "dedup", run_id)
    number = journal_files.broken_undo(db, "dedup", run_id)
    if number is not None:
        _forget_run(context, number)
    elif last and last.purge and not purging:
        finish_purge(db, workspace, last.purge)
    if last and last.purge:
        clear_emptied(db, workspace)
    journal_files.finish_others(context, ("sort",))


def undo(context: Context, reference: str) -> dict[str, int | float | str]:
    """Takes a run back: the files with all that follows them, the groups, and what a person said in it.

    Returns the counts of what was undone; only `undone` where there was nothing.
    """
    db = context.db
    number = journal_files.run_to_undo(db, "dedup", reference, context.run_id)
    if number is None:
        return {"undone": 0}
    counts = journal_files.undo(context, number)
    if not context.dry_run:
        forget_apart(db, number)
        forget_kept(db, number)
        _forget_run(context, number)
        refresh_page(context)
    return {"run": number, **counts}


def _forget_run(context: Context, number: int) -> None:
    """Forgets what a run found, once nothing that it moved is left; to be repeated where it was broken off."""
    if journal_files.left(context.db, number):
        return
    # The report was last written by the newest run that found something new; if that is this one, it did not happen.
    if reported_run(context.db) == number:
        for suffix in (".html", ".json", ".csv"):
            (context.workspace.reports / "dedup").with_suffix(suffix).unlink(missing_ok=True)
        clear_stale(context.workspace.reports / "dedup.html")
    forget_duplicates(context.db, number)
