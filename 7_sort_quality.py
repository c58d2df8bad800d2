"""Sorts pictures by size, quality, prompts or topic into folders that load as a dataset.

Reads   files, scores and labels in the database; pictures in the workspace, or in the folders named after CRITERION
Writes  sorted/<criterion>/<bucket>/ with metadata.jsonl, scores and labels, the journal, reports/sort_<criterion>.*

Pictures are copied by default, so that nothing changes where they were. A hard link takes no room, but is the same
file: an edit shows in both places. Running again with other thresholds measures nothing anew; pictures whose bucket
changed move over. The technical score finds defects (blurry, noisy, blocky, dark, upscaled, ...); it is no opinion.

CRITERION is one of these; 7_sort_quality.py CRITERION --help shows its flags
    orientation   landscape, portrait or square
    megapixels    by size, in fixed, coarse, stepped or equally filled buckets
    quality       high, medium or low, by the technical score or by metrics of pyiqa
    filter        keep or drop by prompts and by likeness to the query picture, or labels of one's own
    topic         clusters of each query, and which of them are the query's subject
    objects       keep or drop by what a detector finds
    vlm           keep or drop by what a vision model answers
    export        no criterion: makes a dataset of what others kept

Examples
    python 7_sort_quality.py orientation --dry-run
    python 7_sort_quality.py megapixels --edges 0.5,2,8 --mode hardlink
    python 7_sort_quality.py quality --high 75 --medium 50
    python 7_sort_quality.py quality --metric musiq,clipiqa --combine min --models-dir weights
    python 7_sort_quality.py quality holiday/ --where "orientation = landscape" --dry-run
    python 7_sort_quality.py filter --keep "an indoor room" --drop "a floor plan" --margin 0.02
    python 7_sort_quality.py filter --name clutter --keep "a tidy room" --drop "a heap of things"
    python 7_sort_quality.py topic --where "quality != low"
    python 7_sort_quality.py objects --classes person,dog --min-objects 2
    python 7_sort_quality.py vlm --vlm-model qwen2.5vl --subject "mountain lakes" --max-images 200
    python 7_sort_quality.py export --as webdataset --where "quality = high and topic = on_topic" --split 90,5,5
    python 7_sort_quality.py export --as webdataset --resize 256 --resize-mode center-crop --caption title
    python 7_sort_quality.py export --label quality --take 1000 --balance --push ann/lakes --dry-run
    python 7_sort_quality.py export --drop-opted-out --dry-run
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
from lib.sort.export.options import export_options_from
from lib.sort.options import (
    CRITERIA,
    EXPORT,
    MODES,
    add_options,
    refuse_foreign,
    show_own_help,
    sort_options_from,
)


def build_parser() -> argparse.ArgumentParser:
    made = cli.parser(__doc__, "sort")
    add = made.add_argument
    known = (*CRITERIA, EXPORT)
    add("criterion", nargs="?", choices=known, metavar="CRITERION", help=", ".join(known))
    shown = "sort the pictures below these folders, named right after CRITERION (default: the workspace's)"
    add("folders", nargs="*", type=Path, metavar="FOLDER", help=shown)
    cli.add_dry_run(made)
    cli.add_limit(made, "pictures")
    cli.add_workers(made)
    cli.add_executor(made)
    cli.add_undo(made)
    cli.add_page(made)
    add("--mode", choices=MODES, default="copy", help="how pictures get into sorted/ (default: copy)")
    shown = "sort only pictures that earlier labels pick: quality = high and orientation in (landscape, square)"
    add("--where", metavar="CONDITION", help=shown)
    shown = "what is printed: the buckets, or the pictures, which --json lists too (default: text)"
    add("--format", choices=("text", "csv", "json"), default="text", metavar="text|csv", help=shown)
    add_options(made)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    words = sys.argv[1:] if argv is None else argv
    made = build_parser()
    show_own_help(made, words)

    def check_all(args: argparse.Namespace) -> None:
        if args.criterion:
            refuse_foreign(made, words, args.criterion)
        check(args)

    return cli.run(made, argv, work, check=check_all, alone=True)


def check(args: argparse.Namespace) -> None:
    """The rules across flags; nothing has been touched yet."""
    from lib.workspace import Workspace

    if args.undo:
        return
    if args.criterion is None:
        raise UsageError(f"say what to sort by: {', '.join(CRITERIA)}; or {EXPORT}.")
    if args.page and args.criterion == EXPORT:
        raise UsageError("--page is for the page of a criterion; an export makes none.")
    export_options_from(args) if args.criterion == EXPORT else sort_options_from(args)
    for folder in args.folders:
        if not folder.exists():
            raise UsageError(f"{folder} does not exist; give a folder of pictures.")
    if not args.folders and not Workspace(args.workspace).database.exists():
        raise UsageError(f"there is no database in {args.workspace}; run 5_download.py first.")


def work(session: cli.Session) -> cli.Summary:
    from lib.sort.export.building import finish_exports
    from lib.sort.export.run import Export, OptOuts
    from lib.sort.run import Sorting, as_result, finish, finish_interrupted, pictures, preview, shown, undo
    from lib.sort.sheet import Offer

    context, args = session.context, session.args
    if not context.dry_run:
        finish_exports(context)
        finish_interrupted(context)
    if args.undo:
        return cli.Summary(dict(undo(context, args.undo)))
    if args.criterion == EXPORT and args.drop_opted_out:
        told = OptOuts(context, args.to)
        told.run()
        if not args.json:
            cli.say(told.lines(), session.most_lines)
        return cli.Summary(told.counts(), details={"datasets": told.found})
    if args.criterion == EXPORT:
        export = Export(context, export_options_from(args))
        note = export.run()
        return cli.Summary(export.counts(), note=note)
    options = sort_options_from(args)
    options.criterion.preflight()  # weights are looked for before anything else is done
    run = Sorting(context, options)
    run.prepare()
    offer = Offer(args.page, session.again("dry_run", "page") if context.dry_run else "", session.way_back)
    page = (preview if context.dry_run else finish)(run, offer) if run.complete and session.shows_page else None
    if not args.json and not context.stopping():
        if args.format == "json":  # the pictures of --json alone
            cli.print_json(session, pictures(run))
        else:
            for line in shown(run, as_csv=args.format == "csv", most=session.most_lines):
                print(line)
    why = run.why_nothing_was_sorted
    note = "; ".join(filter(None, (why, f"page: {page}" if page else "")))
    return cli.Summary(run.counts(), next=None if why else "", note=note, result=as_result(run), details={"page": page})


if __name__ == "__main__":
    sys.exit(main())
