"""The options of a run: one frozen value that travels from the command line to every worker process."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field, replace
from pathlib import Path

from lib.arguments import values_of
from lib.db.download_queue import KINDS, PENDING, ROBOTS_TXT, Recheck, Scope
from lib.domains import DomainLists, read_lists
from lib.net.guard import PORT_REFUSED, PRIVATE_ADDRESS
from lib.net.request import FetchLimits
from lib.work.memory import DECODER_BYTES

OBEY, IGNORE = "obey", "ignore"
# The kinds of address that each stage asks, best first.
STAGES: dict[str, tuple[str, ...]] = {
    "all": KINDS,
    "thumbs": ("thumb", "preview"),
    "originals": ("original", "preview", "dup"),
}
SMALLEST_WINDOW = 64


@dataclass(frozen=True)
class PictureLimits:
    """The largest picture that is kept, in pixels; all frames of an animation together may have ten times as many."""

    max_pixels: int = 200_000_000

    @property
    def max_frame_pixels(self) -> int:
        return 10 * self.max_pixels


@dataclass(frozen=True)
class VerifyLimits:
    """The most that decoding one picture may cost in a worker process: seconds, and bytes of address space."""

    seconds: float = 20.0
    memory: int = DECODER_BYTES


@dataclass(frozen=True)
class DownloadOptions:
    """The options of a run. `limit` is the most rows it takes on; `share` the processes that divide a host's limit."""

    limits: FetchLimits = field(default_factory=FetchLimits)
    pictures: PictureLimits = field(default_factory=PictureLimits)
    concurrency: int = 64
    per_host: int = 6
    per_domain: int = 12
    retries: int = 2
    backoff: float = 1.0
    limit: int | None = None
    allow_private: bool = False
    exempt: frozenset[str] = frozenset()  # single addresses that are let through, on any port
    contact: str = ""
    min_free: int = 0
    robots: str = IGNORE
    lists: DomainLists = field(default_factory=DomainLists)  # of domains that may not, or alone may, be asked
    stage: str = "all"
    again: Recheck = field(default_factory=Recheck)
    verify: VerifyLimits | None = None
    strip_trailing: bool = False
    to: str = ""
    sidecar: bool = False
    shard: int = 0
    shards: int = 1
    placeholders: Path | None = None
    workers: int = 1
    share: int = 1
    window: int = 2000

    @property
    def kinds(self) -> tuple[str, ...]:
        return STAGES[self.stage]

    @property
    def sources(self) -> tuple[str, ...]:
        """The kinds of row that a run claims, in this order: pending ones, then those that are rechecked."""
        return (() if self.again.kept else (PENDING,)) + self.again.rechecks

    @property
    def scope(self) -> Scope:
        return Scope(self.kinds if self.stage != "all" else (), self.shard, self.shards)

    def divided(self, due: int) -> list[DownloadOptions]:
        """The options of each worker: no more workers than a host bears, and a window that leaves rows for all."""
        count = max(1, min(self.workers, self.per_host, due))
        window = max(SMALLEST_WINDOW, min(self.window, due // (4 * count)))
        limits: list[int | None] = [None] * count
        if self.limit is not None:
            limits = [self.limit // count + (place < self.limit % count) for place in range(count)]
        return [replace(self, share=count, window=window, limit=limit) for limit in limits if limit != 0]


def _lifted(*, allow_private: bool, robots: str) -> tuple[str, ...]:
    """The refusals that flags lift. Those of the user's own lists are lifted by a change that no flag shows."""
    private = (PRIVATE_ADDRESS, PORT_REFUSED) if allow_private else ()
    return private if robots == OBEY else (*private, ROBOTS_TXT)


def options_from(args: argparse.Namespace, contact: str) -> DownloadOptions:
    """The options that a command line asks for. Raises UsageError for a list of domains that cannot be read."""
    shard, shards = args.shard
    again = Recheck(
        None if args.retry_failed is None else tuple(args.retry_failed),
        refresh=args.refresh,
        upgrade=args.upgrade,
        untried=args.stage == "originals",
        kept=args.only == "kept",
        lifted=_lifted(allow_private=args.allow_private, robots=args.robots),
    )
    given = values_of(args, DownloadOptions) | {
        "limits": FetchLimits(args.timeout, args.deadline, args.max_bytes, args.min_speed),
        "pictures": PictureLimits(args.max_megapixels * 1_000_000),
        "contact": contact,
        "lists": read_lists(args.blocklist, args.allowlist),
        "again": again,
        "verify": VerifyLimits() if args.verify else None,
        "sidecar": args.sidecar == "json",
        "shard": shard,
        "shards": shards,
    }
    return DownloadOptions(**given)
