"""Search by pictures or keywords and keep every raw answer.

Reads   query pictures of any format, or keywords; without either, the queue of earlier runs
Writes  xhr/<engine>/<query>/<page>.html|json and the tables queries and responses

Examples
    python 1_collect.py --images photos/ --max-pages 3
    python 1_collect.py --images cat.jpg dog.png --host yandex.ru
    python 1_collect.py --keywords "wooden boat" lighthouse --max-results 200
    python 1_collect.py --keywords-file words.txt --dry-run
    python 1_collect.py --list
    python 1_collect.py --retry network

Running the same command again goes on where it stopped. A captcha stops the engine (exit code 4) and keeps its queue;
it is never taken for an empty result, and never solved or dodged.

Terms   Yandex asks that automatic queries go through its paid Search API, which this is not. Prefer an official or open
        API, keep the pace low, and search this way only where you have the right to.

Next    python 2_ingest_db.py
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from lib import cli
from lib.engines import DEFAULT, NAMES
from lib.errors import UsageError
from lib.records import OUTCOMES

NOTHING = "nothing to search: what was asked for ended before (see --list, --retry), and nothing else is queued"


def build_parser() -> argparse.ArgumentParser:
    made = cli.parser(__doc__, "collect")
    cli.add_dry_run(made)
    cli.add_limit(made, "queries")
    what = made.add_argument_group("what to search for")
    what.add_argument("--images", nargs="+", type=Path, metavar="PATH", help="query pictures, or folders of them")
    what.add_argument("--keywords", nargs="+", metavar="WORD", help="keywords; quote those of several words")
    what.add_argument("--keywords-file", type=Path, metavar="FILE", help="keywords, one a line, UTF-8")
    what.add_argument("--engine", choices=NAMES, default=DEFAULT, help=f"where (default: {DEFAULT})")
    what.add_argument(
        "--host",
        type=host,
        metavar="HOST",
        help="a host such as yandex.ru or http://127.0.0.1:8080 (default: the engine's own, with fallback)",
    )
    far = made.add_argument_group("how far")
    far.add_argument(
        "--max-pages", type=cli.positive, metavar="N", help="pages of a query (default: the engine's, 5 for yandex)"
    )
    far.add_argument(
        "--max-results", type=cli.positive, metavar="N", help="stop a query after the page that reaches N results"
    )
    how = made.add_argument_group("how")
    how.add_argument(
        "--pace",
        type=seconds,
        metavar="SECONDS",
        help="between two requests, jitter comes on top (default: 5 for yandex, 0 for this machine)",
    )
    how.add_argument("--i-am-allowed", action="store_true", help="let --pace be faster than the default")
    how.add_argument("--timeout", type=seconds, default=30.0, metavar="SECONDS", help="for one request (default: 30)")
    how.add_argument(
        "--contexts",
        type=cli.positive,
        default=1,
        metavar="N",
        help="searches at once in one browser; they share the pace (default: 1)",
    )
    how.add_argument("--headed", action="store_true", help="show the browser's window")
    how.add_argument(
        "--proxy", metavar="URL", help="http://HOST:PORT or socks5://HOST:PORT; a password only in GLEANER_PROXY"
    )
    queue = made.add_argument_group("the queue")
    queue.add_argument("--list", action="store_true", help="show all queries with state and outcome, then exit")
    queue.add_argument(
        "--retry",
        choices=OUTCOMES,
        metavar="OUTCOME",
        help="queue the queries again that ended so: " + ", ".join(OUTCOMES),
    )
    return made


def host(text: str) -> str:
    """The address of a host."""
    from lib.collecting.intake import clean_host

    try:
        return clean_host(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def seconds(text: str) -> float:
    """A number of seconds from 0 to a day."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds") from None
    if not 0 <= value <= 86_400:
        raise argparse.ArgumentTypeError(f"{text!r} is not between 0 and 86400 seconds")
    return value


def check(args: argparse.Namespace) -> None:
    """The rules across flags."""
    from lib.collecting.job import check_pace

    if args.timeout <= 0:
        raise UsageError("--timeout must be more than 0 seconds.")
    check_pace(args)


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(build_parser(), argv, work, check=check)


def work(session: cli.Session) -> cli.Summary:
    from lib.collecting.job import Job, summarise, table_lines, verdict
    from lib.db.queries import list_queries
    from lib.engines import load_engine

    args = session.args
    if args.list:
        rows = list_queries(session.db, [args.engine])
        if not args.json:
            print("\n".join(map(cli.clean, table_lines(rows))))
        return cli.Summary({"queries": len(rows)}, result=rows)
    job = Job(args, session.workspace, session.db, load_engine(args.engine))
    if session.dry_run:
        planned = job.plan()
        if not args.json:
            print("\n".join(cli.clean(plan.line) for plan in planned) or "Would search nothing: the queue is empty")
        return cli.Summary({"queries": len(planned)}, result=[plan.line for plan in planned])
    found = job.run(job.options(), session.run_id, session.stopping, session.bar)
    for problem in job.problems:
        cli.log.warning("%s", problem)
    exit_code, sentence = verdict(job.engine, found, session.db)
    if sentence:
        cli.log.error("%s", sentence)
    counts = summarise(found, job.problems)
    note = "" if counts["queries"] or sentence or session.stopping() else NOTHING
    following = "" if sentence and not found.pages else "python 2_ingest_db.py"
    return cli.Summary(counts, next=following, exit_code=exit_code, note=note)


if __name__ == "__main__":
    sys.exit(main())
