"""Plans what step 4 takes out: a list of changes, each with its rule, for `lib.journal.rows` to apply."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext

from lib.cleanup.rules import RuleSelection, is_private, optional_addresses, optional_pictures, url_fault
from lib.db import Database
from lib.db import cleanup as store
from lib.db.connection import meanwhile
from lib.journal.rows import BLOCK, Change, RowPlan, plan_pictures
from lib.progress import chunked
from lib.times import utc_now

RELATED = ("orphan", "no_address", "no_result")  # rules about pictures and their rows
MALFORMED = ("broken_url", "not_http", "schemeless_url")


def make_plan(db: Database, selection: RuleSelection) -> RowPlan:
    """Finds what the rules would change now. Nothing is written."""
    plan, related = RowPlan(), any(rule in selection for rule in RELATED)
    store.prepare_for_plans(db)
    with meanwhile(db, store.mismatched_tables) if related else nullcontext(set) as mismatched:
        for find in (_malformed_addresses, _unwanted_addresses):
            for change in find(db, selection):
                plan.add(change)
        for rule, number, reason, url in optional_addresses(db, selection):
            plan.add(_removal(number, rule, reason, url))
        for rule, image_ids in optional_pictures(db, selection):
            plan_pictures(db, plan, rule, image_ids)
        _plan_unrelated(db, plan, selection, mismatched())
    return plan


def _removal(number: int, rule: str, reason: str, url: str) -> Change:
    return Change("image_variants", (number,), rule, reason, url)


def _malformed_addresses(db: Database, selection: RuleSelection) -> Iterator[Change]:
    """Finds what `broken_url`, `not_http` and `schemeless_url` take, in one pass over the addresses."""
    completed: set[tuple[int, str]] = set()
    if not any(rule in selection for rule in MALFORMED):
        return
    for number, image_id, url in store.doubtful_addresses(db):
        rule, reason = url_fault(url)
        if rule not in selection:
            continue
        if rule != "schemeless_url":
            yield _removal(number, rule, reason, url)
            continue
        whole = "https:" + url
        if url_fault(whole)[0]:
            yield _removal(number, rule, "no_host", url)
        elif (image_id, whole) in completed or store.has_address(db, image_id, whole):
            yield _removal(number, rule, "known_with_scheme", url)
        else:
            completed.add((image_id, whole))
            yield Change("image_variants", (number,), rule, "completed", url, whole)


def _unwanted_addresses(db: Database, selection: RuleSelection) -> Iterator[Change]:
    """Finds what `repeated_url`, `private_host` and `expired_url` take, in this order."""
    if "repeated_url" in selection:
        for number, _, url in store.repeated_addresses(db):
            yield _removal(number, "repeated_url", "listed_again", url)
    if "private_host" in selection:
        for number, _, url in store.all_addresses(db):
            if is_private(url):
                yield _removal(number, "private_host", "private_host", url)
    if "expired_url" in selection:
        for number, _, url in store.expired_addresses(db, utc_now()):
            yield _removal(number, "expired_url", "expired", url)


def _plan_unrelated(db: Database, plan: RowPlan, selection: RuleSelection, wrong: set[str]) -> None:
    """Adds rows without their picture and pictures without rows; `wrong` are the tables where there may be any."""
    if "orphan" in selection:
        children = [table for table in store.CHILDREN if table in wrong]
        for table, key, parent in store.orphans(db, [*children, "superseded", "responses"]):
            plan.take(Change(table, key, "orphan", f"not_in_{parent}", str(key[-1])))
    if "no_address" in selection:
        without = store.images_without_address(db) if "image_variants" in wrong else []
        plan_pictures(db, plan, "no_address", [*without, *_losing_last_address(db, plan)])
    if "no_result" in selection and "results" in wrong:
        plan_pictures(db, plan, "no_result", store.images_without_result(db))


def _losing_last_address(db: Database, plan: RowPlan) -> list[int]:
    """Pictures that lose their last address by this very plan."""
    leaving = [change.key for change in plan.changes.values() if change.table == "image_variants" and not change.url]
    losses: Counter[int] = Counter()
    for block in chunked(leaving, BLOCK):
        losses.update(row["image_id"] for row in store.read_rows(db, "image_variants", block))
    counts = store.address_counts(db, list(losses))
    return sorted(image_id for image_id, count in counts.items() if count == losses[image_id])
