"""Takes dead, broken and repeated rows out of the database: plan, backup, apply, undo.

A plan is a list of changes, each with its rule. Applying it writes every row that leaves into the journal and deletes
it, all in one transaction: after a kill the database is as before. `undo` puts the rows back, parents first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import nullcontext

from lib.cleanup.rules import (
    DEFAULT_RULES,
    NO_OPTIONS,
    RuleOptions,
    is_private,
    optional_addresses,
    optional_pictures,
    url_fault,
)
from lib.db import Database
from lib.db import cleanup as store
from lib.db.connection import meanwhile
from lib.journal.rows import BLOCK, Change, RowPlan, plan_pictures
from lib.times import utc_now

RELATED = {"orphan", "no_address", "no_result"}  # rules about pictures and their rows


def make_plan(db: Database, rules: Sequence[str] = DEFAULT_RULES, options: RuleOptions = NO_OPTIONS) -> RowPlan:
    """What the rules would change now. Nothing is written."""
    plan = RowPlan()
    store.prepare_for_plans(db)
    with meanwhile(db, store.mismatched_tables) if RELATED & set(rules) else nullcontext(set) as mismatched:
        for find in (_malformed_addresses, _repeated, _private, _expired):
            for change in find(db, rules):
                plan.add(change)
        for rule, number, reason, url in optional_addresses(db, rules, options):
            plan.add(Change("image_variants", (number,), rule, reason, url))
        for rule, image_ids in optional_pictures(db, rules, options):
            plan_pictures(db, plan, rule, image_ids)
        _plan_unrelated(db, plan, rules, mismatched())
    return plan


def _plan_unrelated(db: Database, plan: RowPlan, rules: Sequence[str], wrong: set[str]) -> None:
    """Rows without their picture and pictures without rows; `wrong` are the tables where there may be any."""
    if "orphan" in rules:
        children = [table for table in store.CHILDREN if table in wrong]
        for table, key, parent in store.orphans(db, [*children, "superseded", "responses"]):
            plan.take(Change(table, key, "orphan", f"not_in_{parent}", str(key[-1])))
    if "no_address" in rules:
        without = store.images_without_address(db) if "image_variants" in wrong else []
        plan_pictures(db, plan, "no_address", [*without, *_losing_last_address(db, plan)])
    if "no_result" in rules and "results" in wrong:
        plan_pictures(db, plan, "no_result", store.images_without_result(db))


def _malformed_addresses(db: Database, rules: Sequence[str]) -> Iterator[Change]:
    """What `broken_url`, `not_http` and `schemeless_url` take, found in one pass over the addresses."""
    completed: set[tuple[int, str]] = set()
    if not {"broken_url", "not_http", "schemeless_url"} & set(rules):
        return
    for number, image_id, url in store.doubtful_addresses(db):
        rule, reason = url_fault(url)
        if rule not in rules:
            continue
        if rule != "schemeless_url":
            yield Change("image_variants", (number,), rule, reason, url)
            continue
        whole = "https:" + url
        if url_fault(whole)[0]:
            yield Change("image_variants", (number,), rule, "no_host", url)
        elif (image_id, whole) in completed or store.has_address(db, image_id, whole):
            yield Change("image_variants", (number,), rule, "known_with_scheme", url)
        else:
            completed.add((image_id, whole))
            yield Change("image_variants", (number,), rule, "completed", url, whole)


def _repeated(db: Database, rules: Sequence[str]) -> Iterator[Change]:
    if "repeated_url" in rules:
        for number, _, url in store.repeated_addresses(db):
            yield Change("image_variants", (number,), "repeated_url", "listed_again", url)


def _private(db: Database, rules: Sequence[str]) -> Iterator[Change]:
    if "private_host" in rules:
        for number, _, url in store.all_addresses(db):
            if is_private(url):
                yield Change("image_variants", (number,), "private_host", "private_host", url)


def _expired(db: Database, rules: Sequence[str]) -> Iterator[Change]:
    if "expired_url" in rules:
        for number, _, url in store.expired_addresses(db, utc_now()):
            yield Change("image_variants", (number,), "expired_url", "expired", url)


def _losing_last_address(db: Database, plan: RowPlan) -> list[int]:
    """Pictures that lose their last address by this very plan."""
    leaving = [change.key for change in plan.changes.values() if change.table == "image_variants" and not change.url]
    losses: Counter[int] = Counter()
    for start in range(0, len(leaving), BLOCK):
        rows = store.read_rows(db, "image_variants", leaving[start : start + BLOCK])
        losses.update(row["image_id"] for row in rows)
    held = store.address_counts(db, list(losses))
    return sorted(image_id for image_id, count in held.items() if count == losses[image_id])
