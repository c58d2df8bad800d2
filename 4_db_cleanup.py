"""Takes broken addresses, repeated ones and rows that belong to nothing out of the database; all of it can be undone.

Reads   images, image_variants, results, downloads
Writes  a checked copy in backups/ first; then the rows leave, each archived in the journal; reports/cleanup.html

Examples
    python 4_db_cleanup.py --dry-run
    python 4_db_cleanup.py
    python 4_db_cleanup.py --rule dead_host --blocklist blocked.txt
    python 4_db_cleanup.py --list-rules
    python 4_db_cleanup.py --forget-query 3
    python 4_db_cleanup.py --undo last
    python 4_db_cleanup.py --restore last
    python 4_db_cleanup.py --vacuum
    python 4_db_cleanup.py --reset hashes

A picture that has been downloaded is never taken out. Where there is nothing to do, no backup is made.

Next    python 5_download.py
"""

from __future__ import annotations

from lib import cli  # isort: skip  (first of all: from here on a Ctrl-C is a sentence)
import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from lib.cleanup.options import options_from
from lib.journal import RULE_NAMES, RULES
from lib.workspace import Workspace


def build_parser() -> argparse.ArgumentParser:
    # fmt: off
    made = cli.parser(__doc__, "cleanup")
    add = made.add_argument_group("rules").add_argument
    add("--rule",         choices=RULE_NAMES, nargs="+", metavar="NAME",
                          help="apply these rules only (default: all but those to be named)")
    add("--list-rules",   action="store_true", help="show the rules and exit")
    add("--blocklist",    type=Path, metavar="FILE", help="take out what is on these domains (rule blocked_domain)")
    add("--allowlist",    type=Path, metavar="FILE",
                          help="take out pictures that are on no domain of this list (rule blocked_domain)")
    add("--min-side",     type=cli.whole, default=0, metavar="PIXELS", help="the short side for the rule small_claim")
    add("--languages",    nargs="+", metavar="NAME",
                          help="languages that are wanted, such as en ru, for the rule wrong_language")
    add("--examples",     type=cli.whole, metavar="N", help="rows shown of each rule (default: 10 in all, -v: of each)")
    add = made.add_argument_group("backups and other jobs").add_argument
    add("--keep",         type=cli.positive, default=5, metavar="N", help="backups kept, the newest ones (default: 5)")
    add("--forget-query", type=cli.positive, metavar="ID", help="take out a search and what it alone has shown")
    add("--restore",      metavar="BACKUP|last", help="put a backup back, after a backup of what is there now")
    add("--vacuum",       action="store_true", help="make the file smaller where a tenth of it or more is unused")
    add("--reset",        choices=("downloads", "hashes", "scores", "everything"), help="start a part anew; files stay")
    add("--yes",          metavar="NAME", default="", help="the workspace's name, for --reset everything in scripts")
    cli.add_dry_run(made)
    cli.add_undo(made)
    cli.add_page(made)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(build_parser(), argv, work, check=check, needs="1_collect.py", alone=True, before=rescue)


def check(args: argparse.Namespace) -> None:
    if args.list_rules:  # like --help: no workspace is needed for that
        rules = [dataclasses.asdict(rule) for rule in RULES]
        shown = cli.envelope(args.step, 0, args.dry_run, cli.EXIT_OK, {"rules": len(rules)}, {"rules": rules})
        print(json.dumps(shown, ensure_ascii=False) if args.json else "\n".join(map(str, RULES)))
        raise SystemExit(0)
    jobs = ("rule", "forget_query", "restore", "vacuum", "reset", "undo")
    if len(given := [f"--{name.replace('_', '-')}" for name in jobs if getattr(args, name)]) > 1:
        raise cli.UsageError(f"{' and '.join(given)} are different jobs; give one of them.")
    if not args.dry_run:
        from lib.cleanup.run import check_preconditions

        check_preconditions(Workspace(args.workspace), options_from(args), can_ask=sys.stdin.isatty())


def rescue(args: argparse.Namespace) -> bool:
    """Puts a backup where the database cannot be used; true where a dry run then has none to open."""
    from lib.cleanup import run as jobs

    if not args.restore or not (done := jobs.rescue(Workspace(args.workspace), args.restore, dry_run=args.dry_run)):
        return False
    args.rescue = done
    return bool(args.dry_run)


def work(session: cli.Session) -> cli.Summary:
    from lib.cleanup.run import make_smaller, take_back, undo_table

    args = session.args
    if args.restore:
        return restore(session)
    if args.reset:
        return reset(session)
    if args.vacuum:
        counts, note = make_smaller(session.context)
    elif args.undo:
        if not args.json:
            print(undo_table(session.db, session.step, args.undo), end="")
        counts, note = take_back(session.context, session.step, args.undo)
    else:
        return clean(session)
    return cli.Summary(dict(counts), note=note)


def clean(session: cli.Session) -> cli.Summary:
    from lib.cleanup.page import cleanup_rules, write_cleanup_page
    from lib.cleanup.run import apply, as_json, plan, plan_lines, remarks, select

    cli.require_pictures(session)
    args, db, options, context = session.args, session.db, options_from(session.args), session.context
    selection = select(options)
    found = plan(db, selection, options.forget_query)
    if not args.json:
        cli.say(plan_lines(db, found, options.shown, context.dry_run, options.most_lines(session.most_lines)))
    rules = cleanup_rules(db, session.workspace, found)  # of what has gone nothing could be shown
    backup = apply(context, found, options.keep)
    counts = {"rows": len(found), **found.by_rule()}
    notes = list(remarks(db, found, selection))
    details = as_json(found, options.shown, backup) if args.json else {}
    if backup or (context.dry_run and session.shows_page):
        command = session.again("dry_run", "page") if context.dry_run else session.way_back(session.run_id)
        details["page"] = write_cleanup_page(context, args.page, rules, notes, command)
        notes.append(f"page: {details['page']}")
    return cli.Summary(dict(counts), next="python 5_download.py", note="; ".join(notes), details=details)


def restore(session: cli.Session) -> cli.Summary:
    from lib.cleanup import run as jobs

    if done := getattr(session.args, "rescue", None):
        note = f"what could not be used: {done.aside}" if done.aside else ""
        return cli.Summary({"restored": done.chosen.name}, note=note)
    restored, note, session.run_id = jobs.restore(session.context, session.args.restore, session.args.keep)
    return cli.Summary({"restored": restored}, note=note)


def reset(session: cli.Session) -> cli.Summary:
    from lib.cleanup import run as jobs

    args = session.args
    found, lines = jobs.plan_reset(session.db, args.reset, options_from(args).shown)
    if not args.json:
        cli.say(lines, options_from(args).most_lines(session.most_lines))
    note = ""
    if found and not session.dry_run:
        if args.reset == "everything":
            jobs.confirm(session.workspace, args.yes, ask=input)
        note = f"backup: {jobs.reset(session.context, args.reset, args.keep)}"
    return cli.Summary({"rows": sum(found.values()), **found}, note=note, result={"plan": lines})


if __name__ == "__main__":
    sys.exit(main())
