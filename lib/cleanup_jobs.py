"""What step 4 was asked to do, as one plan to show and one to apply: rules, a search to forget, a reset."""

from __future__ import annotations

import logging
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from lib.cleanup import Plan, make_plan, plan_to_forget
from lib.cleanup_named import SCRIPTS, Options, kept_on_blocked_domains
from lib.cleanup_rules import DEFAULT_RULES
from lib.db import Database
from lib.db.backup import choose_backup, list_backups, make_backup, replace_unusable, restore_backup
from lib.db.cleanup_named import query_name
from lib.db.runs import start_run
from lib.db.soundness import ODD, Fault, find_fault
from lib.domain_lists import read_lists
from lib.errors import UsageError
from lib.sentences import counted
from lib.upkeep import confirm
from lib.workspace import Workspace

log = logging.getLogger("gleaner")


@dataclass(frozen=True)
class Choice:
    """Which rules, with what they go by."""

    rules: tuple[str, ...] = DEFAULT_RULES
    options: Options = field(default_factory=Options)


def choose(
    rules: list[str] | None, blocklist: Path | None, allowlist: Path | None, min_side: int, languages: list[str] | None
) -> Choice:
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
    return Choice((*(rules or DEFAULT_RULES), *implied), Options(lists, min_side, tuple(languages or ())))


def plan(db: Database, choice: Choice, forget: int | None) -> Plan:
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


def remarks(db: Database, found: Plan, choice: Choice, applied_by: int) -> Iterator[str]:
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
