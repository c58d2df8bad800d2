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

from lib.collect import options

NOTHING = "nothing to search: what was asked for ended before (see --list, --retry), and nothing else is queued"
INGEST = "python 2_ingest_db.py"


def build_parser() -> argparse.ArgumentParser:
    made = cli.parser(__doc__, "collect")
    cli.add_dry_run(made)
    cli.add_limit(made, "queries an engine")
    options.add_options(made, cli.positive)
    return made


def check(args: argparse.Namespace) -> None:
    """The rules across flags."""
    from lib.collect.preconditions import check_before

    options.check(args)
    check_before(args)


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(build_parser(), argv, work, check=check)


def work(session: cli.Session) -> cli.Summary:
    args = session.args
    if args.list or args.drift:
        return show(session)
    if args.expand:
        return expand(session)
    if args.replay:
        return replay(session)
    return search(session)


def search(session: cli.Session) -> cli.Summary:
    """Searches, or says what would be searched."""
    from lib.collect.run import Collection

    everything = Collection(session.args, session.workspace, session.db)
    if session.dry_run:
        lines = everything.preview()
        say(session, lines or ["Would search nothing: the queue is empty"])
        return cli.Summary({"queries": len(lines)}, result={"plan": lines})
    ended = everything.run(session.run_id, session.stopping, session.bar)
    for problem in ended.warnings:
        cli.log.warning("%s", problem)
    for sentence in ended.sentences:
        cli.log.error("%s", sentence)
    note = "" if ended.counts["queries"] or ended.sentences or session.stopping() else NOTHING
    following = INGEST if ended.counts["pages"] or not (ended.sentences or note) else ""
    return cli.Summary(ended.counts, next=following, exit_code=ended.exit_code, note=note)


def show(session: cli.Session) -> cli.Summary:
    """The queue, or how the answers' shape has changed."""
    from lib.collect.show import drift_lines, drift_rows, queue_lines, queue_rows

    chosen = session.args.engine
    if session.args.drift:
        rows = drift_rows(session.db, chosen)
        say(session, drift_lines(rows))
        return cli.Summary({"runs": len(rows)}, result={"runs": rows})
    rows = queue_rows(session.db, chosen)
    say(session, queue_lines(rows))
    return cli.Summary({"queries": len(rows)}, result={"queries": rows})


def replay(session: cli.Session) -> cli.Summary:
    """Answers captured elsewhere, judged and kept as if they had been fetched."""
    from lib.collect.replay import Replay

    work = Replay(session.args, session.workspace, session.db)
    if session.dry_run:
        lines = work.preview()
        say(session, lines)
        return cli.Summary({"pages": len(lines)}, result={"plan": lines})
    ended = work.run(session.run_id, session.stopping)
    for problem in ended.warnings:
        cli.log.warning("%s", problem)
    for sentence in ended.sentences:
        cli.log.error("%s", sentence)
    return cli.Summary(ended.counts, next=INGEST if ended.counts["pages"] else "", exit_code=ended.exit_code)


def expand(session: cli.Session) -> cli.Summary:
    """Keywords that the titles found so far suggest."""
    from lib.collect.expand import Expansion

    work = Expansion(session.args, session.db)
    proposed = work.propose()
    say(session, work.lines(proposed))
    queued = 0 if session.dry_run or not session.args.yes else work.queue(proposed, session.run_id)
    following = "python 1_collect.py" if session.args.yes else work.command()
    counts: dict[str, int | float | str] = {"proposed": len(proposed), "queued": queued}
    return cli.Summary(
        counts, next=following if proposed else "", result={"proposed": work.rows(proposed), "queued": queued}
    )


def say(session: cli.Session, lines: Sequence[str]) -> None:
    """The result, as text; `--json` prints it by itself."""
    if not session.args.json:
        print("\n".join(map(cli.clean, lines)))


if __name__ == "__main__":
    sys.exit(main())
