"""The page of step 4: the plan in words, read before its rows are gone."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path

from lib.db import Context, Database
from lib.db import cleanup as store
from lib.db.cleanup import KnownPicture
from lib.journal import FORGOTTEN, RULES
from lib.journal.files import left
from lib.journal.rows import Change, RowPlan
from lib.pages.cleanup import CleanupRow, CleanupRule, render_cleanup_page
from lib.pages.model import Card, Heading
from lib.pages.render import place_of_page, write_page
from lib.pages.thumbnails import clear_stale
from lib.text import counted
from lib.times import utc_now
from lib.workspace import Workspace

ROW_LIMIT = 5_000  # rows on the page, shared out evenly over the rules; a browser searches so many at once
PAGE = "cleanup.html"
_UNDO = re.compile(r"<code>[^<]* --undo (\d+)\b")
MOST_CARDS = 6  # rules at the head of the page; all of them stand below
KINDS = {
    "image_variants": "address", "images": "picture", "results": "result", "downloads": "download",
    "superseded": "earlier file", "responses": "answer", "queries": "search",
}  # fmt: skip
WITH_PICTURE = "with_its_picture"  # the reason of rows that leave because their picture does
ABOUT = {rule.name: rule.description for rule in RULES} | {FORGOTTEN: "the search that --forget-query names"}


def cleanup_rules(db: Database, workspace: Workspace, plan: RowPlan, limit: int = ROW_LIMIT) -> list[CleanupRule]:
    """The plan as the page shows it. What leaves with its picture is counted there and has no row of its own."""
    by_table: dict[str, Counter[str]] = defaultdict(Counter)
    for (rule, table), number in plan.counts().items():
        by_table[rule][table] = number
    listed = Counter(change.rule for change in plan.changes.values() if change.reason != WITH_PICTURE)
    rooms, room = dict[str, int](), limit
    for place, rule in enumerate(sorted(by_table, key=lambda rule: listed[rule])):  # rare rules stay whole
        rooms[rule] = min(listed[rule], room // (len(by_table) - place))
        room -= rooms[rule]
    found = []
    for rule, tables in by_table.items():
        own = (c for c in plan.changes.values() if c.rule == rule and c.reason != WITH_PICTURE)
        rows = _rows(db, workspace, plan, list(islice(own, rooms[rule])))
        about = ABOUT.get(rule, rule)
        found.append(CleanupRule(rule, about[0].upper() + about[1:], tables.total(), _told(tables), listed[rule], rows))
    return found


def write_cleanup_page(
    context: Context, given: Path | None, rules: Sequence[CleanupRule], notes: Iterable[str], command: str
) -> Path:
    """Writes the page to where `--page` or the usual place is; gives that.

    `command` is that of the run in earnest in a dry run, else the one that takes this run back.
    """
    dry_run = context.dry_run
    page = place_of_page(given, context.workspace.reports / PAGE, only_shown=dry_run)
    said = ["This is a dry run: nothing has been taken out."] if dry_run else []
    title = "What would be cleaned up" if dry_run else "What was cleaned up"
    cards = [Card(rule.name, rule.rows, rule.counts) for rule in rules[:MOST_CARDS]]
    heading = Heading(
        title, "Rows of the database, by the rule that takes them; no file is touched.", utc_now(), cards,
        [*said, *notes], command if rules else "", "To do this" if dry_run else "To take this back",
    )  # fmt: skip
    return write_page(page, render_cleanup_page(page, heading, rules, only_shown=dry_run))


def remove_outdated_page(context: Context) -> None:
    """Removes the page in `reports/` where the run that it tells of was taken back, by a run that was killed too."""
    page = context.workspace.reports / PAGE
    told = _UNDO.search(page.read_text("utf-8", "replace")) if page.is_file() else None
    if told and not left(context.db, int(told[1])):
        page.unlink()
        clear_stale(page)


def _rows(db: Database, workspace: Workspace, plan: RowPlan, changes: Sequence[Change]) -> list[CleanupRow]:
    owners = store.owners_of(db, [(change.table, change.key) for change in changes])
    known = store.known_pictures(db, sorted(set(owners.values())))
    leaving = _leaving(db, plan, {change.key[0]: change.rule for change in changes if change.table == "images"})
    found = []
    for change in changes:
        picture = known.get(owners.get((change.table, change.key), 0), KnownPicture())
        is_picture = change.table == "images"
        reason = "" if change.reason == change.rule else change.reason.replace("_", " ")
        found.append(
            CleanupRow(
                kind=KINDS[change.table],
                name=_name(db, change),
                reason=reason,
                becomes=change.url,
                title=" ".join(picture.title.split()),
                page_url=picture.page_url,
                file=workspace.to_path(picture.path) if picture.path else None,
                leaves=_told(leaving.get(change.key[0], Counter()), last=" and ") if is_picture else "",
            )
        )
    return found


def _leaving(db: Database, plan: RowPlan, pictures: Mapping[int, str]) -> dict[int, Counter[str]]:
    """The rows of each table that leave with each picture, by the rule that takes it and no other."""
    found: dict[int, Counter[str]] = defaultdict(Counter)
    for image_id, table, key in store.belongings(db, list(pictures)):
        change = plan.changes.get((table, key))
        if change and change.reason == WITH_PICTURE and change.rule == pictures[image_id]:
            found[image_id][table] += 1
    return found


def _name(db: Database, change: Change) -> str:
    if change.table == "queries":
        return store.query_name(db, change.key[0]) or str(change.key[0])
    if change.table in ("image_variants", "images"):
        return change.shown
    return f"{KINDS[change.table]} {' '.join(map(str, change.key))}"


def _told(tables: Counter[str], last: str = ", ") -> str:
    parts = [counted(number, KINDS[table]) for table, number in tables.items() if number]
    return last.join([", ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else "".join(parts)
