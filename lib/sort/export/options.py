"""The flags of an export and the frozen options that they describe."""

from __future__ import annotations

import hashlib
import os
import re
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lib.arguments import positive, whole
from lib.db.where import Condition, criterion_of, parse_where
from lib.errors import UsageError
from lib.work.stream import Parallelism

SIDES = ("train", "val", "test")
FORMS = ("imagefolder", "webdataset", "parquet")
CONVERSIONS = ("jpeg", "png", "webp")
ENCODINGS = {"jpg": "jpeg", "jpeg": "jpeg", "png": "png", "webp": "webp"}
RESIZE_MODES = ("keep-ratio", "center-crop", "border")
REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")


@dataclass(frozen=True)
class Shares:
    """Parts of the whole for train, val and test; they add up to 1."""

    values: tuple[float, float, float]

    @property
    def version(self) -> str:
        return "/".join(f"{value:g}" for value in self.values)

    @property
    def are_several(self) -> bool:
        return sum(value > 0 for value in self.values) > 1

    def side(self, key: str) -> str:
        """The side of a group, by the digest of its name alone: other pictures have no say in it."""
        place = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64
        for name, part in zip(SIDES, self.values, strict=True):
            place -= part
            if place < 0:
                return name
        return SIDES[0]


@dataclass(frozen=True)
class Encoding:
    """The way in which pictures are written anew: jpeg, png or webp, all of them at a new size where `side` is given.

    `side` is in pixels; `quality` is 1 to 100, of PNG the compression from 0 to 9.
    """

    form: str
    side: int | None = None
    mode: str = "keep-ratio"
    only_if_bigger: bool = False
    quality: int | None = None


@dataclass(frozen=True)
class ExportOptions:
    """An export as it was asked for. `place` is where the dataset will lie.

    `take` is the number of pictures that are wanted, chosen by `seed`; with `balance` as many of each label.
    """

    place: Path
    form: str
    shares: Shares
    where: Condition | None
    folders: Sequence[Path]
    limit: int | None
    mode: str
    label: str | None
    shard_bytes: int
    parquet_pictures: str
    title: str | None
    replace: bool
    encoding: Encoding | None
    caption: str | None
    take: int | None
    balance: bool
    seed: int
    push: str | None
    public: bool
    spread: Parallelism


def add_export_flags(made: ArgumentParser) -> None:
    """Adds the flags of exports, in a group of their own."""
    add = made.add_argument_group("export").add_argument
    add("--to", type=Path, metavar="DIR", help="where the dataset is put (default: WORKSPACE/export)")
    shown = "the form: files, tar shards, or Parquet (default: imagefolder)"
    add("--as", dest="form", choices=FORMS, default="imagefolder", help=shown)
    shown = "shares of the whole; repeats stay on one side, in every export the same (default: 80,10,10)"
    add("--split", default="80,10,10", metavar="TRAIN,VAL,TEST", help=shown)
    shown = """a column label of this criterion, a class in Parquet; in imagefolder a folder for each label too"""
    add("--label", metavar="CRITERION", help=shown)
    shown = """a column caption, and webdataset's .txt: title, label (of --label), or another column
        (default: title in webdataset, none elsewhere)"""
    add("--caption", metavar="title|label|COLUMN", help=shown)
    shown = "exactly so many pictures, the same ones each time (default: all)"
    add("--take", type=positive, metavar="N", help=shown)
    add("--balance", action="store_true", help="with --take: as many of each label of --label")
    add("--seed", type=whole, default=0, metavar="N", help="another choice of --take (default: 0)")
    add("--shard-size", type=megabytes, default=500_000_000, metavar="MB", help="size of a shard (default: 500 MB)")
    shown = "Parquet holds the pictures, or their paths (default: embed)"
    add("--parquet-pictures", choices=("embed", "reference"), default="embed", help=shown)
    shown = "what loaders may not open (HEIC, AVIF, JPEG XL, JPEG 2000) is written in this format (default: as it is)"
    add("--convert", choices=CONVERSIONS, help=shown)
    shown = "write every picture anew, this large: the shorter side, or the longer one with border (default: as it is)"
    add("--resize", type=between_sides, metavar="PIXELS", help=shown)
    shown = "with --resize: keep the ratio, cut out the middle square, or pad to a square (default: keep-ratio)"
    add("--resize-mode", choices=RESIZE_MODES, default="keep-ratio", help=shown)
    add("--resize-only-if-bigger", action="store_true", help="with --resize: let smaller pictures keep their size")
    shown = "with --resize: the format of all pictures (default: jpg)"
    add("--encode-format", choices=tuple(ENCODINGS), metavar="jpg|png|webp", help=shown)
    shown = "with --resize: 1 to 100, of PNG the compression, 0 to 9 (default: 95, PNG 6)"
    add("--encode-quality", type=whole, metavar="N", help=shown)
    add("--title", metavar="TEXT", help="the dataset's name on its card (default: the folder's)")
    add("--replace", action="store_true", help="an older dataset in that place goes to the quarantine")
    shown = """then send it to the Hugging Face hub, by its own client and with its login or HF_TOKEN; private, and the
        same command again continues (default: it stays here)"""
    add("--push", metavar="USER/NAME", help=shown)
    add("--public", action="store_true", help="with --push: for everybody to see")
    shown = """export nothing: take pictures whose owners have opted out since out of all datasets written so far, or of
        that of --to"""
    add("--drop-opted-out", action="store_true", help=shown)


def between_sides(text: str) -> int:
    """A side of a resized picture, in pixels."""
    value = positive(text)
    if not 8 <= value <= 8192:
        raise ArgumentTypeError(f"{text!r} is no number of pixels from 8 to 8192")
    return value


def megabytes(text: str) -> int:
    """A size in megabytes, as bytes."""
    return positive(text) * 1_000_000


def export_options_from(args: Namespace) -> ExportOptions:
    """The export that the flags describe. Raises UsageError where they contradict each other."""
    shares = parse_shares(args.split)
    if args.drop_opted_out and args.folders:
        raise UsageError("--drop-opted-out takes no folders; name a dataset by --to, or none for all of them.")
    if args.mode == "move":
        raise UsageError("export copies pictures and never moves them; use --mode copy, hardlink or symlink.")
    if args.balance and not (args.take and args.label):
        raise UsageError("--balance shares --take among the labels of --label; give both of them.")
    if args.public and not args.push:
        raise UsageError("--public belongs to --push; give both.")
    if args.push and args.drop_opted_out:
        raise UsageError("--drop-opted-out exports nothing that could be pushed; push the dataset afterwards.")
    if args.push and not REPOSITORY.fullmatch(args.push):
        raise UsageError(f"--push {args.push!r} is no name of a repository; write USER/NAME.")
    encoding = _encoding(args)
    if encoding and args.form == "parquet" and args.parquet_pictures == "reference":
        raise UsageError("what is written anew has no path that stays; use --parquet-pictures embed.")
    return ExportOptions(
        place=args.to or args.workspace / "export",
        form=args.form,
        shares=shares,
        where=parse_where(args.where) if args.where else None,
        folders=absolute(args.folders),
        limit=args.limit,
        mode=args.mode,
        label=criterion_of(args.label) if args.label else None,
        shard_bytes=args.shard_size,
        parquet_pictures=args.parquet_pictures,
        title=args.title,
        replace=args.replace,
        encoding=encoding,
        caption=args.caption or ("title" if args.form == "webdataset" else None),
        take=args.take,
        balance=args.balance,
        seed=args.seed,
        push=args.push,
        public=args.public,
        spread=Parallelism(args.executor, args.workers),
    )


def _encoding(args: Namespace) -> Encoding | None:
    """The way in which pictures are written anew. Raises UsageError for flags that have no meaning without it."""
    if not args.resize:
        lone = {
            "--resize-mode": args.resize_mode != RESIZE_MODES[0],
            "--resize-only-if-bigger": args.resize_only_if_bigger,
            "--encode-format": args.encode_format,
            "--encode-quality": args.encode_quality is not None,
        }
        if given := next((flag for flag, is_given in lone.items() if is_given), ""):
            raise UsageError(f"{given} belongs to --resize; give both.")
        return Encoding(args.convert) if args.convert else None
    if args.convert:
        raise UsageError(
            "--resize writes every picture anew; name the format by --encode-format in place of --convert."
        )
    form, quality = ENCODINGS[args.encode_format or "jpg"], args.encode_quality
    least, most = (0, 9) if form == "png" else (1, 100)
    if quality is not None and not least <= quality <= most:
        raise UsageError(f"--encode-quality {quality} is not from {least} to {most}, which {form} has.")
    return Encoding(form, args.resize, args.resize_mode, args.resize_only_if_bigger, quality)


def parse_shares(text: str) -> Shares:
    """Shares written as 80,10,10 or 0.9,0.1. Raises UsageError."""
    try:
        parts = [float(part) for part in text.split(",")]
    except ValueError:
        parts = []
    if not 1 <= len(parts) <= 3 or min(parts) < 0 or sum(parts) <= 0:
        raise UsageError(f"--split {text!r} is no list of shares; write train,val,test such as 80,10,10.")
    whole = sum(parts)
    first, second, third = [part / whole for part in parts] + [0.0] * (3 - len(parts))
    return Shares((first, second, third))


def absolute(folders: Sequence[Path]) -> list[Path]:
    """Returns folders as they are named from anywhere."""
    return [Path(os.path.abspath(folder)) for folder in folders]
