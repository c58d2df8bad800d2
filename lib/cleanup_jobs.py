"""What step 4 was asked to do, as one plan to show and one to apply: rules, a search to forget, a reset."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from lib.cleanup import Plan, make_plan, plan_to_forget
from lib.cleanup_named import SCRIPTS, Options, kept_on_blocked_domains
from lib.cleanup_rules import DEFAULT_RULES
from lib.db import Database
from lib.db.backup import choose_backup, list_backups, make_backup, restore_backup, set_aside_damaged
from lib.db.cleanup_named import query_name
from lib.db.runs import start_run
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


def make_sure(workspace: Workspace, restore: str | None, reset: str | None, yes: str, *, can_ask: bool) -> None:
    """What has to be right before anything is touched: the backup is there, the workspace's name was given.

    A damaged database is set aside here, since it could not even be opened, and where there is none an empty one is
    made for the backup to come back to. Raises UsageError.
    """
    if reset == "everything" and (yes or not can_ask):
        confirm(workspace, yes)
    if restore:
        choose_backup(workspace.backups, restore)
        aside = set_aside_damaged(workspace.database)
        workspace.database.touch()
        if aside:
            log.warning("the damaged database was set aside as %s", aside)


def remarks(db: Database, found: Plan, choice: Choice, applied_by: int) -> Iterator[str]:
    """What there is to say beside the plan; `applied_by` is the run that has applied it, 0 for none."""
    if not found:
        yield f"no row is found by {' '.join(choice.rules)}"
    if kept := kept_on_blocked_domains(db, choice.options):
        yield f"{counted(kept, 'downloaded picture')} of those domains stay{'s' if kept == 1 else ''}"
    if applied_by:
        yield f"undo with: python 4_db_cleanup.py --undo {applied_by}"


def restore(
    db: Database, workspace: Workspace, name: str, keep: int, *, dry_run: bool
) -> tuple[Path, Path | None, int]:
    """Puts a backup back, after a backup of what is there now; gives (what came back, the new backup, this run's
    number in what came back: it knows nothing of this run yet)."""
    chosen = choose_backup(workspace.backups, name)
    if dry_run:
        return chosen, None, 0
    # One more is kept while the chosen one is among them, or rotation might take it away before it is read.
    kept = max(keep, len(list_backups(workspace.backups)) + 1)
    saved = make_backup(db, workspace.backups, kept, replaced=True)
    restore_backup(db, chosen)
    return chosen, saved, start_run(db, "cleanup", {"restore": chosen.name})
