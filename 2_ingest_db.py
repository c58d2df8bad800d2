"""Reads the raw answers of step 1 into the database: pictures, their addresses, and which query showed them.

Reads   responses that are pending, and their files below xhr/
Writes  images, image_variants, results, and a pending row in downloads for every picture

Examples
    python 2_ingest_db.py
    python 2_ingest_db.py --dry-run
    python 2_ingest_db.py --retry-failed
    python 2_ingest_db.py --rescan
    python 2_ingest_db.py --import old/XHR
    python 2_ingest_db.py --import old/yandex_images.db
    python 2_ingest_db.py --import urls.parquet

An answer that cannot be read is marked as failed with a reason, and the others go on. Running it again reads only
what is new.

Next    python 3_domain_report.py
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lib import cli
from lib.errors import UsageError
from lib.workspace import Workspace

if TYPE_CHECKING:
    from lib.db.ingest import Answer
    from lib.imports import Source
    from lib.ingest import Totals


def build_parser() -> argparse.ArgumentParser:
    made = cli.parser(__doc__, "ingest")
    made.add_argument("--import", dest="source", type=Path, metavar="PATH",
                      help="take in raw answers, a list of URLs or another pipeline's database")  # fmt: skip
    made.add_argument("--rescan", action="store_true",
                      help="also take in files below xhr/ that the database does not know")  # fmt: skip
    made.add_argument("--retry-failed", action="store_true", help="read the answers again that could not be read")
    made.add_argument("--strict", action="store_true", help="end with exit code 3 when an answer could not be read")
    cli.add_limit(made, "answers (or pictures of an imported list)")
    cli.add_workers(made)
    cli.add_dry_run(made)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(build_parser(), argv, work, check=check)


def check(args: argparse.Namespace) -> None:
    workspace = Workspace(args.workspace)
    if not workspace.database.exists() and not args.source and not args.rescan:
        raise UsageError(f"there is no database in {workspace.root}; run 1_collect.py first.")


def work(session: cli.Session) -> cli.Summary:
    from lib.imports import recognise

    source = recognise(session.args.source) if session.args.source else None
    if source:
        cli.log.info("took %s for %s", source.path, source.description)
    totals = import_records(session, source) if source and source.records else ingest_answers(session, source)
    failed = {f"failed_{reason}": count for reason, count in sorted(totals.reasons.items())}
    counts: dict[str, int | float | str] = {
        "answers": totals.answers,
        "failed": totals.failed,
        **failed,
        "results": totals.results,
        "new_pictures": totals.saved.new,
        "known_pictures": totals.saved.known,
    }
    if not session.dry_run:
        counts |= {"new_addresses": totals.saved.variants, "new_results": totals.saved.results}
    exit_code = 3 if session.args.strict and totals.failed else 0
    return cli.Summary(counts, next="python 3_domain_report.py", exit_code=exit_code)


def import_records(session: cli.Session, source: Source) -> Totals:
    from lib.record_import import save_records

    return save_records(
        session.db, source, session.run_id,
        limit=session.args.limit, preview=session.dry_run, stopping=session.stopping, bar=session.bar,
    )  # fmt: skip


def ingest_answers(session: cli.Session, source: Source | None) -> Totals:
    from itertools import islice

    from lib.ingest import ingest

    answers, total = preview_answers(session, source) if session.dry_run else take_in(session, source)
    if limit := session.args.limit:
        answers, total = islice(answers, limit), min(limit, total)
    return ingest(
        session.db, session.workspace, answers, total,
        workers=session.args.workers, preview=session.dry_run, stopping=session.stopping, bar=session.bar,
    )  # fmt: skip


def take_in(session: cli.Session, source: Source | None) -> tuple[Iterator[Answer], int]:
    """Gives rows to what has none yet; then everything that is pending."""
    from lib.db import ingest as answers
    from lib.raw_files import adopt, adopt_strays, find_strays

    db, workspace = session.db, session.workspace
    if source:
        taken = adopt(db, workspace, source.answers, len(source.answers), session.run_id,
                      stopping=session.stopping, bar=session.bar)  # fmt: skip
        cli.log.info("%s new raw answers, %s known or unreadable", taken.new, taken.left_out)
    if session.args.rescan:
        taken = adopt_strays(db, workspace, find_strays(db, workspace), session.run_id)
        cli.log.info("%s raw answers had no row", taken.new)
    if session.args.retry_failed:
        answers.retry_failed(db)
    return answers.iter_pending(db), answers.count_pending(db)


def preview_answers(session: cli.Session, source: Source | None) -> tuple[Iterator[Answer], int]:
    """The same answers, without giving a row to anything."""
    from itertools import chain

    from lib.db import ingest as answers
    from lib.raw_files import find_strays, would_adopt

    db, found = session.db, list(source.answers if source else ())
    if session.args.rescan:
        found += find_strays(db, session.workspace)
    parts = [answers.iter_pending(db), would_adopt(db, found)]
    total = answers.count_pending(db) + len(found)
    if session.args.retry_failed:
        parts.append(answers.iter_failed(db))
        total += answers.count_failed(db)
    return chain(*parts), total


if __name__ == "__main__":
    sys.exit(main())
