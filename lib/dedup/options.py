"""The flags of step 6: the rules across them, checked before anything is touched, and the value made of them."""

from __future__ import annotations

import os
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path

from lib.arguments import require_folder_of, values_of
from lib.dedup.grouping import STRENGTH
from lib.errors import EXIT_INCOMPLETE, UsageError
from lib.text import did_you_mean

MODES = ("exact", "similar", "filename", "semantic", "all")
KINDS = (*STRENGTH, "none")
KEEP = ("best", "largest", "oldest", "newest", "first")
HASHES = ("dct", "phash", "dhash", "ahash", "whash")
OF_ONE_RUN = frozenset({"mode", "interactive", "plan", "apply", "decisions", "restore", "purge", "format"})
EXIT_LEAK = EXIT_INCOMPLETE  # finished, but what was asked for does not hold
REMOVED = ("bytes", "pixels", "same")
# Of the cosine between two pictures' embeddings. Two views of one object lie above it with the default model, unlike
# pictures of one kind of thing mostly below; other models have other scales.
LEAST_COSINE = 0.93


@dataclass(frozen=True)
class DedupOptions:
    """The options of a run: the flags of the same names, and

    references     folders that are only compared against
    removed        the kinds of repeat that are moved away
    removal_limit  the share of the files that may go; None for the usual one
    again          the words of the command that follows decisions on what is shown; none where none can be
    restoring      the words of the one that brings single pictures back
    """

    mode: str
    folders: list[Path]
    hash: str
    hash_size: int | None
    threshold: int | None
    references: list[Path]
    near_query: int | None
    far_query: int | None
    leak: bool
    clip_model: str
    models_dir: Path | None
    device: str
    least_cosine: float
    removed: frozenset[str]
    keep: str
    protect: list[Path]
    removal_limit: float | None
    link: str | None
    interactive: bool
    plan: Path | None
    apply: Path | None
    decisions: Path | None
    restore: list[str]
    page: Path | None
    again: list[str]
    restoring: list[str]
    quiet: bool
    limit: int | None
    workers: int
    executor: str

    @property
    def asks_queries(self) -> bool:
        """True where files go for what they have to do with the query pictures."""
        return self.near_query is not None or self.far_query is not None


def options_from(args: Namespace, command: list[str]) -> DedupOptions:
    """Returns the options that checked arguments say.

    `command` are the words that run the step again with the flags of this run, the workspace last.
    """
    values = values_of(args, DedupOptions)
    words = [args.mode, *(os.path.abspath(folder) for folder in args.folders)]
    values["again"] = [] if args.leak else [*command[:2], *words, *command[2:]]
    values["restoring"] = [*command[:2], *command[-2:]]
    values["references"] = args.reference
    values["removed"] = frozenset() if args.leak else frozenset(args.remove) - {"none"}
    values["removal_limit"] = args.max_share
    if args.least_cosine is None:
        values["least_cosine"] = LEAST_COSINE
    return DedupOptions(**values)


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
    require_folder_of(args.plan, "--plan")
    require_folder_of(args.page, "--page")
    _check_leak(args)
    _check_restore(args)
    if args.hash == "dct" and args.hash_size not in (None, 16):
        raise UsageError("--hash-size is for the hashes of imagehash; add --hash phash, or leave it out.")
    if args.hash_size and not (4 <= args.hash_size <= 32 and args.hash_size % 4 == 0):
        raise UsageError("--hash-size is a multiple of 4 from 4 to 32; the hash has its square in bits.")
    if args.hash == "whash" and args.hash_size and args.hash_size & (args.hash_size - 1):
        raise UsageError("--hash whash takes a --hash-size of 4, 8, 16 or 32.")
    most = 64 if args.hash == "dct" else (args.hash_size or 8) ** 2 // 4
    if args.threshold is not None and args.threshold > most:
        raise UsageError(f"--threshold {args.threshold} is more than {most}: distinct pictures begin to match.")
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


def _check_restore(args: Namespace) -> None:
    others = ("undo", "purge", "plan", "apply", "decisions", "leak")
    if args.restore and (named := [f"--{name}" for name in others if getattr(args, name)]):
        raise UsageError(f"--restore brings pictures back and does nothing else; leave out {', '.join(named)}.")


def _check_places(args: Namespace) -> None:
    for folder in (*args.folders, *args.protect, *args.reference):
        if not folder.exists():
            meant = did_you_mean(str(folder), MODES)
            raise UsageError(f"{folder} does not exist; modes are {', '.join(MODES)}, the rest are folders.{meant}")
    if not args.folders and not (args.workspace / "gleaner.db").exists():
        raise UsageError(f"there is no database in {args.workspace}; run 5_download.py first, or name a folder.")
