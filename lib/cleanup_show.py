"""Step 4's plans as a person reads them and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lib.actions import run_to_undo
from lib.cleanup import Change, Plan
from lib.db import Database
from lib.db.actions import counts_by_reason
from lib.db.cleanup_named import describe_pictures
from lib.upkeep import Reset


def plan_lines(db: Database, plan: Plan, examples: int, dry_run: bool) -> Iterator[str]:
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


def as_json(plan: Plan, counts: dict[str, Any], examples: int, backup: str) -> dict[str, Any]:
    """The plan as data: rows by rule and table, and examples."""
    rows = [{"rule": rule, "table": table, "rows": number} for (rule, table), number in plan.counts().items()]
    shown = [
        {"rule": c.rule, "table": c.table, "key": list(c.key), "reason": c.reason, "shown": c.shown}
        for c in _examples(plan, examples)
    ]
    return {"counts": counts, "plan": rows, "examples": shown, "backup": backup}


def _examples(plan: Plan, examples: int) -> list[Change]:
    rules = dict.fromkeys(rule for rule, _ in plan.counts())
    return [change for rule in rules for change in plan.examples(rule, examples)]


def _sentence(change: Change, about: str, dry_run: bool) -> str:
    verb = "complete" if change.url else "remove"
    key = " ".join(str(part) for part in change.key)
    shown = f"  {change.shown[:100]!r}" if change.shown != str(change.key[-1]) else ""
    told = "  " + " ".join(about.split())[:120] if about else ""
    because = change.rule if change.reason == change.rule else f"{change.rule}: {change.reason}"
    return f"{'would ' if dry_run else ''}{verb}  {change.table} {key}{shown}{told}  ({because})"
