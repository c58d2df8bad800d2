"""The jobs of step 4: rules, a search to forget, putting a backup back, making the file smaller, starting parts anew.

Every job is a plan to show and one to apply.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib.cleanup.options import CleanupOptions
from lib.cleanup.page import remove_outdated_page
from lib.cleanup.rules import DEFAULT_RULES, SCRIPTS, RuleSelection, kept_on_blocked_domains, make_plan
from lib.db import Context, Database, maintenance
from lib.db.cleanup import describe_pictures, query_name
from lib.db.journal import counts_by_reason, start_run
from lib.db.maintenance import choose_backup, list_backups, make_backup, replace_unusable, restore_backup
from lib.db.soundness import ODD, Fault, find_fault
from lib.domains import read_lists
from lib.errors import GleanerError, UsageError
from lib.journal.files import run_to_undo
from lib.journal.rows import Change, RowPlan, apply_plan, plan_to_forget, undo_named
from lib.text import counted, did_you_mean
from lib.workspace import Workspace

log = logging.getLogger("gleaner")

FEWEST = 3  # rows that are shown however many lines the table has
PAYS_FROM = 0.10  # of the file unused: below that, writing all of it anew gains too little
NEEDED_ROOM = 2.2  # times the file's size: SQLite writes a copy and then the log


def check_preconditions(workspace: Workspace, options: CleanupOptions, *, can_ask: bool) -> None:
    """Raises UsageError where the backup to restore is not there, or the workspace's name was not given."""
    if options.reset == "everything" and (options.yes or not can_ask):
        confirm(workspace, options.yes)
    if options.restore:
        choose_backup(workspace.backups, options.restore)


def select(options: CleanupOptions) -> RuleSelection:
    """The rules that were named, and those that an option implies. Raises UsageError for a rule without its option."""
    lists, named = read_lists(options.blocklist, options.allowlist), options.rule or ()
    languages = tuple(options.languages or ())
    if wrong := [language for language in languages if language not in SCRIPTS]:
        raise UsageError(
            f"--languages: {wrong[0]!r} is not known; known are {' '.join(SCRIPTS)}.{did_you_mean(wrong[0], SCRIPTS)}"
        )
    needs = {
        "blocked_domain": (bool(lists), "--blocklist or --allowlist"),
        "small_claim": (bool(options.min_side), "--min-side"),
        "wrong_language": (bool(languages), "--languages"),
    }
    for rule, (is_given, flag) in needs.items():
        if rule in named and not is_given:
            raise UsageError(f"the rule {rule} goes by {flag}; give it.")
    rules = tuple(named) or DEFAULT_RULES
    implied = [rule for rule, (is_given, _) in needs.items() if is_given and rule not in rules]
    return RuleSelection((*rules, *implied), lists, options.min_side, languages)


def plan(db: Database, selection: RuleSelection, forget: int | None) -> RowPlan:
    """Plans the changes. Raises UsageError for a search that is not there."""
    if forget is None:
        return make_plan(db, selection)
    if query_name(db, forget) is None:
        raise UsageError(f"--forget-query: there is no search {forget}; `1_collect.py --list` shows them.")
    return plan_to_forget(db, forget)


def apply(context: Context, plan: RowPlan, keep: int) -> str:
    """A backup first, then the plan; gives the backup's path as text, empty where nothing was to do or to be done."""
    if not plan or context.dry_run or context.stopping():
        return ""
    backup = context.workspace.to_text(make_backup(context.db, context.workspace.backups, keep))
    log.info("backup: %s", backup)
    apply_plan(context, plan)
    return backup


def remarks(db: Database, found: RowPlan, selection: RuleSelection) -> Iterator[str]:
    """Says what stands beside the plan."""
    if not found:
        yield f"no row is found by {' '.join(selection.rules)}"
    if kept := kept_on_blocked_domains(db, selection):
        yield f"{counted(kept, 'downloaded picture')} of those domains stay{'s' if kept == 1 else ''}"


def plan_lines(db: Database, plan: RowPlan, examples: int, dry_run: bool, most: int | None = None) -> Iterator[str]:
    """The plan as a table, then a few rows of every rule, with the table `most` lines."""
    counts = plan.counts()
    if not counts:
        return
    yield f"{'rule':<16} {'table':<16} {'rows':>10}"
    for (rule, table), number in counts.items():
        yield f"{rule:<16} {table:<16} {number:>10,}"
    if most is not None:  # the same number of every rule
        rules = len({rule for rule, _ in counts})
        examples = min(examples, max(1, (most - len(counts)) // rules))
    shown = _examples(plan, examples)[: None if most is None else max(FEWEST, most - len(counts))]
    about = describe_pictures(db, [change.key[0] for change in shown if change.table == "images"])
    for change in shown:
        yield _sentence(change, about.get(change.key[0], "") if change.table == "images" else "", dry_run)
    if most is not None and (others := len(plan) - len(shown)):
        yield f"… and {others:,} more (-v prints ten of each rule, --examples N more)"


def take_back(context: Context, step: str, name: str) -> tuple[dict[str, int], str]:
    """Undoes the run that is meant, and takes away the page that tells of it; gives the counts and what there is to
    say."""
    counts, note = undo_named(context, step, name)
    if not context.dry_run:
        remove_outdated_page(context)
    return counts, note


def undo_table(db: Database, step: str, name: str) -> str:
    """Shows what an undo would bring back, as a table like that of the plan."""
    run_id = run_to_undo(db, step, name)
    if run_id is None or not (counts := counts_by_reason(db, run_id, "done")):
        return ""
    head = f"{f'run {run_id}':<16} {'table':<16} {'rows':>10}\n"
    return head + "".join(f"{rule:<16} {table:<16} {rows:>10,}\n" for rule, table, rows in counts)


def as_json(plan: RowPlan, examples: int, backup: str) -> dict[str, Any]:
    """The plan as data: rows by rule and table, and examples."""
    rows = [{"rule": rule, "table": table, "rows": number} for (rule, table), number in plan.counts().items()]
    shown = [
        {"rule": c.rule, "table": c.table, "key": list(c.key), "reason": c.reason, "shown": c.shown}
        for c in _examples(plan, examples)
    ]
    return {"plan": rows, "examples": shown, "backup": backup}


def _examples(plan: RowPlan, examples: int) -> list[Change]:
    rules = dict.fromkeys(rule for rule, _ in plan.counts())
    return [change for rule in rules for change in plan.examples(rule, examples)]


def _sentence(change: Change, about: str, dry_run: bool) -> str:
    verb = "complete" if change.url else "remove"
    key = " ".join(str(part) for part in change.key)
    shown = f"  {change.shown[:100]!r}" if change.shown != str(change.key[-1]) else ""
    told = "  " + " ".join(about.split())[:120] if about else ""
    because = change.rule if change.reason == change.rule else f"{change.rule}: {change.reason}"
    return f"{'would ' if dry_run else ''}{verb}  {change.table} {key}{shown}{told}  ({because})"


@dataclass(frozen=True)
class Rescue:
    """A backup that has come, or in a dry run would come, to where there was no usable database."""

    chosen: Path
    aside: Path | None  # where the unusable file is now


def rescue(workspace: Workspace, backup: str, *, dry_run: bool) -> Rescue | None:
    """Puts a backup where the database is unusable or missing, without opening that; None where it can be used.

    Raises UsageError where there is no backup to put back.
    """
    try:
        fault = find_fault(workspace.database, deep=True, texts=True)
    except OSError:  # it may not be read: whatever it is, the steps cannot use it
        fault = Fault(ODD, "a file that cannot be read")
    if fault is None and workspace.database.exists():
        return None
    chosen = _choose(workspace, backup)
    aside = None if dry_run else replace_unusable(workspace.database, chosen)
    if aside:
        log.warning("the database could not be used; it was set aside as %s", aside)
    return Rescue(chosen, aside)


def restore(context: Context, name: str, keep: int) -> tuple[str, str, int]:
    """Puts a backup back, after a backup of what is there now; gives its name, a remark, and this run's number in what
    came back: that knows nothing of this run yet."""
    backups, chosen = context.workspace.backups, _choose(context.workspace, name)
    if context.dry_run:
        return chosen.name, "", 0
    # One more is kept while the chosen one is among them, or rotation might take it away before it is read.
    saved = make_backup(context.db, backups, max(keep, len(list_backups(backups)) + 1), replaced=True)
    restore_backup(context.db, chosen)
    return chosen.name, f"what was there before: {saved}", start_run(context.db, "cleanup", {"restore": chosen.name})


def _choose(workspace: Workspace, name: str) -> Path:
    chosen, passed = choose_backup(workspace.backups, name)
    for sentence in passed:
        log.warning("%s", sentence)
    return chosen


def make_smaller(context: Context) -> tuple[dict[str, int], str]:
    """Writes the file without its gaps where that pays; gives the counts and what there is to say.

    Raises GleanerError where there is no room for the copy that SQLite makes.
    """
    before = maintenance.room(context.db)
    if before.share < PAYS_FROM:
        return {"bytes": before.size, "unused": before.free}, "too little is unused for it to pay"
    if context.dry_run:
        return {"bytes": before.size, "unused": before.free}, ""
    left, needed = shutil.disk_usage(context.workspace.root).free, NEEDED_ROOM * before.size
    if left < needed:
        raise GleanerError(f"that needs {needed / 1e6:,.0f} MB of room and {left / 1e6:,.0f} MB are left; make room.")
    maintenance.vacuum(context.db)
    return {"bytes_before": before.size, "bytes_after": maintenance.room(context.db).size}, ""


def plan_reset(db: Database, what: str, examples: int) -> tuple[dict[str, int], list[str]]:
    """Rows by table that a reset would take or change, and the lines that show them, a few rows of each table last."""
    found = maintenance.count_rows(db, what)
    verb = "make pending" if what == "downloads" else "remove"
    lines = [f"{table:<16} {rows:>10,}" for table, rows in found.items()]
    for table in found:
        for row in maintenance.examples(db, what, table, examples):
            lines.append(f"{verb}  {table}  {' '.join(row.split())}")
    return found, lines


def confirm(workspace: Workspace, given: str, ask: Callable[[str], str] = lambda question: "") -> None:
    """Everything goes only by the workspace's name. Raises UsageError for another or none."""
    name = workspace.root.resolve().name
    given = given or ask(f"type the workspace's name ({name}) to empty its database: ")
    if not given:
        raise UsageError(f"--reset everything needs --yes {name} where nobody can be asked.")
    if given.strip() != name:
        raise UsageError(f"{given.strip()!r} is not the workspace's name ({name}); nothing was changed.")


def reset(context: Context, what: str, keep: int) -> str:
    """A backup first, then the reset; gives the backup's path as text."""
    backup = make_backup(context.db, context.workspace.backups, keep)
    maintenance.reset(context.db, what)
    return context.workspace.to_text(backup)
