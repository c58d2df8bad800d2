"""Step 7's flags for `export`, and the rules across them."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from lib.converters import positive
from lib.errors import UsageError
from lib.export.split import parse_shares

FORMS = ("imagefolder", "webdataset", "parquet")


def add_export_options(to: ArgumentParser) -> None:
    """Where a dataset goes, in which form, and how it is split."""
    group = to.add_argument_group("export")
    group.add_argument("--to", type=Path, metavar="DIR", help="where the dataset is put (default: WORKSPACE/export)")
    group.add_argument(
        "--as",
        dest="form",
        choices=FORMS,
        default="imagefolder",
        help="the form: files, tar shards, or Parquet (default: imagefolder)",
    )
    group.add_argument(
        "--split",
        default="80,10,10",
        metavar="TRAIN,VAL,TEST",
        help="shares of the whole; repeats stay on one side, in every export the same (default: 80,10,10)",
    )
    group.add_argument("--label", metavar="CRITERION", help="imagefolder: a folder for each label of this criterion")
    group.add_argument(
        "--shard-size", type=megabytes, default=500_000_000, metavar="MB", help="size of a shard (default: 500 MB)"
    )
    group.add_argument(
        "--parquet-pictures",
        choices=("embed", "reference"),
        default="embed",
        help="Parquet holds the pictures, or their paths (default: embed)",
    )
    group.add_argument("--title", metavar="TEXT", help="the dataset's name on its card (default: the folder's)")
    group.add_argument("--replace", action="store_true", help="an older dataset in that place goes to the quarantine")


def check_export(args: Namespace) -> None:
    """Raises UsageError where flags contradict each other."""
    parse_shares(args.split)
    if args.mode == "move":
        raise UsageError("export copies pictures and never moves them; use --mode copy, hardlink or symlink.")
    if args.label and args.form != "imagefolder":
        raise UsageError(
            "--label makes folders, which only --as imagefolder has; the others have all labels as columns."
        )


def make_export(session: Any) -> Any:
    """The export that a session's flags describe."""
    from lib.db.where import parse_where
    from lib.export.run import Export

    args = session.args
    where = parse_where(args.where) if args.where else None
    place = args.to or session.workspace.root / "export"
    return Export(
        args, session.db, session.workspace, session.run_id, session.stopping, session.bar, place,
        parse_shares(args.split), where,
    )  # fmt: skip


def megabytes(text: str) -> int:
    """A size in megabytes, as bytes."""
    return positive(text) * 1_000_000
