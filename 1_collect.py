"""Search by pictures or keywords and keep every raw answer.

Reads   query pictures of any format, or keywords; without either, the queue of earlier runs
Writes  xhr/<engine>/<query>/<page>.html|json and the tables queries and responses

Examples
    python 1_collect.py --keywords "wooden boat" lighthouse --engine openverse commons
    python 1_collect.py --images photos/ --max-pages 3
    python 1_collect.py --images cat.jpg dog.png --host yandex.ru
    python 1_collect.py --keywords boat --engine bing --size large --max-results 200
    python 1_collect.py --keywords-file words.txt --dry-run
    python 1_collect.py --headed --pause-on-captcha
    python 1_collect.py --replay saved.har --engine yandex --keywords boat
    python 1_collect.py --expand 10
    python 1_collect.py --list
    python 1_collect.py --retry network

Running the same command again goes on where it stopped. A captcha stops that engine (exit code 4) and keeps its queue;
it is never taken for an empty result, and never solved or dodged.

Terms   Prefer openverse and commons, which are open, then yandex-cloud and naver-api, which are official and keyed.
        The other sources' terms do not allow automated queries without consent: keep the pace low, and search this way
        only where you have the right to.

Next    python 2_ingest_db.py
"""

from __future__ import annotations

from lib import cli  # isort: skip  (first of all: from here on a Ctrl-C is a sentence)
import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from lib.collect.options import add_options, options_from
from lib.collect.options import check as check_options

if TYPE_CHECKING:
    from lib.collect.options import CollectOptions
    from lib.collect.run import CollectReport

NOTHING = "nothing to search: what was asked for ended before (see --list, --retry), and nothing else is queued"
INGEST = "python 2_ingest_db.py"


def build_parser() -> argparse.ArgumentParser:
    made = cli.parser(__doc__, "collect")
    cli.add_dry_run(made)
    cli.add_limit(made, "queries an engine")
    add_options(made)
    return made


def check(args: argparse.Namespace) -> None:
    """The rules across flags."""
    from lib.collect.preconditions import check_before
    from lib.workspace import Workspace

    options = options_from(args)
    check_options(options)
    check_before(options, Workspace(args.workspace), args.dry_run)


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(build_parser(), argv, work, check=check)


def work(session: cli.Session) -> cli.Summary:
    options = options_from(session.args)
    if options.list or options.drift:
        return show(session, options)
    if options.expand:
        return expand(session, options, options.expand)
    if options.replay:
        return replay(session, options, options.replay)
    return search(session, options)


def search(session: cli.Session, options: CollectOptions) -> cli.Summary:
    """Searches, or says what would be searched."""
    from lib.collect.run import Collection

    everything = Collection(session.context, options)
    if session.dry_run:
        made = preview(session, "queries", everything.preview(), "Would search nothing: the queue is empty")
        made.next = made.next if everything.has_work else None
        return made
    ended = everything.run()
    note = "" if ended.counts["queries"] or ended.sentences or session.stopping() else NOTHING
    return summary(ended, INGEST if ended.counts["pages"] else "", note)


def replay(session: cli.Session, options: CollectOptions, path: Path) -> cli.Summary:
    """Answers captured elsewhere, judged and kept as if they had been fetched."""
    from lib.collect.replay import Replay

    captured = Replay(session.context, options, path)
    if session.dry_run:
        return preview(session, "pages", captured.preview())
    ended = captured.run()
    return summary(ended, INGEST if ended.counts["pages"] else "")


def preview(session: cli.Session, name: str, lines: list[str], nothing: str = "") -> cli.Summary:
    if not session.args.json:
        cli.say(lines or [nothing], session.most_lines)
    return cli.Summary({name: len(lines)}, result={"plan": lines})


def summary(ended: CollectReport, following: str, note: str = "") -> cli.Summary:
    for problem in ended.warnings:
        cli.log.warning("%s", problem)
    for sentence in ended.sentences:
        cli.log.error("%s", sentence)
    notes = "\n".join(filter(None, (*ended.notes, note)))
    return cli.Summary(ended.counts, following, ended.exit_code, notes, ended.result)


def show(session: cli.Session, options: CollectOptions) -> cli.Summary:
    """The queue, or how the answers' shape has changed."""
    from lib.collect.show import drift_lines, drift_rows, queue_lines, queue_rows

    if options.drift:
        name, rows = "runs", drift_rows(session.db, options.engine)
        say(session, drift_lines(rows))
    else:
        name, rows = "queries", queue_rows(session.db, options.engine)
        say(session, queue_lines(rows))
    return cli.Summary({name: len(rows)}, result={name: rows})


def expand(session: cli.Session, options: CollectOptions, most: int) -> cli.Summary:
    """Keywords that the titles found so far suggest."""
    from lib.collect.expand import Expansion, proposal_lines

    found = Expansion(session.context, options, most)
    proposed = found.propose()
    say(session, proposal_lines(proposed))
    queued = 0 if session.dry_run or not options.yes else found.queue(proposed)
    following = "python 1_collect.py" if options.yes else found.command()
    counts: dict[str, int | float | str] = {"proposed": len(proposed), "queued": queued}
    rows = [asdict(proposal) for proposal in proposed]
    return cli.Summary(counts, next=following if proposed else "", result={"proposed": rows, "queued": queued})


def say(session: cli.Session, lines: Sequence[str]) -> None:
    """The result, as text; `--json` prints it by itself."""
    if not session.args.json:
        cli.say(lines)


if __name__ == "__main__":
    sys.exit(main())
