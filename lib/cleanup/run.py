"""What step 4 was asked to do, as one plan to show and one to apply: rules, a search to forget, a reset.

Step 4's plans as a person reads them and as JSON.

The jobs of step 4 that are no rules: putting a backup back, making the file smaller, starting parts anew.
"""

from __future__ import annotations

import logging
import shutil
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lib.cleanup.plan import make_plan
from lib.cleanup.rules import DEFAULT_RULES, SCRIPTS, RuleOptions, kept_on_blocked_domains
from lib.db import Database, maintenance
from lib.db.cleanup import describe_pictures, query_name
from lib.db.journal import counts_by_reason, start_run
from lib.db.maintenance import choose_backup, list_backups, make_backup, replace_unusable, restore_backup
from lib.db.soundness import ODD, Fault, find_fault
from lib.domains import read_lists
from lib.errors import GleanerError, UsageError
from lib.journal.files import run_to_undo
from lib.journal.rows import Change, RowPlan, plan_to_forget
from lib.text import counted
from lib.workspace import Workspace

log = logging.getLogger("gleaner")

PAYS_FROM = 0.10  # of the file unused: below that, writing all of it anew gains too little
NEEDED_ROOM = 2.2  # times the file's size: SQLite writes a copy and then the log


@dataclass(frozen=True)
class RuleSelection:
    """Which rules, with what they go by."""

    rules: tuple[str, ...] = DEFAULT_RULES
    options: RuleOptions = field(default_factory=RuleOptions)


def choose(
    rules: list[str] | None, blocklist: Path | None, allowlist: Path | None, min_side: int, languages: list[str] | None
) -> RuleSelection:
    """The rules that were named, and those that an option implies. Raises UsageError for a rule without its option."""
    lists = read_lists(blocklist, allowlist)
    if wrong := [language for language in languages or () if language not in SCRIPTS]:
        raise UsageError(f"--languages: {wrong[0]!r} is not known; known are {' '.join(SCRIPTS)}.")
    given = {"blocked_domain": bool(lists), "small_claim": bool(min_side), "wrong_language": bool(languages)}
    flags = {
        "blocked_domain": "--blocklist or --allowlist",
        "small_claim": "--min-side",
        "wrong_language": "--languages",
    }
    for rule, flag in flags.items():
        if rule in (rules or ()) and not given[rule]:
            raise UsageError(f"the rule {rule} goes by {flag}; give it.")
    implied = [rule for rule, is_given in given.items() if is_given and rule not in (rules or DEFAULT_RULES)]
    return RuleSelection((*(rules or DEFAULT_RULES), *implied), RuleOptions(lists, min_side, tuple(languages or ())))


def plan(db: Database, choice: RuleSelection, forget: int | None) -> RowPlan:
    """What would be changed. Raises UsageError for a search that is not there."""
    if forget is None:
        return make_plan(db, choice.rules, choice.options)
    if query_name(db, forget) is None:
        raise UsageError(f"--forget-query: there is no search {forget}; `1_collect.py --list` shows them.")
    return plan_to_forget(db, forget)


def make_sure(root: Path, restore: str | None, reset: str | None, yes: str, *, can_ask: bool) -> None:
    """What has to be right before anything is touched: the backup is there, the workspace's name was given.

    Raises UsageError.
    """
    workspace = Workspace(root)
    if reset == "everything" and (yes or not can_ask):
        confirm(workspace, yes)
    if restore:
        choose_backup(workspace.backups, restore)


@dataclass(frozen=True)
class Rescue:
    """A backup that has come, or in a dry run would come, to where there was no usable database."""

    chosen: Path
    aside: Path | None  # where the unusable file is now


def rescue(args: Namespace) -> bool:
    """Puts the backup of `--restore` where the database is unusable or missing, without opening that; keeps what was
    done as `args.rescue`. True where a preview has no database to open.

    Raises UsageError where there is no backup to put back.
    """
    if not args.restore:
        return False
    workspace = Workspace(args.workspace)
    try:
        fault = find_fault(workspace.database, deep=True, texts=True)
    except OSError:  # it may not be read: whatever it is, the steps cannot use it
        fault = Fault(ODD, "a file that cannot be read")
    if fault is None and workspace.database.exists():
        return False
    chosen = _choose(workspace, args.restore)
    aside = None if args.dry_run else replace_unusable(workspace.database, chosen)
    if aside:
        log.warning("the database could not be used; it was set aside as %s", aside)
    args.rescue = Rescue(chosen, aside)
    return bool(args.dry_run)


def _choose(workspace: Workspace, name: str) -> Path:
    chosen, passed = choose_backup(workspace.backups, name)
    for sentence in passed:
        log.warning("%s", sentence)
    return chosen


def remarks(db: Database, found: RowPlan, choice: RuleSelection, applied_by: int) -> Iterator[str]:
    """What there is to say beside the plan; `applied_by` is the run that has applied it, 0 for none."""
    if not found:
        yield f"no row is found by {' '.join(choice.rules)}"
    if kept := kept_on_blocked_domains(db, choice.options):
        yield f"{counted(kept, 'downloaded picture')} of those domains stay{'s' if kept == 1 else ''}"
    if applied_by:
        yield f"undo with: python 4_db_cleanup.py --undo {applied_by}"


def restore(db: Database, workspace: Workspace, args: Namespace, run_id: int) -> tuple[str, str, int]:
    """Puts a backup back, after a backup of what is there now; gives its name, a remark, and this run's number in what
    came back: that knows nothing of this run yet."""
    if done := getattr(args, "rescue", None):
        return done.chosen.name, f"what could not be used: {done.aside}" if done.aside else "", run_id
    chosen = _choose(workspace, args.restore)
    if args.dry_run:
        return chosen.name, "", 0
    # One more is kept while the chosen one is among them, or rotation might take it away before it is read.
    kept = max(args.keep, len(list_backups(workspace.backups)) + 1)
    saved = make_backup(db, workspace.backups, kept, replaced=True)
    restore_backup(db, chosen)
    return chosen.name, f"what was there before: {saved}", start_run(db, "cleanup", {"restore": chosen.name})


def plan_lines(db: Database, plan: RowPlan, examples: int, dry_run: bool) -> Iterator[str]:
    """The plan as a table, then a few rows of every rule."""
    counts = plan.counts()
    if not counts:
        return
    yield f"{'rule':<16} {'table':<16} {'rows':>10}"
    for (rule, table), number in counts.items():
        yield f"{rule:<16} {table:<16} {number:>10,}"
    shown = _examples(plan, examples)
    about = describe_pictures(db, [change.key[0] for change in shown if change.table == "images"])
    for change in shown:
        yield _sentence(change, about.get(change.key[0], "") if change.table == "images" else "", dry_run)


def undo_table(db: Database, step: str, name: str) -> str:
    """What an undo would bring back, as a table like that of the plan."""
    run_id = run_to_undo(db, step, name)
    if run_id is None or not (counts := counts_by_reason(db, run_id, "done")):
        return ""
    head = f"{f'run {run_id}':<16} {'table':<16} {'rows':>10}\n"
    return head + "".join(f"{rule:<16} {table:<16} {rows:>10,}\n" for rule, table, rows in counts)


def reset_lines(reset: Reset) -> list[str]:
    """A reset as a table, then a few rows of every table."""
    verb = "make pending" if reset.what == "downloads" else "remove"
    lines = [f"{table:<16} {rows:>10,}" for table, rows in reset.rows.items()]
    rows = ((table, " ".join(shown.split())) for table, found in reset.examples.items() for shown in found)
    return lines + [f"{verb}  {table}  {shown}" for table, shown in rows]


def as_json(plan: RowPlan, counts: dict[str, Any], examples: int, backup: str) -> dict[str, Any]:
    """The plan as data: rows by rule and table, and examples."""
    rows = [{"rule": rule, "table": table, "rows": number} for (rule, table), number in plan.counts().items()]
    shown = [
        {"rule": c.rule, "table": c.table, "key": list(c.key), "reason": c.reason, "shown": c.shown}
        for c in _examples(plan, examples)
    ]
    return {"counts": counts, "plan": rows, "examples": shown, "backup": backup}


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
class Reset:
    """What a reset would take: rows by table, with a few examples of each."""

    what: str
    rows: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)


def plan_reset(db: Database, what: str, examples: int) -> Reset:
    rows = maintenance.count_rows(db, what)
    return Reset(what, rows, {name: maintenance.examples(db, what, name, examples) for name in rows})


def question(workspace: Workspace) -> str:
    """What is asked before everything goes."""
    return f"type the workspace's name ({workspace.root.resolve().name}) to empty its database: "


def confirm(workspace: Workspace, given: str) -> None:
    """Everything goes only by the workspace's name. Raises UsageError for another or none."""
    name = workspace.root.resolve().name
    if not given:
        raise UsageError(f"--reset everything needs --yes {name} where nobody can be asked.")
    if given.strip() != name:
        raise UsageError(f"{given.strip()!r} is not the workspace's name ({name}); nothing was changed.")


def make_smaller(db: Database, workspace: Workspace, *, dry_run: bool) -> tuple[dict[str, int], str]:
    """Writes the file without its gaps where that pays; gives the counts and what there is to say.

    Raises GleanerError where there is no room for the copy that SQLite makes.
    """
    before = maintenance.room(db)
    if before.share < PAYS_FROM:
        return {"bytes": before.size, "unused": before.free}, "too little is unused for it to pay"
    if dry_run:
        return {"bytes": before.size, "unused": before.free}, ""
    left, needed = shutil.disk_usage(workspace.root).free, NEEDED_ROOM * before.size
    if left < needed:
        raise GleanerError(f"that needs {needed / 1e6:,.0f} MB of room and {left / 1e6:,.0f} MB are left; make room.")
    maintenance.vacuum(db)
    return {"bytes_before": before.size, "bytes_after": maintenance.room(db).size}, ""


def reset(db: Database, workspace: Workspace, what: str, keep: int) -> str:
    """A backup first, then the reset; gives the backup's path as text."""
    backup = make_backup(db, workspace.backups, keep)
    maintenance.reset(db, what)
    return workspace.to_text(backup)
