"""Sorts pictures by size, quality, prompts or topic into folders that load as a dataset.

Reads   files, scores and labels in the database; pictures in the workspace, or in the folders named after CRITERION
Writes  sorted/<criterion>/<bucket>/ with metadata.jsonl, scores and labels, the journal, reports/sort_<criterion>.*

Pictures are copied by default, so that nothing changes where they were. A hard link takes no room, but is the same
file: an edit shows in both places. Running again with other thresholds measures nothing anew; pictures whose bucket
changed move over. The technical score finds defects (blurry, noisy, blocky, dark, upscaled, ...); it is no opinion.

Examples
    python 7_sort_quality.py orientation --dry-run
    python 7_sort_quality.py megapixels --edges 0.5,2,8 --mode hardlink
    python 7_sort_quality.py quality --high 75 --medium 50
    python 7_sort_quality.py quality --metric musiq,clipiqa --combine min --models-dir weights
    python 7_sort_quality.py quality holiday/ --where "orientation = landscape" --dry-run
    python 7_sort_quality.py filter --keep "an indoor room" --drop "a floor plan" --margin 0.02
    python 7_sort_quality.py topic --where "quality != low"
    python 7_sort_quality.py objects --classes person,dog --min-objects 2
    python 7_sort_quality.py vlm --vlm-model qwen2.5vl --subject "mountain lakes" --max-images 200
    python 7_sort_quality.py export --as webdataset --where "quality = high and topic = on_topic" --split 90,5,5
    python 7_sort_quality.py --undo last

Next    open reports/index.html, or load a bucket: load_dataset("imagefolder", data_dir="workspace/sorted/quality/high")
"""

from __future__ import annotations

from lib import cli  # isort: skip  (first of all: from here on a Ctrl-C is a sentence)
import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from lib.errors import UsageError
from lib.sort.options import CRITERIA, EXPORT, add_options, check_export, make_criterion, make_export


def build_parser() -> argparse.ArgumentParser:
    made = cli.parser(__doc__, "sort")
    known = (*CRITERIA, EXPORT)
    made.add_argument("criterion", nargs="?", choices=known, metavar="CRITERION", help=", ".join(known))
    made.add_argument(
        "folders",
        nargs="*",
        type=Path,
        metavar="FOLDER",
        help="sort the pictures below these folders, named right after CRITERION (default: the workspace's)",
    )
    cli.add_dry_run(made)
    cli.add_limit(made, "pictures")
    cli.add_workers(made)
    cli.add_executor(made)
    cli.add_undo(made)
    made.add_argument(
        "--mode",
        choices=("copy", "move", "hardlink", "symlink"),
        default="copy",
        help="how pictures get into sorted/ (default: copy)",
    )
    made.add_argument(
        "--where",
        metavar="CONDITION",
        help="sort only pictures that earlier labels pick: quality = high and orientation in (landscape, square)",
    )
    made.add_argument(
        "--format",
        choices=("text", "csv", "json"),
        default="text",
        help="what is printed: the buckets, or the pictures (default: text)",
    )
    add_options(made)
    return made


def check(args: argparse.Namespace) -> None:
    """The rules across flags; nothing has been touched yet."""
    from lib.db.where import parse_where
    from lib.workspace import Workspace

    if args.undo:
        return
    if args.criterion is None:
        raise UsageError(f"say what to sort by: {', '.join(CRITERIA)}; or {EXPORT}.")
    check_export(args) if args.criterion == EXPORT else make_criterion(args)
    if args.where:
        parse_where(args.where)
    for folder in args.folders:
        if not folder.exists():
            raise UsageError(f"{folder} does not exist; give a folder of pictures.")
    if not args.folders and not Workspace(args.workspace).database.exists():
        raise UsageError(f"there is no database in {args.workspace}; run 5_download.py first.")


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(build_parser(), argv, work, check=check, alone=True)


def work(session: cli.Session) -> cli.Summary:
    from lib.db.where import parse_where
    from lib.sort import run as sorting
    from lib.sort.export.settle import settle_exports
    from lib.sort.run import as_result, finish, shown

    if not session.dry_run:
        settle_exports(session.db, session.workspace)
        sorting.settle(session.db, session.workspace, session.run_id)
    if session.args.undo:
        asked, run = session.args.undo, session.run_id
        counts = sorting.undo(
            session.db, session.workspace, asked, before=run, dry_run=session.dry_run, bar=session.bar
        )
        return cli.Summary(dict(counts))
    if session.args.criterion == EXPORT:
        made = make_export(session)
        note = made.run()
        return cli.Summary(made.counts(), note=note)
    criterion = make_criterion(session.args)
    if hasattr(criterion, "preflight"):
        criterion.preflight()  # weights are looked for before anything else is done
    run = sorting.Sorting(
        session.args, session.db, session.workspace, session.run_id, session.dry_run, session.stopping, session.bar,
        criterion, parse_where(session.args.where) if session.args.where else None,
    )  # fmt: skip
    run.prepare()
    note = finish(run) if run.complete and not session.dry_run else ""
    if not session.args.json and not session.stopping():
        for line in shown(run, session.args.format):
            print(line)
    return cli.Summary(run.counts(), note=note, result=as_result(run))


if __name__ == "__main__":
    sys.exit(main())
