"""The rules across the flags of step 6, checked before anything is touched."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from lib.dedup.grouping import STRENGTH
from lib.errors import EXIT_INCOMPLETE, UsageError

MODES = ("exact", "similar", "filename", "semantic", "all")
KINDS = (*STRENGTH, "none")
KEEP = ("best", "largest", "oldest", "newest", "first")
HASHES = ("dct", "phash", "dhash", "ahash", "whash")
EXIT_LEAK = EXIT_INCOMPLETE  # finished, but what was asked for does not hold
REMOVED = ("bytes", "pixels", "same")


def check(args: Namespace) -> None:
    """Sorts the words into mode and folders. Raises UsageError, naming the flag and the remedy."""
    leading = args.what[0] if args.what and args.what[0] in MODES else None
    if leading and args.mode and leading != args.mode:
        raise UsageError(f"the modes {leading} and --mode {args.mode} contradict each other; give one of them.")
    args.folders = [Path(word) for word in args.what[1 if leading else 0 :]]
    args.mode = leading or args.mode or "all"
    _check_places(args)
    if args.plan and args.dry_run:
        raise UsageError("--plan writes a file and a dry run writes nothing; leave one of them out.")
    _check_leak(args)
    if args.hash == "dct" and args.hash_size not in (None, 16):
        raise UsageError("--hash-size is for the hashes of imagehash; add --hash phash, or leave it out.")
    if args.hash_size and not (4 <= args.hash_size <= 32 and args.hash_size % 4 == 0):
        raise UsageError("--hash-size is a multiple of 4 from 4 to 32; the hash has its square in bits.")
    if args.hash == "whash" and args.hash_size and args.hash_size & (args.hash_size - 1):
        raise UsageError("--hash whash takes a --hash-size of 4, 8, 16 or 32.")
    _check_threshold(args)
    if (args.near_query is not None or args.far_query is not None) and args.hash != "dct":
        raise UsageError("--near-query and --far-query count bits of the built-in hash; leave out --hash.")


def _check_leak(args: Namespace) -> None:
    if not args.leak:
        return
    if len(args.folders) != 2:
        raise UsageError("--leak compares two folders, such as train and test; name both.")
    moving = ("apply", "decisions", "near_query", "far_query")
    if named := [f"--{name.replace('_', '-')}" for name in moving if getattr(args, name) is not None]:
        raise UsageError(
            f"--leak moves nothing, so leave out {', '.join(named)}; to take what the second folder shares with the"
            " first, name the second and give the first as --reference."
        )


def _check_places(args: Namespace) -> None:
    for folder in (*args.folders, *args.protect, *args.reference):
        if not folder.exists():
            raise UsageError(f"{folder} does not exist; modes are {', '.join(MODES)}, the rest are folders.")
    if not args.folders and not (args.workspace / "gleaner.db").exists():
        raise UsageError(f"there is no database in {args.workspace}; run 5_download.py first, or name a folder.")


def _check_threshold(args: Namespace) -> None:
    most = 64 if args.hash == "dct" else (args.hash_size or 8) ** 2 // 4
    if args.threshold is not None and args.threshold > most:
        raise UsageError(f"--threshold {args.threshold} is more than {most}: distinct pictures begin to match.")
