"""Takes broken addresses, repeated ones and rows that belong to nothing out of the database; all of it can be undone.

Reads   images, image_variants, results, downloads
Writes  a checked copy in backups/ first; then the rows leave, each archived in the journal

Examples
    python 4_db_cleanup.py --dry-run
    python 4_db_cleanup.py
    python 4_db_cleanup.py --rule broken_url repeated_url
    python 4_db_cleanup.py --list-rules
    python 4_db_cleanup.py --undo last

A picture that has been downloaded is never taken out. Where there is nothing to do, no backup is made.

Next    python 5_download.py
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lib import cli
from lib.cleanup_rules import DEFAULT_RULES, RULE_NAMES, RULES

if TYPE_CHECKING:
    from lib.cleanup import Change, Plan


class _ListRules(argparse.Action):
    """Prints the rules and ends, like --help: no workspace is needed for that."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any, **__: Any) -> None:
        for rule in RULES:
            print(f"{rule.name:<15} {rule.description}{'' if rule.by_default else '  (only when named)'}")
        parser.exit()


def build_parser() -> argparse.ArgumentParser:
    made = cli.parser(__doc__, "cleanup")
    made.add_argument("--rule", nargs="+", choices=RULE_NAMES, metavar="NAME",
                      help="apply these rules only (default: all but those to be named)")  # fmt: skip
    made.add_argument("--list-rules", action=_ListRules, nargs=0, help="show the rules and exit")
    made.add_argument("--examples", type=cli.whole, default=10, metavar="N",
                      help="rows shown of each rule (default: 10)")  # fmt: skip
    made.add_argument("--keep", type=cli.positive, default=5, metavar="N",
                      help="backups kept, the newest ones (default: 5)")  # fmt: skip
    cli.add_dry_run(made)
    cli.add_undo(made)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(build_parser(), argv, work, needs="1_collect.py", alone=True)


def work(session: cli.Session) -> cli.Summary:
    if session.args.undo:
        return undo(session)
    from lib.cleanup import make_plan

    plan = make_plan(session.db, session.args.rule or DEFAULT_RULES)
    if not session.args.json:
        show(plan, session.args.examples, session.dry_run)
    backup = ""
    if len(plan) and not session.dry_run and not session.stopping():
        backup = apply(session, plan)
    counts: dict[str, int | float | str] = {"rows": len(plan)}
    for (rule, _), number in plan.counts().items():
        counts[rule] = int(counts.get(rule, 0)) + number
    note = f"undo with: python 4_db_cleanup.py --undo {session.run_id}" if backup else ""
    result = as_json(session, plan, counts, backup) if session.args.json else None
    return cli.Summary(counts, next="python 5_download.py", note=note, result=result)


def apply(session: cli.Session, plan: Plan) -> str:
    """Backup first, then everything in one transaction; gives the backup's path."""
    from lib.cleanup import apply_plan
    from lib.db.backup import make_backup

    backup = make_backup(session.db, session.workspace.backups, session.args.keep)
    cli.log.info("backup: %s", backup)
    apply_plan(session.db, session.run_id, plan, bar=session.bar)
    return session.workspace.to_text(backup)


def undo(session: cli.Session) -> cli.Summary:
    from lib.actions import run_to_undo
    from lib.cleanup import undo as undo_run

    run_id = run_to_undo(session.db, "cleanup", session.args.undo)
    if run_id is None:
        return cli.Summary({"undone": 0}, note="there is nothing to undo")
    counts = undo_run(session.db, run_id, dry_run=session.dry_run, bar=session.bar)
    note = "a later run took the pictures of some rows out: undo that run first" if counts["missing_parent"] else ""
    return cli.Summary({"undone": 0, **{k: v for k, v in counts.items() if v}}, note=note)


def show(plan: Plan, examples: int, dry_run: bool) -> None:
    """The plan as a table, then a few rows of every rule."""
    counts = plan.counts()
    if not counts:
        return
    print(f"{'rule':<16} {'table':<16} {'rows':>10}")
    for (rule, table), number in counts.items():
        print(f"{rule:<16} {table:<16} {number:>10,}")
    for rule in dict.fromkeys(rule for rule, _ in counts):
        for change in plan.examples(rule, examples):
            print(cli.clean(sentence(change, dry_run)))


def sentence(change: Change, dry_run: bool) -> str:
    verb = "complete" if change.url else "remove"
    key = " ".join(str(part) for part in change.key)
    shown = f"  {change.shown[:100]!r}" if change.table == "image_variants" else ""
    return f"{'would ' if dry_run else ''}{verb}  {change.table} {key}{shown}  ({change.rule}: {change.reason})"


def as_json(session: cli.Session, plan: Plan, counts: dict[str, Any], backup: str) -> dict[str, Any]:
    rows = [{"rule": rule, "table": table, "rows": number} for (rule, table), number in plan.counts().items()]
    shown = [change for rule in RULE_NAMES for change in plan.examples(rule, session.args.examples)]
    examples = [
        {"rule": c.rule, "table": c.table, "key": list(c.key), "reason": c.reason, "shown": c.shown} for c in shown
    ]
    head = {"step": session.step, "run": session.run_id or None, "dry_run": session.dry_run, "exit_code": 0}
    return {**head, "counts": counts, "plan": rows, "examples": examples, "backup": backup}


if __name__ == "__main__":
    sys.exit(main())
