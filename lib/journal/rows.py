"""Plans, makes and takes back changes of the database: rows that leave, and pictures with their rows."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import orjson

from lib.db import Context, Database, journal
from lib.db import cleanup as store
from lib.db.cleanup import Key
from lib.db.journal import Action
from lib.journal import FORGOTTEN, MISREAD, PICTURE_RULES, RULE_NAMES
from lib.journal.files import run_to_undo
from lib.progress import chunked

BLOCK = 500

PROTECTED = (*PICTURE_RULES, MISREAD)  # rules whose pictures stay when another step has fetched or found them meanwhile
# The journal is written in this order and undone from its end: parents come back first.
_LEAVING_ORDER = ("superseded", "downloads", "results", "image_variants", "images", "responses", "queries")


@dataclass(frozen=True)
class Change:
    """One row that leaves its table, or (with `url`) an address that is completed."""

    table: str
    key: Key
    rule: str
    reason: str
    shown: str = ""
    url: str = ""


@dataclass
class RowPlan:
    """Changes by (table, key): a row belongs to the first rule that takes it."""

    changes: dict[tuple[str, Key], Change] = field(default_factory=dict)

    def add(self, change: Change) -> None:
        self.changes.setdefault((change.table, change.key), change)

    def take(self, change: Change) -> None:
        """Adds a row that leaves with its picture or for lack of one; an address that was to be completed leaves."""
        if (planned := self.changes.get((change.table, change.key))) and planned.url:
            del self.changes[change.table, change.key]
        self.add(change)

    def counts(self) -> Counter[tuple[str, str]]:
        """Rows by (rule, table), in the order of the rules."""
        found = Counter((change.rule, change.table) for change in self.changes.values())
        names = (*RULE_NAMES, FORGOTTEN, MISREAD)
        order = sorted(found, key=lambda pair: (names.index(pair[0]), list(store.KEYS).index(pair[1])))
        return Counter({pair: found[pair] for pair in order})

    def by_rule(self) -> Counter[str]:
        """Rows by rule, in the order of the rules."""
        found = Counter(change.rule for change in self.changes.values())
        return Counter({rule: found[rule] for rule in (*RULE_NAMES, FORGOTTEN, MISREAD) if rule in found})

    def examples(self, rule: str, most: int) -> list[Change]:
        return list(islice((change for change in self.changes.values() if change.rule == rule), most))

    def __len__(self) -> int:
        return len(self.changes)


def plan_to_forget(db: Database, query_id: int) -> RowPlan:
    """A search with its answers and results, and the pictures that it alone shows and that have no file."""
    plan = RowPlan()
    plan_pictures(db, plan, FORGOTTEN, store.images_only_of(db, query_id))
    rows = list(store.rows_of_query(db, query_id))
    names = store.picture_keys(db, [key[-1] for table, key in rows if table == "results"])
    for table, key in rows:
        plan.add(Change(table, key, FORGOTTEN, "of_this_search", store.name_of(table, key, names)))
    return plan


def apply_plan(context: Context, plan: RowPlan) -> int:
    """Carries out a plan in one transaction, every row archived in the journal first; gives the number of rows."""
    db = context.db
    with context.bar(len(plan), "Cleaning", "row") as progress, db.transaction():
        plan = _as_of_now(db, plan)
        staying = _staying(db, plan)
        done = 0
        for table in _LEAVING_ORDER:
            for block in chunked((change for change in plan.changes.values() if change.table == table), BLOCK):
                done += _apply_block(context, table, block, staying)
                progress.update(len(block))
    return done


def undo(context: Context, run_id: int) -> Counter[str]:
    """Puts back what a run took out.

    Outcomes are `undone`, `there_again` (the row has come back by itself) and `missing_parent` (a later run took its
    picture out: undo that run first). The last stays in the journal, so that a later undo can try again.
    """
    counts: Counter[str] = Counter()
    total = journal.count_actions(context.db, run_id, "done")
    if context.dry_run:
        return Counter({"undone": total} if total else {})
    with context.bar(total, "Undoing", "row") as progress:
        # What was an orphan when it left comes back unchecked, in a transaction of its own.
        for orphans in (False, True):
            _undo_some(context.db, run_id, orphans, counts, progress.update)
    if left := journal.count_actions(context.db, run_id, "done"):
        counts["missing_parent"] = left
    return counts


def undo_named(context: Context, step: str, name: str) -> tuple[dict[str, int], str]:
    """Undoes the run of the step that is meant; gives the counts and what there is to say."""
    run_id = run_to_undo(context.db, step, name)
    if run_id is None:
        return {"undone": 0}, "there is nothing to undo"
    counts = undo(context, run_id)
    note = "a later run took the pictures of some rows out: undo that run first" if counts["missing_parent"] else ""
    return {"undone": 0, **{outcome: count for outcome, count in counts.items() if count}}, note


def plan_pictures(db: Database, plan: RowPlan, rule: str, image_ids: Iterable[int]) -> None:
    """Adds pictures to a plan: they leave together with what belongs to them, each row in the plan by name."""
    ids = [image_id for image_id in dict.fromkeys(image_ids) if ("images", (image_id,)) not in plan.changes]
    names = store.picture_keys(db, ids)
    for image_id in ids:
        plan.add(Change("images", (image_id,), rule, rule, names[image_id]))
    for table, key in store.children_of(db, ids):
        plan.take(Change(table, key, rule, "with_its_picture", store.name_of(table, key, names)))


def _as_of_now(db: Database, plan: RowPlan) -> RowPlan:
    """A search that is forgotten takes along what has come to it since: its foreign keys would, without a trace."""
    for (table, key), change in plan.changes.items():
        if (table, change.rule) == ("queries", FORGOTTEN):
            return plan_to_forget(db, key[0])
    return plan


def _staying(db: Database, plan: RowPlan) -> set[int]:
    """Pictures of the plan that another step has downloaded, or found again, since the plan was made."""
    ids = [change.key[0] for change in plan.changes.values() if change.table == "images"]
    staying = store.downloaded(db, ids)
    for table, key in store.children_of(db, ids):
        if (table, key) not in plan.changes:
            staying.update(row["image_id"] for row in store.read_rows(db, table, [key]))
    return staying


def _apply_block(context: Context, table: str, changes: list[Change], staying: set[int]) -> int:
    db = context.db
    rows = store.read_rows(db, table, [change.key for change in changes])
    by_key = {tuple(row[column] for column in store.KEYS[table]): row for row in rows}
    won = store.won_by_now(db, [change.key[0] for change in changes]) if table == "image_variants" else set()
    present = [
        change
        for change in changes
        if (row := by_key.get(change.key))
        and not (change.rule in PROTECTED and row["id" if table == "images" else "image_id"] in staying)
        and not (change.rule not in PROTECTED and change.key[0] in won)
    ]
    archived = store.as_archived(db, table, [by_key[change.key] for change in present])
    journal.insert_actions(db, context.run_id, map(_action, present, archived), state="done")
    store.delete_rows(db, table, [change.key for change in present if not change.url])
    for change in present:
        if change.url:
            store.set_url(db, change.key[0], change.url)
    return len(present)


def _action(change: Change, row: dict[str, Any]) -> Action:
    return Action(
        kind="change_row" if change.url else "remove_row",
        table_name=change.table,
        payload=orjson.dumps(row).decode(),
        reason=change.rule,
    )


def _undo_some(db: Database, run_id: int, orphans: bool, counts: Counter[str], update: Callable[[float], Any]) -> None:
    archived = (action for action in journal.iter_actions(db, run_id, "done") if action.table_name == "queries")
    given_away = store.taken_numbers(db, [orjson.loads(action.payload) for action in archived])
    store.without_foreign_keys(db, orphans)
    try:
        with db.transaction():
            for action in journal.iter_actions(db, run_id, "done", newest_first=True):
                row = orjson.loads(action.payload)
                if orphans != (action.kind == "remove_row" and store.may_lack_a_parent(db, action, row)):
                    continue
                if (row["id"] if action.table_name == "queries" else row.get("query_id")) in given_away:
                    continue  # the number is another search's now: these results must not become that one's
                if outcome := _undo_one(db, action, row):
                    counts[outcome] += 1
                    journal.set_state(db, [action.id], "undone")
                    update(1)
    finally:
        store.without_foreign_keys(db, False)


def _undo_one(db: Database, action: Action, row: dict[str, Any]) -> str:
    """The outcome; empty where the row cannot come back because its parent is not there."""
    try:
        if action.kind == "change_row":
            if not store.read_rows(db, action.table_name, [(row["id"],)]):
                return ""  # a later run took the completed address out; it has to come back first
            return "undone" if store.restore_url(db, row) else "there_again"
        return "undone" if store.put_back(db, action.table_name, row) else "there_again"
    except sqlite3.IntegrityError:
        return ""
